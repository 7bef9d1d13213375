"""What makes training quicker on a processor: memory layout, bfloat16, fused Adam, threads, and the size of a batch.

Run as `python -m benchmarks.cpu`. One step is the ELBO, its gradient and Adam, on the chapters' networks; every variant
of a network is timed in turns with the plain one, and what is told is the ratio of images a second.
"""

import os
from collections.abc import Callable

import torch

from benchmarks.timing import interleaved, report
from vaekit import VAE, categorical256, elbo
from vaekit.networks import conv, dcgan, hvae_conv, mlp

NETWORKS: dict[str, Callable[[], VAE]] = {
    "perceptron 784-400-20": lambda: VAE(*mlp((1, 28, 28), 20), latent_dim=20),
    "the Hamiltonian paper's": lambda: VAE(*hvae_conv(64), latent_dim=64),
    "dcgan, width 32": lambda: VAE(*dcgan(latent_dim=100, outputs=1), latent_dim=100),
    "dcgan, width 16, 256 levels": lambda: VAE(*dcgan(width=16), latent_dim=100, likelihood=categorical256),
    "convolutional, 64 x 64": lambda: VAE(*conv(), latent_dim=10),
}
SHAPES = {"convolutional, 64 x 64": (1, 64, 64)} | dict.fromkeys(
    ["dcgan, width 32", "dcgan, width 16, 256 levels"], (1, 32, 32)
)
VARIANTS: dict[str, dict] = {
    "channels_last": {"layout": torch.channels_last},
    "bfloat16": {"autocast": True},
    "both": {"layout": torch.channels_last, "autocast": True},
    "fused Adam": {"fused": True},
    "all three": {"layout": torch.channels_last, "autocast": True, "fused": True},
}
BATCH, REPEATS = 100, 15


def step(
    make: Callable[[], VAE], shape: tuple[int, ...], *, batch: int = BATCH, layout: torch.memory_format | None = None,
    autocast: bool = False, fused: bool = False, threads: int = 1,
) -> Callable[[], None]:  # fmt: skip
    """One training step, to be called again and again."""
    torch.manual_seed(0)
    model = make()
    x = (torch.rand(batch, *shape) * 255).round() / 255
    if layout is not None:
        model, x = model.to(memory_format=layout), x.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)

    def call() -> None:
        torch.set_num_threads(threads)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = -elbo(model, x).mean()
        loss.backward()
        optimizer.step()

    return call


def main() -> None:
    rows: list[list[object]] = []
    cores = os.cpu_count() or 1
    for name, make in NETWORKS.items():
        shape = SHAPES.get(name, (1, 28, 28))
        competitors: dict[str, Callable[[], object]] = {"plain": step(make, shape)}
        competitors |= {variant: step(make, shape, **asked) for variant, asked in VARIANTS.items()}
        competitors[f"{cores} threads"] = step(make, shape, threads=cores)
        competitors["batches of 500"] = step(make, shape, batch=500)
        seconds = interleaved(competitors, repeats=REPEATS)
        seconds["batches of 500"] /= 500 / BATCH
        plain = seconds.pop("plain")
        rows.append([name, f"{1e3 * plain:.1f}", *(f"{plain / taken:.2f}" for taken in seconds.values())])
    header = ["network", "ms a step", *VARIANTS, f"{cores} threads", "batches of 500"]
    report("cpu", header, rows, f"Batches of {BATCH}, one thread; times as many images a second as the plain step, "
           f"median of {REPEATS} steps in turns.")  # fmt: skip


if __name__ == "__main__":
    main()
