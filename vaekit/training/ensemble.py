r"""Several models trained side by side as one: the same networks from several seeds, in one batched computation.

Ten small networks trained one after the other leave most of a processor idle. Stacked, their weights are tensors with
one more dimension, and `torch.func.vmap` turns each layer into one batched product.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.training.ascent import Objective, Schedule
from vaekit.training.asked import check_images, check_settings
from vaekit.training.devices import device_of
from vaekit.training.functional import functional_call
from vaekit.training.objectives import module_of
from vaekit.training.seeding import generator, mix, seeded


def fit_ensemble(
    models: Sequence[nn.Module],
    objective: Objective | Sequence[nn.Module],
    x: Tensor,
    *,
    epochs: int,
    batch_size: int = 100,
    lr: float = 1e-3,
    schedules: dict[str, Schedule] | None = None,
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Tensor:
    r"""Train M models of one architecture, each on its own, in one computation.

    Model m sees the images in the order that `fit(..., seed=seeds[m])` shows them, and Adam works on each number by
    itself: with an objective that draws no noise the result is that of M runs of `fit`, up to rounding. Noise is drawn
    for each model independently, and follows from all the seeds.

    Args:
        models: M models that differ only in their parameters; trained in place and left in evaluation mode.
        objective: `(model, x, **weights) -> [B]`, in nats, to be maximised. Where it has parameters of its own, a
            sequence of M modules, one for each model, trained too.
        x: Training images `[N, *image]`, the same for all.
        epochs: Passes over the data, at least 1.
        batch_size: B, images per model and step, at least 1.
        lr: Adam's learning rate.
        schedules: As in `fit`: for each keyword of the objective a function from the step to its value.
        seeds: One for each model; by default 0 to M - 1.
        device: By default CUDA, then MPS, then the CPU.
        progress: Show a bar.

    Returns:
        `[M, epochs]`: each objective's mean over the training images in each epoch, in nats.

    Raises:
        ValueError: Bad images or numbers, no models, or not one seed or one objective for each.
        FloatingPointError: An objective became NaN or infinite.

    Example:
        >>> from vaekit import VAE, elbo, mlp
        >>> models = [VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2) for _ in range(3)]
        >>> fit_ensemble(models, elbo, torch.rand(64, 1, 8, 8), epochs=2, progress=False).shape
        torch.Size([3, 2])
    """
    seeds = range(len(models)) if seeds is None else seeds
    _check(models, objective, x, seeds)
    check_settings(epochs=epochs, batch_size=batch_size, lr=lr, schedules=schedules)
    device = device_of(device)
    objectives: Sequence[Objective] = objective if isinstance(objective, Sequence) else [objective] * len(models)
    pairs = [_Pair(m, o).to(device).train() for m, o in zip(models, objectives, strict=True)]
    parameters, buffers = torch.func.stack_module_state(pairs)  # type: ignore[arg-type]  # each [M, ...]
    optim = torch.optim.Adam(parameters.values(), lr=lr)
    x = x.to(device)

    def values(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, weights: dict) -> Tensor:
        return functional_call(pairs[0], parameters | buffers, (images,), weights)

    batched = torch.func.vmap(values, in_dims=(0, 0, 0, None), randomness="different")
    history, step = [], 0
    bar = tqdm(total=epochs * math.ceil(len(x) / batch_size), unit="step", disable=not progress)
    with bar, checks.trusted():
        for epoch in range(epochs):
            orders = [torch.randperm(len(x), generator=generator(device, s, epoch), device=device) for s in seeds]
            order = torch.stack(orders)  # [M, N]
            total = torch.zeros(len(models), dtype=x.dtype, device=device)
            with seeded(mix(*seeds, epoch), device):
                for batch in order.split(batch_size, dim=1):
                    weights = {name: schedule(step) for name, schedule in (schedules or {}).items()}
                    nats = batched(parameters, buffers, x[batch], weights)  # [M, B]
                    optim.zero_grad()
                    (-nats.mean(1).sum()).backward()  # a sum: no model's gradient depends on another's
                    optim.step()
                    total += nats.detach().sum(1)
                    step += 1
                    bar.update()
            history.append(total / len(x))
            if not history[-1].isfinite().all():
                lost = [m for m, value in enumerate(history[-1].tolist()) if not math.isfinite(value)]
                raise FloatingPointError(
                    f"the objective of model(s) {lost} became NaN or infinite in epoch {epoch + 1}; try a smaller lr "
                    f"(now {lr}) or a slower schedule"
                )
            bar.set_postfix(train=f"{history[-1].mean():.2f} nats")
    with torch.no_grad():
        for m, pair in enumerate(pairs):
            for name, tensor in (*pair.named_parameters(), *pair.named_buffers()):
                tensor.copy_((parameters if name in parameters else buffers)[name][m])
            pair.eval()
    return torch.stack(history, 1)


class _Pair(nn.Module):
    """A model and its objective as one module, so that both sets of parameters are stacked, trained and put back."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, x: Tensor, **weights: float) -> Tensor:
        return self.objective(self.model, x, **weights)


def _check(models: Sequence[nn.Module], objective: object, x: Tensor, seeds: Sequence[int]) -> None:
    if not isinstance(models, Sequence) or not models or not all(isinstance(m, nn.Module) for m in models):
        raise ValueError(f"models: expected a list of one or more modules, got {checks.shown(models)}")
    for model in models:
        check_images(model, x, None, unit_range=False)
    if len(seeds) != len(models):
        raise ValueError(f"seeds: expected one for each of the {len(models)} models, got {len(seeds)}")
    for seed in seeds:
        checks.count(seed, 0, "seeds")
    if isinstance(objective, Sequence):
        if len(objective) != len(models):
            raise ValueError(f"objective: expected one for each of the {len(models)} models, got {len(objective)}")
        return
    checks.function(objective, "objective")
    inside = module_of(objective)
    if inside is not None and any(True for _ in inside.parameters()):
        raise ValueError("objective: it has parameters; expected a sequence of such modules, one for each model")
