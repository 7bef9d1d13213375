r"""Training: one plain loop that maximises the mean of an objective over a data set that lives on the device."""

import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.training import distributed
from vaekit.training.ascent import Ascent, Objective, Schedule
from vaekit.training.asked import check_images, check_settings, identity
from vaekit.training.devices import device_of
from vaekit.training.runs import Log, Run
from vaekit.training.seeding import generator, mix, seeded


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
    checks.count(steps, 1, "steps")
    for name, value in {"start": start, "end": end}.items():
        checks.between(value, -math.inf, math.inf, name)
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
            return `[B]`, or uses parameters that it finds by a global name.
        FloatingPointError: The objective became NaN or infinite. The weights are those of the last good epoch.
        OSError: The checkpoints cannot be written.

    Example:
        >>> from vaekit import VAE, elbo, fit, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> history = fit(model, elbo, torch.rand(64, 1, 8, 8), epochs=2, progress=False)
        >>> len(history.train), history.stopped
        (2, 'finished')
    """
    check_settings(
        epochs=epochs, batch_size=batch_size, checkpoint_every=checkpoint_every, lr=lr, seed=seed, patience=patience,
        validation=validation, schedules=schedules, amp=amp,
    )  # fmt: skip
    checks.function(objective, "objective")
    checks.function(optimizer, "optimizer")
    check_images(model, x, validation, unit_range=binarise)
    device = distributed.device_of_process(device_of(device))
    ascent = Ascent(model, objective, device=device, optimizer=optimizer, lr=lr, schedules=schedules, amp=amp)
    settings = {} if checkpoints is None else identity(
        model, objective, x, validation, optimizer=optimizer, schedules=schedules, lr=lr, batch_size=batch_size,
        binarise=binarise, patience=patience, seed=seed, amp=amp, processes=ascent.processes,
    )  # fmt: skip
    run = Run(checkpoints, settings, every=checkpoint_every)
    log = run.open(ascent, resume=resume, epochs=epochs, patience=patience)
    x = x.to(device)
    if validation is not None:
        validation = validation.to(device)
        if binarise:
            validation = torch.bernoulli(validation, generator=generator(device, seed))

    steps = -(-len(x) // batch_size)  # in an epoch
    bar = tqdm(total=epochs * steps, initial=log.step, unit="step", disable=not progress or ascent.rank > 0)
    good, stopped, began = ascent.weights(), "finished", time.perf_counter()
    try:
        while not log.is_over(epochs, patience):
            _epoch(ascent, x, log, batch_size=batch_size, seed=seed, binarise=binarise, bar=bar)
            good = ascent.weights()
            if validation is not None:
                log.validation.append(ascent.measure(validation, batch_size, seed))
                if patience is not None and log.epochs_without_gain() == 0:
                    log.best = good
            run.write(log, good, ascent)
            bar.set_postfix_str(" / ".join(f"{v[-1]:.2f}" for v in (log.train, log.validation) if v) + " nats")
        stopped = "early" if log.epoch < epochs else "finished"
    except FloatingPointError as error:
        ascent.restore(good)
        raise FloatingPointError(
            f"{error} at step {log.step} (epoch {log.epoch + 1}); the weights are those at the end of epoch {log.epoch}"
            f". Try a smaller lr (now {lr}), a slower schedule, or amp=None"
        ) from error
    except KeyboardInterrupt:
        stopped = "interrupted"
        warnings.warn(f"fit: interrupted in epoch {log.epoch + 1}; the model keeps its present weights", stacklevel=2)
    finally:
        bar.close()
        ascent.mode(training=False)
        run.note(ascent)
    if log.best is not None and stopped != "interrupted":
        ascent.restore(log.best)
    files = [run.folder / name for name in log.files] if run.folder else []
    return History(log.train, log.validation, files, stopped, time.perf_counter() - began)


def _epoch(ascent: Ascent, x: Tensor, log: Log, *, batch_size: int, seed: int, binarise: bool, bar: tqdm) -> None:
    """One pass over the images, in an order and with noise that follow from the seed, the epoch and the rank."""
    ascent.mode(training=True)
    order = generator(ascent.device, seed, log.epoch)
    images = torch.bernoulli(x, generator=order) if binarise else x
    total = torch.zeros((), device=ascent.device, dtype=ascent.exact)
    with seeded(mix(seed, log.epoch, 1 + ascent.rank), ascent.device):
        batches = torch.randperm(len(x), generator=order, device=ascent.device).split(batch_size)
        for n, batch in enumerate(batches):
            own = images[batch[ascent.rank :: ascent.processes]]  # this process's share
            with checks.trusted() if n else nullcontext():  # the epoch's first step looks at what a transform makes
                total += ascent.step(own, len(batch), log.step)
            log.step += 1
            bar.update()
    ascent.mode(training=False)
    distributed.broadcast(ascent.trained.values())  # the running statistics of normalisation layers
    log.epoch += 1
    log.train.append(distributed.sum_over_processes(total).item() / len(x))
