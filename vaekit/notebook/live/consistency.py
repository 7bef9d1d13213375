"""A live figure of the consistency chapter: an image on a dial, and what several encoders make of its copies."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Ellipse
from torch import Tensor

from vaekit import checks
from vaekit.consistency import affine, posterior_divergence
from vaekit.model import VAE
from vaekit.notebook.figures import COLOURS
from vaekit.notebook.live import arrays, export, form


def dial(
    models: Mapping[str, VAE],
    images: Tensor,
    *,
    names: Sequence[str] | None = None,
    reach: float = 60.0,
    start: float = 20.0,
    limit: float = 3.5,
    binary: bool = True,
    bits: int = 8,
    caption: str | None = None,
    alt: str = "The posteriors of a picture and of its turned copy under each encoder, ellipses in the latent plane.",
) -> None:
    r"""Turn an image by a dial; each encoder's two posteriors, and their divergence split into means and widths.

    $$\mathrm{KL}(\tilde q \,\|\, q) = \sum_d \frac{(\tilde\mu_d - \mu_d)^2}{2 \sigma_d^2}
      + \frac12 \sum_d \Big[\frac{\tilde\sigma_d^2}{\sigma_d^2} - 1 - \log\frac{\tilde\sigma_d^2}{\sigma_d^2}\Big].$$

    Args:
        models: With two latent variables each, by name; only their encoders travel.
        images: To choose from, `[N, 1, H, W]`.
        names: What they show; by default "picture 1", ...
        reach: Degrees to either side.
        start: The angle at the beginning.
        limit: The latent planes reach from -limit to limit.
        binary: Whether copies are rounded to black and white, as the images are.
        bits: Of a weight; see `arrays.array`. Four encoders of 784-200 fit with 4 bits, three with 5.
        caption: Says what there is to do; by default also which precision the weights have.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: No models, other than two latent variables, bad images, or an encoder that the page does not know.
    """
    if not models or any(model.latent_dim != 2 for model in models.values()):
        raise ValueError(f"models: expected at least one, of 2 latent variables each, got {[*models]}")
    checks.images(images, name="images", unit_range=True)
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images: expected [N, 1, H, W], got shape {tuple(images.shape)}")
    names = list(names or (f"picture {k + 1}" for k in range(len(images))))
    if len(names) != len(images):
        raise ValueError(f"names: expected one for each of {len(images)} images, got {len(names)}")
    shape = tuple(images.shape[1:])
    data = {
        "models": [
            {"name": name, "model": export.model(model, shape, bits, decoder=False)} for name, model in models.items()
        ],
        "images": [{"name": name, "image": arrays.array(x, 16)} for name, x in zip(names, images, strict=True)],
        "reach": reach, "limit": limit, "round": binary, "start": start,
    }  # fmt: skip
    copies = affine(images, angle=start)
    copies = copies.round() if binary else copies
    fig, axes = plt.subplots(1, len(models), figsize=(2.4 * len(models), 2.8), squeeze=False)
    change = 0.0
    for ax, (name, model) in zip(axes[0], models.items(), strict=True):
        pair = [x.to(model._zero) for x in (images, copies)]
        with torch.no_grad():
            kl, stored = (posterior_divergence(each, *pair).mean() for each in (model, export.as_stored(model, bits)))
            change = max(change, ((stored - kl).abs() / kl.clamp_min(1e-9)).item())
            for x, colour in zip(pair, COLOURS, strict=False):
                q_z = model.posterior(x[:1])
                mean, std = q_z.mean[0].tolist(), q_z.stddev[0].tolist()
                ax.add_patch(Ellipse((mean[0], mean[1]), 2 * std[0], 2 * std[1], fc=colour, ec=colour, alpha=0.5))
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=name)
    words = (
        "Turn the picture. Blue: the posterior of the original; orange, dashed: that of the copy, one standard "
        "deviation each; grey: the way of the copy's mean as the dial turns. The divergence has two parts, from moved "
        f"means and from changed widths. Weights in {bits} bits, which changes the mean divergence at {start:g}° by at "
        f"most {float(f'{100 * change:.1g}'):g} %."
    )
    form.show("dial", data, fig, caption=caption or words, alt=alt)
