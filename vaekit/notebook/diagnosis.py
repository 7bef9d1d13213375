"""What is wrong with a wrong number: its shape, a mean for a sum, a factor, a sign, an offset, or one entry."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# what slips in or goes missing so often that a message gives it by name
FACTORS = {
    "2": 2, "1/2": 1 / 2, "4": 4, "1/4": 1 / 4, "100": 100, "1/100": 1 / 100, "255": 255, "1/255": 1 / 255,
    "log 2": math.log(2), "1 / log 2": 1 / math.log(2), "π": math.pi, "1/π": 1 / math.pi, "2π": 2 * math.pi,
    "1/2π": 0.5 / math.pi, "√2": math.sqrt(2), "1/√2": math.sqrt(0.5), "√2π": math.sqrt(2 * math.pi),
    "1/√2π": 1 / math.sqrt(2 * math.pi),
}  # fmt: skip
OFFSETS = {
    "1": 1, "1/2": 1 / 2, "log 2": math.log(2),
    "log 2π": math.log(2 * math.pi), "½ log 2π": 0.5 * math.log(2 * math.pi),
}  # fmt: skip
SLIPS: dict[str, Callable[[Tensor], Tensor]] = {
    "its absolute value": torch.abs,
    "its square": torch.square,
    "its square root": torch.sqrt,
    "its exponential": torch.exp,
    "its logarithm": torch.log,
    "its reciprocal": torch.reciprocal,
    "one minus it": lambda right: 1 - right,
}


def as_numbers(value: Any) -> Tensor | None:
    """A real tensor on the CPU from a number, an array, a tensor or a list of these; None from anything else."""
    try:
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            value = torch.stack([torch.as_tensor(v) for v in value])
        tensor = torch.as_tensor(value) if not isinstance(value, Tensor) else value
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return None if tensor.is_complex() else tensor.detach().cpu()


def alike(came: Tensor, right: Tensor, tolerance: float) -> bool:
    """Whether shapes agree and every entry is within `tolerance * (1 + |right|)`, at least 1e-5 in single precision."""
    if came.is_floating_point() and torch.finfo(came.dtype).bits < 64:
        tolerance = max(tolerance, 1e-5)
    a, b = came.double(), right.double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def shape_fault(came: Tensor, right: Tensor, tolerance: float) -> str | None:
    """None if the shapes agree; else both shapes, and what would mend it where that can be told."""
    if came.shape == right.shape:
        return None
    fault = f"expected shape {tuple(right.shape)}, got {tuple(came.shape)}"
    a, b = came.double(), right.double()
    if a.squeeze().shape == b.squeeze().shape:
        return f"{fault}: a dimension of size 1 too {'many' if a.ndim > b.ndim else 'few'}"
    if a.ndim == 2 and alike(a.T, b, tolerance):
        return f"{fault}: it is transposed"
    for dim in range(a.ndim):
        if alike(a.sum(dim), b, tolerance):
            return f"{fault}: a sum over dimension {dim} is missing"
        if alike(a.mean(dim), b, tolerance):
            return f"{fault}: a mean over dimension {dim} is missing"
    for reduced, word in ((b.sum(), "sum"), (b.mean(), "mean")):
        if a.numel() == 1 and alike(a.reshape(()), reduced, tolerance):
            return f"{fault}: it is the {word} over all entries, too many"
    return fault


def value_fault(
    came: Sequence[Tensor], right: Sequence[Tensor], inputs: Sequence[tuple], tolerance: float, where: Sequence[str]
) -> str | None:
    """What is wrong in the same way with the answers to all `inputs`, if anything; shapes agree with the right ones.

    `where` has the words for each input, such as " on input 1 of 2".
    """
    for k, (t, r) in enumerate(zip(came, right, strict=True)):
        bad = ~t.double().isfinite() & r.double().isfinite()
        if bad.any():
            at = _first(bad)
            return f"it is {t[at].item()}{_at(at)}{where[k]}, where a finite number is expected"
    a, b = (torch.cat([t.double().flatten() for t in tensors]) for tensors in (came, right))
    if any(t.dtype == torch.float32 for t in came):
        a = a.float()  # told apart with less precision
    if not b.isfinite().all():
        return None
    if alike(a, -b, tolerance):
        return "it has the wrong sign"
    for share, word in (("divided by", "a mean where a sum is due"), ("times", "a sum where a mean is due")):
        pairs = zip(came, right, strict=True) if share == "divided by" else zip(right, came, strict=True)
        sizes = [_ratio(small, large, x, tolerance) for (small, large), x in zip(pairs, inputs, strict=True)]
        if all(sizes):
            which = "" if len(set(sizes)) == 1 else where[0]
            return f"it is the right one {share} {sizes[0]}{which} (a size of the input: {word}?)"
    several = len(b.unique()) > 1  # any single number is some multiple of any other
    factor = ((a * b).sum() / b.square().sum().clamp_min(1e-300)).item()
    name = _name(factor, FACTORS, tolerance)
    if factor and (several or name) and alike(a, factor * b, tolerance):
        why = ": is a factor 1/2 missing?" if name == "2" else ""
        return f"it is the right one times {name or f'{factor:.4g}'}{why}"
    offset = (a - b).mean().item()
    name = _name(abs(offset), OFFSETS, tolerance)
    if (several or name) and alike(a, b + offset, tolerance):
        by = f"by {name or f'{abs(offset):.4g}'}{' everywhere' * several}"
        return f"it is too {'large' if offset > 0 else 'small'} {by}"
    slips = [slip for slip, f in SLIPS.items() if several and alike(a, f(b), tolerance)]
    return f"it is not the right one but {slips[0]}" if slips else None


def largest_difference(
    came: Sequence[Tensor], right: Sequence[Tensor], where: Sequence[str], parts: Sequence[str] = ()
) -> str:
    """Where the answer is furthest off, and by how much; `parts` are names of the entries along the last dimension."""
    gaps = []
    for t, r in zip(came, right, strict=True):
        a, b = t.double(), r.double()
        gaps.append(torch.where(a == b, 0, (a - b).abs()).nan_to_num(math.inf, math.inf))
    k = max(range(len(gaps)), key=lambda k: gaps[k].max().item() if gaps[k].numel() else -1)
    at = _first(gaps[k] == gaps[k].max())
    place = f" in {parts[at[-1]]}" if parts and at and at[-1] < len(parts) else _at(at)
    return (
        f"the largest difference is {gaps[k][at].item():.4g}{place}{where[k]}: "
        f"expected {right[k][at].item():.6g}, got {came[k][at].item():.6g}"
    )


def _ratio(small: Tensor, large: Tensor, arguments: tuple, tolerance: float) -> int | None:
    """The size of a dimension, or of the last few, of an argument that makes `small` into `large`, if there is one."""
    tensors = [t for t in map(as_numbers, arguments) if t is not None]
    sizes = {math.prod(t.shape[first:last]) for t in tensors for first in range(t.ndim) for last in {first + 1, t.ndim}}
    return next((n for n in sorted(sizes) if n > 1 and alike(small.double() * n, large, tolerance)), None)


def _name(number: float, names: dict[str, float], tolerance: float) -> str | None:
    return next((name for name, value in names.items() if abs(number - value) <= 10 * tolerance * value), None)


def _first(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def _at(index: tuple[int, ...]) -> str:
    return f" at [{', '.join(map(str, index))}]" if index else ""
