r"""The ring of the Hamiltonian chapter: one pixel that is the distance of $z$ from the origin, seen as 1.5."""

import math

import matplotlib.pyplot as plt
import torch

from vaekit.notebook.figures import COLOURS
from vaekit.notebook.live import arrays, form
from vaekit.training import seeded

SEEN, SCALE, ROUNDING = 1.5, 0.3, 0.01


def flow(
    *,
    step_size: float = 0.14,
    steps: int = 10,
    sqrt_beta_0: float = 0.5,
    mean: tuple[float, float] = (0.0, 0.0),
    width: float = 0.9,
    particles: int = 400,
    seed: int = 0,
    caption: str | None = None,
    alt: str = "Particles from a round start have spread along a ring-shaped posterior; beside it the gap of the bound "
    "against the step size, which rises steeply beyond 0.57.",
) -> None:
    r"""Carry particles from a Gaussian to a ring by tempered leapfrog steps, with everything to be moved by hand.

    The model is $p(x \mid z) = \mathcal N(\sqrt{|z|^2 + 0.01}, 0.3^2)$ with $x = 1.5$; the evidence comes from
    quadrature, the bound from the particles on the page, tempering is *fixed*: $1/\sqrt{\beta_k}$ quadratic in k.

    Args:
        step_size: $\epsilon$ at the beginning, above 0.
        steps: K at the beginning, from 1 to 30.
        sqrt_beta_0: $\sqrt{\beta_0}$ at the beginning, from 0.2 to 1 (no tempering).
        mean: Of the start.
        width: Its standard deviation, from 0.05 to 1.5.
        particles: How many.
        seed: Of their noise, which stays the same whatever is moved.
        caption: Says what there is to do.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: A number outside its range.
    """
    ranges = {
        "step_size": (step_size, 0.01, 0.8), "steps": (steps, 1, 30), "sqrt_beta_0": (sqrt_beta_0, 0.2, 1),
        "width": (width, 0.05, 1.5), "particles": (particles, 2, 2000),
    }  # fmt: skip
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ValueError(f"{name}: expected from {low} to {high}, got {value}")
    with seeded(seed):
        noise = torch.randn(particles, 4)  # of z and of the momentum
    limit = 2.6
    axis = torch.linspace(-3.5, 3.5, 401, dtype=torch.float64)
    radius = (axis.square()[:, None] + axis.square() + ROUNDING).sqrt()
    log_joint = -(radius.square() - ROUNDING) / 2 - ((radius - SEEN) / SCALE).square() / 2
    log_joint = log_joint - 1.5 * math.log(2 * math.pi) - math.log(SCALE)
    data = {
        "seen": SEEN, "scale": SCALE, "rounding": ROUNDING, "limit": limit, "noise": arrays.array(noise),
        "evidence": log_joint.logsumexp((0, 1)).item() + 2 * math.log(7 / 400),
        "start": {"step": step_size, "K": steps, "root": sqrt_beta_0, "mean": list(mean), "width": width},
    }  # fmt: skip
    fig, ax = plt.subplots(figsize=(4.2, 3.6))
    ax.contourf(axis, axis, (log_joint - log_joint.max()).exp(), levels=[0.05, 0.2, 0.5, 0.8, 1], cmap="Blues")
    z = torch.tensor(mean) + width * noise[:, :2]
    ax.scatter(z[:, 0], z[:, 1], s=4, color=COLOURS[1])
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="z₁", ylabel="z₂")
    words = (
        f"{particles} draws of a Gaussian start (dashed) on their way to the ring (blue) in K leapfrog steps. Drag the "
        "start or the step size; beyond the dashed line the steps are unstable. Everything is computed as you move it."
    )
    form.show("flow", data, fig, caption=caption or words, alt=alt)
