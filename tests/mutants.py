"""Do the tests notice? One-line changes to the library, each of which some test should fail on.

    make mutants FILES="vaekit/training/runs.py" N=30

The tests of the files' folders run once, to learn which lines each of them reaches and how long it takes. Then, for
every file, N changes are drawn from all that `mutations` finds (all, if N is 0); each is made in a process of its own,
in which the tests that reach the changed line run, the quickest first, until one fails. Nothing on disk is touched.
What is printed as ALIVE is either a gap in the tests or a change that means the same.
"""

import argparse
import ast
import contextlib
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ["tests/test_bad_calls.py", "tests/test_pretended_gpu.py"]  # these call everything
SLOW = "processes or killed or separate"  # other processes see the old source

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
    names = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
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
        elif isinstance(node, ast.Attribute) and node.attr in NAMED and id(node) in names:
            yield node, "attr", NAMED[node.attr]
        elif isinstance(node, ast.Name) and node.id in NAMED and id(node) in names:
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


def mutant(source: str, index: int) -> tuple[int, str, str]:
    """One of the mutants of a file: its line, what became of it, and the whole new source."""
    tree = ast.parse(source)
    clean = ast.unparse(tree).splitlines()
    node, name, value = list(mutations(tree))[index]
    if value is None:  # `not x` becomes x
        value = node.operand
        for parent in ast.walk(tree):
            for field, child in ast.iter_fields(parent):
                if child is node:
                    setattr(parent, field, value)
                elif isinstance(child, list) and node in child:
                    child[child.index(node)] = value
    else:
        setattr(node, name, value)
    text = ast.unparse(ast.fix_missing_locations(tree))
    new = [line for line in text.splitlines() if line not in clean]
    old = [line for line in clean if line not in text.splitlines()]
    line = getattr(node, "lineno", 0)
    return line, f"{' / '.join(map(str.strip, old))} -> {' / '.join(map(str.strip, new)) or 'pass'}", text


def change(module: types.ModuleType, source: str) -> None:
    """Run the new source in the module; functions and classes keep their identity, so that whoever has one has the new.

    What cannot be changed in place, such as a number, is given to all modules that had imported the old.
    """
    old = dict(vars(module))
    exec(compile(source, module.__file__, "exec"), vars(module))
    new = {}
    for name, value in old.items():
        made = vars(module)[name]
        if made is not value and not name.startswith("__"):
            if _own(value, module) and _graft(value, made):
                setattr(module, name, value)
            else:
                new[id(value)] = made
    for other in [m for name, m in sys.modules.items() if name.partition(".")[0] in ("vaekit", "tests")]:
        for name, value in list(vars(other).items()):
            if id(value) in new and not name.startswith("__"):
                setattr(other, name, new[id(value)])


def _own(value: object, module: types.ModuleType) -> bool:
    return isinstance(value, type | types.FunctionType) and value.__module__ == module.__name__


def _graft(old: object, new: object) -> bool:
    """Make the old function or class do what the new one does; False where that cannot be."""
    if isinstance(old, types.FunctionType) and isinstance(new, types.FunctionType):
        if old.__code__.co_freevars != new.__code__.co_freevars:
            return False
        if hasattr(old, "__wrapped__") and not _graft(old.__wrapped__, new.__wrapped__):
            return False
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
    elif isinstance(old, type) and isinstance(new, type):
        for name, made in list(vars(new).items()):
            was = vars(old).get(name)
            if isinstance(made, property) and isinstance(was, property):
                made, was = made.fget, was.fget
            elif isinstance(made, staticmethod | classmethod) and isinstance(was, staticmethod | classmethod):
                made, was = made.__func__, was.__func__
            if not _graft(was, made) and name not in ("__dict__", "__weakref__", "__module__", "__doc__"):
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(old, name, vars(new)[name])
    else:
        return False
    return True


