"""What a chapter's run tells while it goes: what was found in the store, what is computed, and how long it may take."""

import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from vaekit.notebook import store


class Progress:
    """Follows the record that a kernel or script writes into `$VAEKIT_PROGRESS`, and prints its lines.

    The seconds of every piece of work are remembered in the store, by chapter and profile, so that the next run can say
    how long it has still to go.

    Args:
        label: Chapter and profile.

    Attributes:
        events: What has been told, in order.
    """

    def __init__(self, label: str) -> None:  # noqa: D107
        self.label, self.events = label, list[dict[str, Any]]()
        self.times = store.folder() / "times.json"
        self.known: dict[str, float] = self._read().get(label, {})

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self.times.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def __enter__(self) -> Self:  # noqa: D105
        handle, name = tempfile.mkstemp(prefix="vaekit-progress-")
        os.close(handle)
        self.record, self.offset, self.over = Path(name), 0, threading.Event()
        self.before = os.environ.get("VAEKIT_PROGRESS")
        os.environ["VAEKIT_PROGRESS"] = name
        if self.known:
            print(f"{self.label}: {len(self.known)} pieces, {store.duration(sum(self.known.values()))} in the last run")
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        self.over.set()
        self.thread.join()
        self._look()
        self.record.unlink(missing_ok=True)
        os.environ.pop("VAEKIT_PROGRESS")
        if self.before is not None:
            os.environ["VAEKIT_PROGRESS"] = self.before
        content = self._read()
        content[self.label] = self.known | self.seconds
        unfinished = self.times.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
        unfinished.replace(self.times)

    @property
    def seconds(self) -> dict[str, float]:
        """Computing time of each piece that is finished, in this run or before."""
        return {e["name"]: e["seconds"] for e in self.events if e.get("event") in ("end", "found")}

    @property
    def found(self) -> float:
        """Computing time that went into what was found."""
        return sum(e["seconds"] for e in self.events if e.get("event") == "found")

    def left(self) -> str:
        """How long the pieces that are known from an earlier run and not yet done took then."""
        rest = [seconds for name, seconds in self.known.items() if name not in self.seconds]
        return f"; {len(rest)} pieces to come, about {store.duration(sum(rest))}" if rest else ""

    def _follow(self) -> None:
        while not self.over.wait(0.5):
            self._look()

    def _look(self) -> None:
        with self.record.open(encoding="utf-8") as stream:
            stream.seek(self.offset)
            lines = stream.readlines()
            if lines and not lines[-1].endswith("\n"):
                lines.pop()
            self.offset += sum(len(line.encode()) for line in lines)
        for line in lines:
            event = json.loads(line)
            self.events.append(event | {"at": time.time()})
            if event.get("event") == "step":
                print(f"  {event['name']}: {event['done']} of {event['total']}", flush=True)
            elif event.get("event") == "start":
                usual = self.known.get(event["name"])
                words = event["message"] or f"{event['name']}: computing"
                print(words + (f" (took {store.duration(usual)} before)" if usual else ""), flush=True)
            elif event["message"]:
                print(event["message"] + self.left(), flush=True)
