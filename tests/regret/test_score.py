import copy

import pytest
import torch
from torch import nn

from tests.helpers import linear_gaussian
from vaekit import VAE, bernoulli, beta_tcvae, categorical256, conv, dcgan, dip_vae, elbo, importance_bound, mlp
from vaekit.consistency.two_level import two_level_mlp
from vaekit.hamiltonian.bound import HamiltonianBound
from vaekit.regret.evaluation import Evaluation, _free
from vaekit.regret.noise import given, of_image, recorded, seed_of
from vaekit.regret.score import likelihood_regret
from vaekit.training.seeding import seeded


def digits_like(n, channels=1, size=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, size, size), generator=g).double() / 255


def small_vae(likelihood=bernoulli, outputs=1):
    with seeded(3):
        pair = mlp((1, 8, 8), latent_dim=3, hidden=(16,), outputs=outputs, activation=nn.Tanh)
        return VAE(*pair, latent_dim=3, likelihood=likelihood).double()


def exact_regret(truth):
    """The whole posterior gap of a linear-Gaussian model less that of the best diagonal posterior, in closed form."""
    with torch.no_grad():
        q_z = truth.model.posterior(truth.x)
    scaled = truth.precision.diagonal() * q_z.variance  # Lambda_ii s_i
    shift = q_z.mean - truth.posterior_mean()
    return 0.5 * (scaled - 1 - scaled.log()).sum(-1) + 0.5 * (shift @ truth.precision * shift).sum(-1)


def wide_of_the_mark():
    """A model whose encoder is right about nothing: its regrets are a few nats."""
    truth = linear_gaussian(latent=3, pixels=5, batch=6)
    with torch.no_grad():
        truth.model.encoder.matrix.mul_(0.3)
        truth.model.encoder.log_std.add_(0.7)
    return truth


def test_the_posterior_variant_finds_the_closed_form_of_a_linear_gaussian_model():
    truth = wide_of_the_mark()
    exact = exact_regret(truth)
    assert exact.min() > 1
    # 5,000 draws: the bound's noise is shared by both terms, but not all of it cancels
    scores = likelihood_regret(
        truth.model, truth.x, adapt="posterior", steps=600, lr=0.02, samples=5000, progress=False,
        objective=lambda model, x, samples: elbo(model, x, samples=64),
    )  # fmt: skip
    torch.testing.assert_close(scores, exact, rtol=0.05, atol=0)


def test_the_encoder_variant_lies_between_nothing_and_the_closed_form_and_grows_with_the_steps():
    truth = wide_of_the_mark()
    options = {"samples": 2000, "lr": 1e-3, "progress": False}
    few, many = (likelihood_regret(truth.model, truth.x, steps=steps, **options) for steps in (20, 200))
    assert (few > 0).all()
    assert (many > few).all()
    assert (many < exact_regret(truth)).all()


@pytest.mark.parametrize("bound", [elbo, importance_bound, HamiltonianBound(3, steps=2).double()])
@pytest.mark.parametrize("adapt", ["encoder", "posterior"])
def test_no_steps_no_regret(bound, adapt):
    scores = likelihood_regret(small_vae(), digits_like(4), bound=bound, adapt=adapt, steps=0, progress=False)
    assert torch.equal(scores, torch.zeros(4, dtype=torch.float64))


def regret_of_a_loop(model, x, bound, steps, lr, samples, seed, objective=None):
    """As the authors do it: for each image a deep copy of the encoder, and torch's Adam."""
    objective, scores = objective or bound, []
    for image in x.split(1):
        one = copy.deepcopy(model).eval()
        own = seed_of(image[0], seed)
        with seeded(own), torch.no_grad():
            before = bound(one, image, samples=samples)
        optimizer = torch.optim.Adam(one.encoder.parameters(), lr=lr)
        with seeded(seed + 1):
            for _ in range(steps):
                optimizer.zero_grad()
                (-objective(one, image, samples=1).sum()).backward()
                optimizer.step()
        with seeded(own), torch.no_grad():
            scores.append(bound(one, image, samples=samples) - before)
    return torch.cat(scores)


