r"""Three kinds of posterior for the shared-latent Gaussian model, each a bound fitted to all data sets side by side."""

import math

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.hamiltonian.dynamics import tempered_flow
from vaekit.hamiltonian.shared_gaussian import Problems


class Fit(nn.Module):
    r"""Parameters $\Delta$ and $\log\sigma$ for every data set, and the log joint density of data and z."""

    def __init__(self, data: Problems) -> None:
        """Start from $\\Delta = 0$, $\\log\\sigma = 3$, as the paper does."""
        super().__init__()
        self.data = data
        self.delta = nn.Parameter(torch.zeros_like(data.mean))
        self.log_sigma = nn.Parameter(torch.full_like(data.mean, 3.0))

    def log_joint(self, z: Tensor) -> Tensor:
        r"""$\log p(x_1, \dots, x_N, z)$ of z `[S, T, J]`, dimension by dimension: `[S, T, J]`."""
        n, precision = self.data.n, (-2 * self.log_sigma).exp()
        constant = -0.5 * ((n + 1) * math.log(2 * math.pi) + self.data.scatter * precision) - n * self.log_sigma
        return constant - 0.5 * (z**2 + n * precision * (self.data.mean - self.delta - z) ** 2)

    def noise(self, samples: int) -> Tensor:
        """Standard normal, `[S, T, J]`."""
        return torch.randn((samples, *self.delta.shape), dtype=self.delta.dtype, device=self.delta.device)


class Hamiltonian(Fit):
    r"""K leapfrog steps from the prior, with fixed tempering or none.

    The potential is quadratic, so in each dimension the flow is affine, $z_K = a z_0 + b \gamma_0 + c$ and likewise
    $\rho_K$. Carrying the columns a, b, c through the steps gives the map itself, and with it any number of draws.
    """

    def __init__(self, data: Problems, *, steps: int, tempered: bool) -> None:
        """Start from step sizes of 0.005 (at most 0.5) and $1 / \\sqrt{\\beta_0} = 5$, as the paper does."""
        super().__init__(data)
        self.steps = steps
        self.step_logit = nn.Parameter(torch.full_like(data.mean, math.log(0.01 / 0.99)))
        shape = len(data.mean), len(data.sizes)
        hotter = torch.full(shape, math.log(4.0), dtype=data.mean.dtype, device=data.mean.device)
        self.log_heat = nn.Parameter(hotter) if tempered else None  # 1 / sqrt(beta_0) = 1 + exp of it

    def columns(self) -> tuple[Tensor, Tensor]:
        """The affine map: z_K and rho_K as columns (of z_0, of gamma_0, constant), `[3, T, J]` each."""
        precision = self.data.n * (-2 * self.log_sigma).exp()  # [T, J]
        constant = precision.new_tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
        pull = constant * (precision * (self.data.mean - self.delta))
        heat = torch.ones_like(precision)
        if self.log_heat is not None:
            heat = 1 + self.log_heat.exp()[:, self.data.problem]
        k = torch.arange(self.steps + 1).to(precision).view(-1, 1, 1)
        inverse_sqrt_beta = (1 - heat) * (k / self.steps) ** 2 + heat  # [K + 1, T, J]
        alpha = inverse_sqrt_beta[1:] / inverse_sqrt_beta[:-1]
        epsilon = (0.5 * self.step_logit.sigmoid()).expand_as(alpha)
        z, rho = (column.view(3, 1, 1).expand_as(pull) for column in torch.eye(3).to(precision)[:2])
        end = tempered_flow(lambda z: (z, (1 + precision) * z - pull), z, rho * heat, epsilon, alpha)[-1]
        return end.z, end.rho

    def bound(self, samples: int) -> Tensor:
        """Log weights `[S, T, P]`, whose mean is the bound on the log evidence."""
        (z_a, z_b, z_c), (rho_a, rho_b, rho_c) = self.columns()
        z_0, gamma_0 = self.noise(samples), self.noise(samples)
        z, rho = z_a * z_0 + z_b * gamma_0 + z_c, rho_a * z_0 + rho_b * gamma_0 + rho_c
        log_w = self.log_joint(z) + 0.5 * (gamma_0**2 - rho**2 + z_0**2 + math.log(2 * math.pi))
        return self.data.total(log_w)


