r"""A VAE with two levels of latent variables, whose posterior and prior are distributions like any other.

The upper level $z_2$ says what the picture is about, the lower level $z_1$, given $z_2$, how it looks. What asks q(z|x)
and p(z) for draws, log-probabilities and a divergence takes this model as a plain one. `PlanarBound`, `beta_tcvae`,
`active_units` and `mutual_information` ask for latents that are independent given the image, and say so.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence, register_kl

from vaekit import checks
from vaekit.likelihoods import Likelihood, bernoulli
from vaekit.model import VAE, DiagonalNormal
from vaekit.networks import Leading, mlp

Lower = Callable[[Tensor, Tensor | None], DiagonalNormal]


class TwoLevelNormal(Distribution):
    r"""$r(z) = r(z_2)\,r(z_1 \mid z_2)$ for $z = (z_2, z_1)$, both factors normal with diagonal covariance.

    Args:
        upper: $r(z_2)$, batch shape `[...]`, event `[D2]`.
        lower: From $z_2$ `[..., D2]` and `context` to $r(z_1 \mid z_2)$, event `[D1]`.
        context: What $r(z_1 \mid z_2)$ depends on besides, `[..., F]`; `None` for nothing.
        latent_dim: D2 + D1.
    """

    arg_constraints = {}  # noqa: RUF012 (the name and kind are torch's)

    def __init__(self, upper: DiagonalNormal, lower: Lower, context: Tensor | None, latent_dim: int) -> None:
        """See the class."""
        self.upper, self.lower, self.context = upper, lower, context
        super().__init__(upper.batch_shape, torch.Size([latent_dim]), validate_args=False)

    def __getitem__(self, index: slice | Tensor) -> "TwoLevelNormal":
        """The distributions at `index` of the batch."""
        context = None if self.context is None else self.context[index]
        return TwoLevelNormal(self.upper[index], self.lower, context, self.event_shape[0])

    @property
    def mean(self) -> Tensor:
        r"""The mean of $z_2$, and beside it the mean of $z_1$ *given that* $z_2$: `[..., D2 + D1]`.

        For the lower level this is exact where $\mathbb E[z_1 \mid z_2]$ is linear in $z_2$, else a stand-in.
        """
        z_2 = self.upper.mean
        return torch.cat([z_2, self.lower(z_2, self.context).mean], -1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        r"""First $z_2$, then $z_1$ given $z_2$: `[*sample_shape, ..., D2 + D1]`."""
        z_2 = self.upper.rsample(sample_shape)
        return torch.cat([z_2, self.lower(z_2, self.context).rsample()], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""$\log r(z_2) + \log r(z_1 \mid z_2)$ in nats, for `value` `[..., D2 + D1]`."""
        upper_dim = self.upper.event_shape[0]
        z_2, z_1 = value[..., :upper_dim], value[..., upper_dim:]
        return self.upper.log_prob(z_2) + self.lower(z_2, self.context).log_prob(z_1)


@register_kl(TwoLevelNormal, TwoLevelNormal)
def level_divergences(q: TwoLevelNormal, p: TwoLevelNormal) -> Tensor:
    r"""The sum of the levels' divergences, by the chain rule, with one draw of the upper level:

    $$\mathrm{KL}(q \,\|\, p) = \mathrm{KL}\big(q(z_2) \,\|\, p(z_2)\big)
      + \mathbb E_{q(z_2)}\, \mathrm{KL}\big(q(z_1 \mid z_2) \,\|\, p(z_1 \mid z_2)\big).$$

    This is what `torch.distributions.kl_divergence` returns for two `TwoLevelNormal`: unbiased, not exact.
    """
    z_2 = q.upper.rsample()
    below = kl_divergence(q.lower(z_2, q.context), p.lower(z_2, p.context))
    return kl_divergence(q.upper, p.upper) + below


