"""Consistency regularisation."""

import math

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vaekit.bounds import elbo
from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import curved_model, draws


def _information(log_q: Tensor) -> Tensor:
    q = log_q.exp()
    return torch.stack([log_q[k, k] - (q[k].sum() / len(q)).log() for k in range(len(q))]).mean()


def _paired(a: Tensor, b: Tensor) -> Tensor:
    d, n = a - b, len(a)
    variance = ((d - d.sum() / n) ** 2).sum() / (n - 1)
    return torch.stack([d.sum() / n, (variance / n).sqrt()])


def _unpaired(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(a - b).mean(), ((a.var() + b.var()) / len(a)).sqrt()])


def _kl(mean_tx: Tensor, log_std_tx: Tensor, mean_x: Tensor, log_std_x: Tensor) -> Tensor:
    return kl_divergence(Normal(mean_tx, log_std_tx.exp()), Normal(mean_x, log_std_x.exp())).sum(-1)


def _best(means: Tensor, stds: Tensor, copy_first: bool) -> Tensor:
    """By descent on mu and log sigma."""
    free = torch.zeros(2, dtype=means.dtype, requires_grad=True)
    descent = torch.optim.LBFGS(
        [free], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def cost() -> Tensor:
        descent.zero_grad()
        r, copies = Normal(free[0], free[1].exp()), Normal(means, stds)
        value = (kl_divergence(copies, r) if copy_first else kl_divergence(r, copies)).mean()
        value.backward()
        return value

    descent.step(cost)  # type: ignore[no-untyped-call]
    return torch.stack([free[0], free[1].exp()]).detach()


def _with(part: int, value: Tensor, right: Tensor) -> Tensor:
    return torch.stack([value if k == part else right[k] for k in range(2)])


def _expected(A: Tensor, S: Tensor, sigma: Tensor) -> Tensor:
    """The average over 2P shifts with exactly this mean and covariance."""
    steps = torch.linalg.cholesky(S).T * len(S) ** 0.5  # rows r with mean(r r') = S
    shifts = torch.cat([steps, -steps]) @ A.T  # [2P, D], of the posterior's mean
    return kl_divergence(Normal(shifts, sigma), Normal(torch.zeros_like(shifts), sigma)).sum(-1).mean()


def _taught(
    model: VAE, x: Tensor, tx: Tensor, weight: float, *, fixed: str = "x", swapped: bool = False, path: bool = True,
    bounds: tuple[float, float] = (1.0, 1.0), decoder: bool = True,
) -> Tensor:  # fmt: skip
    """Term by term; the options make mistakes."""
    value = torch.zeros(len(x), dtype=x.dtype)
    for images, share in zip((x, tx), bounds, strict=True):
        q_z = model.posterior(images)
        log_p = model.log_likelihood(images, q_z.rsample() if path else q_z.sample())
        value = value + share * ((log_p if decoder else log_p.detach()) - kl_divergence(q_z, model.prior))
    moments = {}
    for name, images in (("x", x), ("tx", tx)):
        q_z = model.posterior(images)
        pair = (q_z.mean, q_z.stddev)
        moments[name] = Normal(*(t.detach() for t in pair) if name in fixed.split() else pair)
    first, second = (moments["x"], moments["tx"]) if swapped else (moments["tx"], moments["x"])
    return value - weight * kl_divergence(first, second).sum(-1)


def _taught_inputs() -> list[tuple]:
    model, x = curved_model()
    return [(model, x.round(), x.round().flip(-1), weight) for weight in (1.0, 4.0)]


# fmt: off
EXERCISES = {
    "5.a": Exercise(
        reference=_information,
        inputs=lambda: [(t,) for t in draws((4, 4), (6, 6))],
        mistakes={
            "the mixture is a mean over the copies: subtract log K from the logsumexp":
                lambda q: (q.diagonal() - q.logsumexp(1)).mean(),
            "the mixture is a mean of densities, not of their logarithms": lambda q: (q.diagonal() - q.mean(1)).mean(),
            "the copy's own density is on the diagonal": lambda q: (q - q.logsumexp(1, keepdim=True)).mean() + math.log(len(q)),
            "row k has the densities at z_k: the mixture is over the columns":
                lambda q: (q.diagonal() - q.logsumexp(0)).mean() + math.log(len(q)),
            "average over the copies, do not sum": lambda q: _information(q) * len(q),
        },
    ),
    "5.b": Exercise(
        reference=_paired,
        inputs=lambda: [(d[0] + d[1], d[0] + d[2] / 2) for d in (draws((5,), (5,), (5,)), draws((8,), (8,), (8,), seed=1))],
        parts=("the mean difference", "its standard error"),
        mistakes={
            "the seeds are paired: take differences first, then their standard error": _unpaired,
            "this is the standard deviation: divide by the root of the number of seeds":
                lambda a, b: _with(1, (a - b).std(), _paired(a, b)),
            "divide by the root of n, not by n": lambda a, b: _with(1, (a - b).std() / len(a), _paired(a, b)),
            "divide the squares by n - 1": lambda a, b: _with(1, (a - b).std(correction=0) / len(a) ** 0.5, _paired(a, b)),
            "the difference is a - b": lambda a, b: _with(0, (b - a).mean(), _paired(a, b)),
        },
    ),
    "5.1": Exercise(
        reference=_kl,
        inputs=lambda: [tuple(draws((6, 3), (6, 3), (6, 3), (6, 3)))],
        mistakes={
            "the two distributions are swapped: copy first": lambda a, s, b, t: _kl(b, t, a, s),
            "these are logarithms of standard deviations, not of variances": lambda a, s, b, t: _kl(a, s / 2, b, t / 2),
            "is the -1 missing?": lambda a, s, b, t: _kl(a, s, b, t) + a.shape[-1] / 2,
            "the two logarithms have the wrong signs": lambda a, s, b, t: _kl(a, s, b, t) - 2 * (t - s).sum(-1),
            "the logarithms of the variances are missing": lambda a, s, b, t: _kl(a, s, b, t) - (t - s).sum(-1),
            "the logarithm of a variance is twice that of a standard deviation":
                lambda a, s, b, t: _kl(a, s, b, t) - 0.5 * (t - s).sum(-1),
            "the distance of the means counts in units of the original's width": lambda a, s, b, t: _kl(a, s, b, t)
                + 0.5 * ((a - b) ** 2 * (1 - (-2 * t).exp())).sum(-1),
            "the distance of the means counts in units of the original's width, not the copy's": lambda a, s, b, t: _kl(a, s, b, t)
                + 0.5 * ((a - b) ** 2 * ((-2 * s).exp() - (-2 * t).exp())).sum(-1),
            "the distance of the means is missing": lambda a, s, b, t: _kl(a, s, a, t),
            "the ratio of the variances is missing": lambda a, s, b, t: _kl(a, s, b, t) - 0.5 * (2 * (s - t)).exp().sum(-1),
        },
    ),
    "5.2": Exercise(
        reference=_best,
        inputs=lambda: [(torch.tensor([-1.0, 0.3, 2.0]), torch.tensor([0.5, 0.8, 1.1]), flag) for flag in (True, False)],
        parts=("mu", "sigma"),
        mistakes={
            "the two directions are swapped": lambda m, s, f: _best(m, s, not f),
            "asked for is sigma, not its square": lambda m, s, f: _with(1, _best(m, s, f)[1] ** 2, _best(m, s, f)),
            "copy first: the copies' means scatter, and that widens the best original":
                lambda m, s, f: _with(1, (s**2).mean().sqrt(), _best(m, s, f)) if f else _best(m, s, f),
            "copy first: the copies' own widths count too":
                lambda m, s, f: _with(1, m.std(correction=0), _best(m, s, f)) if f else _best(m, s, f),
            "original first: the precise copies weigh more in the mean":
                lambda m, s, f: _best(m, s, f) if f else _with(0, m.mean(), _best(m, s, f)),
            "original first: average the precisions, not the variances":
                lambda m, s, f: _best(m, s, f) if f else _with(1, (s**2).mean().sqrt(), _best(m, s, f)),
            "original first: the weights are precisions 1 / stds², not 1 / stds":
                lambda m, s, f: _best(m, s, f) if f else _with(0, (m / s).sum() / (1 / s).sum(), _best(m, s, f)),
            "original first: a mean of precisions, not their sum":
                lambda m, s, f: _best(m, s, f) if f else _with(1, (s**-2).sum() ** -0.5, _best(m, s, f)),
            "the variance over copies is a mean: divide by K, not by K - 1":
                lambda m, s, f: _with(1, ((s**2).mean() + m.var()).sqrt(), _best(m, s, f)) if f else _best(m, s, f),
        },
    ),
    "5.3": Exercise(
        reference=_expected,
        inputs=lambda: [(d[0], d[1] @ d[1].T + torch.eye(5), torch.tensor([0.4, 0.9, 1.6])) for d in [draws((3, 5), (5, 5))]],
        mistakes={
            "divide by the variance, not by the standard deviation": lambda A, S, s: _expected(A, S, s**0.5),
            "the widths are missing: the shift counts in units of sigma": lambda A, S, s: _expected(A, S, torch.ones_like(s)),
            "multiply by A on both sides": lambda A, S, s: 0.5 * ((A @ S).sum(1) / s**2).sum(),
            "the covariance S of the shift is missing": lambda A, S, s: _expected(A, torch.eye(5).double(), s),
            "only the diagonal of A S A' counts": lambda A, S, s: 0.5 * ((A @ S @ A.T).sum(1) / s**2).sum(),
            "only the diagonal of S is used: its pixels are correlated": lambda A, S, s: _expected(A, S.diag().diag(), s),
            "S is a covariance already: do not square it": lambda A, S, s: _expected(A, S @ S, s),
            "divide, do not multiply, by the variance": lambda A, S, s: _expected(A, S, 1 / s),
            "each latent variable counts with its own width": lambda A, S, s: _expected(A, S, s.mean().expand_as(s)),
        },
    ),
    "5.4": Exercise(
        reference=_taught,
        inputs=_taught_inputs,
        names=("x", "tx", "weight"),
        mistakes={
            "q(z|x) still moves in the divergence: detach it there": lambda *a: _taught(*a, fixed=""),
            "the wrong side is fixed: the original teaches, the copy learns": lambda *a: _taught(*a, fixed="tx"),
            "the divergence has no gradient at all: only q(z|x) is fixed": lambda *a: _taught(*a, fixed="x tx"),
            "the divergence is from the copy to the original, KL(q(z|tx) || q(z|x))": lambda *a: _taught(*a, swapped=True),
            "the divergence's two sides are swapped, and the wrong one is fixed": lambda *a: _taught(*a, swapped=True, fixed="tx"),
            "no gradient of the bounds reaches the encoder through z: draw it with `rsample`": lambda *a: _taught(*a, path=False),
            "no gradient reaches the decoder: the bounds are detached": lambda *a: _taught(*a, decoder=False),
            "the copy's bound is missing": lambda *a: _taught(*a, bounds=(1.0, 0.0)),
            "the original's bound is missing": lambda *a: _taught(*a, bounds=(0.0, 1.0)),
            "this is the mean of the two bounds: their sum is due": lambda *a: _taught(*a, bounds=(0.5, 0.5)),
            "the divergence is subtracted": lambda m, x, tx, w: _taught(m, x, tx, -w),
            "the weight is missing": lambda m, x, tx, w: _taught(m, x, tx, 1.0),
            "the divergence is missing": lambda m, x, tx, w: elbo(m, x) + elbo(m, tx),
        },
    ),
}
