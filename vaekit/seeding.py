"""Reproducible random numbers without touching the caller's random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside this block torch's default generators start from `seed`; afterwards they are as they were before.

    Args:
        seed: Any integer that `torch.manual_seed` takes.
        device: The device whose generator is scoped beside the CPU's.

    Example:
        >>> with seeded(0):
        ...     first = torch.randn(2)
        >>> with seeded(0):
        ...     again = torch.randn(2)
        >>> torch.equal(first, again)
        True
    """
    device = torch.device(device)
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=accelerators, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield
