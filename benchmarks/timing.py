"""Competitors timed in turns, in one process, so that whatever else the machine does touches all of them alike."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from vaekit.notebook import markdown_table
from vaekit.training import device_name

RESULTS = Path(__file__).parent / "results"


def interleaved(competitors: dict[str, Callable[[], object]], *, repeats: int, warm_up: int = 2) -> dict[str, float]:
    """Median seconds a call of each competitor, called in turns."""
    for _ in range(warm_up):
        for call in competitors.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(repeats):
        for name, call in competitors.items():
            began = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(topic: str, header: list[str], rows: list[list[object]], note: str = "") -> None:
    """Print the table of one benchmark and keep it, with where it was measured, in `results/<topic>.json` and `.md`."""
    device = device_name()
    provenance = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": device,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    table = markdown_table(header, rows)
    text = f"{table}\n\n{note}\n\nMeasured {provenance['date']} on {device}, torch {torch.__version__}.\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{topic}.md").write_text(text, encoding="utf-8")
    record = {"topic": topic, **provenance, "header": header, "rows": rows, "note": note}
    (RESULTS / f"{topic}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(text)
