"""The Hamiltonian VAE."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaekit.hamiltonian import Phase, leapfrog
from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import curved_model, draws


def _spring(z: Tensor) -> Tensor:
    return z**3 + torch.tensor([0.5, 2.0], dtype=z.dtype) * z


def _step(z: Tensor, rho: Tensor, epsilon: float, force: Callable) -> tuple[Tensor, Tensor]:
    """The library's leapfrog, for the force's potential; its values do not matter for the motion."""
    end = leapfrog(lambda z: (z.sum(-1), force(z)), Phase(z, rho, z.sum(-1), force(z)), epsilon)
    return end.z, end.rho


def _euler(z: Tensor, rho: Tensor, epsilon: float, force: Callable) -> tuple[Tensor, Tensor]:
    return z + epsilon * rho, rho - epsilon * force(z)


def _one_kick(z: Tensor, rho: Tensor, epsilon: float, force: Callable) -> tuple[Tensor, Tensor]:
    rho = rho - epsilon * force(z)
    return z + epsilon * rho, rho


def _old_force(z: Tensor, rho: Tensor, epsilon: float, force: Callable) -> tuple[Tensor, Tensor]:
    half = rho - epsilon / 2 * force(z)
    return z + epsilon * half, half - epsilon / 2 * force(z)


def _temperatures(alpha: Tensor) -> Tensor:
    betas = [torch.ones((), dtype=alpha.dtype)]  # beta_K; then down to beta_0
    for alpha_k in reversed(alpha):
        betas.insert(0, betas[0] * alpha_k**2)
    return torch.stack(betas)


def _growth(curvature: float, epsilon: float) -> Tensor:
    """The matrix from two runs of the library's leapfrog, then its eigenvalues."""
    columns = []
    for z, rho in torch.eye(2, dtype=torch.float64):
        columns.append(torch.cat(_step(z[None], rho[None], epsilon, lambda z: curvature * z)))
    return torch.linalg.eigvals(torch.stack(columns, 1)).abs().max()


def _half_trace(curvature: float, epsilon: float) -> Tensor:
    return torch.tensor(1 - epsilon**2 * curvature / 2, dtype=torch.float64)


def _affine(A: float, B: float, E: float, F: float, c: float, u: float, offset: float, s: float) -> Tensor:
    """By Gauss-Hermite quadrature over the two sources of noise, exact for polynomials."""
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(12))
    weights = weights / weights.sum()
    eta, gamma = nodes[:, None], nodes[None, :]
    away = offset + s * eta
    z, rho = A * away + B * gamma, E * away + F * gamma
    log_q = -0.5 * (eta**2 + math.log(2 * math.pi)) - math.log(s)
    log_w = -(c / 2 * z**2 + u) - log_q + 0.5 * (gamma**2 - rho**2)
    return (weights[:, None] * weights[None, :] * log_w).sum()


def _kinetic(A: float, B: float, E: float, F: float, c: float, u: float, offset: float, s: float) -> float:
    return (E**2 * (offset**2 + s**2) + F**2) / 2


def _force(model: VAE, x: Tensor, z: Tensor, *, full: bool = False) -> Tensor:
    (grad,) = torch.autograd.grad(-model.log_joint(x, z).sum(), z, create_graph=full)
    return grad


def _run(
    model: VAE, x: Tensor, epsilon: Tensor, alpha: Tensor, *, full: bool = False, path: bool = True, sign: float = 1.0,
    heated: bool = True, damped: bool = True, squares: tuple[float, float] = (1.0, 1.0), at_end: bool = False,
) -> Tensor:  # fmt: skip
    """Forces of a first run, frozen, push the second one; the options make mistakes."""
    q_z = model.posterior(x)
    z_0 = q_z.rsample() if path else q_z.sample().requires_grad_()
    gamma = torch.randn_like(z_0)
    rho_0 = gamma / alpha.prod() if heated else gamma
    frozen: list[Tensor] = []
    z, rho = z_0, rho_0
    for k in range(2 if not full else 1):
        z, rho = z_0, rho_0
        forces = [sign * _force(model, x, z, full=full)] if k == 0 else frozen
        for i, alpha_k in enumerate(alpha):
            rho = rho - epsilon / 2 * forces[i]
            z = z + epsilon * rho
            if k == 0:
                forces.append(sign * _force(model, x, z, full=full))
            rho = (alpha_k if damped else 1) * (rho - epsilon / 2 * forces[i + 1])
        frozen = forces
    kinetic = (squares[0] * gamma.square() - squares[1] * rho.square()).sum(-1) / 2
    return model.log_joint(x, z) - q_z.log_prob(z if at_end else z_0) + kinetic


