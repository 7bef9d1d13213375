import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from vaekit import VAE, conv, elbo, gaussian, mlp
from vaekit.jacobian.penalty import JacobianL1, jacobian_l1
from vaekit.training.ensemble import fit_ensemble
from vaekit.training.loop import fit, linear
from vaekit.training.seeding import seeded

SEEDS = (4, 0, 7)


def images(n=20, size=4):
    with seeded(1):
        return torch.rand(n, 1, size, size, dtype=torch.float64)


def new_models(network=None, size=4):
    models = []
    for seed in SEEDS:
        with seeded(seed):
            pair = network or mlp((1, size, size), latent_dim=3, hidden=(8,), activation=nn.Tanh)
            models.append(VAE(*pair, latent_dim=3).double())
    return models


def without_noise(model, x, *, weight=0.01):
    """The ELBO at the posterior mean, with the penalty there."""
    q_z = model.posterior(x)
    return model.log_likelihood(x, q_z.mean) - kl_divergence(q_z, model.prior) - weight * jacobian_l1(model, q_z.mean)


class Scaled(nn.Module):
    """An objective with a parameter and a buffer of its own."""

    def __init__(self, scale):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, model, x):
        self.seen += 1
        q_z = model.posterior(x)
        return model.log_likelihood(x, self.log_scale.exp() * q_z.mean) - kl_divergence(q_z, model.prior)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for name, tensor in a.state_dict().items():
            torch.testing.assert_close(tensor, b.state_dict()[name], rtol=1e-9, atol=1e-11)


def test_equal_to_separate_training():
    together, alone = new_models(), new_models()
    schedules = {"weight": linear(0, 0.05, 10)}
    options = {"epochs": 3, "batch_size": 8, "lr": 0.01, "schedules": schedules, "device": "cpu", "progress": False}
    nats = fit_ensemble(together, without_noise, images(), seeds=SEEDS, **options)
    histories = [fit(m, without_noise, images(), seed=s, **options) for m, s in zip(alone, SEEDS, strict=True)]
    assert_same(together, alone)
    torch.testing.assert_close(nats, torch.tensor([h.train for h in histories], dtype=torch.float64))
    assert not any(m.training for m in together)


def test_equal_to_separate_training_with_convolutions():
    with seeded(0):
        together = [VAE(*conv((1, 32, 32), 3), latent_dim=3).double() for _ in range(2)]
        alone = [VAE(*conv((1, 32, 32), 3), latent_dim=3).double() for _ in range(2)]
    for a, b in zip(alone, together, strict=True):
        a.load_state_dict(b.state_dict())
    options = {"epochs": 1, "batch_size": 2, "device": "cpu", "progress": False}
    fit_ensemble(together, without_noise, images(4, 32), **options)
    for seed, model in enumerate(alone):
        fit(model, without_noise, images(4, 32), seed=seed, **options)
    assert_same(together, alone)


def test_each_objective_with_parameters_is_trained_with_its_model():
    together, alone = new_models(), new_models()
    ours, theirs = [[Scaled(s) for s in (0.0, 0.2, 0.4)] for _ in range(2)]
    options = {"epochs": 2, "batch_size": 5, "lr": 0.01, "device": "cpu", "progress": False}
    fit_ensemble(together, ours, images(), seeds=SEEDS, **options)
    for model, objective, seed in zip(alone, theirs, SEEDS, strict=True):
        fit(model, objective, images(), seed=seed, **options)
    assert_same(together, alone)
    assert_same(ours, theirs)
    assert ours[0].seen == 8 and ours[0].log_scale != 0


def test_noise_differs_between_models_and_is_reproducible():
    with seeded(0):
        model = VAE(*mlp((1, 4, 4), latent_dim=3), latent_dim=3).double()

    def run():
        models = [VAE(*mlp((1, 4, 4), latent_dim=3), latent_dim=3).double() for _ in range(2)]
        for copy in models:
            copy.load_state_dict(model.state_dict())
        objective = JacobianL1(elbo, weight=0.1, columns=1)
        fit_ensemble(models, objective, images(), epochs=1, batch_size=20, seeds=(3, 3), device="cpu", progress=False)
        return [m.encoder.net[1].weight for m in models]

    (first, second), (again, _) = run(), run()
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state()
    models = new_models()
    fit_ensemble(models, elbo, images(), epochs=1, device="cpu", progress=False)
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_that_diverges_is_named():
    models = new_models()
    with torch.no_grad():
        models[1].encoder.net[-1].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"model\(s\) \[1\].*epoch 1"):
        fit_ensemble(models, elbo, images(), epochs=1, device="cpu", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": -1.0}, "lr"),
        ({"seeds": (1, 2)}, "seeds: expected one for each of the 3 models, got 2"),
        ({"objective": [Scaled(0.0)]}, "objective: expected one for each of the 3 models, got 1"),
        ({"objective": Scaled(0.0)}, "objective: it has parameters"),
        ({"models": []}, "models"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"models": new_models(), "objective": elbo, "x": images(), "epochs": 1, "progress": False} | change
    with pytest.raises(ValueError, match=message):
        fit_ensemble(**arguments)


class Twice(nn.Module):
    """An encoder that goes through one layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.again, self.last = self.first, nn.Linear(16, 6)

    def forward(self, x):
        return self.last(self.again(self.first(x.flatten(-3)).tanh()))


def test_a_layer_under_two_names_is_trained_as_one():
    def models():
        made = []
        for seed in SEEDS:
            with seeded(seed):
                pair = Twice(), mlp((1, 4, 4), latent_dim=3, hidden=(8,))[1]
                made.append(VAE(*pair, latent_dim=3).double())
        return made

    together, alone = models(), models()
    options = {"epochs": 2, "batch_size": 8, "lr": 0.01, "device": "cpu", "progress": False}
    fit_ensemble(together, without_noise, images(), seeds=SEEDS, **options)
    for model, seed in zip(alone, SEEDS, strict=True):
        fit(model, without_noise, images(), seed=seed, **options)
    assert_same(together, alone)
    assert all(model.encoder.again is model.encoder.first for model in together)


def test_an_ensemble_with_a_normal_likelihood_takes_any_pixel():
    with seeded(0):
        models = [VAE(*mlp((1, 4, 4), 2, hidden=(3,)), latent_dim=2, likelihood=gaussian(1.0)).double() for _ in "ab"]
    nats = fit_ensemble(models, elbo, 10 * images() - 5, epochs=1, device="cpu", progress=False)
    assert nats.shape == (2, 1) and nats.isfinite().all()


def test_noise_is_drawn_anew_each_epoch_and_step_and_follows_from_all_seeds():
    def noise(model, x):
        return 0 * elbo(model, x) + torch.rand(len(x), dtype=x.dtype)

    def drawn(seeds, **options):
        models = new_models()
        return fit_ensemble(models, noise, images(), seeds=seeds, epochs=2, device="cpu", progress=False, **options)

    one_batch = drawn(SEEDS)
    assert len(one_batch.flatten().unique()) == 6 and torch.equal(one_batch, drawn(SEEDS, batch_size=100))
    assert not torch.isclose(drawn(SEEDS, batch_size=10), one_batch).any()
    assert not torch.isclose(drawn((4, 0, 8)), one_batch).any()
