"""TracIn against brute force, finite differences, exact expectations and a peer; every path, one answer."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import kl_divergence

from tests.helpers import linear_gaussian
from vaekit import VAE, elbo, fit, gaussian, importance_bound, mlp, self_influence, strongest, tracin
from vaekit.influence import run as run_module
from vaekit.influence.asked import noise_seeds
from vaekit.influence.factors import Factors, cross, own, pairs_are_cheaper
from vaekit.influence.run import Run
from vaekit.networks import Leading
from vaekit.training.seeding import seeded

PATHS = ("layers", "general", "forward", "loop")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def noiseless(model, x):
    """The objective at the posterior's mean: no noise, so nothing hides behind it."""
    q_z = model.posterior(x)
    return model.log_likelihood(x, q_z.mean) - kl_divergence(q_z, model.prior)


def small_mlp(seed=0, **options):
    with seeded(seed):
        return VAE(*mlp((1, 3, 3), 2, hidden=(4,), activation=nn.Tanh, **options), latent_dim=2).double()


def small_conv(seed=0):
    """Strides, padding, dilation, several channels, output padding, a transposed convolution wider than its stride."""
    with seeded(seed):
        encoder = nn.Sequential(
            nn.Conv2d(1, 3, 3, 2, 1), nn.Tanh(), nn.Conv2d(3, 2, (2, 1), padding=(0, 1), dilation=2, bias=False),
            nn.Flatten(), nn.LazyLinear(4),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(2, 12), nn.Unflatten(-1, (3, 2, 2)), nn.Tanh(),
            nn.ConvTranspose2d(3, 2, 3, 2, 1, output_padding=1), nn.Tanh(), nn.ConvTranspose2d(2, 1, 3, 1, 0),
        )  # fmt: skip
        model = VAE(Leading(encoder, 3), Leading(decoder, 1), latent_dim=2)
        model.encoder(torch.zeros(1, 1, 6, 6))
        return model.double()


