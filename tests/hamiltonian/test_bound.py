"""The Hamiltonian bound against closed forms, autograd and finite differences."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from tests.helpers import linear_gaussian
from vaekit import VAE, bernoulli, categorical256, elbo, fit, gaussian, log_evidence, log_weight, mlp
from vaekit.bounds import log_mean_exp
from vaekit.consistency.objective import Consistency
from vaekit.hamiltonian.bound import HamiltonianBound
from vaekit.hamiltonian.dynamics import Phase, leapfrog, potential_of
from vaekit.jacobian.penalty import JacobianL1, jacobian_l1
from vaekit.training.seeding import seeded

TEMPERINGS = ["free", "fixed", "fixed-temperature", "none"]


def small(*, likelihood=bernoulli, outputs=1, seed=0):
    """A smooth non-linear model in float64 with images for it."""
    with seeded(seed):
        nets = mlp((1, 3, 3), 2, hidden=(5,), outputs=outputs, activation=torch.nn.Tanh)
        model = VAE(*nets, latent_dim=2, likelihood=likelihood).double()
        for parameter in model.parameters():
            parameter.data.mul_(2)  # away from a decoder that ignores z
        return model, torch.rand(4, 1, 3, 3, dtype=torch.float64).round()


def bound_of(steps=3, tempering="free", **options):
    return HamiltonianBound(2, steps=steps, tempering=tempering, **options).double()


@pytest.mark.parametrize("tempering", TEMPERINGS)
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_plain_weights_are_unbiased(steps, tempering):
    truth = linear_gaussian(batch=3)
    bound = bound_of(steps, tempering, step_size=0.15)
    n = 60_000
    with seeded(steps), torch.no_grad():
        ratio = (bound.log_weight(truth.model, truth.x, samples=n) - truth.log_evidence()).exp()
    error = ratio.std(0) / math.sqrt(n)
    assert (error < 0.03).all(), error
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all(), (ratio.mean(0), error)


def test_equation_12_has_the_same_mean_and_gradient_but_is_no_weight():
    truth = linear_gaussian(batch=3)
    plain, paper = bound_of(3), bound_of(3, estimator="rao-blackwell")

    def value_and_gradients(bound):
        with seeded(1):
            value = bound(truth.model, truth.x, samples=50)
        parameters = [*truth.model.parameters(), *bound.parameters()]
        return value, torch.autograd.grad(value.sum(), parameters, allow_unused=True)

    (value, gradients), (other, other_gradients) = value_and_gradients(plain), value_and_gradients(paper)
    assert (value - other).abs().min() > 1e-3
    for ours, theirs in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    n = 100_000
    with seeded(2), torch.no_grad():
        a = plain.log_weight(truth.model, truth.x, samples=n)
        b = paper._estimate(truth.model, truth.x, n, "rao-blackwell")
    error = ((a.var(0) + b.var(0)) / n).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()
    assert ((b - truth.log_evidence()).exp().mean(0) > 1.1).all()  # exp of eq. 12 overestimates p(x)


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_claimed_determinant_is_autograds(tempering):
    model, x = small()
    bound = bound_of(4, tempering, step_size_per_step=True)
    with torch.no_grad(), seeded(0):
        for parameter in bound.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    start = torch.randn(4, dtype=torch.float64)

    def flow(phase):
        z, rho = bound.flow(model, x[:1], phase[None, :2], phase[None, 2:])
        return torch.cat([z, rho], -1)[0]

    sign, log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(flow, start))
    assert sign == 1
    torch.testing.assert_close(log_det, bound.log_det.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(bound.log_det, bound.beta_0.log(), rtol=0, atol=1e-12)  # D / 2 = 1
    assert (tempering == "none") == (bound.log_det.item() == 0)


@pytest.mark.parametrize("tempering", TEMPERINGS)
@pytest.mark.parametrize("likelihood", [bernoulli, gaussian(0.5), categorical256])
def test_all_gradients_against_finite_differences(tempering, likelihood):
    """Encoder, decoder, step sizes and temperatures, with frozen noise: none flows through a cut graph."""
    model, x = small(likelihood=likelihood, outputs=256 if likelihood is categorical256 else 1)
    bound = bound_of(3, tempering, step_size_per_step=True)
    parameters = [*model.named_parameters(), *((f"bound.{n}", p) for n, p in bound.named_parameters())]

    def value():
        with seeded(3):
            return bound(model, x).sum()

    gradients = torch.autograd.grad(value(), [p for _, p in parameters])
    for (name, parameter), gradient in zip(parameters, gradients, strict=True):
        with seeded(4):
            direction = torch.randn_like(parameter)
        h = 1e-5
        with torch.no_grad():
            original = parameter.clone()
            parameter.copy_(original + h * direction)
            above = value()
            parameter.copy_(original - h * direction)
            below = value()
            parameter.copy_(original)
        expected = (above - below) / (2 * h)
        assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_no_step_size_gives_the_elbo(tempering):
    """eps -> 0: z stays, and cooling takes from the momentum just what it had too much: the bound is the ELBO."""
    truth = linear_gaussian()
    bound = bound_of(3, tempering, step_size=1e-9)
    with seeded(1), torch.no_grad():
        ours = bound.log_weight(truth.model, truth.x, samples=40_000)
    with seeded(1), torch.no_grad():
        expected = log_weight(truth.model, truth.x, samples=40_000)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        exact = elbo(truth.model, truth.x, samples=40_000)
    torch.testing.assert_close(ours.mean(0), exact, rtol=0, atol=5 * ours.std().item() / 200)


def test_quadratic_potential_gives_a_gaussian_and_the_bound_in_closed_form():
    r"""For a linear-Gaussian model the flow is linear: s_K = M s_0 + c. Then E log w follows from two moments."""
    truth = linear_gaussian(batch=3)
    bound = bound_of(4, "fixed", step_size=0.15)
    model, x, d = truth.model, truth.x, 2

    def flow(s):  # [4] of one image
        z, rho = bound.flow(model, x[:1], s[None, :d], s[None, d:])
        return torch.cat([z, rho], -1)[0]

    zero = torch.zeros(2 * d, dtype=torch.float64)
    m, c = torch.autograd.functional.jacobian(flow, zero), flow(zero).detach()
    with torch.no_grad():
        q_z, beta_0 = model.posterior(x[:1]), bound.beta_0
        mean = torch.cat([q_z.mean[0], torch.zeros(d)])
        covariance = torch.cat([q_z.variance[0], torch.full((d,), 1 / beta_0.item())]).diag()
        mean, covariance = m @ mean + c, m @ covariance @ m.T
        # log p(x, z) = log p(x) + log N(z; posterior)
        log_p = torch.distributions.MultivariateNormal(truth.posterior_mean()[0], precision_matrix=truth.precision)
        e_log_joint = (
            truth.log_evidence()[0] + log_p.log_prob(mean[:d]) - (truth.precision @ covariance[:d, :d]).trace() / 2
        )
        e_kinetic = (mean[d:].square().sum() + covariance[d:, d:].trace()) / 2
        expected = e_log_joint - e_kinetic + d / 2 + q_z.entropy()[0]
        with seeded(5):
            sampled = bound.log_weight(model, x[:1], samples=200_000)[:, 0]
    assert sampled.mean().item() == pytest.approx(expected.item(), abs=4 * sampled.std().item() / math.sqrt(200_000))


def test_flow_is_the_papers_algorithm_line_by_line():
    model, x = small()
    bound = bound_of(3, "fixed", step_size_per_step=True)
    z, rho = torch.randn(2, 6, 4, 2, dtype=torch.float64)
    gradient = lambda z: potential_of(model, x)(z)[1].detach()  # noqa: E731
    ours = bound.flow(model, x, z, rho)
    sqrt_beta_0 = bound.beta_0.sqrt()
    sqrt_beta = [1 / ((1 - 1 / sqrt_beta_0) * k**2 / 9 + 1 / sqrt_beta_0) for k in range(4)]
    for k in range(1, 4):
        epsilon = bound.step_size[k - 1]
        half = rho - epsilon / 2 * gradient(z)
        z = z + epsilon * half
        rho = sqrt_beta[k - 1] / sqrt_beta[k] * (half - epsilon / 2 * gradient(z))
    torch.testing.assert_close(ours, (z, rho), rtol=0, atol=1e-12)


def test_flow_improves_a_posterior_that_is_too_narrow():
    """More steps, nearer to the evidence: the bound after training on step sizes and temperatures alone."""
    truth = linear_gaussian(batch=4)
    truth.model.requires_grad_(False)
    gaps = []
    for steps in (1, 5):
        bound = bound_of(steps)
        optimiser = torch.optim.Adam(bound.parameters(), 0.05)
        with seeded(6):
            for _ in range(150):
                optimiser.zero_grad()
                (-bound(truth.model, truth.x, samples=32).mean()).backward()
                optimiser.step()
            with torch.no_grad():
                gaps.append((truth.log_evidence() - bound(truth.model, truth.x, samples=5000)).mean().item())
    with torch.no_grad():
        plain = (truth.log_evidence() - elbo(truth.model, truth.x, samples=5000)).mean().item()
    assert 0 < gaps[1] < gaps[0] < plain


def test_posterior_samples_come_nearer_to_the_truth():
    truth = linear_gaussian(batch=2)
    bound = bound_of(3, "none", step_size=0.15)
    with seeded(7), torch.no_grad():
        z_3 = bound.sample_posterior(truth.model, truth.x, samples=20_000)
        z_0 = truth.model.posterior(truth.x).sample((20_000,))
    assert z_3.shape == (20_000, 2, 2)
    mean, covariance = truth.posterior_mean(), truth.precision.inverse()

    def wrong(z):
        return (z.mean(0) - mean).abs().max(), (torch.cov(z[:, 0].T) - covariance).abs().max()

    for after, before in zip(wrong(z_3), wrong(z_0), strict=True):
        assert after < before / 2


def test_potential_and_gradient():
    model, x = small()
    z = torch.randn(3, 4, 2, dtype=torch.float64)
    energy, gradient = potential_of(model, x)(z)
    torch.testing.assert_close(energy, -model.log_joint(x, z))
    for j in range(2):
        h = torch.zeros(2, dtype=torch.float64)
        h[j] = 1e-6
        expected = (model.log_joint(x, z - h) - model.log_joint(x, z + h)) / 2e-6
        torch.testing.assert_close(gradient[..., j], expected, rtol=1e-6, atol=1e-8)


def test_evidence_without_gradients():
    truth = linear_gaussian(batch=3)
    bound = bound_of(3, step_size=0.15)
    with seeded(8):
        estimate = log_evidence(truth.model, truth.x, samples=20_000, log_weight=bound.log_weight)
    assert not estimate.requires_grad
    torch.testing.assert_close(estimate, truth.log_evidence(), rtol=0, atol=0.03)
    with torch.no_grad():
        values = bound(truth.model, truth.x), *bound.flow(truth.model, truth.x, *torch.randn(2, 3, 2).double())
    assert not any(value.requires_grad for value in values)
    assert all(p.grad is None for p in [*truth.model.parameters(), *bound.parameters()])


def test_importance_weighting_composes():
    truth = linear_gaussian(batch=3)
    bound = bound_of(3, step_size=0.15)
    with seeded(9), torch.no_grad():
        weights = bound.log_weight(truth.model, truth.x, samples=10_000)
        one, many = (log_mean_exp(weights.view(s, -1, 3)) for s in (1, 20))
    assert (one.mean(0) < many.mean(0)).all()
    assert (many.mean(0) < truth.log_evidence() + 4 * many.std(0) / math.sqrt(500)).all()


def test_gradients_under_consistency():
    """The encoder runs once for both copies; nothing of the flow's gradient is lost by that."""
    model, x = small()
    bound = bound_of(2, step_size_per_step=True)
    objective = Consistency(bound, lambda x: 1 - x, weight=0.7)
    parameters = [*model.parameters(), *bound.parameters()]

    def value():
        with seeded(5):
            return objective(model, x).sum()

    gradients = torch.autograd.grad(value(), parameters)
    with seeded(6), torch.no_grad():
        directions = [torch.randn_like(parameter) for parameter in parameters]
        around = []
        for h in (1e-5, -2e-5):  # above, then from there to below
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(h * direction)
            around.append(value())
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert slope.item() == pytest.approx(((around[0] - around[1]) / 2e-5).item(), rel=1e-6)


