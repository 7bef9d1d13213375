"""What an objective is made of: the modules inside it, wherever they are kept, and a private copy of it.

An objective may be a module, a function, a `functools.partial`, a bound method, a function that closes over others, or
any of these inside another. What `fit` trains and saves, and what `tracin` differentiates, are the modules that can be
reached from it on these ways. A module that a function finds by a *global* name cannot be reached: `strangers` tells.
"""

import copy
import types
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
Objective = TypeVar("Objective")


def modules_of(objective: object) -> dict[str, nn.Module]:
    """The modules inside an objective, by the path that leads to each.

    A partial and a bound method are looked through and add nothing to a path: `bound` and `partial(bound, beta=2.0)`
    answer alike. A module that is part of another module found is not listed again.

    Args:
        objective: Any callable, or a list, tuple or dictionary of such.

    Returns:
        From path to module; the objective itself has the path `""`. Empty for a plain function.

    Example:
        >>> from vaekit import JacobianL1, PlanarBound, elbo
        >>> list(modules_of(JacobianL1(partial(PlanarBound(2, steps=1), samples=3), weight=0.1)))
        ['', 'bound']
        >>> modules_of(partial(elbo, beta=2.0))
        {}
    """
    found: dict[str, nn.Module] = {}
    inside: set[int] = set()
    for path, module in _walk(objective, "", set()):
        if isinstance(module, nn.Module) and id(module) not in inside:
            found[path] = module
            inside |= {id(part) for part in module.modules()}
    return found


def module_of(objective: object) -> nn.Module | None:
    """All modules of an objective as one: its parameters are those that are trained, its state is what is saved.

    Returns:
        The module itself where `modules_of` finds one, an `nn.ModuleDict` of several, `None` where there is none.
    """
    found = modules_of(objective)
    if len(found) <= 1:
        return next(iter(found.values()), None)
    return nn.ModuleDict({"/" + path.replace(".", "/"): module for path, module in found.items()})


def private_copy(model: Model, objective: Objective) -> tuple[Model, Objective]:
    """Deep copies of a model and of an objective (or several, in a tuple); what they share stays shared.

    Unlike `copy.deepcopy`, it also copies the modules that a function closes over.
    """
    memo: dict[int, Any] = {}
    functions = [f for _, f in _walk(objective, "", set()) if isinstance(f, types.FunctionType) and _closes_over(f)]
    copied = copy.deepcopy(model, memo)
    for f in reversed(functions):  # the innermost first, so that the others find its copy in the memo
        cells = tuple(types.CellType(copy.deepcopy(value, memo)) for _, value in _closed(f))
        new = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
        new.__kwdefaults__, new.__module__, new.__qualname__ = f.__kwdefaults__, f.__module__, f.__qualname__
        memo[id(f)] = new
    return copied, copy.deepcopy(objective, memo)


def strangers(values: Tensor, known: Iterable[Tensor]) -> list[tuple[int, ...]]:
    """Shapes of the parameters that `values` depends on by automatic differentiation and that are not among `known`.

    Where the list is not empty, an objective uses weights that nobody will train: a function may have found a module by
    a global name, say.
    """
    expected = {id(p) for p in known}
    seen: set[Any] = set()
    shapes, stack = [], [values.grad_fn] if values.grad_fn is not None else []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in expected:
            shapes.append(tuple(leaf.shape))
        stack += [before for before, _ in node.next_functions if before is not None]
    return shapes


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Modules and functions that can be reached from `value`, outer ones before inner ones, each once."""
    if id(value) in seen or isinstance(value, type | types.ModuleType):
        return
    seen.add(id(value))
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, nn.Module):
        yield path, value
        kept = {name: part for name, part in vars(value).items() if name not in _OF_TORCH}
        parts = (*kept.items(), *value._modules.items())
    elif isinstance(value, types.FunctionType):
        yield path, value
        parts = _closed(value)
    elif isinstance(value, partial):
        parts = (("", value.func), *((str(i), a) for i, a in enumerate(value.args)), *value.keywords.items())
    elif isinstance(value, types.MethodType):
        parts = (("", value.__self__), ("", value.__func__))
    elif isinstance(value, dict):
        parts = ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        parts = ((str(i), part) for i, part in enumerate(value))
    elif callable(value) and hasattr(value, "__dict__"):
        parts = vars(value).items()
    for name, part in parts:
        yield from _walk(part, ".".join(filter(None, (path, name))), seen)


_OF_TORCH = set(vars(nn.Module()))  # what every module keeps: its parameters, hooks and the like


def _closed(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Names and values of the variables that a function closes over."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(name, cell.cell_contents if cell != types.CellType() else None) for name, cell in cells]


def _closes_over(function: types.FunctionType) -> bool:
    return any(isinstance(part, nn.Module) for _, value in _closed(function) for _, part in _walk(value, "", set()))
