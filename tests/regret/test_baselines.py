import io
import math

import pytest
import torch
from PIL import Image

from tests.helpers import linear_gaussian
from vaekit import VAE, elbo, fit, likelihood_regret, mlp
from vaekit.datasets import load
from vaekit.regret.baselines import code_length, input_complexity, likelihood_ratio, mutated, negative_log_likelihood
from vaekit.training.seeding import seeded


def auroc_by_pairs(inside, outside):
    return ((outside[:, None] > inside).double() + 0.5 * (outside[:, None] == inside).double()).mean().item()


def test_the_negative_log_likelihood_is_that_of_a_linear_gaussian_model():
    truth = linear_gaussian(batch=4)
    with seeded(0):
        scores = negative_log_likelihood(truth.model, truth.x, samples=20_000)
    torch.testing.assert_close(scores, -truth.log_evidence(), rtol=0, atol=0.03)


def test_the_likelihood_ratio_is_that_of_two_linear_gaussian_models():
    truth, other = linear_gaussian(batch=4), linear_gaussian(seed=1)
    expected = other.evidence.log_prob(truth.x.flatten(1)) - truth.log_evidence()
    assert expected.mean() < -1  # drawn from `truth`: in distribution, so low
    other.model.encoder.log_std.data.add_(1)  # far from where it was fitted: cover more
    with seeded(0):
        scores = likelihood_ratio(truth.model, other.model, truth.x, samples=100_000)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.2)


@pytest.mark.parametrize("codec", ["png", "jpeg2000"])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_lossless_code_beats_the_entropy_of_noise_and_a_flat_image_costs_next_to_nothing(codec, channels):
    noise = torch.randint(256, (3, channels, 28, 28), generator=torch.Generator().manual_seed(0)) / 255
    entropy = channels * 28 * 28 * math.log(256)
    lengths = code_length(noise, codec=codec)
    assert lengths.shape == (3,)
    assert (lengths > entropy).all()
    assert (lengths < (1.2 if codec == "png" else 1.5) * entropy).all()
    assert code_length(torch.full((1, channels, 28, 28), 0.3), codec=codec).item() < 0.3 * entropy


@pytest.mark.parametrize("codec", ["png", "jpeg2000"])
def test_input_complexity_subtracts_nats_from_nats(codec):
    with seeded(0):
        model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
    x = torch.rand(3, 1, 8, 8)
    with seeded(1):
        nll = negative_log_likelihood(model, x, samples=10)
    with seeded(1):
        scores = input_complexity(model, x, codec=codec, samples=10)
    torch.testing.assert_close(scores, nll - code_length(x, codec=codec))
    assert (nll - scores > 64 * math.log(256)).all()  # 64 random bytes, in nats


def test_mutated_replaces_the_asked_share_of_pixels_by_uniform_levels():
    seen = []

    def bound(model, x, **options):
        seen.append((x, options))
        return x.sum((1, 2, 3))

    x = torch.full((50, 1, 32, 32), 0.1234)
    with seeded(0):
        mutated(bound, rate=0.2)(None, x, beta=2.0)
        mutated(bound, rate=0.0)(None, x)
        mutated(bound, rate=1.0)(None, x)
    (some, options), (none, _), (every, _) = seen
    assert options == {"beta": 2.0}
    assert (some != x).double().mean().item() == pytest.approx(0.2, abs=0.01)  # none of the 256 levels is 0.1234
    assert torch.equal(none, x)
    levels = (every * 255).round()
    torch.testing.assert_close(every * 255, levels)
    counts = torch.bincount(levels.long().flatten(), minlength=256)
    assert len(counts) == 256
    assert counts.min() > 100  # 200 expected, with a standard deviation of 14
    assert counts.max() < 300


