"""What the page computes, run under Node, against PyTorch with the same weights and the same noise."""

import json
import shutil
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vaekit import (
    VAE,
    categorical256,
    conv,
    dcgan,
    decoder_jacobian,
    elbo,
    fit,
    gaussian,
    hvae_conv,
    likelihood_regret,
    log_evidence,
    mlp,
    tracin,
)  # fmt: skip
from vaekit.consistency import affine
from vaekit.datasets import render_three_dots
from vaekit.influence import gaussian_influence, kde_influence, knn_influence
from vaekit.influence.asked import noise_seeds
from vaekit.influence.mixture import Mixtures, _em
from vaekit.notebook.live import arrays, export, form
from vaekit.regret.noise import seed_of
from vaekit.training import load_checkpoint, seeded

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js here")
FILES = ("core", "engine", "vae", "scene", "densities", "tracin")


def node(code, **given):
    """What `code` returns, in which the entries of `given` are variables."""
    runtime = "\n".join((form.RUNTIME / f"{name}.js").read_text(encoding="utf-8") for name in FILES)
    plain = "(k, v) => ArrayBuffer.isView(v) ? [...v] : v"
    script = f"""{runtime}
        const L = vaekitLive, {{ {", ".join(given)} }} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        process.stdout.write(JSON.stringify((() => {{ {code} }})(), {plain}));
    """
    run = subprocess.run([NODE, "-e", script], input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


def close(found, expected, relative=1e-5):
    found = torch.tensor(found, dtype=torch.float64).flatten()
    expected = expected.detach().double().flatten()
    assert found.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-12)
    assert ((found - expected).abs().max() / scale).item() < relative


def stirred(model):
    """Batch normalisation with statistics that change something."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    return model.eval()


NETWORKS = {
    "mlp": lambda: VAE(*mlp((1, 6, 5), 3, hidden=(7, 4)), latent_dim=3),
    "mlp, gaussian": lambda: VAE(
        *mlp((1, 6, 5), 2, hidden=(7,), activation=nn.Tanh), latent_dim=2, likelihood=gaussian(0.7)
    ),
    "dcgan": lambda: VAE(*dcgan((1, 32, 32), 5, width=2, outputs=1), latent_dim=5),
    "dcgan, colour": lambda: VAE(*dcgan((3, 32, 32), 2, width=1, outputs=1), latent_dim=2),
    "hvae_conv": lambda: VAE(*hvae_conv(3), latent_dim=3),
    "conv": lambda: VAE(*conv((1, 32, 32), 2), latent_dim=2),
}  # fmt: skip

BOUNDS = """
    const m = L.vae.vae(model), at = Float64Array.from(x), q = m.posterior(at), noise = Float64Array.from(eps);
    const [slope, elbo] = [m.elboSlope(at, q, noise), m.elbo(at, q, noise)];
    return { q, slope, elbo, weights: m.logWeights(at, q, noise), J: m.jacobian(q.mean) };
