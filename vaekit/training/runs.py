"""What a training run keeps on disk: one file to resume from, and one file for each epoch that is kept."""

import contextlib
import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.training import distributed
from vaekit.training.ascent import Ascent, Weights
from vaekit.training.checkpoints import ensure_writable, load_checkpoint, save_checkpoint


@dataclass
class Log:
    """What a run has to remember beside its weights: the numbers so far, the files written, and the best weights."""

    epoch: int = 0
    step: int = 0
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    best: Weights | None = None

    def is_over(self, epochs: int, patience: int | None) -> bool:
        """Whether there is nothing left to train."""
        return self.epoch >= epochs or self.has_stalled(patience)

    def has_stalled(self, patience: int | None) -> bool:
        """Whether `patience` epochs have gone by without a gain on the validation images."""
        return patience is not None and bool(self.validation) and self.epochs_without_gain() >= patience

    def epochs_without_gain(self) -> int:
        """Epochs since the best one on the validation images; 0 if the last one is the (first) best."""
        return len(self.validation) - 1 - self.validation.index(max(self.validation))


class Run:
    """A run's folder: `last.pt`, from which it resumes, and `epoch-0001.pt`, ...; without a folder, no files at all.

    Args:
        folder: Where the run's files are or will be, or None.
        settings: What must not change when a run resumes, by name.
        every: Epochs between two `epoch-*.pt`.
    """

    def __init__(self, folder: Path | str | None, settings: dict[str, Any], *, every: int) -> None:
        """See the class."""
        self.folder = None if folder is None else Path(folder)
        self.settings, self.every = settings, every
        self.known: set[str] = set()  # digests of the weights that this run began with, or was left with

    def open(self, ascent: Ascent, *, resume: bool, epochs: int, patience: int | None) -> Log:
        """Make the folder ready; if a run is to be resumed there, load its state into `ascent` and return its log.

        Raises:
            ValueError: The folder holds a run with other settings, of another model, or from other weights.
            OSError: There is something left to train, and the folder cannot be written.
        """
        log = Log()
        if self.folder is None:
            return log
        last = self.folder / "last.pt"
        here = digest(ascent.weights())
        if resume and last.exists():
            log = self._resumed(last, ascent, here)
        else:
            self.known = {here}
        if not log.is_over(epochs, patience):
            ensure_writable(self.folder)
            if not log.epoch and ascent.rank == 0:
                last.unlink(missing_ok=True)
        distributed.barrier()
        return log

    def write(self, log: Log, weights: Weights, ascent: Ascent) -> None:
        """Write `last.pt` after an epoch, and before it, if its turn has come, the epoch's own file."""
        if self.folder is None or ascent.rank > 0:
            return
        content = {f.name: getattr(log, f.name) for f in fields(log) if f.name != "best"}
        content |= {"lr": self.settings["lr"], "objective": {}} | weights
        if log.epoch % self.every == 0:
            name = f"epoch-{log.epoch:04d}.pt"
            save_checkpoint(self.folder / name, content)
            log.files.append(name)
        resumable = {"best": log.best, "optimizer": ascent.optim.state_dict(), "scaler": ascent.scaler.state_dict()}
        identity = {"settings": self.settings, "known": sorted(self.known)}
        save_checkpoint(self.folder / "last.pt", content | resumable | identity)

    def note(self, ascent: Ascent) -> None:
        """Remember the weights that the caller's model is left with, so that the run goes on if it comes back."""
        if self.folder is None or ascent.rank > 0 or not (self.folder / "last.pt").exists():
            return
        with contextlib.suppress(OSError, ValueError):  # a kindness: nothing depends on it
            state = load_checkpoint(self.folder / "last.pt")
            if (left := digest(ascent.weights())) not in _digests(state):
                save_checkpoint(self.folder / "last.pt", state | {"known": sorted({*state["known"], left})})

    def _resumed(self, last: Path, ascent: Ascent, here: str) -> Log:
        state = load_checkpoint(last)
        before = state.get("settings") or {}
        if other := [_change(k, before.get(k), v) for k, v in self.settings.items() if before.get(k) != v]:
            raise ValueError(
                f"checkpoints: {self.folder} holds another run ({', '.join(other)}); take another folder, or "
                "resume=False"
            )
        self.known = set(state["known"])
        if here not in _digests(state):
            raise ValueError(
                f"checkpoints: {self.folder} holds a run that began with other weights; make the model (and the "
                "objective) under the same seed again, or give the model those of the run's last.pt, or take another "
                "folder, or resume=False"
            )
        try:
            ascent.restore(state)
            ascent.optim.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"checkpoints: {self.folder} holds a run of another model or objective: {error}"
            ) from error
        if ascent.scaler.is_enabled():
            ascent.scaler.load_state_dict(state["scaler"])
        return Log(**{f.name: state[f.name] for f in fields(Log)})


def digest(weights: dict[str, dict[str, Tensor]] | Tensor) -> str:
    """A fingerprint of tensors: of their names, shapes, types and bytes."""
    if isinstance(weights, Tensor):
        weights = {"": {"": weights}}
    found = hashlib.blake2b(digest_size=16)
    for group, tensors in weights.items():
        for name, tensor in tensors.items():
            found.update(repr((group, name, tensor.shape, tensor.dtype)).encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _digests(state: dict[str, Any]) -> set[str]:
    """Of all weights that the run in a file has begun with, been left with, or holds."""
    groups = {name: state[name] for name in ("model", "objective") if state[name]}
    held = [weights for weights in (groups, state["best"]) if weights]
    return {*state["known"], *map(digest, held)}


def _change(name: str, before: object, now: object) -> str:
    digests = any(isinstance(value, str) and len(value) == 32 for value in (before, now))
    return f"another {name}" if digests else f"{name} {before!r} instead of {now!r}"
