"""A folder that is an nbgrader course: for each chapter a task with hidden tests and an experiment to be marked."""

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.course.assignment import CHAPTERS, Assignment, Part, assignment
from tools.course.points import kept
from tools.notebooks import KERNEL, write

CONFIG = '''"""nbgrader finds this folder by where it is started, so that it can be copied and moved."""

from nbgrader.preprocessors import ClearOutput, Execute

c = get_config()
c.CourseDirectory.course_id = "vaekit"
c.Execute.timeout = 60  # seconds a cell; the tests need none


def has_tests(notebook):
    marks = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    return any(mark.get("grade") for mark in marks)


class ExecuteTests(Execute):
    """Run a task with its tests. An experiment is not run again: it is read with the outputs that were handed in."""

    def preprocess(self, nb, resources, *args, **kwargs):
        return super().preprocess(nb, resources, *args, **kwargs) if has_tests(nb) else (nb, resources)


class ClearTests(ClearOutput):
    """Clear the outputs of what will be run."""

    def preprocess(self, nb, resources):
        return super().preprocess(nb, resources) if has_tests(nb) else (nb, resources)


def instead(steps):
    return [{Execute: ExecuteTests, ClearOutput: ClearTests}.get(step, step) for step in steps]


from nbgrader.converters import Autograde  # noqa: E402

c.Autograde.sanitize_preprocessors = instead(Autograde.sanitize_preprocessors.default_args[0])
c.Autograde.autograde_preprocessors = instead(Autograde.autograde_preprocessors.default_args[0])
'''
SETUP = """import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")"""
IMPORTS = """from functools import partial
from tempfile import TemporaryDirectory

import torch

from vaekit import (
    VAE, Consistency, HamiltonianBound, JacobianL1, elbo, fit, importance_bound, jacobian_l1,
    likelihood_regret, log_evidence, log_weight, mlp, posterior_divergence, self_influence,
)
from vaekit.consistency import RandomAffine
from vaekit.datasets import binarise, load
from vaekit.metrics import auroc, mean_and_standard_error
from vaekit.training import seeded"""
RULES = """\
Fill in the functions; keep their names and arguments, and return plain numbers (or pairs of them), not tensors. You may
add cells of your own. What is graded are the tests below, which are run after you have handed in and with numbers that
you do not see: try your functions yourself on cases that you can work out. Each line of points is all or nothing."""
REPORT = """\
Add cells below: first your code with its outputs, which are **not run again** when this is marked, then the answer in
words. Name what you changed after having seen results."""


def marked(
    cell: NotebookNode, grade_id: str, *, points: int | None, solution: bool = False, task: bool = False
) -> NotebookNode:
    """A cell with nbgrader's metadata; without points it is not graded itself."""
    kind = {"grade": points is not None and not task, "solution": solution, "locked": not solution, "task": task}
    cell.metadata["nbgrader"] = NotebookNode(schema_version=3, grade_id=grade_id, **kind)
    if points is not None:
        cell.metadata.nbgrader.points = points
    cell.id = grade_id
    return cell


def hidden(part: Part, points: int) -> str:
    """The cell that tests a part. It uses no function that a notebook could have given another meaning."""
    lines = [f"# {points} point{'s' * (points != 1)}: {part.says}.", "### BEGIN HIDDEN TESTS"]
    for test in part.tests:
        tolerance = 1e-6 * (1 + abs(test.expected))
        lines += [
            f"_came = {test.call}",
            f"_off = ({float(test.expected)!r}).__sub__(_came.item() if hasattr(_came, 'item') else _came)",
            f"assert -{tolerance:.3g} < _off < {tolerance:.3g}, 'not the expected number'",
        ]
    return "\n".join([*lines, "### END HIDDEN TESTS"])


def notebook(cells: list[NotebookNode]) -> NotebookNode:
    """A notebook whose cells' identifiers do not change from one writing to the next."""
    for k, cell in enumerate(cells):
        if "nbgrader" not in cell.metadata:
            cell.id = f"cell-{k}"
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})


def task(chapter: str, found: Assignment, points: dict[str, int]) -> NotebookNode:
    """The notebook with hidden tests, as the lecturer keeps it."""
    total = sum(points[part.name] for part in found.parts)
    return notebook(
        [
            new_markdown_cell(
                f"# Chapter {int(chapter[:2])}, graded task\n\n*{total} points, marked by hidden tests.* {RULES}"
            ),
            new_code_cell("import math"),
            new_markdown_cell(found.task.strip()),
            marked(new_code_cell(found.answer.strip()), "answer", points=None, solution=True),
            *(
                marked(new_code_cell(hidden(p, points[p.name])), f"test-{p.name}", points=points[p.name])
                for p in found.parts
            ),
        ]
    )


def experiment(chapter: str, found: Assignment, points: dict[str, int]) -> NotebookNode:
    """The notebook that is marked by hand; the key is in its task cell and leaves it on release."""
    key = "\n".join(f"- **{worth}** {says}" for worth, says in found.key)
    whole = sum(worth for worth, _ in found.key)
    scheme = (
        f"### BEGIN MARK SCHEME\nOf {whole}; scale if this task's points were changed.\n\n{key}\n### END MARK SCHEME"
    )
    worth = points["experiment"]
    title = f"# Chapter {int(chapter[:2])}, graded experiment\n\n*{worth} points, marked by hand.* {REPORT}"
    question = new_markdown_cell(f"{found.experiment.strip()}\n\n{scheme}")
    return notebook(
        [
            new_markdown_cell(title),
            new_code_cell(SETUP),
            new_code_cell(IMPORTS),
            marked(question, "experiment", points=worth, task=True),
            new_code_cell(""),
            new_markdown_cell("*Your answer in words.*"),
        ]
    )


def write_course(folder: Path, seed: str) -> None:
    """Write `source/` and the configuration; `points.yml` is kept where it is there already."""
    points = kept(folder / "points.yml", seed)
    for chapter in CHAPTERS:
        found = assignment(chapter, seed)
        for name, make in (("task", task), ("experiment", experiment)):
            path = folder / "source" / chapter / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(make(chapter, found, points[chapter]), path)
    (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
