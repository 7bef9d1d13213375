"""One step of gradient ascent on an objective, and all that a step moves: modules, optimiser and loss scaler."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaekit import checks
from vaekit.training import distributed
from vaekit.training.objectives import module_of, strangers
from vaekit.training.seeding import mix, seeded

Objective = Callable[..., Tensor]
Schedule = Callable[[int], float]
Weights = dict[str, dict[str, Tensor]]  # a state dictionary for the model and, where it has modules, the objective


class Ascent:
    """The modules that are trained, on their device and equal in all processes, and how a step changes them.

    Args:
        model: What the objective takes first.
        objective: As in `fit`; the modules inside it are trained too.
        device: Where to compute; this process's own, if it is one of several.
        optimizer: Called as `optimizer(parameters, lr=lr)`.
        lr: Learning rate.
        schedules: For each keyword of the objective a function from the step to its value.
        amp: Type for mixed precision, or None.

    Raises:
        ValueError: Nothing in the model or the objective can be trained.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, *, device: torch.device,
        optimizer: Callable[..., torch.optim.Optimizer], lr: float, schedules: dict[str, Schedule] | None,
        amp: torch.dtype | None,
    ) -> None:  # fmt: skip
        """See the class."""
        self.model, self.objective, self.schedules, self.amp = model, objective, schedules or {}, amp
        self.device, (self.rank, self.processes) = device, distributed.join(device)
        inside = module_of(objective)
        modules = {"model": model} if inside is None else {"model": model, "objective": inside}
        self.trained = {name: module.to(device) for name, module in modules.items()}
        distributed.broadcast(self.trained.values())
        parameters = dict.fromkeys(p for m in self.trained.values() for p in m.parameters() if p.requires_grad)
        if not parameters:
            raise ValueError("model: expected parameters to train, got none that requires a gradient")
        self.parameters = list(parameters)
        self.optim = optimizer(self.parameters, lr=lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
        self.reach_is_known = False  # whether the weights that the objective uses have been looked at
        self.exact = torch.float32 if device.type == "mps" else torch.float64  # for sums over a data set

    def step(self, images: Tensor, batch: int, number: int) -> Tensor:
        """Step `number`, on this process's `images` of a batch of `batch`; returns the sum of their nats.

        Raises:
            ValueError: The objective does not return `[B]`, or uses weights that nobody trains.
            FloatingPointError: It is NaN or infinite; nothing has been changed.
        """
        self.optim.zero_grad()
        total = torch.zeros((), device=self.device, dtype=self.exact)
        if len(images):
            nats = self._nats(images, number)  # [B]
            if not self.reach_is_known:
                self._check_reach(nats)
            self.scaler.scale(-nats.sum() / batch).backward()
            total = nats.detach().sum(dtype=self.exact)
        distributed.sum_gradients(self.parameters)
        if not distributed.sum_over_processes(total.clone()).isfinite():
            raise FloatingPointError("the objective became NaN or infinite")
        self.scaler.step(self.optim)
        self.scaler.update()
        return total

    def _check_reach(self, nats: Tensor) -> None:
        if unknown := strangers(nats, self.parameters):
            raise ValueError(
                f"objective: expected its parameters in the model or in the objective itself, got others, of shapes "
                f"{unknown}, which would not be trained; pass a module that it uses as an argument (functools.partial)"
                ", or freeze it"
            )
        self.reach_is_known = True

    def _nats(self, images: Tensor, number: int) -> Tensor:
        weights = {name: schedule(number) for name, schedule in self.schedules.items()}
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            nats = self.objective(self.model, images, **weights)
        return checked_nats(nats, len(images))

    @torch.no_grad()
    def measure(self, images: Tensor, batch_size: int, seed: int) -> float:
        """Mean nats over `images`, with the same noise each time and the objective's own weights."""
        with seeded(mix(seed), self.device), checks.trusted():
            parts = images.split(batch_size)
            total = sum(checked_nats(self.objective(self.model, part), len(part)).sum() for part in parts)
        return distributed.from_first(float(total) / len(images), self.device)

    def mode(self, *, training: bool) -> None:
        """Put every module in training or in evaluation mode."""
        for module in self.trained.values():
            module.train(training)

    def weights(self) -> Weights:
        """A copy of the parameters and buffers."""
        return {name: {k: v.detach().clone() for k, v in m.state_dict().items()} for name, m in self.trained.items()}

    def restore(self, weights: dict[str, Any]) -> None:
        """Put weights back."""
        for name, module in self.trained.items():
            module.load_state_dict(weights[name])


def checked_nats(nats: object, images: int) -> Tensor:
    """What an objective returned for so many images, if it is what an objective returns.

    Raises:
        ValueError: It is not a tensor `[B]`.
    """
    if not isinstance(nats, Tensor) or nats.shape != (images,):
        came = tuple(nats.shape) if isinstance(nats, Tensor) else type(nats).__name__
        raise ValueError(f"objective: expected shape [{images}], got {came}")
    return nats
