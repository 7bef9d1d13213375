"""The networks of the Likelihood Regret paper, layer for layer and name for name as in the authors' code."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.networks import Leading, Pair, PixelOutputs, Shape


class _Encoder(nn.Module):
    """Features, and from them a mean and a log *variance*: `[N, C, 32, 32]` to `[N, 2D]`."""

    def __init__(self, channels: int, latent_dim: int, width: int) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "input-conv": nn.Conv2d(channels, width, 4, 2, 1, bias=False),
            "input-BN": nn.BatchNorm2d(width),
            "input-relu": nn.ReLU(),
        }
        for n in (width, 2 * width):
            layers[f"pyramid:{n}-{2 * n}:conv"] = nn.Conv2d(n, 2 * n, 4, 2, 1, bias=False)
            layers[f"pyramid:{2 * n}:batchnorm"] = nn.BatchNorm2d(2 * n)
            layers[f"pyramid:{2 * n}:relu"] = nn.ReLU()
        self.main = nn.Sequential(OrderedDict(layers))  # [N, 4W, 4, 4]
        self.conv1, self.conv2 = (nn.Conv2d(4 * width, latent_dim, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        features = self.main(x)
        return torch.cat([self.conv1(features), self.conv2(features) / 2], 1).flatten(1)  # log std = log variance / 2


class _Decoder(nn.Module):
    """From `[N, D]` to `outputs` numbers a pixel and channel, without a bias."""

    def __init__(self, channels: int, latent_dim: int, width: int, outputs: int) -> None:
        super().__init__()
        n = 4 * width
        layers: dict[str, nn.Module] = {
            f"initial:{latent_dim}-{n}:convt": nn.ConvTranspose2d(latent_dim, n, 4, bias=False),
            f"initial:{n}:batchnorm": nn.BatchNorm2d(n),
            f"initial:{n}:relu": nn.ReLU(),
        }
        for n in (4 * width, 2 * width):
            layers[f"pyramid:{n}-{n // 2}:convt"] = nn.ConvTranspose2d(n, n // 2, 4, 2, 1, bias=False)
            layers[f"pyramid:{n // 2}:batchnorm"] = nn.BatchNorm2d(n // 2)
            layers[f"pyramid:{n // 2}:relu"] = nn.ReLU()
        layers[f"final:{width}-{channels}:convt"] = nn.ConvTranspose2d(width, channels * outputs, 4, 2, 1, bias=False)
        self.main = nn.Sequential(OrderedDict(layers))  # [N, C * outputs, 32, 32]
        self.pixels = PixelOutputs(outputs) if outputs > 1 else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        return self.pixels(self.main(z[..., None, None]))


def authors_dcgan(shape: Shape = (1, 32, 32), latent_dim: int = 100, *, width: int = 32, outputs: int = 256) -> Pair:
    """The pair of the Likelihood Regret paper, for images of 32 x 32: batch normalisation after every convolution.

    With the defaults the weights that the authors have published fit as they are:
    `encoder.net.load_state_dict(torch.load("netE_pixel.pth"))`, and `decoder.net` with `netG_pixel.pth`. They scale
    images of 28 x 28 up bilinearly, where the chapters pad them with black.

    Args:
        shape: `(C, 32, 32)`.
        latent_dim: D, at least 1.
        width: Number of maps of the widest resolution; doubled at each halving.
        outputs: Numbers that the decoder returns for each pixel and channel: 256 for `categorical256`, 1 for the rest.

    Raises:
        ValueError: The images are not 32 x 32, or a dimension is below 1.

    References:
        Xiao, Yan & Amit, NeurIPS 2020, https://arxiv.org/abs/2003.02977; their code and weights:
        https://github.com/XavierXiao/Likelihood-Regret.

    Example:
        >>> encoder, decoder = authors_dcgan(width=4)
        >>> encoder(torch.rand(5, 1, 32, 32)).shape, decoder(torch.randn(5, 100)).shape
        (torch.Size([5, 200]), torch.Size([5, 1, 32, 32, 256]))
    """
    for name, value in {"latent_dim": latent_dim, "width": width, "outputs": outputs}.items():
        checks.count(value, 1, name)
    checks.shape(shape, "shape", "(C, 32, 32)")
    if len(shape) != 3 or tuple(shape[1:]) != (32, 32):
        raise ValueError(f"shape: expected (C, 32, 32), got {tuple(shape)}")
    encoder, decoder = _Encoder(shape[0], latent_dim, width), _Decoder(shape[0], latent_dim, width, outputs)
    return Leading(encoder, tuple(shape)), Leading(decoder, (latent_dim,))
