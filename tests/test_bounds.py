import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from tests.helpers import linear_gaussian
from vaekit import elbo, importance_bound, log_evidence, log_weight
from vaekit.bounds import log_mean_exp
from vaekit.training.seeding import seeded

MANY = 20_000


def exact_elbo(exact, beta=1.0):
    """E_q log p(x|z) - beta KL(q || p) of a linear-Gaussian model, from its matrices."""
    q_z = exact.model.posterior(exact.x)
    mean, variance = q_z.mean, q_z.variance  # [B, D]
    residual = exact.x.flatten(1) - exact.bias - mean @ exact.weight.T
    spread = (variance * exact.weight.square().sum(0)).sum(-1)  # tr(W' W diag(variance))
    pixels = residual.shape[1]
    reconstruction = -0.5 * (residual.square().sum(-1) + spread) / exact.scale**2
    reconstruction -= 0.5 * pixels * math.log(2 * math.pi * exact.scale**2)
    kl = 0.5 * (variance + mean**2 - 1 - variance.log()).sum(-1)
    return (reconstruction - beta * kl).detach()


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_elbo_has_its_closed_form_as_mean(beta):
    exact = linear_gaussian()
    with seeded(0), torch.no_grad():
        draws = torch.stack([elbo(exact.model, exact.x, beta=beta) for _ in range(1500)])
        many = elbo(exact.model, exact.x, beta=beta, samples=1500)
    error = draws.std(0) / 1500**0.5
    assert ((draws.mean(0) - exact_elbo(exact, beta)).abs() < 4 * error).all()
    assert ((many - exact_elbo(exact, beta)).abs() < 4 * error).all()


def test_elbo_is_below_the_evidence_by_the_divergence_from_the_exact_posterior():
    exact = linear_gaussian()
    posterior = MultivariateNormal(exact.posterior_mean(), precision_matrix=exact.precision)
    q_z = exact.model.posterior(exact.x)
    gap = kl_divergence(MultivariateNormal(q_z.mean, q_z.variance.diag_embed()), posterior)
    torch.testing.assert_close(exact_elbo(exact), (exact.log_evidence() - gap).detach())
    with seeded(0), torch.no_grad():
        value = elbo(exact.model, exact.x, samples=MANY)
    assert (gap > 0.1).all()
    torch.testing.assert_close(value, (exact.log_evidence() - gap).detach(), atol=0.1, rtol=0)


def test_at_the_exact_posterior_every_weight_is_the_evidence():
    exact = linear_gaussian(exact=True, orthogonal=True)
    with seeded(0), torch.no_grad():
        weights = log_weight(exact.model, exact.x, samples=7)
        bound = importance_bound(exact.model, exact.x, samples=3)
        evidence = log_evidence(exact.model, exact.x, samples=3)
        value = elbo(exact.model, exact.x, samples=MANY)
    truth = exact.log_evidence()
    assert weights.shape == (7, 5)
    torch.testing.assert_close(weights, truth.expand(7, 5))
    torch.testing.assert_close(bound, truth)
    torch.testing.assert_close(evidence, truth)
    torch.testing.assert_close(log_evidence(exact.model, exact.x, samples=1), truth)
    torch.testing.assert_close(value, truth, atol=0.05, rtol=0)


def test_weights_are_unbiased():
    exact = linear_gaussian()
    with seeded(0), torch.no_grad():
        ratio = (log_weight(exact.model, exact.x, samples=MANY) - exact.log_evidence()).exp()  # [S, B], mean 1
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / MANY**0.5).all()
    assert (ratio.std(0) / MANY**0.5 < 0.02).all()


def test_importance_bound_rises_with_samples_to_the_evidence():
    exact = linear_gaussian()
    with seeded(0), torch.no_grad():
        weights = log_weight(exact.model, exact.x, samples=MANY)  # [S, B]
        bounds = []
        for samples in (1, 2, 5, 20, 100):
            groups = weights.unflatten(0, (samples, -1))
            bounds.append(log_mean_exp(groups).mean())
        for samples, expected in zip((1, 5), (bounds[0], bounds[2]), strict=True):
            direct = torch.stack([importance_bound(exact.model, exact.x, samples=samples) for _ in range(1000)])
            error = direct.mean(1).std() / 1000**0.5
            assert (direct.mean() - expected).abs() < 5 * error
    assert all(low < high for low, high in pairwise(bounds))
    assert bounds[0].item() == pytest.approx(exact_elbo(exact).mean().item(), abs=0.05)
    assert bounds[-1].item() == pytest.approx(exact.log_evidence().mean().item(), abs=0.02)


