"""Two live figures for a model with two latent variables: its plane, and the posterior of a picture by hand."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from vaekit import checks
from vaekit.model import VAE
from vaekit.notebook.figures import COLOURS, image_grid
from vaekit.notebook.live import arrays, export, form

NODES = 7  # of the quadrature, each way
SIDE = 61  # points of the posterior's grid, each way


def plane(
    model: VAE,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    limit: float = 3.5,
    bits: int = 8,
    caption: str | None = None,
    alt: str = "A plane with the codes of test images, and the picture that the decoder draws at one point of it.",
) -> None:
    """Drag a point over the latent plane and see what the decoder draws there.

    Args:
        model: With two latent variables.
        images: Whose codes (posterior means) are shown, `[N, *image]`; 300 are plenty.
        labels: Their labels `[N]`, whole numbers from 0.
        names: What a label is called; by default the number.
        limit: The plane reaches from -limit to limit.
        bits: Of a weight; see `arrays.array`.
        caption: Says what there is to do; by default it also says the precision.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: Another number of latent variables, bad images, or a model that the page does not know.
    """
    _two(model)
    shape = _images(images)
    with torch.no_grad():
        codes = model.posterior(images.to(model._zero.device)).mean.cpu()
    count = 1 if labels is None else int(labels.max()) + 1
    data = {
        "model": export.model(model, shape, bits, encoder=False), "codes": arrays.array(codes, 16), "limit": limit,
        "labels": None if labels is None else labels.tolist(),
        "names": list(names or map(str, range(count))), "start": [0.5, 0.5],
    }  # fmt: skip
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.6))
    colours = COLOURS[0] if labels is None else [COLOURS[int(k) % 6] for k in labels]
    left.scatter(codes[:, 0], codes[:, 1], s=8, c=colours)
    left.plot(0.5, 0.5, "ko", ms=8)
    left.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="z₁", ylabel="z₂", aspect="equal")
    with torch.no_grad():
        drawn = model.likelihood(model._zero.new_full((1, 2), 0.5)).mean
    image_grid(drawn, columns=1, ax=right)
    words = f"Drag the point: the picture is what the decoder draws there. Weights in {bits} bits."
    form.show("plane", data, fig, caption=caption or words, alt=alt)


def posterior(
    model: VAE,
    images: Tensor,
    *,
    names: Sequence[str] | None = None,
    bits: int = 16,
    caption: str | None = None,
    alt: str = "The exact posterior of a picture as a cloud in the latent plane; a Gaussian is to be fitted to it.",
) -> None:
    r"""Fit a Gaussian to the exact posterior of a picture by hand, and watch the ELBO close in on log p(x).

    With two latent variables $p(z \mid x)$ and $\log p(x)$ come from quadrature. The ELBO of the reader's Gaussian is
    computed in the page, its expectation by Gauss-Hermite quadrature with 7 x 7 nodes.

    Args:
        model: With two latent variables.
        images: To choose from, `[N, *image]`; six are plenty. Black and white for a Bernoulli likelihood.
        names: What they show; by default "picture 1", ...
        bits: Of a weight; see `arrays.array`. The exact posterior is that of the stored weights' full precision.
        caption: Says what there is to do; by default it also says the precision.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: Another number of latent variables, bad images, or a model that the page does not know.
    """
    _two(model)
    shape = _images(images)
    names = list(names or (f"picture {k + 1}" for k in range(len(images))))
    if len(names) != len(images):
        raise ValueError(f"names: expected one for each of {len(images)} images, got {len(names)}")
    x = images.to(model._zero)
    with torch.no_grad():
        q_z = model.posterior(x)
        guesses = torch.cat([q_z.mean, q_z.stddev.log()], 1).cpu()
    cases = []
    for k, name in enumerate(names):
        window, log_joint, evidence = _exact(model, x[k : k + 1])
        cloud = (log_joint - log_joint.max()).clamp_min(-60)  # further down nothing is seen
        cases.append(
            {
                "name": name, "image": arrays.array(images[k], 16), "guess": guesses[k].tolist(), "window": window,
                "width": window[0][1] - window[0][0], "log_joint": arrays.array(cloud, 16),
                "evidence": evidence,
            }
        )  # fmt: skip
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    noise = torch.tensor(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2))
    data = {
        "model": export.model(model, shape, bits, encoder=False), "cases": cases,
        "nodes": {"noise": arrays.array(noise), "weights": np.outer(weights, weights).flatten().tolist()},
    }  # fmt: skip
    fig, ax = plt.subplots(figsize=(4, 3.8))
    window, cloud, _ = _exact(model, x[:1])
    extent = (*window[0], *window[1])
    ax.imshow((cloud - cloud.max()).exp(), cmap="Blues", origin="lower", extent=extent, aspect="auto")
    ax.set(xlabel="z₁", ylabel="z₂", title="p(z|x)")
    words = (
        "Fit the Gaussian q (orange: one and two standard deviations) to the exact posterior (blue) by dragging its "
        f"centre and its widths. The gap is the divergence from q to the posterior. Weights in {bits} bits."
    )
    form.show("posterior", data, fig, caption=caption or words, alt=alt)


@torch.no_grad()
def _exact(model: VAE, x: Tensor) -> tuple[list[tuple[float, float]], Tensor, float]:
    """For one image: a window that holds its posterior, log p(x, z) on a grid of it [y, z], and log p(x)."""

    def grid(window: list[tuple[float, float]], side: int) -> tuple[Tensor, Tensor]:
        axes = [torch.linspace(low, high, side, dtype=x.dtype, device=x.device) for low, high in window]
        points = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1).reshape(-1, 1, 2)
        log_joint = torch.cat([model.log_joint(x, part)[:, 0] for part in points.split(1000)])
        return points[:, 0], log_joint

    window = [(-5.0, 5.0), (-5.0, 5.0)]
    for side in (101, 41, 41):  # narrower and narrower about the mass
        points, log_joint = grid(window, side)
        share = log_joint.softmax(0)
        mean = share @ points
        cell = (window[0][1] - window[0][0]) / (side - 1)
        std = (share @ (points - mean).square()).sqrt().max().item()
        half = min(5.0, 5 * math.hypot(std, cell / 2) + cell)
        window = [(m - half, m + half) for m in mean.tolist()]
    _, fine = grid(window, 301)
    area = ((window[0][1] - window[0][0]) / 300) ** 2
    _, log_joint = grid(window, SIDE)
    return window, log_joint.reshape(SIDE, SIDE).cpu(), fine.logsumexp(0).item() + math.log(area)


def _two(model: VAE) -> None:
    if model.latent_dim != 2:
        raise ValueError(f"model: expected 2 latent variables, got {model.latent_dim}")


def _images(images: Tensor) -> tuple[int, ...]:
    checks.images(images, name="images")
    return tuple(images.shape[1:])
