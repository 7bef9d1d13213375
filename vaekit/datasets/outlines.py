r"""What the drawn data sets are drawn with: outlines as signed distances, softened over one pixel.

No loop runs over images: an image is a function of the distances between pixel centres and the drawn outline, and a
pixel is filled by $\mathrm{coverage} = \mathrm{clip}(\tfrac12 - d, 0, 1)$ with $d$ the signed distance in pixels
(negative inside). Coordinates are continuous, in pixels: x grows to the right, y downwards, and pixel (i, j) has its
centre at $(j + \tfrac12, i + \tfrac12)$.
"""

import math

import torch
from torch import Tensor

from vaekit import checks

__all__ = ["CHUNK", "checked", "coverage", "outline"]

CHUNK = 64  # images drawn at once: what stays in a processor's cache


def outline(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance of (u, v), v upwards, to a shape in the unit circle: 0 a square, 1 an ellipse, 2 a heart."""
    return torch.where(shape == 0, _square(u, v), torch.where(shape == 1, _ellipse(u, v), _heart(u, v)))


def coverage(distance: Tensor) -> Tensor:
    """How much of a pixel is inside, from the signed distance of its centre in pixels."""
    return (0.5 - distance).clamp(0, 1)


def checked(factors: Tensor, sizes: dict[str, int], size: int) -> tuple[Tensor, Tensor]:
    """The factors as floating numbers `[N, F]` and the pixel centres along one axis `[size]`.

    Raises:
        ValueError: `factors` has another shape or a value outside its range, or `size` is below 1.
    """
    if not isinstance(factors, Tensor) or factors.ndim != 2 or factors.shape[1] != len(sizes) or len(factors) == 0:
        came = tuple(factors.shape) if isinstance(factors, Tensor) else type(factors).__name__
        raise ValueError(f"factors: expected a tensor [N, {len(sizes)}] of {', '.join(sizes)}, got {came}")
    checks.count(size, 1, "size")
    factors = factors.to(torch.float64 if factors.dtype == torch.float64 else torch.float32)
    top = factors.new_tensor(list(sizes.values())) - 1
    if not bool(((factors >= 0) & (factors <= top)).all()):
        ranges = ", ".join(f"{name} 0..{values - 1}" for name, values in sizes.items())
        raise ValueError(f"factors: expected values in {ranges}; got some outside (or NaN)")
    return factors, torch.arange(size, dtype=factors.dtype, device=factors.device) + 0.5


def _square(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the square whose corners lie on the unit circle, exact inside and near the sides."""
    return torch.maximum(u.abs(), v.abs()) - math.sqrt(0.5)


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to an ellipse of half-axes 1 and 0.6, to first order: f / |grad f|, f = u^2 + (v / 0.6)^2 - 1."""
    gradient = 2 * (u.square() + v.square() / 0.6**4).sqrt()
    return (u.square() + v.square() / 0.36 - 1) / gradient.clamp_min(1e-6)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the union of a square on its corner and discs, of radius r, over its upper sides.

    With r = 0.5256 and the origin halfway up, the heart just fits the unit circle.
    """
    r = 0.5256
    v = v + (1 + math.sqrt(0.5) - math.sqrt(2)) / 2 * r
    square = (u.abs() + v.abs()) * math.sqrt(0.5) - r
    discs = torch.hypot(u.abs() - math.sqrt(0.5) * r, v - math.sqrt(0.5) * r) - r
    return torch.minimum(square, discs)
