"""Live figures of the influence chapter: exact influence among points, and a digit's teachers by TracIn."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.influence import kde_influence
from vaekit.influence.asked import Checkpoint, noise_seeds, read_checkpoint
from vaekit.model import VAE
from vaekit.notebook.figures import image_grid
from vaekit.notebook.live import arrays, export, form
from vaekit.training import seeded


def influence_points(
    points: Tensor | None = None,
    *,
    test: tuple[float, float] = (-1.6, 0.6),
    k: int = 5,
    bandwidth: float = 0.5,
    components: int = 2,
    caption: str | None = None,
    alt: str = "Training points in two clusters and an outlier, coloured by their influence on a star between them.",
) -> None:
    """Drag training points and a test point; the exact influence of each under four densities.

    Args:
        points: `[N, 2]`, from 10 to 80; by default two clusters of 20 and an outlier.
        test: Where the test point is.
        k: Of the nearest neighbours.
        bandwidth: Of the kernel density estimate.
        components: Of the Gaussian mixture.
        caption: Says what there is to do.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: Bad points or numbers.
    """
    if points is None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.tensor([[-1.5, 0.0], [1.5, 0.4]], dtype=torch.float64)
        scattered = [c + 0.55 * torch.randn(20, 2, generator=generator, dtype=torch.float64) for c in centres]
        points = torch.cat([*scattered, torch.tensor([[0.2, 2.6]], dtype=torch.float64)])
    checks.images(points, name="points")
    if points.ndim != 2 or points.shape[1] != 2 or not 10 <= len(points) <= 80:
        raise ValueError(f"points: expected [N, 2] with N from 10 to 80, got shape {tuple(points.shape)}")
    for name, value, most in (("k", k, 12), ("components", components, 4)):
        if not 1 <= value <= most:
            raise ValueError(f"{name}: expected from 1 to {most}, got {value}")
    checks.positive(bandwidth, "bandwidth")
    low, high = points.amin(0) - 0.7, points.amax(0) + 0.7
    window = [[low[d].item(), high[d].item()] for d in (0, 1)]
    star = torch.tensor([test], dtype=points.dtype)
    influence = kde_influence(points, star, bandwidth=bandwidth)[:, 0]
    fig, ax = plt.subplots(figsize=(5.4, 4))
    ax.scatter(
        points[:, 0], points[:, 1], c=influence, cmap="coolwarm_r", vmin=-0.5, vmax=0.5, s=40, edgecolors="black"
    )
    ax.plot(*test, "k*", ms=15)
    ax.set(xlim=window[0], ylim=window[1])
    data = {
        "points": points.tolist(), "test": list(test), "k": k, "bandwidth": bandwidth, "components": components,
        "window": window,
    }  # fmt: skip
    words = (
        "Drag the star and the points. A point's area and colour are its influence on the star: blue where the star "
        "would be less likely without it, orange where it would be more likely. Each point is really left out and the "
        "density fitted again. Green: the density."
    )
    form.show("influence", data, fig, caption=caption or words, alt=alt)


def teachers(
    model: VAE,
    checkpoints: Sequence[Checkpoint],
    train: Tensor,
    queries: Tensor,
    *,
    labels: Sequence[object] | None = None,
    names: Sequence[str] | None = None,
    samples: int = 4,
    seed: int = 0,
    shown: int = 6,
    bits: int = 16,
    trained: str = "",
    caption: str | None = None,
    alt: str = "Pictures to ask about; the live figure shows the training images that helped and hurt with them.",
) -> None:
    r"""Choose or draw a picture; its proponents and opponents, live from the checkpoints by TracIn.

    The scores are those of `tracin(model, elbo, checkpoints, train, queries, samples=samples, seed=seed)`, with the
    same noise, but for the precision of the weights.

    Args:
        model: Perceptrons, as from `vaekit.mlp`, with a Bernoulli or a Gaussian likelihood.
        checkpoints: As for `tracin`; five are plenty.
        train: Training images `[M, 1, H, W]`; 600 of 8 x 8 take a second on the page.
        queries: To choose from, `[N, 1, H, W]`.
        labels: What each training image is called.
        names: What the queries show.
        samples: Draws of the noise, an even number.
        seed: Of the noise.
        shown: How many proponents and opponents.
        bits: Of a weight; see `arrays.array`.
        trained: How the model was trained, for the caption.
        caption: Says what there is to do; by default also which precision the weights have.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: Layers with weights other than `Linear`, bad images, numbers or checkpoints.
    """
    for name, images in (("train", train), ("queries", queries)):
        checks.images(images, name=name, unit_range=True)
    shape = tuple(train.shape[1:])
    if len(shape) != 3 or shape[0] != 1 or tuple(queries.shape[1:]) != shape:
        raise ValueError(
            f"queries: expected [N, 1, H, W] as train, got {tuple(queries.shape)} and {tuple(train.shape)}"
        )
    if samples < 2 or samples % 2:
        raise ValueError(f"samples: expected an even number, at least 2, got {samples}")
    if labels is not None and len(labels) != len(train):
        raise ValueError(f"labels: expected one for each of {len(train)} training images, got {len(labels)}")
    if not 1 <= shown <= len(train):
        raise ValueError(f"shown: expected from 1 to {len(train)}, got {shown}")
    if strange := [m for m in model.modules() if [*m.parameters(recurse=False)] and not isinstance(m, nn.Linear)]:
        raise ValueError(f"model: TracIn on the page knows layers of weights of the kind Linear, not {strange[0]}")
    read = [read_checkpoint(checkpoint) for checkpoint in checkpoints]
    if not read:
        raise ValueError("checkpoints: expected at least one, got none")
    names = list(names or (f"picture {i + 1}" for i in range(len(queries))))
    copied = export.as_stored(model, 32)
    described = []
    for state, halves in zip(read, noise_seeds(seed, len(read), samples, unbiased=True), strict=True):
        copied.load_state_dict(state["model"])
        noise = []
        for seeds in halves:
            draws = []
            for each in seeds:
                with seeded(each):
                    draws.append(torch.randn(1, 1, model.latent_dim))
            noise.append(arrays.array(torch.cat(draws)))
        described.append({"model": export.model(copied, shape, bits), "lr": state["lr"], "noise": noise})
    data = {
        "checkpoints": described, "shape": list(shape), "shown": shown,
        "train": arrays.array(train, 16), "labels": None if labels is None else [str(v) for v in labels],
        "queries": [{"name": name, "image": arrays.array(x, 16)} for name, x in zip(names, queries, strict=True)],
    }  # fmt: skip
    fig = image_grid(queries, columns=len(queries)).figure
    words = (
        f"Choose a picture or draw one: the {shown} of {len(train)} training images whose gradients, at {len(read)} "
        f"checkpoints, helped the model most with it, and those that hurt{trained and f' ({trained})'}. The numbers "
        f"are TracIn scores, from {samples} draws of the noise. Weights in {bits} bits."
    )
    form.show("teachers", data, fig, caption=caption or words, alt=alt)  # type: ignore[arg-type]
