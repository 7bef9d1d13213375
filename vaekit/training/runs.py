"""What a training run keeps on disk: one file to resume from, and one file for each epoch that is kept."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.training import distributed
from vaekit.training.checkpoints import ensure_writable, load_checkpoint, save_checkpoint

Weights = dict[str, dict[str, Tensor]]  # a state dictionary for the model and, where it is a module, the objective


@dataclass
class Log:
    """What a run has to remember beside its weights: the numbers so far, the files written, and the best weights."""

    epoch: int = 0
    step: int = 0
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    best: Weights | None = None


def weights_of(trained: dict[str, nn.Module]) -> Weights:
    """A copy of the parameters and buffers."""
    return {name: {k: v.detach().clone() for k, v in m.state_dict().items()} for name, m in trained.items()}


def restore(trained: dict[str, nn.Module], weights: dict[str, Any]) -> None:
    """Put weights back."""
    for name, module in trained.items():
        module.load_state_dict(weights[name])


def write_epoch(
    folder: Path, log: Log, weights: Weights, optim: torch.optim.Optimizer, settings: dict[str, Any], *, keep: bool
) -> None:
    """Write `last.pt`, from which the run resumes, and before it, if `keep`, this epoch's own file."""
    content = {f.name: getattr(log, f.name) for f in fields(log) if f.name != "best"}
    content |= {"lr": settings["lr"], "objective": {}} | weights
    if keep:
        name = f"epoch-{log.epoch:04d}.pt"
        save_checkpoint(folder / name, content)
        log.files.append(name)
    resumable = {"best": log.best, "optimizer": optim.state_dict(), "settings": settings}
    save_checkpoint(folder / "last.pt", content | resumable)


def open_run(
    folder: Path, settings: dict[str, Any], trained: dict[str, nn.Module], optim: torch.optim.Optimizer,
    *, resume: bool, writes: bool,
) -> Log:  # fmt: skip
    """Make the folder ready; if a run is to be resumed there, load its state and return its log.

    Args:
        folder: Where the run's files are or will be.
        settings: What must not change when a run resumes.
        trained: The modules to load into.
        optim: Their optimiser.
        resume: Whether to go on from `last.pt`.
        writes: Whether this process is the one that writes.

    Raises:
        ValueError: The folder holds a run with other settings, or of another model.
        OSError: The folder cannot be written.
    """
    ensure_writable(folder)
    last, log = folder / "last.pt", Log()
    if resume and last.exists():
        state = load_checkpoint(last)
        before = state.get("settings") or {}
        if other := {k: before.get(k) for k, v in settings.items() if before.get(k) != v}:
            raise ValueError(
                f"checkpoints: {folder} holds a run with other settings ({other}); take another folder, or resume=False"
            )
        try:
            restore(trained, state)
            optim.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"checkpoints: {folder} holds a run of another model or objective: {error}") from error
        log = Log(**{f.name: state[f.name] for f in fields(Log)})
    elif writes:
        last.unlink(missing_ok=True)
    distributed.barrier()
    return log
