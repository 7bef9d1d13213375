"""`fit` beside bare loops written by hand and beside pythae's trainer: VAE 784-400-20, batches of 100, Adam.

Run as `python -m benchmarks.training`; pythae 0.1.2 (`pip install vaekit[bench]`) is skipped where it is not installed.
"""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import report
from vaekit import VAE, elbo, fit, mlp

N, BATCH, EPOCHS, REPEATS = 10_000, 100, 1, 25


class Tutorial(nn.Module):
    """The VAE of a hundred tutorials, with nothing general about it."""

    def __init__(self) -> None:
        super().__init__()
        self.h, self.mean, self.log_var = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.g, self.out = nn.Linear(20, 400), nn.Linear(400, 784)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.h(x.flatten(1)))
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        logits = self.out(F.relu(self.g(z)))
        bce = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
        kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1)
        return (bce + kl).mean()


def bare_loop(model: nn.Module, loss_of: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(x[batch])
            loss.backward()
            optimizer.step()
            loss.item()  # every loop looks at its loss
    return time.perf_counter() - began


def same_model(x: torch.Tensor) -> float:
    model = VAE(*mlp((1, 28, 28), 20), latent_dim=20)
    return bare_loop(model, lambda images: -elbo(model, images).mean(), x)


def tutorial(x: torch.Tensor) -> float:
    model = Tutorial()
    return bare_loop(model, model.loss, x)


def vaekit_fit(x: torch.Tensor) -> float:
    model = VAE(*mlp((1, 28, 28), 20), latent_dim=20)
    began = time.perf_counter()
    fit(model, elbo, x, epochs=EPOCHS, batch_size=BATCH, device="cpu", progress=False)
    return time.perf_counter() - began


def pythae_trainer(x: torch.Tensor) -> float:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.mean, self.log_var = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x: torch.Tensor) -> ModelOutput:
            h = F.relu(self.h(x.flatten(1)))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.g, self.out = nn.Linear(20, 400), nn.Linear(400, 784)

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.out(F.relu(self.g(z))).sigmoid().reshape(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = PythaeVAE(config, encoder=Encoder(), decoder=Decoder())
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder, num_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-3, no_cuda=True
        )
        trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=settings)
        trainer.prepare_training()  # the optimiser; its epoch alone is timed, without its files and logs
        began = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            for epoch in range(EPOCHS):
                trainer.train_step(epoch + 1)
        return time.perf_counter() - began


def main() -> None:
    logging.disable(logging.WARNING)
    x = torch.rand(N, 1, 28, 28, generator=torch.Generator().manual_seed(0)).round()
    loops = {
        "bare loop, vaekit's VAE and elbo": same_model,
        "vaekit.fit, the same": vaekit_fit,
        "bare loop, VAE written out by hand": tutorial,
    }
    try:
        import pythae  # noqa: F401

        loops["pythae 0.1.2's trainer and VAE"] = pythae_trainer
    except ImportError:
        print("pythae is not installed: left out")
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(REPEATS + 1):
        for name, loop in loops.items():
            elapsed = loop(x)
            if repeat:
                seconds[name].append(elapsed)
    bare = seconds["bare loop, vaekit's VAE and elbo"]
    rows = []
    for name, taken in seconds.items():
        ratio = median(t / b for t, b in zip(taken, bare, strict=True))  # within a round: the machine's moods cancel
        rows.append([name, f"{1e3 * median(taken) * BATCH / N / EPOCHS:.2f}", f"{ratio:.2f}"])
    setting = f"VAE 784-400-20, batches of {BATCH}, Adam, {EPOCHS} epoch of {N:,} images"
    report("training", ["training loop", "ms a step", "times the first row"], rows,
           f"{setting}; median of {REPEATS} runs in turns.")  # fmt: skip


if __name__ == "__main__":
    main()
