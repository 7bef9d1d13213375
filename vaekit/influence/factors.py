r"""Per-image gradients of weight matrices, kept as the few vectors they are made of.

A weight matrix $W$ that maps inputs $a_t$ to outputs $W a_t$ at positions $t = 1, \dots, T$ (the places that a kernel
visits, the draws of the noise; $T = 1$ for a plain linear layer) has, for one image, the gradient

$$\frac{\partial o}{\partial W} = \sum_{t=1}^{T} g_t\, a_t^\top, \qquad g_t = \frac{\partial o}{\partial (W a_t)},$$

so the inner product of two images' gradients needs no gradient at all:

$$\Big\langle \sum_t g_t a_t^\top, \sum_u h_u b_u^\top \Big\rangle = \sum_{t,u} (g_t \cdot h_u)\,(a_t \cdot b_u).$$
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 2**22  # numbers in one intermediate product: 16 MB in single precision


class Factors(NamedTuple):
    r"""Gradients of B images with respect to one matrix `[p, q]`: sums over t of `left[:, t]` times `right[:, t]`."""

    left: Tensor  # [B, T, p]
    right: Tensor  # [B, T, q]

    def form(self) -> Tensor:
        """The gradients themselves, flattened: `[B, p * q]`."""
        return (self.left.mT @ self.right).flatten(1)


Gradients = Factors | Tensor  # a tensor: gradients flattened, [B, P]


def pairs_are_cheaper(positions: int, p: int, q: int) -> bool:
    """Whether an inner product through the factors, of $T^2 (p + q)$ steps, beats one of formed gradients, of $pq$."""
    return positions**2 * (p + q) < p * q


def cross(x: Gradients, z: Gradients) -> Tensor:
    r"""All inner products $\langle \nabla_i, \nabla_j \rangle$ between the gradients of M and of N images: `[M, N]`."""
    if isinstance(x, Tensor) or isinstance(z, Tensor):
        return _formed(x) @ _formed(z).T
    n, u = z.left.shape[:2]
    rows = max(1, AT_ONCE // (x.left.shape[1] * n * u))
    left, right = z.left.flatten(0, 1).T, z.right.flatten(0, 1).T  # [p, N U], [q, N U]
    products = []
    for g, a in zip(x.left.split(rows), x.right.split(rows), strict=True):
        m, t = g.shape[:2]
        both = (g.flatten(0, 1) @ left).mul_(a.flatten(0, 1) @ right)  # [M T, N U]
        products.append(both if t == u == 1 else both.view(m, t, n, u).sum((1, 3)))
    return torch.cat(products)


def own(x: Gradients, z: Gradients) -> Tensor:
    r"""Inner products $\langle \nabla_i, \nabla'_i \rangle$ between two gradients of the same B images: `[B]`."""
    if isinstance(x, Tensor) or isinstance(z, Tensor):
        return (_formed(x) * _formed(z)).sum(1)
    return ((x.left @ z.left.mT) * (x.right @ z.right.mT)).sum((1, 2))


def _formed(gradients: Gradients) -> Tensor:
    return gradients if isinstance(gradients, Tensor) else gradients.form()


def has_factors(module: nn.Module) -> bool:
    """Whether `weight_factors` knows this module: a plain linear or convolutional layer with a weight of its own."""
    if nn.utils.parametrize.is_parametrized(module) or not isinstance(module._parameters.get("weight"), Tensor):
        return False
    if type(module) is nn.Linear:
        return True
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or type(module) not in (nn.Conv2d, nn.ConvTranspose2d):
        return False
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    return all(extra < stride for extra, stride in zip(module.output_padding, module.stride, strict=True))


def weight_factors(module: nn.Module, inputs: Tensor, g: Tensor) -> Factors:
    """The factors of a layer's weight gradient.

    Args:
        module: One that `has_factors`.
        inputs: What it was given for each image, `[B, ..., *its input]`; other dimensions are positions.
        g: Gradient with respect to what it returned, `[B, ..., *its output]`.
    """
    if isinstance(module, nn.Linear):
        return Factors(_positions(g, 1), _positions(inputs, 1))
    # a convolution gives each patch of its input to one place of its output; its transpose does the reverse
    patches, places = (inputs, g) if isinstance(module, nn.Conv2d) else (g, inputs)
    kernel: Any = (module.kernel_size, module.dilation, module.padding, module.stride)
    columns = F.unfold(patches.flatten(0, -4), *kernel)
    columns = columns.unflatten(0, patches.shape[:-3])  # [B, ..., q, L]
    return Factors(_positions(places.flatten(-2).mT, 1), _positions(columns.mT, 1))


def bias_gradient(module: nn.Module, g: Tensor) -> Tensor:
    """The gradients of a layer's bias, `[B, p]`, from those of its outputs `[B, ..., *output]`."""
    return _positions(g if isinstance(module, nn.Linear) else g.flatten(-2).mT, 1).sum(1)


def _positions(values: Tensor, kept: int) -> Tensor:
    """From `[B, ..., *kept]` to `[B, T, *kept]`."""
    middle = values.shape[1 : values.ndim - kept]
    return values.reshape(len(values), math.prod(middle), *values.shape[values.ndim - kept :])
