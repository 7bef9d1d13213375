"""A description of an objective, a model or a schedule that is the same exactly where its configuration is."""

import ast
import enum
import hashlib
import inspect
import json
import pickle
import textwrap
import types
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OF_TORCH = set(vars(nn.Module()))  # what every module keeps: its parameters, hooks and the like
_SETTLED = ("vaekit", "torch", "numpy", "functools")  # functions of these are known by their name


def describe(value: object, *, weights: bool = True) -> Any:
    """What `value` is and how it is configured, in full, as JSON takes it.

    Two objectives have one description if they are of the same functions and classes, with the same numbers, keywords,
    closed-over values and defaults, and (with `weights`) the same parameters. A function that is not the library's is
    known by its source, or failing that by its compiled code, and by the global values that it names.

    Args:
        value: An objective, a module, a schedule, a likelihood, or a list, tuple or dictionary of such.
        weights: Whether parameters and buffers count by their values; else by their shapes and types alone.

    Returns:
        Dictionaries, lists, strings, numbers, `None`. Tensors and arrays stand there by a digest of their bytes.

    Example:
        >>> from vaekit import elbo
        >>> describe(partial(elbo, beta=2.0))
        {'partial': {'function': 'vaekit.bounds.elbo'}, 'args': [], 'keywords': {'beta': 2.0}}
        >>> describe(partial(elbo, beta=2.0)) == describe(partial(elbo, beta=2.01))
        False
    """
    return _Describer(weights).of(value)


def digest(value: object, *, weights: bool = True) -> str:
    """A short fingerprint of `describe(value)`."""
    text = json.dumps(describe(value, weights=weights), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Describer:
    def __init__(self, weights: bool) -> None:
        self.weights = weights
        self.met: dict[int, int] = {}  # id of what has been described -> its number
        self.kept: list[Any] = []  # alive, so that no id is given twice

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, enum.Enum):
            return f"{_name(type(value))}.{value.name}"
        if isinstance(value, int | float) and type(value) in (int, float):
            return value if value == value and abs(value) != float("inf") else repr(value)
        if isinstance(value, torch.dtype | torch.device | range | slice | complex | bytes | np.generic | PurePath):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
            return {"name": _name(value)}
        if isinstance(value, Tensor | np.ndarray):
            return _tensor(value, self.weights or not isinstance(value, nn.Parameter))
        if isinstance(value, dict):
            return {str(key): self.of(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(part) for part in value]
        if isinstance(value, set | frozenset):
            return sorted((self.of(part) for part in value), key=repr)
        if id(value) in self.met:
            return {"again": self.met[id(value)]}
        self.met[id(value)] = len(self.met)
        self.kept.append(value)
        return self._of_object(value)

    def _of_object(self, value: Any) -> Any:
        if isinstance(value, nn.Module):
            return self._of_module(value)
        if isinstance(value, partial):
            keywords = self.of(value.keywords)
            return {"partial": self.of(value.func), "args": self.of(value.args), "keywords": keywords}
        if isinstance(value, types.MethodType):
            return {"method": value.__name__, "of": self.of(value.__self__)}
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, torch.Generator):
            return {"generator": _tensor(value.get_state(), True)}
        if type(value).__reduce__ is object.__reduce__ and hasattr(value, "__dict__"):
            return {"class": _class(type(value)), "attributes": self.of(vars(value))}
        return {"class": _class(type(value)), "bytes": _pickled(value)}

    def _of_module(self, module: nn.Module) -> Any:
        tensors = {**module._parameters, **module._buffers}
        return {
            "module": _class(type(module)),
            "attributes": {k: self.of(v) for k, v in vars(module).items() if k not in _OF_TORCH},
            "weights": {k: None if t is None else _tensor(t, self.weights) for k, t in tensors.items()},
            "modules": {k: self.of(m) for k, m in module._modules.items()},
        }

    def _of_function(self, function: types.FunctionType) -> Any:
        said: dict[str, Any] = {"function": _name(function)}
        code = function.__code__
        if code.co_freevars:
            cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
            said["closure"] = {name: self.of(c.cell_contents) for name, c in cells if c != types.CellType()}
        if _settled(function):
            return said
        said["defaults"] = self.of([function.__defaults__, function.__kwdefaults__])
        said["code"] = _code(function)
        used = _names(code)
        said["globals"] = {k: self.of(v) for k, v in sorted(function.__globals__.items()) if k in used}
        return said


def _settled(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] in _SETTLED


def _class(kind: type) -> Any:
    """A class by its name, and its own methods by their code where it is not the library's."""
    bases = [base for base in kind.__mro__ if base is not object and not _settled(base)]
    methods = {f"{b.__qualname__}.{k}": _code(f) for b in bases for k, f in vars(b).items() if inspect.isfunction(f)}
    return [_name(kind), methods] if methods else _name(kind)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', getattr(value, '__name__', value))}"


def _tensor(value: Tensor | np.ndarray, by_value: bool) -> Any:
    shape, kind = [*value.shape], str(value.dtype)
    if not by_value:
        return {"shape": shape, "dtype": kind}
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return {"shape": shape, "dtype": kind, "digest": hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()}


def _pickled(value: Any) -> str:
    try:
        return hashlib.blake2b(pickle.dumps(value), digest_size=16).hexdigest()
    except Exception as error:
        raise ValueError(f"objective: expected a configuration that can be described, got {value!r}") from error


def _names(code: types.CodeType) -> set[str]:
    """The global names that compiled code uses, that of functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _code(function: types.FunctionType) -> str:
    """The function's source as Python reads it, without layout and comments; or a digest of its compiled code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        kind = ast.Lambda if function.__name__ == "<lambda>" else ast.FunctionDef
        nodes = [n for n in ast.walk(tree) if isinstance(n, kind)]
        (found,) = [n for n in nodes if getattr(n, "name", "<lambda>") == function.__name__]
        return ast.unparse(found)
    except (OSError, TypeError, SyntaxError, ValueError):
        return _compiled(function.__code__)


def _compiled(code: types.CodeType) -> str:
    constants = [_compiled(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    said = repr((code.co_code, constants, code.co_names, code.co_varnames))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
