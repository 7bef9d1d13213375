"""What a call asks for: checkpoints, parameters and the seeds of the noise, checked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from vaekit import checks
from vaekit.influence.scored import Scored, first_of_batch
from vaekit.training.checkpoints import load_checkpoint
from vaekit.training.objectives import strangers
from vaekit.training.probes import check_one_by_one
from vaekit.training.seeding import seeded

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


def read_checkpoints(checkpoints: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """The `model`, `objective` and `lr` of each.

    Raises:
        ValueError: It is no list or tuple of files and dictionaries, or empty; and as `read_checkpoint`.
    """
    if isinstance(checkpoints, str | Path | dict) or not isinstance(checkpoints, Sequence):
        raise ValueError(f"checkpoints: expected a list of files or dictionaries, got {checkpoints!r}")
    if not checkpoints:
        raise ValueError("checkpoints: expected at least one, got none")
    return [read_checkpoint(checkpoint) for checkpoint in checkpoints]


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """The `model`, `objective` and `lr` of a file or a dictionary.

    Raises:
        ValueError: One is missing, or the learning rate is not above 0.
    """
    if not isinstance(checkpoint, dict | str | Path):
        raise ValueError(f"checkpoints: expected files or dictionaries, got a {type(checkpoint).__name__}")
    state = checkpoint if isinstance(checkpoint, dict) else load_checkpoint(checkpoint)
    if missing := {"model", "lr"} - state.keys():
        raise ValueError(f"checkpoints: expected 'model' (a state dictionary) and 'lr', got none of {sorted(missing)}")
    checks.positive(state["lr"], "checkpoints: lr")
    return {"model": state["model"], "objective": state.get("objective", {}), "lr": float(state["lr"])}


def parameters_that_count(scored: Scored, layers: Sequence[str] | None) -> list[str]:
    """Names, as `Scored` has them, of the trainable parameters in `layers` (`None`: all).

    A parameter that several layers share counts, with all its uses, if one of them is chosen.

    Raises:
        ValueError: One of `layers` has no trainable parameter, or there is none at all.
    """
    names = dict.fromkeys(scored.trainable.values())
    if layers is not None:
        chosen = set()
        for layer in [layers] if isinstance(layers, str) else layers:
            inside = {
                first for name, first in scored.trainable.items()
                if f"{name.removeprefix('model.')}.".startswith(f"{layer}.")
            }  # fmt: skip
            if not inside:
                known = ", ".join(sorted({name.removeprefix("model.").rpartition(".")[0] for name in scored.trainable}))
                raise ValueError(f"layers: expected names among or within {known}; got {layer!r}")
            chosen |= inside
        names = {name: None for name in names if name in chosen}
    if not names:
        raise ValueError("layers: expected at least one trainable parameter, got none")
    return list(names)


def check_objective(scored: Scored, names: Sequence[str], images: Tensor) -> None:
    """Refuse an objective that is no function of one image, the noise and the parameters that are known.

    Raises:
        ValueError: It looks at other images, draws noise that cannot be repeated, or has parameters that are not found.
    """
    check_one_by_one(lambda x, seed: first_of_batch(scored, names, x, seed), images)
    with torch.enable_grad(), seeded(0, images.device):
        unknown = strangers(scored(images[:1]), ())  # known parameters are frozen
    if unknown:
        raise ValueError(
            f"objective: expected its parameters in the model or in the objective itself, got others, of shapes "
            f"{unknown}; pass a module that it uses as an argument (functools.partial), or freeze it"
        )


def noise_seeds(seed: int, checkpoints: int, samples: int, *, unbiased: bool) -> list[list[list[int]]]:
    """For each checkpoint the seeds of its draws: in two independent halves, or all in one list."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(2**62, (checkpoints, samples), generator=generator).tolist()
    half = -(-samples // 2)
    return [[row[:half], row[half:]] if unbiased else [row] for row in rows]
