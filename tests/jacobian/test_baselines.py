import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from tests.helpers import Decoder, Encoder, linear_gaussian
from vaekit import VAE, elbo, fit, gaussian
from vaekit.jacobian.baselines import FactorVAE, annealed_capacity, beta_tcvae, dip_vae
from vaekit.training.ensemble import fit_ensemble
from vaekit.training.seeding import seeded


def same_noise(objective, model, x, **options):
    with seeded(7):
        return objective(model, x, **options)


def slow_beta_tcvae(model, x, n, beta):
    """The decomposition one image, one latent and one density at a time."""
    mean, log_std = (t.tolist() for t in model.encoder(x).chunk(2, -1))
    with seeded(7):
        z = model.posterior(x).rsample()

    def log_normal(value, mean, log_std):
        return -0.5 * ((value - mean) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)

    size, dim = z.shape
    values = []
    for b in range(size):
        log_q = [[log_normal(z[b, i].item(), mean[c][i], log_std[c][i]) for i in range(dim)] for c in range(size)]
        log_q_z = math.log(sum(math.exp(sum(row)) for row in log_q) / (n * size))
        log_prod = sum(math.log(sum(math.exp(row[i]) for row in log_q) / (n * size)) for i in range(dim))
        log_p = sum(log_normal(z[b, i].item(), 0, 0) for i in range(dim))
        parts = (sum(log_q[b]) - log_q_z) + beta * (log_q_z - log_prod) + (log_prod - log_p)
        values.append(model.log_likelihood(x[b : b + 1], z[b : b + 1]).item() - parts)
    return torch.tensor(values, dtype=x.dtype)


def test_beta_tcvae_against_a_slow_sum():
    exact = linear_gaussian(batch=6)
    for beta in (0.0, 1.0, 5.0):
        value = same_noise(beta_tcvae, exact.model, exact.x, dataset_size=40, beta=beta)
        torch.testing.assert_close(value, slow_beta_tcvae(exact.model, exact.x, 40, beta))


def test_beta_tcvae_at_one_is_the_elbo():
    exact = linear_gaussian(batch=2000)
    with torch.no_grad():
        x = exact.x
        estimate = same_noise(beta_tcvae, exact.model, x, dataset_size=10_000, beta=1.0)
        difference = estimate - same_noise(elbo, exact.model, x)
    assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5


def aggregated_gaussian(batch=1500):
    """Codes whose aggregated posterior is N(0, C) with C = A cov(x) A' + diag(s^2), correlated on purpose."""
    exact = linear_gaussian(batch=batch, seed=2)
    matrix = torch.tensor([[0.5, 0.3, 0.0, 0.1], [0.4, 0.2, 0.1, 0.0]], dtype=torch.float64)
    log_std = torch.tensor([-1.2, -1.0], dtype=torch.float64)
    encoder = Encoder(matrix, exact.bias, log_std)
    model = VAE(encoder, Decoder(exact.weight, exact.bias), latent_dim=2, likelihood=gaussian(0.7)).double()
    covariance = matrix @ exact.evidence.covariance_matrix @ matrix.T + (2 * log_std).exp().diag()
    return model, exact.x, covariance


@torch.no_grad()
def test_beta_tcvae_estimates_the_total_correlation_of_a_gaussian():
    model, x, covariance = aggregated_gaussian()
    exact = 0.5 * (covariance.diagonal().log().sum() - covariance.logdet())  # of N(0, C), in nats
    one = same_noise(beta_tcvae, model, x, dataset_size=len(x), beta=1.0)
    two = same_noise(beta_tcvae, model, x, dataset_size=len(x), beta=2.0)
    assert exact > 0.2
    # A batch as large as the data set: only log N and sampling stand between the two; log N enters D - 1 times more
    # in the product of the marginals.
    estimate = (one - two).mean() - (model.latent_dim - 1) * math.log(len(x))
    assert abs(estimate - exact) < 0.06


def objective_and_model(**options):
    with seeded(0):
        objective = FactorVAE(2, **{"weight": 2.0, "hidden": 16, "layers": 2} | options).double()
    return objective, linear_gaussian(batch=50)


def test_factor_vae_is_the_elbo_less_the_weighted_logit():
    objective, exact = objective_and_model()
    with seeded(7):
        z = exact.model.posterior(exact.x).rsample()
    value = same_noise(objective, exact.model, exact.x)
    bound = same_noise(elbo, exact.model, exact.x)
    torch.testing.assert_close(value, bound - 2.0 * objective.discriminator(z)[:, 0])
    value = same_noise(objective, exact.model, exact.x, weight=0.0)
    torch.testing.assert_close(value, bound)


def test_factor_vae_sends_each_gradient_where_it_belongs():
    objective, exact = objective_and_model()
    same_noise(objective, exact.model, exact.x).sum().backward()
    model_gradients = [p.grad.clone() for p in exact.model.parameters()]
    discriminator_gradients = [p.grad.clone() for p in objective.parameters()]
    exact.model.zero_grad()
    objective.zero_grad()
    with seeded(7):
        z = exact.model.posterior(exact.x).rsample()
        shuffled = z.gather(0, torch.rand_like(z).argsort(0)).detach()
    (same_noise(elbo, exact.model, exact.x) - 2.0 * objective.discriminator(z)[:, 0]).sum().backward()
    for ours, p in zip(model_gradients, exact.model.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad)
    objective.zero_grad()
    logits = torch.cat([objective.discriminator(z.detach()), objective.discriminator(shuffled)])
    labels = torch.cat([torch.ones(50, 1), torch.zeros(50, 1)]).double()
    (-50 * nn.functional.binary_cross_entropy_with_logits(logits, labels)).backward()
    for ours, p in zip(discriminator_gradients, objective.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad)