@pytest.mark.parametrize(
    ("bound", "objective"),
    [(elbo, None), (importance_bound, elbo), (HamiltonianBound(3, steps=2).double(), None)],
    ids=["elbo", "importance", "hamiltonian"],
)
@pytest.mark.parametrize(("likelihood", "outputs"), [(bernoulli, 1), (categorical256, 256)])
def test_the_encoder_variant_is_a_loop_of_deep_copies(bound, objective, likelihood, outputs):
    model, x = small_vae(likelihood, outputs), digits_like(5)
    options = {"steps": 7, "lr": 1e-2, "samples": 4, "seed": 11, "objective": objective}
    together = likelihood_regret(model, x, bound=bound, progress=False, **options)
    torch.testing.assert_close(together, regret_of_a_loop(model, x, bound, **options), rtol=1e-6, atol=1e-8)


def test_a_model_with_another_kind_of_posterior_works_too():
    with seeded(0):
        model = two_level_mlp((1, 8, 8), latent_dims=(4, 2), hidden=16).double()
    x, options = digits_like(4), {"steps": 7, "lr": 1e-2, "samples": 4}
    together = likelihood_regret(model, x, progress=False, **options)
    torch.testing.assert_close(together, regret_of_a_loop(model, x, elbo, seed=0, **options), rtol=1e-6, atol=1e-8)
    assert (likelihood_regret(model, x, adapt="posterior", progress=False, **options) > 0).all()


def test_a_bound_whose_own_parameters_are_trained_keeps_them():
    bound = HamiltonianBound(3, steps=2).double()
    before = copy.deepcopy(bound.state_dict())
    likelihood_regret(small_vae(), digits_like(3), bound=bound, steps=3, progress=False)
    assert all(torch.equal(before[name], value) for name, value in bound.state_dict().items())
    assert all(p.grad is None for p in bound.parameters())


