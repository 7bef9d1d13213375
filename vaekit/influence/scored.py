"""An objective of a frozen copy of the model, and its derivatives for images one by one or along a direction."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from vaekit.training.seeding import seeded


class Scored(nn.Module):
    """A private copy of a model and an objective as one module, frozen and in evaluation mode."""

    def __init__(self, model: nn.Module, objective: Callable[..., Tensor]) -> None:
        """Copy both; what they share stays shared."""
        super().__init__()
        self.model, self.objective = copy.deepcopy((model, objective))
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """The objective's mean over the images; called with one image at a time, or under `vmap`."""
        nats = self.objective(self.model, x)
        if not isinstance(nats, Tensor) or nats.shape != (len(x),):
            came = tuple(nats.shape) if isinstance(nats, Tensor) else type(nats).__name__
            raise ValueError(f"objective: expected shape [{len(x)}], got {came}")
        return nats.mean()


def directional(scored: Scored, x: Tensor, direction: dict[str, Tensor], seed: int) -> Tensor:
    r"""$\langle \nabla o(x_i), v \rangle$ for images `[B, *image]` and one direction $v$ in parameter space: `[B]`.

    One forward pass in forward mode; no gradient is formed. The noise is shared by all images.
    """
    parameters = dict(scored.named_parameters())
    point = {name: parameters[name] for name in direction}

    def along(image: Tensor) -> Tensor:
        return jvp(lambda moved: functional_call(scored, moved, (image[None],)), (point,), (direction,))[1]

    with seeded(seed, x.device):
        return vmap(along, randomness="same")(x)


def one_by_one(scored: Scored, parameters: dict[str, Tensor], x: Tensor, seed: int) -> dict[str, Tensor]:
    """Gradients with respect to `parameters`, by automatic differentiation of one image after the other.

    Returns:
        For each parameter `[B, *its shape]`.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    gradients = []
    for image in x.split(1):
        with seeded(seed, x.device), torch.enable_grad():
            nats = functional_call(scored, leaves, (image,))
            gradients.append(torch.autograd.grad(nats, [*leaves.values()], allow_unused=True, materialize_grads=True))
    return {name: torch.stack(column) for name, column in zip(leaves, zip(*gradients, strict=True), strict=True)}
