"""The shared-latent Gaussian model against brute force, and its three bounds against its exact evidence."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from vaekit.hamiltonian.dynamics import tempered_flow
from vaekit.hamiltonian.shared_gaussian import Problems, draw, log_evidence, maximum_likelihood
from vaekit.hamiltonian.shared_posteriors import Fit, Hamiltonian, MeanField, Planar, train
from vaekit.training.seeding import seeded

F64 = {"dtype": torch.float64}


def observed(sizes=(1, 3), datasets=2, n=6):
    """Problems made from observations [T, N, J] themselves."""
    with seeded(0):
        x = torch.randn(datasets, n, sum(sizes), **F64)
    scatter = (x - x.mean(1, keepdim=True)).square().sum(1)
    truth = torch.zeros(sum(sizes), **F64)
    return x, Problems(sizes, n, truth, truth + 1, x.mean(1), scatter)


def some_parameters(fit, scale=0.3):
    with torch.no_grad(), seeded(1):
        fit.log_sigma.fill_(0.0)
        for parameter in fit.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return fit


def test_evidence_is_that_of_the_joint_gaussian():
    """Integrating z out by hand: the N observations of a dimension have covariance sigma^2 I + 1 1'."""
    x, data = observed()
    fit = some_parameters(Fit(data))
    delta, sigma = fit.delta.detach(), fit.log_sigma.exp().detach()
    ours = log_evidence(data, delta, sigma)
    for t in range(2):
        for j in range(4):
            covariance = sigma[t, j] ** 2 * torch.eye(6, **F64) + 1
            exact = MultivariateNormal(delta[t, j].expand(6), covariance).log_prob(x[t, :, j])
            torch.testing.assert_close(ours[t, j], exact)


def test_log_joint_is_that_of_the_observations():
    x, data = observed()
    fit = some_parameters(Fit(data))
    z = torch.randn(5, 2, 4, **F64)
    each = Normal((z + fit.delta)[:, :, None], fit.log_sigma.exp()[:, None]).log_prob(x)  # [S, T, N, J]
    torch.testing.assert_close(fit.log_joint(z), each.sum(2) + Normal(0.0, 1.0).log_prob(z))


def test_statistics_have_the_distribution_of_observations():
    with seeded(2):
        data = draw((1, 2, 5), datasets=4000, n=50)
    torch.testing.assert_close(data.delta, torch.tensor([0, -0.1, 0.1, -0.4, -0.2, 0, 0.2, 0.4], **F64))
    torch.testing.assert_close(data.sigma, torch.tensor([1, 1, 1, 1, 0.325, 0.1, 0.325, 1], **F64))
    torch.testing.assert_close(data.mean.mean(0), data.delta, rtol=0, atol=0.08)
    torch.testing.assert_close(data.mean.var(0), 1 + data.sigma**2 / 50, rtol=0.1, atol=0)
    torch.testing.assert_close(data.scatter.mean(0), 49 * data.sigma**2, rtol=0.02, atol=0)
    torch.testing.assert_close(data.scatter.var(0), 98 * data.sigma**4, rtol=0.1, atol=0)


def test_maximum_likelihood_has_no_slope_left():
    _, data = observed()
    delta, sigma = (value.requires_grad_() for value in maximum_likelihood(data))
    gradients = torch.autograd.grad(log_evidence(data, delta, sigma).sum(), [delta, sigma])
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)
    assert (log_evidence(data, delta, sigma) > log_evidence(data, delta, sigma * 1.1)).all()


