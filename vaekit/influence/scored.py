"""An objective of a frozen copy of the model, and its derivatives for images one by one or along a direction."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from vaekit.training.functional import functional_call
from vaekit.training.objectives import module_of, private_copy
from vaekit.training.seeding import seeded


class Scored(nn.Module):
    """A private copy of a model and an objective as one module, frozen and in evaluation mode.

    Its parameters are called `model.<name>` and `objective.<name>`; the latter are those of all modules that
    `vaekit.training.objectives.module_of` finds in the objective. A parameter with several names has the first of them.
    """

    copied: Callable[..., Tensor]

    def __init__(self, model: nn.Module, objective: Callable[..., Tensor]) -> None:
        """Copy both; what they share stays shared."""
        super().__init__()
        self.model, copied = private_copy(model, objective)
        self.objective = module_of(copied)
        object.__setattr__(self, "copied", copied)  # beside `objective`: its modules are registered once
        first = {id(p): name for name, p in self.named_parameters() if p.requires_grad}
        every = self.named_parameters(remove_duplicate=False)
        self.trainable = {name: first[id(p)] for name, p in every if id(p) in first}  # each name -> the first one
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """The objective of each image, `[B]`; called with one image at a time, or under `vmap`."""
        nats = self.copied(self.model, x)
        if not isinstance(nats, Tensor) or nats.shape != (len(x),):
            came = tuple(nats.shape) if isinstance(nats, Tensor) else type(nats).__name__
            raise ValueError(f"objective: expected shape [{len(x)}], got {came}")
        return nats

    def in_double(self) -> "Scored":
        """A copy in double precision, in which paths can be told apart from rounding."""
        return Scored(self.model, self.copied).double()


def directional(scored: Scored, x: Tensor, direction: dict[str, Tensor], seed: int) -> Tensor:
    r"""$\langle \nabla o(x_i), v \rangle$ for images `[B, *image]` and one direction $v$ in parameter space: `[B]`.

    One forward pass in forward mode; no gradient is formed. The noise is shared by all images.
    """
    parameters = dict(scored.named_parameters())
    point = {name: parameters[name] for name in direction}

    def along(image: Tensor) -> Tensor:
        return jvp(lambda moved: functional_call(scored, moved, (image[None],)).sum(), (point,), (direction,))[1]

    with seeded(seed, x.device):
        return vmap(along, randomness="same")(x)


def one_by_one(scored: Scored, parameters: dict[str, Tensor], x: Tensor, seed: int) -> dict[str, Tensor]:
    """Gradients with respect to `parameters`, by automatic differentiation of one image after the other.

    Returns:
        For each parameter `[B, *its shape]`.
    """
    leaves = leaves_of(parameters)
    gradients = []
    for image in x.split(1):
        with seeded(seed, x.device), torch.enable_grad():
            nats = functional_call(scored, leaves, (image,)).sum()
            gradients.append(torch.autograd.grad(nats, [*leaves.values()], allow_unused=True, materialize_grads=True))
    return {name: torch.stack(column) for name, column in zip(leaves, zip(*gradients, strict=True), strict=True)}


def first_of_batch(scored: Scored, names: Sequence[str], x: Tensor, seed: int) -> list[Tensor]:
    """The objective of `x[0]`, computed within the batch `x`, and its gradients with respect to the parameters."""
    parameters = dict(scored.named_parameters())
    leaves = leaves_of({name: parameters[name] for name in names})
    with seeded(seed, x.device), torch.enable_grad():
        nats = functional_call(scored, leaves, (x,))[0]
        gradients = torch.autograd.grad(nats, [*leaves.values()], allow_unused=True, materialize_grads=True)
    return [nats.detach(), *gradients]


def leaves_of(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers as tensors of their own, with respect to which to differentiate."""
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}
