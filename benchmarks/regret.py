"""Likelihood regret of a convolutional VAE: per-image encoders fitted side by side, beside a loop of deep copies.

The loop is how the authors of the paper do it (batches of one; Adam on a copy of the encoder; before and after it an
importance-weighted bound for which the image is encoded once per sample). Run as `python -m benchmarks.regret`.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import interleaved, report
from vaekit import VAE, dcgan, elbo, importance_bound, likelihood_regret
from vaekit.bounds import log_mean_exp
from vaekit.likelihoods import bernoulli, categorical256
from vaekit.networks import Pair

STEPS, SAMPLES = 100, 1000
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bound_of_copies(model: VAE, image: Tensor) -> Tensor:
    """The importance-weighted bound of one image, encoded once per sample, 200 at a time."""
    copies, weights = image.expand(200, -1, -1, -1), []
    for _ in range(SAMPLES // 200):
        q_z = model.posterior(copies)
        z = q_z.rsample()
        weights.append(model.log_joint(copies, z) - q_z.log_prob(z))
    return log_mean_exp(torch.cat(weights)[:, None])


def draws(model: VAE, image: Tensor) -> Tensor:
    """The ELBO of one image with 32 draws, as `likelihood_regret` scores by default."""
    return elbo(model, image, samples=32)


def loop(model: VAE, images: Tensor, bound: Callable[[VAE, Tensor], Tensor]) -> Tensor:
    """The regret of each image by itself."""
    scores = []
    for image in images.split(1):
        one = copy.copy(model)
        one._modules = {**model._modules, "encoder": copy.deepcopy(model.encoder)}
        with torch.no_grad():
            before = bound(one, image)
        optimizer = torch.optim.Adam(one.encoder.parameters(), lr=2e-4, weight_decay=5e-5)
        for _ in range(STEPS):
            optimizer.zero_grad()
            (-elbo(one, image).sum()).backward()
            optimizer.step()
        with torch.no_grad():
            scores.append(bound(one, image) - before)
    return torch.cat(scores)


def per_image(pair: Pair, likelihood: Callable, images: dict[str, int], repeats: int) -> dict[str, float]:
    """Seconds an image for each way; `images` says how many each is timed on."""
    model = VAE(*pair, latent_dim=100, likelihood=likelihood).to(device).eval()
    model.decoder.requires_grad_(False)
    x = torch.rand(max(images.values()), 1, 32, 32, device=device)
    authors = {"bound": importance_bound, "objective": elbo, "samples": SAMPLES}

    def ours(n: int, **options: object) -> Callable[[], Tensor]:
        return lambda: likelihood_regret(model, x[:n], steps=STEPS, progress=False, **options)

    seconds = interleaved(
        {
            "authors": lambda: loop(model, x[: images["authors"]], bound_of_copies),
            "loop": lambda: loop(model, x[: images["loop"]], draws),
            "importance": ours(images["importance"], **authors),
            "encoder": ours(images["encoder"]),
            "posterior": ours(images["posterior"], adapt="posterior"),
        },
        repeats=repeats,
        warm_up=1,
    )
    return {name: value / images[name] for name, value in seconds.items()}


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    few = {"authors": 2, "loop": 2, "importance": 8, "encoder": 32, "posterior": 64}
    many = dict.fromkeys(few, 512) | {"authors": 4, "loop": 4} if device.type == "cuda" else few
    cases = {
        "1 logit a pixel": (dcgan(outputs=1), bernoulli, many, 5),
        "256 logits a pixel": (dcgan(), categorical256, many if device.type == "cuda" else dict.fromkeys(few, 2), 3),
    }
    rows: list[list[object]] = []
    for name, case in cases.items():
        seconds = per_image(*case)
        base = seconds.pop("authors")
        rows.append([name, f"{1 / base:.2f}", *(f"{base / value:.1f}" for value in seconds.values())])
    report(
        "regret",
        ["decoder", "authors' way, images/s", "loop, 32 draws", "encoder, importance", "encoder", "posterior"],
        rows,
        f"The paper's networks for 32 x 32 images, {STEPS} steps of Adam. The first column is a speed, the others are "
        f"multiples of it. Importance: the bound of {SAMPLES} samples, as the authors score; the columns beside it "
        "use the ELBO with 32 draws.",
    )


if __name__ == "__main__":
    main()
