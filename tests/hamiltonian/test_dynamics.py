"""The leapfrog integrator against motion that is known, and against what symplectic integrators owe us."""

import pytest
import torch

from vaekit.hamiltonian.dynamics import Phase, energy_errors, leapfrog, tempered_flow, total_energy
from vaekit.training.seeding import seeded

D = 3
STIFFNESS = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)


def harmonic(z):
    """U = sum_j k_j z_j^2 / 2, whose motion is z_j(t) = z_j(0) cos(w_j t) + rho_j(0) / w_j sin(w_j t), w_j^2 = k_j."""
    return (STIFFNESS * z.square()).sum(-1) / 2, STIFFNESS * z


def quartic(z):
    """A potential that couples its dimensions and is not quadratic."""
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        u = z.pow(4).sum(-1) / 4 + (z[..., 0] * z[..., 1]).sin() + z.square().sum(-1) / 2
        (gradient,) = torch.autograd.grad(u.sum(), z, create_graph=True)
    return u, gradient


def start(potential, *, batch=(), seed=0):
    with seeded(seed):
        z, rho = torch.randn(2, *batch, D, dtype=torch.float64)
    return Phase(z, rho, *potential(z))


def run(potential, state, step_size, steps):
    for _ in range(steps):
        state = leapfrog(potential, state, step_size)
    return state


def test_harmonic_oscillator_at_second_order():
    """The error against the exact motion is O(eps^2): a quarter of it for half the step."""
    begin, time, omega = start(harmonic), 3.0, STIFFNESS.sqrt()
    cos, sin = (omega * time).cos(), (omega * time).sin()
    z, rho = begin.z * cos + begin.rho / omega * sin, begin.rho * cos - begin.z * omega * sin
    errors = []
    for steps in (100, 200, 400):
        end = run(harmonic, begin, time / steps, steps)
        errors.append(torch.stack([end.z - z, end.rho - rho]).abs().max())
    assert errors[0] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("potential", [harmonic, quartic])
def test_energy_error_is_of_second_order(potential):
    begin = start(potential)
    drift = [
        (total_energy(run(potential, begin, 1 / steps, steps)) - total_energy(begin)).abs().item()
        for steps in (200, 400, 800)
    ]
    assert 0 < drift[0] < 1e-3
    assert drift[0] / drift[1] == pytest.approx(4, rel=0.05)
    assert drift[1] / drift[2] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("potential", [harmonic, quartic])
def test_reversible(potential):
    begin = start(potential, batch=(5,))
    end = run(potential, begin, 0.05, 20)
    assert (end.z - begin.z).abs().min() > 1e-3
    back = run(potential, end._replace(rho=-end.rho), 0.05, 20)
    torch.testing.assert_close(back.z, begin.z, rtol=0, atol=1e-12)
    torch.testing.assert_close(-back.rho, begin.rho, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [torch.ones(4), torch.tensor([0.9, 0.5, 0.8, 0.99])])
def test_determinant_and_symplecticity(alpha):
    """|det| = prod alpha^D; and without cooling J' Omega J = Omega, which is stronger."""
    begin, alpha = start(quartic), alpha.double()
    epsilon = torch.linspace(0.05, 0.2, 4 * D, dtype=torch.float64).view(4, D)

    def flow(phase):
        end = tempered_flow(quartic, phase[:D], phase[D:], epsilon, alpha)[-1]
        return torch.cat([end.z, end.rho])

    jacobian = torch.autograd.functional.jacobian(flow, torch.cat([begin.z, begin.rho]))
    sign, log_det = torch.linalg.slogdet(jacobian)
    assert sign == 1
    torch.testing.assert_close(log_det, D * alpha.log().sum(), rtol=0, atol=1e-10)
    if (alpha == 1).all():  # and with one step size for all dimensions, which keeps the units of the form
        epsilon = torch.full((4, 1), 0.1, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(flow, torch.cat([begin.z, begin.rho]))
        omega = torch.kron(torch.tensor([[0.0, 1], [-1, 0]]), torch.eye(D)).double()
        torch.testing.assert_close(jacobian.T @ omega @ jacobian, omega, rtol=0, atol=1e-10)


def test_stable_up_to_a_step_of_two_at_unit_curvature():
    def unit(z):
        return z.square().sum(-1) / 2, z

    begin = start(unit)
    assert total_energy(run(unit, begin, 1.95, 200)) < 100 * total_energy(begin)
    assert total_energy(run(unit, begin, 2.05, 200)) > 1e6 * total_energy(begin)


def test_k_steps_evaluate_the_gradient_k_plus_one_times():
    calls = []

    def counted(z):
        calls.append(z)
        return harmonic(z)

    begin, alpha = start(harmonic), torch.full((5,), 0.9, dtype=torch.float64)
    states = tempered_flow(counted, begin.z, begin.rho, torch.full((5, 1), 0.1, dtype=torch.float64), alpha)
    assert len(calls) == 6
    # the same as the textbook's form, which asks for the gradient twice in each step
    z, rho = begin.z, begin.rho
    for k in range(5):
        rho = rho - 0.05 * harmonic(z)[1]
        z = z + 0.1 * rho
        rho = alpha[k] * (rho - 0.05 * harmonic(z)[1])
        torch.testing.assert_close((states[k + 1].z, states[k + 1].rho), (z, rho), rtol=0, atol=1e-14)


def test_energy_errors_leave_the_cooling_out():
    begin, alpha = start(quartic, batch=(7,)), torch.tensor([0.5, 0.9], dtype=torch.float64)
    states = tempered_flow(quartic, begin.z, begin.rho, torch.full((2, 1), 0.1, dtype=torch.float64), alpha)
    second = leapfrog(quartic, states[1], 0.1)
    errors = energy_errors(states, alpha)
    assert errors.shape == (2, 7)
    torch.testing.assert_close(errors[1], total_energy(second) - total_energy(states[1]), rtol=0, atol=1e-12)
    assert errors.abs().max() < 0.5 < (total_energy(states[1]) - total_energy(states[0])).abs().max()
