r"""Planar flows: a learned bending of the posterior that knows nothing of the model, as a baseline."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import checks
from vaekit.model import VAE, independent


def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""One planar map and the logarithm of its Jacobian's determinant.

    $$f(z) = z + \hat u \tanh(w^\top z + b), \qquad
      \log|\det| = \log\big|1 + (1 - \tanh^2(w^\top z + b))\, w^\top \hat u\big|.$$

    $\hat u = u + (m(w^\top u) - w^\top u)\, w / |w|^2$ with $m(a) = \operatorname{softplus}(a) - 1 > -1$ keeps the map
    invertible whatever the parameters, and the determinant positive.

    Args:
        z: `[..., D]`.
        u: Direction that z moves in, `[D]`, or anything that broadcasts against z.
        w: Normal of the plane that it moves away from, likewise; not 0.
        b: Offset of the plane, a scalar, or anything that broadcasts against `[...]`.

    Returns:
        f(z) `[..., D]` and log|det| `[...]`.

    References:
        Rezende & Mohamed, "Variational inference with normalizing flows", ICML 2015, eqs. 10-12 and appendix A.1,
        https://arxiv.org/abs/1505.05770.
    """
    w_u = (w * u).sum(-1, keepdim=True)
    squeeze = F.softplus(w_u)  # 1 + w'u_hat, above 0
    u_hat = u + (squeeze - 1 - w_u) * w / w.square().sum(-1, keepdim=True)
    bend = torch.tanh((w * z).sum(-1) + b)  # [...]
    # as 1 + (1 - bend^2) w'u_hat, but exact where w'u_hat is near -1
    slope = bend.square() + (1 - bend.square()) * squeeze.squeeze(-1)
    return z + u_hat * bend.unsqueeze(-1), slope.log()


class PlanarBound(nn.Module):
    r"""The evidence lower bound with a posterior bent by K planar maps, an objective with parameters of its own.

    $z_0 \sim q_\phi(z \mid x)$, $z_k = f_k(z_{k-1}; \lambda_k(x))$, and

    $$\log w = \log p_\theta(x, z_K) - \log q_\phi(z_0 \mid x)
      + \sum_{k=1}^K \log\Big|\det \frac{\partial f_k}{\partial z_{k-1}}\Big|$$

    is the logarithm of an unbiased estimate of $p_\theta(x)$; the bound is its mean. The maps' parameters are an affine
    function of $(\mu_\phi(x), \log\sigma_\phi(x))$, so that they may differ from image to image with any encoder.
    They start as the identity.

    Args:
        latent_dim: D, as in the model.
        steps: K, planar maps, at least 1.

    Raises:
        ValueError: An argument is below 1.

    References:
        Rezende & Mohamed, ICML 2015, eq. 15, https://arxiv.org/abs/1505.05770.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model, x = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2), torch.rand(5, 1, 8, 8).round()
        >>> bound = PlanarBound(latent_dim=2, steps=3)
        >>> bound(model, x).shape, bound.log_weight(model, x, samples=7).shape
        (torch.Size([5]), torch.Size([7, 5]))
    """

    def __init__(self, latent_dim: int, *, steps: int) -> None:
        """See the class."""
        super().__init__()
        checks.count(latent_dim, 1, "latent_dim")
        checks.count(steps, 1, "steps")
        self.latent_dim, self.steps = latent_dim, steps
        self.parameters_of = nn.Linear(2 * latent_dim, steps * (2 * latent_dim + 1))
        nn.init.zeros_(self.parameters_of.weight)
        w = torch.randn(steps, latent_dim) / math.sqrt(latent_dim)
        u = math.log(math.e - 1) * w / w.square().sum(-1, keepdim=True)  # m(w'u) = 0, which makes u_hat 0
        with torch.no_grad():
            self.parameters_of.bias.copy_(torch.cat([u, w, torch.zeros(steps, 1)], -1).flatten())

    def forward(self, model: VAE, x: Tensor, *, samples: int = 1) -> Tensor:
        """The bound, a mean over `samples` draws: from images `[B, *image]` to `[B]`, in nats.

        Raises:
            ValueError: Bad images, `samples` below 1 or a model with another number of latent variables.
        """
        return self.log_weight(model, x, samples=samples).mean(0)

    def log_weight(self, model: VAE, x: Tensor, *, samples: int) -> Tensor:
        """Logarithms of unbiased estimates of p(x), `[S, B]`; for `vaekit.log_evidence`. Raises as `forward` does."""
        z, log_q_z = self._draw(model, x, samples)
        return model.log_joint(x, z) - log_q_z

    def sample_posterior(self, model: VAE, x: Tensor, *, samples: int) -> Tensor:
        """Draws of z after the flow, `[S, B, D]`. Raises as `forward` does."""
        return self._draw(model, x, samples)[0]

    def _draw(self, model: VAE, x: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Draws `[S, B, D]` of the bent posterior, and its log density at them `[S, B]`."""
        checks.count(samples, 1, "samples")
        checks.model(model)
        if model.latent_dim != self.latent_dim:
            raise ValueError(f"model: expected latent_dim {self.latent_dim} like the bound's, got {model.latent_dim}")
        q_z = independent(model.posterior(x))
        z = q_z.rsample((samples,))  # [S, B, D]
        log_q_z = q_z.log_prob(z)
        moments = torch.cat([q_z.base_dist.loc, q_z.base_dist.scale.log()], -1)  # [B, 2D]
        of_each_map = self.parameters_of(moments).unflatten(-1, (self.steps, -1))  # [B, K, 2D + 1]
        for k in range(self.steps):
            u, w, b = of_each_map[:, k].split([self.latent_dim, self.latent_dim, 1], -1)
            z, log_det = planar(z, u, w, b.squeeze(-1))
            log_q_z = log_q_z - log_det
        return z, log_q_z
