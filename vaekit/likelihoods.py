r"""Observation models p(x|z): from what a decoder returns to a `torch.distributions.Distribution` over pixels.

A likelihood is a callable `params -> Distribution` whose batch shape ends in the image shape; `vaekit.VAE` sums the
log-probabilities over the image. All accept pixels in [0, 1] where that makes sense and give log-probabilities in nats.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vaekit import checks

Likelihood = Callable[[Tensor], Distribution]


class Bernoulli(torch.distributions.Bernoulli):
    r"""Independent coin flips with logits $\ell$, whose log-probability also takes grey levels.

    $$\log p(x \mid \ell) = x\,\ell - \log(1 + e^{\ell}),$$

    which for $x \in \{0, 1\}$ is the Bernoulli log-probability. For a grey level $x \in (0, 1)$ it is minus the usual
    binary cross-entropy: the *expected* log-probability of a pixel binarised to 1 with probability $x$. It is no
    density over grey levels, so compare such numbers only among themselves.

    References:
        Loaiza-Ganem & Cunningham, "The continuous Bernoulli", NeurIPS 2019, section 2,
        https://arxiv.org/abs/1907.06845 (on what the cross-entropy of grey levels is not).
    """

    support = constraints.unit_interval  # type: ignore[assignment]  # wider than the parent's {0, 1}, on purpose

    def __init__(self, logits: Tensor) -> None:
        """Args: logits: $\\ell$, any shape."""
        super().__init__(logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats of `value`, broadcast against the logits (`vaekit.VAE` has checked its range)."""
        return value * self.logits - F.softplus(self.logits)


class Categorical256(Distribution):
    r"""One of 256 grey levels per pixel, from 256 logits per pixel (last dimension).

    A pixel $x \in \{0, 1/255, \dots, 1\}$ has level $k = 255x$ and $\log p(x) = \ell_k - \log \sum_j e^{\ell_j}$.

    References:
        The observation model of Xiao et al., "Likelihood Regret", NeurIPS 2020, https://arxiv.org/abs/2003.02977.
    """

    arg_constraints = {}  # noqa: RUF012 (the name and kind are torch's)
    support = constraints.unit_interval
    levels = 256

    def __init__(self, logits: Tensor) -> None:
        """Args: logits: shape `[..., 256]`.

        Raises:
            ValueError: The last dimension is not 256.
        """
        if logits.shape[-1:] != (self.levels,):
            raise ValueError(f"logits: expected a last dimension of {self.levels}, got shape {tuple(logits.shape)}")
        # a network has its 256 outputs before the image's two dimensions: there, without a copy
        before = logits.movedim(-1, -3) if logits.ndim > 2 else logits
        if not logits.is_contiguous() and before.is_contiguous():
            self.log_probs = F.log_softmax(before, dim=-3).movedim(-3, -1)  # [..., 256]
        else:
            self.log_probs = F.log_softmax(logits, dim=-1)  # [..., 256]
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats of pixels `value` in [0, 1], rounded to the nearest of the 256 levels."""
        level = (value * (self.levels - 1)).round().long().expand(self._extended_shape_for(value))
        log_probs = self.log_probs.expand(*level.shape, self.levels)
        return log_probs.gather(-1, level.unsqueeze(-1)).squeeze(-1)

    @property
    def mean(self) -> Tensor:
        """Expected pixel in [0, 1]."""
        grey = torch.linspace(0, 1, self.levels, dtype=self.log_probs.dtype, device=self.log_probs.device)
        return self.log_probs.exp() @ grey

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Pixels in [0, 1], shape `sample_shape + batch_shape`."""
        grey = torch.distributions.Categorical(logits=self.log_probs, validate_args=False)
        level = grey.sample(torch.Size(sample_shape))
        return level.to(self.log_probs.dtype) / (self.levels - 1)

    def _extended_shape_for(self, value: Tensor) -> torch.Size:
        return torch.broadcast_shapes(value.shape, self.batch_shape)


def bernoulli(logits: Tensor) -> Distribution:
    """Black-and-white pixels from logits; see `Bernoulli`."""
    return Bernoulli(logits)


def gaussian(scale: float) -> Likelihood:
    r"""Real pixels $x \sim \mathcal N(\mu, \text{scale}^2)$, where $\mu$ is what the decoder returns.

    Args:
        scale: Standard deviation of the observation noise, in pixel units; above 0.

    Raises:
        ValueError: `scale` is not a positive finite number.

    Example:
        >>> gaussian(0.5)(torch.zeros(1)).log_prob(torch.ones(1))
        tensor([-2.2258])
    """
    checks.positive(scale, "scale")

    def likelihood(mean: Tensor) -> Distribution:
        return Normal(mean, torch.full((), scale, dtype=mean.dtype, device=mean.device), validate_args=False)

    return likelihood


def categorical256(logits: Tensor) -> Distribution:
    """256 grey levels from 256 logits per pixel (last dimension); see `Categorical256`."""
    return Categorical256(logits)


def bits_per_dim(nats: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Nats per image as bits per dimension: `nats / (ln 2 * number of pixels and channels)`."""
    return nats / (math.log(2) * math.prod(shape))
