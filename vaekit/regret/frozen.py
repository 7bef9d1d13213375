"""A decoder whose weights stay as they are: the same function in fewer operations."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vaekit.networks import Leading


def frozen(net: nn.Module) -> nn.Module:
    r"""A copy of `net` in evaluation mode, made for being called often with the same weights.

    In evaluation mode batch normalisation is the map $y \mapsto a y + b$ of each channel, with constants $a$ and $b$.
    Behind a convolution $y = Kx + c$ it can be made part of it: $(aK)x + (ac + b)$. This is done in an `nn.Sequential`,
    which is sure to call one after the other. And the weights lie in memory with the channels last, which the
    transposed convolutions of a CPU prefer.

    Args:
        net: Any network; it stays as it is.

    References:
        `torch.nn.utils.fusion` and the memory format, https://docs.pytorch.org/docs/stable/nn.html#utilities.

    Example:
        >>> frozen(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()))
        Sequential(
          (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): ReLU()
        )
    """
    net = copy.deepcopy(net).eval()  # as fusing asks
    for chain in _chains(net):
        parts = chain._modules
        for first, second in zip(list(parts), list(parts)[1:], strict=False):
            convolution, norm = parts[first], parts[second]
            if _plain(convolution) and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                parts[first] = fuse_conv_bn_eval(convolution, norm, transpose=transposed)  # type: ignore[type-var]
                parts[second] = nn.Identity()
    return net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _chains(net: nn.Module) -> Iterator[nn.Sequential]:
    """The parts of a network that are known to call their modules in order."""
    if type(net) is nn.Sequential:
        yield net
    if type(net) in (nn.Sequential, Leading):
        for part in net.children():
            yield from _chains(part)


def _plain(module: nn.Module | None) -> bool:
    """Whether it is a convolution, without groups, whose weights are its own and whose output nobody else sees."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or module.groups > 1:
        return False
    own = type(module) in (nn.Conv2d, nn.ConvTranspose2d)
    return own and not (module._forward_pre_hooks or module._forward_hooks)
