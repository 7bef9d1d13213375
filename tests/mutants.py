"""Do the tests notice? One-line changes to the library, each of which some test should fail on.

    make mutants FILES="vaekit/training/runs.py" N=30

For every file: N changes drawn from all that `mutations` finds (all, if N is 0). Each runs the tests of the file's
folder, up to the first failure, in a process of its own that has the changed source in the place of the old one.
Nothing on disk is touched. What is printed as ALIVE is either a gap in the tests or a change that means the same.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 200  # for the tests of one mutant; an endless loop is noticed too

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMED = {
    "min": "max", "max": "min", "amin": "amax", "amax": "amin", "train": "eval", "eval": "train", "any": "all",
    "all": "any", "sum": "mean", "mean": "sum", "argmax": "argmin", "minimum": "maximum", "maximum": "minimum",
    "cos": "sin", "sin": "cos",
}  # fmt: skip


def mutations(tree: ast.Module) -> Iterator[tuple[ast.AST, str, object]]:
    """Places in the code, with the field to change and what it becomes."""
    skipped = {id(inner) for node in ast.walk(tree) for part in _not_code(node) for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            yield node, "ops", [COMPARED[type(node.ops[0])](), *node.ops[1:]]
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in COMPUTED:
            yield node, "op", COMPUTED[type(node.op)]()
        elif isinstance(node, ast.BoolOp):
            yield node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            yield node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else None
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield node, "value", not node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            yield node, "value", node.value + 1
        elif isinstance(node, ast.Attribute) and node.attr in NAMED:
            yield node, "attr", NAMED[node.attr]
        elif isinstance(node, ast.Name) and node.id in NAMED:
            yield node, "id", NAMED[node.id]
        for block in ("body", "orelse", "finalbody"):
            for i, statement in enumerate(
                getattr(node, block, []) if not isinstance(node, ast.Lambda | ast.IfExp) else []
            ):
                called = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
                if called or isinstance(statement, ast.AugAssign):
                    statements = getattr(node, block)
                    yield node, block, [*statements[:i], ast.Pass(), *statements[i + 1 :]]


def _not_code(node: ast.AST) -> list[ast.AST]:
    """Parts that say something to people or to type checkers."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return [node]
    if isinstance(node, ast.FunctionDef):
        return [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg) and a.annotation] + (
            [node.returns] if node.returns else []
        )
    return [node.annotation] if isinstance(node, ast.AnnAssign) else []


def mutants(source: str) -> list[tuple[int, str, str]]:
    """All mutants of a file: line, what became of it, and the whole new source."""
    tree, made = ast.parse(source), []
    clean = ast.unparse(tree).splitlines()
    for index in range(sum(1 for _ in mutations(tree))):
        changed = copy.deepcopy(tree)
        node, name, value = list(mutations(changed))[index]
        if value is None:  # `not x` becomes x
            value = node.operand
            for parent in ast.walk(changed):
                for field, child in ast.iter_fields(parent):
                    if child is node:
                        setattr(parent, field, value)
                    elif isinstance(child, list) and node in child:
                        child[child.index(node)] = value
        else:
            setattr(node, name, value)
        text = ast.unparse(ast.fix_missing_locations(changed))
        new = [line for line in text.splitlines() if line not in clean]
        old = [line for line in clean if line not in text.splitlines()]
        line = getattr(node, "lineno", 0)
        made.append((line, f"{' / '.join(map(str.strip, old))} -> {' / '.join(map(str.strip, new)) or 'pass'}", text))
    return made


def change(module: types.ModuleType, source: str) -> None:
    """Run the new source in the module, and give what it defines to all modules that had imported the old."""
    old = dict(vars(module))
    exec(compile(source, module.__file__, "exec"), vars(module))
    new = {id(value): vars(module)[name] for name, value in old.items() if vars(module)[name] is not value}
    for other in [m for name, m in sys.modules.items() if name.partition(".")[0] == "vaekit"]:
        for name, value in list(vars(other).items()):
            if id(value) in new and not name.startswith("__"):
                setattr(other, name, new[id(value)])


def survives(path: Path, source: str, tests: list[str]) -> bool:
    """Whether all tests pass with `source` in the place of the file at `path`."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with contextlib.suppress(Exception), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            signal.alarm(SECONDS)
            names = path.relative_to(ROOT).with_suffix("").parts
            change(importlib.import_module(".".join(names[:-1] if names[-1] == "__init__" else names)), source)
            quick = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-k", f"not ({SLOW})"]
            os._exit(int(pytest.main([*quick, *tests])))
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SLOW = "processes or killed or learns or separate or reaches or light or real"  # other processes see the old source


def tests_of(path: Path) -> list[str]:
    """The tests of the file's folder; for a file of the first level, the test of its name."""
    room = path.relative_to(ROOT / "vaekit").parts[0].removesuffix(".py")
    own = ROOT / "tests" / room
    mirrored = own if own.is_dir() else ROOT / "tests" / f"test_{room}.py"
    return [str(mirrored), str(ROOT / "tests" / "test_bad_calls.py")]


def main() -> None:
    """Print what became of the mutants, and how many lived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-n", type=int, default=20, help="mutants of each file; 0 for all")
    parser.add_argument("--tests", nargs="*", help="tests to run, in place of those of the file's folder")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for module in (
        "hypothesis",
        "scipy.stats",
        "sklearn.datasets",
        "sklearn.mixture",
        "torch._dynamo",
        "vaekit",
    ):
        importlib.import_module(module)  # once: the mutants' processes are forks of this one
    torch.set_num_threads(1)
    files = [p.resolve() for p in asked.files] or sorted((ROOT / "vaekit").glob("**/*.py"))
    total, alive = 0, 0
    for path in files:
        made = mutants(path.read_text(encoding="utf-8"))
        random.Random(asked.seed).shuffle(made)
        for line, change, source in sorted(made[: asked.n or None]):
            began = time.monotonic()
            lived = survives(path, source, asked.tests or tests_of(path))
            total, alive = total + 1, alive + lived
            said = f"{'ALIVE' if lived else 'killed':6} {path.relative_to(ROOT)}:{line}  {change[:160]}"
            print(f"{said}  ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{total} mutants: {total - alive} killed, {alive} alive")


if __name__ == "__main__":
    main()
