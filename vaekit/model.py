r"""The variational auto-encoder: a prior p(z), a decoder's p(x|z) and an encoder's q(z|x), as distributions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaekit import checks
from vaekit.likelihoods import Bernoulli, Categorical256, Likelihood, bernoulli


class DiagonalNormal(Independent):
    r"""$\mathcal N(\mu, \operatorname{diag}\sigma^2)$ over the last dimension; its `rsample` works under `vmap`."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """Args: mean, std: shape `[..., D]`, `std` above 0."""
        super().__init__(Normal(mean, std, validate_args=False), 1, validate_args=False)

    def __getitem__(self, index: slice | Tensor) -> "DiagonalNormal":
        """The distributions at `index` of the batch, as `q_z[:10]`."""
        return DiagonalNormal(self.base_dist.loc[index], self.base_dist.scale[index])

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        r"""$z = \mu + \sigma\,\epsilon$ with $\epsilon \sim \mathcal N(0, I)$; shape `[*sample_shape, ..., D]`."""
        mean, std = self.base_dist.loc, self.base_dist.scale
        epsilon = torch.randn((*sample_shape, *mean.shape), dtype=mean.dtype, device=mean.device)
        return mean + std * epsilon


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, all layers are in evaluation mode; afterwards, each is in the mode that it was in."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def independent(q_z: Distribution) -> Independent:
    """The distribution itself, if it is normal with independent latents, as formulas over single latents ask.

    Raises:
        ValueError: It is not, such as that of a `TwoLevelVAE`.
    """
    if not isinstance(q_z, Independent) or not isinstance(q_z.base_dist, Normal):
        raise ValueError(f"model: expected a posterior of independent normal latents, got a {type(q_z).__name__}")
    return q_z


class VAE(nn.Module):
    r"""A latent-variable model $p_\theta(x, z) = p(z)\,p_\theta(x \mid z)$ with a posterior $q_\phi(z \mid x)$.

    $p(z) = \mathcal N(0, I_D)$, $q_\phi(z \mid x) = \mathcal N(\mu_\phi(x), \operatorname{diag}\sigma_\phi(x)^2)$, and
    $p_\theta(x \mid z)$ is the likelihood of what the decoder returns. The model knows no objective: that is what
    `vaekit.bounds` and the chapters' modules are for.

    Args:
        encoder: Maps images `[B, *image]` to `[B, 2D]`: the mean and the *log standard deviation* of q(z|x).
        decoder: Maps latents `[..., D]` to the likelihood's parameters `[..., *params]`.
        latent_dim: D, the number of latent variables, at least 1.
        likelihood: From parameters to a distribution over pixels: `vaekit.bernoulli` (the default),
            `vaekit.gaussian(scale)`, `vaekit.categorical256`, or your own.

    References:
        Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, https://arxiv.org/abs/1312.6114;
        Rezende, Mohamed & Wierstra, ICML 2014, https://arxiv.org/abs/1401.4082.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> x = torch.rand(5, 1, 8, 8).round()
        >>> model.posterior(x).mean.shape, model.reconstruct(x).shape, model.sample(3).shape
        (torch.Size([5, 2]), torch.Size([5, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
    """

    _zero: Tensor  # carries the model's dtype and device

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, *, latent_dim: int, likelihood: Likelihood = bernoulli
    ) -> None:
        """See the class."""
        super().__init__()
        checks.count(latent_dim, 1, "latent_dim")
        checks.module(encoder, "encoder")
        checks.module(decoder, "decoder")
        checks.function(likelihood, "likelihood")
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim = latent_dim
        self._likelihood = likelihood
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    @property
    def prior(self) -> DiagonalNormal:
        r"""$p(z) = \mathcal N(0, I_D)$, event shape `[D]`."""
        zeros = self._zero.expand(self.latent_dim)
        return DiagonalNormal(zeros, zeros + 1)

    def posterior(self, x: Tensor) -> DiagonalNormal:
        r"""$q_\phi(z \mid x)$ for images `[B, *image]`: batch shape `[B]`, event shape `[D]`.

        Raises:
            ValueError: `x` is no batch of finite floating-point images, or the encoder does not return `[B, 2D]`.
        """
        checks.images(x, dtype=self._zero.dtype)
        try:
            moments = self.encoder(x).to(x.dtype)  # [B, 2D]; back from half precision under autocast
        except RuntimeError:
            self.check_images(x)  # if it is their size, say so
            raise
        if moments.shape != (*x.shape[: moments.ndim - 1], 2 * self.latent_dim):
            raise ValueError(
                f"encoder: expected output of shape [B, 2 * {self.latent_dim}] (mean and log std) for x of shape "
                f"{tuple(x.shape)}, got {tuple(moments.shape)}"
            )
        mean, log_std = moments.chunk(2, dim=-1)
        return DiagonalNormal(mean, log_std.exp())

    def likelihood(self, z: Tensor) -> Independent:
        r"""$p_\theta(x \mid z)$ for latents `[..., D]`: batch shape `[...]`, event shape `[*image]`.

        Raises:
            ValueError: The last dimension of `z` is not D.
        """
        if not isinstance(z, Tensor) or not z.is_floating_point() or z.shape[-1:] != (self.latent_dim,):
            expected = f"floating-point latents with a last dimension of {self.latent_dim}"
            raise ValueError(f"z: expected {expected}, got {checks.described(z)}")
        pixels = self._likelihood(self.decoder(z).to(z.dtype))
        return Independent(pixels, len(pixels.batch_shape) - (z.ndim - 1), validate_args=False)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        r"""$\log p_\theta(x \mid z)$ in nats, for `x` `[B, *image]` and `z` `[..., B, D]`: shape `[..., B]`.

        Raises:
            ValueError: The images do not have the decoder's shape, are not finite, or (for a Bernoulli or categorical
                likelihood) leave [0, 1].
        """
        p_x_z = self.likelihood(z)
        self._check(x, p_x_z)
        return p_x_z.log_prob(x)

    @torch.no_grad()
    def check_images(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse images, on any device, that the model gives no probability; `fit` asks once for a whole data set.

        Args:
            x: Images `[B, *image]`.
            name: How the caller calls them, for the error.

        Raises:
            ValueError: As for `log_likelihood`.
        """
        with evaluating(self):  # so that no layer learns from the one image that is decoded here
            p_x_z = self.likelihood(self._zero.expand(1, self.latent_dim))
        self._check(x, p_x_z, name)

    def _check(self, x: Tensor, p_x_z: Independent, name: str = "x") -> None:
        unit_range = isinstance(p_x_z.base_dist, Bernoulli | Categorical256)
        checks.images(x, name=name, shape=p_x_z.event_shape, dtype=self._zero.dtype, unit_range=unit_range)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        r"""$\log p_\theta(x, z) = \log p(z) + \log p_\theta(x \mid z)$ in nats; shapes as in `log_likelihood`."""
        return self.prior.log_prob(z) + self.log_likelihood(x, z)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        r"""Mean images $\mathbb E[x \mid z]$ for `n` draws of z from the prior: `[n, *image]`, in pixel units."""
        checks.count(n, 1, "n")
        return self.likelihood(self.prior.rsample((n,))).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        r"""Mean images $\mathbb E[x \mid z = \mu_\phi(x)]$ at the posterior means: `[B, *image]`, in pixel units."""
        return self.likelihood(self.posterior(x).mean).mean