@pytest.mark.parametrize("adapt", ["encoder", "posterior"])
def test_an_image_scores_the_same_alone_in_a_batch_and_in_any_chunks(adapt):
    model, x = small_vae(), digits_like(64)
    options = {"adapt": adapt, "steps": 15, "samples": 3, "progress": False}
    batch = likelihood_regret(model, x, **options)
    torch.testing.assert_close(likelihood_regret(model, x[40:41], **options), batch[40:41], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(likelihood_regret(model, x, chunk=7, **options), batch, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(likelihood_regret(model, x, seed=1, **options), batch, rtol=1e-3)


@pytest.mark.parametrize("adapt", ["encoder", "posterior"])
def test_batch_normalised_networks_keep_their_statistics_and_the_images_apart(adapt):
    with seeded(0):
        model = VAE(*dcgan((1, 32, 32), 4, width=4, outputs=1), latent_dim=4).double()
        x = digits_like(3, size=32)
        model.train()
        for _ in range(3):
            elbo(model, x)  # statistics that are not the initial ones
    before = copy.deepcopy(model.state_dict())
    options = {"adapt": adapt, "steps": 5, "lr": 1e-2, "progress": False}
    scores = likelihood_regret(model, x, **options)
    alone = torch.cat([likelihood_regret(model, image, **options) for image in x.split(1)])
    torch.testing.assert_close(scores, alone, rtol=1e-6, atol=1e-8)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_model_its_mode_its_gradients_and_the_random_state_are_left_alone():
    model, x = small_vae().train(), digits_like(4)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for adapt in ("encoder", "posterior"):
        likelihood_regret(model, x, adapt=adapt, steps=3, progress=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_importance_weighted_regret_fades_as_samples_grow():
    truth = wide_of_the_mark()
    few, some, many = (
        likelihood_regret(
            truth.model, truth.x, bound=importance_bound, objective=elbo, adapt="posterior", steps=200, samples=samples,
            progress=False,
        ).mean()
        for samples in (1, 30, 3000)
    )  # fmt: skip
    assert few > 2 * some > 4 * many
    assert many.abs() < 0.2  # both bounds are near log p(x) by then


def test_memory_sets_how_many_images_are_taken_at_once():
    with seeded(0):
        model = VAE(*conv((1, 32, 32), 4), latent_dim=4)
    x = digits_like(6, size=32).float()
    options = {"steps": 2, "samples": 3, "progress": False}
    encoder_bytes = 4 * sum(p.numel() for p in model.encoder.parameters())
    evaluation = Evaluation(model, elbo, 1, "encoder")
    assert 1 < evaluation.fit_into(2**30, x[:1]) < 2**30 / (4 * encoder_bytes)
    assert evaluation.fit_into(13 * encoder_bytes, x[:1]) in (1, 2)
    whole = likelihood_regret(model, x, **options)
    for memory in (1, 13 * encoder_bytes):
        torch.testing.assert_close(likelihood_regret(model, x, memory=memory, **options), whole, rtol=1e-3, atol=1e-3)


class Widest(nn.Module):
    """A decoder that notes how many numbers it was asked to return at once, over all images of the batch."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.most = decoder, [0]

    def __deepcopy__(self, memo):
        twin = Widest(copy.deepcopy(self.decoder, memo))
        twin.most = self.most  # the list itself, to be read from outside
        return twin

    def forward(self, z):
        pixels = self.decoder(z)
        inside = torch._C._functorch.get_unwrapped(pixels) if torch._C._functorch.is_batchedtensor(pixels) else pixels
        self.most[0] = max(self.most[0], inside.numel())
        return pixels


@pytest.mark.parametrize("bound", [elbo, importance_bound], ids=["elbo", "importance"])
@pytest.mark.parametrize("adapt", ["encoder", "posterior"])
def test_many_draws_keep_within_memory(adapt, bound):
    """Splitting the images is not enough where one image's draws are too many."""
    model, x = small_vae(categorical256, 256), digits_like(3)
    options = {"adapt": adapt, "bound": bound, "steps": 2, "samples": 500, "progress": False}
    whole = likelihood_regret(model, x, **options)
    model.decoder = Widest(model.decoder)
    memory = 16 * 2**20
    torch.testing.assert_close(likelihood_regret(model, x, memory=memory, **options), whole, rtol=1e-9, atol=1e-9)
    assert 8 * model.decoder.most[0] < memory < 8 * 500 * 64 * 256
    assert 8 * model.decoder.most[0] > memory / 100


def test_a_bound_with_gradients_inside_keeps_its_draws():
    model, x, bound = small_vae(), digits_like(2), HamiltonianBound(3, steps=1).double()
    options = {"bound": bound, "steps": 1, "samples": 50, "progress": False}
    scores = likelihood_regret(model, x, memory=1, **options)
    torch.testing.assert_close(scores, likelihood_regret(model, x, **options), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bound", [elbo, importance_bound])
def test_images_have_scoring_noise_of_their_own(bound):
    """Otherwise the errors of all scores move together, and averaging over images does not average them."""
    truth = wide_of_the_mark()
    x = truth.x[:1] + 1e-9 * torch.arange(30).double()[:, None, None, None]  # alike, but not the same
    options = {"bound": bound, "steps": 0, "samples": 4}
    model, evaluation = truth.model, Evaluation(truth.model, bound, 4, "posterior")
    with torch.no_grad():
        values = evaluation.values(evaluation.initial_weights(x), x, 0, 7)
    assert values.std() > 0.05
    with torch.no_grad(), seeded(seed_of(x[3], 0)):
        torch.testing.assert_close(values[3:4], bound(model, x[3:4], samples=options["samples"]))
    again = torch.cat([x[3:4], x[3:4]])
    with torch.no_grad():
        same = evaluation.values(evaluation.initial_weights(again), again, 0, 7)
    assert same[0] == same[1]


def test_an_encoder_that_shares_weights_with_the_decoder_is_adapted_alone():
    """The decoder stays the model's, whatever it shares with the encoder; and so does the user's model."""
    with seeded(0):
        shared = nn.Linear(6, 6)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), shared, nn.Tanh(), shared)
        decoder = nn.Sequential(nn.Linear(3, 6), shared, nn.Tanh(), nn.Linear(6, 64), nn.Unflatten(-1, (1, 8, 8)))
        model = VAE(encoder, decoder, latent_dim=3).double()
        apart = VAE(copy.deepcopy(encoder), copy.deepcopy(decoder), latent_dim=3).double()
    before = copy.deepcopy(model.state_dict())
    options = {"steps": 9, "lr": 1e-2, "samples": 4}
    for adapt in ("encoder", "posterior"):
        scores = likelihood_regret(model, digits_like(4), adapt=adapt, progress=False, **options)
        expected = likelihood_regret(apart, digits_like(4), adapt=adapt, progress=False, **options)
        torch.testing.assert_close(scores, expected)
        if adapt == "encoder":
            loop = regret_of_a_loop(apart, digits_like(4), elbo, seed=0, **options)
            torch.testing.assert_close(scores, loop, rtol=1e-6, atol=1e-8)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert encoder[2] is encoder[4] is decoder[1] and isinstance(shared.weight, nn.Parameter)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("when", [1, 3, 12, 40])
def test_a_run_that_is_broken_off_leaves_the_model_as_it_was(error, when):
    model, calls = small_vae().train(), []
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())

    def breaks(model, x, samples):
        calls.append(None)
        if len(calls) == when:
            raise error
        return elbo(model, x, samples=samples)

    with pytest.raises(error):
        likelihood_regret(model, digits_like(3), bound=breaks, steps=50, progress=False)
    assert model.training and list(model.modules()) == modules and "log_likelihood" not in vars(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(isinstance(p, nn.Parameter) and p.grad is None for p in model.parameters())


def test_bounds_that_look_at_the_batch_are_refused():
    for bound in (
        lambda model, x, samples: beta_tcvae(model, x, dataset_size=10, beta=50.0),
        lambda model, x, samples: dip_vae(model, x, off_diagonal=50.0, diagonal=0.0),
    ):
        with pytest.raises(ValueError, match="depends on the other images of the batch"):
            likelihood_regret(small_vae(), digits_like(2), bound=bound, progress=False)
        with pytest.raises(ValueError, match="depends on the other images of the batch"):
            likelihood_regret(small_vae(), digits_like(2), objective=bound, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.full((2, 1, 8, 8), torch.nan).double()}, "x: found NaN"),
        ({"x": torch.rand(2, 1, 8, 9).double()}, r"x: expected images of shape \(1, 8, 8\), got"),
        ({"x": 2 + torch.rand(2, 1, 8, 8).double()}, r"x: expected pixels in \[0, 1\]"),
        ({"x": torch.rand(2, 1, 8, 8)}, "x: expected dtype torch.float64"),
        ({"x": torch.rand(0, 1, 8, 8).double()}, "x: expected a non-empty batch"),
        ({"adapt": "decoder"}, "adapt: expected 'encoder' or 'posterior', got 'decoder'"),
        ({"steps": -1}, "steps: expected at least 0, got -1"),
        ({"samples": 0}, "samples: expected at least 1, got 0"),
        ({"chunk": 0}, "chunk: expected at least 1, got 0"),
        ({"memory": 0}, "memory: expected at least 1, got 0"),
        ({"lr": -1.0}, "lr: expected a positive finite number, got -1.0"),
    ],
)
def test_bad_input_is_refused(change, message):
    options = {"x": digits_like(2), "progress": False} | change
    with pytest.raises(ValueError, match=message):
        likelihood_regret(small_vae(), **options)


