"""Reproducible random numbers without touching the caller's random state."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside this block torch's default generators start from `seed`; afterwards they are as they were before.

    Args:
        seed: Any integer that `torch.manual_seed` takes.
        device: The device whose generator is scoped beside the CPU's.

    Raises:
        ValueError: `seed` is no whole number.

    Example:
        >>> with seeded(0):
        ...     first = torch.randn(2)
        >>> with seeded(0):
        ...     again = torch.randn(2)
        >>> torch.equal(first, again)
        True
    """
    if not hasattr(seed, "__index__"):
        raise ValueError(f"seed: expected a whole number, got {seed!r}")
    device = torch.device(device)
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        with nullcontext() if device.type == "cpu" else _seeded_accelerator(seed, device):
            yield
    finally:
        torch.set_rng_state(before)


@contextmanager
def _seeded_accelerator(seed: int, device: torch.device) -> Iterator[None]:
    module = torch.get_device_module(device)
    where = (device,) if device.type == "cuda" else ()  # MPS has one device and takes no argument
    before = module.get_rng_state(*where)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        module.manual_seed(seed)
    try:
        yield
    finally:
        module.set_rng_state(before, *where)


def mix(*numbers: int) -> int:
    """A seed that depends on all of `numbers`, each at least 0."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator on `device` whose seed depends on all of `numbers`, apart from every `mix` of them."""
    return torch.Generator(device).manual_seed(mix(*numbers, 0))
