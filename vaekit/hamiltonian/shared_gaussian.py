r"""A model with one latent vector for a whole data set, solved exactly: where posteriors can be judged by the nat.

$z \sim \mathcal N(0, I_d)$; $x_i \mid z \sim \mathcal N(z + \Delta, \operatorname{diag}\sigma^2)$ for N observations i.
The data enter only through their mean and their scatter, dimension by dimension, so a bound costs $O(d)$. Problems of
several sizes lie end to end in one axis of $J = \sum_p d_p$ dimensions, beside an axis of T data sets.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit import checks


class Problems(NamedTuple):
    """T data sets for each of P problem sizes."""

    sizes: tuple[int, ...]  # d of each problem
    n: int  # N, observations in a data set
    delta: Tensor  # [J], the truth
    sigma: Tensor  # [J], the truth
    mean: Tensor  # [T, J], of the observations
    scatter: Tensor  # [T, J], sum of squared distances from that mean

    @property
    def problem(self) -> Tensor:
        """The problem that each dimension belongs to, [J]."""
        where = self.mean.device
        return torch.arange(len(self.sizes), device=where).repeat_interleave(torch.tensor(self.sizes, device=where))

    def to(self, device: torch.device | str) -> "Problems":
        """The same data sets on another device."""
        tensors = ("delta", "sigma", "mean", "scatter")
        return self._replace(**{name: getattr(self, name).to(device) for name in tensors})

    def total(self, values: Tensor) -> Tensor:
        """Sums over the dimensions of each problem: from `[..., J]` to `[..., P]`."""
        return torch.stack([part.sum(-1) for part in values.split(self.sizes, -1)], -1)


def draw(sizes: tuple[int, ...], *, datasets: int, n: int = 10_000) -> Problems:
    r"""Data sets of the paper's experiment: $\Delta$ evenly spaced 1/5 apart, $\sigma$ a parabola from 1 to 0.1 to 1.

    The two statistics are drawn from their exact distributions, not by way of N observations.

    Raises:
        ValueError: A number is too small.

    References:
        Caterini et al., NeurIPS 2018, section 4.1, https://arxiv.org/abs/1805.11328.
    """
    for name, value, least in (("sizes", min(sizes), 1), ("datasets", datasets, 1), ("n", n, 2)):
        checks.count(value, least, name)
    centred = [torch.arange(d, dtype=torch.float64) - (d - 1) / 2 for d in sizes]
    delta = torch.cat(centred) / 5
    sigma = torch.cat([0.1 + 0.9 * (c / c.max()) ** 2 if len(c) > 1 else torch.ones_like(c) for c in centred])
    z = torch.randn(datasets, len(delta), dtype=torch.float64)
    mean = z + delta + sigma / math.sqrt(n) * torch.randn(z.shape, dtype=z.dtype)
    scatter = sigma**2 * torch.distributions.Chi2(torch.tensor(n - 1.0, dtype=z.dtype)).sample(z.shape)
    return Problems(tuple(sizes), n, delta, sigma, mean, scatter)


def log_evidence(data: Problems, delta: Tensor, sigma: Tensor) -> Tensor:
    r"""$\log p(x_1, \dots, x_N)$ in nats, dimension by dimension, for parameters `[T, J]`: `[T, J]`.

    With $m_j$ the mean and $S_j$ the scatter it is
    $-\tfrac N2 \log 2\pi - \tfrac{N-1}2 \log\sigma_j^2 - \tfrac12 \log(\sigma_j^2 + N) - \tfrac{S_j}{2\sigma_j^2}
    - \tfrac{N (m_j - \Delta_j)^2}{2(\sigma_j^2 + N)}$.
    """
    n, s2 = data.n, sigma**2
    quadratic = data.scatter / s2 + n * (data.mean - delta) ** 2 / (s2 + n)
    return -0.5 * (n * math.log(2 * math.pi) + (n - 1) * s2.log() + (s2 + n).log() + quadratic)


def maximum_likelihood(data: Problems) -> tuple[Tensor, Tensor]:
    r"""The $\Delta$ and $\sigma$ that maximise `log_evidence`, `[T, J]` each.

    $\hat\Delta = m$, and $\hat\sigma^2 = S / (N - 1 + \hat\sigma^2 / (\hat\sigma^2 + N))$, a contraction.
    """
    s2 = data.scatter / data.n
    for _ in range(10):
        s2 = data.scatter / (data.n - 1 + s2 / (s2 + data.n))
    return data.mean, s2.sqrt()
