"""Models about which everything is known in closed form, and numerical derivatives."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaekit import VAE, gaussian


class Decoder(nn.Module):
    """z [..., D] -> W z + b, shaped [..., 1, 1, P]."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.weight.T + self.bias)[..., None, None, :]


class Encoder(nn.Module):
    """x [..., 1, 1, P] -> (A (x - b), log std), std the same for every x."""

    def __init__(self, matrix: Tensor, bias: Tensor, log_std: Tensor) -> None:
        super().__init__()
        self.matrix, self.bias, self.log_std = (nn.Parameter(t.clone()) for t in (matrix, bias, log_std))

    def forward(self, x: Tensor) -> Tensor:
        mean = (x.flatten(-3) - self.bias) @ self.matrix.T
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)


class LinearGaussian(NamedTuple):
    """p(z) = N(0, I), p(x|z) = N(W z + b, s^2 I); precision = I + W'W/s^2; the evidence and the posterior are exact."""

    model: VAE
    x: Tensor  # [B, 1, 1, P], drawn from the model
    weight: Tensor  # [P, D]
    bias: Tensor  # [P]
    scale: float
    evidence: MultivariateNormal  # of x.flatten(1)
    precision: Tensor  # [D, D], of the exact posterior

    def log_evidence(self) -> Tensor:
        """Exact log p(x), [B]."""
        return self.evidence.log_prob(self.x.flatten(1))

    def posterior_mean(self) -> Tensor:
        """Exact E[z|x], [B, D]."""
        rhs = (self.x.flatten(1) - self.bias) @ self.weight / self.scale**2
        return torch.linalg.solve(self.precision, rhs.T).T


def linear_gaussian(
    *, latent: int = 2, pixels: int = 4, batch: int = 5, scale: float = 0.7, exact: bool = False,
    orthogonal: bool = False, seed: int = 0,
) -> LinearGaussian:  # fmt: skip
    """A random linear-Gaussian VAE in float64.

    exact: the encoder is the best diagonal one (mean exact, variances 1 / diag(precision)); else a wrong one.
    orthogonal: W has orthogonal columns, so that the best diagonal posterior is the exact one.
    """
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(pixels, latent, generator=g, dtype=torch.float64)
    if orthogonal:
        weight = torch.linalg.qr(weight)[0] * (1 + torch.rand(latent, generator=g, dtype=torch.float64))
    bias = torch.randn(pixels, generator=g, dtype=torch.float64)
    eye = torch.eye(latent, dtype=torch.float64)
    precision = eye + weight.T @ weight / scale**2
    matrix = torch.linalg.solve(precision, weight.T / scale**2)
    log_std = -0.5 * precision.diagonal().log()
    if not exact:
        matrix = matrix + 0.1 * torch.randn(matrix.shape, generator=g, dtype=torch.float64)
        log_std = log_std + 0.3
    model = VAE(
        Encoder(matrix, bias, log_std), Decoder(weight, bias), latent_dim=latent, likelihood=gaussian(scale)
    ).double()
    covariance = weight @ weight.T + scale**2 * torch.eye(pixels, dtype=torch.float64)
    z = torch.randn(batch, latent, generator=g, dtype=torch.float64)
    noise = torch.randn(batch, pixels, generator=g, dtype=torch.float64)
    x = (z @ weight.T + bias + scale * noise)[:, None, None, :]
    return LinearGaussian(model, x, weight, bias, scale, MultivariateNormal(bias, covariance), precision)
