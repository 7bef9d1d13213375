"""Small models and images on which answers are judged, in double precision; no two images are alike."""

import torch
from torch import Tensor, nn

from vaekit.likelihoods import gaussian
from vaekit.model import VAE
from vaekit.networks import mlp
from vaekit.training.seeding import seeded


def linear_model(pixels: int = 12, scale: float = 0.7, *, images: int = 3, seed: int = 0) -> tuple[VAE, Tensor]:
    """Three latent variables, encoder and decoder linear, Gaussian noise; and images `[B, 1, 1, pixels]` drawn from it.

    The encoder is near the exact posterior, where an objective varies little from draw to draw, but nowhere at it.
    """
    with seeded(seed):
        encode, decode = nn.Linear(pixels, 6).double(), nn.Linear(3, pixels).double()
        encoder, decoder = nn.Sequential(nn.Flatten(), encode), nn.Sequential(decode, nn.Unflatten(-1, (1, 1, pixels)))
        model = VAE(encoder, decoder, latent_dim=3, likelihood=gaussian(scale)).double()
        W = torch.randn(pixels, 3, dtype=torch.float64) * torch.tensor([0.3, 1.0, 2.0])  # [P, D]
        precision = torch.eye(3) + W.T @ W / scale**2
        with torch.no_grad():
            decode.weight.copy_(W)
            weight, bias = encode.weight, encode.bias
            weight[:3] = torch.linalg.solve(precision, W.T / scale**2)
            bias[:3] = 0.1 - weight[:3] @ decode.bias
            weight[3:] *= 0.1
            bias[3:] = (1.2 * precision.diagonal() ** -0.5).log()
        return model, model.likelihood(model.prior.rsample((images,))).sample().detach()


def curved_model(*, latent_dim: int = 2, images: int = 3, seed: int = 0) -> tuple[VAE, Tensor]:
    """Perceptrons with one hidden tanh layer, Bernoulli pixels; and images `[B, 1, 3, 3]` of grey levels.

    The decoder's weights are large enough for its Jacobian to change with z.
    """
    with seeded(seed):
        model = VAE(*mlp((1, 3, 3), latent_dim, hidden=(5,), activation=nn.Tanh), latent_dim=latent_dim).double()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(2.0)
            next(reversed(list(model.encoder.parameters())))[latent_dim:] -= 1.0  # narrower: less noise in a mean
        return model, torch.rand(images, 1, 3, 3, dtype=torch.float64)


def draws(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Tensors of standard Gaussian numbers."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes]
