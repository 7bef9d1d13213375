import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vaekit import bernoulli, categorical256, gaussian
from vaekit.likelihoods import bits_per_dim
from vaekit.training.seeding import seeded

GREY = torch.arange(256, dtype=torch.float64) / 255


def logits(*shape, spread=3.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_bernoulli_against_scipy_and_sums_to_one():
    p_x = bernoulli(logits(20))
    p = torch.sigmoid(logits(20))
    for pixel in (0.0, 1.0):
        value = torch.full((20,), pixel, dtype=torch.float64)
        np.testing.assert_allclose(p_x.log_prob(value), stats.bernoulli.logpmf(int(pixel), p), rtol=1e-9)
    total = p_x.log_prob(torch.zeros(20).double()).exp() + p_x.log_prob(torch.ones(20).double()).exp()
    torch.testing.assert_close(total, torch.ones(20).double())
    torch.testing.assert_close(p_x.mean, p)


def test_grey_levels_give_the_expectation_over_binarised_pixels():
    p_x, grey = bernoulli(logits(20)), torch.linspace(0, 1, 20).double()
    zero, one = p_x.log_prob(torch.zeros(20).double()), p_x.log_prob(torch.ones(20).double())
    torch.testing.assert_close(p_x.log_prob(grey), grey * one + (1 - grey) * zero)


@given(st.floats(-1e4, 1e4), st.sampled_from([0.0, 1.0, 0.3]))
@settings(max_examples=50, deadline=None)
def test_bernoulli_stays_finite_for_extreme_logits(logit, pixel):
    logit = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    value = bernoulli(logit).log_prob(torch.tensor(pixel, dtype=torch.float64))
    value.backward()
    assert -2e4 < value.item() <= 0
    assert logit.grad.item() == pytest.approx(pixel - torch.sigmoid(logit).item(), abs=1e-9)


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_gaussian_integrates_to_one_and_has_its_mean_and_variance(scale):
    mean = torch.tensor([-1.0, 0.3], dtype=torch.float64)
    x = torch.linspace(-12 * scale, 12 * scale, 20_001, dtype=torch.float64)[:, None] + mean
    density = gaussian(scale)(mean).log_prob(x).exp()
    torch.testing.assert_close(torch.trapezoid(density, x, dim=0), torch.ones(2).double())
    torch.testing.assert_close(torch.trapezoid(density * x, x, dim=0), mean)
    variance = torch.trapezoid(density * (x - mean) ** 2, x, dim=0)
    torch.testing.assert_close(variance, torch.full((2,), scale**2, dtype=torch.float64))
    np.testing.assert_allclose(gaussian(scale)(mean).log_prob(x), stats.norm.logpdf(x, mean, scale), rtol=1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_gaussian_refuses_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match="scale: expected a positive finite number"):
        gaussian(scale)


def test_categorical_sums_to_one_and_picks_the_level_of_the_pixel():
    raw = logits(4, 256)
    p_x = categorical256(raw)
    assert p_x.batch_shape == (4,)
    log_p = p_x.log_prob(GREY[:, None])  # [256, 4]
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(4).double())
    torch.testing.assert_close(log_p, torch.distributions.Categorical(logits=raw).log_prob(torch.arange(256)[:, None]))
    torch.testing.assert_close(p_x.mean, (log_p.exp() * GREY[:, None]).sum(0))


def test_categorical_in_single_precision_finds_every_level():
    pixels = torch.arange(256, dtype=torch.uint8).float() / 255
    p_x = categorical256(torch.eye(256) * 50)  # pixel k has level k for certain
    for shift in (0, 0.4 / 255, -0.4 / 255):  # to the nearest level
        assert (p_x.log_prob(pixels + shift) > -1e-3).all()
    torch.testing.assert_close(p_x.mean, pixels)


def test_categorical_shapes_broadcast_over_samples():
    p_x = categorical256(logits(6, 5, 1, 2, 3, 256))
    assert p_x.log_prob(torch.zeros(5, 1, 2, 3).double()).shape == (6, 5, 1, 2, 3)
    with pytest.raises(ValueError, match=r"logits: expected a last dimension of 256, got shape \(3, 255\)"):
        categorical256(torch.zeros(3, 255))


def test_samples_have_the_probabilities_of_the_model():
    raw = torch.full((2, 256), -30.0, dtype=torch.float64)
    raw[0, [0, 255]] = torch.tensor([0.0, math.log(3)]).double()
    raw[1, 51] = 0
    with seeded(0):
        x = categorical256(raw).sample((4000,))
        coins = bernoulli(torch.tensor([0.0, math.log(3)])).sample((4000,))
    assert x.shape == (4000, 2) and set(x[:, 0].tolist()) == {0.0, 1.0} and (x[:, 1] == 0.2).all()
    assert x[:, 0].mean().item() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(coins.mean(0), torch.tensor([0.5, 0.75]), atol=0.03, rtol=0)


def test_bits_per_dim():
    nats = torch.tensor([12 * math.log(2)], dtype=torch.float64)  # 12 bits over 6 pixels
    assert bits_per_dim(nats, (1, 2, 3)).item() == pytest.approx(2.0)
    uniform = -categorical256(torch.zeros(1, 2, 3, 256).double()).log_prob(torch.zeros(1, 2, 3).double()).sum()
    assert bits_per_dim(uniform, (1, 2, 3)).item() == pytest.approx(8.0)


def test_the_order_of_levels_in_memory_does_not_matter():
    """Logits as a convolution leaves them, `[N, 256, H, W]` in memory, and as `[N, H, W, 256]`; also under vmap."""
    g = torch.Generator().manual_seed(0)
    channels = torch.randn(3, 1, 256, 4, 5, generator=g, dtype=torch.float64)
    x = torch.randint(256, (3, 1, 4, 5), generator=g).double() / 255
    expected = F.log_softmax(channels.movedim(2, -1).contiguous(), -1)
    expected = expected.gather(-1, (x * 255).round().long()[..., None]).squeeze(-1)
    for logits in (channels.movedim(2, -1), channels.movedim(2, -1).contiguous()):
        torch.testing.assert_close(categorical256(logits).log_prob(x), expected)
        each = torch.func.vmap(lambda one, pixels: categorical256(one).log_prob(pixels))(logits, x)
        torch.testing.assert_close(each, expected)
    assert categorical256(channels.movedim(2, -1)).log_probs.movedim(-1, -3).is_contiguous()  # no copy was made
