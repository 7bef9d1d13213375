"""Planar maps against autograd's determinant; the bound against the exact evidence."""

import math

import pytest
import torch

from tests.helpers import linear_gaussian
from vaekit import elbo, log_weight
from vaekit.hamiltonian.planar import PlanarBound, planar
from vaekit.training.seeding import seeded


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_log_det_is_the_jacobians(scale):
    with seeded(1):
        for _ in range(20):
            z, u, w = torch.randn(3, 4, dtype=torch.float64) * scale
            b = torch.randn((), dtype=torch.float64)
            _, log_det = planar(z, u, w, b)
            jacobian = torch.autograd.functional.jacobian(lambda z: planar(z, u, w, b)[0], z)  # noqa: B023
            sign, expected = torch.linalg.slogdet(jacobian)
            assert sign == 1  # invertible, even where w'u < -1
            torch.testing.assert_close(log_det, expected, rtol=1e-8, atol=1e-8)


def test_planar_is_injective_along_its_direction():
    w = torch.tensor([2.0, 0.0], dtype=torch.float64)
    u = -5 * w  # far beyond w'u = -1, where the plain map folds
    line = torch.linspace(-3, 3, 1001, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0], dtype=torch.float64)
    moved, _ = planar(line, u, w, torch.zeros((), dtype=torch.float64))
    assert (moved[1:, 0] > moved[:-1, 0]).all()


def bent(steps):
    """A bound whose maps are not the identity, and differ from image to image."""
    bound = PlanarBound(2, steps=steps).double()
    with torch.no_grad():
        bound.parameters_of.bias.add_(0.2 * torch.randn_like(bound.parameters_of.bias))
        bound.parameters_of.weight.normal_(std=0.05)
    return bound


@pytest.mark.parametrize("steps", [1, 4])
def test_weights_are_unbiased(steps):
    truth = linear_gaussian(batch=3)
    with seeded(2), torch.no_grad():
        ratio = (bent(steps).log_weight(truth.model, truth.x, samples=100_000) - truth.log_evidence()).exp()
    error = ratio.std(0) / math.sqrt(100_000)
    assert (error < 0.02).all()
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all(), (ratio.mean(0), error)


def test_it_starts_as_the_elbo():
    truth = linear_gaussian()
    bound = PlanarBound(2, steps=3).double()
    with seeded(3), torch.no_grad():
        ours = bound.log_weight(truth.model, truth.x, samples=100)
    with seeded(3), torch.no_grad():
        expected = log_weight(truth.model, truth.x, samples=100)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)  # its parameters were made in float32


def test_training_tightens_the_bound_towards_the_evidence():
    truth = linear_gaussian(batch=5)
    truth.model.requires_grad_(False)
    with seeded(4):
        bound = PlanarBound(2, steps=4).double()
        optimiser = torch.optim.Adam(bound.parameters(), 0.02)
        with torch.no_grad():
            plain = elbo(truth.model, truth.x, samples=5000).mean()
        for _ in range(300):
            optimiser.zero_grad()
            (-bound(truth.model, truth.x, samples=32).mean()).backward()
            optimiser.step()
        with torch.no_grad():
            bent = bound(truth.model, truth.x, samples=5000).mean()
    assert plain + 0.1 < bent < truth.log_evidence().mean()


def test_draws_have_the_density_that_is_claimed():
    """E over the bent posterior q of p(z) / q(z) is 1 for any density p."""
    truth = linear_gaussian(batch=2)
    with seeded(5), torch.no_grad():
        z, log_q_z = bent(2)._draw(truth.model, truth.x, 100_000)
        p = torch.distributions.Normal(z.mean(0), z.std(0) / 2)
        ratio = (p.log_prob(z).sum(-1) - log_q_z).exp()
    error = ratio.std(0) / math.sqrt(100_000)
    assert (error < 0.02).all()
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all(), (ratio.mean(0), error)


def test_bad_arguments_are_told():
    truth = linear_gaussian()
    with pytest.raises(ValueError, match="latent_dim: expected at least 1, got 0"):
        PlanarBound(0, steps=1)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        PlanarBound(2, steps=0)
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        PlanarBound(2, steps=1).double()(truth.model, truth.x, samples=0)
    with pytest.raises(ValueError, match="latent_dim 3 like the bound's, got 2"):
        PlanarBound(3, steps=1).double()(truth.model, truth.x)


def test_the_maps_start_in_directions_of_unit_length():
    with seeded(6):
        _, w, b = PlanarBound(50, steps=200).parameters_of.bias.detach().view(200, 101).split([50, 50, 1], -1)
    assert w.square().sum(-1).mean().item() == pytest.approx(1, rel=0.1) and not b.any()