class TwoLevelVAE(VAE):
    r"""A VAE with prior $p(z_2)\,p_\theta(z_1 \mid z_2)$ and posterior $q_\phi(z_2 \mid x)\,q_\phi(z_1 \mid z_2, x)$.

    With $h$ the encoder's features of $x$, the lower levels of prior and posterior are

    $$p_\theta(z_1 \mid z_2) = \mathcal N(\mu_p, \operatorname{diag}\sigma_p^2), \qquad q_\phi(z_1 \mid z_2, x) =
      \mathcal N\big(\mu_p + \sigma_p\,\delta,\ \operatorname{diag}(\sigma_p\,\rho)^2\big),$$

    where $(\mu_p, \log\sigma_p)$ is `prior_head` of $z_2$ and $(\delta, \log\rho)$ is `lower_head` of $(h, z_2)$: the
    posterior is told relative to the prior, so that a network which returns 0 adds no divergence.

    Args:
        encoder: From images `[B, *image]` to features h `[B, F]`.
        decoder: From latents `[..., D2 + D1]`, the upper level first, to the likelihood's parameters.
        upper_head: From h to $(\mu, \log\sigma)$ of $q(z_2 \mid x)$, `[..., 2 D2]`.
        lower_head: From h and z_2, `[..., F + D2]`, to $(\delta, \log\rho)$, `[..., 2 D1]`.
        prior_head: From z_2 to $(\mu_p, \log\sigma_p)$, `[..., 2 D1]`.
        latent_dims: (D2, D1), each at least 1.
        likelihood: As in `VAE`.

    References:
        Relative posteriors: Vahdat & Kautz, "NVAE", NeurIPS 2020, section 3.2, https://arxiv.org/abs/2007.03898.

    Example:
        >>> from vaekit import elbo, log_evidence
        >>> model = two_level_mlp((1, 8, 8), latent_dims=(2, 3))
        >>> x = torch.rand(5, 1, 8, 8).round()
        >>> elbo(model, x).shape, log_evidence(model, x, samples=10).shape
        (torch.Size([5]), torch.Size([5]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        upper_head: nn.Module,
        lower_head: nn.Module,
        prior_head: nn.Module,
        latent_dims: tuple[int, int],
        likelihood: Likelihood = bernoulli,
    ) -> None:
        """See the class."""
        _check(latent_dims)
        for name, head in {"upper_head": upper_head, "lower_head": lower_head, "prior_head": prior_head}.items():
            checks.module(head, name)
        super().__init__(encoder, decoder, latent_dim=sum(latent_dims), likelihood=likelihood)
        self.upper_head, self.lower_head, self.prior_head = upper_head, lower_head, prior_head
        self.latent_dims = latent_dims

    @property
    def prior(self) -> TwoLevelNormal:  # type: ignore[override]
        r"""$p(z_2)\,p_\theta(z_1 \mid z_2)$."""
        zeros = self._zero.expand(self.latent_dims[0])
        return TwoLevelNormal(DiagonalNormal(zeros, zeros + 1), self._lower_prior, None, self.latent_dim)

    def posterior(self, x: Tensor) -> TwoLevelNormal:  # type: ignore[override]
        r"""$q_\phi(z_2 \mid x)\,q_\phi(z_1 \mid z_2, x)$ for images `[B, *image]`: batch shape `[B]`.

        Raises:
            ValueError: `x` is no batch of finite floating-point images.
        """
        checks.images(x, dtype=self._zero.dtype)
        h = self.encoder(x)  # [B, F]
        upper = _normal(self.upper_head(h).to(x.dtype))
        return TwoLevelNormal(upper, self._lower_posterior, h, self.latent_dim)

    def _lower_prior(self, z_2: Tensor, context: Tensor | None) -> DiagonalNormal:
        return _normal(self.prior_head(z_2).to(z_2.dtype))

    def _lower_posterior(self, z_2: Tensor, context: Tensor | None) -> DiagonalNormal:
        assert context is not None
        leading = torch.broadcast_shapes(z_2.shape[:-1], context.shape[:-1])
        joined = torch.cat([v.expand(*leading, -1) for v in (context, z_2)], -1)  # [..., F + D2]
        p, relative = self._lower_prior(z_2, None).base_dist, _normal(self.lower_head(joined).to(z_2.dtype)).base_dist
        return DiagonalNormal(p.loc + p.scale * relative.loc, p.scale * relative.scale)


def two_level_mlp(
    shape: tuple[int, ...], latent_dims: tuple[int, int], *, hidden: int = 400, likelihood: Likelihood = bernoulli
) -> TwoLevelVAE:
    """A `TwoLevelVAE` whose networks have one hidden layer each.

    Args:
        shape: Image shape, such as `(1, 28, 28)`.
        latent_dims: (D2, D1), upper level first, each at least 1.
        hidden: Width of the hidden layers, which is also F.
        likelihood: As in `VAE`; one number a pixel.
    """
    _check(latent_dims)
    checks.shape(shape, "shape", "positive image dimensions")
    checks.function(likelihood, "likelihood")
    checks.count(hidden, 1, "hidden")
    (upper, lower), pixels = latent_dims, math.prod(shape)

    def head(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    return TwoLevelVAE(
        Leading(nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU()), len(shape)),
        mlp(shape, upper + lower, hidden=(hidden,))[1],
        upper_head=nn.Linear(hidden, 2 * upper),
        lower_head=head(hidden + upper, 2 * lower),
        prior_head=head(upper, 2 * lower),
        latent_dims=latent_dims,
        likelihood=likelihood,
    )


def _normal(moments: Tensor) -> DiagonalNormal:
    """From (mean, log standard deviation), `[..., 2D]`."""
    mean, log_std = moments.chunk(2, dim=-1)
    return DiagonalNormal(mean, log_std.exp())


def _check(latent_dims: tuple[int, int]) -> None:
    if not isinstance(latent_dims, tuple | list) or len(latent_dims) != 2:
        raise ValueError(f"latent_dims: expected two numbers (D2, D1), got {checks.shown(latent_dims)}")
    for level, dim in enumerate(latent_dims):
        checks.count(dim, 1, f"latent_dims[{level}]")
