"""`stored`: a function's result, computed once and kept in the store of runs."""

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.notebook import store
from vaekit.notebook.digest import digest
from vaekit.notebook.turns import turn
from vaekit.training.devices import default_device
from vaekit.training.seeding import seeded

__all__ = ["stored"]

CHANGED = "expected a function that leaves its arguments and the notebook's variables alone, got one that changes some"

T = TypeVar("T")


class _Stored:
    def __call__(self, name: str, function: Callable[..., T], *args: Any, version: int = 0, **kwargs: Any) -> T:
        """`function(*args, **kwargs)`, from the store if it is there, else computed and kept.

        The result is kept under a digest of all that it depends on: the name, what the function does (and all
        functions, classes and values of the notebook that it refers to), the arguments with their weights and pixels.
        A change of any of these is computed anew. Random numbers inside follow from the digest, whatever was drawn
        before; torch's, NumPy's and Python's global states are left as they were.

        Args:
            name: What is computed, in words; a line tells the reader by it what was found.
            function: It must not change its arguments, nor a variable of the notebook that it reads.
            *args: Its arguments: tensors, modules, numbers, text, files, functions, and containers of these.
            version: To be raised when the function changes in a way that its source does not show.
            **kwargs: Its keyword arguments.

        Returns:
            What the function returns: tensors, arrays, numbers, text, and lists, dictionaries and records of these.

        Raises:
            ValueError: An argument of which no digest can be taken, a result that cannot be kept, or a function that
                changed its arguments or the notebook's variables.
            OSError: The store cannot be written.

        Example:
            >>> stored("a sum", sum, [1, 2, 3])
            6
        """
        key = _key(name, function, args, kwargs, version)
        path = store.file(name, key)
        with turn(name, path):
            if (found := store.read(path, key)) is not None:
                store.taken(name, found[1], path)
                return found[0]
            store.say("", event="start", name=name)
            began = time.perf_counter()
            value = _run(key, function, *args, **kwargs)
            if _key(name, function, args, kwargs, version) != key:
                raise ValueError(f"{name}: {CHANGED}")
            seconds = time.perf_counter() - began
            store.write(path, name, key, value, seconds=seconds)
            store.done(name, "computed", seconds, path)
            return value

    def chunks(
        self, name: str, function: Callable[..., T], over: Tensor | Sequence, *args: Any, chunk: int, dim: int = 0,
        version: int = 0, **kwargs: Any,
    ) -> T:  # fmt: skip
        """`function(over, *args, **kwargs)`, computed and kept in chunks of its first argument: a stop repeats one.

        Args:
            name: As for `stored`.
            function: What it says of an image must not depend on the other images of the chunk.
            over: Images `[N, ...]`, or a list, such as one of seeds; it is cut along its first dimension.
            *args: The function's other arguments.
            chunk: How many at a time, at least 1. Random numbers follow from each chunk's own digest.
            dim: Along which dimension of the results chunks are joined.
            version: As for `stored`.
            **kwargs: The function's keyword arguments.

        Returns:
            The chunks' results joined: tensors and arrays along `dim`, lists one after the other, tuples, records and
            dictionaries of these entry by entry.

        Raises:
            ValueError: As for `stored`; nothing to compute; results that cannot be joined.
            OSError: The store cannot be written.

        Example:
            >>> stored.chunks("squares", torch.square, torch.arange(5.0), chunk=2)
            tensor([ 0.,  1.,  4.,  9., 16.])
        """
        checks.at_least(chunk, 1, "chunk")
        checks.at_least(len(over), 1, "over")
        common = _key(name, function, (args, dim), kwargs, version)
        key = digest(common=common, over=over, chunk=chunk)
        path = store.file(name, key)
        with turn(name, path):
            if (found := store.read(path, key)) is not None:
                store.taken(name, found[1], path)
                return found[0]
            parts, files, seconds, count = [], [], 0.0, -(-len(over) // chunk)
            for k in tqdm(range(count), desc=name, unit="chunk", disable=not store.shown()):
                piece = over[k * chunk : (k + 1) * chunk]
                key_k = digest(common=common, over=piece)
                files.append(store.file(f"{name} chunk", key_k))
                if (found := store.read(files[-1], key_k)) is None:
                    store.say("", event="step", name=name, done=k, total=count)
                    began = time.perf_counter()
                    value = _run(key_k, function, piece, *args, **kwargs)
                    spent = time.perf_counter() - began
                    store.write(files[-1], f"{name} chunk", key_k, value, seconds=spent)
                else:
                    value, spent = found[0], found[1]["seconds"]
                    store.ledger.seconds += spent
                parts.append(value)
                seconds += spent
            if _key(name, function, (args, dim), kwargs, version) != common:
                raise ValueError(f"{name}: {CHANGED}")
            joined = _join(parts, dim, name)
            store.write(path, name, key, joined, seconds=seconds)
            for file in files:
                file.unlink(missing_ok=True)
            store.done(name, "computed", seconds, path)
            return joined


stored = _Stored()


def _key(name: str, function: Any, args: tuple, kwargs: dict, version: int) -> str:
    try:
        named = {f"argument {i + 1}": value for i, value in enumerate(args)} | dict(sorted(kwargs.items()))
        return digest(
            name=name, function=function, arguments=named, version=version, library=store.LIBRARY,
            dtype=torch.get_default_dtype(),
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _run(key: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    with own_random_numbers(key):
        return function(*args, **kwargs)


@contextmanager
def own_random_numbers(key: str) -> Iterator[None]:
    """Inside, all global random numbers follow from a digest; afterwards their states are what they were before."""
    seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
    before, numpys = random.getstate(), np.random.get_state()
    try:
        with seeded(seed, default_device()):
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numpys)


def _join(parts: list[Any], dim: int, name: str) -> Any:
    first = parts[0]
    if isinstance(first, Tensor) and first.ndim:
        return torch.cat(parts, dim)
    if isinstance(first, np.ndarray) and first.ndim:
        return np.concatenate(parts, dim)
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts], dim, f"{name}[{key!r}]") for key in first}
    if isinstance(first, tuple):
        entries = [_join(list(column), dim, f"{name}[{i}]") for i, column in enumerate(zip(*parts, strict=True))]
        return type(first)(*entries) if hasattr(first, "_fields") else tuple(entries)
    raise ValueError(
        f"{name}: expected results that can be joined (tensors and arrays with a dimension, lists, and tuples or "
        f"dictionaries of these), got {type(first).__name__}"
    )
