"""The Jacobian L1 penalty."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vaekit.bounds import elbo
from vaekit.jacobian import decoder_jacobian
from vaekit.model import VAE
from vaekit.notebook.references import Exercise
from vaekit.notebook.references.models import curved_model, draws


def _decode(z: Tensor) -> Tensor:
    """Some decoder: z [B, 3] -> [B, 4]."""
    return torch.stack([z[:, 0] * z[:, 1], z[:, 2].sin(), (z**2).sum(1), z[:, 0] + 2 * z[:, 2].exp()], 1)


def _column(decode: Callable, z: Tensor, i: int) -> Tensor:
    full = torch.autograd.functional.jacobian(decode, z)  # [B, P, B, D]; row b depends on z_b alone
    return full[..., i].diagonal(dim1=0, dim2=2).T


def _gap(information: Tensor, entropy: Tensor) -> Tensor:
    sorted_ = information.sort(0, descending=True).values
    return (sorted_[0] - sorted_[1]) / entropy


def _rotated(a: Tensor, b: Tensor, angle: Tensor) -> Tensor:
    """Two columns of four pixels with these norms, rotated entry by entry."""
    J = torch.stack([torch.stack([0.3 * a, -0.7 * a, 0 * a, 0 * a]), torch.stack([0 * b, 0 * b, -0.9 * b, 0.1 * b])], 1)
    return (J @ _rotation(angle)).abs().sum()


def _rotation(angle: Tensor) -> Tensor:
    return torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])


def _jacobian(W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda z: torch.sigmoid(W2 @ torch.tanh(W1 @ z + b1) + b2), z)


def _network(W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(W1 @ z + b1)
    return h, torch.sigmoid(W2 @ h + b2)


def _l1(J: Tensor, angles: Tensor) -> Tensor:
    """Of the pair J [P, 2], rotated by each of the angles [A]: [A]."""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return ((cos * J[:, 0] + sin * J[:, 1]).abs() + (cos * J[:, 1] - sin * J[:, 0]).abs()).sum(1)


def _least(J: Tensor, sign: float = 1.0) -> Tensor:
    """By closing in on the best of a fine grid of angles; `sign` -1 gives the greatest."""
    low, high = 0.0, math.pi / 2
    angles = torch.linspace(low, high, 400, dtype=J.dtype)
    for _ in range(6):
        angles = torch.linspace(low, high, 400, dtype=J.dtype)
        best = angles[(sign * _l1(J, angles)).argmin()].item()
        low, high = best - 2 * (high - low) / 400, best + 2 * (high - low) / 400
    return sign * (sign * _l1(J, angles)).min()


def _principal(J: Tensor) -> Tensor:
    return (J @ torch.linalg.svd(J, full_matrices=False).Vh.T).abs().sum()


def _penalty(
    model: VAE, x: Tensor, weight: float, *, keep: str = "", width: str = "std", norm: str = "l1", J_from: str = ""
) -> Tensor:
    """The ELBO less the widths times the columns' norms, by central differences; the options make mistakes."""
    q_z = model.posterior(x)
    z, sigma = q_z.rsample(), q_z.stddev
    z = z if "z" in keep else z.detach()
    sigma = sigma if "sigma" in keep else sigma.detach()
    sigma = {"std": sigma, "variance": sigma**2, "none": torch.ones_like(sigma), "inverse": 1 / sigma}[width]
    value, step = torch.zeros(()), 1e-5
    for i in range(model.latent_dim):
        shift = step * torch.eye(model.latent_dim, dtype=x.dtype)[i]
        column = (model.likelihood(z + shift).mean - model.likelihood(z - shift).mean).flatten(1) / (2 * step)
        size = {"l1": column.abs().sum(1), "l2": column.square().sum(1), "mean": column.abs().mean(1)}[norm]
        value = value + sigma[:, i] * (size.detach() if J_from == "detached" else size)
    return elbo(model, x) - weight * value


def _width_inputs() -> list[tuple]:
    model, x = curved_model()
    return [(model, x, 0.5), (model, x, 3.0)]


