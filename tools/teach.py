"""The instructor's pack: `python -m tools.teach [--seed SEED] [folder]` writes what a lecturer has and students do not.

Nothing of it is part of the book. Numbers follow from the seed; answers are computed when the pack is written.
"""

import argparse
import shutil
import sys
from pathlib import Path

from nbformat.v4 import new_code_cell, new_markdown_cell

from tools import assets, slides, student
from tools.course import documents, exam, keys, quizzes
from tools.course.draw import fill, the_seed
from tools.course.nbgrader import IMPORTS, SETUP, notebook
from tools.course.numbers import shown
from tools.course.points import kept
from tools.notebooks import ROOT, write

PACK = Path(__file__).parent / "course" / "pack"
PROJECT = (
    ("Question", "What would a reader believe otherwise after either result? Write both sentences now."),
    ("What is known", "Two papers, one number of each, with its source."),
    ("Method", "Derived, in the book's notation, and tied to the code."),
    ("A check with a known answer", "A case that can be solved; show that the check fails when the code is broken."),
    ("The control", "What could have produced the result otherwise? It runs *before* the method does."),
    ("Experiment", "Seeds, standard errors, differences within a seed. All runs, not the best."),
    ("What does not hold", "First of the findings."),
    ("What was chosen after results were seen, and what assistance was used", "Named, it takes nothing away."),
)


def script(decks: dict[str, list[slides.Slide]]) -> str:
    """What to say, session by session, with the answers."""
    out = ["# Script", "", "Minute by minute, with every answer; the same stands in the decks' notes (key S)."]
    for name, deck in decks.items():
        out += ["", f"# {name.replace('-', ' ').capitalize()} · {deck[0].heading}"]
        minute = 0
        for slide in deck:
            kind = slides.KINDS[slide.kind]
            out += ["", f"## {minute}′ · {slide.heading}" + f" ({kind.lower()})" * bool(kind), ""]
            if slide.kind in ("predict", "vote", "exit", "board"):
                out += ["> " + line for line in slide.text.splitlines()]
            out += ["", slide.notes]
            minute += slide.minutes
    return "\n".join(out)


def project() -> list:
    """The cells of the notebook from which a project starts."""
    cells = [
        new_markdown_cell("# Title\n\nNames. Project number of the list."),
        new_code_cell(SETUP),
        new_code_cell(IMPORTS),
    ]
    for title, says in PROJECT:
        cells += [new_markdown_cell(f"## {title}\n\n*{says}*"), new_code_cell("")]
    return cells


def main(folder: Path, seed: str) -> None:
    """Write the whole pack."""
    if missing := assets.ensure(("mathjax", "reveal")):
        sys.exit(f"teach: could not get {' and '.join(missing)} from npm, without which pages would need a network")
    folder.mkdir(parents=True, exist_ok=True)
    student.main(folder / "student", seed)
    points = kept(folder / "student" / "course" / "points.yml", seed)
    written = ("boards", "demos", "handouts", "report", "index")
    pages = {name: fill((PACK / f"{name}.md").read_text(encoding="utf-8"), {"seed": seed}) for name in written}
    pages |= {"script": script(slides.decks()), "keys": keys.keys(seed, points)}
    pages |= {"derivations": keys.derivations(), "errors": keys.errors()}
    for name, numbers, title in (("practice", exam.PRACTICE, "A practice exam"), ("exam", exam.variant(seed), "Exam")):
        pages[name] = exam.paper(title, numbers, solutions=False)
        pages[f"{name}-solutions"] = exam.paper(f"{title}, with solutions", numbers)
    for name, text in pages.items():
        result, faults = shown(text)
        documents.write(result, folder / f"{name}.html", "handout" if name == "handouts" else "")
        for fault in faults:
            print(f"{name}: shown without {fault}", file=sys.stderr)
    (folder / "quiz.gift").write_text(quizzes.gift(), encoding="utf-8")
    (folder / "quiz.xml").write_text(quizzes.moodle(), encoding="utf-8")
    write(notebook(project()), folder / "project.ipynb")
    for fault in slides.write(folder / "slides", answers=True):
        print(f"slides: shown without {fault}", file=sys.stderr)
    print(f"The instructor's pack: {folder}/index.html. Seed: {seed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", default=None)
    parser.add_argument("--pdf", action="store_true", help="print every page and deck to a PDF as well")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "teach")
    given = parser.parse_args()
    target = given.folder.resolve()
    main(target, the_seed(given.seed or None))
    if given.pdf:
        for path in sorted(target.glob("*.html")):
            slides.write_pdf(path)
        for path in sorted((target / "slides").glob("session-*.html")):
            slides.write_pdf(path, "?print")
    shutil.rmtree(target / "student" / "course" / "__pycache__", ignore_errors=True)