def test_everything_composes_and_trains():
    model, x = small()
    bound = bound_of(2)
    penalised = JacobianL1(bound, weight=0.3)
    with seeded(7):
        value = penalised(model, x)
    with seeded(7):
        expected = bound(model, x)
        z = model.posterior(x).rsample()
    torch.testing.assert_close(value, expected - 0.3 * jacobian_l1(model, z.detach()))

    before = {name: p.detach().clone() for name, p in [*model.named_parameters(), *bound.named_parameters()]}
    objective = JacobianL1(Consistency(bound, lambda x: 1 - x, weight=0.7), weight=0.3)
    fit(model, objective, x, epochs=1, batch_size=2, device="cpu", progress=False)
    for name, p in [*model.named_parameters(), *bound.named_parameters()]:
        assert not torch.equal(p, before[name]), name


def test_several_models_at_once_under_vmap():
    pairs = [(small(seed=s)[0], bound_of(3)) for s in range(3)]
    x = small()[1]
    models, bounds = ([pair[i] for pair in pairs] for i in (0, 1))
    (mp, mb), (bp, bb) = stack_module_state(models), stack_module_state(bounds)
    base_model, base_bound = (copy.deepcopy(m).to("meta") for m in pairs[0])

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.bound = base_model, base_bound

        def forward(self, x, z, rho):
            return self.bound.flow(self.model, x, z, rho)

    both = Both()
    z, rho = torch.randn(2, 4, 2, dtype=torch.float64)
    states = {f"model.{k}": v for k, v in {**mp, **mb}.items()} | {f"bound.{k}": v for k, v in {**bp, **bb}.items()}
    zs, rhos = vmap(lambda s: functional_call(both, s, (x, z, rho)))(states)
    for s, (model, bound) in enumerate(pairs):
        torch.testing.assert_close((zs[s], rhos[s]), bound.flow(model, x, z, rho), rtol=1e-10, atol=1e-10)