def in_a_child(work: Callable[[], int], seconds: int) -> int:
    """Exit status of `work`, done in a fork of this process, in silence; not 0 where it raises or takes longer."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with contextlib.suppress(BaseException), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            signal.alarm(seconds)
            os._exit(work())
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def passes(item: pytest.Item, after: pytest.Item | None) -> bool:
    """Run one test; whether it does not fail."""
    from _pytest.runner import runtestprotocol

    return not any(report.failed for report in runtestprotocol(item, nextitem=after, log=False))


def too_long(number: int, frame: object) -> None:
    """What the timer calls."""
    raise TimeoutError


def reached(items: list[pytest.Item], longest: float) -> dict[str, tuple[float, dict[str, set[int]]]]:
    """For each test that passes, by its name: seconds of the processor, and lines by file of the library."""
    inside = str(ROOT / "vaekit") + os.sep

    def work() -> int:
        found = {}
        signal.signal(signal.SIGVTALRM, too_long)
        for item, after in zip(items, [*items[1:], None], strict=True):
            lines: dict[str, set[int]] = {}

            def line(frame: types.FrameType, event: str, _: object, lines=lines) -> Callable:
                lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
                return line

            def call(frame: types.FrameType, event: str, _: object, line=line) -> Callable | None:
                return line(frame, event, None) if frame.f_code.co_filename.startswith(inside) else None

            signal.setitimer(signal.ITIMER_VIRTUAL, longest)
            sys.settrace(call)
            began = time.process_time()
            fine = passes(item, after)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            took = time.process_time() - began
            sys.settrace(None)
            if fine:
                found[item.nodeid] = (took, {file: sorted(numbers) for file, numbers in lines.items()})
        Path(answer.name).write_text(json.dumps(found), encoding="utf-8")
        return 0

    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        if in_a_child(work, 3600):
            raise RuntimeError("the tests' reach could not be measured")
        found = json.loads(Path(answer.name).read_text(encoding="utf-8"))
    return {name: (took, {f: set(n) for f, n in lines.items()}) for name, (took, lines) in found.items()}


def lines_of(tree: ast.Module, line: int) -> range:
    """Lines of the innermost statement around a line; an empty range outside every function."""
    best: ast.stmt | None = None
    inside = False
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            inside |= isinstance(node, ast.FunctionDef)
            if best is None or node.lineno >= best.lineno:
                best = node
    if best is None or not inside:
        return range(0)
    body = getattr(best, "body", None)
    if isinstance(best, ast.FunctionDef):  # a default: whoever runs the function
        return range(best.body[0].lineno, (best.end_lineno or 0) + 1)
    return range(best.lineno, (body[0].lineno - 1 if body else best.end_lineno or best.lineno) + 1)


class Mutating:
    """A plugin: in place of running the tests that pytest has found, run the mutants."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Print what became of the mutants, and how many lived."""
        asked = self.asked
        reach = reached(session.items, asked.longest)
        items = sorted((i for i in session.items if i.nodeid in reach), key=lambda i: reach[i.nodeid][0])
        print(
            f"{len(items)} of {len(session.items)} tests take part, {sum(t for t, _ in reach.values()):.0f} s",
            flush=True,
        )
        total, lived = 0, 0
        for path in asked.files:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
            drawn = list(range(sum(1 for _ in mutations(tree))))
            random.Random(f"{asked.seed} {path.name}").shuffle(drawn)
            made = sorted(mutant(text, index) for index in drawn[: asked.n or None])
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            killed = 0
            for line, said, source in made:
                lines = lines_of(tree, line)
                chosen, sum_of = [], 0.0
                for item in items:
                    hit = reach[item.nodeid][1].get(str(path), set())
                    if (hit and not lines) or any(n in hit for n in lines):
                        sum_of += reach[item.nodeid][0]
                        if sum_of > asked.budget and chosen:
                            break
                        chosen.append(item)

                def work(chosen=chosen, source=source, name=name) -> int:
                    change(importlib.import_module(name), source)
                    following = [*chosen[1:], None]
                    return int(not all(passes(i, after) for i, after in zip(chosen, following, strict=True)))

                alive = not chosen or in_a_child(work, 120 + 10 * int(sum_of)) == 0
                total, lived, killed = total + 1, lived + alive, killed + (not alive)
                if alive or asked.all:
                    word = ("ALIVE" if chosen else "UNRUN") if alive else "killed"
                    print(f"{word:6} {path.relative_to(ROOT)}:{line}  {said[:200]}  ({len(chosen)} tests)", flush=True)
            print(f"       {path.relative_to(ROOT)}: {killed} of {len(made)} killed", flush=True)
        print(f"{total} mutants: {total - lived} killed, {lived} alive")
        return True


def tests_of(path: Path) -> list[str]:
    """The tests of the file's folder; for a file of the first level, the test of its name; and its own examples."""
    room = path.relative_to(ROOT / "vaekit").parts[0].removesuffix(".py")
    own = ROOT / "tests" / room
    mirrored = own if own.is_dir() else ROOT / "tests" / f"test_{room}.py"
    return [str(mirrored), str(path), *ELSEWHERE]


def main() -> None:
    """Find the tests, and hand over to `Mutating`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-n", type=int, default=20, help="mutants of each file; 0 for all")
    parser.add_argument("--tests", nargs="*", help="tests to run, in place of those of the files' folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=30, help="seconds of the processor for the tests of one mutant")
    parser.add_argument("--all", action="store_true", help="print what was killed too")
    parser.add_argument("--longest", type=float, default=5, help="seconds of one test; longer ones are left out")
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("VAEKIT_PROFILE", "smoke")
    for module in ("hypothesis", "scipy.stats", "sklearn.datasets", "sklearn.mixture", "torch._dynamo", "vaekit"):
        importlib.import_module(module)  # once: the mutants' processes are forks of this one
    torch.set_num_threads(1)
    asked.files = [p.resolve() for p in asked.files] or sorted((ROOT / "vaekit").glob("**/*.py"))
    tests = asked.tests or sorted({test for path in asked.files for test in tests_of(path)})
    quiet = ["-s", "-q", "-p", "no:cacheprovider", "--no-header", "--no-summary", "-k", f"not ({SLOW})"]
    pytest.main([*quiet, *tests], plugins=[Mutating(asked)])


if __name__ == "__main__":
    main()
