from functools import partial

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from tests.helpers import linear_gaussian
from vaekit import VAE, elbo, fit, importance_bound, mlp
from vaekit.consistency.objective import Consistency, posterior_divergence
from vaekit.consistency.transforms import RandomAffine
from vaekit.consistency.two_level import two_level_mlp
from vaekit.hamiltonian.bound import HamiltonianBound
from vaekit.training.seeding import seeded


def small_vae(latent=3):
    with seeded(3):
        return VAE(*mlp((1, 4, 4), latent, hidden=(9,), activation=torch.nn.Tanh), latent_dim=latent).double()


def images(n=6):
    return torch.rand(n, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def flipped(x):
    return x.flip(-1)


def plain_sum(model, x):
    """A bound without noise, so that values and gradients can be compared exactly."""
    return model.log_joint(x, model.posterior(x).mean)


BOUNDS = {
    "elbo": elbo,
    "beta": partial(elbo, beta=4.0),
    "importance": partial(importance_bound, samples=3),
    "hamiltonian": HamiltonianBound(3, steps=2, step_size=0.05).double(),
}


def test_divergence_is_torchs_of_the_transformed_from_the_original():
    model, x = small_vae(), images()
    tx = flipped(x)
    (mean, log_std), (mean_t, log_std_t) = (model.encoder(v).chunk(2, -1) for v in (x, tx))
    q, q_t = (Independent(Normal(m, s.exp()), 1) for m, s in ((mean, log_std), (mean_t, log_std_t)))
    divergence = posterior_divergence(model, x, tx)
    torch.testing.assert_close(divergence, kl_divergence(q_t, q))
    assert ((divergence - kl_divergence(q, q_t)).abs() > 1e-6).all()  # the other direction is another number
    var, var_t = (2 * log_std).exp(), (2 * log_std_t).exp()
    by_hand = 0.5 * ((var / var_t).log() - 1 + (var_t + (mean_t - mean) ** 2) / var).sum(-1)
    torch.testing.assert_close(divergence, by_hand)


def test_a_shift_before_a_linear_encoder_with_one_sigma():
    exact = linear_gaussian(latent=3, pixels=5)
    encoder = exact.model.encoder
    delta = torch.linspace(-1, 2, 5, dtype=torch.float64)
    standardised = (encoder.matrix @ delta) / encoder.log_std.exp()
    expected = 0.5 * standardised.square().sum()
    divergence = posterior_divergence(exact.model, exact.x, exact.x + delta)
    torch.testing.assert_close(divergence, expected.expand(len(exact.x)))


def test_the_original_sets_the_scale():
    # posteriors N(0, 1) and N(m, s^2): the divergence grows as m^2 / 2 whatever s, not as m^2 / (2 s^2)
    class TwoPosteriors(torch.nn.Module):
        def forward(self, x):
            moved = x.flatten(1)[:, :1]
            return torch.cat([3 * moved, -moved], -1)

    model = VAE(TwoPosteriors(), mlp((1, 1, 2), 1)[1], latent_dim=1).double()
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    log_std = -1.0
    expected = 0.5 * (-2 * log_std - 1 + torch.tensor(2 * log_std).exp() + 9)
    torch.testing.assert_close(posterior_divergence(model, x, x + 1), expected.double().expand(1))


def test_identity_costs_nothing_and_gives_twice_the_bound():
    model, x = small_vae(), images()
    torch.testing.assert_close(posterior_divergence(model, x, x), torch.zeros(6, dtype=torch.float64))
    objective = Consistency(plain_sum, lambda x: x, weight=7.0)
    torch.testing.assert_close(objective(model, x), 2 * plain_sum(model, x))


def test_identity_gives_twice_the_elbo_in_expectation():
    exact = linear_gaussian(latent=2, batch=3)
    objective = Consistency(elbo, lambda x: x, weight=1.0)
    q_z, s = exact.model.posterior(exact.x), exact.scale
    with torch.no_grad(), seeded(0):
        values = torch.stack([objective(exact.model, exact.x, samples=100) for _ in range(1000)])
        # E_q log N(x; Wz + b, s^2) in closed form: the noise of z adds the trace of W' W diag(sigma^2) / (2 s^2)
        at_mean = exact.model.log_likelihood(exact.x, q_z.mean)
        spread = exact.weight.square().sum(0) @ q_z.variance.T / (2 * s**2)
        expected = 2 * (at_mean - spread - kl_divergence(q_z, exact.model.prior))
    error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.02).all()


@pytest.mark.parametrize("name", BOUNDS)
def test_over_any_bound_with_one_encoder_pass(name):
    model, x = small_vae(), images().round()
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    with seeded(5):
        value = Consistency(BOUNDS[name], flipped, weight=2.5)(model, x)
    assert len(calls) == 1
    with seeded(5):
        bound = BOUNDS[name](model, torch.cat([x, flipped(x)]))
    expected = bound[:6] + bound[6:] - 2.5 * posterior_divergence(model, x, flipped(x))
    torch.testing.assert_close(value, expected)


