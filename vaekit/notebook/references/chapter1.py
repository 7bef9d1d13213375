"""Variational auto-encoders from first principles."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import draws, linear_model


def _kl(mean: Tensor, log_std: Tensor) -> Tensor:
    return kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros_like(mean), 1)).sum(-1)


def _swapped_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    return kl_divergence(Normal(torch.zeros_like(mean), 1), Normal(mean, log_std.exp())).sum(-1)


def _rate(eigenvalues: Tensor, scale: float, beta: float) -> Tensor:
    """Build the best decoder and its best posterior as matrices, and average the divergence over the data."""
    noise = beta * scale**2
    W = torch.diag((eigenvalues - noise).clamp_min(0).sqrt())  # [P, P], in the eigenvectors' coordinates
    covariance = torch.linalg.inv(torch.eye(len(W), dtype=W.dtype) + W.T @ W / noise)
    A = covariance @ W.T / noise  # the posterior's mean is A x
    second_moment = covariance + A @ torch.diag(eigenvalues) @ A.T
    return 0.5 * (second_moment.trace() - len(W) - torch.logdet(covariance))


def _alive(eigenvalues: Tensor, scale: float, beta: float) -> Tensor:
    return eigenvalues[eigenvalues > beta * scale**2]


def _gap(W: Tensor, scale: float) -> Tensor:
    """Exact evidence minus the ELBO in closed form, at one image and the best diagonal posterior."""
    pixels = len(W)
    x = torch.linspace(-1, 1, pixels, dtype=W.dtype)
    precision = _precision(W, scale)
    m, variance = torch.linalg.solve(precision, W.T @ x / scale**2), 1 / precision.diagonal()
    expected_log_p = Normal(W @ m, scale).log_prob(x).sum() - 0.5 * ((W**2).sum(0) * variance).sum() / scale**2
    kl = kl_divergence(Normal(m, variance.sqrt()), Normal(torch.zeros_like(m), 1)).sum()
    covariance = W @ W.T + scale**2 * torch.eye(pixels, dtype=W.dtype)
    return MultivariateNormal(torch.zeros(pixels, dtype=W.dtype), covariance).log_prob(x) - (expected_log_p - kl)


def _precision(W: Tensor, scale: float) -> Tensor:
    return torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / scale**2


def _gap_of_marginals(W: Tensor, scale: float) -> Tensor:
    precision = _precision(W, scale)
    variances = torch.linalg.inv(precision).diagonal()
    return 0.5 * (
        (precision.diagonal() * variances).sum() - len(precision) - precision.logdet() - variances.log().sum()
    )


def _per_unit(model: VAE, x: Tensor) -> Tensor:
    q_z = model.posterior(x)
    return torch.stack([_kl(q_z.mean[:, [d]], q_z.stddev[:, [d]].log()) for d in range(model.latent_dim)], 1)


def _reconstruction(model: VAE, x: Tensor) -> Tensor:
    return model.log_likelihood(x, model.posterior(x).rsample())


def _free_bits(model: VAE, x: Tensor, floor: float) -> Tensor:
    k = _per_unit(model, x)
    return _reconstruction(model, x) - torch.where(k > floor, k, torch.full_like(k, floor)).sum(-1)


def _without_path(model: VAE, x: Tensor, floor: float) -> Tensor:
    k = _per_unit(model, x).clamp_min(floor).sum(-1)
    return model.log_likelihood(x, model.posterior(x).sample()) - k


def _at_the_mean(model: VAE, x: Tensor, floor: float) -> Tensor:
    return model.log_likelihood(x, model.posterior(x).mean) - _per_unit(model, x).clamp_min(floor).sum(-1)


EXERCISES = {
    "1.a": Exercise(
        reference=lambda mean, log_std, epsilon: Normal(mean, log_std.exp()).icdf(Normal(0.0, 1.0).cdf(epsilon)),
        inputs=lambda: [tuple(draws((4, 2), (4, 2), (4, 2)))],
        mistakes={
            "log_std is the logarithm of the standard deviation: exponentiate it": lambda m, s, e: m + s * e,
            "log_std is the logarithm of the standard deviation, not of the variance": lambda m, s, e: (
                m + (s / 2).exp() * e
            ),
            "epsilon is multiplied by the standard deviation, not by the variance": lambda m, s, e: (
                m + (2 * s).exp() * e
            ),
            "the noise is missing: this is the mean of q": lambda m, s, e: m + 0 * e,
            "the mean is missing": lambda m, s, e: s.exp() * e,
        },
    ),
    "1.b": Exercise(
        reference=lambda log_w: log_w.exp().mean(0).log(),
        inputs=lambda: [(t,) for t in draws((5, 3), (2, 4))],
        mistakes={
            "this is the mean of the logarithms, which is the ELBO: average first, then take the logarithm": lambda w: (
                w.mean(0)
            ),
            "this is the logarithm of a sum: divide by the number of samples S": lambda w: w.logsumexp(0),
            "the mean is over the samples, dimension 0, not over the images": lambda w: w.exp().mean(1).log(),
            "subtract log S, not S": lambda w: w.logsumexp(0) - len(w),
            "subtract log S: there are S samples and B images": lambda w: w.logsumexp(0) - math.log(w.shape[1]),
            "the logarithm of the mean weight is still to be taken": lambda w: w.exp().mean(0),
        },
    ),
    "1.1": Exercise(
        reference=_kl,
        inputs=lambda: [tuple(draws((6, 3), (6, 3)))],
        mistakes={
            "log_std is the logarithm of the standard deviation, not of the variance": lambda m, s: _kl(m, s / 2),
            "this is KL(N(0, I) || q): the two distributions are swapped": _swapped_kl,
            "is the -1 missing?": lambda m, s: _kl(m, s) + m.shape[-1] / 2,
            "the logarithm of the variance enters with a minus": lambda m, s: _kl(m, s) + 2 * s.sum(-1),
            "the logarithm of the variance is twice log_std": lambda m, s: _kl(m, s) + 0.5 * s.sum(-1),
            "the mean enters with its square": lambda m, s: _kl(m, s) + 0.5 * (m - m**2).sum(-1),
            "the variance exp(2 log_std) is due, not the standard deviation": lambda m, s: (
                _kl(m, s) + 0.5 * (s.exp() - (2 * s).exp()).sum(-1)
            ),
        },
    ),
    "1.2": Exercise(
        reference=_rate,
        inputs=lambda: [
            (torch.tensor([9.0, 4.0, 2.5, 1.2, 0.6, 0.1], dtype=torch.float64), 0.7, beta)
            for beta in (0.5, 1.0, 4.0, 16.0)
        ],
        mistakes={
            "a direction below the threshold is switched off, and costs nothing": lambda v, s, b: (
                0.5 * (v / (b * s**2)).log().sum()
            ),
            "the weight β is missing under the logarithm": lambda v, s, b: 0.5 * (_alive(v, s, b) / s**2).log().sum(),
            "`scale` is a standard deviation; the noise has the variance β scale²": lambda v, s, b: _rate(v, s**0.5, b),
            "asked for is the divergence itself, not β times it": lambda v, s, b: b * _rate(v, s, b),
            "this is how many directions survive; how many nats do they carry?": lambda v, s, b: torch.tensor(
                float(len(_alive(v, s, b)))
            ),
            "these are bits; nats are asked for": lambda v, s, b: _rate(v, s, b) / math.log(2),
            "the squared decoder weight is λ - β scale², not λ": lambda v, s, b: 0.5 * (1 + v / (b * s**2)).log().sum(),
            "the noise of the weighted objective is β scale², not scale² / β": lambda v, s, b: _rate(v, s, 1 / b),
        },
    ),
    "1.3": Exercise(
        reference=_gap,
        inputs=lambda: [(W, s) for (W, s) in zip(draws((7, 3), (5, 2), seed=1), (0.7, 1.5), strict=True)],
        mistakes={
            "these are the variances of the exact posterior's marginals; the best ones are 1 / Λ_dd": _gap_of_marginals,
            "the precision of the posterior is I + W'W / s²: is the I missing?": lambda W, s: (
                0.5 * ((W.T @ W / s**2).diagonal().log().sum() - (W.T @ W / s**2).logdet())
            ),
            "`scale` is a standard deviation: divide by its square": lambda W, s: _gap(W, s**0.5),
            "divide W'W by s², do not multiply": lambda W, s: _gap(W, 1 / s),
            "the columns of W are latent variables: W'W is due, not WW'": lambda W, s: _gap(W.T, s),
            "this is the determinant's part alone: the diagonal guess has one too": lambda W, s: (
                0.5 * _precision(W, s).logdet()
            ),
            "this is the diagonal guess's part alone: the exact posterior has one too": lambda W, s: (
                0.5 * _precision(W, s).diagonal().log().sum()
            ),
            "the diagonal of the precision is due, not that of the covariance": lambda W, s: (
                0.5 * (torch.linalg.inv(_precision(W, s)).diagonal().log().sum() - _precision(W, s).logdet())
            ),
        },
    ),
    "1.4": Exercise(
        reference=_free_bits,
        inputs=lambda: [(*linear_model(), floor) for floor in (1.2, 5.0)],
        names=("x", "floor"),
        mistakes={
            "no gradient reaches the encoder through z: draw it with `rsample`, and do not detach it": _without_path,
            "the values agree, but the KL term is detached": lambda m, x, f: (
                _reconstruction(m, x) - _per_unit(m, x).clamp_min(f).sum(-1).detach()
            ),
            "no gradient reaches the encoder: is the posterior under `no_grad`?": lambda m, x, f: (
                m.log_likelihood(x, m.posterior(x).sample()) - _per_unit(m, x).clamp_min(f).sum(-1).detach()
            ),
            "the floor is for each latent variable, not for the sum over them": lambda m, x, f: (
                _reconstruction(m, x) - _per_unit(m, x).sum(-1).clamp_min(f)
            ),
            "this takes the smaller of the two; the larger one counts": lambda m, x, f: (
                _reconstruction(m, x) - _per_unit(m, x).clamp_max(f).sum(-1)
            ),
            "max(k, floor) is due, not max(k - floor, 0)": lambda m, x, f: (
                _reconstruction(m, x) - (_per_unit(m, x) - f).clamp_min(0).sum(-1)
            ),
            "the floor is missing: this is the ELBO": lambda m, x, f: _reconstruction(m, x) - _per_unit(m, x).sum(-1),
            "the maximum is to be taken image by image, not of the mean over the batch": lambda m, x, f: (
                _reconstruction(m, x) - _per_unit(m, x).mean(0).clamp_min(f).sum()
            ),
            "sum over the latent variables, do not average": lambda m, x, f: (
                _reconstruction(m, x) - _per_unit(m, x).clamp_min(f).mean(-1)
            ),
            "z is to be drawn from q: this takes q's mean": _at_the_mean,
            "the KL term is subtracted": lambda m, x, f: _reconstruction(m, x) + _per_unit(m, x).clamp_min(f).sum(-1),
        },
    ),
}
