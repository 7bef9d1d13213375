"""The book's quizzes as text for learning platforms: GIFT, and Moodle's XML."""

import importlib.util
import re
from typing import Any
from xml.sax.saxutils import escape

from tools.notebooks import ROOT

spec = importlib.util.spec_from_file_location("quiz", ROOT / "book" / "_ext" / "quiz.py")
quiz = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
spec.loader.exec_module(quiz)  # type: ignore[union-attr]


def questions() -> dict[str, dict[str, Any]]:
    """All questions by name, such as `1.4`."""
    return {
        f"{int(path.name[:2])}.{number}": question
        for path in sorted(quiz.FOLDER.glob("[0-9]*.yml"))
        for number, question in enumerate(quiz.load(path), 1)
    }


def tex(text: str) -> str:
    """Formulas as Moodle's MathJax filter finds them, and no Markdown."""
    text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text)
    return re.sub(r"(?<![\\\w])[*`]+([^*`]+)[*`]+", r"\1", text)


def gift() -> str:
    """All quizzes in GIFT, a category for each chapter.

    https://docs.moodle.org/en/GIFT_format: `~ = # { }` and `:` are escaped.
    """
    lines, chapter = [], ""
    for name, question in questions().items():
        if name[0] != chapter:
            chapter = name[0]
            lines += [f"$CATEGORY: Beyond the ELBO/Chapter {chapter}", ""]
        lines.append(f"::{name}::[html]{_gift(question['question'])} {{")
        for option in question["options"]:
            mark = "=" if option.get("right") else "~"
            lines.append(f"  {mark}{_gift(option['text'])}#{_gift(option['reason'])}")
        lines += ["}", ""]
    return "\n".join(lines)


def _gift(text: str) -> str:
    return re.sub(r"([~=#{}:])", r"\\\1", tex(text).replace("\\", "\\\\")).replace("\n", " ")


def moodle() -> str:
    """All quizzes in Moodle's XML, a wrong answer counting zero, options shuffled."""
    parts, chapter = ['<?xml version="1.0" encoding="UTF-8"?>', "<quiz>"], ""
    for name, question in questions().items():
        if name[0] != chapter:
            chapter = name[0]
            category = f"$course$/top/Beyond the ELBO/Chapter {chapter}"
            parts.append(f'<question type="category"><category><text>{category}</text></category></question>')
        answers = "".join(
            f'<answer fraction="{100 if option.get("right") else 0}" format="html"><text>{escape(tex(option["text"]))}'
            f'</text><feedback format="html"><text>{escape(tex(option["reason"]))}</text></feedback></answer>'
            for option in question["options"]
        )
        parts.append(
            f'<question type="multichoice"><name><text>{name}</text></name><questiontext format="html"><text>'
            f"{escape(tex(question['question']))}</text></questiontext><defaultgrade>1</defaultgrade>"
            f"<single>true</single><shuffleanswers>true</shuffleanswers><answernumbering>ABCD</answernumbering>"
            f"{answers}</question>"
        )
    return "\n".join([*parts, "</quiz>", ""])