# fmt: off
EXERCISES = {
    "4.a": Exercise(
        reference=_column,
        inputs=lambda: [(_decode, *draws((5, 3)), i) for i in range(3)],
        mistakes={
            "this is the image itself, not how it changes": lambda g, z, i: g(z),
            "this is a gradient of the summed image, a row of numbers: push a tangent forwards instead":
                lambda g, z, i: torch.stack([_column(g, z, k).sum(1) for k in range(z.shape[1])], 1),
            "these are all columns at once: only latent i moves": lambda g, z, i: sum(_column(g, z, k) for k in range(z.shape[1])),
            "this is another latent's column": lambda g, z, i: _column(g, z, (i + 1) % 3),
            "it has the wrong sign": lambda g, z, i: -_column(g, z, i),
        },
        tolerance=1e-5,
    ),
    "4.b": Exercise(
        reference=_gap,
        inputs=lambda: [(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1.5, 2.0, 2.5]))],
        mistakes={
            "divide by the factor's entropy": lambda i, h: _gap(i, torch.ones_like(h)),
            "the second best latent is subtracted, not the worst": lambda i, h: (i.max(0).values - i.min(0).values) / h,
            "the second best latent is subtracted, not the mean": lambda i, h: (i.max(0).values - i.mean(0)) / h,
            "only the best latent is here: subtract the second best": lambda i, h: i.max(0).values / h,
            "the sign: best less second best": lambda i, h: -_gap(i, h),
        },
    ),
    "4.1": Exercise(
        reference=_rotated,
        inputs=lambda: [tuple(torch.tensor(v) for v in c) for c in ((1.0, 1.3, 0.0), (1.0, 3.0, 0.6), (2.0, 0.5, 2.5), (1.0, 2.0, -1.0))],
        mistakes={
            "for some angles a sine or cosine is negative": lambda a, b, t: (a + b) * (t.cos() + t.sin()),
            "this is one of the two new columns": lambda a, b, t: a * t.cos().abs() + b * t.sin().abs(),
            "this is the other one of the two new columns": lambda a, b, t: a * t.sin().abs() + b * t.cos().abs(),
            "the L1 norm does change: each pixel now has a part in both columns": lambda a, b, t: (a + b) * torch.ones_like(t),
            "that would be the L2 norm, which a rotation leaves alone": lambda a, b, t: (a**2 + b**2).sqrt(),
            "the sine's part is missing": lambda a, b, t: (a + b) * t.cos().abs(),
            "the angle is in radians": lambda a, b, t: _rotated(a, b, t * math.pi / 180),
            "the absolute value is to be taken before the sum": lambda a, b, t: (a + b) * (t.cos() + t.sin()).abs(),
            "it should not shrink: at angle 0 it is a + b": lambda a, b, t: _rotated(a, b, t) / (t.cos().abs() + t.sin().abs()) ** 2,
        },
    ),
    "4.2": Exercise(
        reference=_jacobian,
        inputs=lambda: [tuple(scale * w for w in draws((7, 3), (7,), (5, 7), (5,), (3,))) for scale in (1.0, 0.5)],
        mistakes={
            "this is the transpose": lambda *w: _jacobian(*w).T,
            "the sigmoid's derivative p (1 - p) is missing": lambda *w: w[2] @ ((1 - _network(*w)[0] ** 2)[:, None] * w[0]),
            "the hidden layer's derivative 1 - h² is missing":
                lambda *w: (_network(*w)[1] * (1 - _network(*w)[1]))[:, None] * (w[2] @ w[0]),
            "both layers' derivatives are missing": lambda *w: w[2] @ w[0],
            "the derivative of tanh is 1 - h², not 1 - h":
                lambda *w: (_network(*w)[1] * (1 - _network(*w)[1]))[:, None] * (w[2] @ ((1 - _network(*w)[0])[:, None] * w[0])),
            "the derivative of tanh is 1 - h², with h after the tanh":
                lambda *w: (_network(*w)[1] * (1 - _network(*w)[1]))[:, None]
                * (w[2] @ ((1 - (w[0] @ w[4] + w[1]) ** 2)[:, None] * w[0])),
            "the sigmoid's derivative is p (1 - p), not 1 - p²":
                lambda *w: (1 - _network(*w)[1] ** 2)[:, None] * (w[2] @ ((1 - _network(*w)[0] ** 2)[:, None] * w[0])),
            "the biases are missing": lambda *w: _jacobian(w[0], 0 * w[1], w[2], 0 * w[3], w[4]),
        },
    ),
    "4.3": Exercise(
        reference=_least,
        inputs=lambda: [(J,) for J in draws((5, 2), (8, 2), (3, 2), seed=3)],
        mistakes={
            "this is the L1 norm before any rotation": lambda J: J.abs().sum(),
            "these are the principal axes, which are best for L2 noise and not for the L1 norm": _principal,
            "this is the greatest, not the least": lambda J: _least(J, -1.0),
            "this is one of the two columns: the other counts too":
                lambda J: torch.stack([(J @ _rotation(t))[:, 0].abs().sum() for t in torch.atan2(-J[:, 0], J[:, 1])]).min(),
            "a grid of angles comes close, but the minimum is at a kink: try those angles only":
                lambda J: _l1(J, torch.linspace(0, math.pi / 2, 91, dtype=J.dtype)).min(),
            "at a kink an entry of a rotated column is zero: check the sign of the angle":
                lambda J: _l1(J, torch.atan2(J[:, 0], J[:, 1])).min(),
        },
        tolerance=1e-5,
    ),
    "4.4": Exercise(
        reference=_penalty,
        inputs=_width_inputs,
        names=("x", "weight"),
        mistakes={
            "no gradient of the penalty reaches the decoder: the Jacobian is detached": lambda *a: _penalty(*a, J_from="detached"),
            "z is to be detached: the penalty leaves the encoder alone": lambda *a: _penalty(*a, keep="z"),
            "sigma is to be detached: the penalty leaves the encoder alone": lambda *a: _penalty(*a, keep="sigma"),
            "z and sigma are to be detached: the penalty leaves the encoder alone": lambda *a: _penalty(*a, keep="z sigma"),
            "the widths are missing: this is JacobianL1": lambda *a: _penalty(*a, width="none"),
            "the standard deviation is due, not the variance": lambda *a: _penalty(*a, width="variance"),
            "multiply by the width, do not divide": lambda *a: _penalty(*a, width="inverse"),
            "this is the sum of squares; the L1 norm is due": lambda *a: _penalty(*a, norm="l2"),
            "sum over pixels, do not average": lambda *a: _penalty(*a, norm="mean"),
            "the penalty is subtracted: the objective is maximised": lambda m, x, w: _penalty(m, x, -w),
            "the penalty is missing: this is the ELBO": lambda m, x, w: elbo(m, x),
            "the weight is missing": lambda m, x, w: _penalty(m, x, 1.0),
            "sigma and columns belong together latent by latent: multiply before the sum":
                lambda m, x, w: elbo(m, x) - w * m.posterior(x).stddev.detach().sum(-1)
                * decoder_jacobian(m, m.posterior(x).rsample().detach()).flatten(1).abs().sum(-1),
        },
    ),
}
