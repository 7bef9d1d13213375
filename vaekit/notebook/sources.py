"""Code as a text that says what it does: without layout and comments, and the same in every version of Python."""

import ast
import dis
import linecache
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

import numpy as np

BUILT_IN = (BuiltinFunctionType, MethodDescriptorType, np.ufunc)
INSTALLED = tuple({Path(sysconfig.get_path(n)).resolve() for n in ("stdlib", "platstdlib", "purelib", "platlib")})


def written_out(node: object) -> str:
    """A syntax tree as text; unlike `ast.dump` the same in every version of Python.

    Example:
        >>> written_out(ast.parse("a  # one\\n")) == written_out(ast.parse("\\na"))
        True
    """
    if isinstance(node, ast.AST):
        fields = (f"{name}={written_out(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(fields)})"
    return f"[{','.join(map(written_out, node))}]" if isinstance(node, list) else repr(node)


def function_source(function: FunctionType) -> str:
    """What a function or lambda does, without docstrings, from the file or the notebook's cell that it stands in.

    Raises:
        ValueError: Its source cannot be read, or cannot be told from another on the same line.
    """
    code = function.__code__
    if code.co_name == "<lambda>":
        wanted: Callable[[ast.AST], bool] = lambda node: isinstance(node, ast.Lambda) and _around(node, code)  # noqa: E731
    else:
        wanted = lambda node: (  # noqa: E731
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == code.co_name
            and min([node.lineno, *(d.lineno for d in node.decorator_list)]) == code.co_firstlineno
        )
    found = [node for node in ast.walk(_tree(code)) if wanted(node)]
    if code.co_name == "<lambda>":  # the innermost: one lambda may contain another
        found = [node for node in found if not any(other is not node and other in ast.walk(node) for other in found)]
    if len(found) != 1:
        raise ValueError(f"the source of {function.__qualname__} is not to be found in {code.co_filename}")
    return written_out(_without_docstrings(found[0]))


def class_source(cls: type) -> str:
    """What a class says, without docstrings; it is found by way of one of its methods.

    Raises:
        ValueError: Its source cannot be read.
    """
    code = next((f.__code__ for f in functions_of(cls) if f.__qualname__.startswith(f"{cls.__qualname__}.")), None)
    if code is None:  # no method of its own: a name, annotations and values, which the caller has to add
        return "no methods"
    for node in ast.walk(_tree(code)):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if code.co_firstlineno in lines:
                return written_out(_without_docstrings(node))
    raise ValueError(f"the source of the class {cls.__qualname__} is not to be found in {code.co_filename}")


def functions_of(cls: type) -> list[FunctionType]:
    """The functions that a class's text defines: methods, static and class methods, properties; none of `dataclass`."""
    found: list[FunctionType] = []
    for value in vars(cls).values():
        inner = [value.fget, value.fset, value.fdel] if isinstance(value, property) else [value]
        found += [f for v in inner if isinstance(f := getattr(v, "__func__", v), FunctionType)]
    written = [f for f in found if f.__code__.co_filename != "<string>" and not installed(f.__code__.co_filename)]
    return sorted(written, key=lambda f: f.__qualname__)


def installed(file: str) -> bool:
    """Whether a file belongs to Python itself or to an installed package."""
    return any(Path(file).resolve().is_relative_to(folder) for folder in INSTALLED)


def globals_read(function: FunctionType) -> list[str]:
    """The names of the global variables that a function reads, in the functions inside it too."""

    def inside(code: CodeType) -> Iterator[str]:
        yield from (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from inside(constant)

    return sorted(set(inside(function.__code__)) & set(function.__globals__))


def by_name(value: Any) -> bool:
    """Whether code belongs to this library or to an installed package: then its name stands for it."""
    module = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return isinstance(value, BUILT_IN)
    if module.__name__.partition(".")[0] == "vaekit":
        return True
    file = getattr(module, "__file__", None)
    return file is None or installed(file)


def decorated(function: FunctionType) -> bool:
    """Whether a function of the notebook has been wrapped by an installed package, as by `@torch.no_grad()`."""
    return "__wrapped__" in vars(function) and installed(function.__code__.co_filename)


def _tree(code: CodeType) -> ast.AST:
    lines = linecache.getlines(code.co_filename)
    try:
        return ast.parse("".join(lines) or "?")
    except SyntaxError:
        raise ValueError(f"the source of {code.co_qualname} cannot be read ({code.co_filename})") from None


def _around(node: ast.Lambda, code: CodeType) -> bool:
    """Whether the instructions of `code` stand within the body of this lambda."""
    body = node.body
    first, last = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    spots = [(p[0], p[2], p[1], p[3]) for p in code.co_positions() if None not in p and p[3] != 0]
    return bool(spots) and all(first <= (a, b) and (c, d) <= last for a, b, c, d in spots)  # type: ignore[operator]


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            match node.body[0]:
                case ast.Expr(value=ast.Constant(value=str())):
                    node.body = node.body[1:]
    return tree
