"""Live figures of the Jacobian chapter: the columns at three dots, and two columns whose basis is turned."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vaekit.datasets import render_three_dots
from vaekit.jacobian import decoder_jacobian
from vaekit.model import VAE, evaluating
from vaekit.notebook.live import export, form


def columns(
    models: Mapping[str, VAE],
    *,
    size: int,
    start: tuple[float, ...] = (12, 20, 32, 44, 51, 16),
    shown: int = 6,
    bits: export.Bits = 8,
    caption: str | None = None,
    alt: str = "Three dots, and for each model the strongest columns of its Jacobian at their code.",
) -> None:
    r"""Drag three dots and see what each latent of a model would change in the picture.

    Args:
        models: One or more models of three black dots on white, by name; their images are `[1, size, size]`.
        size: Pixels on a side.
        start: Where the dots are, x and y of each in turn, from 0 to 63 as for `render_three_dots`.
        shown: How many columns of each model, strongest first.
        bits: Of a weight, or two numbers, for encoders and decoders; see `arrays.array`.
        caption: Says what there is to do; by default also which precision the weights have.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: No models, bad positions, more columns than latents, or a model that the page does not know.
    """
    if not models:
        raise ValueError("models: expected at least one, got none")
    if len(start) != 6 or not all(0 <= v <= 63 for v in start):
        raise ValueError(f"start: expected six numbers from 0 to 63, got {start}")
    fewest = min(model.latent_dim for model in models.values())
    if not 1 <= shown <= fewest:
        raise ValueError(f"shown: expected from 1 to {fewest} (the latents of each model), got {shown}")
    image = render_three_dots(torch.tensor([start], dtype=torch.float64), size)
    fig, axes = plt.subplots(len(models), shown + 1, figsize=(8, 1.3 * len(models)), squeeze=False)
    lost = 0.0
    for line, (name, model) in zip(axes, models.items(), strict=True):
        ours, theirs = (_columns(each, image) for each in (model, export.as_stored(model, bits)))
        lost = max(lost, ((ours - theirs).abs().sum() / ours.abs().sum()).item())
        order = ours.abs().flatten(1).sum(1).argsort(descending=True)[:shown]
        line[0].imshow(1 - image[0, 0])
        line[0].set_title(name, fontsize=9, loc="left")
        for ax, column in zip(line[1:], ours[order], strict=True):
            ax.imshow(column[0], cmap="PuOr_r", vmin=-ours.abs().max(), vmax=ours.abs().max())
        for ax in line:
            ax.set_axis_off()
    data = {
        "models": [
            {"name": name, "model": export.model(model, (1, size, size), bits)} for name, model in models.items()
        ],
        "size": size, "start": list(start), "shown": shown,
    }  # fmt: skip
    words = (
        "Drag the dots. Each small picture is a column of the Jacobian: blue becomes darker, orange lighter, when one "
        f"latent grows; the {shown} strongest of each model. Weights in {export.in_words(bits)}, which changes the "
        f"columns of the first picture by {float(f'{100 * lost:.1g}'):g} % (in the L1 norm)."
    )
    form.show("columns", data, fig, caption=caption or words, alt=alt)


def basis(
    *,
    size: int = 32,
    caption: str | None = None,
    alt: str = "Two dots and the two columns of a turned basis, with the L1 norm against the angle: least at 0 and 90 "
    "degrees, 41 per cent more at 45.",
) -> None:
    r"""Turn the basis of two latents against two dots that they move, and see the L1 norm and the sum of squares.

    No model is needed: the dots are drawn on the page, with an edge of three pixels, and differentiated exactly.

    Args:
        size: Pixels on a side, at least 16.
        caption: Says what there is to do.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: `size` is below 16.
    """
    if size < 16:
        raise ValueError(f"size: expected at least 16 pixels, got {size}")
    angle = torch.linspace(0, torch.pi / 2, 91)
    fig, ax = plt.subplots(figsize=(4.6, 3))
    ax.plot(angle.rad2deg(), angle.cos() + angle.sin(), label="L1: two dots")
    ax.plot(angle.rad2deg(), torch.ones(91), "--", label="sum of squares; L1: one round dot")
    ax.set(xlabel="angle, degrees", ylabel="norm, relative to 0°")
    ax.legend()
    data = {
        "size": size, "radius": 0.16 * size, "soft": 3,
        "start": [[0.28 * size, 0.5 * size], [0.72 * size, 0.5 * size]],
    }  # fmt: skip
    words = (
        "Two latents move two dots. Turn their basis: the columns mix, the sum of squares stays, the L1 norm does not. "
        "Push the dots together, or let both latents move one dot, and descend again."
    )
    form.show("basis", data, fig, caption=caption or words, alt=alt)


@torch.no_grad()
def _columns(model: VAE, image: Tensor) -> Tensor:
    """Columns `[D, 1, H, W]` at the code of one image."""
    with evaluating(model):
        return decoder_jacobian(model, model.posterior(image.to(model._zero)).mean)[0].cpu().double()
