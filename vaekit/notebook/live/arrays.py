r"""Numbers on their way to the page: tensors as text, in as few bits as they need.

A weight matrix is stored in 32 or 16 bits a number, or quantised to $b = 4, \dots, 12$ bits with one scale a row,

$$w_{ij} \approx s_i\, k_{ij}, \qquad s_i = \max_j |w_{ij}| / m, \qquad k_{ij} \in \{-m, \dots, m\}, \qquad
  m = 2^{b-1} - 1,$$

or, below 8 bits, with the $s_i$ up to half as large that leaves the smallest squared error and cuts off the largest
weights. Biases and scales keep 16 bits. What the page computes from these numbers it computes in double precision.
"""

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

Data = dict[str, Any]

PRECISIONS = (32, 16, 12, 10, 8, 7, 6, 5, 4)  # bits a number


def array(values: Tensor, bits: int = 32) -> Data:
    """A tensor as data; one with a single dimension, or none, is never stored in fewer than 16 bits.

    Args:
        values: Any shape, finite.
        bits: One of `PRECISIONS`.

    Raises:
        ValueError: Unknown `bits`, or a value that is NaN, infinite, or too large for its bits.
    """
    if bits not in PRECISIONS:
        raise ValueError(f"bits: expected one of {', '.join(map(str, PRECISIONS))}, got {bits}")
    numbers = values.detach().cpu().to(torch.float32)
    if not numbers.isfinite().all() or (bits < 32 and len(numbers.flatten()) and numbers.abs().max() > 65_000):
        raise ValueError(f"values: expected finite numbers that {bits} bits can hold, got NaN, infinity or more")
    shape = list(numbers.shape)
    if bits < 16 and len(shape) > 1:
        step, steps = _steps(numbers, bits)
        counts = (steps + 2 ** (bits - 1) - 1).to(torch.int64).flatten().numpy()
        digits = (counts[:, None] >> np.arange(bits)) & 1  # least significant bit first
        data = _text(np.packbits(digits, bitorder="little"))
        return {"bits": bits, "shape": shape, "scale": array(step.flatten(), 16), "data": data}
    bits = max(bits, 16)
    return {"bits": bits, "shape": shape, "data": _text(numbers.numpy().astype("<f4" if bits == 32 else "<f2"))}


def rounded(values: Tensor, bits: int) -> Tensor:
    """What `array` keeps of a tensor."""
    if bits == 32 or values.ndim < 2 or bits == 16:
        return values.float().to(torch.float32 if bits == 32 else torch.float16).to(values)
    step, steps = _steps(values.detach().float(), bits)
    return (step * steps).reshape(values.shape).to(values)


def _steps(numbers: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The step of each row `[R, 1]`, and how many of its row's steps each number is, `[R, ...]` flattened."""
    rows, middle = numbers.reshape(numbers.shape[0], -1), 2 ** (bits - 1) - 1
    largest = rows.abs().amax(1, keepdim=True) / middle
    best = torch.full_like(largest, torch.inf)
    chosen = largest
    for share in [1.0] if bits >= 8 else [1 - k / 20 for k in range(11)]:
        step = (share * largest).half().float().clamp_min(2.0**-24)
        error = (rows - step * (rows / step).round().clamp(-middle, middle)).square().sum(1, keepdim=True)
        chosen, best = torch.where(error < best, step, chosen), error.minimum(best)
    return chosen, (rows / chosen).round().clamp(-middle, middle)


def _text(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()
