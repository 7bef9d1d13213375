"""What public functions ask of their input; errors name the argument, what came and what is expected."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real

import torch
from torch import Tensor, nn

_values_known_good: ContextVar[bool] = ContextVar("values_known_good", default=False)


@contextmanager
def trusted() -> Iterator[None]:
    """Inside this block the *values* of images are not looked at again.

    `fit` checks a data set once and then calls its objective thousands of times; on a GPU each look would make the
    host wait. Shapes and dtypes cost nothing and are still checked.
    """
    token = _values_known_good.set(True)
    try:
        yield
    finally:
        _values_known_good.reset(token)


def is_true(condition: Tensor) -> bool:
    """The truth of a scalar tensor; `True` where torch cannot tell (inside `vmap` or while compiling)."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition)
    except RuntimeError:  # a batched tensor under vmap has no single truth value
        return True


def images(
    x: Tensor,
    *,
    name: str = "x",
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
    unit_range: bool = False,
) -> None:
    """Refuse anything that is not a non-empty floating-point batch of finite images.

    Args:
        x: What is to be a batch of images, shape `[B, *image]`.
        name: How the caller calls it, for the error.
        shape: The image shape `[*image]` that is expected, if it is known.
        dtype: The floating-point type that is expected, if it is known.
        unit_range: Whether pixels must lie in [0, 1].

    Raises:
        ValueError: It is not a floating tensor, is empty, has another shape or dtype, a NaN, an infinity, or (with
            `unit_range`) a pixel outside [0, 1].
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a torch.Tensor of images, got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point pixels, got dtype {x.dtype}; convert with x.float() / 255")
    if dtype is not None and x.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {dtype} like the model's parameters, got {x.dtype}")
    if shape is not None and x.shape[-len(shape):] != torch.Size(shape):
        raise ValueError(f"{name}: expected images of shape {tuple(shape)}, got a tensor of shape {tuple(x.shape)}")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"{name}: expected a non-empty batch of images [B, *image], got shape {tuple(x.shape)}")
    if torch.compiler.is_compiling() or _values_known_good.get():
        return
    low, high = x.detach().aminmax()  # one pass over the data; a NaN anywhere makes both NaN
    if not is_true(low.isfinite() & high.isfinite()):
        raise ValueError(f"{name}: found NaN or infinite pixels; every pixel must be finite")
    if unit_range and not is_true((low >= 0) & (high <= 1)):
        raise ValueError(f"{name}: expected pixels in [0, 1], got values from {low:.4g} to {high:.4g}; divide by 255?")


def count(value: object, least: int, name: str) -> None:
    """Raise `ValueError` unless `value` is a whole number, of a type for whole numbers, of at least `least`."""
    whole = hasattr(value, "__index__") and not isinstance(value, bool | Tensor)
    if not whole or value < least:  # type: ignore[operator]
        expected = f"at least {least}" if whole else f"a whole number, at least {least}"
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def at_least(value: object, least: float, name: str) -> None:
    """Raise `ValueError` unless `value` is a finite number of at least `least`."""
    if not _is_number(value):
        raise ValueError(f"{name}: expected a number, at least {least}, got {shown(value)}")
    if not least <= value < math.inf:  # type: ignore[operator]
        raise ValueError(f"{name}: expected at least {least}{' and finite' * (value == math.inf)}, got {value}")


def positive(value: object, name: str) -> None:
    """Raise `ValueError` unless `value` is a number above zero and finite."""
    if not _is_number(value) or not 0 < value < math.inf:  # type: ignore[operator]
        raise ValueError(f"{name}: expected a positive finite number, got {shown(value)}")


def between(value: object, low: float, high: float, name: str) -> None:
    """Raise `ValueError` unless a number, or every element of a tensor, lies strictly between `low` and `high`.

    Inside `trusted` the elements of tensors are not looked at.
    """
    if isinstance(value, Tensor) and value.numel() > 0 and not value.is_complex():
        if torch.compiler.is_compiling() or _values_known_good.get():
            return
        fine = is_true(((value > low) & (value < high)).all())
    else:
        fine = _is_number(value) and low < value < high  # type: ignore[operator]
    if not fine:
        raise ValueError(f"{name}: expected numbers strictly between {low:g} and {high:g}, got {shown(value)}")


def share(value: object, name: str) -> None:
    """Raise `ValueError` unless `value` is a number above 0 and up to 1."""
    if not _is_number(value) or not 0 < value <= 1:  # type: ignore[operator]
        raise ValueError(f"{name}: expected a share above 0 and up to 1, got {shown(value)}")


def shape(value: object, name: str, expected: str = "whole numbers of at least 1") -> None:
    """Raise `ValueError` unless `value` is a non-empty tuple or list of whole numbers of at least 1."""
    fine = isinstance(value, tuple | list) and len(value) > 0
    if not fine or not all(hasattr(n, "__index__") and n >= 1 for n in value):  # type: ignore[attr-defined]
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")


def model(value: object, name: str = "model") -> None:
    """Raise `ValueError` unless `value` looks like a model: it has a posterior and a likelihood."""
    if not hasattr(value, "posterior"):
        raise ValueError(f"{name}: expected a VAE, or a module with its methods, got {shown(value)}")


def module(value: object, name: str) -> None:
    """Raise `ValueError` unless `value` is a `torch.nn.Module`."""
    if not isinstance(value, nn.Module):
        raise ValueError(f"{name}: expected a torch.nn.Module, got {shown(value)}")


def function(value: object, name: str) -> None:
    """Raise `ValueError` unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{name}: expected a function, got {shown(value)}")


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, bool)


def described(value: object) -> str:
    """A tensor by its type and shape, anything else by its type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """How an error names what came: a tensor by its shape, a long list by its beginning."""
    if isinstance(value, Tensor) and value.numel() != 1:
        return f"a tensor of shape {tuple(value.shape)}"
    said = repr(value)
    return said if len(said) < 80 else f"{said[:77]}..."