def images(n, shape=(1, 3, 3), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def checkpoint(model, lr=1.0, objective=None):
    return {"model": model.state_dict(), "objective": objective.state_dict() if objective else {}, "lr": lr}


def brute_gradient(model, objective, image, seed=0, modules=()):
    """All parameters' gradient at one image, flattened."""
    parameters = [p for m in (model, *modules) for p in m.parameters() if p.requires_grad]
    with seeded(seed):
        nats = objective(model, image[None]).sum()
    gradients = torch.autograd.grad(nats, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


def brute_gram(model, objective, x, z, modules=()):
    rows, columns = ([brute_gradient(model, objective, i, modules=modules) for i in side] for side in (x, z))
    return torch.stack(rows) @ torch.stack(columns).T


once = {"samples": 1, "unbiased": False}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("make", [small_mlp, small_conv])
def test_equals_inner_products_of_gradients(make, path):
    shape = (1, 3, 3) if make is small_mlp else (1, 6, 6)
    models, lrs = [make(0), make(1)], [0.5, 0.2]
    x, z = images(5, shape), images(3, shape, seed=1)
    expected = sum(lr * brute_gram(m, noiseless, x, z) for m, lr in zip(models, lrs, strict=True))
    states = [checkpoint(m, lr) for m, lr in zip(models, lrs, strict=True)]
    torch.testing.assert_close(tracin(models[0], noiseless, states, x, z, path=path, **once), expected, **EXACT)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("make", [small_mlp, small_conv])
def test_noise_is_shared_by_images_and_averaged(make, path, unbiased):
    shape = (1, 3, 3) if make is small_mlp else (1, 6, 6)
    model, x, z = make(), images(4, shape), images(2, shape, seed=1)
    objective = partial(elbo, beta=2.0, samples=2)
    means = []  # over each half of the draws, or over all
    for seeds in noise_seeds(3, 1, 5, unbiased=unbiased)[0]:
        per_draw = [torch.stack([brute_gradient(model, objective, i, s) for i in torch.cat([x, z])]) for s in seeds]
        means.append(torch.stack(per_draw).mean(0))
    gram = means[0] @ means[-1].T
    gram = (gram + gram.T) / 2
    options = {"samples": 5, "unbiased": unbiased, "seed": 3, "path": path}
    scores = tracin(model, objective, [checkpoint(model)], x, z, **options)
    torch.testing.assert_close(scores, gram[:4, 4:], **EXACT)
    if path != "forward":
        selves = self_influence(model, objective, [checkpoint(model)], x, **options)
        torch.testing.assert_close(selves, gram.diagonal()[:4], **EXACT)


def test_pieces_do_not_matter():
    model, x, z = small_conv(), images(7, (1, 6, 6)), images(5, (1, 6, 6), seed=1)
    ask = partial(tracin, model, elbo, [checkpoint(model), checkpoint(small_conv(1), 0.3)], samples=4)
    whole = ask(x, z)
    torch.testing.assert_close(ask(x, z, chunk=3), whole, **EXACT)
    torch.testing.assert_close(ask(x[2:3], z[1:2]), whole[2:3, 1:2], **EXACT)
    torch.testing.assert_close(ask(z, x).T, whole, **EXACT)


def test_self_influence_is_the_diagonal():
    model, x = small_mlp(), images(6)
    for options in ({"samples": 4}, {"samples": 3, "unbiased": False}, {"samples": 2, "layers": ["encoder"]}):
        states = [checkpoint(model), checkpoint(small_mlp(1), 0.1)]
        gram = tracin(model, elbo, states, x, x, **options)
        selves = self_influence(model, elbo, states, x, chunk=4, **options)
        torch.testing.assert_close(selves, gram.diagonal(), **EXACT)
        torch.testing.assert_close(gram, gram.T, **EXACT)


def test_plain_averages_are_a_kernel():
    model, x = small_conv(), images(9, (1, 6, 6))
    gram = tracin(model, elbo, [checkpoint(model)], x, x, samples=3, unbiased=False)
    selves = gram.diagonal()
    assert torch.linalg.eigvalsh(gram).min() > -1e-9 * selves.max()
    assert (gram**2 <= torch.outer(selves, selves) * (1 + 1e-12)).all()  # Cauchy-Schwarz


def exact_elbo(true, model, x):
    """The ELBO of the linear-Gaussian model in closed form; autograd gives the gradient of the expected objective."""
    q_z = model.posterior(x)
    decoder = model.decoder
    error = x.flatten(1) - (q_z.mean @ decoder.weight.T + decoder.bias)
    spread = (q_z.stddev[:, None, :] * decoder.weight).square().sum((1, 2))
    reconstruction = gaussian(true.scale)(torch.zeros_like(error)).log_prob(error).sum(1) - spread / (2 * true.scale**2)
    return reconstruction - kl_divergence(q_z, model.prior)


def test_halves_take_the_bias_away():
    """E of the unbiased score is the inner product of the *expected* gradients; the plain one is too large."""
    true = linear_gaussian(batch=4)
    expected = brute_gram(true.model, partial(exact_elbo, true), true.x, true.x)
    bias_seen = []
    for unbiased in (True, False):
        ask = partial(tracin, true.model, elbo, [checkpoint(true.model)], true.x, true.x, samples=2, unbiased=unbiased)
        estimates = torch.stack([ask(seed=seed) for seed in range(100)])
        errors = (estimates.mean(0) - expected) / (estimates.std(0) / 10)  # in standard errors
        bias_seen.append(errors.abs().max().item())
    assert bias_seen[0] < 4
    assert bias_seen[1] > 8


def test_one_step_changes_a_test_image_by_the_score():
    model, x, z = small_conv(), images(1, (1, 6, 6)), images(3, (1, 6, 6), seed=1)

    def after_a_step(eta):
        moved = copy.deepcopy(model)
        noiseless(moved, x).sum().backward()
        with torch.no_grad():
            for p in moved.parameters():
                p += eta * p.grad
            return noiseless(moved, z)

    slope = (after_a_step(1e-5) - after_a_step(-1e-5)) / 2e-5
    torch.testing.assert_close(
        tracin(model, noiseless, [checkpoint(model)], x, z, **once)[0], slope, rtol=1e-6, atol=1e-6
    )


def test_scores_of_all_steps_add_up_to_what_training_did():
    """Batch-1 ascent: the sum over steps is o(z; end) - o(z; start), up to O(eta)."""
    x, z = images(6), images(2, seed=1)
    errors = []
    for eta in (2e-3, 1e-3):
        model, states = small_mlp(), []
        before = noiseless(model, z).detach()
        optimizer = torch.optim.SGD(model.parameters(), lr=eta)
        visits = [step % 6 for step in range(round(0.06 / eta))]
        for i in visits:
            states.append(copy.deepcopy(checkpoint(model, eta)))
            optimizer.zero_grad()
            (-noiseless(model, x[i : i + 1])).sum().backward()
            optimizer.step()
        change = noiseless(model, z).detach() - before
        pairs = zip(visits, states, strict=True)
        total = sum(tracin(model, noiseless, [s], x[i : i + 1], z, **once)[0] for i, s in pairs)
        assert (change.abs() > 0.01).all()
        errors.append((total - change).abs().max().item())
        assert errors[-1] < 0.1 * change.abs().max()
    assert 0.4 < errors[1] / errors[0] < 0.6  # first order


class Symmetric(nn.Module):
    """A parametrisation: the layer's weight is not a parameter."""

    def forward(self, w):
        return w + w.T


class Odd(nn.Module):
    """What has no factors: grouped and reflecting convolutions, norms, a bare parameter, a tied or derived weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
        self.grouped = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.norm, self.rms = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.slope = nn.PReLU()
        self.unused = nn.Linear(3, 3)
        self.outside = nn.Linear(4, 4)  # its weight acts outside its own call as well
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.normed = nn.Linear(4, 4)
        nn.utils.parametrize.register_parametrization(self.normed, "weight", Symmetric())
        self.tied, self.tie = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tie.weight = self.tied.weight
        self.out = nn.Linear(4, 4)

    def forward(self, x):
        y = self.norm(self.slope(self.grouped(self.first(x))))
        y = self.rms(self.twice(torch.tanh(self.twice(y)))).mean((2, 3))
        y = torch.tanh(self.normed(self.gain * self.outside(y)) + F.linear(y, self.outside.weight))
        return self.out(self.tie(torch.tanh(self.tied(y))))


@pytest.mark.parametrize("path", ["auto", "general", "forward", "loop"])
def test_no_parameter_is_left_out(path):
    with seeded(0):
        decoder = mlp((1, 3, 3), 2, hidden=(4,))[1]
        model = VAE(Odd(), decoder, latent_dim=2).double()
        model.encoder.norm.running_mean.normal_()
    x, z = images(3), images(4, seed=1)
    model.eval()
    expected = brute_gram(model, noiseless, x, z)
    model.train()
    torch.testing.assert_close(
        tracin(model, noiseless, [checkpoint(model)], x, z, path=path, **once), expected, **EXACT
    )


def test_a_layer_used_behind_its_back_is_noticed():
    with seeded(0):
        model = VAE(Odd(), mlp((1, 3, 3), 2)[1], latent_dim=2).double()
    with pytest.raises(ValueError, match="path: 'layers' does not give"):
        tracin(model, noiseless, [checkpoint(model)], images(2), images(2), path="layers", **once)


def test_tied_layers_are_taken_together():
    """They have no factors of their own, but all other layers keep theirs."""
    with seeded(0):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        encoder[5].weight = encoder[3].weight
        model = VAE(encoder, mlp((1, 3, 3), 2)[1], latent_dim=2).double()
    x, z = images(3), images(4, seed=1)
    scores = tracin(model, noiseless, [checkpoint(model)], x, z, path="layers", **once)
    torch.testing.assert_close(scores, brute_gram(model, noiseless, x, z), **EXACT)


class WithJacobian(nn.Module):
    """A bound with derivatives of the decoder in it, and a parameter of its own."""

    def __init__(self, derivative):
        super().__init__()
        self.log_weight, self.derivative = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64)), derivative

    def forward(self, model, x):
        z = model.posterior(x).mean
        return noiseless(model, x) - self.log_weight.exp() * self.derivative(model, z)


def by_func(model, z):
    return torch.func.jvp(lambda z: model.decoder(z), (z,), (torch.ones_like(z),))[1].square().flatten(1).sum(1)


def by_autograd(model, z):
    with torch.enable_grad():
        z = z + 0 if z.requires_grad else z.requires_grad_()
        return torch.autograd.grad(model.decoder(z).square().sum(), z, create_graph=True)[0].square().sum(1)


@pytest.mark.parametrize("derivative", [by_func, by_autograd])
@pytest.mark.parametrize("queries", [2, 5])
def test_objectives_with_derivatives_inside_take_another_path(derivative, queries):
    model, objective, x, z = small_mlp(), WithJacobian(derivative), images(4), images(queries, seed=1)
    expected = brute_gram(model, objective, x, z, modules=[objective])
    state = checkpoint(model, objective=objective)
    torch.testing.assert_close(tracin(model, objective, [state], x, z, **once), expected, **EXACT)
    own_part = tracin(model, objective, [state], x, z, layers=["objective"], **once)
    slopes = [objective.log_weight.exp() * derivative(model, model.posterior(i).mean).detach() for i in (x, z)]
    torch.testing.assert_close(own_part, torch.outer(*slopes).detach(), **EXACT)


def test_other_bounds():
    model, x, z = small_mlp(), images(3), images(2, seed=1)
    objective = partial(importance_bound, samples=3)
    options = {"samples": 4, "seed": 1}
    a, b = (tracin(model, objective, [checkpoint(model)], x, z, path=p, **options) for p in ("auto", "loop"))
    torch.testing.assert_close(a, b, **EXACT)


def test_layers_add_up():
    model, x, z = small_conv(), images(3, (1, 6, 6)), images(2, (1, 6, 6), seed=1)
    ask = partial(tracin, model, elbo, [checkpoint(model)], x, z, samples=2)
    torch.testing.assert_close(ask(layers=["encoder"]) + ask(layers=["decoder"]), ask(), **EXACT)
    decoder = ask(layers=["decoder.net.0", "decoder.net.3.weight"]) + ask(layers="decoder.net.3.bias")
    torch.testing.assert_close(decoder + ask(layers=["decoder.net.5"]), ask(layers=["decoder"]), **EXACT)
    model.encoder.requires_grad_(False)  # frozen parameters were not trained, and do not count
    torch.testing.assert_close(ask(), ask(layers=["decoder"]), **EXACT)


def test_strongest_are_the_ends_of_the_columns():
    model, x, z = small_mlp(), images(9), images(5, seed=1)
    scores = tracin(model, elbo, [checkpoint(model)], x, z, samples=2)
    ends = strongest(model, elbo, [checkpoint(model)], x, z, k=3, samples=2, chunk=2)
    order = scores.argsort(dim=0).T
    assert torch.equal(ends.opponents, order[:, :3])
    assert torch.equal(ends.proponents, order.flip(1)[:, :3])
    torch.testing.assert_close(ends.proponent_scores, scores.T.gather(1, ends.proponents), **EXACT)
    torch.testing.assert_close(ends.opponent_scores, scores.T.gather(1, ends.opponents), **EXACT)


@pytest.mark.parametrize("ask", [tracin, strongest, self_influence])
def test_a_run_that_was_stopped_goes_on(ask, tmp_path, monkeypatch):
    model, x, z = small_mlp(), images(6), images(4, seed=1)
    states = [checkpoint(model), checkpoint(small_mlp(1))]
    sets = (x,) if ask is self_influence else (x, z)
    options = {"samples": 2, "chunk": 2, **({"k": 2} if ask is strongest else {})}
    whole = ask(model, elbo, states, *sets, **options)
    monkeypatch.setattr(run_module, "SAVE_EVERY", 0.0)
    plain, calls = Run.scores, []

    def killed(self, *args):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(Run, "scores", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(model, elbo, states, *sets, resume=tmp_path / "scores.pt", **options)
    done = len(calls) - 1
    resumed = ask(model, elbo, states, *sets, resume=tmp_path / "scores.pt", **options)
    pieces = 3 * 2 * (1 if ask is self_influence else 2)
    assert len(calls) - 1 - done == pieces - 4
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)
    for other in ({"seed": 1}, {"samples": 3}, {"layers": ["encoder"]}):
        with pytest.raises(ValueError, match="holds scores of other images, weights or settings"):
            ask(model, elbo, states, *sets, resume=tmp_path / "scores.pt", **{**options, **other})
    with pytest.raises(ValueError, match="holds scores of other images, weights or settings"):
        ask(model, partial(elbo, beta=3.0), states, *sets, resume=tmp_path / "scores.pt", **options)


def test_reads_what_fit_writes(tmp_path):
    model, x = small_mlp(), images(12)
    history = fit(
        model, elbo, x, epochs=4, batch_size=4, lr=0.01, optimizer=torch.optim.SGD, checkpoints=tmp_path,
        checkpoint_every=2, progress=False, device="cpu",
    )  # fmt: skip
    assert len(history.checkpoints) == 2
    scores = tracin(model, noiseless, history.checkpoints, x, x[:3], **once)
    last = tracin(model, noiseless, [checkpoint(model, 0.01)], x, x[:3], **once)
    first = tracin(model, noiseless, history.checkpoints[:1], x, x[:3], **once)
    torch.testing.assert_close(scores, first + last, **EXACT)


def test_leaves_the_model_and_the_random_state_alone():
    model, x = small_mlp().train(), images(3)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    tracin(model, elbo, [checkpoint(small_mlp(1))], x, x, samples=2)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_agrees_with_captum():
    captum = pytest.importorskip("captum.influence")
    model, x, z = small_mlp(), images(6), images(4, seed=1)

    class Nats(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return noiseless(self.model, x)

    def load(net, state):
        net.model.load_state_dict(state["model"])
        return state["lr"]

    states = [copy.deepcopy(checkpoint(small_mlp(seed), lr)) for seed, lr in ((0, 0.5), (1, 0.1))]
    peer = captum.TracInCP(
        Nats(), torch.utils.data.TensorDataset(x, torch.zeros(6)), states, checkpoints_load_func=load,
        loss_fn=lambda nats, _: nats, batch_size=3, sample_wise_grads_per_batch=False,
    )  # fmt: skip
    theirs = peer.influence((z, torch.zeros(4)))
    torch.testing.assert_close(tracin(model, noiseless, states, x, z, **once), theirs.T, **EXACT)


def test_products_of_factors():
    torch.manual_seed(0)
    x, z = (Factors(*(torch.randn(n, t, d, dtype=torch.float64) for d in (3, 5))) for n, t in ((4, 2), (6, 3)))
    torch.testing.assert_close(cross(x, z), x.form() @ z.form().T)
    torch.testing.assert_close(cross(x, z.form()), x.form() @ z.form().T)
    torch.testing.assert_close(own(x, Factors(*(s[:4] for s in z))), (x.form() * z.form()[:4]).sum(1))
    assert pairs_are_cheaper(1, 400, 784)
    assert not pairs_are_cheaper(64, 64, 512)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": [1, 2]}, "train: expected a torch.Tensor"),
        ({"train": torch.full((3, 1, 3, 3), float("nan"), dtype=torch.float64)}, "train: found NaN"),
        ({"test": torch.ones(3, 1, 4, 4, dtype=torch.float64)}, "test: expected images of shape"),
        ({"test": torch.ones(3, 1, 3, 3)}, "test: expected dtype"),
        ({"test": torch.ones(0, 1, 3, 3, dtype=torch.float64)}, "test: expected a non-empty"),
        ({"checkpoints": []}, "checkpoints: expected at least one"),
        ({"checkpoints": [{"lr": 1.0}]}, "checkpoints: expected 'model'"),
        ({"checkpoints": [checkpoint(small_conv())]}, "checkpoints: number 0 is not of this model"),
        ({"checkpoints": [checkpoint(small_mlp(), 0.0)]}, "checkpoints: lr: expected a positive"),
        ({"samples": 0}, "samples: expected at least 1"),
        ({"samples": 1}, "samples: an unbiased score needs"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"chunk": 0}, "chunk: expected at least 1"),
        ({"layers": ["dekoder"]}, "layers: expected names among or within decoder.net.0"),
        ({"path": "fast"}, "path: expected one of auto"),
        ({"objective": lambda model, x: elbo(model, x).sum()}, r"objective: expected shape \[4\], got \(\)"),
    ],
)
def test_bad_input(change, message):
    model = small_mlp()
    asked = {"objective": elbo, "checkpoints": [checkpoint(model)], "train": images(3), "test": images(2), "samples": 2}
    with pytest.raises(ValueError, match=message):
        tracin(model, **{**asked, **change})


def test_bad_k_and_forward_self_influence():
    model, x = small_mlp(), images(3)
    for k in (0, 4):
        with pytest.raises(ValueError, match="k: expected at"):
            strongest(model, elbo, [checkpoint(model)], x, x, k=k)
    with pytest.raises(ValueError, match="path: expected one of auto, layers, general, loop"):
        self_influence(model, elbo, [checkpoint(model)], x, path="forward")


def test_broken_weights_are_told():
    model, broken = small_mlp(), small_mlp(1)
    with torch.no_grad():
        broken.decoder.net[0].weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="number 1"):
        tracin(model, elbo, [checkpoint(model), checkpoint(broken)], images(2), images(2), samples=2)
