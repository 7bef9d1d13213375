"""What `fit` and `fit_ensemble` ask of their arguments, and what makes a training run the run that it is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.training.description import digest as description
from vaekit.training.runs import digest


def check_settings(
    *, epochs: int, batch_size: int, lr: float, checkpoint_every: int = 1, seed: int = 0,
    patience: int | None = None, validation: Tensor | None = None, schedules: object = None,
    amp: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Refuse numbers out of their range and things of the wrong kind.

    Raises:
        ValueError: One is; the message names it.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "checkpoint_every": checkpoint_every}.items():
        checks.count(value, 1, name)
    checks.positive(lr, "lr")
    checks.count(seed, 0, "seed")
    if patience is not None:
        checks.count(patience, 1, "patience")
        if validation is None:
            raise ValueError("patience: expected validation images beside it, got none")
    if schedules is not None:
        if not isinstance(schedules, dict):
            raise ValueError(f"schedules: expected a dictionary of functions of the step, got {schedules!r}")
        for name, schedule in schedules.items():
            checks.function(schedule, f"schedules[{name!r}]")
    if amp not in (None, torch.float16, torch.bfloat16):
        raise ValueError(f"amp: expected torch.float16, torch.bfloat16 or None, got {amp!r}")


def check_images(model: nn.Module, x: Tensor, validation: Tensor | None, *, unit_range: bool) -> None:
    """Look once at all images, so that the steps need not: are they what the model's likelihood gives a probability?

    Args:
        model: If it has a method `check_images(x, name=...)`, as `VAE` does, that is asked too.
        x: Training images.
        validation: Validation images, of the same shape, or None.
        unit_range: Whether pixels must lie in [0, 1] whatever the model.

    Raises:
        ValueError: Bad images.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    checks.images(x, unit_range=unit_range)
    if validation is not None:
        checks.images(validation, name="validation", shape=tuple(x.shape[1:]), unit_range=unit_range)
    if callable(ask := getattr(model, "check_images", None)):
        ask(x)
        if validation is not None:
            ask(validation, name="validation")


def identity(
    model: nn.Module, objective: Callable[..., Tensor], x: Tensor, validation: Tensor | None, *,
    optimizer: object, schedules: object, amp: torch.dtype | None, **numbers: Any,
) -> dict[str, Any]:  # fmt: skip
    """All that must be the same for a run to go on, by name: numbers as they are, the rest by fingerprints.

    The weights that it began with are compared apart, by `Run`.
    """
    return numbers | {
        "model": description(model, weights=False),
        "objective": description(objective, weights=False),
        "images": digest(x),
        "validation": None if validation is None else digest(validation),
        "optimizer": description(optimizer),
        "schedules": description(schedules),
        "amp": None if amp is None else str(amp),
    }
