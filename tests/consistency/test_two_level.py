import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from tests.helpers import Decoder
from vaekit import (
    VAE,
    Consistency,
    FactorVAE,
    HamiltonianBound,
    JacobianL1,
    PlanarBound,
    annealed_capacity,
    beta_tcvae,
    dip_vae,
    elbo,
    fit,
    gaussian,
    importance_bound,
    likelihood_regret,
    log_evidence,
    log_weight,
    mlp,
    tracin,
)
from vaekit.consistency.objective import posterior_divergence
from vaekit.consistency.two_level import TwoLevelVAE, two_level_mlp
from vaekit.metrics import active_units, mutual_information
from vaekit.model import DiagonalNormal
from vaekit.training.seeding import seeded


def vector(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Affine(nn.Module):
    """v [..., K] -> M v + c."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.matrix, self.offset = nn.Parameter(matrix), nn.Parameter(offset)

    def forward(self, v: Tensor) -> Tensor:
        return v @ self.matrix.T + self.offset


class Exact(NamedTuple):
    """Two levels of one number each, all linear and Gaussian, with the exact posterior as encoder."""

    model: TwoLevelVAE
    x: Tensor  # [B, 1, 1, P]
    evidence: MultivariateNormal
    posterior: MultivariateNormal  # of (z_2, z_1), batch [B]


def exact_model(batch=4, pixels=3) -> Exact:
    g = torch.Generator().manual_seed(0)
    kind = {"generator": g, "dtype": torch.float64}
    # p(z_2) = N(0, 1), p(z_1 | z_2) = N(slope z_2 + shift, s_1^2), p(x | z) = N(W z + b, s^2)
    slope, shift, s_1, s = 1.3, -0.4, 0.8, 0.6
    weight, bias = torch.randn(pixels, 2, **kind), torch.randn(pixels, **kind)
    mean, covariance = vector(0.0, shift), vector([1.0, slope], [slope, slope**2 + s_1**2])
    x = torch.randn(batch, pixels, **kind)
    precision = covariance.inverse() + weight.T @ weight / s**2
    posterior_covariance = precision.inverse()
    gain = posterior_covariance @ weight.T / s**2  # [2, P]: posterior mean = offset + gain x
    offset = posterior_covariance @ (covariance.inverse() @ mean - weight.T @ bias / s**2)
    # by conditioning: z_1 | z_2, x = N(m_1 + C_12 / C_22 (z_2 - m_2), 1 / precision_11)
    (c_2, c_21), _ = posterior_covariance.tolist()
    pull, lower_std = c_21 / c_2, precision[1, 1].item() ** -0.5
    upper = torch.cat([gain[:1], torch.zeros(1, pixels)]), vector(offset[0], math.log(c_2) / 2)
    # the lower head's output is relative to the prior: (mean - slope z_2 - shift) / s_1 and log(std / s_1)
    row = torch.cat([gain[1] - pull * gain[0], vector(pull - slope)]) / s_1
    lower = torch.stack([row, torch.zeros_like(row)])
    start = vector((offset[1] - pull * offset[0] - shift) / s_1, math.log(lower_std / s_1))
    prior = vector([slope], [0.0]), vector(shift, math.log(s_1))
    model = TwoLevelVAE(
        nn.Flatten(), Decoder(weight, bias), upper_head=Affine(*upper), lower_head=Affine(lower, start),
        prior_head=Affine(*prior), latent_dims=(1, 1), likelihood=gaussian(s),
    ).double()  # fmt: skip
    evidence = MultivariateNormal(
        weight @ mean + bias, weight @ covariance @ weight.T + s**2 * torch.eye(pixels, dtype=torch.float64)
    )
    posterior = MultivariateNormal(x @ gain.T + offset, posterior_covariance)
    return Exact(model, x[:, None, None, :], evidence, posterior)


def test_with_the_exact_posterior_every_weight_is_the_evidence():
    model, x, evidence, _ = exact_model()
    weights = log_weight(model, x, samples=50)
    torch.testing.assert_close(weights, evidence.log_prob(x.flatten(1)).expand(50, -1))
    torch.testing.assert_close(importance_bound(model, x, samples=3), evidence.log_prob(x.flatten(1)))


def test_densities_and_draws_are_those_of_the_joint_normal():
    model, x, _, posterior = exact_model()
    q_z = model.posterior(x)
    z = torch.randn(7, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(q_z.log_prob(z), posterior.log_prob(z))
    torch.testing.assert_close(q_z.mean, posterior.mean)
    with seeded(0):
        draws = q_z.rsample((40_000,))
    assert draws.shape == (40_000, 4, 2)
    torch.testing.assert_close(draws.mean(0), posterior.mean, atol=0.02, rtol=0)
    for b in range(4):
        torch.testing.assert_close(draws[:, b].T.cov(), posterior.covariance_matrix[b], atol=0.02, rtol=0)


def test_the_batch_can_be_cut_and_broadcast():
    model, x, _, posterior = exact_model()
    q_z = model.posterior(x)
    z = torch.randn(5, 1, 2, dtype=torch.float64)  # each of five latents under each of four posteriors
    torch.testing.assert_close(q_z.log_prob(z), posterior.log_prob(z))
    torch.testing.assert_close(q_z[1:3].log_prob(z), posterior.log_prob(z)[:, 1:3])
    assert q_z[1:3].batch_shape == (2,) and q_z[1:3].rsample((6,)).shape == (6, 2, 2)


def test_the_levels_divergences_sum_to_that_of_the_joint_posteriors():
    model, x, _, posterior = exact_model()
    delta = vector(0.5, -1.0, 0.2)
    # linear and Gaussian: the lower level's divergence is the same at every z_2, so that one draw is exact
    moved = model.posterior(x + delta)
    joint = MultivariateNormal(moved.mean, posterior.covariance_matrix)
    torch.testing.assert_close(posterior_divergence(model, x, x + delta), kl_divergence(joint, posterior))
    torch.testing.assert_close(posterior_divergence(model, x, x), torch.zeros(4, dtype=torch.float64))


def test_the_divergence_from_the_prior_is_right_on_average():
    model, x, _, posterior = exact_model()
    prior = MultivariateNormal(model.prior.mean, vector([1.0, 1.3], [1.3, 1.3**2 + 0.64]))
    with torch.no_grad(), seeded(0):
        draws = torch.stack([kl_divergence(model.posterior(x), model.prior) for _ in range(4000)])
        bounds = torch.stack([elbo(model, x, samples=10) for _ in range(2000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - kl_divergence(posterior, prior)).abs() < 4 * error).all() and (error < 0.02).all()
    # the posterior is exact: the ELBO is the evidence
    error, exact = bounds.std(0) / len(bounds) ** 0.5, log_evidence(model, x, samples=1)
    assert ((bounds.mean(0) - exact).abs() < 4 * error).all()


def test_a_lower_head_of_zeros_is_the_prior():
    with seeded(0):
        model = two_level_mlp((1, 4, 4), (2, 3), hidden=8).double()
    for p in model.lower_head.parameters():
        nn.init.zeros_(p)
    x = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    q_z, p_z = model.posterior(x), model.prior
    z_2 = torch.randn(5, 2, dtype=torch.float64)
    q, p = q_z.lower(z_2, q_z.context), p_z.lower(z_2, p_z.context)
    torch.testing.assert_close(q.mean, p.mean)
    torch.testing.assert_close(q.variance, p.variance)
    torch.testing.assert_close(kl_divergence(q_z, p_z), kl_divergence(q_z.upper, p_z.upper))


def test_gradients_reach_every_network():
    with seeded(0):
        model = two_level_mlp((1, 4, 4), (2, 3), hidden=8).double()
    elbo(model, torch.rand(5, 1, 4, 4, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_it_trains_samples_and_reconstructs_like_any_model():
    with seeded(0):
        model = two_level_mlp((1, 4, 4), (2, 3), hidden=16)
        picture = torch.rand(1, 1, 4, 4).round()
    x = torch.cat([picture, 1 - picture]).repeat(32, 1, 1, 1)
    history = fit(model, elbo, x, epochs=100, batch_size=16, lr=1e-2, device="cpu", progress=False)
    # two pictures are log 2 nats apart; pixels that know of no latents cost log 2 each
    assert history.train[-1] > -3 * math.log(2) > -16 * math.log(2) > history.train[0]
    assert model.sample(3).shape == model.reconstruct(x[:3]).shape == (3, 1, 4, 4)


def test_plain_posteriors_can_be_cut_too():
    model = VAE(*mlp((1, 4, 4), 2), latent_dim=2)
    q_z = model.posterior(torch.rand(5, 1, 4, 4))
    assert isinstance(q_z[:2], DiagonalNormal)
    assert torch.equal(q_z[1:3].mean, q_z.mean[1:3]) and torch.equal(q_z[1:3].stddev, q_z.stddev[1:3])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"latent_dims\[1\]: expected at least 1, got 0"):
        two_level_mlp((1, 4, 4), (2, 0))
    with pytest.raises(ValueError, match="hidden: expected at least 1"):
        two_level_mlp((1, 4, 4), (2, 1), hidden=0)
    model = two_level_mlp((1, 4, 4), (2, 1))
    with pytest.raises(ValueError, match="x: expected dtype"):
        model.posterior(torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN"):
        elbo(model, torch.full((1, 1, 4, 4), torch.nan))


def small_model() -> tuple[TwoLevelVAE, Tensor]:
    with seeded(0):
        return two_level_mlp((1, 4, 4), latent_dims=(1, 2), hidden=5), torch.rand(6, 1, 4, 4).round()


TAKERS = {
    "elbo": elbo,
    "importance_bound": lambda model, x: importance_bound(model, x, samples=2),
    "log_evidence": lambda model, x: log_evidence(model, x, samples=2),
    "Consistency": Consistency(elbo, lambda x: x.flip(-1), weight=1.0),
    "HamiltonianBound": HamiltonianBound(3, steps=1),
    "JacobianL1": JacobianL1(elbo, weight=1.0),
    "FactorVAE": FactorVAE(3, weight=1.0, hidden=4),
    "annealed_capacity": lambda model, x: annealed_capacity(model, x, capacity=1.0, weight=1.0),
    "dip_vae": lambda model, x: dip_vae(model, x, off_diagonal=1.0, diagonal=1.0),
    "likelihood_regret": lambda model, x: likelihood_regret(model, x, steps=1, progress=False),
    "tracin": lambda model, x: tracin(model, elbo, [{"model": model.state_dict(), "lr": 1.0}], x, x, samples=2)[0],
}


@pytest.mark.parametrize("name", TAKERS)
def test_what_takes_a_two_level_model(name):
    model, x = small_model()
    with seeded(0):
        nats = TAKERS[name](model, x)
    assert nats.shape == (6,) and nats.isfinite().all()


REFUSERS = {
    "PlanarBound": PlanarBound(3, steps=1),
    "beta_tcvae": lambda model, x: beta_tcvae(model, x, dataset_size=6, beta=2.0),
    "active_units": active_units,
    "mutual_information": mutual_information,
}


@pytest.mark.parametrize("name", REFUSERS)
def test_what_needs_independent_latents_says_so(name):
    with pytest.raises(ValueError, match="model: expected a posterior of independent normal latents, got a TwoLevel"):
        REFUSERS[name](*small_model())