@pytest.mark.parametrize("tempered", [True, False])
def test_columns_are_the_flow_of_any_draw(tempered):
    """Against the library's leapfrog run on the draws themselves, with autograd's gradient of the log joint."""
    _, data = observed()
    fit = some_parameters(Hamiltonian(data, steps=3, tempered=tempered))
    z_0, gamma_0 = torch.randn(2, 4, 2, 4, **F64)

    def potential(z):
        z = z.detach().requires_grad_()
        energy = -fit.log_joint(z)
        return energy, torch.autograd.grad(energy.sum(), z)[0]

    heat = 1 + fit.log_heat.exp()[:, data.problem] if tempered else torch.ones(2, 4, **F64)
    k = torch.arange(4, **F64).view(-1, 1, 1)
    inverse = (1 - heat) * k**2 / 9 + heat
    epsilon = (0.5 * fit.step_logit.sigmoid()).expand(3, 2, 4)
    end = tempered_flow(potential, z_0, gamma_0 * heat, epsilon, inverse[1:] / inverse[:-1])[-1]
    z, rho = (a * z_0 + b * gamma_0 + c for a, b, c in fit.columns())
    torch.testing.assert_close((z, rho), (end.z, end.rho), rtol=1e-10, atol=1e-10)
    assert (inverse[-1] == 1).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda data: Hamiltonian(data, steps=1, tempered=True),
        lambda data: Hamiltonian(data, steps=4, tempered=True),
        lambda data: Hamiltonian(data, steps=4, tempered=False),
        lambda data: Planar(data, steps=1),
        lambda data: Planar(data, steps=5),
    ],
)
def test_weights_are_unbiased(make):
    _, data = observed(sizes=(1, 2), n=3)
    with seeded(3), torch.no_grad():
        fit = some_parameters(make(data), scale=0.1)
        if isinstance(fit, Hamiltonian):
            fit.step_logit.fill_(0.0)  # steps of 0.25
        if getattr(fit, "log_heat", None) is not None:
            fit.log_heat.fill_(-1.0)  # hotter proposals would need more draws than a test has
        weights = fit.bound(200_000)
        exact = data.total(log_evidence(data, fit.delta, fit.log_sigma.exp()))
        ratio = (weights - exact).exp()
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert (error < 0.05).all(), error
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all(), (ratio.mean(0), error)
    assert (weights.mean(0) < exact).all()


def test_mean_field_reaches_the_evidence_at_the_exact_posterior():
    _, data = observed()
    fit = some_parameters(MeanField(data))
    s2, n = (2 * fit.log_sigma).exp(), data.n
    exact = data.total(log_evidence(data, fit.delta, s2.sqrt()))
    assert (fit.bound(1)[0] < exact - 1e-3).all()
    with torch.no_grad():
        fit.m.copy_(n * (data.mean - fit.delta) / (n + s2))
        fit.log_s.copy_(0.5 * (s2 / (n + s2)).log())
    torch.testing.assert_close(fit.bound(1)[0], exact)


def test_planar_starts_as_the_prior():
    _, data = observed()
    with seeded(4):
        fit = Planar(data, steps=3)
    with seeded(5):
        ours = fit.bound(10)
    with seeded(5):
        expected = data.total(fit.log_joint(z := fit.noise(10)) - Normal(0.0, 1.0).log_prob(z))
    torch.testing.assert_close(ours, expected)


def test_training_finds_the_maximum_likelihood():
    with seeded(6):
        data = draw((1, 2), datasets=2, n=100)
        fit = Hamiltonian(data, steps=3, tempered=True)
        train(fit, iterations=800, lr=0.03)
    delta, sigma = maximum_likelihood(data)
    torch.testing.assert_close(fit.delta.detach(), delta, rtol=0, atol=0.05)
    torch.testing.assert_close(fit.log_sigma.exp().detach(), sigma, rtol=0.1, atol=0)


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="sizes: expected at least 1, got 0"):
        draw((1, 0), datasets=1)
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        train(MeanField(observed()[1]), iterations=0, lr=0.1)
    fit = Hamiltonian(observed()[1], steps=1, tempered=False)
    with torch.no_grad():
        fit.delta[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="Hamiltonian: the bound is no longer finite at iteration 1"):
        train(fit, iterations=2, lr=0.1)


