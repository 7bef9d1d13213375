"""Likelihood regret."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vaekit.metrics import auroc
from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import draws, linear_model
from vaekit.regret import likelihood_regret


def _hill(mean: Tensor, log_std: Tensor) -> Tensor:
    """A bound of each of several images, as a function of its guess."""
    peaks = torch.arange(len(mean), dtype=mean.dtype)[:, None]
    return -((mean - peaks) ** 2 + (2 * log_std).exp()).sum(-1) + 3 * (log_std * mean).sum(-1)


def _ascend(mean: Tensor, log_std: Tensor, bound: Callable, lr: float) -> tuple[Tensor, Tensor]:
    both = torch.autograd.functional.jacobian(bound, (mean, log_std))  # [B, B, D] each; row b depends on image b alone
    return tuple(v + lr * j.diagonal(dim1=0, dim2=1).T for v, j in zip((mean, log_std), both, strict=True))  # type: ignore[return-value]


def _one_after_the_other(mean: Tensor, log_std: Tensor, bound: Callable, lr: float) -> tuple[Tensor, Tensor]:
    mean = _ascend(mean, log_std, bound, lr)[0]
    return mean, _ascend(mean, log_std, bound, lr)[1]


def _area(scores_in: Tensor, scores_out: Tensor) -> Tensor:
    return torch.tensor(auroc(scores_in, scores_out).value, dtype=torch.float64)


def _pairs(scores_in: Tensor, scores_out: Tensor) -> Tensor:
    return scores_out[:, None] - scores_in


def _area_inputs() -> list[tuple]:
    rng = torch.Generator().manual_seed(0)
    drawn = [(torch.randint(9, (m,), generator=rng), torch.randint(3, 12, (n,), generator=rng)) for m, n in ((20, 30), (7, 4))]
    return [(a.double(), b.double()) for a, b in drawn]


def _mean_regret(A: Tensor, std: Tensor, M: Tensor, precision: Tensor, S: Tensor) -> Tensor:
    """The average over 2P images with exactly this second moment, by two divergences of torch each."""
    rows = torch.linalg.cholesky(S).T * len(S) ** 0.5
    x = torch.cat([rows, -rows])  # [2P, P], x - b

    def gap(mean: Tensor, std: Tensor) -> Tensor:
        guess = MultivariateNormal(mean, torch.diag_embed(std**2))
        return kl_divergence(guess, MultivariateNormal(x @ M.T, precision_matrix=precision)).mean()

    return gap(x @ A.T, std) - gap(x @ M.T, precision.diagonal() ** -0.5)


def _place(A: Tensor, std: Tensor, M: Tensor, precision: Tensor, S: Tensor) -> Tensor:
    return 0.5 * torch.einsum("dp,pq,eq,de->", A - M, S, A - M, precision)


def _mean_regret_inputs() -> list[tuple]:
    A, M, root, spread = draws((3, 5), (3, 5), (3, 3), (5, 5))
    std = torch.tensor([0.3, 0.6, 1.1]).double()
    return [(A, std, M, torch.eye(3).double() + root @ root.T, spread @ spread.T + torch.eye(5))]


def _exact_elbo(model: VAE, x: Tensor, samples: int = 1) -> Tensor:
    q_z, W = model.posterior(x), next(model.decoder.parameters())  # [P, D]
    spread = 0.5 * (q_z.variance * W.square().sum(0)).sum(-1) / 0.7**2
    return model.log_likelihood(x, q_z.mean) - spread - kl_divergence(q_z, model.prior)


def _by_posterior(model: VAE, bound: Callable, x: Tensor, steps: int, lr: float, *, adapt: str = "posterior") -> Tensor:
    return likelihood_regret(model, x, bound=bound, adapt=adapt, steps=steps, lr=lr, progress=False).detach()  # type: ignore[arg-type]


def _descended(
    model: VAE, bound: Callable, x: Tensor, steps: int, lr: float, *, names: tuple[str, ...] = ("encoder.1.bias",),
    together: bool = False, plain: bool = False, sign: float = 1.0, afresh: bool = True, less: bool = True,
) -> Tensor:  # fmt: skip
    """Adam on parts of the model, image by image; the options make mistakes."""
    gains, fitted = [], model
    for images in [x] if together else x.split(1):
        fitted = copy.deepcopy(model if afresh else fitted)
        chosen = [p for name, p in fitted.named_parameters() if name in names]
        optimizer = torch.optim.SGD(chosen, lr) if plain else torch.optim.Adam(chosen, lr)
        for _ in range(steps):
            optimizer.zero_grad()
            (-sign * bound(fitted, images).sum()).backward()
            optimizer.step()
        gains.append((bound(fitted, images) - less * bound(model, images)).detach())
    return torch.cat(gains)


def _biases_inputs() -> list[tuple]:
    model, x = linear_model()
    return [(model, _exact_elbo, x, 1, 0.02), (model, _exact_elbo, x, 15, 0.05)]


# fmt: off
EXERCISES = {
    "3.a": Exercise(
        reference=lambda nll, size: nll - torch.tensor([8 * math.log(2) * s for s in size.tolist()]).double(),
        inputs=lambda: [(torch.tensor([400.0, 120.0, 900.0]), torch.tensor([70.0, 90.0, 310.0]))],
        mistakes={
            "a byte has 8 bits": lambda n, s: n - math.log(2) * s,
            "a bit is log 2 nats: the file's size is in other units than the NLL": lambda n, s: n - 8 * s,
            "a bit is log 2 nats; this divides by it": lambda n, s: n - 8 * s / math.log(2),
            "bytes are not nats": lambda n, s: n - s,
            "what the file takes anyway is subtracted": lambda n, s: n + 8 * math.log(2) * s,
            "a high score is to mean outside: it is the NLL that enters with a plus": lambda n, s: 8 * math.log(2) * s - n,
        },
    ),
    "3.b": Exercise(
        reference=_ascend,
        inputs=lambda: [(*draws((4, 2), (4, 2)), _hill, lr) for lr in (0.1, 0.02)],
        mistakes={
            "this walks downhill: the bound is to be raised": lambda m, s, f, lr: _ascend(m, s, f, -lr),
            "take the gradient of the sum over images: in a mean each image moves 1/B as far":
                lambda m, s, f, lr: _ascend(m, s, f, lr / len(m)),
            "log_std moves too": lambda m, s, f, lr: (_ascend(m, s, f, lr)[0], s),
            "the mean moves too": lambda m, s, f, lr: (m, _ascend(m, s, f, lr)[1]),
            "both gradients are taken at the old place": _one_after_the_other,
        },
    ),
    "3.1": Exercise(
        reference=_area,
        inputs=_area_inputs,
        mistakes={
            "ties count one half": lambda a, b: (_pairs(a, b) > 0).double().mean(),
            "ties count one half, not one": lambda a, b: (_pairs(a, b) >= 0).double().mean(),
            "a higher score is to mean outside: the two are swapped": lambda a, b: 1 - _area(a, b),
            "this counts the pairs; divide by their number": lambda a, b: _area(a, b) * len(a) * len(b),
            "divide by the number of pairs, M times N": lambda a, b: _area(a, b) * len(a),
            "divide by the number of pairs, M times N, not by N squared": lambda a, b: _area(a, b) * len(a) / len(b),
            "this is the excess over chance, twice the area less one": lambda a, b: 2 * _area(a, b) - 1,
            "this compares with the mean score only": lambda a, b: (b > a.mean()).double().mean(),
        },
    ),
    "3.2": Exercise(
        reference=_mean_regret,
        inputs=_mean_regret_inputs,
        mistakes={
            "the shift counts in units of the posterior: the precision is missing":
                lambda A, s, M, P, S: _mean_regret(A, s, M, P, S) - _place(A, s, M, P, S) + _place(A, s, M, torch.eye(3).double(), S),
            "the regret of a wrong width is missing": _place,
            "the regret of a wrong place is missing": lambda *a: _mean_regret(*a) - _place(*a),
            "what counts is how far A is from M": lambda A, s, M, P, S: _mean_regret(A, s, 0 * M, P, S),
            "the encoder's std is to be squared": lambda A, s, M, P, S: _mean_regret(A, s**0.5, M, P, S),
            "is a 1/2 missing at the shift?": lambda *a: _mean_regret(*a) + _place(*a),
            "is a 1/2 missing at the width?": lambda *a: 2 * _mean_regret(*a) - _place(*a),
            "the best variances are 1 / Λ_dd, not those of the inverse":
                lambda A, s, M, P, S: _place(A, s, M, P, S)
                + 0.5 * (s**2 / torch.linalg.inv(P).diagonal() - 1 - (s**2 / torch.linalg.inv(P).diagonal()).log()).sum(),
            "the logarithm of the width is missing":
                lambda A, s, M, P, S: _place(A, s, M, P, S) + 0.5 * (P.diagonal() * s**2 - 1).sum(),
            "the images' second moment S is missing": lambda A, s, M, P, S: _mean_regret(A, s, M, P, torch.eye(5).double()),
        },
    ),
    "3.3": Exercise(
        reference=_by_posterior,
        inputs=_biases_inputs,
        mistakes={
            "this re-fits more of the encoder than the last layer's biases": lambda *a: _by_posterior(*a, adapt="encoder"),
            "this re-fits the decoder": lambda *a: _descended(*a, names=("decoder.0.bias",)),
            "all images share one bias here: each needs a copy of its own": lambda *a: _descended(*a, together=True),
            "each image must begin at the trained encoder, not where the last one ended": lambda *a: _descended(*a, afresh=False),
            "this is plain gradient descent, not Adam": lambda *a: _descended(*a, plain=True),
            "this lowers the bound: an optimiser of torch minimises": lambda *a: _descended(*a, sign=-1.0),
            "this is the bound after fitting; subtract the bound before": lambda *a: _descended(*a, less=False),
            "one step too many": lambda m, f, x, k, lr: _by_posterior(m, f, x, k + 1, lr),
            "the sign: the regret is never negative": lambda *a: -_by_posterior(*a),
        },
    ),
    "3.4": Exercise(
        reference=lambda nll, world: (nll**2 - 2 * nll * world.mean() + world.mean() ** 2).sqrt(),
        inputs=lambda: [(torch.tensor([3.0, 5.2, 9.1, 6.4]), torch.tensor([4.0, 8.5, 6.1, 2.5, 3.2]))],
        mistakes={
            "both directions are atypical: take the absolute value": lambda a, b: a - b.mean(),
            "the mean of the world, not its median": lambda a, b: (a - b.median()).abs(),
            "the mean of the world, not that of the batch": lambda a, b: (a - a.mean()).abs(),
            "the mean of the world, not its midrange": lambda a, b: (a - (b.max() + b.min()) / 2).abs(),
            "the distance itself, not its square": lambda a, b: (a - b.mean()) ** 2,
            "the mean distance to the world's images is another thing: take the mean NLL first":
                lambda a, b: (a[:, None] - b).abs().mean(1),
            "the distance is asked for in nats, not in standard deviations": lambda a, b: (a - b.mean()).abs() / b.std(),
            "this is the distance to the nearest image of the world": lambda a, b: (a[:, None] - b).abs().min(1).values,
            "a mean over M images is the sum divided by M": lambda a, b: (a - b.sum()).abs(),
        },
    ),
}
