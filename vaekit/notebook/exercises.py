"""Self-checks for exercises: one line when the answer is right, and a word on what is wrong when it is not."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vaekit.notebook import references
from vaekit.notebook.attempts import NOT_DONE, NOT_YET, kind
from vaekit.notebook.diagnosis import alike, as_numbers, shape_fault, value_fault
from vaekit.notebook.functions import function_fault

_done: set[str] = set()  # the book's exercises that have passed in this session
_hints_given: dict[str, int] = {}


class Verdict(int):
    """True or false. A notebook shows nothing for it, since the verdict has been printed; nbgrader gets a point or 0.

    nbgrader takes a number that a cell returns for its points, and a cell that returns nothing for a passed one.
    """

    def __repr__(self) -> str:
        """As of a bool, or in points."""
        return str(int(self)) if _graded() else repr(bool(self))

    def _ipython_display_(self) -> None:
        if _graded():
            raise NotImplementedError  # IPython then shows the representation


def _graded() -> bool:
    return "NBGRADER_EXECUTION" in os.environ


def check(
    name: str,
    answer: Any,
    expected: Callable[..., Any] | None = None,
    *,
    on: Sequence[Any] = (),
    hints: Mapping[str, Callable[..., Any]] | None = None,
    tolerance: float = 1e-6,
) -> Verdict:
    """Compare a student's function with an independent one, and print the verdict.

    `check("1.4", free_bits)` is all that an exercise of the book needs: what is right, on which inputs, and which
    mistakes are to be recognised, is in `vaekit.notebook.references`. For an exercise of your own hand in `expected`.

    A wrong answer never raises; the line says what is wrong with it: not filled in, an exception, an endless loop (30
    seconds of computing, where the platform can stop it), another type or shape, a mean where a sum is due, a factor,
    a sign, an offset, NaN, or else where it is furthest off. An objective is compared in value and in all gradients,
    in expectation over its draws.

    Args:
        name: Of an exercise of the book, such as "1.4"; or else what begins the line, such as "Exercise 1".
        answer: The student's function.
        expected: A function of the same arguments that is right, better by another route than the solution's. It
            returns a number, an array, a tensor, or a tuple of these.
        on: Inputs: one tuple of arguments per call; what is no tuple is a single argument. Floating-point tensors and
            arrays are passed in double precision; each call gets copies, and the same random numbers.
        hints: Mistakes to be expected: what to say, and a function that makes the mistake.
        tolerance: Greatest `|answer - expected| / (1 + |expected|)` that passes; at least 1e-5 for answers in single
            precision and for Python's own numbers, which may have come from it.

    Returns:
        Whether the answer is right.

    Raises:
        ValueError: No inputs; or neither an exercise of the book nor `expected`. Whatever `expected` or a hint raises,
            for that is the author's mistake.

    Example:
        >>> def area(r):
        ...     return 6.283185307 * r**2
        >>> check("Exercise 1", area, lambda r: 3.141592654 * r**2, on=[1.0, 2.0])
        Exercise 1: not right yet: it is the right one times 2: is a factor 1/2 missing?
        False
    """
    if expected is None:
        exercise = references.find(name)
        fault = exercise.fault(answer)
        return _tell(references.title(name), fault, _progress(name, passed=fault is None))
    if len(on) == 0:
        raise ValueError("on: expected at least one input, got none")
    inputs = [arguments if isinstance(arguments, tuple) else (arguments,) for arguments in on]
    return _tell(name, function_fault(answer, expected, lambda: inputs, hints or {}, tolerance))


def hint(name: str) -> None:
    """Print the next hint to an exercise of the book: the idea, then the first line, then the shapes.

    Args:
        name: Of the exercise, such as "1.4".

    Raises:
        ValueError: The book has no such exercise.
    """
    hints = list(references.hints(name).items())
    k = _hints_given.get(name, 0)
    _hints_given[name] = k + 1
    for n, (part, said) in list(enumerate(hints, 1))[k : k + 1] or enumerate(hints, 1):  # after the last, all again
        print(f"{references.title(name)}, hint {n} of {len(hints)} ({part}): {said}")


def check_value(
    name: str, answer: Any, expected: Any, *, hints: Mapping[str, Any] | None = None, tolerance: float = 1e-6
) -> Verdict:
    """Compare a number, an array, a truth value or the name of a choice with what is expected; print the verdict.

    Unlike `check`, it does not give the expected value away.

    Args:
        name: Begins the line, such as "Exercise 1".
        answer: The student's. `None`, `...` and an empty string count as not filled in.
        expected: The right one. Strings are compared without regard to case and outer blanks.
        hints: Mistakes to be expected: what to say, and the wrong value.
        tolerance: As for `check`.

    Returns:
        Whether the answer is right.

    Example:
        >>> check_value("Exercise 2", "B", "b")
        Exercise 2: correct.
        True
    """
    return _tell(name, _value_fault(answer, expected, hints or {}, tolerance))


def _tell(title: str, fault: str | None, progress: str = "") -> Verdict:
    words = fault or "correct"
    print(f"{title}: {words}{'' if words.endswith(('?', '!')) else '.'}{progress}")
    return Verdict(fault is None)


def _progress(name: str, *, passed: bool) -> str:
    """How many of the chapter's exercises have passed in this session; nothing after a wrong answer."""
    if not passed:
        _done.discard(name)
        return ""
    _done.add(name)
    all_names = references.names(name.split(".")[0])
    return f" {len(_done & set(all_names))} of {len(all_names)} done in this chapter."


def _value_fault(answer: Any, expected: Any, hints: Mapping[str, Any], tolerance: float) -> str | None:
    """What is wrong with a value, None if nothing."""
    if answer is None or answer is ... or (isinstance(answer, str) and not answer.strip()):
        return NOT_DONE
    if _equal(answer, expected, tolerance):
        return None
    for said, wrong in hints.items():
        if _equal(answer, wrong, tolerance):
            return f"{NOT_YET}: {said.rstrip('.')}"
    if isinstance(expected, str | bool) and type(answer) is type(expected):
        return f"{NOT_YET}: it is not {answer!r}"
    came, right = as_numbers(answer), as_numbers(expected)
    if came is None or right is None or isinstance(answer, bool) or isinstance(expected, bool):
        return f"{NOT_YET}: expected {kind(expected)}, got {kind(answer)}"
    fault = shape_fault(came, right, tolerance) or value_fault([came], [right], [()], tolerance, [""])
    if fault or right.ndim:
        return f"{NOT_YET}: {fault or 'some of the numbers differ'}"
    return f"{NOT_YET}: it is too {'large' if came > right else 'small'}"


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, str | bool) or isinstance(other, str | bool):
        fold = [v.strip().casefold() if isinstance(v, str) else v for v in (one, other)]
        return type(one) is type(other) and fold[0] == fold[1]
    a, b = as_numbers(one), as_numbers(other)
    return a is not None and b is not None and alike(a, b, tolerance)