def _truncated_inputs() -> list[tuple]:
    model, x = curved_model()
    return [(model, x.round(), torch.tensor([0.3, 0.2]).double(), torch.tensor([0.7, 0.85]).double())]


# fmt: off
EXERCISES = {
    "2.a": Exercise(
        reference=_step,
        inputs=lambda: [(*draws((4, 2), (4, 2)), epsilon, _spring) for epsilon in (0.1, 0.4)],
        mistakes={
            "this is Euler's step: kick by half, drift, kick by half": _euler,
            "one whole kick is not two halves: the second is taken at the new place": _one_kick,
            "the second kick takes the force at the new place": _old_force,
            "the force is minus the gradient: the kicks go downhill": lambda z, r, e, f: _step(z, r, e, lambda z: -f(z)),
            "each of the two kicks is half a step": lambda z, r, e, f: _step(z, r, e, lambda z: 2 * f(z)),
            "time runs backwards here: check the signs of drift and kicks": lambda z, r, e, f: _step(z, r, -e, f),
        },
    ),
    "2.b": Exercise(
        reference=lambda p, q, g, r: torch.stack(
            [p[i] - q[i] + 0.5 * (g[i] @ g[i]) - 0.5 * (r[i] @ r[i]) for i in range(len(p))]
        ),
        inputs=lambda: [tuple(draws((5,), (5,), (5, 3), (5, 3)))],
        mistakes={
            "the two kinetic energies are swapped": lambda p, q, g, r: p - q + (r**2 - g**2).sum(-1) / 2,
            "is a factor 1/2 missing at the momenta?": lambda p, q, g, r: p - q + (g**2 - r**2).sum(-1),
            "sum over the D coordinates, do not average": lambda p, q, g, r: p - q + (g**2 - r**2).mean(-1) / 2,
            "the momenta are missing: this is the weight of chapter 1": lambda p, q, g, r: p - q,
            "log q is subtracted": lambda p, q, g, r: p + q + (g**2 - r**2).sum(-1) / 2,
            "the squared length is |γ|², not |γ|": lambda p, q, g, r: p - q + (g.norm(dim=-1) - r.norm(dim=-1)) / 2,
        },
    ),
    "2.1": Exercise(
        reference=_temperatures,
        inputs=lambda: [(torch.tensor(a).double(),) for a in ([0.7], [0.5, 0.8, 0.95], [0.9, 0.6, 0.7, 0.99])],
        mistakes={
            "α_k is a ratio of square roots: is a square missing?": lambda a: _temperatures(a.sqrt()),
            "the cooling runs the other way: β_0 is the smallest and β_K is 1": lambda a: _temperatures(a.flip(0)).flip(0),
            "each β_k is a product of the α that are still to come": lambda a: _temperatures(a.flip(0)),
            "these are temperatures 1/β_k; asked for are the β_k": lambda a: 1 / _temperatures(a),
            "β_K = 1 is missing": lambda a: _temperatures(a)[:-1],
            "β_0 is missing": lambda a: _temperatures(a)[1:],
            "these are the squares of the single α_k: multiply them up": lambda a: torch.cat([a**2, a.new_ones(1)]),
        },
    ),
    "2.2": Exercise(
        reference=_growth,
        inputs=lambda: [(1.0, 0.5), (1.0, 2.1), (25.0, 0.1), (25.0, 0.6), (4.0, 1.3)],
        mistakes={
            "within the stable region both eigenvalues lie on the unit circle": lambda c, e: _growth(c, e)
            if e * c**0.5 > 2 else _half_trace(c, e).abs(),
            "this is half the trace, not yet an eigenvalue": lambda c, e: _half_trace(c, e).abs(),
            "this is the trace, not yet an eigenvalue": lambda c, e: 2 * _half_trace(c, e),
            "this is the growth of Euler's step, which is never stable": lambda c, e: torch.tensor(1 + e**2 * c).double().sqrt(),
            "this is the smaller of the two eigenvalues": lambda c, e: 1 / _growth(c, e),
            "this is the growth in two steps": lambda c, e: _growth(c, e) ** 2,
            "the trace is 2 - ε² c, not 2 - ε c": lambda c, e: _growth(c, e**0.5),
            "the trace is 2 - ε² c: half of it is 1 - ε² c / 2": lambda c, e: _growth(2 * c, e),
        },
    ),
    "2.3": Exercise(
        reference=_affine,
        inputs=lambda: [(1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.5, 0.7), (0.6, 0.4, -0.8, 0.6, 4.0, -1.0, -0.3, 1.5)],
        mistakes={
            "a 1/2 is missing: E γ²/2 of the momentum that was drawn, or the e in the entropy ½ log 2πe": lambda *a: _affine(*a) - 0.5,
            "the momentum at the end is missing": lambda *a: _affine(*a) + _kinetic(*a),
            "the momentum at the end is subtracted": lambda *a: _affine(*a) + 2 * _kinetic(*a),
            "the guess's entropy is missing": lambda *a: _affine(*a) - math.log(a[7]) - 0.5 * math.log(2 * math.pi * math.e),
            "u, the height of the valley's floor, is missing": lambda *a: _affine(*a) + a[5],
            "the mean square of z_0 - m has two terms: offset² and s²": lambda A, B, E, F, c, u, o, s: _affine(A, B, E, F, c, u, 0.0, s),
            "is a 1/2 missing at the curvature?": lambda A, B, E, F, c, u, o, s: _affine(A, B, E, F, 2 * c, u, o, s),
            "the potential is subtracted: log p(x, z) = -U": lambda A, B, E, F, c, u, o, s: _affine(A, B, E, F, -c, -u, o, s),
            "γ_0 moves z_K as well: B counts": lambda A, B, E, F, c, u, o, s: _affine(A, 0.0, E, F, c, u, o, s),
        },
    ),
    "2.4": Exercise(
        reference=_run,
        inputs=_truncated_inputs,
        names=("x", "epsilon", "alpha"),
        mistakes={
            "the forces are still in the graph: this is the full gradient": lambda *a: _run(*a, full=True),
            "the encoder gets no gradient through z_0: draw it with `rsample`": lambda *a: _run(*a, path=False),
            "no gradient reaches the step sizes: epsilon is detached": lambda m, x, e, a: _run(m, x, e.detach(), a),
            "no gradient reaches the temperatures: alpha is detached": lambda m, x, e, a: _run(m, x, e, a.detach()),
            "the initial momentum is γ_0 / Π α_k: it starts hot": lambda *a: _run(*a, heated=False),
            "after each step the momentum is damped by α_k": lambda *a: _run(*a, damped=False),
            "|γ_0|² is missing in log w": lambda *a: _run(*a, squares=(0.0, 1.0)),
            "|ρ_K|² is missing in log w": lambda *a: _run(*a, squares=(1.0, 0.0)),
            "the two squares are swapped": lambda *a: _run(*a, squares=(-1.0, -1.0)),
            "the forces push uphill: check their sign": lambda *a: _run(*a, sign=-1.0),
            "each kick is half a step": lambda *a: _run(*a, sign=2.0),
            "log q is taken where the sample started, at z_0": lambda *a: _run(*a, at_end=True),
        },
    ),
}