def test_every_score_is_higher_for_what_is_far_out_of_distribution():
    digits = load("digits").images
    with seeded(0):
        model, background = (VAE(*mlp((1, 8, 8), latent_dim=8, hidden=(128,)), latent_dim=8) for _ in range(2))
    fit(model, elbo, digits, epochs=10, device="cpu", progress=False)
    fit(background, mutated(elbo, rate=0.3), digits, epochs=10, device="cpu", progress=False)
    inside, outside = load("digits", "test").images[:25], 1 - load("digits", "test").images[25:50]
    regret = {"steps": 30, "lr": 1e-2, "samples": 8, "progress": False}
    with seeded(0):
        for score in (
            lambda x: negative_log_likelihood(model, x, samples=50),
            lambda x: likelihood_ratio(model, background, x, samples=50),
            lambda x: input_complexity(model, x, samples=50),
            lambda x: likelihood_regret(model, x, **regret),
            lambda x: likelihood_regret(model, x, adapt="posterior", **regret),
        ):
            assert auroc_by_pairs(score(inside), score(outside)) > 0.85


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: input_complexity(m, x, codec="gif"), "codec: expected one of png, jpeg2000, got 'gif'"),
        (lambda m, x: code_length(x[:, 0]), r"x: expected images \[B, 1 or 3, H, W\]"),
        (lambda m, x: code_length(x + 1), r"x: expected pixels in \[0, 1\]"),
        (lambda m, x: negative_log_likelihood(m, x * torch.nan), "x: found NaN"),
        (lambda m, x: negative_log_likelihood(m, x, samples=0), "samples: expected at least 1, got 0"),
        (lambda m, x: mutated(rate=1.5), "rate: expected a probability from 0 to 1, got 1.5"),
    ],
)
def test_bad_input_is_refused(call, message):
    model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
    with pytest.raises(ValueError, match=message):
        call(model, torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("codec, options", [("png", {"optimize": True}), ("jpeg2000", {"irreversible": False})])
def test_the_length_is_that_of_the_file_of_all_256_levels(codec, options):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    colours = torch.cat([levels, levels.flip(-1), levels.mT], 1)
    tiled = levels.repeat(1, 1, 4, 4)  # where the coder has something to search for
    for image in (levels, colours, tiled):
        file = io.BytesIO()
        pixels = image[0, 0] if len(image[0]) == 1 else image[0].permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(file, format=codec.upper(), **options)
        expected = len(file.getvalue()) * 8 * math.log(2)
        around = 0.3 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).sign()
        x = ((image.double() + around) / 255).clamp(0, 1)  # rounded, not cut off
        assert code_length(x, codec=codec).tolist() == [expected]


def test_two_channels_are_no_image():
    for shape in ((2, 2, 8, 8), (2, 4, 8, 8), (2, 1, 8, 8, 8)):
        with pytest.raises(ValueError, match=r"x: expected images \[B, 1 or 3, H, W\]"):
            code_length(torch.rand(shape))


def test_a_thousand_samples_unless_told_and_as_many_as_told(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vaekit.regret.baselines.log_evidence", lambda model, x, **options: asked.append(options) or torch.zeros(len(x))
    )
    model, x = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2), torch.rand(2, 1, 8, 8)
    for score in (
        negative_log_likelihood, input_complexity, lambda *args, **options: likelihood_ratio(model, *args, **options)
    ):  # fmt: skip
        score(model, x)
        assert all((options["samples"], options["chunk"]) == (1000, 10_000) for options in asked)
        asked.clear()
        score(model, x, samples=3, chunk=7)
        assert all((options["samples"], options["chunk"]) == (3, 7) for options in asked) and asked
        asked.clear()


def test_mutated_replaces_a_fifth_unless_told():
    x = torch.full((20, 1, 32, 32), 0.1234)
    with seeded(0):
        shares = mutated(lambda model, x: (x != 0.1234).double().mean((1, 2, 3)))(None, x)
    assert shares.mean().item() == pytest.approx(0.2, abs=0.01)


def test_a_rate_of_zero_replaces_no_pixel_whatever_is_drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    x = torch.full((1, 1, 2, 2), 0.1234)
    assert mutated(lambda model, x: (x == 0.1234).flatten(1).all(1), rate=0.0)(None, x).all()
