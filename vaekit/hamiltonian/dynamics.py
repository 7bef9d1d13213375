r"""Hamiltonian dynamics: the leapfrog integrator, tempering, and the potential of a model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.model import VAE

Potential = Callable[[Tensor], tuple[Tensor, Tensor]]


class Phase(NamedTuple):
    r"""A point $(z, \rho)$ of phase space, with what is known about $U$ there."""

    z: Tensor  # [..., D]
    rho: Tensor  # [..., D], the momentum
    energy: Tensor  # [...], the potential energy U(z) in nats
    gradient: Tensor  # [..., D], of U at z


def leapfrog(potential: Potential, state: Phase, step_size: Tensor | float) -> Phase:
    r"""One leapfrog step of Hamiltonian dynamics with unit mass and energy $H = U(z) + \tfrac12 |\rho|^2$.

    $$\tilde\rho = \rho - \tfrac\epsilon2 \odot \nabla U(z), \qquad z' = z + \epsilon \odot \tilde\rho, \qquad
      \rho' = \tilde\rho - \tfrac\epsilon2 \odot \nabla U(z').$$

    Each line is a shear, so the map $(z, \rho) \mapsto (z', \rho')$ has determinant 1; it is undone by stepping from
    $(z', -\rho')$; and over a fixed time $H$ drifts by $O(\epsilon^2)$ only. The gradient at $z'$ travels with the
    state: K steps evaluate it K times, once more to begin.

    Args:
        potential: Maps z `[..., D]` to $U(z)$ `[...]` and $\nabla U(z)$ `[..., D]`.
        state: Where to begin.
        step_size: $\epsilon$, a number or a tensor that broadcasts against `[..., D]`.

    Returns:
        The next state.

    References:
        Neal, "MCMC using Hamiltonian dynamics", 2011, section 2.3, https://arxiv.org/abs/1206.1901.

    Example:
        >>> import math
        >>> harmonic = lambda z: (z.square().sum(-1) / 2, z)  # U = z^2 / 2: z swings as cos(t)
        >>> state = Phase(torch.ones(1), torch.zeros(1), *harmonic(torch.ones(1)))
        >>> for _ in range(100):
        ...     state = leapfrog(harmonic, state, math.pi / 100)
        >>> round(state.z.item(), 3)
        -1.0
    """
    rho = state.rho - step_size / 2 * state.gradient
    z = state.z + step_size * rho
    energy, gradient = potential(z)
    return Phase(z, rho - step_size / 2 * gradient, energy, gradient)


def potential_of(model: VAE, x: Tensor) -> Potential:
    r"""$U(z) = -\log p_\theta(x, z)$ and its gradient in z, for images `[B, *image]` and z `[..., B, D]`.

    Both can be differentiated again (in z and in the decoder's weights) wherever gradients are on, and the gradient is
    there where they are off.
    """

    def energy(z: Tensor) -> tuple[Tensor, Tensor]:
        each = -model.log_joint(x, z)  # [..., B]
        return each.sum(), each

    def potential(z: Tensor) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            gradient, each = torch.func.grad(energy, has_aux=True)(z)
            return each, gradient
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            total, each = energy(z)
            (gradient,) = torch.autograd.grad(total, z, create_graph=differentiable)
        return (each if differentiable else each.detach()), gradient

    return potential


def tempered_flow(potential: Potential, z: Tensor, rho: Tensor, step_sizes: Tensor, alpha: Tensor) -> list[Phase]:
    r"""K leapfrog steps, each followed by a cooling of the momentum, $\rho_k \leftarrow \alpha_k \rho_k$.

    The map $(z_0, \rho_0) \mapsto (z_K, \rho_K)$ has $|\det| = \prod_k \alpha_k^D$. Cooling leaves z where it is, so
    the gradient there stays valid: K + 1 evaluations in all.

    Args:
        potential: As for `leapfrog`.
        z: $z_0$, `[..., D]`.
        rho: $\rho_0$, `[..., D]`.
        step_sizes: $\epsilon_1, \dots, \epsilon_K$, `[K, ...]`, each broadcast against `[..., D]`.
        alpha: $\alpha_1, \dots, \alpha_K$, `[K, ...]` likewise; ones for no tempering.

    Returns:
        The K + 1 states, from $(z_0, \rho_0)$ on.
    """
    states = [Phase(z, rho, *potential(z))]
    for epsilon_k, alpha_k in zip(step_sizes, alpha, strict=True):
        state = leapfrog(potential, states[-1], epsilon_k)
        states.append(state._replace(rho=alpha_k * state.rho))
    return states


def total_energy(state: Phase) -> Tensor:
    r"""$H(z, \rho) = U(z) + \tfrac12 |\rho|^2$ in nats, `[...]`; what exact dynamics would conserve."""
    return state.energy + state.rho.square().sum(-1) / 2


def energy_errors(states: Sequence[Phase], alpha: Tensor) -> Tensor:
    r"""By how much each leapfrog step changed H, the cooling after it left out: `[K, ...]`, in nats.

    Args:
        states: The K + 1 states of `tempered_flow`.
        alpha: Its cooling factors, `[K, ...]`.
    """
    errors = [
        total_energy(after._replace(rho=after.rho / alpha_k)) - total_energy(before)
        for before, after, alpha_k in zip(states[:-1], states[1:], alpha, strict=True)
    ]
    return torch.stack(errors)