def test_divergence_names_the_step_and_the_step_size():
    truth = linear_gaussian()
    bound = bound_of(30, "none", step_size=3.0, max_step_size=10.0)
    with pytest.raises(FloatingPointError, match=r"step [0-9]+ of 30, with step sizes from 3 to 3, changes the energy"):
        bound(truth.model, truth.x)
    with torch.no_grad():
        truth.model.decoder.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"step 1 of 3, .* by nan nats"):
        bound_of(3)(truth.model, truth.x)


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_step_sizes_and_temperatures_start_where_asked_and_stay_in_range(tempering):
    bound = bound_of(4, tempering, step_size=0.3, max_step_size=0.8, step_size_per_step=True)
    torch.testing.assert_close(bound.step_size.detach(), torch.full((4, 2), 0.3).double(), rtol=1e-6, atol=0)
    expected = {"free": 0.9**8, "fixed": 1 / 1.5**2, "fixed-temperature": 1 / 1.5, "none": 1.0}[tempering]
    assert bound.beta_0.item() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        for parameter in bound.parameters():
            parameter.fill_(5.0)
    assert (bound.step_size < 0.8).all() and (bound.alpha <= 1).all() and (bound.alpha > 0).all()
    assert bound_of(4, "free", beta_0=0.25).beta_0.item() == pytest.approx(0.25, rel=1e-5)