def test_a_bound_that_runs_away_is_reported_with_its_images():
    with pytest.raises(FloatingPointError, match=r"images \[0, 1\]; try a smaller lr \(now 1000.0\)"):
        likelihood_regret(small_vae(), digits_like(2), adapt="posterior", lr=1e3, steps=20, progress=False)


def test_by_default_the_papers_rate_for_the_encoder_and_a_larger_one_for_the_posterior():
    model, x = small_vae(), digits_like(1)
    expected = regret_of_a_loop(model, x, elbo, steps=100, lr=2e-4, samples=32, seed=0)
    torch.testing.assert_close(likelihood_regret(model, x, progress=False), expected, rtol=1e-6, atol=1e-8)
    expected = likelihood_regret(model, x, adapt="posterior", progress=False, steps=3, lr=2e-2, samples=32, seed=0)
    assert torch.equal(likelihood_regret(model, x, adapt="posterior", progress=False, steps=3), expected)


def test_the_plan_for_memory_follows_from_what_one_draw_and_two_draws_keep(monkeypatch):
    """Of bytes a + b S: twice that, to be safe, beside the weights with their gradients and Adam's two moments."""
    monkeypatch.setattr(Evaluation, "_kept", lambda self, weights, image, samples: 500 + 1000 * samples)
    model, x = small_vae(), digits_like(1)
    fixed = 4 * 8 * 6 + 2 * 500  # a posterior of three dimensions, six numbers of eight bytes
    each = fixed + 3 * 2 * 1000

    def planned(memory):
        evaluation = Evaluation(model, elbo, 3, "posterior")
        at_once = evaluation.fit_into(memory, x)
        return at_once, getattr(vars(evaluation.pair.model).get("log_likelihood"), "draws", None)

    assert [planned(m) for m in (10 * each, 10 * each - 1, each)] == [(10, None), (9, None), (1, None)]
    assert [planned(m) for m in (each - 1, fixed + 4000, fixed + 3999, fixed, 1)] == [
        (1, 2), (1, 2), (1, 1), (1, 1), (1, 1)
    ]  # fmt: skip


