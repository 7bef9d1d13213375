r"""Images drawn from their factors of variation, so that the truth about them is known.

Both renderers take whole batches of factors and no loop runs over images: an image is a function of the distances
between pixel centres and the drawn outline, and the outline is softened over one pixel,
$\mathrm{coverage} = \mathrm{clip}(\tfrac12 - d, 0, 1)$ with $d$ the signed distance in pixels (negative inside).
Coordinates are continuous, in pixels: x grows to the right, y downwards, and pixel (i, j) has its centre at
$(j + \tfrac12, i + \tfrac12)$.
"""

import math

import torch
from torch import Tensor

from vaekit import checks
from vaekit.datasets.dataset import Dataset

__all__ = ["SHAPES", "THREE_DOTS", "draw", "render_shapes", "render_three_dots"]

THREE_DOTS = {"x1": 64, "y1": 64, "x2": 64, "y2": 64, "x3": 64, "y3": 64}
"""The factors of `render_three_dots` and the number of values that each takes."""

SHAPES = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
"""The factors of `render_shapes` and the number of values that each takes."""

CHUNK = 64  # images drawn at once: what stays in a processor's cache


def render_three_dots(factors: Tensor, size: int = 64) -> Tensor:
    r"""Three black dots on white, as in the experiments of JL1-VAE.

    Dot k has its centre at $\tfrac{\text{size}}{63}\,(x_k, y_k)$ and radius $0.08\,\text{size}$, in pixels. Dots may
    overlap, and the image's border clips them. Exchanging two dots gives the same image.

    Args:
        factors: `[N, 6]`, x and y of each dot in turn, from 0 to 63; whole numbers in the data set, but any
            position in between can be drawn.
        size: Height and width of the images, in pixels.

    Returns:
        `[N, 1, size, size]` in [0, 1]; float64 for float64 factors, else float32.

    Raises:
        ValueError: `factors` has another shape or a value outside its range, or `size` is below 1.

    References:
        Travers Rhodes and Daniel D. Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian $L_1$
        Regularization*, 2021, https://arxiv.org/abs/2106.02923; the drawing follows the description in their code,
        https://github.com/travers-rhodes/jlonevae, with the softened outline in place of 10-fold over-drawing.

    Example:
        >>> image = render_three_dots(torch.tensor([[32, 32, 0, 0, 63, 0]]), size=64)
        >>> image.shape
        torch.Size([1, 1, 64, 64])
        >>> image[0, 0, 32, 32].item(), image[0, 0, 63, 63].item()
        (0.0, 1.0)
    """
    factors, pixel = _checked(factors, THREE_DOTS, size)

    def images(part: Tensor) -> Tensor:
        centre = part.unflatten(-1, (3, 2)) * (size / 63)  # [n, 3, 2]
        dx2 = (pixel - centre[..., :1]).square()  # [n, 3, W]
        dy2 = (pixel - centre[..., 1:]).square()  # [n, 3, H]
        nearest = (dx2[:, :, None, :] + dy2[:, :, :, None]).amin(1, keepdim=True).sqrt()  # [n, 1, H, W]
        return 1 - _coverage(nearest - 0.08 * size)

    return torch.cat([images(part) for part in factors.split(CHUNK)])


def render_shapes(factors: Tensor, size: int = 64) -> Tensor:
    r"""A white square, ellipse or heart on black, in the manner of dSprites.

    The shape of scale 1 fits a circle of radius $R = 0.2\,\text{size}$, and the three have nearly the same area: a
    square of half-side $R/\sqrt2$; an ellipse of half-axes $R$ and $0.6 R$; a heart that is the union of a square
    standing on a corner and two discs over its upper sides. Scales are 6 values from 0.5 to 1, orientations 40 equal
    steps of a full turn (counter-clockwise as seen), positions 32 values that bring the centre from a quarter to three
    quarters of the image, so no shape is ever clipped. A quarter turn of the square and a half turn of the ellipse
    change nothing: for them several orientations give one image.

    Args:
        factors: `[N, 5]`: shape (0 square, 1 ellipse, 2 heart), scale, orientation, x, y, as indices from 0; all but
            the shape may lie between two values.
        size: Height and width of the images, in pixels.

    Returns:
        `[N, 1, size, size]` in [0, 1]; float64 for float64 factors, else float32.

    Raises:
        ValueError: `factors` has another shape or a value outside its range, or `size` is below 1.

    References:
        Loic Matthey, Irina Higgins, Demis Hassabis and Alexander Lerchner, *dSprites: Disentanglement testing Sprites
        dataset*, 2017, https://github.com/google-deepmind/dsprites-dataset; same factors, other outlines and ranges.

    Example:
        >>> images = render_shapes(torch.tensor([[0, 5, 0, 16, 16], [2, 5, 0, 16, 16]]))
        >>> images.shape
        torch.Size([2, 1, 64, 64])
    """
    factors, pixel = _checked(factors, SHAPES, size)

    def images(part: Tensor) -> Tensor:
        shape, scale, orientation, x, y = part[:, :, None, None].unbind(1)  # each [n, 1, 1]
        radius = 0.2 * size * (0.5 + 0.1 * scale)
        angle = 2 * math.pi / SHAPES["orientation"] * orientation
        right = pixel - size * (0.25 + 0.5 * x / 31)  # [n, 1, W]
        up = size * (0.25 + 0.5 * y / 31) - pixel[:, None]  # [n, H, 1]
        u = (angle.cos() * right + angle.sin() * up) / radius  # [n, H, W], in the shape's own axes and unit
        v = (angle.cos() * up - angle.sin() * right) / radius
        distance = torch.where(shape == 0, _square(u, v), torch.where(shape == 1, _ellipse(u, v), _heart(u, v)))
        return _coverage(distance * radius)[:, None]

    return torch.cat([images(part) for part in factors.split(CHUNK)])


def draw(name: str, split: str, n: int, size: int, seed: int) -> Dataset:
    """n images of `three-dots` or `shapes`, their factors drawn uniformly; train and test are different draws.

    Raises:
        ValueError: `n` is more than half of all combinations of factors of `shapes`, or `size` is below 1.
    """
    generator = torch.Generator()
    if name == "three-dots":
        generator.manual_seed(2 * seed + (split == "test"))
        factors = torch.randint(64, (n, 6), generator=generator)
        images = render_three_dots(factors, size)
        return Dataset(name, split, images, None, factors, tuple(THREE_DOTS), tuple(THREE_DOTS.values()))
    sizes = torch.Size(SHAPES.values())
    half = sizes.numel() // 2
    if n > half:
        raise ValueError(f"n: expected at most {half} images for shapes {split}, got {n}")
    order = torch.randperm(2 * half, generator=generator.manual_seed(seed))
    states = order[:n] if split == "train" else order[half : half + n]
    factors = torch.stack(torch.unravel_index(states, sizes), dim=1)  # [n, 5]
    images = render_shapes(factors, size)
    return Dataset(name, split, images, factors[:, 0], factors, tuple(SHAPES), tuple(SHAPES.values()))


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


def _coverage(distance: Tensor) -> Tensor:
    """How much of a pixel is inside, from the signed distance of its centre in pixels."""
    return (0.5 - distance).clamp(0, 1)


def _checked(factors: Tensor, sizes: dict[str, int], size: int) -> tuple[Tensor, Tensor]:
    """The factors as floating numbers `[N, F]` and the pixel centres along one axis `[size]`."""
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
