"""Influence."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaekit.influence import tracin
from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import draws, linear_model


def _pairs(kernels: Tensor) -> Tensor:
    """By taking the mean again over the points that are left."""
    n = len(kernels)
    rows = [[[k for k in range(n) if k not in (i, j)] for j in range(n)] for i in range(n)]
    return torch.stack([torch.stack([kernels.mean().log() - kernels[left].mean().log() for left in row]) for row in rows])


def _single(kernels: Tensor) -> Tensor:
    return _pairs(kernels).diagonal()


def _off_diagonal(pairs: Tensor, diagonal: Tensor) -> Tensor:
    return pairs - pairs.diag().diag() + diagonal.diag()


def _kernels() -> list[tuple]:
    rng = torch.Generator().manual_seed(0)
    return [(torch.rand(n, generator=rng) + 0.05,) for n in (5, 9)]


def _pushes(g: list[Tensor], h: list[Tensor], rates: Tensor) -> Tensor:
    return torch.stack([
        torch.stack([sum(r * (a @ b) for r, a, b in zip(rates, first, second, strict=True)) for second in zip(*h, strict=True)])
        for first in zip(*g, strict=True)
    ])  # fmt: skip


def _gained(before: Tensor, after: Tensor, visits: Tensor, n: int) -> Tensor:
    return torch.stack([sum((after[t] - before[t] for t in range(len(visits)) if visits[t] == i), torch.zeros(())) for i in range(n)])


def _u_statistic(g: Tensor) -> Tensor:
    S = len(g)
    return torch.stack([g[s] @ g[t] for s in range(S) for t in range(S) if s != t]).mean()


def _halves(g: Tensor) -> Tensor:
    half = len(g) // 2
    return g[:half].mean(0) @ g[half:].mean(0)


def _by_forming(g: Tensor, a: Tensor, h: Tensor, b: Tensor, *, bias: float = 1.0) -> Tensor:
    """Gradients in W and c as one matrix: a bias is a weight of an input that is always 1."""
    first, second = (
        (s.mT @ torch.cat([t, bias * torch.ones_like(t[..., :1])], -1)).flatten(1) for s, t in ((g, a), (h, b))
    )
    return first @ second.T


def _exact_elbo(model: VAE, x: Tensor) -> Tensor:
    q_z, W = model.posterior(x), next(model.decoder.parameters())  # [P, D]
    spread = 0.5 * (q_z.variance * W.square().sum(0)).sum(-1) / 0.7**2
    return model.log_likelihood(x, q_z.mean) - spread - kl_divergence(q_z, model.prior)


def _gradients(model: VAE, objective: Callable, state: dict[str, Any], x: Tensor) -> Tensor:
    model = copy.deepcopy(model)
    model.load_state_dict(state["model"])
    weights = list(model.parameters())
    rows = [torch.autograd.grad(objective(model, image).sum(), weights) for image in x.split(1)]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def _cosines(model: VAE, objective: Callable, state: dict[str, Any], train: Tensor, test: Tensor) -> Tensor:
    first, second = (nn.functional.normalize(_gradients(model, objective, state, x), dim=1) for x in (train, test))
    return first @ second.T


def _now(model: VAE) -> dict[str, Any]:
    return {"model": model.state_dict(), "lr": 1.0}


def _lengths(model: VAE, objective: Callable, state: dict[str, Any], x: Tensor) -> Tensor:
    return _gradients(model, objective, state, x).norm(dim=1)


def _cosine_inputs() -> list[tuple]:
    model, x = linear_model(images=12)
    state = {"model": copy.deepcopy(linear_model(seed=5)[0].state_dict()), "lr": 0.5}
    return [(model, _exact_elbo, state, x[:7], x[7:])]


# fmt: off
EXERCISES = {
    "6.a": Exercise(
        reference=_pushes,
        inputs=lambda: [(list(draws((4, 6), (4, 6))), list(draws((3, 6), (3, 6), seed=1)), torch.tensor([0.5, 0.1]))],
        mistakes={
            "each checkpoint counts with its learning rate": lambda g, h, r: _pushes(g, h, torch.ones_like(r)),
            "multiply by the rate of each checkpoint, not by their mean": lambda g, h, r: _pushes(g, h, r.mean().expand_as(r)),
            "sum over the checkpoints, do not average": lambda g, h, r: _pushes(g, h, r / len(r)),
            "this is the last checkpoint alone": lambda g, h, r: _pushes(g[-1:], h[-1:], r[-1:]),
            "inner products are to be taken at one checkpoint each, before the sum": lambda g, h, r: r.mean() * torch.stack(g).sum(0) @ torch.stack(h).sum(0).T,
            "training images are rows, test images columns": lambda g, h, r: _pushes(g, h, r).T,
        },
    ),
    "6.b": Exercise(
        reference=_gained,
        inputs=lambda: [(*draws((6,), (6,)), torch.tensor([2, 0, 1, 0, 2, 2]), 4)],
        mistakes={
            "credit the gain after - before": lambda b, a, v, n: -_gained(b, a, v, n),
            "add up the gains of all visits of an image, do not average":
                lambda b, a, v, n: _gained(b, a, v, n) / v.bincount(minlength=n).clamp_min(1),
            "an image that is visited again gets every gain, not the last alone":
                lambda b, a, v, n: torch.zeros(n).double().index_put((v,), a - b),
            "these are the values after the step, not the gains": lambda b, a, v, n: _gained(0 * b, a, v, n),
            "the gain belongs to the image that was visited, not to the step's number": lambda b, a, v, n: (a - b)[:n],
        },
    ),
    "6.1": Exercise(
        reference=_pairs,
        inputs=_kernels,
        mistakes={
            "the pair's influence is not the sum of the two": lambda v:
                _off_diagonal(_single(v)[:, None] + _single(v), _single(v)),
            "without both points the estimate is a mean over N - 2": lambda v: _off_diagonal(
                v.mean().log() - ((v.sum() - v[:, None] - v) / (len(v) - 1)).log(), _single(v)),
            "the estimate without them is a mean over fewer than N points": lambda v: _off_diagonal(
                v.mean().log() - ((v.sum() - v[:, None] - v) / len(v)).log(), v.mean().log() - ((v.sum() - v) / len(v)).log()),
            "on the diagonal one point is left out, not the same one twice": lambda v: _off_diagonal(
                _pairs(v), (v.mean().log() - ((v.sum() - 2 * v) / (len(v) - 2)).log()).nan_to_num()),
            "on the diagonal stands the influence of a single point, not 0": lambda v: _off_diagonal(_pairs(v), 0 * v),
            "the sign: proponents are positive": lambda v: -_pairs(v),
            "the logarithm is missing": lambda v: 1 / (-_pairs(v)).exp() * v.mean(),
            "this is the ratio of the densities: take its logarithm": lambda v: _pairs(v).exp(),
            "each pair counts from both sides: the matrix is symmetric": lambda v: _pairs(v).triu(),
            "this is how much the pair exceeds the sum of the two": lambda v: _pairs(v) - _single(v)[:, None] - _single(v),
        },
    ),
    "6.2": Exercise(
        reference=_u_statistic,
        inputs=lambda: [(t,) for t in draws((4, 6), (6, 3))],
        mistakes={
            "the pairs s = s' are still in: this is biased upwards": lambda g: g.mean(0) @ g.mean(0),
            "these are two halves: right on average, but not all pairs are used": _halves,
            "these are the pairs s = s' alone": lambda g: g.square().sum(1).mean(),
            "there are S (S - 1) pairs, not S²": lambda g: _u_statistic(g) * (len(g) - 1) / len(g),
            "there are S (S - 1) ordered pairs; half as many if each is counted once": lambda g: 2 * _u_statistic(g),
            "divide by S (S - 1), not by S": lambda g: _u_statistic(g) * (len(g) - 1),
            "average over the pairs, do not sum": lambda g: _u_statistic(g) * len(g) * (len(g) - 1),
            "neighbouring draws are not all pairs": lambda g: (g[1:] * g[:-1]).sum(1).mean(),
            "the squared length is a sum over weights, not a mean": lambda g: _u_statistic(g) / g.shape[1],
            "the squared length is asked for, not its root": lambda g: _u_statistic(g).abs().sqrt(),
        },
    ),
    "6.3": Exercise(
        reference=_by_forming,
        inputs=lambda: [tuple(draws((3, 4, 5), (3, 4, 6), (2, 4, 5), (2, 4, 6)))],
        mistakes={
            "the bias is missing": lambda g, a, h, b: _by_forming(g, a, h, b, bias=0.0),
            "pairs of different positions count too": lambda g, a, h, b:
                torch.einsum("mtp,ntp,mtn->mn", g, h, torch.einsum("mtq,ntq->mtn", a, b) + 1),
            "the bias adds 1 at each pair of positions, not once for all": lambda g, a, h, b:
                _by_forming(g, a, h, b, bias=0.0) + torch.einsum("mtp,ntp->mn", g, h),
            "the bias's part is the product of the g alone": lambda g, a, h, b: _by_forming(g, a, h, b, bias=0.0) + 1,
            "this is the bias's part alone": lambda g, a, h, b: g.sum(1) @ h.sum(1).T,
            "the two inner products are multiplied position by position, before the sum": lambda g, a, h, b:
                torch.einsum("mtp,nup->mn", g, h) * (torch.einsum("mtq,nuq->mn", a, b) + 1),
            "sum over positions, do not average": lambda g, a, h, b: _by_forming(g, a, h, b) / 16,
            "the images of g are rows, those of h columns": lambda g, a, h, b: _by_forming(g, a, h, b).T,
            "the products of inputs and of gradients are multiplied, not added": lambda g, a, h, b:
                g.sum(1) @ h.sum(1).T + a.sum(1) @ b.sum(1).T,
        },
    ),
    "6.4": Exercise(
        reference=_cosines,
        inputs=_cosine_inputs,
        mistakes={
            "`state` is ignored: these are gradients at the model's own weights": lambda m, o, s, x, z: _cosines(m, o, _now(m), x, z),
            "these are inner products, not yet divided by the lengths": lambda m, o, s, x, z:
                tracin(m, o, [s], x, z, samples=1, unbiased=False),
            "these are inner products without the learning rate, not yet divided by the lengths": lambda m, o, s, x, z:
                _gradients(m, o, s, x) @ _gradients(m, o, s, z).T,
            "the training images' lengths are still in": lambda m, o, s, x, z: _cosines(m, o, s, x, z) * _lengths(m, o, s, x)[:, None],
            "the test images' lengths are still in": lambda m, o, s, x, z: _cosines(m, o, s, x, z) * _lengths(m, o, s, z),
            "the self-influence is a squared length: take its root": lambda m, o, s, x, z: _cosines(m, o, s, x, z)
                / (s["lr"] * torch.outer(_lengths(m, o, s, x), _lengths(m, o, s, z))),
            "the learning rate cancels: it is in the products and in both squared lengths":
                lambda m, o, s, x, z: _cosines(m, o, s, x, z) * s["lr"],
            "training images are rows, test images columns": lambda m, o, s, x, z: _cosines(m, o, s, x, z).T,
            "an opponent has a negative cosine: no absolute values": lambda m, o, s, x, z: _cosines(m, o, s, x, z).abs(),
            "these are cosines between images, not between gradients": lambda m, o, s, x, z:
                nn.functional.normalize(x.flatten(1), dim=1) @ nn.functional.normalize(z.flatten(1), dim=1).T,
        },
    ),
}
