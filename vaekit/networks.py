r"""Encoder and decoder pairs: a multilayer perceptron and the convolutional networks of the papers.

Each function returns `(encoder, decoder)` for `vaekit.VAE(encoder, decoder, latent_dim=...)`: the encoder maps images
`[..., *image]` to `[..., 2D]` (mean and log standard deviation), the decoder maps latents `[..., D]` to one number a
pixel `[..., *image]`, or, with `outputs=256`, to 256 logits a pixel `[..., *image, 256]`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import checks

Shape = tuple[int, ...]
Pair = tuple[nn.Module, nn.Module]


class Leading(nn.Module):
    """Runs `net` on inputs with any leading dimensions, by flattening these into one batch and back.

    Args:
        net: Takes `[N, *inputs]`.
        inputs: The shape of one input; or only the number of its dimensions, where any shape will do.
    """

    def __init__(self, net: nn.Module, inputs: int | Shape) -> None:
        """See the class."""
        super().__init__()
        self.net, self.shape = net, None if isinstance(inputs, int) else tuple(inputs)
        self.inputs = inputs if isinstance(inputs, int) else len(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """From `[..., *inputs]` to `[..., *outputs]`.

        Raises:
            ValueError: `x` does not end in the shape of an input.
        """
        if self.shape is not None and tuple(x.shape[-self.inputs :]) != self.shape:
            raise ValueError(f"x: expected inputs of shape {self.shape}, got a tensor of shape {tuple(x.shape)}")
        if x.ndim == self.inputs + 1:
            return self.net(x)
        leading = x.shape[: x.ndim - self.inputs]
        y = self.net(x.reshape(-1, *x.shape[x.ndim - self.inputs :]))
        return y.reshape(*leading, *y.shape[1:])


class PixelOutputs(nn.Module):
    """From channels `[N, C * outputs, H, W]` to `outputs` numbers a pixel and channel: `[N, C, H, W, outputs]`."""

    def __init__(self, outputs: int) -> None:
        """See the class."""
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.unflatten(1, (-1, self.outputs)).movedim(2, -1)


class SoftplusScale(nn.Module):
    r"""In `[..., 2D]`, turns the second half $r$ into $\log\sigma$ with $\sigma = \operatorname{softplus}(r)$."""

    def forward(self, moments: Tensor) -> Tensor:
        """See the class."""
        mean, raw = moments.chunk(2, dim=-1)
        return torch.cat([mean, F.softplus(raw).clamp_min(torch.finfo(raw.dtype).tiny).log()], dim=-1)


def _ends(shape: Shape, *sizes: Shape) -> bool:
    """Whether `shape` is (C, H, W) with one of these (H, W)."""
    return isinstance(shape, tuple | list) and len(shape) == 3 and tuple(shape[1:]) in sizes


def _check(latent_dim: int, outputs: int, shape: Shape, expected: str | None = None) -> None:
    checks.count(latent_dim, 1, "latent_dim")
    checks.count(outputs, 1, "outputs")
    checks.shape(shape, "shape", expected or "positive image dimensions")
    if expected:
        raise ValueError(f"shape: expected {expected}, got {tuple(shape)}")


def mlp(
    shape: Shape,
    latent_dim: int,
    *,
    hidden: tuple[int, ...] = (400,),
    outputs: int = 1,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Pair:
    """Fully connected networks; with the defaults the 784-400-D pair that much of the literature uses on MNIST.

    Args:
        shape: Image shape, such as `(1, 28, 28)`.
        latent_dim: D, at least 1.
        hidden: Width of each hidden layer of the encoder; the decoder mirrors it.
        outputs: Numbers that the decoder returns for each pixel: 1, or 256 for `categorical256`.
        activation: Makes the non-linearity between layers.

    Raises:
        ValueError: A dimension is below 1.
    """
    _check(latent_dim, outputs, shape)
    if hidden != ():
        checks.shape(hidden, "hidden", "widths of at least 1")
    checks.function(activation, "activation")
    pixels = math.prod(shape)

    def layers(widths: list[int]) -> list[nn.Module]:
        linear: list[nn.Module] = []
        for before, after in pairwise(widths):
            linear += [nn.Linear(before, after), activation()]
        return linear[:-1]

    encoder = nn.Sequential(nn.Flatten(), *layers([pixels, *hidden, 2 * latent_dim]))
    trailing = shape if outputs == 1 else (*shape, outputs)
    decoder = nn.Sequential(*layers([latent_dim, *reversed(hidden), pixels * outputs]), nn.Unflatten(-1, trailing))
    return Leading(encoder, tuple(shape)), Leading(decoder, (latent_dim,))


def hvae_conv(latent_dim: int = 64) -> Pair:
    r"""The MNIST networks of the Hamiltonian VAE paper, for images of 1 x 28 x 28.

    Softplus activations and $\sigma = \operatorname{softplus}(\cdot)$. Three 5 x 5 convolutions of stride 2 (16, 32,
    32 maps), a dense layer of 450; the decoder mirrors them.

    References:
        Caterini, Doucet & Sejdinovic, NeurIPS 2018, section 4.2, https://arxiv.org/abs/1805.11328; the architecture is
        that of Salimans, Kingma & Welling, ICML 2015, section 4.2, https://arxiv.org/abs/1410.6460.
    """
    _check(latent_dim, 1, (1, 28, 28))
    act = nn.Softplus
    encoder = nn.Sequential(
        nn.Conv2d(1, 16, 5, 2, 2), act(),  # [N, 16, 14, 14]
        nn.Conv2d(16, 32, 5, 2, 2), act(),  # [N, 32, 7, 7]
        nn.Conv2d(32, 32, 5, 2, 2), act(),  # [N, 32, 4, 4]
        nn.Flatten(), nn.Linear(512, 450), act(), nn.Linear(450, 2 * latent_dim), SoftplusScale(),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(latent_dim, 450), act(), nn.Linear(450, 512), act(), nn.Unflatten(-1, (32, 4, 4)),
        nn.ConvTranspose2d(32, 32, 5, 2, 2), act(),  # [N, 32, 7, 7]
        nn.ConvTranspose2d(32, 16, 5, 2, 2, 1), act(),  # [N, 16, 14, 14]
        nn.ConvTranspose2d(16, 1, 5, 2, 2, 1),  # [N, 1, 28, 28]
    )  # fmt: skip
    return Leading(encoder, (1, 28, 28)), Leading(decoder, (latent_dim,))


def dcgan(shape: Shape = (1, 32, 32), latent_dim: int = 100, *, width: int = 32, outputs: int = 256) -> Pair:
    """A batch-normalised pair in the manner of the Likelihood Regret paper, for images of 32 x 32.

    The authors' own pair is `vaekit.regret.authors_dcgan`; this one leaves the first layer without normalisation, takes
    leaky ReLU in the encoder and gives the outputs a bias.

    Args:
        shape: `(C, 32, 32)`; pad smaller images with zeros.
        latent_dim: D, at least 1.
        width: Number of maps of the widest resolution; doubled at each halving.
        outputs: Numbers that the decoder returns for each pixel and channel: 256 for `categorical256`, 1 for the rest.

    Raises:
        ValueError: The images are not 32 x 32, or a dimension is below 1.

    References:
        Xiao, Yan & Amit, NeurIPS 2020, https://arxiv.org/abs/2003.02977; after Radford et al., "DCGAN", ICLR 2016,
        https://arxiv.org/abs/1511.06434.
    """
    _check(latent_dim, outputs, shape, None if _ends(shape, (32, 32)) else "(C, 32, 32)")
    checks.count(width, 1, "width")
    channels = shape[0]

    def down(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]

    def up(before: int, after: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    encoder = nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2),  # [N, W, 16, 16]
        *down(width, 2 * width), *down(2 * width, 4 * width),  # [N, 4W, 4, 4]
        nn.Conv2d(4 * width, 2 * latent_dim, 4), nn.Flatten(),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Unflatten(-1, (latent_dim, 1, 1)),
        nn.ConvTranspose2d(latent_dim, 4 * width, 4, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),  # [N, 4W, 4, 4]
        *up(4 * width, 2 * width), *up(2 * width, width),  # [N, W, 16, 16]
        nn.ConvTranspose2d(width, channels * outputs, 4, 2, 1),
        *([PixelOutputs(outputs)] if outputs > 1 else []),
    )  # fmt: skip
    return Leading(encoder, tuple(shape)), Leading(decoder, (latent_dim,))


def conv(shape: Shape = (1, 64, 64), latent_dim: int = 10, *, outputs: int = 1) -> Pair:
    """The convolutional pair of the disentanglement literature; for 32 x 32 it drops one stage.

    Convolutions 4 x 4 of stride 2 (32, 32, 64, 64 maps), a dense layer of 256, ReLU; the decoder mirrors them. They pad
    by 1, where the code of Rhodes & Lee does not, and the log variance starts near 0, where theirs is shifted by -3.

    Args:
        shape: `(C, 64, 64)` or `(C, 32, 32)`.
        latent_dim: D, at least 1.
        outputs: Numbers that the decoder returns for each pixel and channel.

    Raises:
        ValueError: Another image size, or a dimension is below 1.

    References:
        Rhodes & Lee, NeurIPS 2021, https://arxiv.org/abs/2106.02923; the architecture is that of Locatello et al., ICML
        2019, https://arxiv.org/abs/1811.12359.
    """
    known = _ends(shape, (64, 64), (32, 32))
    _check(latent_dim, outputs, shape, None if known else "(C, 64, 64) or (C, 32, 32)")
    maps = [shape[0], 32, 32, 64, 64] if shape[1] == 64 else [shape[0], 32, 64, 64]
    down: list[nn.Module] = []
    for before, after in pairwise(maps):
        down += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
    encoder = nn.Sequential(
        *down, nn.Flatten(), nn.Linear(64 * 4 * 4, 256), nn.ReLU(), nn.Linear(256, 2 * latent_dim)
    )
    maps[0] *= outputs
    up: list[nn.Module] = []
    for before, after in zip(maps[:0:-1], maps[-2::-1], strict=True):
        up += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU()]
    decoder = nn.Sequential(
        nn.Linear(latent_dim, 256), nn.ReLU(), nn.Linear(256, 64 * 4 * 4), nn.ReLU(), nn.Unflatten(-1, (64, 4, 4)),
        *up[:-1], *([PixelOutputs(outputs)] if outputs > 1 else []),
    )  # fmt: skip
    return Leading(encoder, tuple(shape)), Leading(decoder, (latent_dim,))
