r"""Training: one plain loop that maximises the mean of an objective over a data set that lives on the device."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.training import distributed
from vaekit.training.devices import default_device
from vaekit.training.runs import Log, open_run, restore, weights_of, write_epoch
from vaekit.training.seeding import generator, mix, seeded

Objective = Callable[..., Tensor]
Schedule = Callable[[int], float]


class History(NamedTuple):
    """What happened during `fit`.

    Attributes:
        train: The objective's mean over the training images in each epoch, in nats.
        validation: The same over the validation images after each epoch; empty without any.
        checkpoints: The files `epoch-*.pt`, in order.
        stopped: `finished`, `early` (no gain on the validation images for `patience` epochs) or `interrupted` (Ctrl-C).
        seconds: Wall time of the training, without what was resumed.
    """

    train: list[float]
    validation: list[float]
    checkpoints: list[Path]
    stopped: str
    seconds: float


def linear(start: float, end: float, steps: int) -> Schedule:
    """A weight that goes from `start` to `end` in a straight line over the first `steps` steps, and stays there.

    Example:
        >>> anneal = linear(0.0, 4.0, steps=100)
        >>> anneal(0), anneal(50), anneal(1000)
        (0.0, 2.0, 4.0)
    """
    checks.at_least(steps, 1, "steps")
    return lambda step: start + (end - start) * min(step / steps, 1.0)


def fit(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    *,
    validation: Tensor | None = None,
    epochs: int,
    batch_size: int = 100,
    lr: float = 1e-3,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    schedules: dict[str, Schedule] | None = None,
    binarise: bool = False,
    patience: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    amp: torch.dtype | None = None,
    checkpoints: Path | str | None = None,
    checkpoint_every: int = 1,
    resume: bool = True,
    progress: bool = True,
) -> History:
    r"""Maximise $\tfrac1N \sum_n \mathrm{objective}(\mathrm{model}, x_n)$ by stochastic gradient ascent.

    The model (and the objective, where it has parameters) is trained in place and left on `device`, in evaluation mode.
    All that is random in an epoch follows from `seed`, the epoch and the process's rank, and torch's global random
    state is left as it was; so a run that was killed and is started again with the same arguments ends with the
    weights, bit for bit on a CPU, of one that was not.

    Args:
        model: What the objective takes first, such as a `VAE`.
        objective: `(model, x, **weights) -> [B]`, in nats, to be maximised; a function, or a module whose
            parameters are then trained and saved too.
        x: Training images `[N, *image]`, floating point.
        validation: Images on which the objective is measured after each epoch, with fixed noise and its own weights.
        epochs: Passes over the data, at least 1. A finished run is prolonged by a larger number.
        batch_size: B, at least 1; the last batch of an epoch may be smaller.
        lr: Learning rate.
        optimizer: Called as `optimizer(parameters, lr=lr)`.
        schedules: For each keyword of the objective a function from the step to its value, such as
            `{"beta": linear(0, 1, 5000)}`.
        binarise: Draw black-and-white images from the grey levels anew each epoch (the validation images once).
        patience: Stop after this many epochs without a gain on the validation images, and go back to the best weights.
        seed: At least 0.
        device: By default CUDA, then MPS, then the CPU; under `torchrun`, each process's own GPU.
        amp: `torch.bfloat16` or `torch.float16` for mixed precision; off by default.
        checkpoints: A folder for `last.pt` (from which a stopped run resumes) and `epoch-0001.pt`, ...
        checkpoint_every: Epochs between two `epoch-*.pt`.
        resume: Go on from `last.pt` if it is there; else begin anew.
        progress: Show a bar with the nats of the last epoch.

    Returns:
        The history.

    Raises:
        ValueError: Bad images or numbers; `checkpoints` holds a run with other settings; the objective does not
            return `[B]`.
        FloatingPointError: The objective became NaN or infinite. The weights are those of the last good epoch.
        OSError: The checkpoints cannot be written.

    Example:
        >>> from vaekit import VAE, elbo, fit, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> history = fit(model, elbo, torch.rand(64, 1, 8, 8), epochs=2, progress=False)
        >>> len(history.train), history.stopped
        (2, 'finished')
    """
    checks.images(x, unit_range=binarise)
    for name, value in {"epochs": epochs, "batch_size": batch_size, "checkpoint_every": checkpoint_every}.items():
        checks.at_least(value, 1, name)
    checks.positive(lr, "lr")
    checks.at_least(seed, 0, "seed")
    if validation is not None:
        checks.images(validation, name="validation", shape=tuple(x.shape[1:]), unit_range=binarise)
    if patience is not None:
        checks.at_least(patience, 1, "patience")
        if validation is None:
            raise ValueError("patience: expected validation images beside it, got none")

    device = distributed.device_of_process(torch.device(device or default_device()))
    rank, processes = distributed.join(device)
    trained: dict[str, nn.Module] = {"model": model.to(device)}
    if isinstance(objective, nn.Module):
        trained["objective"] = objective.to(device)
    distributed.broadcast(trained.values())
    parameters = list(dict.fromkeys(p for m in trained.values() for p in m.parameters() if p.requires_grad))
    optim = optimizer(parameters, lr=lr)
    scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
    exact = torch.float32 if device.type == "mps" else torch.float64  # for sums over a data set
    x = x.to(device)
    if validation is not None:
        validation = validation.to(device)
        if binarise:
            validation = torch.bernoulli(validation, generator=generator(device, seed))

    def ascend(images: Tensor, batch: int, step: int) -> Tensor:
        """One step on this process's `images` of a batch of `batch`; returns the sum of their nats."""
        optim.zero_grad()
        total = torch.zeros((), device=device, dtype=exact)
        if len(images):
            weights = {name: schedule(step) for name, schedule in (schedules or {}).items()}
            with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
                nats = objective(model, images, **weights)  # [B]
            if nats.shape != (len(images),):
                raise ValueError(f"objective: expected shape [{len(images)}], got {tuple(nats.shape)}")
            loss = -nats.sum() / batch
            scaler.scale(loss).backward()
            total = nats.detach().sum(dtype=exact)
        distributed.sum_gradients(parameters)
        if not distributed.sum_over_processes(total.clone()).isfinite():
            raise FloatingPointError("the objective became NaN or infinite")
        scaler.step(optim)
        scaler.update()
        return total

    log = Log()
    folder = Path(checkpoints) if checkpoints is not None else None
    if folder:
        settings = {
            "images": [*x.shape], "pixel_sum": x.sum(dtype=exact).item(), "binarise": binarise, "seed": seed,
            "optimizer": getattr(optimizer, "__name__", type(optimizer).__name__), "lr": lr, "batch_size": batch_size,
            "processes": processes,
        }  # fmt: skip
        log = open_run(folder, settings, trained, optim, resume=resume, writes=rank == 0)

    steps = -(-len(x) // batch_size)  # in an epoch
    bar = tqdm(total=epochs * steps, initial=log.step, unit="step", disable=not progress or rank > 0)
    good, stopped, began = weights_of(trained), "finished", time.perf_counter()
    try:
        while log.epoch < epochs:
            if patience is not None and _epochs_without_gain(log.validation) >= patience:
                stopped = "early"
                break
            for module in trained.values():
                module.train()
            order, total = generator(device, seed, log.epoch), torch.zeros((), device=device, dtype=exact)
            images = torch.bernoulli(x, generator=order) if binarise else x
            with seeded(mix(seed, log.epoch, 1 + rank), device), checks.trusted():
                for batch in torch.randperm(len(x), generator=order, device=device).split(batch_size):
                    total += ascend(images[batch[rank::processes]], len(batch), log.step)
                    log.step += 1
                    bar.update()
            for module in trained.values():
                module.eval()
            distributed.broadcast(trained.values())  # the running statistics of normalisation layers
            log.epoch += 1
            log.train.append(distributed.sum_over_processes(total).item() / len(x))
            good = weights_of(trained)
            if validation is not None:
                log.validation.append(_validate(model, objective, validation, batch_size, seed, device))
                if patience is not None and _epochs_without_gain(log.validation) == 0:
                    log.best = good
            bar.set_postfix_str(" / ".join(f"{v[-1]:.2f}" for v in (log.train, log.validation) if v) + " nats")
            if folder and rank == 0:
                write_epoch(folder, log, good, optim, settings, keep=log.epoch % checkpoint_every == 0)
    except FloatingPointError as error:
        restore(trained, good)
        raise FloatingPointError(
            f"{error} at step {log.step} (epoch {log.epoch + 1}); the weights are those at the end of epoch {log.epoch}"
            f". Try a smaller lr (now {lr}), a slower schedule, or amp=None"
        ) from error
    except KeyboardInterrupt:
        stopped = "interrupted"
        warnings.warn(f"fit: interrupted in epoch {log.epoch + 1}; the model keeps its present weights", stacklevel=2)
    finally:
        bar.close()
        for module in trained.values():
            module.eval()
    if log.best is not None and stopped != "interrupted":
        restore(trained, log.best)
    files = [folder / name for name in log.files] if folder else []
    return History(log.train, log.validation, files, stopped, time.perf_counter() - began)


def _epochs_without_gain(values: list[float]) -> int:
    return len(values) - 1 - int(np.argmax(values)) if values else 0


@torch.no_grad()
def _validate(
    model: nn.Module, objective: Objective, images: Tensor, batch_size: int, seed: int, device: torch.device
) -> float:
    """Mean nats over `images`, with the same noise each time."""
    with seeded(mix(seed), device), checks.trusted():
        total = sum(objective(model, batch).sum() for batch in images.split(batch_size))
    return distributed.from_first(float(total) / len(images), device)