def test_what_autograd_keeps_of_an_image_is_counted():
    """Of a linear encoder and decoder: the image, the moments, the noise, z and the like, but no weights."""
    evaluation, x = Evaluation(small_vae(), elbo, 1, "posterior"), digits_like(1)
    weights = {name: w[0] for name, w in evaluation.initial_weights(x).items()}
    kept = [evaluation._kept(weights, x[0], samples) for samples in (1, 2, 3)]
    assert kept[2] - kept[1] == kept[1] - kept[0]  # so much for each draw
    assert 8 * (16 + 64) <= kept[1] - kept[0] <= 8 * (4 * 16 + 8 * 64)  # hidden units and pixels, some of them twice


def test_a_bound_with_gradients_inside_is_not_decoded_in_parts():
    x, inside = digits_like(1), HamiltonianBound(3, steps=1).double()

    def both(model, x, samples):
        return elbo(model, x, samples=samples) + inside(model, x, samples=samples)

    for bound, parts in ((inside, False), (both, False), (elbo, True)):
        evaluation = Evaluation(small_vae(), bound, 50, "encoder")
        with torch.no_grad():
            assert evaluation.fit_into(1, x) == 1
        assert ("log_likelihood" in vars(evaluation.pair.model)) is parts


def test_half_of_what_a_gpu_has_free_or_holds_in_reserve(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    free = _free(torch.device("cuda"))
    assert free == 535 and isinstance(free, int)
    assert _free(torch.device("cpu")) == 2**30


def test_noise_is_recorded_and_given_back_call_by_call():
    x, own = torch.zeros(2, 3, dtype=torch.float64), torch.Generator().manual_seed(0)

    def draws():
        return [
            torch.randn(2, 3), torch.rand((4,)), torch.randn_like(x), torch.rand_like(x, dtype=torch.float32),
            torch.randn(size=(5,)), torch.rand(1, dtype=torch.float64), torch.rand(()), torch.rand(2, generator=own),
        ]  # fmt: skip

    cpu, single, double = torch.device("cpu"), torch.float32, torch.float64
    noted = recorded(draws)
    assert noted == [
        (torch.randn, (2, 3), single, cpu), (torch.rand, (4,), single, cpu), (torch.randn, (2, 3), double, cpu),
        (torch.rand, (2, 3), single, cpu), (torch.randn, (5,), single, cpu), (torch.rand, (1,), double, cpu),
        (torch.rand, (), single, cpu),
    ]  # fmt: skip
    noise = of_image(x, 3, noted)
    with seeded(seed_of(x, 3)):
        assert all(torch.equal(a, b) for a, b in zip(noise, draws()[:-1], strict=True))
    with given(noise):
        assert all(torch.equal(a, b) for a, b in zip(noise, draws()[:-1], strict=True))
    for change in (noise[:-1], [noise[0].T, *noise[1:]]):
        with pytest.raises(ValueError, match="bound: expected one that draws the same noise"), given(change):
            draws()


def test_an_images_seed_is_the_same_for_ever_and_hears_every_pixel():
    x = torch.arange(4.0).view(1, 2, 2)
    assert seed_of(x, 5) == 3738119434
    others = [seed_of(x, 6), seed_of(x.flip(-1), 5), seed_of(x + 1e-7 * torch.eye(2), 5)]
    assert len({seed_of(x, 5), *others}) == 4
    assert seed_of(x.flip(-1), 5) == seed_of(torch.tensor([[[1.0, 0.0], [3.0, 2.0]]]), 5)


def test_a_refused_plan_names_its_argument():
    for change in ({"seed": -1}, {"steps": 1.5}, {"memory": 0.5}, {"chunk": True}, {"bound": 3}, {"samples": None}):
        with pytest.raises(ValueError, match=f"^{next(iter(change))}: expected"):
            likelihood_regret(small_vae(), digits_like(1), **change | {"progress": False})


def test_every_image_is_looked_at_before_the_first_is_fitted():
    x = digits_like(3)
    for pixel, message in ((1.5, r"x: expected pixels in \[0, 1\]"), (torch.nan, "x: found NaN")):
        x[-1, 0, 0, 0] = pixel
        with pytest.raises(ValueError, match=message):
            likelihood_regret(small_vae(), x, bound=lambda *_, **__: pytest.fail("too late"), progress=False)


def test_a_bar_counts_each_step_of_each_image_unless_told_not_to(capsys):
    options = {"steps": 2, "samples": 1, "chunk": 2}
    likelihood_regret(small_vae(), digits_like(3), **options)
    assert "6/6" in capsys.readouterr().err
    likelihood_regret(small_vae(), digits_like(3), progress=False, **options)
    assert capsys.readouterr().err == ""
