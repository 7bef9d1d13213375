"""Where an influence was once wrong without a word: each against brute force, or refused."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.influence.test_scores import EXACT, brute_gram, checkpoint, images, noiseless, once, small_mlp
from vaekit import (
    VAE,
    FactorVAE,
    JacobianL1,
    PlanarBound,
    beta_tcvae,
    dip_vae,
    elbo,
    mlp,
    mutated,
    self_influence,
    strongest,
    tracin,
)
from vaekit.training.seeding import seeded

ALL_PATHS = ("auto", "layers", "general", "forward", "loop")


class SharedModule(nn.Module):
    """One layer registered under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(9, 4), nn.Linear(4, 4)
        self.a = nn.Linear(4, 4)
        self.b = self.a

    def forward(self, x):
        return self.last(torch.tanh(self.b(torch.tanh(self.a(torch.tanh(self.first(x.flatten(1))))))))


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_module_under_two_names(path):
    with seeded(0):
        model = VAE(SharedModule(), mlp((1, 3, 3), 2, hidden=(4,))[1], latent_dim=2).double()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    x, z = images(3), images(2, seed=1)
    scores = tracin(model, noiseless, [checkpoint(model)] * 2, x, z, path=path, samples=4, chunk=1)
    torch.testing.assert_close(scores, 2 * brute_gram(model, noiseless, x, z), **EXACT)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def with_bound():
    """A noiseless objective with parameters of its own."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([0.7, -0.3], dtype=torch.float64))

        def forward(self, model, x, power=1.0):
            return noiseless(model, x) + (model.posterior(x).mean * self.scale).tanh().sum(1) * power

    return Own()


WAYS = {
    "partial": lambda own: partial(own, power=2.0),
    "nested partial": lambda own: JacobianL1(partial(own, power=2.0), weight=0.0),
    "method": lambda own: own.forward,
    "closure": lambda own: lambda model, x: own(model, x),
}


@pytest.mark.parametrize("way", WAYS)
def test_parameters_of_a_wrapped_objective_count(way):
    model, own = small_mlp(), with_bound()
    other, theirs = small_mlp(1), with_bound()
    objective, x, z = WAYS[way](own), images(3), images(2, seed=1)
    with torch.no_grad():
        theirs.scale.copy_(torch.tensor([2.0, 1.0]))
    inside = {"/bound.scale": theirs.scale} if way == "nested partial" else {"scale": theirs.scale}
    state = {"model": other.state_dict(), "objective": inside, "lr": 1.0}
    expected = brute_gram(other, WAYS[way](theirs), x, z, modules=[theirs])
    torch.testing.assert_close(tracin(model, objective, [state], x, z, **once), expected, **EXACT)
    assert own.scale[0] == 0.7
    alone = brute_gram(other, WAYS[way](theirs), x, z)
    assert not torch.allclose(alone, expected, rtol=0.01)
    with pytest.raises(ValueError, match="checkpoints: number 0 is not of this model and objective"):
        tracin(model, objective, [checkpoint(other)], x, z, **once)


HIDDEN = PlanarBound(2, steps=1).double()


def test_parameters_that_cannot_be_found_are_refused():
    with pytest.raises(ValueError, match=r"objective: expected its parameters in the model or .* of shapes \[\(5, 4\)"):
        tracin(small_mlp(), lambda model, x: HIDDEN(model, x), [checkpoint(small_mlp())], images(2), images(2))


def test_an_objective_may_hold_the_model():
    model, x, z = small_mlp(), images(3), images(2, seed=1)

    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, _, x):
            return noiseless(self.model, x)

    objective = Holds()
    state = checkpoint(model, objective=objective)
    torch.testing.assert_close(
        tracin(model, objective, [state], x, z, **once), brute_gram(model, noiseless, x, z), **EXACT
    )


def no_statistics():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with seeded(0):
        return VAE(encoder, mlp((1, 3, 3), 2, hidden=(4,))[1], latent_dim=2).double()


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        (small_mlp(), partial(beta_tcvae, dataset_size=10, beta=50.0)),
        (small_mlp(), partial(dip_vae, off_diagonal=50.0, diagonal=0.0)),
        (small_mlp(), FactorVAE(2, weight=1.0, hidden=4, layers=1).double()),
        (small_mlp(), JacobianL1(partial(beta_tcvae, dataset_size=10, beta=2.0), weight=0.1)),
        (no_statistics(), elbo),
    ],
)
def test_an_objective_that_looks_at_the_batch_is_refused(model, objective):
    state = checkpoint(model, objective=objective if isinstance(objective, nn.Module) else None)
    for ask in (partial(tracin, test=images(2)), self_influence):
        with pytest.raises(ValueError, match=r"depends on the other images of the batch \(a total correlation"):
            ask(model, objective, [state], train=torch.zeros_like(images(3)))


@pytest.mark.parametrize("source", [lambda: np.random.rand(), lambda: torch.rand((), generator=GENERATOR).item()])
def test_noise_that_cannot_be_repeated_is_refused(source):
    with pytest.raises(ValueError, match="noise of torch's default generators alone"):
        self_influence(
            small_mlp(), lambda model, x: noiseless(model, x) * source(), [checkpoint(small_mlp())], images(2)
        )


GENERATOR = torch.Generator()


@pytest.mark.parametrize("name", ["train", "test"])
def test_pixels_out_of_range_are_refused_wherever_they_are(name):
    model, sets = small_mlp(), {"train": images(5), "test": images(4, seed=1)}
    sets[name][-1] *= 255
    for ask in (tracin, strongest):
        with pytest.raises(ValueError, match=rf"{name}: expected pixels in \[0, 1\]"):
            ask(model, elbo, [checkpoint(model)], **sets, **({"k": 2} if ask is strongest else {}))
    if name == "train":
        with pytest.raises(ValueError, match=r"train: expected pixels in \[0, 1\]"):
            self_influence(model, elbo, [checkpoint(model)], sets["train"])


# --- resuming --------------------------------------------------------------------------------------------------------


class Wide:
    """A configuration in a plain attribute."""

    def __init__(self, beta):
        self.beta = beta

    def __call__(self, model, x):
        return elbo(model, x, beta=self.beta)


BETA = 1.0


def by_a_global(model, x):
    return elbo(model, x, beta=BETA)


@pytest.mark.parametrize("ask", [tracin, strongest, self_influence])
def test_scores_of_another_objective_are_not_taken_for_these(ask, tmp_path):
    model, x = small_mlp(), images(4)
    sets, k = (x,) if ask is self_influence else (x, images(3, seed=1)), {"k": 2} if ask is strongest else {}
    pairs = [
        (partial(elbo, beta=1.0), partial(elbo, beta=1.0 + 1e-12)),
        (Wide(1.0), Wide(1.0000001)),
        (mutated(elbo, rate=0.2), mutated(elbo, rate=0.2000001)),
        (JacobianL1(elbo, weight=0.1), JacobianL1(elbo, weight=0.1, columns=1)),
    ]
    for number, (one, other) in enumerate(pairs):
        options = {"samples": 2, "resume": tmp_path / f"{number}.pt", **k}
        first = ask(model, one, [checkpoint(model)], *sets, **options)
        again = ask(model, one, [checkpoint(model)], *sets, **options)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        with pytest.raises(ValueError, match=r"resume: .* of another objective"):
            ask(model, other, [checkpoint(model)], *sets, **options)
    tanh = VAE(*mlp((1, 3, 3), 2, hidden=(4,), activation=nn.Sigmoid), latent_dim=2).double()  # the same weights
    with pytest.raises(ValueError, match=r"resume: .* other images, weights or settings"):
        ask(tanh, pairs[0][0], [checkpoint(model)], *sets, samples=2, resume=tmp_path / "0.pt", **k)


def test_scores_by_a_global_value_are_not_taken_for_those_of_another(tmp_path, monkeypatch):
    model, options = small_mlp(), {"samples": 2, "resume": tmp_path / "scores.pt"}
    tracin(model, by_a_global, [checkpoint(model)], images(3), images(2), **options)
    monkeypatch.setitem(globals(), "BETA", 1.05)
    with pytest.raises(ValueError, match="of another objective"):
        tracin(model, by_a_global, [checkpoint(model)], images(3), images(2), **options)


def test_scores_of_another_kind_are_not_taken_for_these(tmp_path):
    model, x = small_mlp(), images(6)
    ways = {
        "tracin": lambda **options: tracin(model, elbo, [checkpoint(model)], x, x, **options),
        "five": lambda **options: strongest(model, elbo, [checkpoint(model)], x, x, k=5, **options),
        "three": lambda **options: strongest(model, elbo, [checkpoint(model)], x, x, k=3, **options),
        "self": lambda **options: self_influence(model, elbo, [checkpoint(model)], x, **options),
    }
    for name, way in ways.items():
        way(samples=2, resume=tmp_path / name)
    for name in ways:
        for other in ways.keys() - {name}:
            with pytest.raises(ValueError, match="another kind"):
                ways[name](samples=2, resume=tmp_path / other)


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("vaekit.influence.run.Run.scores", lambda *_: pytest.fail("too late"))
    with pytest.raises(OSError, match="cannot write to this folder"):
        tracin(
            small_mlp(), elbo, [checkpoint(small_mlp())], images(2), images(2), samples=2,
            resume=tmp_path / "file" / "scores.pt",
        )  # fmt: skip


# --- paths -----------------------------------------------------------------------------------------------------------


class BehindItsBack(nn.Module):
    """A weight that is used twice: by its layer's call, and functionally, which a blank image does not show."""

    def __init__(self, gate):
        super().__init__()
        self.first, self.last = nn.Linear(9, 4, bias=False), nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, x):
        x = x.flatten(1)
        return self.last(torch.tanh(self.first(x)) + self.gate * F.linear(x, self.first.weight).square())


