"""A training step of CR-VAE beside a plain one of the same batch, random transforms included: VAE 784-400-20, Adam.

The plain step sees B images; the others see these and a copy of each. Run as `python -m benchmarks.consistency`.
"""

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from benchmarks.timing import interleaved, report
from vaekit import VAE, Consistency, elbo, mlp
from vaekit.checks import trusted
from vaekit.consistency import RandomAffine
from vaekit.training import Objective

BATCHES, REPEATS = (100, 500), 60
TRANSFORM = RandomAffine(degrees=15, translate=0.05, scale=(0.9, 1.1))


def two_passes(model: VAE, x: Tensor) -> Tensor:
    """The same objective, written as its formula reads: each term on its own."""
    tx = TRANSFORM(x)
    return elbo(model, x) + elbo(model, tx) - kl_divergence(model.posterior(tx), model.posterior(x))


class Step:
    """One step of Adam on a model of its own."""

    def __init__(self, objective: Objective, x: Tensor) -> None:
        torch.manual_seed(0)
        self.model, self.objective, self.x = VAE(*mlp((1, 28, 28), 20), latent_dim=20), objective, x
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        (-self.objective(self.model, self.x).mean()).backward()
        self.optimizer.step()


def main() -> None:
    torch.set_num_threads(2)
    rows: list[list[object]] = []
    for batch in BATCHES:
        x = torch.rand(batch, 1, 28, 28, generator=torch.Generator().manual_seed(0)).round()
        steps = {
            "plain": Step(elbo, x),
            "augmentation": Step(Consistency(elbo, TRANSFORM, weight=0.0), x),
            "consistency": Step(Consistency(elbo, TRANSFORM, weight=1.0), x),
            "as it reads": Step(two_passes, x),
            "transform": lambda x=x: TRANSFORM(x),
        }
        with trusted():  # as `fit` does: it looks at the pixels once, not at every step
            seconds = interleaved(steps, repeats=REPEATS, warm_up=5)
        base = seconds.pop("plain")
        rows.append([batch, f"{1e3 * base:.1f} ms", *(f"{s / base:.2f}" for s in seconds.values())])
    report(
        "consistency",
        ["batch", "plain step", "augmentation, λ = 0", "CR-VAE", "CR-VAE as the formula reads", "the transforms alone"],
        rows,
        "All but the second column are multiples of a plain step. Rotation, translation and scale are drawn for each "
        "image at every step. The formula as it reads encodes every image twice; `Consistency` encodes it once.",
    )


if __name__ == "__main__":
    main()
