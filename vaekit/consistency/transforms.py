r"""Random image transforms, drawn anew for each image of a batch, on the batch's device.

A transform is a callable from images `[B, C, H, W]` with pixels in [0, 1] to images of the same kind. It draws from
torch's default generators: inside `vaekit.training.seeded(seed)` it always draws the same. Any such callable will do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit import checks


def affine(
    x: Tensor,
    *,
    angle: Tensor | float = 0.0,
    translation: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    shear: Tensor | float = 0.0,
) -> Tensor:
    r"""Rotated, sheared, scaled and shifted copies of images, resampled once.

    With $p$ the position from the image's centre in pixels, x to the right and y down, what was at $p$ moves to

    $$p' = s\,R(\alpha)\,\begin{pmatrix} 1 & \tan\kappa \\ 0 & 1 \end{pmatrix} p + t, \qquad
      R(\alpha) = \begin{pmatrix} \cos\alpha & \sin\alpha \\ -\sin\alpha & \cos\alpha \end{pmatrix}.$$

    A new pixel is the bilinear interpolation of the four old ones around its origin; beyond the border there is 0.

    Args:
        x: Images `[B, C, H, W]`.
        angle: $\alpha$ in degrees, counter-clockwise as seen; a number, or `[B]` for one each.
        translation: $t$ in pixels, to the right and down; a number for both, or `[2]`, or `[B, 2]`.
        scale: $s$ above 0, more than 1 enlarges; a number or `[B]`.
        shear: $\kappa$ in degrees, strictly between -90 and 90; a number or `[B]`.

    Returns:
        `[B, C, H, W]`, in the range of the old pixels and 0.

    Raises:
        ValueError: `x` is no batch of finite images `[B, C, H, W]`, or a number is out of its range.

    Example:
        >>> x = torch.eye(3)[1].outer(torch.eye(3)[2])[None, None]
        >>> affine(x, angle=90.0).round().int()[0, 0].tolist()  # what lay on the right now lies on top
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    _check(x)
    for name, value in {"angle": angle, "translation": translation}.items():
        checks.between(value, -math.inf, math.inf, name)
    checks.between(scale, 0, math.inf, "scale")
    checks.between(shear, -90, 90, "shear")
    n, _, height, width = x.shape
    alpha, kappa, s = (torch.as_tensor(v, dtype=x.dtype, device=x.device).expand(n) for v in (angle, shear, scale))
    t = torch.as_tensor(translation, dtype=x.dtype, device=x.device).expand(n, 2)  # [B, 2]
    cos, sin, tan = alpha.deg2rad().cos(), alpha.deg2rad().sin(), kappa.deg2rad().tan()
    # resampling asks where a new pixel came from: p = K^-1 R^-1 (p' - t) / s, in units of half the width and height
    rows = torch.stack([cos - tan * sin, -sin - tan * cos, sin, cos], -1).unflatten(-1, (2, 2))
    size = torch.tensor([width, height], dtype=x.dtype, device=x.device)
    back = rows / s[:, None, None] / (size / 2)[:, None]  # [B, 2, 2]
    x_new, y_new = (torch.arange(k, dtype=x.dtype, device=x.device) - (k - 1) / 2 for k in (width, height))
    across = back[:, :, :1] * x_new  # [B, 2, W]
    down = back[:, :, 1:] * y_new - torch.einsum("bj,bij->bi", t, back)[..., None]  # [B, 2, H]
    old = across[:, :, None] + down[..., None]  # [B, 2, H, W]
    moved = F.grid_sample(x, old.movedim(1, -1), align_corners=False)
    return moved.clamp(x.amin().clamp(max=0), x.amax().clamp(min=0))  # a mean may exceed its terms by a rounding error