def test_without_decay_the_rate_stays_what_it_is():
    """Against RMSProp written out, on the bound that needs no draws."""
    _, data = observed()
    fit, by_hand = MeanField(data), MeanField(data)
    train(fit, iterations=20, lr=0.01, decay=False)
    parameters = list(by_hand.parameters())
    averages = [torch.zeros_like(p) for p in parameters]
    for _ in range(20):
        slopes = torch.autograd.grad(-by_hand.bound(1).sum(), parameters)
        for k, (p, slope) in enumerate(zip(parameters, slopes, strict=True)):
            averages[k] = 0.99 * averages[k] + 0.01 * slope**2
            p.data -= 0.01 * slope / (averages[k].sqrt() + 1e-8)
    for p, q in zip(fit.parameters(), parameters, strict=True):
        torch.testing.assert_close(p, q)
    train(with_decay := MeanField(data), iterations=20, lr=0.01)
    assert (with_decay.log_sigma - fit.log_sigma).abs().min() > 0.01


def test_all_start_where_the_paper_starts():
    """Delta = 0, log sigma = 3; step sizes of 0.005, at most 0.5; 1 / sqrt(beta_0) = 5; the exact prior."""
    _, data = observed()
    fit = Hamiltonian(data, steps=4, tempered=True)
    for each in (fit, Planar(data, steps=1), MeanField(data)):
        assert torch.equal(each.delta, torch.zeros(2, 4, **F64)) and torch.equal(each.log_sigma, each.delta + 3)
    z, rho = (column.detach() for column in fit.columns())
    epsilon, precision, pulled = 0.005, 6 * math.exp(-6), 6 * math.exp(-6) * data.mean
    state, heats = [(0.3, -0.2 * 5)], [5 - 4 * k**2 / 16 for k in range(5)]
    for k in range(4):  # leapfrog by hand, from z_0 = 0.3 and gamma_0 = -0.2
        z_k, rho_k = state[-1]
        half = rho_k - epsilon / 2 * ((1 + precision) * z_k - pulled)
        z_k = z_k + epsilon * half
        state.append((z_k, heats[k + 1] / heats[k] * (half - epsilon / 2 * ((1 + precision) * z_k - pulled))))
    draw_0 = torch.tensor([0.3, -0.2, 1.0], **F64).view(3, 1, 1)
    torch.testing.assert_close(((z * draw_0).sum(0), (rho * draw_0).sum(0)), state[-1], rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        fit.step_logit.fill_(50.0)
    ahead = fit.columns()[0][1]  # of gamma_0: four steps of 0.5 on nearly no force
    assert (ahead > 4).all()
    field = MeanField(data)
    assert not field.m.any() and not field.log_s.any()


def test_planar_maps_start_in_directions_of_unit_length():
    with seeded(3):
        data = draw((100, 4), datasets=400, n=10)
        w = Planar(data, steps=1).w.detach()
    torch.testing.assert_close(data.total(w**2).mean(0), torch.ones(2, **F64), rtol=0.1, atol=0)


def test_the_papers_experiment_has_ten_thousand_observations_and_two_are_enough():
    with seeded(0):
        assert draw((1,), datasets=1).n == 10_000
        assert draw((2,), datasets=1, n=2).mean.isfinite().all()
    with pytest.raises(ValueError, match="n: expected at least 2, got 1"):
        draw((2,), datasets=1, n=1)


def test_training_draws_ten_times_a_step_and_ends_at_rest(monkeypatch):
    _, data = observed()
    fit, asked, rates = MeanField(data), [], []
    plain, step = fit.bound, torch.optim.RMSprop.step
    monkeypatch.setattr(fit, "bound", lambda samples: asked.append(samples) or plain(samples))
    monkeypatch.setattr(
        torch.optim.RMSprop, "step", lambda self: rates.append(self.param_groups[0]["lr"]) or step(self)
    )
    train(fit, iterations=4, lr=0.01)
    assert asked == [10] * 4
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
    train(fit, iterations=1, lr=0.01, samples=3)
    assert asked[-1] == 3


def test_the_data_sets_move_to_another_device_whole():
    _, data = observed()
    moved = data.to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in ("delta", "sigma", "mean", "scatter"))
    assert (moved.sizes, moved.n) == (data.sizes, data.n) and data.problem.tolist() == [0, 1, 1, 1]