def test_options_reach_the_bound_and_the_weight_is_scheduled():
    model, x = small_vae(), images()
    objective = Consistency(elbo, flipped, weight=1.0)
    with seeded(5):
        value = objective(model, x, weight=3.0, beta=2.0)
    with seeded(5):
        bound = elbo(model, torch.cat([x, flipped(x)]), beta=2.0)
    torch.testing.assert_close(value, bound[:6] + bound[6:] - 3 * posterior_divergence(model, x, flipped(x)))
    with seeded(5):
        control = objective(model, x, weight=0.0)
    with seeded(5):
        torch.testing.assert_close(control, sum(elbo(model, torch.cat([x, flipped(x)])).chunk(2)))
    seen = []
    record = Consistency(lambda m, x: plain_sum(m, x), flipped, weight=1.0)
    record.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["weight"]), with_kwargs=True)
    fit(model, record, x, epochs=2, batch_size=6, schedules={"weight": lambda step: step / 4}, progress=False)
    assert seen == [0.0, 0.25]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_divergence_counts_by_its_weight_and_is_not_computed_for_nothing(weight, monkeypatch):
    model, x, computed = small_vae(), images(), []
    expected = plain_sum(model, x) + plain_sum(model, flipped(x)) - weight * posterior_divergence(model, x, flipped(x))
    count = lambda q, p: computed.append(1) or kl_divergence(q, p)  # noqa: E731
    monkeypatch.setattr("vaekit.consistency.objective.kl_divergence", count)
    torch.testing.assert_close(Consistency(plain_sum, flipped, weight=weight)(model, x), expected)
    assert len(computed) == (weight > 0)


def test_gradient_flows_through_both_posteriors():
    exact = linear_gaussian(latent=2, pixels=4, batch=1)
    encoder, delta = exact.model.encoder, torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=torch.float64)
    posterior_divergence(exact.model, exact.x, exact.x + delta).sum().backward()
    variance = (2 * encoder.log_std.detach()).exp()
    # KL = |A delta / sigma|^2 / 2: in A it has the gradient (A delta / sigma^2) delta', which needs both means
    moved = encoder.matrix.detach() @ delta
    torch.testing.assert_close(encoder.matrix.grad, (moved / variance)[:, None] * delta)
    torch.testing.assert_close(encoder.log_std.grad, -moved.square() / variance)


def test_gradient_against_central_differences():
    model, x = small_vae(), images()
    objective = Consistency(plain_sum, flipped, weight=2.0)
    weight = model.encoder.net[1].weight
    objective(model, x).sum().backward()
    step = 1e-6
    for i, j in ((0, 0), (3, 7), (8, 15)):
        with torch.no_grad():
            weight[i, j] += step
            above = objective(model, x).sum()
            weight[i, j] -= 2 * step
            below = objective(model, x).sum()
            weight[i, j] += step
        torch.testing.assert_close(weight.grad[i, j], (above - below) / (2 * step), rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_image_at_a_time():
    model, x = small_vae(), images()
    objective = Consistency(plain_sum, flipped, weight=2.0)
    torch.testing.assert_close(objective(model, x), torch.cat([objective(model, v[None]) for v in x]))


def test_it_makes_held_out_posteriors_agree():
    with seeded(11):
        bars = torch.zeros(300, 1, 6, 6)
        where = torch.randint(1, 5, (300,))
        bars[torch.arange(300), 0, :, where] = 1.0
        shift = RandomAffine(translate=1 / 6)
        held_out, moved = bars[200:], shift(bars[200:])
    divergence = {}
    for weight in (0.0, 3.0):
        with seeded(0):
            model = VAE(*mlp((1, 6, 6), 2, hidden=(32,)), latent_dim=2)
        options = {"epochs": 30, "batch_size": 50, "lr": 3e-3, "device": "cpu", "progress": False}
        fit(model, Consistency(elbo, shift, weight=weight), bars[:200], **options)
        with torch.no_grad():
            divergence[weight] = posterior_divergence(model, held_out, moved).mean().item()
    assert divergence[3.0] < 0.5 * divergence[0.0], divergence


def test_two_levels_count_both():
    with seeded(4):
        model = two_level_mlp((1, 4, 4), (2, 3), hidden=8).double()
    x = images()
    value = Consistency(elbo, flipped, weight=1.0)(model, x)
    assert value.shape == (6,)
    upper = kl_divergence(model.posterior(flipped(x)).upper, model.posterior(x).upper)
    assert (posterior_divergence(model, x, flipped(x)) > upper).all()


def test_bad_input_is_refused():
    model, x = small_vae(), images()
    with pytest.raises(ValueError, match="weight: expected at least 0, got -1"):
        Consistency(elbo, flipped, weight=-1.0)
    with pytest.raises(ValueError, match="weight: expected at least 0, got -2"):
        Consistency(elbo, flipped, weight=1.0)(model, x, weight=-2.0)
    with pytest.raises(ValueError, match=r"transformed images: expected the images' own shape \(6, 1, 4, 4\), got \(5"):
        Consistency(elbo, lambda x: x[1:], weight=1.0)(model, x)
    with pytest.raises(ValueError, match="tx: expected images of shape"):
        posterior_divergence(model, x, x[:, :, 1:])
    with pytest.raises(ValueError, match="x: found NaN"):
        posterior_divergence(model, x * torch.nan, x)


