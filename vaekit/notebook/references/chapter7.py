"""All five together."""

import itertools

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vaekit.bounds import elbo
from vaekit.consistency import Consistency, posterior_divergence
from vaekit.jacobian import JacobianL1, jacobian_l1, jacobian_l2
from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import curved_model, draws


def _terms(bound_x: Tensor, bound_tx: Tensor, kl: Tensor, jacobian: Tensor, lambda_: float, gamma: float) -> Tensor:
    weights = torch.tensor([1.0, 1.0, -lambda_, -gamma], dtype=bound_x.dtype)
    return weights @ torch.stack([bound_x, bound_tx, kl, jacobian])


def _effective(log_w: Tensor) -> Tensor:
    w = (log_w - log_w.max()).exp()
    return 1 / (w / w.sum()).square().sum()


def _effects(y: Tensor) -> Tensor:
    """The coefficients of a least-squares fit on 0/1 switches, centred so that each is an average over the others."""
    s = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=3)), dtype=y.dtype)
    columns = [torch.ones(8, dtype=y.dtype), *s.T, s[:, 0] * s[:, 1], s[:, 0] * s[:, 2], s[:, 1] * s[:, 2], s.prod(1)]
    coefficients = torch.linalg.solve(torch.stack(columns, 1), y.flatten())
    return coefficients[[1, 4]]


def _composed(model: VAE, x: Tensor, tx: Tensor, lambda_: float, gamma: float) -> Tensor:
    return JacobianL1(Consistency(elbo, lambda x: tx, weight=lambda_), weight=gamma)(model, x)


def _by_hand(
    model: VAE, x: Tensor, tx: Tensor, lambda_: float, gamma: float, *, z_of: str = "x", keep: bool = False,
    swapped: bool = False, square: bool = False, frozen: str = "", bounds: tuple[float, float] = (1.0, 1.0),
) -> Tensor:  # fmt: skip
    z = model.posterior(x if z_of == "x" else tx).rsample()
    jacobian = (jacobian_l2 if square else jacobian_l1)(model, z if keep else z.detach())
    kl = posterior_divergence(model, tx, x) if swapped else posterior_divergence(model, x, tx)
    kl, jacobian = kl.detach() if frozen == "kl" else kl, jacobian.detach() if frozen == "jacobian" else jacobian
    return bounds[0] * elbo(model, x) + bounds[1] * elbo(model, tx) - lambda_ * kl - gamma * jacobian


def _composed_inputs() -> list[tuple]:
    model, x = curved_model()
    return [(model, x.round(), x.round().flip(-1), lambda_, gamma) for lambda_, gamma in ((0.7, 0.3), (2.0, 1.5))]


def _loss(distance: Tensor, s: Tensor, lambda_: Tensor) -> Tensor:
    """Solve the normal equations for both means, with m = 0, and take the divergences from torch."""
    system = torch.stack([torch.stack([1 + lambda_, -lambda_]), torch.stack([-lambda_, 1 + lambda_])])
    mu, mu_copy = torch.linalg.solve(system, torch.stack([0 * distance, distance]))
    slack = kl_divergence(Normal(mu, s), Normal(0 * distance, s)) + kl_divergence(Normal(mu_copy, s), Normal(distance, s))
    return torch.stack([slack + lambda_ * kl_divergence(Normal(mu_copy, s), Normal(mu, s)), slack])


def _loss_inputs() -> list[tuple]:
    cases = ((1.0, 1.0, 1.0), (2.0, 0.5, 0.3), (-1.5, 0.8, 10.0), (1.0, 1.0, 0.0))
    return [tuple(torch.tensor(v) for v in case) for case in cases]


def _fraction(rule: str = "odd", order: str = "hcj") -> Tensor:
    rows = []
    for first, second, third in itertools.product((0, 1), repeat=3):
        h, c, j = (first, second, third) if order == "hcj" else (third, second, first)
        d = {"odd": (h + c + j) % 2, "even": 1 - (h + c + j) % 2, "hc": (h + c + 1) % 2, "all": h * c * j, "any": h | c | j}[rule]
        rows.append((h, c, j, d))
    return 2.0 * torch.tensor(rows, dtype=torch.float64) - 1


