"""The store of runs: one file for each result, under a digest of all that it depends on.

The folder is `$VAEKIT_RUNS`, or else `runs` in the user's cache folder. A file is written whole or not at all, bears
the digest of its content, and is read without running any code that it might carry; two processes may share a store.
`VAEKIT_FRESH=1` leaves what is in it aside and computes anew.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vaekit.notebook.encoding import decode, encode
from vaekit.training.devices import default_device, device_name

LIBRARY = 1  # to be raised when the library's objectives or scores give other numbers than before
FORMAT = "vaekit-run-1"


@dataclass
class Ledger:
    """What this process has taken from the store and added to it."""

    found: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of computing time that what was found once took


ledger = Ledger()


def folder() -> Path:
    """Where the entries are; it is made if need be.

    Raises:
        OSError: It cannot be made.
    """
    named = os.environ.get("VAEKIT_RUNS")
    if named:
        path = Path(named).expanduser()
    else:
        import pooch

        path = Path(os.environ.get("VAEKIT_CACHE") or pooch.os_cache("vaekit")).expanduser() / "runs"
    path.mkdir(parents=True, exist_ok=True)
    return path


def fresh() -> bool:
    """Whether `VAEKIT_FRESH` asks to leave the store aside."""
    return os.environ.get("VAEKIT_FRESH", "0") not in ("", "0")


def stem(name: str, key: str) -> str:
    """How the files of a piece of work begin: its name, made fit for a file, and the beginning of its digest."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')[:60]}.{key[:24]}"


def say(message: str, **event: Any) -> None:
    """Tell the reader a line; under `make experiments` write it to the run's own record, not into the stored page."""
    if record := os.environ.get("VAEKIT_PROGRESS"):
        line = json.dumps({"message": message, **event}) + "\n"
        with Path(record).open("a", encoding="utf-8") as stream:
            stream.write(line)
    elif message:
        in_notebook = "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
        print(message, file=sys.stdout if in_notebook else sys.stderr, flush=True)


def shown() -> bool:
    """Whether progress is shown here; under `make experiments` it is shown by that, outside the page."""
    return "VAEKIT_PROGRESS" not in os.environ


def write(path: Path, name: str, key: str, value: Any, *, seconds: float, **more: Any) -> dict[str, Any]:
    """Keep a value; what was at `path` stays until the new entry is whole.

    Raises:
        ValueError: The value holds something that cannot be kept.
        OSError: The disk is full or not to be written; nothing that was finished is lost.
    """
    buffer = io.BytesIO()
    torch.save(encode(value, name), buffer)
    origin = {
        "name": name, "key": key, "seconds": round(seconds, 3), "device": device_name(),
        "kind": default_device().type, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "library": LIBRARY,
    }  # fmt: skip
    origin |= {"torch": torch.__version__, **more}
    body = json.dumps(origin).encode() + b"\n" + buffer.getvalue()
    for orphan in path.parent.glob(".unfinished-*"):  # of a process that was killed while it wrote
        with contextlib.suppress(OSError):
            if time.time() - orphan.stat().st_mtime > 3600:
                orphan.unlink()
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(f"{FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body)
            stream.flush()
            os.fsync(stream.fileno())
        Path(unfinished).replace(path)
    except OSError as error:
        message = f"{name}: the result could not be kept ({error.strerror}); what was kept before is not lost"
        raise OSError(error.errno, message, str(path)) from error
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return origin


def read(path: Path, key: str) -> tuple[Any, dict[str, Any]] | None:
    """An entry's value and where it is from; None where there is none, or where it is not fit to be used (and says so).

    What was computed on another kind of device is taken where this one has nothing of its own.
    """
    if fresh():
        return None
    others = sorted(path.parent.glob(f"{path.name.rsplit('.', 2)[0]}.*.run"), key=lambda other: other != path)
    for candidate in others:
        try:
            origin, content = _open(candidate)
            if origin.get("key") != key:
                raise ValueError("it belongs to something else")
            return decode(torch.load(io.BytesIO(content), map_location=_here, weights_only=True)), origin
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            say(f"{candidate.name}: not to be used ({reason}); it is computed anew")
    return None


def origin_of(path: Path) -> dict[str, Any]:
    """Where an entry is from, without its value.

    Raises:
        ValueError: It is no entry, or a damaged one.
        OSError: It cannot be read.
    """
    return _open(path)[0]


def file(name: str, key: str) -> Path:
    """The file of a finished piece of work, as computed on this kind of device."""
    return folder() / f"{stem(name, key)}.{default_device().type}.run"


def taken(name: str, origin: dict[str, Any], path: Path, **more: Any) -> None:
    """Note that something was found, and say so."""
    ledger.found.append(name)
    ledger.seconds += origin["seconds"]
    say(
        f"{name}: found; it took {duration(origin['seconds'])} on {origin['device']}, {origin['date']}",
        event="found", name=name, seconds=origin["seconds"], path=str(path), **more,
    )  # fmt: skip


def done(name: str, how: str, seconds: float, path: Path, **more: Any) -> None:
    """Say that something has been computed and is kept."""
    event = {"event": "end", "name": name, "seconds": seconds, "path": str(path), **more}
    say(f"{name}: {how} in {duration(seconds)}", **event)


def duration(seconds: float) -> str:
    """A time in words: seconds, minutes or hours.

    Example:
        >>> duration(4.2), duration(200), duration(10_000)
        ('4.2 s', '3.3 min', '2.8 h')
    """
    unit, size = ("s", 1) if seconds < 100 else ("min", 60) if seconds < 6000 else ("h", 3600)
    return f"{seconds / size:.1f} {unit}"


def _open(path: Path) -> tuple[dict[str, Any], bytes]:
    head, _, body = path.read_bytes().partition(b"\n")
    words = head.decode("ascii", "replace").split(" ")
    if len(words) != 2 or not words[0].startswith("vaekit-run-"):
        raise ValueError("it is not an entry of the store")
    if words[0] != FORMAT:
        raise ValueError(f"it is of another version, {words[0]}")
    if words[1] != hashlib.sha256(body).hexdigest():
        raise ValueError("it is cut off or damaged")
    line, _, content = body.partition(b"\n")
    return json.loads(line), content


def _here(storage: Any, location: str) -> Any:
    """Bring a tensor that was on a GPU back to one, where there is one, else to the CPU."""
    return storage.cuda() if location.startswith("cuda") and torch.cuda.is_available() else storage