"""


def bounds(model, x, eps):
    """The same in PyTorch, by automatic differentiation."""
    q_z = model.posterior(x)
    mean, log_std = q_z.mean.detach().requires_grad_(), q_z.stddev.detach().log().requires_grad_()
    z = mean + log_std.exp() * eps[:, None]
    kl = ((mean**2 + (2 * log_std).exp() - 1) / 2 - log_std).sum(-1)
    value = model.log_likelihood(x, z).mean(0) - kl
    slopes = torch.autograd.grad(value.sum(), (mean, log_std))
    normal = torch.distributions.Normal(mean, log_std.exp())
    weights = model.log_joint(x, z) - normal.log_prob(z).sum(-1)
    return q_z, value, slopes, weights, decoder_jacobian(model, mean.detach())


@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_gradients_and_jacobians_are_those_of_pytorch(name):
    with seeded(0):
        model = stirred(NETWORKS[name]())
        shape = tuple(model.sample(1).shape[1:])
        x, eps = torch.rand(1, *shape, dtype=torch.float64), torch.randn(3, model.latent_dim, dtype=torch.float64)
    described = export.model(model, shape)
    model = model.double()
    found = node(BOUNDS, model=described, x=x.flatten().tolist(), eps=eps.flatten().tolist())
    q_z, value, slopes, weights, J = bounds(model, x, eps)
    close(found["q"]["mean"], q_z.mean), close(found["q"]["logStd"], q_z.stddev.log())
    close([found["elbo"]], value), close([found["slope"]["value"]], value)
    close(found["slope"]["mean"], slopes[0]), close(found["slope"]["logStd"], slopes[1])
    close(found["weights"], weights), close(found["J"]["columns"], J)
    close(found["J"]["picture"], model.reconstruct(x))


ACTIVATIONS = (nn.ReLU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SiLU, lambda: nn.LeakyReLU(0.3))


@settings(max_examples=12, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3), latents=st.integers(1, 4),
    side=st.integers(1, 4), act=st.sampled_from(ACTIVATIONS), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_random_perceptrons(widths, latents, side, act, seed):
    with seeded(seed):
        model = VAE(*mlp((1, side, side), latents, hidden=tuple(widths), activation=act), latent_dim=latents)
        x, eps = torch.rand(1, 1, side, side, dtype=torch.float64), torch.randn(2, latents, dtype=torch.float64)
    described = export.model(model, (1, side, side))
    found = node(BOUNDS, model=described, x=x.flatten().tolist(), eps=eps.flatten().tolist())
    _, value, slopes, weights, J = bounds(model.double(), x, eps)
    close([found["slope"]["value"]], value), close(found["slope"]["logStd"], slopes[1])
    close(found["weights"], weights), close(found["J"]["columns"], J)


@settings(max_examples=10, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)), kernel=st.integers(1, 4), stride=st.integers(1, 3),
    padding=st.integers(0, 2), size=st.tuples(st.integers(4, 7), st.integers(4, 7)), transposed=st.booleans(),
    bias=st.booleans(),
)  # fmt: skip
def test_random_convolutions(channels, kernel, stride, padding, size, transposed, bias):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    padding = min(padding, kernel - 1)
    with seeded(0):
        layer = kind(*channels, kernel, stride, padding, bias=bias)
        x = torch.randn(2, channels[0], *size, dtype=torch.float64)
    described = export.network(layer, (channels[0], *size))
    layer, x = layer.double(), x.requires_grad_()
    y = layer(x)
    with seeded(1):
        g = torch.randn_like(y)
    code = """
        const net = L.engine.network(layers), values = net.run(x, 2), at = net.run(x.slice(0, x.length / 2), 1);
        return { y: values.at(-1), gx: net.backward(values, Float64Array.from(g), 2), t: net.tangent(at, x, 2) };
    """
    found = node(code, layers=described, x=x.flatten().tolist(), g=g.flatten().tolist())
    close(found["y"], y), close(found["gx"], torch.autograd.grad(y, x, g)[0])
    close(found["t"], y - layer(torch.zeros_like(x)))  # linear in x but for the bias


@pytest.mark.parametrize("bits", [32, 16, 12, 10, 8, 7, 6, 5, 4])
def test_stored_weights_arrive_as_the_exporter_says(bits):
    with seeded(0):
        values = torch.randn(5, 7) * torch.tensor([1, 10, 0.01, 0, 3])[:, None]
    found = node("return L.engine.array(stored);", stored=arrays.array(values, bits))
    kept = arrays.rounded(values, bits)
    close(found, kept, 1e-6)
    if bits < 8:  # the largest may be cut off; on the whole each bit fewer doubles the error
        assert (kept - values).norm() < 0.5 * 2.0 ** (3 - bits) * values.norm()
    else:
        off = (kept - values).abs().amax(1) / values.abs().amax(1).clamp_min(1e-9)
        assert off.max() < (2.0 ** (1 - bits) if bits != 16 else 2.0**-11) * 1.01


def test_damaged_weights_are_noticed():
    stored = arrays.array(torch.randn(4, 4), 8)
    code = "try { L.engine.array(stored); return 'read'; } catch (error) { return error.message; }"
    assert node(code, stored=stored) == "read"
    assert node(code, stored=stored | {"data": stored["data"][:-4]}) == "its weights are damaged"
    nan = arrays.array(torch.zeros(1)) | {"data": "AADAfw=="}  # a NaN in single precision
    assert node(code, stored=nan) == "its weights are damaged"


def test_regret_is_that_of_the_library_with_its_noise():
    with seeded(0):
        model = stirred(VAE(*dcgan((1, 32, 32), 4, width=2, outputs=1), latent_dim=4))
        x = torch.rand(1, 1, 32, 32)
    described, steps, samples = export.model(model, (1, 32, 32)), 25, 5
    model, x = model.double(), x.double()
    with seeded(seed_of(x[0], 3)):
        score = torch.randn(samples, 1, 4, dtype=torch.float64)
    with seeded(4):
        climb = torch.cat([torch.randn(1, 1, 4, dtype=torch.float64) for _ in range(steps)])
    options = {"adapt": "posterior", "steps": steps, "lr": 0.02, "samples": samples, "seed": 3, "progress": False}
    expected = likelihood_regret(model, x, **options)
    code = """
        const m = L.vae.vae(model), at = Float64Array.from(x), before = m.posterior(at);
        const noise = Float64Array.from(score);
        let q;
        for (q of L.vae.climb(m, at, before, Float64Array.from(climb), 0.02));
        return [m.elbo(at, q, noise) - m.elbo(at, before, noise)];
    """
    given = {"x": x.flatten().tolist(), "score": score.flatten().tolist(), "climb": climb.flatten().tolist()}
    close(node(code, model=described, **given), expected)
    assert expected.item() > 0.1


def test_the_likelihood_estimate_tends_to_the_evidence():
    with seeded(0):
        model = VAE(*mlp((1, 3, 3), 2, hidden=(5,)), latent_dim=2)
        x, eps = torch.rand(1, 1, 3, 3).round(), torch.randn(4000, 2)
    code = """
        const m = L.vae.vae(model);
        return L.vae.logMeanExp(m.logWeights(x, m.posterior(x), Float64Array.from(eps)));
    """
    found = node(code, model=export.model(model, (1, 3, 3)), x=x.flatten().tolist(), eps=eps.flatten().tolist())
    with seeded(1):
        assert abs(found - log_evidence(model, x, samples=20_000).item()) < 0.03


def test_a_dot_is_where_the_data_set_has_it_and_turns_are_those_of_affine():
    positions = torch.tensor([[5.0, 9, 30, 33, 50, 47.5]], dtype=torch.float64)
    close(node("return L.scene.dots(p, 16);", p=positions[0].tolist()), 1 - render_three_dots(positions, 16), 1e-12)
    with seeded(0):
        x = torch.rand(1, 1, 7, 9, dtype=torch.float64)
    for degrees in (0.0, 20.0, -55.0, 90.0):
        found = node("return L.scene.turned(x, 7, 9, a);", x=x.flatten().tolist(), a=degrees)
        close(found, affine(x, angle=degrees), 1e-9)


def test_slopes_of_discs_are_their_derivatives():
    code = """
        const [[x, y], other] = [[9.3, 8.1], [17.2, 15.4]], e = 1e-6;
        const moved = (d, s) => L.scene.discs([[x + (d ? 0 : s), y + (d ? s : 0)], other], 4, 24, 3);
        const slopes = L.scene.discSlopes([[x, y], other], 0, 4, 24, 3);
        return [0, 1].map((d) => [slopes[d], moved(d, e).map((v, i) => (v - moved(d, -e)[i]) / 2 / e)]);
    """
    for exact, differences in node(code):
        close(exact, torch.tensor(differences), 1e-5)


def points_in_the_plane():
    with seeded(0):
        return torch.randn(14, 2, dtype=torch.float64), torch.tensor([[0.3, -0.4]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kde(0.5)", lambda x, z: kde_influence(x, z, bandwidth=0.5)),
        ("knn(3)", lambda x, z: knn_influence(x, z, k=3)),
        ("gaussian()", gaussian_influence),
    ],
)
def test_influence_by_leaving_out_is_that_of_the_library(kind, expected):
    x, z = points_in_the_plane()
    found = node(f"return L.densities.influence(L.densities.{kind}, x, z);", x=x.tolist(), z=z[0].tolist())
    close(found["influence"], expected(x, z)[:, 0], 1e-7)


def test_influence_in_a_mixture_is_that_of_em_from_the_same_start():
    x, z = points_in_the_plane()
    code = "const m = L.densities.mixture(2); return { whole: m.whole(x), ...L.densities.influence(m, x, z) };"
    found = node(code, x=x.tolist(), z=z[0].tolist())
    full = [[[a, b], [b, c]] for a, b, c in (m["covariance"] for m in found["whole"])]
    columns = ([m["logShare"] for m in found["whole"]], [m["mean"] for m in found["whole"]], full)
    start = Mixtures(*(torch.tensor([c], dtype=torch.float64) for c in columns))
    weights = 1 - torch.eye(len(x), dtype=torch.float64)
    here = Mixtures(*(c.expand(len(x), *c.shape[1:]) for c in start))
    without = _em(x, weights, here, 1e-6, 1e-12, 20_000)
    expected = start.log_joint(z).logsumexp(-1) - without.log_joint(z).logsumexp(-1)
    assert torch.allclose(torch.tensor(found["influence"], dtype=torch.float64), expected[:, 0], atol=2e-4)


def test_tracin_is_that_of_the_library_with_its_noise(tmp_path):
    with seeded(0):
        x = torch.rand(6, 1, 4, 4)
        model = VAE(*mlp((1, 4, 4), 3, hidden=(5,)), latent_dim=3)
    sgd = {"optimizer": torch.optim.SGD, "lr": 0.05, "checkpoints": tmp_path, "checkpoint_every": 1}
    history = fit(model, elbo, x, epochs=2, progress=False, device="cpu", **sgd)
    samples, states = 4, []
    with seeded(1):
        test = torch.rand(2, 1, 4, 4)
    model.double()
    doubled = [
        {"model": {k: v.double() for k, v in s["model"].items()}, "objective": {}, "lr": s["lr"]}
        for s in map(load_checkpoint, history.checkpoints)
    ]
    expected = tracin(model, elbo, doubled, x.double(), test.double(), samples=samples, seed=7)
    for state, halves in zip(doubled, noise_seeds(7, len(doubled), samples, unbiased=True), strict=True):
        model.load_state_dict(state["model"])
        noise = []
        for seeds in halves:
            draws = []
            for each in seeds:
                with seeded(each):
                    draws.append(torch.randn(1, 1, 3, dtype=torch.float64))
            noise.append(torch.cat(draws).flatten().tolist())
        states.append({"model": export.model(model, (1, 4, 4)), "lr": state["lr"], "noise": noise})
    code = """
        const table = train.map(() => test.map(() => 0));
        for (const { model, lr, noise } of states) {
          const m = L.vae.vae(model), halves = noise.map((n) => Float64Array.from(n));
          const at = (x) => L.tracin.halves(m, Float64Array.from(x), halves);
          const [a, b] = [train.map(at), test.map(at)];
          a.forEach((g, i) => b.forEach((h, j) => { table[i][j] += lr * L.tracin.score(g, h); }));
        }
        return table;
    """
    found = node(code, states=states, train=x.flatten(1).tolist(), test=test.flatten(1).tolist())
    close(found, expected)


def test_what_the_page_does_not_know_is_refused_by_name():
    with pytest.raises(ValueError, match=r"layer: the page does not know GELU.*it knows .*Linear"):
        export.network(nn.Sequential(nn.Linear(2, 2), nn.GELU()), (2,))
    with pytest.raises(ValueError, match="square kernels without groups"):
        export.network(nn.Conv2d(2, 2, (3, 1)), (2, 5, 5))
    model = VAE(*mlp((1, 2, 2), 2, outputs=256), latent_dim=2, likelihood=categorical256)
    with pytest.raises(ValueError, match=r"likelihoods bernoulli and gaussian.*not Categorical256"):
        export.model(model, (1, 2, 2))
    with pytest.raises(ValueError, match=r"bits: expected one of 32, 16, .* got 3"):
        arrays.array(torch.zeros(2, 2), 3)
    with pytest.raises(ValueError, match="values: expected finite numbers"):
        arrays.array(torch.tensor([1.0, float("nan")]))


def test_the_error_that_a_caption_states_is_measured():
    with seeded(0):
        model, x = VAE(*mlp((1, 4, 4), 2, hidden=(8,)), latent_dim=2), torch.rand(5, 1, 4, 4)
    lost = {bits: export.nats_lost(model, x, bits) for bits in (32, 12, 8, 4)}
    assert lost[32] == 0 and 0 < lost[12] < lost[8] < lost[4]
    stored = export.as_stored(model, 8)
    linear = [layer for layer in stored.decoder.modules() if isinstance(layer, nn.Linear)]
    for net, layer in zip(export.network(model.decoder, (2,), 8)[::2], linear, strict=True):
        close(node("return L.engine.array(w);", w=net["weight"]), layer.weight, 1e-6)


def test_an_export_leaves_a_frozen_layer_in_its_mode():
    model = VAE(*mlp((1, 4, 4), 2, hidden=(3,)), latent_dim=2).train()
    model.decoder.eval()
    before = [module.training for module in model.modules()]
    export.nats_lost(model, torch.rand(2, 1, 4, 4), 8, samples=1)
    export.model(model, (1, 4, 4))
    assert [module.training for module in model.modules()] == before
