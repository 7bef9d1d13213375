"""At the end of each chapter's page: its quiz, from `book/quizzes/<chapter>.yml`, made of folds that need no script.

A file is a list of questions:

    - question: What is it?
      options:
        - text: This.
          right: true
          reason: Why it is right.
        - text: That.
          reason: Why it is wrong.

A question that looks back at another chapter says `about: 1 §3`.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parent.parent / "quizzes"
INTRODUCTION = "Choose an answer: it opens and says why it is right or wrong. (Tab moves on, Enter opens.)"


def load(path: Path) -> list[dict[str, Any]]:
    """A quiz, checked.

    Raises:
        ValueError: It is not of the form above; the message names the file and the question.
    """
    questions = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(questions, list) or not questions:
        raise ValueError(f"{path.name}: expected a list of questions")
    for number, question in enumerate(questions, 1):
        where = f"{path.name}, question {number}"
        if not isinstance(question, dict) or set(question) - {"about"} != {"question", "options"}:
            raise ValueError(f"{where}: expected 'question' and 'options'")
        if not re.fullmatch(r"\d §\d+", str(question.get("about", "1 §1"))):
            raise ValueError(f"{where}: expected 'about' such as '1 §3', got {question['about']!r}")
        options = question["options"]
        for option in options:
            texts = [option.get("text"), option.get("reason")]
            if set(option) - {"right"} != {"text", "reason"} or not all(isinstance(t, str) and t for t in texts):
                raise ValueError(f"{where}: expected 'text' and 'reason' of each option, got {option}")
        if len({option["text"] for option in options}) < max(2, len(options)):
            raise ValueError(f"{where}: expected two options or more, all different")
        if sum(option.get("right") is True for option in options) != 1:
            raise ValueError(f"{where}: expected one option to be right")
    return questions


def markdown(questions: list[dict[str, Any]]) -> str:
    """The quiz as MyST Markdown: each option a fold whose inside is the verdict with its reason."""
    lines = ["## Quiz", "", INTRODUCTION, ""]
    for number, question in enumerate(questions, 1):
        lines += ["{.vaekit-question}", f"**{number}.** {question['question']}", ""]
        for letter, option in zip("ABCDEFGH", question["options"], strict=False):
            verdict = "✓ **Right.**" if option.get("right") else "✗ **No.**"
            lines += [f":::{{dropdown}} {letter} · {option['text']}", ":class-container: vaekit-option", ""]
            lines += [f"{verdict} {option['reason']}", ":::", ""]
    return "\n".join(lines)


def append_quiz(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the quiz as a last cell, in the page only."""
    path = FOLDER / f"{docname.removeprefix('notebooks/')}.yml"
    if not docname.startswith("notebooks/") or not path.is_file():
        return
    app.env.note_dependency(str(path))
    notebook = json.loads(source[0])
    notebook["cells"].append({"cell_type": "markdown", "id": "quiz", "metadata": {}, "source": markdown(load(path))})
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", append_quiz)
    return {"parallel_read_safe": True}