def test_the_two_fixed_schedules_by_hand():
    """What falls quadratically from 1.5 to 1: 1 / sqrt(beta_k) in algorithm 1, 1 / beta_k in the authors' code."""
    falls = [1.5 - 0.5 * k**2 / 25 for k in range(6)]
    ratios = torch.tensor([after / before for before, after in pairwise(falls)], dtype=torch.float64)
    paper, code = bound_of(5, "fixed", beta_0=1 / 1.5**2), bound_of(5, "fixed-temperature", beta_0=1 / 1.5)
    torch.testing.assert_close(paper.alpha.detach(), ratios, rtol=1e-6, atol=0)
    torch.testing.assert_close(code.alpha.detach(), ratios.sqrt(), rtol=1e-6, atol=0)
    assert [round(a, 3) for a in code.alpha[[0, 4]].tolist()] == [0.993, 0.921]
    assert code.beta_0.item() == pytest.approx(1 / 1.5, rel=1e-6)


def test_state_dict_round_trip():
    model, x = small()
    bound, other = bound_of(3, "fixed"), bound_of(3, "fixed", step_size=0.01, beta_0=0.9)
    other.load_state_dict(bound.state_dict())
    with seeded(1):
        expected = bound(model, x)
    with seeded(1):
        assert torch.equal(other(model, x), expected)


