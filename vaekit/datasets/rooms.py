r"""Coloured rooms with objects in them: pictures whose complexity is one number, all else being equal.

A stand-in of ours for coloured scenes with known factors, such as 3D Shapes or MPI3D, that needs no download. Nothing
in the literature has been measured on it, so its numbers compare with nothing but each other.
"""

import torch
from torch import Tensor

from vaekit import checks
from vaekit.datasets.outlines import CHUNK, checked, coverage, outline

__all__ = ["ROOMS", "render_rooms"]

_ROOM = {"wall": 10, "floor": 10, "light": 5, "camera": 5}
_OBJECT = {"shape": 3, "hue": 10, "x": 32, "distance": 4}


def _factors(objects: int) -> dict[str, int]:
    return _ROOM | {f"{name}{k}": values for k in range(1, objects + 1) for name, values in _OBJECT.items()}


ROOMS = _factors(3)
"""The factors of `render_rooms` for three objects, and the number of values that each takes."""


def render_rooms(factors: Tensor, size: int = 64, *, objects: int | None = None) -> Tensor:
    r"""A room in colour: a wall, a floor, and objects that stand on it.

    With S for `size`, the wall meets the floor at the height $0.45\,S + (\text{camera} - 2)\,S/32$, in pixels from
    above. An object of distance d has its centre $(0.3 - 0.065\,d)\,S$ below that line, at
    $(0.16 + 0.68\,x/31)\,S$ from the left, and fits a circle of radius $(0.15 - 0.02\,d)\,S$: what is nearer is lower
    and larger, and nothing is clipped by the border. Objects are painted from the farthest to the nearest, those of one
    distance in their order. So the camera moves everything up and down together. Outlines are those of `render_shapes`,
    upright.

    Hues are ten equal steps around the colour wheel, from red. In the terms of hue, saturation and value, a wall has
    saturation 0.4 and value 0.9, a floor 0.4 and 0.6, an object 0.9 and 1. The light multiplies the whole picture by
    $0.6 + 0.1\,\text{light}$.

    Args:
        factors: `[N, 4 + 4K]`, as indices from 0: wall, floor (their hues), light, camera; then shape (0 square,
            1 ellipse, 2 heart), hue, x and distance of each of K objects in turn. K is 3 in `load("rooms")` and may be
            any number, also 0. All but the shape may lie between two values.
        size: Height and width of the images, in pixels.
        objects: How many are drawn, the first of the K; all by default. The same factors with other numbers of objects
            give images that differ in nothing else.

    Returns:
        `[N, 3, size, size]` in [0, 1], red, green and blue; float64 for float64 factors, else float32.

    Raises:
        ValueError: `factors` has another shape or a value outside its range, `size` is below 1, or `objects` is below
            0 or above K.

    Example:
        >>> factors = torch.tensor([[0, 4, 4, 2, 2, 6, 16, 0]])  # a heart in the middle
        >>> render_rooms(factors).shape
        torch.Size([1, 3, 64, 64])
        >>> empty = render_rooms(factors, objects=0)
        >>> len(empty[0].flatten(1).unique(dim=1).T)  # the wall, the floor, and a mixture where they meet
        3
    """
    width = factors.shape[1] if isinstance(factors, Tensor) and factors.ndim == 2 else 0
    whole = width >= len(_ROOM) and (width - len(_ROOM)) % len(_OBJECT) == 0
    count = (width - len(_ROOM)) // len(_OBJECT) if whole else 3
    factors, pixel = checked(factors, _factors(count), size)
    if objects is not None:
        checks.count(objects, 0, "objects")
        if objects > count:
            raise ValueError(f"objects: expected at most {count}, as many as the factors describe, got {objects}")

    def images(part: Tensor) -> Tensor:
        wall, floor, light, camera = part[:, : len(_ROOM)].unbind(1)  # each [n]
        horizon = size * (0.45 + (camera - 2) / 32)
        below = coverage(horizon[:, None, None, None] - pixel[:, None])  # [n, 1, H, 1]
        picture = torch.lerp(_colour(wall, 0.4, 0.9), _colour(floor, 0.4, 0.6), below.expand(-1, -1, -1, size))
        things = part[:, len(_ROOM) :].reshape(len(part), count, len(_OBJECT))[:, :objects]  # [n, objects, 4]
        far_first = things[..., -1:].argsort(dim=1, descending=True, stable=True)
        for shape, hue, x, distance in things.take_along_dim(far_first, 1).permute(1, 2, 0):
            radius = size * (0.15 - 0.02 * distance)[:, None, None]
            right = pixel - size * (0.16 + 0.68 * x / 31)[:, None, None]  # [n, 1, W]
            up = (horizon + size * (0.3 - 0.065 * distance))[:, None, None] - pixel[:, None]  # [n, H, 1]
            distances = outline(shape[:, None, None], right / radius, up / radius) * radius  # [n, H, W]
            picture = torch.lerp(picture, _colour(hue, 0.9, 1.0), coverage(distances)[:, None])
        return picture * (0.6 + 0.1 * light)[:, None, None, None]

    return torch.cat([images(part) for part in factors.split(CHUNK)])


def _colour(hue: Tensor, saturation: float, value: float) -> Tensor:
    """Red, green and blue `[n, 3, 1, 1]` of hues `[n]`, counted in tenths of the colour wheel."""
    sextant = (6 * hue[:, None] / _OBJECT["hue"] + hue.new_tensor([5, 3, 1])) % 6  # [n, 3]
    fallen = torch.minimum(sextant, 4 - sextant).clamp(0, 1)
    return (value * (1 - saturation * fallen))[..., None, None]
