"""Noise that belongs to an image: the same in every batch, and independent of other images' noise."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vaekit.training.seeding import mix, seeded

_LIKE: dict[Any, Callable] = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}
_DRAWS = (torch.randn, torch.rand, *_LIKE)

Draw = tuple[Callable, tuple[int, ...], torch.dtype, torch.device]


class _Mode(TorchFunctionMode):
    """Hands each call of a function that draws to `answer`."""

    def __init__(self, answer: Callable[[Draw], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _DRAWS or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if func in _LIKE:
            shape, dtype, device = tuple(args[0].shape), args[0].dtype, args[0].device
        else:
            size = kwargs.get("size", args[0] if args and isinstance(args[0], Sequence) else args)
            shape, dtype, device = tuple(size), torch.get_default_dtype(), torch.get_default_device()
        return self.answer(
            (_LIKE.get(func, func), shape, kwargs.get("dtype") or dtype, torch.device(kwargs.get("device") or device))
        )


def recorded(run: Callable[[], object]) -> list[Draw]:
    """What `run` draws by `torch.randn`, `torch.rand` and their likes: function, shape, dtype and device of each."""
    draws: list[Draw] = []

    def answer(draw: Draw) -> Tensor:
        draws.append(draw)
        function, shape, dtype, device = draw
        return function(shape, dtype=dtype, device=device)

    with _Mode(answer):
        run()
    return draws


@contextmanager
def given(noise: Sequence[Tensor]) -> Iterator[None]:
    """Inside this block the draws are those of `noise`, in order.

    Raises:
        ValueError: Another number of draws, or another shape, is asked for.
    """
    left = list(noise)

    def answer(draw: Draw) -> Tensor:
        if not left or tuple(left[0].shape) != draw[1]:
            raise ValueError("bound: expected one that draws the same noise for every image, got other draws")
        return left.pop(0)

    with _Mode(answer):
        yield


def of_image(image: Tensor, seed: int, draws: Sequence[Draw]) -> list[Tensor]:
    """The noise of one image: what `draws` give after `torch.manual_seed` with a seed of `seed` and its pixels."""
    with seeded(seed_of(image, seed), image.device):
        return [function(shape, dtype=dtype, device=device) for function, shape, dtype, device in draws]


def seed_of(image: Tensor, seed: int) -> int:
    """A seed that depends on `seed` and on every pixel of the image."""
    pixels = image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return mix(seed, int.from_bytes(hashlib.blake2b(pixels, digest_size=8).digest(), "little"))
