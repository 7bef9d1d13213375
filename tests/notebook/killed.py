"""Work that is killed at random moments and started again, or done by several at once: `python killed.py FOLDER KILLS`.

Every chunk, and every epoch, writes its name into a log when it begins. The last line printed has the work's numbers
and that log, undisturbed and killed; then the numbers of three processes that share a store. Each attempt is a fork of
this process, so that torch is imported once.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import nn

from vaekit import VAE, elbo, fit, mlp
from vaekit.notebook import stored, trained
from vaekit.training import seeded


def log(step):
    with Path(os.environ["LOG"]).open("a") as stream:
        stream.write(f"{step}\n")
    time.sleep(0.02)


class Logged(nn.Module):
    """The ELBO, which logs the first batch of every epoch (of three)."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, model, x):
        if self.batches % 3 == 0:
            log(f"{self.name}-epoch-{int(self.batches) // 3}")
        self.batches += 1
        return elbo(model, x)


def squares(name, x):
    log(name)
    return (x**2).flatten(1).sum(1) + torch.rand(len(x))


def part(x, model):
    log(f"part-{x[0, 0, 0, 0].item():.3f}")
    return elbo(model, x).detach()


def work():
    with seeded(0):
        images = torch.rand(24, 1, 2, 2)
        models = [VAE(*mlp((1, 2, 2), 2, hidden=(3,)), latent_dim=2) for _ in range(2)]
    numbers = [stored("first", squares, "first", images).sum().item()]
    for k, model in enumerate(models):
        objective = Logged(f"model-{k}")
        numbers += trained(f"model {k}", model, objective, images, epochs=8, batch_size=8, progress=False).train
        numbers += stored.chunks(f"scores {k}", part, images, model, chunk=4).tolist()
    return [*numbers, stored("last", squares, "last", images).sum().item()]


def attempt(folder, name="numbers", wait=0.0):
    """Fork; the child does the work and leaves the numbers in a file. Returns its process."""
    child = os.fork()
    if not child:
        try:
            time.sleep(wait)
            numbers = json.dumps(work())
            (folder / name).write_text(numbers)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def prepare(folder):
    folder.mkdir()
    os.environ |= {"VAEKIT_RUNS": str(folder / "runs"), "LOG": str(folder / "log"), "VAEKIT_PROGRESS": os.devnull}
    (folder / "log").touch()


def together(folder, processes):
    """The same work by several processes, which begin one shortly after the other: the numbers of each."""
    prepare(folder)
    names = [f"numbers-{i}" for i in range(processes)]
    for child in [attempt(folder, name, wait=0.15 * i) for i, name in enumerate(names)]:
        os.waitpid(child, 0)
    return [json.loads((folder / name).read_text()) if (folder / name).exists() else None for name in names]


def run(folder, kills):
    """Kill the work that often, then let it end."""
    prepare(folder)
    rng, killed = random.Random(kills), 0
    for _ in range(kills):
        began, child = (folder / "log").stat().st_size, attempt(folder)
        end = time.monotonic() + 20
        while (folder / "log").stat().st_size == began and time.monotonic() < end and not (folder / "numbers").exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    os.waitpid(attempt(folder), 0)
    steps = (folder / "log").read_text().split()
    return {"killed": killed, "numbers": json.loads((folder / "numbers").read_text()), "steps": steps}


if __name__ == "__main__":
    fit(nn.Linear(1, 1), lambda model, x: model(x.flatten(1))[:, 0], torch.rand(2, 1, 1, 1), epochs=1, progress=False)
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    runs = [run(folder / "undisturbed", 0), run(folder / "disturbed", kills)]
    print(json.dumps([*runs, together(folder / "shared", 3)]))
