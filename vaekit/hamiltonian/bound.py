r"""The Hamiltonian VAE: a posterior whose samples are moved by the gradient of the model's own log density."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.hamiltonian.dynamics import Phase, energy_errors, potential_of, tempered_flow, total_energy
from vaekit.model import VAE, DiagonalNormal


class HamiltonianBound(nn.Module):
    r"""The evidence lower bound of the Hamiltonian VAE, an objective with parameters of its own.

    A draw $z_0 \sim q_\phi(z \mid x)$ gets a momentum $\rho_0 = \gamma_0 / \sqrt{\beta_0}$, $\gamma_0 \sim
    \mathcal N(0, I)$, and takes K `leapfrog` steps on $U(z) = -\log p_\theta(x, z)$, each followed by a cooling
    $\rho \leftarrow \alpha_k \rho$. The flow's Jacobian has $|\det| = \prod_k \alpha_k^D = \beta_0^{D/2}$ whatever the
    model, which makes

    $$\log w = \log p_\theta(x, z_K) + \log \mathcal N(\rho_K; 0, I) - \log q_\phi(z_0 \mid x)
      - \log \mathcal N(\rho_0; 0, I / \beta_0) + \tfrac D2 \log \beta_0
      = \log p_\theta(x, z_K) - \log q_\phi(z_0 \mid x) + \tfrac12\big(|\gamma_0|^2 - |\rho_K|^2\big)$$

    the logarithm of an unbiased estimate of $p_\theta(x)$. Its mean is a bound on $\log p_\theta(x)$, and so is the
    mean with $|\gamma_0|^2$ replaced by its expectation D (eq. 12). The two differ by noise without parameters: their
    gradients are the same numbers. Only the first, `log_weight`, estimates the evidence.

    Everything is differentiated through, the gradients inside the steps included.

    Args:
        latent_dim: D, as in the model.
        steps: K, leapfrog steps, at least 1.
        tempering: `"free"`: each $\alpha_k \in (0, 1)$ is learned; `"fixed"`: $\beta_0$ is learned and
            $1 / \sqrt{\beta_k}$ falls to 1 quadratically in k, as in the paper's algorithm 1; `"fixed-temperature"`:
            the temperature $1 / \beta_k$ does, as in the authors' code for MNIST; `"none"`: $\alpha_k = 1$.
        step_size: Where the step sizes $\epsilon$ start; they are learned within (0, `max_step_size`).
        max_step_size: Their upper bound.
        step_size_per_step: Learn $\epsilon$ `[K, D]` for each step and dimension, not `[D]` for each dimension.
        beta_0: Where $\beta_0 \in (0, 1)$ starts; by default $0.9^{2K}$ (free: the authors' $\alpha_k = 0.9$),
            $1 / 1.5^2$ (fixed: our choice) and $1 / 1.5$ (fixed temperature: theirs, which made their table).
        estimator: What `forward` returns a mean of: `"plain"`, log w; or `"rao-blackwell"`, eq. 12.
        max_energy_error: How many nats a step may change $U + \tfrac12|\rho|^2$ before the flow counts as divergent.

    Raises:
        ValueError: An argument is out of its range.

    References:
        Caterini, Doucet & Sejdinovic, "Hamiltonian Variational Auto-Encoder", NeurIPS 2018, algorithm 1, eqs. 9-12,
        https://arxiv.org/abs/1805.11328; their code: https://github.com/anthonycaterini/hvae-nips.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model, x = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2), torch.rand(5, 1, 8, 8).round()
        >>> bound = HamiltonianBound(latent_dim=2, steps=3)
        >>> bound(model, x).shape, bound.log_weight(model, x, samples=7).shape
        (torch.Size([5]), torch.Size([7, 5]))
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        steps: int,
        tempering: Literal["free", "fixed", "fixed-temperature", "none"] = "free",
        step_size: float = 0.2,
        max_step_size: float = 0.5,
        step_size_per_step: bool = False,
        beta_0: float | None = None,
        estimator: Literal["plain", "rao-blackwell"] = "plain",
        max_energy_error: float = 1e6,
    ) -> None:
        """See the class."""
        super().__init__()
        checks.count(latent_dim, 1, "latent_dim")
        checks.count(steps, 1, "steps")
        checks.positive(max_step_size, "max_step_size")
        checks.positive(step_size, "step_size")
        if not step_size < max_step_size:
            raise ValueError(f"step_size: expected a number in (0, max_step_size = {max_step_size}), got {step_size}")
        if tempering not in ("free", "fixed", "fixed-temperature", "none"):
            expected = "'free', 'fixed', 'fixed-temperature' or 'none'"
            raise ValueError(f"tempering: expected {expected}, got {tempering!r}")
        if estimator not in ("plain", "rao-blackwell"):
            raise ValueError(f"estimator: expected 'plain' or 'rao-blackwell', got {estimator!r}")
        if beta_0 is None:
            beta_0 = {"free": 0.9 ** (2 * steps), "fixed-temperature": 1 / 1.5}.get(tempering, 1 / 1.5**2)
        checks.between(beta_0, 0, 1, "beta_0")
        if max_energy_error != math.inf:
            checks.positive(max_energy_error, "max_energy_error")
        self.latent_dim, self.steps, self.tempering, self.estimator = latent_dim, steps, tempering, estimator
        self.max_step_size, self.max_energy_error = max_step_size, max_energy_error
        shape = (steps, latent_dim) if step_size_per_step else (latent_dim,)
        self.step_logit = nn.Parameter(torch.full(shape, _logit(step_size / max_step_size)))
        if tempering == "free":
            self.alpha_logit = nn.Parameter(torch.full((steps,), _logit(beta_0 ** (0.5 / steps))))
        elif tempering != "none":
            self.sqrt_beta_logit = nn.Parameter(torch.tensor(_logit(math.sqrt(beta_0))))

    @property
    def step_size(self) -> Tensor:
        r"""$\epsilon$, `[D]` or `[K, D]`."""
        return self.max_step_size * self.step_logit.sigmoid()

    @property
    def alpha(self) -> Tensor:
        r"""The cooling factors $\alpha_1, \dots, \alpha_K$, `[K]`."""
        if self.tempering == "free":
            return self.alpha_logit.sigmoid()
        if self.tempering == "none":
            return self.step_logit.new_ones(self.steps)
        k = torch.arange(self.steps + 1, dtype=self.step_logit.dtype, device=self.step_logit.device)
        power = 1 if self.tempering == "fixed" else 2  # of 1 / sqrt(beta_k), that is quadratic in k
        hottest = (1 / self.sqrt_beta_logit.sigmoid()) ** power
        inverse = (1 - hottest) * (k / self.steps) ** 2 + hottest  # [K + 1], from 1 / sqrt(beta_0)^power to 1
        return (inverse[1:] / inverse[:-1]) ** (1 / power)

    @property
    def beta_0(self) -> Tensor:
        r"""$\beta_0 = \prod_k \alpha_k^2$, the inverse temperature that the momentum starts with; a scalar."""
        return self.alpha.prod().square()

    @property
    def log_det(self) -> Tensor:
        r"""$\log|\det|$ of the whole flow's Jacobian, $\tfrac D2 \log \beta_0$; a scalar."""
        return self.latent_dim * self.alpha.log().sum()

    def forward(self, model: VAE, x: Tensor, *, samples: int = 1) -> Tensor:
        """The bound, a mean over `samples` draws: from images `[B, *image]` to `[B]`, in nats.

        Raises:
            ValueError: Bad images, `samples` below 1 or a model with another number of latent variables.
            FloatingPointError: The flow diverges; the message names the step and its step sizes.
        """
        return self._estimate(model, x, samples, self.estimator).mean(0)

    def log_weight(self, model: VAE, x: Tensor, *, samples: int) -> Tensor:
        """Logarithms of unbiased estimates of p(x), `[S, B]`; for `vaekit.log_evidence`. Raises as `forward` does."""
        return self._estimate(model, x, samples, "plain")

    def sample_posterior(self, model: VAE, x: Tensor, *, samples: int) -> Tensor:
        r"""Draws of z after the flow, `[S, B, D]`: nearer to p(z|x) than $q_\phi$. Raises as `forward` does."""
        _, z_0, gamma_0 = self._draw(model, x, samples)
        return self.flow(model, x, z_0, gamma_0 / self.beta_0.sqrt())[0]

    def flow(self, model: VAE, x: Tensor, z: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        r"""The map $(z_0, \rho_0) \mapsto (z_K, \rho_K)$, both `[..., B, D]`. Raises as `forward` does."""
        end = self.trajectory(model, x, z, rho)[-1]
        return end.z, end.rho

    def trajectory(self, model: VAE, x: Tensor, z: Tensor, rho: Tensor) -> list[Phase]:
        r"""All K + 1 states of the flow, the momenta after cooling. Raises as `forward` does."""
        epsilon = self.step_size.expand(self.steps, self.latent_dim)
        states = tempered_flow(potential_of(model, x), z, rho, epsilon, self.alpha)
        self._refuse_divergence(states, epsilon)
        return states

    def _draw(self, model: VAE, x: Tensor, samples: int) -> tuple[DiagonalNormal, Tensor, Tensor]:
        checks.count(samples, 1, "samples")
        checks.model(model)
        if model.latent_dim != self.latent_dim:
            raise ValueError(f"model: expected latent_dim {self.latent_dim} like the bound's, got {model.latent_dim}")
        q_z = model.posterior(x)
        z_0 = q_z.rsample((samples,))  # [S, B, D]
        return q_z, z_0, torch.randn(z_0.shape, dtype=z_0.dtype, device=z_0.device)

    def _estimate(self, model: VAE, x: Tensor, samples: int, estimator: str) -> Tensor:
        q_z, z_0, gamma_0 = self._draw(model, x, samples)
        end = self.trajectory(model, x, z_0, gamma_0 / self.beta_0.sqrt())[-1]
        # log N(rho_0; 0, I / beta_0) = log N(gamma_0; 0, I) + log_det: the determinant cancels
        begin = gamma_0.square().sum(-1) if estimator == "plain" else float(self.latent_dim)
        return begin / 2 - q_z.log_prob(z_0) - total_energy(end)  # [S, B]

    @torch.no_grad()
    def _refuse_divergence(self, states: list[Phase], epsilon: Tensor) -> None:
        errors = energy_errors(states, self.alpha).abs().flatten(1).amax(1)  # [K]
        fine = errors <= self.max_energy_error  # not where it is NaN
        if checks.is_true(fine.all()):
            return
        k = int(fine.logical_not().nonzero()[0])
        low, high = epsilon[k].min().item(), epsilon[k].max().item()
        raise FloatingPointError(
            f"the Hamiltonian flow diverges: leapfrog step {k + 1} of {self.steps}, with step sizes from {low:.3g} to "
            f"{high:.3g}, changes the energy by {errors[k].item():.3g} nats (max_energy_error is "
            f"{self.max_energy_error:.3g}). Try a smaller step_size or max_step_size, or a lower learning rate"
        )


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
