"""What a call asks for: checkpoints, parameters and the seeds of the noise, checked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.training.checkpoints import load_checkpoint

Checkpoint = Path | str | dict[str, Any]
Objective = Callable[..., Tensor]


class Options(TypedDict, total=False):
    """Keywords of `tracin`, which says what they mean."""

    samples: int
    unbiased: bool
    layers: Sequence[str] | None
    path: str
    chunk: int | None
    seed: int
    progress: bool
    resume: Path | str | None


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """The `model`, `objective` and `lr` of a file or a dictionary.

    Raises:
        ValueError: One is missing, or the learning rate is not above 0.
    """
    state = checkpoint if isinstance(checkpoint, dict) else load_checkpoint(checkpoint)
    if missing := {"model", "lr"} - state.keys():
        raise ValueError(f"checkpoints: expected 'model' (a state dictionary) and 'lr', got none of {sorted(missing)}")
    checks.positive(state["lr"], "checkpoints: lr")
    return {"model": state["model"], "objective": state.get("objective", {}), "lr": float(state["lr"])}


def parameters_that_count(model: nn.Module, objective: Objective, layers: Sequence[str] | None) -> list[str]:
    """Names, as `Scored` has them, of the trainable parameters in `layers` (`None`: all).

    Raises:
        ValueError: One of `layers` has no trainable parameter, or there is none at all.
    """
    names = [f"model.{name}" for name, p in model.named_parameters() if p.requires_grad]
    if isinstance(objective, nn.Module):
        names += [f"objective.{name}" for name, p in objective.named_parameters() if p.requires_grad]
    if layers is not None:
        chosen = set()
        for layer in [layers] if isinstance(layers, str) else layers:
            inside = {name for name in names if f"{name.removeprefix('model.')}.".startswith(f"{layer}.")}
            if not inside:
                known = ", ".join(sorted({name.removeprefix("model.").rpartition(".")[0] for name in names}))
                raise ValueError(f"layers: expected names among or within {known}; got {layer!r}")
            chosen |= inside
        names = [name for name in names if name in chosen]
    if not names:
        raise ValueError("layers: expected at least one trainable parameter, got none")
    return names


def noise_seeds(seed: int, checkpoints: int, samples: int, *, unbiased: bool) -> list[list[list[int]]]:
    """For each checkpoint the seeds of its draws: in two independent halves, or all in one list."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(2**62, (checkpoints, samples), generator=generator).tolist()
    half = -(-samples // 2)
    return [[row[:half], row[half:]] if unbiased else [row] for row in rows]