@dataclass(frozen=True)
class RandomAffine:
    r"""`affine` with parameters drawn uniformly and for each image on its own.

    Args:
        degrees: The angle lies in [-degrees, degrees].
        translate: The shift, along each axis, lies within this fraction of the image's width (height) either way.
        scale: The lowest and the highest scale.
        shear: The shear angle lies in [-shear, shear] degrees; below 90.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> RandomAffine(degrees=15, translate=0.05, scale=(0.9, 1.1))(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 1, 28, 28])
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name in ("degrees", "translate", "shear"):
            checks.at_least(getattr(self, name), 0, name)
        checks.between(self.shear, -90, 90, "shear")
        _check_interval(self.scale, "scale")

    def __call__(self, x: Tensor) -> Tensor:
        """From images `[B, C, H, W]` to transformed ones of the same shape."""
        _check(x)
        n, _, height, width = x.shape
        angle, kappa, t_x, t_y = 2 * torch.rand(4, n, dtype=x.dtype, device=x.device) - 1  # each [B], in [-1, 1]
        return affine(
            x,
            angle=self.degrees * angle,
            translation=self.translate * x.new_tensor([width, height]) * torch.stack([t_x, t_y], -1),
            scale=_uniform(x, self.scale),
            shear=self.shear * kappa,
        )


@dataclass(frozen=True)
class RandomBrightness:
    r"""Each image times a factor of its own, uniform in [`low`, `high`]; pixels stay in [0, 1].

    Raises:
        ValueError: Not 0 < low <= high; pixels outside [0, 1].
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty interval."""
        _check_interval((self.low, self.high), "low, high")

    def __call__(self, x: Tensor) -> Tensor:
        """As for `RandomAffine`."""
        _check(x, unit_range=True)
        return (x * _uniform(x, (self.low, self.high))[:, None, None, None]).clamp(0, 1)


@dataclass(frozen=True)
class RandomNoise:
    r"""Independent noise $\mathcal N(0, \text{std}^2)$ on every pixel; pixels stay in [0, 1].

    Raises:
        ValueError: `std` below 0; pixels outside [0, 1].
    """

    std: float

    def __post_init__(self) -> None:
        """Refuse a negative standard deviation."""
        checks.at_least(self.std, 0, "std")

    def __call__(self, x: Tensor) -> Tensor:
        """From images `[B, C, H, W]` to transformed ones of the same shape."""
        _check(x, unit_range=True)
        return (x + self.std * torch.randn(x.shape, dtype=x.dtype, device=x.device)).clamp(0, 1)


def black_or_white(x: Tensor) -> Tensor:
    """Each pixel turns 1 with its own value as the probability, else 0: `torch.bernoulli`, faster on a CPU."""
    _check(x, unit_range=True)
    return (torch.rand_like(x) < x).to(x.dtype)


def compose(*transforms: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """One transform after the other, the first first. (But rotate and shift in *one* affine map: each blurs a little.)

    Example:
        >>> transform = compose(RandomAffine(degrees=15), black_or_white)
        >>> transform(torch.rand(5, 1, 28, 28)).unique()
        tensor([0., 1.])
    """

    def composed(x: Tensor) -> Tensor:
        for transform in transforms:
            x = transform(x)
        return x

    return composed


def _uniform(x: Tensor, interval: tuple[float, float]) -> Tensor:
    """One number for each image of `x`."""
    return interval[0] + (interval[1] - interval[0]) * torch.rand(len(x), dtype=x.dtype, device=x.device)


def _check(x: Tensor, *, unit_range: bool = False) -> None:
    checks.images(x, unit_range=unit_range)
    if x.ndim != 4:
        raise ValueError(f"x: expected images [B, C, H, W], got shape {tuple(x.shape)}")


def _check_interval(interval: tuple[float, float], name: str) -> None:
    if not isinstance(interval, tuple | list) or len(interval) != 2:
        raise ValueError(f"{name}: expected two numbers, got {checks.shown(interval)}")
    for end in interval:
        checks.positive(end, name)
    low, high = interval
    if not low <= high:
        raise ValueError(f"{name}: expected 0 < low <= high, got {low} and {high}")
