"""A chapter's graded assignment: a task that is marked by hidden tests, and an experiment that is marked by hand."""

import importlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from tools.course.draw import fill, stream
from tools.notebooks import FOLDER

CHAPTERS = tuple(script.stem for script in sorted(FOLDER.glob("[0-9]*.py")))
EXPERIMENT = 10  # points of every experiment


class Test(NamedTuple):
    """A call in the student's own names, and the number that it must give."""

    call: str
    expected: float


class Part(NamedTuple):
    """Tests that are worth points together: all must pass."""

    name: str
    says: str  # what is tested, told to the student without a number
    points: int
    tests: Sequence[Test]


class Assignment(NamedTuple):
    """Texts and code are filled: no placeholder is left."""

    task: str  # Markdown
    answer: str  # code with nbgrader's marks around the solution
    parts: Sequence[Part]
    slips: Mapping[str, tuple[str, str]]  # a common error, and what to replace in the answer in order to make it
    experiment: str  # Markdown
    key: Sequence[tuple[int, str]]  # points and what they are for
    model: str  # code that does the experiment
    expect: str  # what it finds, as far as that does not depend on luck


@cache
def assignment(chapter: str, seed: str) -> Assignment:
    """The graded assignment of a chapter for a lecturer's seed.

    Raises:
        ValueError: An unknown chapter.
    """
    if chapter not in CHAPTERS:
        raise ValueError(f"chapter: expected one of {', '.join(CHAPTERS)}, got {chapter!r}")
    module = importlib.import_module(f"tools.course.graded.{chapter.split('_', 1)[1]}")
    r = stream(seed, "graded", chapter)
    numbers, parts = module.draw(r)
    for part in parts:
        assert part.tests and all(math.isfinite(test.expected) for test in part.tests), part.name
    key = [(points, fill(says, numbers)) for points, says in module.KEY]
    assert sum(points for points, _ in key) == EXPERIMENT, chapter
    slips = {says: (fill(old, numbers), fill(new, numbers)) for says, (old, new) in module.SLIPS.items()}
    return Assignment(
        fill(module.TASK, numbers), fill(module.ANSWER, numbers), parts, slips,
        fill(module.EXPERIMENT, numbers), key, fill(module.MODEL, numbers), fill(module.EXPECT, numbers),
    )  # fmt: skip


def with_slip(assignment: Assignment, says: str) -> str:
    """The answer with one of its common errors.

    Raises:
        ValueError: The answer does not have what is to be replaced, exactly once.
    """
    old, new = assignment.slips[says]
    if assignment.answer.count(old) != 1:
        raise ValueError(f"{says}: expected {old!r} once in the answer")
    return assignment.answer.replace(old, new)
