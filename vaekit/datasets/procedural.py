r"""Images drawn from their factors of variation, so that the truth about them is known.

Both renderers take whole batches of factors; the outlines that they fill are those of `vaekit.datasets.outlines`.
"""

import math

import torch
from torch import Tensor

from vaekit.datasets.dataset import Dataset
from vaekit.datasets.outlines import CHUNK, checked, coverage, outline
from vaekit.datasets.rooms import ROOMS, render_rooms

__all__ = ["SHAPES", "THREE_DOTS", "draw", "render_shapes", "render_three_dots"]

THREE_DOTS = {"x1": 64, "y1": 64, "x2": 64, "y2": 64, "x3": 64, "y3": 64}
"""The factors of `render_three_dots` and the number of values that each takes."""

SHAPES = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
"""The factors of `render_shapes` and the number of values that each takes."""


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
    factors, pixel = checked(factors, THREE_DOTS, size)

    def images(part: Tensor) -> Tensor:
        centre = part.unflatten(-1, (3, 2)) * (size / 63)  # [n, 3, 2]
        dx2 = (pixel - centre[..., :1]).square()  # [n, 3, W]
        dy2 = (pixel - centre[..., 1:]).square()  # [n, 3, H]
        nearest = (dx2[:, :, None, :] + dy2[:, :, :, None]).amin(1, keepdim=True).sqrt()  # [n, 1, H, W]
        return 1 - coverage(nearest - 0.08 * size)

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
    factors, pixel = checked(factors, SHAPES, size)

    def images(part: Tensor) -> Tensor:
        shape, scale, orientation, x, y = part[:, :, None, None].unbind(1)  # each [n, 1, 1]
        radius = 0.2 * size * (0.5 + 0.1 * scale)
        angle = 2 * math.pi / SHAPES["orientation"] * orientation
        right = pixel - size * (0.25 + 0.5 * x / 31)  # [n, 1, W]
        up = size * (0.25 + 0.5 * y / 31) - pixel[:, None]  # [n, H, 1]
        u = (angle.cos() * right + angle.sin() * up) / radius  # [n, H, W], in the shape's own axes and unit
        v = (angle.cos() * up - angle.sin() * right) / radius
        return coverage(outline(shape, u, v) * radius)[:, None]

    return torch.cat([images(part) for part in factors.split(CHUNK)])


def draw(name: str, split: str, n: int, size: int, seed: int) -> Dataset:
    """n images of a drawn set, their factors drawn uniformly; train and test are different draws.

    Raises:
        ValueError: `n` is more than half of all combinations of factors of `shapes`, or `size` is below 1.
    """
    generator = torch.Generator()
    if name != "shapes":
        kinds = THREE_DOTS if name == "three-dots" else ROOMS
        values = torch.tensor(list(kinds.values()))
        generator.manual_seed(2 * seed + (split == "test"))
        # below a common multiple of all numbers of values, so that the remainders are uniform, too
        factors = torch.randint(math.lcm(*kinds.values()), (n, len(kinds)), generator=generator) % values
        images = render_three_dots(factors, size) if name == "three-dots" else render_rooms(factors, size)
        return Dataset(name, split, images, None, factors, tuple(kinds), tuple(kinds.values()))
    sizes = torch.Size(SHAPES.values())
    half = sizes.numel() // 2
    if n > half:
        raise ValueError(f"n: expected at most {half} images for shapes {split}, got {n}")
    order = torch.randperm(2 * half, generator=generator.manual_seed(seed))
    states = order[:n] if split == "train" else order[half : half + n]
    factors = torch.stack(torch.unravel_index(states, sizes), dim=1)  # [n, 5]
    images = render_shapes(factors, size)
    return Dataset(name, split, images, factors[:, 0], factors, tuple(SHAPES), tuple(SHAPES.values()))