# fmt: off
EXERCISES = {
    "7.a": Exercise(
        reference=_terms,
        inputs=lambda: [(*draws((4,), (4,)), *(t.abs() for t in draws((4,), (4,), seed=1)), 0.7, 0.2)],
        mistakes={
            "both costs are subtracted": lambda a, b, k, j, u, v: a + b + u * k + v * j,
            "the bounds are added, not averaged": lambda a, b, k, j, u, v: _terms(a / 2, b / 2, k, j, u, v),
            "the copy's bound is missing": lambda a, b, k, j, u, v: _terms(a, 0 * b, k, j, u, v),
            "λ weighs the divergence and γ the Jacobian: they are swapped": lambda a, b, k, j, u, v: _terms(a, b, k, j, v, u),
            "λ weighs the divergence alone, not the bound": lambda a, b, k, j, u, v: a + u * (b - k) - v * j,
        },
    ),
    "7.b": Exercise(
        reference=_effective,
        inputs=lambda: [(3 * t - 500,) for t in draws((6,), (20,))],
        mistakes={
            "large log weights overflow or vanish under exp: subtract the largest first, or use softmax":
                lambda w: w.exp().sum() ** 2 / w.exp().square().sum(),
            "this is its reciprocal": lambda w: 1 / _effective(w),
            "this is a share of all draws; their effective number is asked for": lambda w: _effective(w) / len(w),
            "this is one over the largest share": lambda w: 1 / w.softmax(0).max(),
            "this is the exponential of the entropy, another count": lambda w: torch.distributions.Categorical(logits=w).entropy().exp(),
            "the squares are of the weights, not of the sum alone": lambda w: 1 / w.softmax(0).sum(),
        },
    ),
    "7.1": Exercise(
        reference=_effects,
        inputs=lambda: [(t,) for t in draws((2, 2, 2), (2, 2, 2))],
        parts=("the main effect of H", "the interaction H × C"),
        mistakes={
            "the interaction is a difference of differences, averaged over j":
                lambda y: torch.stack([(y[1] - y[0]).mean(), (y[1, 1] - y[0, 0]).mean()]),
            "a mean over the other settings, not a sum":
                lambda y: torch.stack([4 * _effects(y)[0], 2 * _effects(y)[1]]),
            "the interaction is not to be halved": lambda y: _effects(y) * torch.tensor([1.0, 0.5]),
            "an effect is on less off: the signs are the other way round": lambda y: _effects(y) * torch.tensor([-1.0, 1.0]),
            "this is the effect of H with the others off; average over them":
                lambda y: torch.stack([y[1, 0, 0] - y[0, 0, 0], _effects(y)[1]]),
            "this is the interaction with J off; average over j":
                lambda y: torch.stack([_effects(y)[0], y[1, 1, 0] - y[0, 1, 0] - y[1, 0, 0] + y[0, 0, 0]]),
            "this is the effect of C; H is the first index": lambda y: _effects(y.transpose(0, 1)),
            "this is the effect of J; H is the first index": lambda y: _effects(y.transpose(0, 2)),
            "this is the interaction H × J": lambda y: _effects(y.transpose(1, 2)),
            "the interaction and the effect are swapped": lambda y: _effects(y).flip(0),
        },
    ),
    "7.2": Exercise(
        reference=_composed,
        inputs=_composed_inputs,
        names=("x", "tx", "lambda_", "gamma"),
        mistakes={
            "z is to be detached: the Jacobian's cost leaves the encoder alone": lambda *a: _by_hand(*a, keep=True),
            "the Jacobian is taken at a draw for the original, not for the copy": lambda *a: _by_hand(*a, z_of="tx"),
            "the divergence is KL(q(z|tx) || q(z|x)): the two are swapped": lambda *a: _by_hand(*a, swapped=True),
            "the divergence is detached, and should not be": lambda *a: _by_hand(*a, frozen="kl"),
            "the Jacobian is detached: it is to teach the decoder": lambda *a: _by_hand(*a, frozen="jacobian"),
            "this is the sum of squares: the L1 norm is due": lambda *a: _by_hand(*a, square=True),
            "the copy's bound is missing": lambda *a: _by_hand(*a, bounds=(1.0, 0.0)),
            "the original's bound is missing": lambda *a: _by_hand(*a, bounds=(0.0, 1.0)),
            "the bounds are added, not averaged": lambda *a: _by_hand(*a, bounds=(0.5, 0.5)),
            "the Jacobian is subtracted once, for the original alone": lambda m, x, tx, u, v: _by_hand(m, x, tx, u, 2 * v),
            "the divergence is subtracted": lambda m, x, tx, u, v: _by_hand(m, x, tx, -u, v),
            "the Jacobian's cost is subtracted": lambda m, x, tx, u, v: _by_hand(m, x, tx, u, -v),
            "λ weighs the divergence and γ the Jacobian: they are swapped": lambda m, x, tx, u, v: _by_hand(m, x, tx, v, u),
        },
    ),
    "7.3": Exercise(
        reference=_loss,
        inputs=_loss_inputs,
        parts=("the loss", "the slack in it"),
        mistakes={
            "is a 1/2 missing in d² / 2 s²?": lambda d, s, u: 2 * _loss(d, s, u),
            "the distance counts in units of s: divide by s², not by s": lambda d, s, u: _loss(d, s**0.5, u),
            "the means meet at 1 / (1 + 2λ) of their distance, not at 1 / (1 + λ)": lambda d, s, u:
                torch.stack([1 + 0 * u, 2 * u / (1 + u)]) * u / (1 + u) * d**2 / (2 * s**2),
            "the distance enters with its square": lambda d, s, u: _loss(d.abs().sqrt(), s, u),
            "the second number is the share of the slack, not its nats":
                lambda d, s, u: torch.stack([_loss(d, s, u)[0], 2 * u / (1 + 2 * u)]),
            "the second number is what the divergence leaves; the slack is the rest of the loss":
                lambda d, s, u: torch.stack([_loss(d, s, u)[0], _loss(d, s, u)[0] - _loss(d, s, u)[1]]),
            "loss and slack are swapped": lambda d, s, u: _loss(d, s, u).flip(0),
            "not all of the loss is slack of the bounds": lambda d, s, u: _loss(d, s, u)[:1].expand(2),
            "both bounds have slack: this is one of the two": lambda d, s, u: _loss(d, s, u) * torch.tensor([1.0, 0.5]),
            "at the best means the loss is less than λ d² / 2 s²": lambda d, s, u: _loss(d, s, u) * torch.stack([1 + 2 * u, 1 + 0 * u]),
        },
    ),
    "7.4": Exercise(
        reference=_fraction,
        inputs=lambda: [()],
        parts=("column H", "column C", "column J", "column D"),
        mistakes={
            "D is on where an odd number is on, not an even one": lambda: _fraction("even"),
            "D takes J into account as well": lambda: _fraction("hc"),
            "D is on where an odd number is on, not only where all are": lambda: _fraction("all"),
            "D is on where an odd number is on, not wherever any is": lambda: _fraction("any"),
            "the rows are in another order: J changes fastest": lambda: _fraction(order="jch"),
            "code off as -1 and on as +1, not as 0 and 1": lambda: (_fraction() + 1) / 2,
            "off is -1 and on is +1: all signs are turned": lambda: -_fraction(),
            "D comes last, after H, C, J": lambda: _fraction()[:, [3, 0, 1, 2]],
            "the columns are H, C, J, D: one row for each run": lambda: _fraction().T,
        },
    ),
}
