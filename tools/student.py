"""For a class: `python -m tools.student [--seed SEED] [folder]` writes chapters to hand out and a course to be graded.

chapters/<chapter>.ipynb   without solutions and without outputs; their checks are for the students themselves
course/                    an nbgrader course: graded tasks whose numbers and hidden tests follow from the seed
"""

import argparse
import re
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from tools.course.draw import the_seed
from tools.course.nbgrader import write_course
from tools.course.quizzes import quiz
from tools.notebooks import FOLDER, ROOT, read_script, tags, write

DERIVATION = re.compile(r"\n*<details><summary>Solution</summary>\n.*?</details>\n*", re.DOTALL)
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$", re.DOTALL | re.MULTILINE)
FOLDED = re.compile(r" The solutions are folded\.(\n\[The same chapter without them\].*$)?", re.MULTILINE)
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


def without_solutions(chapter: NotebookNode) -> NotebookNode:
    """A chapter whose solutions have given way to stubs, or have gone where the stub is a cell of its own."""
    own_stubs = any("exercise" in tags(cell) and cell.cell_type == "code" for cell in chapter.cells)
    cells = []
    for cell in chapter.cells:
        if "solution" in tags(cell) and own_stubs:
            continue
        if cell.cell_type == "markdown":
            cell.source = DERIVATION.sub("\n\n*Your derivation here.*\n\n", cell.source).strip()
            cell.source = FOLDED.sub("", cell.source)
        else:
            cell.source = SOLUTION.sub(lambda m: "\n".join(m[1] + line for line in STUB.split("\n")), cell.source)
        if cell.source:
            cells.append(cell)
    return NotebookNode({**chapter, "cells": cells})


def folded_quiz(chapter: str) -> NotebookNode:
    """A chapter's quiz as a cell: each option is a fold whose inside says whether it is right, and why."""
    lines = ["## Quiz", "", "Choose an answer and open it."]
    for number, question in enumerate(quiz.load(quiz.FOLDER / f"{chapter}.yml"), 1):
        lines += ["", f"**{number}.** {question['question']}", ""]
        for letter, option in zip("ABCDEFGH", question["options"], strict=False):
            verdict = "✓ Right." if option.get("right") else "✗ No."
            lines += [f"<details><summary>{letter} · {option['text']}</summary>", "", f"{verdict} {option['reason']}"]
            lines += ["", "</details>"]
    return new_markdown_cell("\n".join(lines), id="quiz")


def main(folder: Path, seed: str) -> None:
    """Write the chapters and the course."""
    (folder / "chapters").mkdir(parents=True, exist_ok=True)
    for script in sorted(FOLDER.glob("[0-9]*.py")):
        chapter = without_solutions(read_script(script))
        chapter.cells.append(folded_quiz(script.stem))
        write(chapter, folder / "chapters" / f"{script.stem}.ipynb")
    write_course(folder / "course", seed)
    print(
        f"To hand out: {folder}/chapters. To grade with nbgrader: {folder}/course. Seed: {seed} (keep it to yourself)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", default=None)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "student")
    given = parser.parse_args()
    main(given.folder.resolve(), the_seed(given.seed or None))
