"""A bound as a function of the weights that are fitted to an image, for many images that each have their own."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, vmap

from vaekit.model import VAE
from vaekit.regret.noise import Draw, given, of_image, recorded
from vaekit.regret.per_image import Moments, PerImage
from vaekit.training.functional import functional_call
from vaekit.training.probes import check_one_by_one
from vaekit.training.seeding import seeded

Objective = Callable[..., Tensor]
Weights = dict[str, Tensor]

CPU_MEMORY = 2**30  # bytes that a pass may take where the device does not say how much is free


class Evaluation:
    """A bound of images that each have an encoder, or a posterior, of their own.

    Args:
        model: The model; neither it nor its encoder is changed, and what the encoder shares with the decoder is
            adapted in the encoder alone.
        bound: `(model, x, samples=...) -> [B]`.
        samples: S.
        adapt: As in `likelihood_regret`.
    """

    def __init__(self, model: VAE, bound: Objective, samples: int, adapt: str) -> None:
        """See the class."""
        self.encoder = copy.deepcopy(model.encoder)
        per_image = PerImage(self.encoder) if adapt == "encoder" else Moments()
        model = copy.copy(model)
        model._modules = {**model._modules, "encoder": per_image}
        self.pair, self.adapt, self.samples = _Pair(model, bound), adapt, samples
        self.gradients = vmap(grad(self._value), randomness="same")  # (weights [B, ...], images [B, *image]), likewise
        self._draws: list[Draw] | None = None

    def initial_weights(self, images: Tensor) -> Weights:
        """What is fitted, as it is before: `[B, ...]` each."""
        if self.adapt == "posterior":
            return {"model.encoder.moments": self.encoder(images).clone()}
        named = self.encoder.named_parameters()
        return {f"model.encoder.net.{name}": p.detach().expand(len(images), *p.shape).clone() for name, p in named}

    def values(self, weights: Weights, images: Tensor, seed: int, at_once: int) -> Tensor:
        """The bound `[B]`, for each image with noise of its own that depends on nothing but `seed` and the image."""

        def value(weights: Weights, image: Tensor, noise: list[Tensor]) -> Tensor:
            with given(noise):
                return self._value(weights, image)

        if self._draws is None:
            first = {name: w[0] for name, w in weights.items()}
            with seeded(seed, images.device):
                self._draws = recorded(lambda: self._value(first, images[0]))
        parts = []
        for part in torch.arange(len(images), device=images.device).split(at_once):
            noise = [of_image(image, seed, self._draws) for image in images[part]]
            stacked = [torch.stack(column) for column in zip(*noise, strict=True)]
            mine = {name: w[part] for name, w in weights.items()}
            with seeded(seed, images.device):  # of draws of any other kind, which all images share
                parts.append(vmap(value, randomness="same")(mine, images[part], stacked))
        return torch.cat(parts)

    def fit_into(self, memory: int | None, image: Tensor) -> int:
        """How many images to take at once so that a pass keeps within `memory` bytes (`None`: what is free).

        Where one image's draws take more by themselves, they are decoded a few at a time from now on; but not in a
        bound that takes gradients inside, such as a `HamiltonianBound`, which needs them all.

        Args:
            memory: In bytes.
            image: One image, `[1, *image]`.
        """
        weights = {name: w[0] for name, w in self.initial_weights(image).items()}
        adam = 4 * sum(w.numel() * w.element_size() for w in weights.values())  # weights, gradients and two moments
        one, two = (self._kept(weights, image[0], samples) for samples in (1, 2))
        once, draw = adam + 2 * (2 * one - two), 2 * (two - one)  # for the image, and for each draw; 2: to be safe
        each = once + self.samples * draw
        free = _free(image.device) if memory is None else memory
        if each > free and not self._differentiates(weights, image[0]):
            draws = max(1, (free - once) // draw)
            each = once + draws * draw
            self.pair.model.log_likelihood = _InParts(self.pair.model, draws)  # type: ignore[method-assign]
        return max(1, free // each)

    def _kept(self, weights: Weights, image: Tensor, samples: int) -> int:
        """Bytes that autograd keeps of an image with so many draws, beside the weights."""
        kept = {}  # bytes at each address

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
        with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor), seeded(0, image.device):
            self._value(leaves, image, samples=samples)
        for fixed in (*self.pair.parameters(), *self.pair.buffers(), *leaves.values()):
            kept.pop(fixed.data_ptr(), None)
        return sum(kept.values())

    def _differentiates(self, weights: Weights, image: Tensor) -> bool:
        """Whether the bound itself takes gradients of the likelihood, where nobody else does."""
        model, seen = self.pair.model, []
        plain = model.log_likelihood

        def watch(x: Tensor, z: Tensor) -> Tensor:
            seen.append(z.requires_grad or torch._C._are_functorch_transforms_active())
            return plain(x, z)

        model.log_likelihood = watch  # type: ignore[method-assign]
        try:
            with torch.no_grad(), seeded(0, image.device):
                self._value(weights, image, samples=1)
        finally:
            del model.log_likelihood
        return any(seen)

    def _value(self, weights: Weights, image: Tensor, samples: int | None = None) -> Tensor:
        return functional_call(self.pair, weights, (image[None], samples or self.samples)).squeeze(0)


class _Pair(nn.Module):
    """A model and its bound as one module, so that `functional_call` reaches the weights of both."""

    def __init__(self, model: VAE, bound: Objective) -> None:
        super().__init__()
        self.model, self.bound = model, bound

    def forward(self, x: Tensor, samples: int) -> Tensor:
        return self.bound(self.model, x, samples=samples)


class _InParts:
    """`log_likelihood` of a model that decodes a few draws at a time: the same numbers in less memory."""

    def __init__(self, model: VAE, draws: int) -> None:
        self.plain, self.draws = model.log_likelihood, draws

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        if z.ndim < 3 or len(z) <= self.draws:
            return self.plain(x, z)
        return torch.cat([self.plain(x, part) for part in z.split(self.draws)])


def check_bound(model: VAE, bound: Objective, images: Tensor) -> None:
    """Refuse a bound that cannot be taken for one image at a time; see `vaekit.training.probes`."""
    pair, encoder = _Pair(model, bound), dict(model.encoder.named_parameters())

    def measured(x: Tensor, seed: int) -> list[Tensor]:
        leaves = {f"model.encoder.{name}": p.detach().requires_grad_() for name, p in encoder.items()}
        with seeded(seed, x.device), torch.enable_grad():
            nats = functional_call(pair, leaves, (x, 1))[0]
            gradients = torch.autograd.grad(nats, [*leaves.values()], allow_unused=True, materialize_grads=True)
        return [nats.detach(), *gradients]

    check_one_by_one(measured, images)


def _free(device: torch.device) -> int:
    """Half of what a GPU has free, counting what torch holds in reserve; or `CPU_MEMORY`."""
    if device.type != "cuda":
        return CPU_MEMORY
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + idle) // 2
