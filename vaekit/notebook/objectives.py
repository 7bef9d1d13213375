"""What is wrong with a student's objective: its values and its gradients, in expectation over its draws.

Two right objectives may draw their noise in another order, so no single run can be compared. Each is run on many copies
of the images instead; the means of its values and of its gradients in every parameter are compared in units of their
standard errors.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaekit.notebook.attempts import NOT_YET, Answer, Fault, kind
from vaekit.notebook.diagnosis import as_numbers, shape_fault
from vaekit.training.seeding import seeded

RUNS, COPIES = 24, 100  # independent runs, and copies of the images in each
THRESHOLD = 6.0  # standard errors of a difference; a right answer exceeds them in about one of a million numbers


class Estimate(NamedTuple):
    """A mean over runs with its standard error, both of the same shape."""

    mean: Tensor
    error: Tensor


Case = tuple  # the model, images [B, *image], and whatever else an objective takes


def objective_fault(
    answer: Any,
    reference: Callable,
    make_cases: Callable[[], Sequence[Case]],
    mistakes: Mapping[str, Callable],
    names: tuple[str, ...],
) -> str | None:
    """In words; None if nothing is wrong.

    Args:
        answer: The student's objective.
        reference: A right one.
        make_cases: Makes the arguments, one tuple per comparison: a model, images, and what else the objective takes.
            Tensors of four dimensions are images; gradients are taken in the model's parameters and in all other
            tensors.
        mistakes: What to say, and an objective that makes this mistake.
        names: Of the arguments after the model.
    """
    cases, rights = make_cases(), _known(reference, make_cases, names)
    try:
        student = Answer(answer)
        for case in cases:
            _check_kind(student, copy.deepcopy(case))
        came = [_estimates(lambda *arguments: student(arguments), case, names, seed=1000) for case in cases]
    except Fault as fault:
        return str(fault)
    if all(map(_same, came, rights)):
        return None
    for said, mistake in mistakes.items():
        wrong = _known(mistake, make_cases, names)
        if not all(map(_same, wrong, rights)) and all(map(_same, came, wrong)):
            return f"{NOT_YET}: {said.rstrip('.')}"
    k = next(k for k, pair in enumerate(zip(came, rights, strict=True)) if not _same(*pair))
    numbers = [f"{n} = {v:g}" for n, v in zip(names, cases[k][1:], strict=True) if isinstance(v, int | float)]
    where = f" (for {', '.join(numbers)})" if numbers else ""
    return f"{NOT_YET}: {_difference(came[k], rights[k])}{where}"


@functools.cache
def _known(
    objective: Callable, make_cases: Callable[[], Sequence[Case]], names: tuple[str, ...]
) -> list[dict[str, Estimate]]:
    """Estimates of an objective of the book's own, which do not change."""
    return [_estimates(objective, case, names, seed=0) for case in make_cases()]


def _estimates(objective: Callable[..., Any], case: Case, names: tuple[str, ...], seed: int) -> dict[str, Estimate]:
    """The values, under the key "", and the gradients in each parameter, over many copies of the images."""
    model, *others = copy.deepcopy(case)
    leaves = {f"{name}, a weight of the model": p for name, p in model.named_parameters()}
    for i, other in enumerate(others):
        if isinstance(other, Tensor) and other.ndim == 4:
            others[i] = other.repeat(COPIES, 1, 1, 1)
        elif isinstance(other, Tensor):
            others[i] = leaves[names[i]] = other.detach().requires_grad_()
    draws: dict[str, list[Tensor]] = {name: [] for name in ("", *leaves)}
    for k in range(RUNS):
        with seeded(seed + k):
            value = objective(model, *others)
        gradients: Sequence[Tensor | None] = [None] * len(leaves)
        if value.requires_grad:
            gradients = torch.autograd.grad(value.mean(), list(leaves.values()), allow_unused=True)
        draws[""].append(value.detach().reshape(COPIES, -1).mean(0))
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            draws[name].append(torch.zeros_like(leaf) if gradient is None else gradient)
    stacked = {name: torch.stack([t.detach().double() for t in several]) for name, several in draws.items()}
    return {name: Estimate(t.mean(0), t.std(0) / RUNS**0.5) for name, t in stacked.items()}


def _check_kind(student: Answer, case: Case) -> None:
    """One run on the images alone: one finite real number for each of them."""
    came, images = student(case), case[1]
    values = as_numbers(came)
    if values is None or not isinstance(came, Tensor):
        raise Fault(f"{NOT_YET}: {student.name} is to return a tensor, one number an image, got {kind(came)}")
    if fault := shape_fault(values, torch.full((len(images),), float("nan")), 0):
        raise Fault(f"{NOT_YET}: {fault}; an objective has one number for each image")
    if not values.isfinite().all():
        raise Fault(f"{NOT_YET}: {student.name} returns {values[~values.isfinite()][0].item()} for an image")


def _off(came: Estimate, right: Estimate) -> Tensor:
    """By how many standard errors two means differ; rounding counts as an error too."""
    rounding = 1e-7 * (1 + right.mean.abs())
    return ((came.mean - right.mean).abs() / (came.error**2 + right.error**2 + rounding**2).sqrt()).nan_to_num(1e9)


def _same(came: dict[str, Estimate], right: dict[str, Estimate]) -> bool:
    return all(bool((_off(came[name], right[name]) < THRESHOLD).all()) for name in right)


def _difference(came: dict[str, Estimate], right: dict[str, Estimate]) -> str:
    """The values, or else the gradient, that is furthest off."""
    if _off(came[""], right[""]).max() >= THRESHOLD:
        shift, ratio = came[""].mean - right[""].mean, came[""].mean / right[""].mean
        i = int(_off(came[""], right[""]).argmax())
        if len(shift) > 1 and (shift - shift[i]).abs().max() < 0.03 * shift.abs().max():
            return f"its values are too {'large' if shift[i] > 0 else 'small'} by {shift[i].abs():.3g} for every image"
        if len(ratio) > 1 and (ratio - ratio[i]).abs().max() < 0.03 * ratio.abs().max():
            return f"its values are the right ones times {ratio[i]:.3g}"
        return f"its value for image {i + 1}: expected {_said(right[''], i)} on average, got {_said(came[''], i)}"
    for part in ("encoder", "decoder", *(name for name in right if name and " " not in name)):
        ours = {name: _off(came[name], right[name]) for name in right if name.split(".")[0] == part}
        if max(off.max() for off in ours.values()) < THRESHOLD:
            continue
        whose = f"the {part}" if part in ("encoder", "decoder") else part
        if all(bool((came[name].mean == 0).all()) for name in ours):
            return f"the values agree, but no gradient reaches {whose}: is something detached, or drawn by `sample`?"
        if all(bool((right[name].mean == 0).all()) for name in ours):
            return f"the values agree, but a gradient reaches {whose}, and none should: is a `detach` missing?"
        name = max(ours, key=lambda name: ours[name].max().item())
        i = int(ours[name].argmax())
        numbers = f"expected {_said(right[name], i)} on average, got {_said(came[name], i)}"
        return f"the values agree, but the gradient does not: in {name}, entry {i}, {numbers}"
    return "its gradients differ"


def _said(estimate: Estimate, i: int) -> str:
    return f"{estimate.mean.flatten()[i]:.4g} ± {estimate.error.flatten()[i]:.1g}"