class Planar(Fit):
    r"""K planar maps from the prior, all with the same u, w, b.

    Then $a_k = w^\top z_k + b$ obeys $a_{k+1} = a_k + w^\top \hat u \tanh a_k$, a recursion of one number.
    """

    def __init__(self, data: Problems, *, steps: int) -> None:
        """Start from the identity."""
        super().__init__(data)
        self.steps = steps
        dimensions = torch.tensor(data.sizes, device=data.mean.device)[data.problem]  # [J]
        self.w = nn.Parameter(torch.randn_like(data.mean) / dimensions.sqrt())
        self.u = nn.Parameter(math.log(math.e - 1) * self.w.detach() / self._expand(data.total(self.w.detach() ** 2)))
        self.b = nn.Parameter(data.mean.new_zeros(len(data.mean), len(data.sizes)))

    def _expand(self, values: Tensor) -> Tensor:
        return values[..., self.data.problem]

    def bound(self, samples: int) -> Tensor:
        """Log weights `[S, T, P]`, whose mean is the bound on the log evidence."""
        w_u = self.data.total(self.w * self.u)  # [T, P]
        stretch = (nn.functional.softplus(w_u) - 1 - w_u) / self.data.total(self.w**2)
        u_hat, squeeze = self.u + self._expand(stretch) * self.w, nn.functional.softplus(w_u)  # 1 + w'u_hat
        z_0 = self.noise(samples)
        a = self.data.total(self.w * z_0) + self.b  # [S, T, P]
        moved = log_det = torch.zeros_like(a)
        for _ in range(self.steps):
            bend = a.tanh()
            moved, a = moved + bend, a + (squeeze - 1) * bend
            log_det = log_det + (bend**2 + (1 - bend**2) * squeeze).log()  # log(1 + tanh' w'u_hat), near 0 too
        log_w = self.log_joint(z_0 + u_hat * self._expand(moved)) + 0.5 * (z_0**2 + math.log(2 * math.pi))
        return self.data.total(log_w) + log_det


class MeanField(Fit):
    r"""$q(z) = \mathcal N(m, \operatorname{diag} s^2)$, which can be the exact posterior; its ELBO in closed form."""

    def __init__(self, data: Problems) -> None:
        """Start from the prior."""
        super().__init__(data)
        self.m, self.log_s = nn.Parameter(torch.zeros_like(data.mean)), nn.Parameter(torch.zeros_like(data.mean))

    def bound(self, samples: int) -> Tensor:
        """The ELBO, `[1, T, P]`: it needs no samples."""
        curvature = 1 + self.data.n * (-2 * self.log_sigma).exp()
        entropy = self.log_s + 0.5 * math.log(2 * math.pi * math.e)
        return self.data.total(self.log_joint(self.m) - 0.5 * curvature * (2 * self.log_s).exp() + entropy)[None]


def train(
    fit: Hamiltonian | Planar | MeanField, *, iterations: int, lr: float, samples: int = 10, decay: bool = True
) -> None:
    """Maximise the bounds of all problems and data sets together, by RMSProp.

    Args:
        fit: Trained in place.
        iterations: Steps of RMSProp, at least 1.
        lr: Its learning rate.
        samples: Draws of z in each step.
        decay: Let the rate fall to nothing (along a cosine); else it stays what it is, as in the paper.

    Raises:
        FloatingPointError: A bound became NaN or infinite; the message says at which iteration.
    """
    checks.count(iterations, 1, "iterations")
    checks.positive(lr, "lr")
    optimiser = torch.optim.RMSprop(fit.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations) if decay else None
    for i in range(iterations):
        optimiser.zero_grad()
        bound = fit.bound(samples).mean(0)
        if not bound.sum().isfinite():
            raise FloatingPointError(f"{type(fit).__name__}: the bound is no longer finite at iteration {i + 1}")
        (-bound.sum()).backward()
        optimiser.step()
        if schedule is not None:
            schedule.step()
