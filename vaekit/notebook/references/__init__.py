"""What is right: one module a chapter, so that no reference stands in view below an exercise's stub.

Each module has `EXERCISES`, from names such as "1.4" (exercises) and "1.a" (warm-ups) to what `check` needs.
"""

import importlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from vaekit.notebook.functions import function_fault
from vaekit.notebook.objectives import objective_fault

CHAPTERS = 7


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A function to be written, and how its answers are judged.

    Args:
        reference: A right function, by another route than the solution's.
        inputs: Makes the arguments, one tuple per call, so that importing this package costs nothing.
        mistakes: What to say of a mistake, and a function that makes it.
        names: Of an objective's arguments after the model; an objective is compared in values and gradients, in
            expectation. Without, the function is compared in its values on equal random numbers.
        parts: Names of the entries along the result's last dimension, for messages.
        tolerance: Of a function's values, relative and absolute.
    """

    reference: Callable[..., Any]
    inputs: Callable[[], Sequence[tuple]]
    mistakes: Mapping[str, Callable[..., Any]]
    names: tuple[str, ...] = ()
    parts: Sequence[str] = ()
    tolerance: float = 1e-6

    def fault(self, answer: Any) -> str | None:
        """What is wrong with an answer, in words; None if nothing."""
        if self.names:
            return objective_fault(answer, self.reference, self.inputs, self.mistakes, self.names)
        return function_fault(answer, self.reference, self.inputs, self.mistakes, self.tolerance, self.parts)


def find(name: str) -> Exercise:
    """The exercise of this name.

    Raises:
        ValueError: The book has no such exercise.
    """
    chapter = str(name).split(".")[0]
    if name not in names(chapter):
        there = ", ".join(names(chapter)) or f"chapters 1 to {CHAPTERS}"
        raise ValueError(f"name: expected an exercise of the book, got {name!r}; there are {there}")
    return _exercises(chapter)[name]


def hints(name: str) -> dict[str, str]:
    """The idea, the first line and the shapes, as `hints.toml` has them.

    Raises:
        ValueError: The book has no such exercise.
    """
    find(name)
    text = files(__name__).joinpath("hints.toml").read_text(encoding="utf-8")
    return {part.replace("_", " "): said for part, said in tomllib.loads(text)[name].items()}


def names(chapter: str) -> list[str]:
    """The names of a chapter's warm-ups and exercises, in the chapter's order; none for an unknown chapter."""
    return list(_exercises(chapter)) if chapter in map(str, range(1, CHAPTERS + 1)) else []


def title(name: str) -> str:
    """As it stands in the chapter: "Exercise 1.4", "Warm-up 1.a"."""
    return f"{'Exercise' if name.split('.')[1].isdigit() else 'Warm-up'} {name}"


def _exercises(chapter: str) -> dict[str, Exercise]:
    exercises: dict[str, Exercise] = importlib.import_module(f"{__name__}.chapter{chapter}").EXERCISES
    return exercises
