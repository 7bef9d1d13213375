"""Networks that have other weights for every image: how `torch.func.vmap` runs them fast."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class PerImage(nn.Module):
    r"""Runs `net` so that its convolutions batch well over their *weights*.

    A convolution is a matrix product: with $K$ the kernel's `[C', C k^2]` numbers and $U(x)$ the image's patches as the
    columns of a `[C k^2, L]` matrix, $y = K\,U(x)$. Given weights for each image, `vmap` makes this one batched
    product, where it would make the convolution a grouped one, which is slow, its gradient above all.

    Args:
        net: Any network; what is no plain two-dimensional convolution runs as it would without this.

    References:
        Chellapilla, Puri & Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006,
        https://inria.hal.science/inria-00112631 (convolutions as matrix products).

    Example:
        >>> net, x = nn.Conv2d(3, 5, 4, stride=2, padding=1), torch.randn(2, 3, 8, 8)
        >>> torch.allclose(PerImage(net)(x), net(x), atol=1e-5)
        True
    """

    def __init__(self, net: nn.Module) -> None:
        """See the class."""
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """What `net` returns."""
        with _ConvolutionsAsProducts():
            return self.net(x)


class Moments(nn.Module):
    """An encoder for a single image: what it returns, `[1, 2D]`, is its parameter, which `functional_call` supplies."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.moments = nn.Parameter(torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        """The mean and log standard deviation, whatever `x`."""
        return self.moments[None]


class _ConvolutionsAsProducts(TorchFunctionMode):
    """Inside this block `torch.conv2d` goes through `_convolution`."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_convolution if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d`, by a matrix product where there are no groups and the padding is in numbers."""
    if groups > 1 or isinstance(padding, str) or input.ndim != 4:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    kernel = tuple(weight.shape[-2:])
    steps = (_pair(v) for v in (stride, padding, dilation))
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(input.shape[-2:], kernel, *steps, strict=True)
    ]  # fmt: skip
    patches = F.unfold(input, kernel, dilation=dilation, padding=padding, stride=stride)  # [N, C k^2, L]
    y = weight.flatten(1) @ patches  # [N, C', L]
    return (y if bias is None else y + bias[:, None]).unflatten(-1, size)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
