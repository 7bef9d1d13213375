"""What a marker has beside a submission: model answers, what each error loses, derivations, common errors."""

import math
import re
from collections.abc import Mapping

from tools.course.assignment import CHAPTERS, Assignment, assignment, with_slip
from tools.course.nbgrader import hidden
from tools.notebooks import FOLDER, read_script
from vaekit.notebook import references

DERIVATION = re.compile(r"^### Exercise (\d\.\d) · (.*?)\n(.*?)<details><summary>Solution</summary>(.*?)</details>",
                        re.DOTALL | re.MULTILINE)  # fmt: skip


def score(found: Assignment, code: str) -> int:
    """Points of an answer by the hidden tests, at the points of `found`."""
    scope: dict[str, object] = {"math": math}
    exec(code, scope)
    points = 0
    for part in found.parts:
        try:
            exec(hidden(part, part.points), dict(scope))
            points += part.points
        except Exception:
            pass
    return points


def keys(seed: str, points: Mapping[str, Mapping[str, int]]) -> str:
    """Marking keys of all graded tasks and experiments."""
    out = ["# Marking keys", "", "Of every chapter's graded task and experiment, for this seed."]
    for chapter in CHAPTERS:
        found = assignment(chapter, seed)
        total = sum(part.points for part in found.parts)
        out += ["", f"# Chapter {int(chapter[:2])}", "", found.task.strip(), "", "### Model answer", ""]
        out += [
            "```python",
            re.sub(r"\n *### (BEGIN|END) SOLUTION", "", found.answer.strip()),
            "```",
            "",
            "### Tests",
            "",
        ]
        out += ["| part | points | call | right |", "|:--|--:|:--|--:|"]
        out += [
            f"| {part.name} | {points[chapter][part.name] if k == 0 else ''} | `{test.call}` | {test.expected:.6g} |"
            for part in found.parts
            for k, test in enumerate(part.tests)
        ]
        out += ["", "### Common errors", "", f"| error | of {total} points as first set |", "|:--|--:|"]
        out += [f"| {says} | {score(found, with_slip(found, says))} |" for says in found.slips]
        out += ["", found.experiment.strip(), "", f"### Key, {points[chapter]['experiment']} points", ""]
        out += ["| points | for |", "|--:|:--|", *(f"| {worth} | {says} |" for worth, says in found.key)]
        out += [
            "",
            "### A model answer's code",
            "",
            "```python",
            found.model.strip(),
            "```",
            "",
            "*Expected.* " + found.expect,
        ]
    return "\n".join(out)


def derivations() -> str:
    """Of every derivation among the chapters' exercises: its solution, and what a complete answer has, a point each."""
    out = [
        "# Derivations",
        "",
        "A point for each line of *complete if*, and one for the result. What is right by another way counts as much.",
    ]
    for chapter in CHAPTERS:
        text = "\n\n".join(
            cell.source for cell in read_script(FOLDER / f"{chapter}.py").cells if cell.cell_type == "markdown"
        )
        for name, title, task, solution in DERIVATION.findall(text):
            out += [
                "",
                f"## {name} · {title}",
                "",
                task.strip(),
                "",
                '<div class="solution">',
                "",
                solution.strip(),
                "",
                "</div>",
            ]
    return "\n".join(out)


def errors() -> str:
    """The mistakes that the chapters' checks know by name, exercise by exercise."""
    out = [
        "# Common errors",
        "",
        "What the checks of the chapters' exercises recognise, in their words. They carry no points.",
    ]
    for chapter in range(1, references.CHAPTERS + 1):
        out += ["", f"## Chapter {chapter}"]
        for name in references.names(str(chapter)):
            mistakes = references.find(name).mistakes
            if mistakes:
                out += ["", f"**Exercise {name}**", "", *(f"- {says}" for says in mistakes)]
    return "\n".join(out)
