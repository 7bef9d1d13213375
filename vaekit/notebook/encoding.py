"""Results as tensors, numbers, text, and lists and dictionaries of these, and back: what can be read without pickle."""

import dataclasses
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

KEY = "vaekit:kind"
PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.Size)


def encode(value: Any, where: str) -> Any:
    """A value as something that `torch.load(..., weights_only=True)` reads.

    Raises:
        ValueError: Something in it is of a kind that cannot be kept; `where` and its place name it.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()  # of a view, only what is seen
    if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in "biufc":
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        return {KEY: "scalar" if isinstance(value, np.generic) else "array", "value": torch.from_numpy(array.copy())}
    if isinstance(value, Path):
        return {KEY: "path", "value": str(value)}
    if type(value) in (list, tuple, set):
        return type(value)(encode(item, f"{where}[{i}]") for i, item in enumerate(value))
    if type(value) in (dict, OrderedDict):
        items = [(encode(k, f"a key of {where}"), encode(item, f"{where}[{k!r}]")) for k, item in value.items()]
        return dict(items) if KEY not in value else {KEY: "dict", "value": items}
    if fields := _fields(type(value)):
        inner = {name: encode(getattr(value, name), f"{where}.{name}") for name in fields}
        return {KEY: "record", "module": type(value).__module__, "name": type(value).__qualname__, "value": inner}
    raise ValueError(
        f"{where}: expected tensors, arrays, numbers, text, and lists, tuples, dictionaries or records of these, which "
        f"can be kept; got {type(value).__module__}.{type(value).__qualname__}"
    )


def decode(value: Any) -> Any:
    """What `encode` was given.

    Raises:
        ValueError: A record whose class is not loaded, or has other fields now.
    """
    if isinstance(value, list | tuple | set) and not isinstance(value, torch.Size):
        return type(value)(map(decode, value))
    if not isinstance(value, dict):
        return value
    match value.get(KEY):
        case None:
            return {decode(key): decode(item) for key, item in value.items()}
        case "array":
            return value["value"].numpy()
        case "scalar":
            return value["value"].numpy()[()]
        case "path":
            return Path(value["value"])
        case "dict":
            return {decode(key): decode(item) for key, item in value["value"]}
        case _:
            found: Any = sys.modules.get(value["module"])
            for part in value["name"].split("."):
                found = getattr(found, part, None)
            if not isinstance(found, type) or _fields(found) != list(value["value"]):
                raise ValueError(f"there is no class {value['name']} with these fields")
            return found(**{name: decode(item) for name, item in value["value"].items()})


def _fields(cls: type) -> list[str]:
    """The fields of a named tuple or dataclass; none of anything else."""
    if dataclasses.is_dataclass(cls):
        return [f.name for f in dataclasses.fields(cls) if f.init]
    return list(getattr(cls, "_fields", ())) if issubclass(cls, tuple) else []