@pytest.mark.parametrize("case", ["blank first image", "gate that opens later"])
@pytest.mark.parametrize("queries", [2, 5])
def test_a_path_is_not_trusted_after_one_look(case, queries):
    gates = (0.9, 0.9) if case == "blank first image" else (0.0, 0.9)
    with seeded(0):
        models = [VAE(BehindItsBack(g), mlp((1, 3, 3), 2, hidden=(4,))[1], latent_dim=2).double() for g in gates]
    x, z = images(4), images(queries, seed=1)
    if case == "blank first image":
        x[0] = 0
    expected = sum(brute_gram(m, noiseless, x, z) for m in models)
    states = [checkpoint(m) for m in models]
    torch.testing.assert_close(tracin(models[0], noiseless, states, x, z, **once), expected, **EXACT)
    with pytest.raises(ValueError, match="path: 'layers' does not give"):
        tracin(models[0], noiseless, states, x, z, path="layers", **once)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [1, 2])
def test_the_penalty_leaves_the_encoder_alone_on_every_path(norm, dtype):
    """Forward mode goes through `torch.no_grad`: a draw that is to be constant has to be detached."""
    with seeded(0):
        model = VAE(*mlp((1, 3, 3), 2, hidden=(4,), activation=nn.Tanh), latent_dim=2).to(dtype)
    x, z = images(3).to(dtype), images(2, seed=1).to(dtype)
    objective = JacobianL1(noiseless, weight=3.0, norm=norm)
    ask = partial(tracin, model, objective, [checkpoint(model, objective=objective)], x, z, **once)
    loop, precise = ask(path="loop"), {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {}
    for path in ("auto", "general", "forward"):
        torch.testing.assert_close(ask(path=path), loop, **precise)


class Skips(nn.Module):
    """A layer that the noise calls or leaves out."""

    def __init__(self, least):
        super().__init__()
        self.first, self.now_and_then, self.last = nn.Linear(9, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.least = least

    def forward(self, x):
        y = torch.tanh(self.first(x.flatten(1)))
        for _ in range(int(torch.randint(self.least, 4, ()))):
            y = torch.tanh(self.now_and_then(y))
        return self.last(y)


@pytest.mark.parametrize("least", [0, 1])
def test_a_layer_that_the_noise_calls_now_and_then(least):
    with seeded(0):
        model = VAE(Skips(least), mlp((1, 3, 3), 2, hidden=(4,))[1], latent_dim=2).double()
    x, z = images(3), images(5, seed=1)
    for path in ("auto", "layers"):
        scores, truth = (
            tracin(model, elbo, [checkpoint(model)], x, z, samples=6, path=p) for p in (path, "loop")
        )
        torch.testing.assert_close(scores, truth, **EXACT)


def test_a_layer_brings_all_of_a_weight_that_it_shares():
    with seeded(0):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        encoder[5].weight = encoder[3].weight
        model = VAE(encoder, mlp((1, 3, 3), 2)[1], latent_dim=2).double()
    x, z = images(3), images(4, seed=1)
    ask = partial(tracin, model, noiseless, [checkpoint(model)], x, z, **once)
    for p in model.parameters():
        p.requires_grad_(False)
    for layer, other in ((5, 3), (3, 5)):
        encoder[layer].requires_grad_(True)
        expected = brute_gram(model, noiseless, x, z)
        encoder[other].bias.requires_grad_(True)
        torch.testing.assert_close(ask(layers=[f"encoder.{layer}"]), expected, **EXACT)
        encoder[layer].requires_grad_(False)
        encoder[other].requires_grad_(False)


@pytest.mark.parametrize("checkpoints", ["a.pt", {"lr": 1.0}, None, 3, [3], [None]])
def test_checkpoints_of_another_kind_are_refused(checkpoints):
    with pytest.raises(ValueError, match=r"checkpoints: expected (a list of )?files or dictionaries, got"):
        tracin(small_mlp(), elbo, checkpoints, images(2), images(2))
