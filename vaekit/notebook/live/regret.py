"""A live figure of the regret chapter: draw anything and see its likelihood and its regret."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vaekit import checks
from vaekit.model import VAE
from vaekit.notebook.figures import image_rows
from vaekit.notebook.live import arrays, export, form
from vaekit.regret import likelihood_regret, negative_log_likelihood
from vaekit.training import seeded


def regret(
    model: VAE,
    sets: Mapping[str, Tensor],
    *,
    examples: int = 3,
    steps: int = 100,
    lr: float = 2e-2,
    samples: int = 16,
    nll_samples: int = 32,
    seed: int = 0,
    bits: int = 12,
    trained: str = "",
    caption: str | None = None,
    alt: str = "Pictures of several data sets to begin with; the live figure takes drawings.",
) -> None:
    r"""Draw a picture; the page shows its reconstruction, its likelihood and the likelihood regret with its curve.

    The scores are `likelihood_regret(model, x, adapt="posterior", steps=steps, lr=lr, samples=samples)` and an
    importance estimate of the negative log-likelihood; on the page all pictures see the same noise.

    Args:
        model: Of images of one channel, `[1, H, W]`.
        sets: Test images by the name of their data set, `[N, 1, H, W]`; the first is the model's own world. Their
            scores make the histograms: 200 of each are plenty.
        examples: How many images of each set the reader may begin with.
        steps: Of Adam.
        lr: Their learning rate.
        samples: Draws of the bound before and after.
        nll_samples: Draws of the likelihood.
        seed: Of the noise.
        bits: Of a weight; see `arrays.array`.
        trained: How the model was trained, for the caption.
        caption: Says what there is to do; by default also which precision the weights have.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: Fewer than two sets, images of several channels, or a model that the page does not know.
    """
    if len(sets) < 2:
        raise ValueError(f"sets: expected the model's world and at least one other set, got {len(sets)}")
    for name, images in sets.items():
        checks.images(images, name=f"sets[{name!r}]", unit_range=True)
    world, first = next(iter(sets.items()))
    shape = tuple(first.shape[1:])
    if len(shape) != 3 or shape[0] != 1:
        raise ValueError(f"sets: expected images [N, 1, H, W], got shape {tuple(first.shape)}")
    device, size = model._zero.device, model.latent_dim
    scores = {}
    for name, images in sets.items():
        with seeded(seed, device):
            nll = negative_log_likelihood(model, images, samples=nll_samples)
        gain = likelihood_regret(
            model, images.to(device), adapt="posterior", steps=steps, lr=lr, samples=samples, seed=seed, progress=False
        )
        scores[name] = {
            "nll": [round(v, 3) for v in nll.tolist()],
            "regret": [round(v, 3) for v in gain.tolist()],
        }
    noise = {}
    with seeded(seed):
        noise["score"] = torch.randn(samples, 1, size)
    with seeded(seed + 1):
        noise["climb"] = torch.cat([torch.randn(1, 1, size) for _ in range(steps)])
    with seeded(seed + 2):
        noise["nll"] = torch.randn(nll_samples, size)
    data = {
        "model": export.model(model, shape, bits), "lr": lr, "every": max(1, steps // 10), "sets": scores,
        "world": world,
        "noise": {name: arrays.array(values) for name, values in noise.items()},
        "examples": [
            {"name": f"{name} {k + 1}", "image": arrays.array(image, 8)}
            for name, images in sets.items() for k, image in enumerate(images[:examples])
        ],
    }  # fmt: skip
    fig = image_rows({name: images[:8] for name, images in sets.items()})
    lost = max(export.nats_lost(model, images[:32], bits) for images in sets.values())
    words = (
        f"Draw, or begin with a picture. The model has only ever seen {world}{trained and f' ({trained})'}. Its regret "
        f"is what {steps} steps of Adam on the mean and the log standard deviation of q gain for this picture alone. "
        f"Weights in {bits} bits, which changes the ELBO by at most {lost:.2g} nats on pictures of the histograms."
    )
    form.show("regret", data, fig, caption=caption or words, alt=alt)
