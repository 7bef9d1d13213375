"""What a result depends on, as one digest: code, arguments, weights, images; and a refusal of what cannot be told.

Tensors and files enter by their bytes; modules by class, configuration, weights and training flag; functions of the
notebook by what their source does, with all that they refer to; functions of this library by name (and
`store.LIBRARY`), those of other packages by name alone. Devices do not enter.
"""

import dataclasses
import functools
import hashlib
import inspect
from enum import Enum
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._contextlib import _DecoratorContextManager as ContextDecorator

from vaekit.notebook import sources

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), torch.dtype, range, slice)
BARE = frozenset(vars(nn.Module()))  # the attributes that every module has


def digest(**parts: Any) -> str:
    """SHA-256 of named values, in hexadecimal digits.

    Raises:
        ValueError: A value, or something that it refers to, that cannot be told apart from others; it is named.

    Example:
        >>> digest(x=torch.ones(2), lr=0.1) == digest(x=torch.ones(2), lr=0.1)
        True
        >>> digest(x=torch.ones(2)) == digest(x=torch.ones(2).double())
        False
    """
    describer = _Describer()
    return _hash(*(f"{name}={describer.of(value, name)}" for name, value in sorted(parts.items())))


def _hash(*words: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, words)).encode()).hexdigest()


class _Describer:
    """The digest of each value from those of its parts."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}  # by id, of what is long to describe
        self.alive: list[Any] = []  # an id stays unique while its object lives
        self.open: list[int] = []  # what is being described: a circle ends there

    def of(self, value: Any, where: str) -> str:
        """The digest of any value; `where` names it in a refusal."""
        if isinstance(value, PLAIN):
            return _hash(type(value).__name__, repr(value))
        if id(value) in self.open:
            return f"circle {len(self.open) - self.open.index(id(value))}"
        if id(value) not in self.known:
            self.open.append(id(value))
            found = _hash(*self.parts(value, where))
            self.open.pop()
            if not isinstance(value, Tensor | nn.Module | FunctionType | type):
                return found
            self.known[id(value)] = found
            self.alive.append(value)
        return self.known[id(value)]

    def each(self, where: str, items: dict[str, Any]) -> list[str]:
        return [word for name, item in items.items() for word in (name, self.of(item, f"{where}{name}"))]

    def parts(self, value: Any, where: str) -> list[object]:
        """What tells a value from others of its kind."""
        match value:
            case Tensor():
                return ["tensor", *_tensor(value, where)]
            case np.ndarray() | np.generic():
                return ["array", *_array(np.asarray(value), where)]
            case nn.Module():
                return ["module", *self.module(value, where)]
            case type() if sources.by_name(value):
                return ["name", value.__module__, value.__qualname__]
            case FunctionType() if sources.by_name(value):
                return ["name", value.__module__, value.__qualname__, *self.captured(inspect.unwrap(value))]
            case FunctionType() if sources.decorated(value):
                inner = vars(value)["__wrapped__"]
                return ["decorated", value.__code__.co_qualname, self.of(inner, where), *self.captured(value)]
            case ContextDecorator():  # as torch.no_grad(); what else it remembers is the state before
                return ["context", type(value).__qualname__, getattr(value, "mode", None)]
            case FunctionType():
                return ["function", *self.function(value, where)]
            case type():
                return ["class", *self.cls(value, where)]
            case MethodType():
                return ["method", self.of(value.__self__, where), self.of(value.__func__, where)]
            case functools.partial():
                inner = {"function": value.func, "arguments": value.args, "keywords": value.keywords}
                return ["partial", *self.each(f"{where}, ", inner)]
            case ModuleType() if sources.by_name(value):
                return ["package", value.__name__]
            case torch.device():
                return ["device"]
            case Path() if value.is_file():
                with value.open("rb") as stream:
                    return ["file", hashlib.file_digest(stream, "sha256").hexdigest()]
            case Enum():
                return ["choice", self.of(type(value), where), value.name]
            case tuple() if hasattr(value, "_fields"):
                inside = dict(zip(value._fields, value, strict=True))
                return ["named tuple", self.of(type(value), where), *self.each(f"{where}.", inside)]
            case list() | tuple():
                items = {f"[{i}]": item for i, item in enumerate(value)}
                return [type(value).__name__, len(value), *self.each(where, items)]
            case dict():
                keys = [self.of(key, f"a key of {where}") for key in value]
                return ["dict", *keys, *(self.of(item, f"{where}[{key!r}]") for key, item in value.items())]
            case set() | frozenset():
                return ["set", *sorted(self.of(item, f"an element of {where}") for item in value)]
            case _ if isinstance(value, sources.BUILT_IN):
                return ["name", getattr(value, "__module__", None), getattr(value, "__qualname__", value.__name__)]
            case _ if callable(wrapped := getattr(value, "__wrapped__", None)):  # as lru_cache leaves it
                return ["wrapped", self.of(wrapped, where)]
            case _ if _ours(value):
                inside = dict(sorted(vars(value).items()))
                return ["object", self.of(type(value), where), *self.each(f"{where}.", inside)]
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        _refuse(where, {"pathlib.PosixPath": f"the path {value}, where no file is"}.get(kind, f"a {kind}"))

    def text(self, how: Any, value: Any, where: str) -> str:
        try:
            return how(value)
        except ValueError as error:
            _refuse(where, str(error))

    def module(self, value: nn.Module, where: str) -> list[object]:
        if hooks := [name for name, item in vars(value).items() if name.endswith("_hooks") and item]:
            _refuse(where, f"a module with {hooks[0]}")
        pairs = list(value.named_parameters(remove_duplicate=False))
        tied = [(a, b) for i, (a, u) in enumerate(pairs) for b, v in pairs[i + 1 :] if u is v]
        own = {**value._parameters, **value._buffers, **value._modules}
        own |= {name: item for name, item in sorted(vars(value).items()) if name not in BARE}
        return [self.of(type(value), where), value.training, tied, *self.each(f"{where}.", own)]

    def function(self, value: FunctionType, where: str) -> list[object]:
        used = {name: value.__globals__[name] for name in sources.globals_read(value)}
        return [self.text(sources.function_source, value, where), *self.each(f"{where}: ", used), *self.captured(value)]

    def captured(self, value: FunctionType) -> list[object]:
        """Defaults, and the variables of an enclosing function."""
        cells = {}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:  # not yet bound
                cells[name] = "unbound"
        defaults = {"defaults": value.__defaults__, "keyword defaults": value.__kwdefaults__}
        return [*self.each(f"{value.__name__}: ", defaults), *self.each(f"{value.__name__}: ", cells)]

    def cls(self, value: type, where: str) -> list[object]:
        written = {f.__qualname__: f for f in sources.functions_of(value)}
        plain = {k: v for k, v in vars(value).items() if isinstance(v, PLAIN) and not k.startswith("__")}
        names = [value.__qualname__, *getattr(value, "__annotations__", {})]
        bases = {base.__qualname__: base for base in value.__bases__}
        text = self.text(sources.class_source, value, where)
        return [*names, text, *self.each(f"{where}: ", bases | plain | written)]


def _tensor(value: Tensor, where: str) -> list[object]:
    if value.layout is not torch.strided or value.is_quantized:
        _refuse(where, "a sparse or quantised tensor")
    flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    content = hashlib.sha256(flat.view(torch.uint8).numpy() if flat.numel() else b"").hexdigest()  # type: ignore[arg-type]
    return [value.dtype, tuple(value.shape), value.requires_grad, content]


def _array(value: np.ndarray, where: str) -> list[object]:
    if value.dtype.hasobject:
        _refuse(where, "an array of objects")
    return [value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]


def _ours(value: Any) -> bool:
    """Whether an object says by its attributes what it is: one of this library, of the notebook, or a distribution."""
    ours = not sources.by_name(type(value)) or type(value).__module__.partition(".")[0] == "vaekit"
    known = dataclasses.is_dataclass(value) or isinstance(value, torch.distributions.Distribution)
    return hasattr(value, "__dict__") and (ours or known) and not isinstance(value, torch.Generator)


def _refuse(where: str, what: str) -> NoReturn:
    raise ValueError(
        f"{where}: expected numbers, text, tensors, modules, files, functions, or containers of these, of which a "
        f"digest can be taken; got {what}"
    )