def test_the_discriminator_learns_the_total_correlation_of_a_gaussian():
    model, x, covariance = aggregated_gaussian(2000)
    exact = 0.5 * (covariance.diagonal().log().sum() - covariance.logdet())
    objective, _ = objective_and_model(hidden=32)
    model.requires_grad_(False)
    fit(model, objective, x, epochs=30, batch_size=100, lr=3e-3, device="cpu", progress=False)
    with torch.no_grad():
        logit = objective.discriminator(model.posterior(x).rsample())[:, 0]
        reference = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).sample((2000,))
        density = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).log_prob(reference)
        product = torch.distributions.Normal(0, covariance.diagonal().sqrt()).log_prob(reference).sum(-1)
        learnt = objective.discriminator(reference)[:, 0]
    assert abs(logit.mean() - exact) < 0.1
    assert torch.corrcoef(torch.stack([learnt, density - product]))[0, 1] > 0.95


def test_factor_vae_in_an_ensemble():
    exact = linear_gaussian(batch=20)
    models = [linear_gaussian(seed=s).model for s in range(2)]
    objectives = [FactorVAE(2, weight=2.0, hidden=8, layers=1).double() for _ in range(2)]
    before = objectives[1].discriminator[0].weight.clone()
    nats = fit_ensemble(models, objectives, exact.x, epochs=1, batch_size=10, device="cpu", progress=False)
    assert nats.shape == (2, 1)
    assert not torch.equal(before, objectives[1].discriminator[0].weight)


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_dip_vae_against_a_slow_sum(kind):
    exact = linear_gaussian(batch=9)
    x, model = exact.x, exact.model
    q = model.posterior(x)
    covariance = torch.cov(q.mean.T, correction=0)
    if kind == "ii":
        covariance = covariance + torch.diag(q.variance.mean(0))
    penalty = sum(
        (0.5 if i == j else 3.0) * (covariance[i, j] - float(i == j)) ** 2 for i in range(2) for j in range(2)
    )
    value = same_noise(dip_vae, model, x, off_diagonal=3.0, diagonal=0.5, kind=kind)
    torch.testing.assert_close(value, same_noise(elbo, model, x) - penalty)


def test_the_best_codes_of_a_linear_model_cost_dip_vae_ii_nothing():
    """If q(z|x) is the exact posterior, q(z) is the prior: covariance the identity, and the penalty vanishes with N."""
    exact = linear_gaussian(batch=20_000, exact=True, orthogonal=True)
    with torch.no_grad():
        free = same_noise(elbo, exact.model, exact.x)
        penalty = {k: (free - same_noise(dip_vae, exact.model, exact.x, off_diagonal=1, diagonal=1, kind=k)).mean()
                   for k in ("i", "ii")}  # fmt: skip
    assert penalty["ii"] < 2e-3
    assert penalty["i"] > 0.01


def test_annealed_capacity():
    exact = linear_gaussian()
    kl = kl_divergence(exact.model.posterior(exact.x), exact.model.prior).mean()
    reconstruction = same_noise(elbo, exact.model, exact.x, beta=0.0)
    for capacity in (0.0, kl.item() + 2):
        value = same_noise(annealed_capacity, exact.model, exact.x, capacity=capacity, weight=10.0)
        torch.testing.assert_close(value, reconstruction - 10.0 * (kl - capacity).abs())


def test_bad_arguments():
    exact = linear_gaussian()
    calls = {
        "dataset_size": lambda: beta_tcvae(exact.model, exact.x, dataset_size=0, beta=1.0),
        "beta": lambda: beta_tcvae(exact.model, exact.x, dataset_size=5, beta=-1.0),
        "weight": lambda: FactorVAE(2, weight=-1.0),
        "layers": lambda: FactorVAE(2, weight=1.0, layers=0),
        "off_diagonal": lambda: dip_vae(exact.model, exact.x, off_diagonal=-1.0, diagonal=1.0),
        "diagonal": lambda: dip_vae(exact.model, exact.x, off_diagonal=1.0, diagonal=float("nan")),
        "kind": lambda: dip_vae(exact.model, exact.x, off_diagonal=1.0, diagonal=1.0, kind="iii"),
        "capacity": lambda: annealed_capacity(exact.model, exact.x, capacity=-1.0, weight=1.0),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}: expected"):
            call()


def test_the_discriminator_is_that_of_the_paper_unless_told():
    net = FactorVAE(10, weight=1.0).discriminator
    sizes = [(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)]
    assert sizes == [(10, 1000)] + [(1000, 1000)] * 5 + [(1000, 1)]
    assert [m.negative_slope for m in net if not isinstance(m, nn.Linear)] == [0.2] * 6