def test_one_step_is_leapfrog():
    model, x = small()
    bound = bound_of(1, "none", step_size=0.1)
    z, rho = torch.randn(2, 4, 2, dtype=torch.float64)
    potential = potential_of(model, x)
    end = leapfrog(potential, Phase(z, rho, *potential(z)), bound.step_size)
    torch.testing.assert_close(bound.flow(model, x, z, rho), (end.z, end.rho))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"steps": 1, "step_size": 0.6}, r"step_size: expected a number in \(0, max_step_size = 0.5\), got 0.6"),
        ({"steps": 1, "step_size": math.nan}, "step_size: .* got nan"),
        ({"steps": 1, "max_step_size": -1}, "max_step_size: expected a positive finite number"),
        ({"steps": 1, "tempering": "hot"}, "tempering: expected 'free', .* or 'none', got 'hot'"),
        ({"steps": 1, "beta_0": 1.5}, r"beta_0: expected numbers strictly between 0 and 1, got 1.5"),
        ({"steps": 1, "estimator": "best"}, "estimator: expected 'plain' or 'rao-blackwell', got 'best'"),
        ({"steps": 1, "max_energy_error": 0}, "max_energy_error: expected a positive finite number"),
    ],
)
def test_bad_arguments_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        HamiltonianBound(2, **options)


def test_bad_input_is_told():
    truth = linear_gaussian()
    with pytest.raises(ValueError, match="latent_dim 3 like the bound's, got 2"):
        HamiltonianBound(3, steps=1).double()(truth.model, truth.x)
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        bound_of(1).log_weight(truth.model, truth.x, samples=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        bound_of(1)(truth.model, torch.full_like(truth.x, math.nan))


def test_the_guard_counts_nats_step_by_step_over_all_draws_and_either_way():
    model, x = small()
    z, rho = torch.randn(2, 6, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    bound = bound_of(4, "fixed", step_size_per_step=True, max_energy_error=math.inf)
    with torch.no_grad():
        bound.step_logit[2] = torch.tensor([0.5, 1.5])  # the third step is the roughest
        states = bound.trajectory(model, x, z, rho)
        kinetic = [(s.rho.square().sum(-1) / 2, (s.rho / a).square().sum(-1) / 2) for s, a in
                   zip(states, [1.0, *bound.alpha], strict=True)]  # fmt: skip
        changes = torch.stack([
            (after.energy + warm) - (before.energy + cold)
            for (before, after), (cold, _), (_, warm) in zip(pairwise(states), kinetic, kinetic[1:], strict=False)
        ])  # fmt: skip
    assert changes.shape == (4, 6, 4)
    worst = changes.abs().amax((1, 2))
    assert worst.argmax() == 2 and changes.abs().flatten(1).argmax(1)[2] > 0  # not the first draw
    bound.max_energy_error = worst[2].item() * (1 + 1e-9)
    bound.trajectory(model, x, z, rho)
    bound.max_energy_error = worst[2].item() * (1 - 1e-9)
    low, high = bound.step_size[2].tolist()
    said = rf"step 3 of 4, with step sizes from {low:.3g} to {high:.3g}, changes the energy by {worst[2].item():.3g} "
    with pytest.raises(FloatingPointError, match=said):
        bound.trajectory(model, x, z, rho)


def test_what_is_learned_and_where_it_starts_unless_told():
    bound = HamiltonianBound(3, steps=2)
    torch.testing.assert_close(bound.step_size.detach(), torch.full((3,), 0.2))
    torch.testing.assert_close(bound.alpha.detach(), torch.full((2,), 0.9))
    with torch.no_grad():
        bound.step_logit.fill_(100.0)
    assert torch.equal(bound.step_size, torch.full((3,), 0.5))
    assert bound.tempering == "free" and bound.estimator == "plain" and bound.max_energy_error == 1e6
    one_each = HamiltonianBound(3, steps=2, step_size_per_step=True)
    assert one_each.step_size.shape == (2, 3)


def test_a_negative_change_of_energy_counts_as_much(monkeypatch):
    bound = bound_of(2, "none", max_energy_error=5.0)
    for change, refused in ((-4.9, False), (-5.1, True), (5.0, False), (math.inf, True), (math.nan, True)):
        errors = torch.tensor([[0.0, 0.0], [1.0, change]])
        monkeypatch.setattr("vaekit.hamiltonian.bound.energy_errors", lambda states, alpha, errors=errors: errors)
        if refused:
            with pytest.raises(FloatingPointError, match="step 2 of 2"):
                bound._refuse_divergence([], bound.step_size.expand(2, 2))
        else:
            bound._refuse_divergence([], bound.step_size.expand(2, 2))
