"""How large an experiment is (its profile), and what it found, with where the numbers come from.

The environment variable `VAEKIT_PROFILE` names the scale: `smoke` (under a minute, no network; what the tests run),
`cpu` (minutes on two cores), `night` (two hours on two cores), `gpu` (minutes on a Colab GPU) or `paper` (the paper's
own scale).
"""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from types import EllipsisType
from typing import Any, TypeVar

import torch

from vaekit.notebook import store
from vaekit.training.devices import device_name

PROFILES = ("smoke", "cpu", "night", "gpu", "paper")  # from the least to the best

T = TypeVar("T")
_started = perf_counter()


def profile() -> str:
    """The profile in force: `$VAEKIT_PROFILE`; where it is not set, `gpu` if there is a CUDA device, else `cpu`.

    Raises:
        ValueError: `VAEKIT_PROFILE` names no profile.
    """
    name = os.environ.get("VAEKIT_PROFILE") or ("gpu" if torch.cuda.is_available() else "cpu")
    if name not in PROFILES:
        raise ValueError(f"VAEKIT_PROFILE: expected one of {', '.join(PROFILES)}, got {name!r}")
    return name


def pick(*, smoke: T, cpu: T, gpu: T, paper: T, night: T | EllipsisType = ...) -> T:
    """The value for the profile in force; for `night`, where it is not given, that of `cpu`.

    Example:
        >>> epochs = pick(smoke=1, cpu=10, gpu=100, paper=2000)
        >>> epochs in (1, 10, 100, 2000)
        True
    """
    between = cpu if isinstance(night, EllipsisType) else night
    return {"smoke": smoke, "cpu": cpu, "night": between, "gpu": gpu, "paper": paper}[profile()]


def save_results(chapter: str, values: dict[str, Any]) -> None:
    """Write what a chapter found, with its provenance, to `<folder>/<chapter>/<profile>.json`.

    The folder is `$VAEKIT_RESULTS`, or else `book/results` of the repository that the working directory lies in, or
    else (as on Colab, and for the `smoke` profile, whose numbers mean nothing) `_build/results`.

    Provenance: profile, device, date (UTC), commit, versions, the seconds since `vaekit` was imported together with
    those that went into what was found in the store of runs, and what `$VAEKIT_NOTE` says, such as that the machine was
    busy.

    Args:
        chapter: The notebook's name, such as `01_vae`.
        values: Plain numbers, strings, lists and dictionaries of them; NumPy and torch scalars are converted.
    """
    name = profile()
    record = {
        "chapter": chapter,
        "profile": name,
        "device": device_name(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "seconds": round(perf_counter() - _started + store.ledger.seconds),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "values": _plain(values),
    }
    if note := os.environ.get("VAEKIT_NOTE"):
        record["note"] = note
    path = _results_folder(name) / chapter / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def load_results(chapter: str, folder: Path | str | None = None) -> dict[str, Any] | None:
    """The record of the best profile that a chapter has results from, or `None` where it has none.

    Args:
        chapter: The notebook's name.
        folder: Where to look; by default where `save_results` writes.
    """
    for name in reversed(PROFILES):
        path = Path(folder or _results_folder(name)) / chapter / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def tell(markdown: str) -> None:
    """Show Markdown: rendered in a notebook, printed in a plain script."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        display = sys.modules["IPython"].display
        display.display(display.Markdown(markdown))
    else:
        print(markdown)


def _results_folder(name: str) -> Path:
    if folder := os.environ.get("VAEKIT_RESULTS"):
        return Path(folder)
    here = Path.cwd()
    for root in (here, *here.parents):
        if (root / "book" / "_toc.yml").is_file():
            return root / "_build" / "results" if name == "smoke" else root / "book" / "results"
    return here / "_build" / "results"


def _commit() -> str:
    """The commit checked out, with `+` where tracked files differ from it; `unknown` outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _plain(value: Any) -> Any:
    """JSON's own types; a NaN or infinity becomes `None`."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
