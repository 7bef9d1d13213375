r"""Consistency regularisation: an image and its transformed copy should have the same posterior.

A rotated digit means what the digit meant, yet an encoder is free to put the two anywhere. The divergence between the
two posteriors measures how far apart it puts them, and `Consistency` adds it, as a cost, to any bound.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaekit import checks
from vaekit.model import VAE

Transform = Callable[[Tensor], Tensor]


def posterior_divergence(model: VAE, x: Tensor, tx: Tensor) -> Tensor:
    r"""How far the posterior of a transformed image lies from that of the image itself.

    With $\tilde x$ the transformed image and $q_\phi(z \mid x) = \mathcal N(\mu, \operatorname{diag}\sigma^2)$,
    $q_\phi(z \mid \tilde x) = \mathcal N(\tilde\mu, \operatorname{diag}\tilde\sigma^2)$,

    $$\mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big) = \tfrac12 \sum_d \Big[
      \log\frac{\sigma_d^2}{\tilde\sigma_d^2} - 1
      + \frac{\tilde\sigma_d^2 + (\tilde\mu_d - \mu_d)^2}{\sigma_d^2} \Big].$$

    It is not symmetric: the distance of the means counts in units of the *original's* standard deviation.

    Args:
        model: The model; a hierarchical one gives the sum of its levels' divergences.
        x: Images `[B, *image]`.
        tx: Their transformed copies, of the same shape.

    Returns:
        `[B]`, in nats; differentiable through both posteriors.

    Raises:
        ValueError: Bad images, or two batches of different shapes.

    References:
        Sinha & Dieng, "Consistency Regularization for Variational Auto-Encoders", NeurIPS 2021,
        https://arxiv.org/abs/2105.14859.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> x = torch.rand(5, 1, 8, 8)
        >>> posterior_divergence(model, x, x)
        tensor([0., 0., 0., 0., 0.], grad_fn=<SumBackward1>)
    """
    checks.model(model)
    checks.images(x)
    checks.images(tx, name="tx", shape=tuple(x.shape[1:]), dtype=x.dtype)
    q_both = model.posterior(_concatenate(x, tx))
    return kl_divergence(q_both[len(x) :], q_both[: len(x)])


class Consistency(nn.Module):
    r"""Any bound, on an image and on a transformed copy of it, less the divergence between their posteriors.

    $$\mathcal L(x) + \mathbb E_{t(\tilde x \mid x)}\Big[ \mathcal L(\tilde x)
      - \lambda\, \mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big) \Big],$$

    with one draw of $\tilde x$ for each image and step, and gradients through both posteriors. Both copies go through
    the bound as one batch of 2B images, so that the encoder runs once; a layer or a bound that looks at the batch as a
    whole (batch normalisation, a total-correlation estimate) sees all 2B.

    With $\lambda = 0$ this is the bound with data augmentation: the control without which nobody knows what the
    divergence itself has brought. The value belongs to *two* images: compare it with twice the bound.

    Args:
        bound: The objective for one copy, `(model, x, **options) -> [B]`; a module's parameters are trained too.
        transform: Draws a transformed copy of each image, `[B, *image]` to the same shape.
        weight: $\lambda$, at least 0. `fit(..., schedules={"weight": linear(0, 1, steps)})` anneals it.

    Raises:
        ValueError: `weight` below 0; the transform changes the shape; and what `bound` raises.

    References:
        Sinha & Dieng, NeurIPS 2021, https://arxiv.org/abs/2105.14859.

    Example:
        >>> from vaekit import VAE, elbo, mlp
        >>> from vaekit.consistency.transforms import RandomAffine
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> objective = Consistency(elbo, RandomAffine(degrees=15), weight=1.0)
        >>> objective(model, torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(self, bound: Callable[..., Tensor], transform: Transform, *, weight: float) -> None:
        """See the class."""
        super().__init__()
        checks.at_least(weight, 0, "weight")
        checks.function(bound, "bound")
        checks.function(transform, "transform")
        self.bound, self.transform, self.weight = bound, transform, weight

    def forward(self, model: VAE, x: Tensor, *, weight: float | None = None, **options: Any) -> Tensor:
        r"""Nats per image `[B]`; `weight` in place of the $\lambda$ set above, `options` for the bound."""
        lambda_ = self.weight if weight is None else weight
        checks.at_least(lambda_, 0, "weight")
        checks.model(model)
        checks.images(x)
        both = _concatenate(x, self.transform(x))  # [2B, *image]
        encoded = _Encoded(model, both)
        bound_x, bound_tx = self.bound(encoded, both, **options).chunk(2)
        if lambda_ == 0:
            return bound_x + bound_tx
        q_both = encoded.posterior(both)
        divergence = kl_divergence(q_both[len(x) :], q_both[: len(x)])
        return bound_x + bound_tx - lambda_ * divergence


class _Encoded:
    """A model that has already encoded `x`: asked for the posterior of that very tensor, it answers from memory."""

    def __init__(self, model: VAE, x: Tensor) -> None:
        self._model, self._x, self._q_z = model, x, model.posterior(x)

    def posterior(self, x: Tensor) -> Any:
        return self._q_z if x is self._x else self._model.posterior(x)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _concatenate(x: Tensor, tx: Tensor) -> Tensor:
    if not isinstance(tx, Tensor) or tx.shape != x.shape:
        came = tuple(tx.shape) if isinstance(tx, Tensor) else type(tx).__name__
        raise ValueError(f"transformed images: expected the images' own shape {tuple(x.shape)}, got {came}")
    return torch.cat([x, tx])