def test_log_mean_exp_does_not_overflow():
    values = torch.tensor([[1000.0, -1000.0], [1000.0 + math.log(3), -1000.0]], dtype=torch.float64)
    torch.testing.assert_close(log_mean_exp(values), torch.tensor([1000 + math.log(2), -1000], dtype=torch.float64))


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_log_evidence_takes_every_sample_of_every_image_in_bounded_pieces(chunk):
    exact = linear_gaussian(batch=5)
    taken = []

    def numbered(model, x, *, samples):
        """The image's first pixel plus the logarithms of 1, 2, 3, ...: a sum that knows what is missing."""
        assert samples * len(x) <= chunk
        first = sum(s for s, image in taken if torch.equal(image, x[0]))
        taken.append((samples, x[0]))
        steps = torch.arange(first + 1, first + samples + 1, dtype=x.dtype).log()
        return x[:, 0, 0, 0] + steps[:, None]

    value = log_evidence(exact.model, exact.x, samples=20, log_weight=numbered, chunk=chunk)
    torch.testing.assert_close(value, exact.x[:, 0, 0, 0] + math.log(21 / 2))


def test_log_evidence_of_the_model():
    exact = linear_gaussian()
    with seeded(0):
        value = log_evidence(exact.model, exact.x, samples=MANY, chunk=1000)
    assert not value.requires_grad
    torch.testing.assert_close(value, exact.log_evidence(), atol=0.05, rtol=0)


def test_log_evidence_leaves_the_mode_alone_even_after_an_error():
    exact = linear_gaussian()
    modes = []

    def failing(model, x, *, samples):
        modes.append(model.training)
        raise RuntimeError("out of memory")

    for training in (True, False):
        exact.model.train(training)
        with pytest.raises(RuntimeError, match="out of memory"):
            log_evidence(exact.model, exact.x, log_weight=failing)
        assert exact.model.training is training
    assert modes == [False, False]


def test_bounds_have_the_gradients_of_their_closed_forms():
    exact = linear_gaussian()
    parameters = list(exact.model.parameters())
    with seeded(0):
        ours = torch.autograd.grad(elbo(exact.model, exact.x, samples=MANY).sum(), parameters)
    encoder, decoder = exact.model.encoder, exact.model.decoder
    mean, log_std = exact.model.encoder(exact.x).chunk(2, -1)
    residual = exact.x.flatten(1) - decoder.bias - mean @ decoder.weight.T
    spread = ((2 * log_std).exp() * decoder.weight.square().sum(0)).sum(-1)
    closed = -0.5 * (residual.square().sum(-1) + spread) / exact.scale**2
    closed = closed - 0.5 * ((2 * log_std).exp() + mean**2 - 1 - 2 * log_std).sum(-1)
    truth = torch.autograd.grad(closed.sum(), parameters)
    assert encoder.matrix.grad is None
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.3)


@pytest.mark.parametrize("bound", [elbo, importance_bound])
def test_gradients_against_central_differences_at_the_same_noise(bound):
    exact = linear_gaussian(batch=3)

    def value():
        with seeded(0):
            return bound(exact.model, exact.x, samples=4).sum()

    parameters = list(exact.model.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(value(), parameters), strict=True):
        for index in list(np.ndindex(*parameter.shape))[:3]:
            with torch.no_grad():
                parameter[index] += 1e-5
                above = value()
                parameter[index] -= 2e-5
                below = value()
                parameter[index] += 1e-5
            assert gradient[index].item() == pytest.approx(((above - below) / 2e-5).item(), rel=1e-5, abs=1e-6)


def test_bad_input():
    exact = linear_gaussian()
    for bound in (elbo, importance_bound, log_weight, log_evidence):
        with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
            bound(exact.model, exact.x, samples=0)
        with pytest.raises(ValueError, match="x: found NaN or infinite pixels"):
            bound(exact.model, exact.x * math.nan, samples=2)
        with pytest.raises(ValueError, match="x: expected a non-empty batch"):
            bound(exact.model, exact.x[:0], samples=2)
    for beta in (-0.1, math.nan):
        with pytest.raises(ValueError, match="beta: expected at least 0"):
            elbo(exact.model, exact.x, beta=beta)
    with pytest.raises(ValueError, match="chunk: expected at least 1, got 0"):
        log_evidence(exact.model, exact.x, chunk=0)


def test_one_draw_a_thousand_for_the_evidence_and_no_weight_unless_told():
    exact = linear_gaussian(batch=3)
    for default, told in (
        (lambda: elbo(exact.model, exact.x), lambda: elbo(exact.model, exact.x, beta=1.0, samples=1)),
        (
            lambda: log_evidence(exact.model, exact.x),
            lambda: log_evidence(exact.model, exact.x, samples=1000, log_weight=log_weight, chunk=10_000),
        ),
    ):
        with seeded(1):
            expected = told()
        with seeded(1):
            assert torch.equal(default(), expected)
