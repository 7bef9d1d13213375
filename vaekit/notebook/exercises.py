"""Self-checks for exercises: one line when the answer is right, and a word on what is wrong when it is not."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vaekit.notebook.diagnosis import alike, as_numbers, kind, largest_difference, shape_fault, value_fault
from vaekit.training.seeding import seeded

NOT_DONE = "not filled in yet"
NOT_YET = "not right yet"


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
    expected: Callable[..., Any],
    *,
    on: Sequence[Any],
    hints: Mapping[str, Callable[..., Any]] | None = None,
    tolerance: float = 1e-6,
) -> Verdict:
    """Compare a student's function with an independent one on given inputs, and print the verdict.

    A wrong answer never raises; the line says what is wrong with it: not filled in, an exception, another type or
    shape, a mean where a sum is due, a factor, a sign, an offset, NaN, or else where it is furthest off.

    Args:
        name: Begins the line, such as "Exercise 1".
        answer: The student's function.
        expected: A function of the same arguments that is right, better by another route than the solution's. It
            returns a number, an array, a tensor, or a tuple of these.
        on: Inputs: one tuple of arguments per call; what is no tuple is a single argument. Floating-point tensors and
            arrays are passed in double precision; each call gets copies, and the same random numbers.
        hints: Mistakes to be expected: what to say, and a function that makes the mistake.
        tolerance: Greatest `|answer - expected| / (1 + |expected|)` that passes; 1e-5 for answers in single precision.

    Returns:
        Whether the answer is right.

    Raises:
        ValueError: No inputs. Whatever `expected` or a hint raises, for that is the author's mistake.

    Example:
        >>> def area(r):
        ...     return 6.283185307 * r**2
        >>> check("Exercise 1", area, lambda r: 3.141592654 * r**2, on=[1.0, 2.0])
        Exercise 1: not right yet: it is the right one times 2.
        False
    """
    if len(on) == 0:
        raise ValueError("on: expected at least one input, got none")
    inputs = [arguments if isinstance(arguments, tuple) else (arguments,) for arguments in on]
    return _tell(name, _fault(answer, expected, inputs, hints or {}, tolerance))


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


def _tell(name: str, fault: str | None) -> Verdict:
    words = fault or "correct"
    print(f"{name}: {words}{'' if words.endswith(('?', '!')) else '.'}")
    return Verdict(fault is None)


def _fault(
    answer: Any, expected: Callable, inputs: list[tuple], hints: Mapping[str, Callable], tolerance: float
) -> str | None:
    """What is wrong with a function, None if nothing."""
    if answer is None or answer is ...:
        return NOT_DONE
    if not callable(answer):
        return f"{NOT_YET}: expected a function, got {kind(answer)}"
    rights = [_outputs(_run(expected, arguments)) for arguments in inputs]  # per input, a list of tensors
    count = len(rights[0])
    label = getattr(answer, "__name__", "<lambda>").replace("<lambda>", "your function")
    results: list[list[Tensor]] = []
    for k, arguments in enumerate(inputs, 1):
        try:
            came = _run(answer, arguments)
        except NotImplementedError:
            return NOT_DONE
        except Exception as error:
            tip = "; run the cells above first" if isinstance(error, NameError) else ""
            where = f" on input {k} of {len(inputs)}" if len(inputs) > 1 else ""
            words = str(error).strip().split("\n")[0].rstrip(".")
            return f"{NOT_YET}: {label} raised {type(error).__name__}{where}: {words}{tip}"
        if came is None or came is ...:
            return f"{NOT_DONE}: {label} returns {came}"
        outputs = [as_numbers(part) for part in (came if count > 1 and isinstance(came, tuple) else (came,))]
        if len(outputs) != count:
            return f"{NOT_YET}: {label} is to return a tuple of {count}, got {kind(came)}"
        if any(output is None for output in outputs):
            return f"{NOT_YET}: {label} is to return numbers, got {kind(came)}"
        results.append([output for output in outputs if output is not None])
    if _same(results, rights, tolerance):
        return None
    for hint, mistake in hints.items():
        if _same(results, [_outputs(_run(mistake, arguments)) for arguments in inputs], tolerance):
            return f"{NOT_YET}: {hint.rstrip('.')}"
    for part in range(count):
        ours, theirs = [r[part] for r in rights], [r[part] for r in results]
        if all(map(alike, theirs, ours, [tolerance] * len(ours))):
            continue
        which = f", result {part + 1} of {count}" if count > 1 else ""
        faults = [shape_fault(a, b, tolerance) for a, b in zip(theirs, ours, strict=True)]
        fault = next(filter(None, faults), None) or value_fault(theirs, ours, inputs, tolerance)
        return f"{NOT_YET}{which}: {fault or largest_difference(theirs, ours)}"
    return None


def _value_fault(answer: Any, expected: Any, hints: Mapping[str, Any], tolerance: float) -> str | None:
    """What is wrong with a value, None if nothing."""
    if answer is None or answer is ... or (isinstance(answer, str) and not answer.strip()):
        return NOT_DONE
    if _equal(answer, expected, tolerance):
        return None
    for hint, wrong in hints.items():
        if _equal(answer, wrong, tolerance):
            return f"{NOT_YET}: {hint.rstrip('.')}"
    if isinstance(expected, str | bool) and type(answer) is type(expected):
        return f"{NOT_YET}: it is not {answer!r}"
    came, right = as_numbers(answer), as_numbers(expected)
    if came is None or right is None or isinstance(answer, bool) or isinstance(expected, bool):
        return f"{NOT_YET}: expected {kind(expected)}, got {kind(answer)}"
    fault = shape_fault(came, right, tolerance) or value_fault([came], [right], [()], tolerance)
    if fault or right.ndim:
        return f"{NOT_YET}: {fault or 'some of the numbers differ'}"
    return f"{NOT_YET}: it is too {'large' if came > right else 'small'}"


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, str | bool) or isinstance(other, str | bool):
        fold = [v.strip().casefold() if isinstance(v, str) else v for v in (one, other)]
        return type(one) is type(other) and fold[0] == fold[1]
    a, b = as_numbers(one), as_numbers(other)
    return a is not None and b is not None and alike(a, b, tolerance)


def _same(these: list[list[Tensor]], those: list[list[Tensor]], tolerance: float) -> bool:
    return all(alike(a, b, tolerance) for pair in zip(these, those, strict=True) for a, b in zip(*pair, strict=True))


def _outputs(right: Any) -> list[Tensor]:
    """What a function of the author's returns, as a list of tensors."""
    parts = [as_numbers(part) for part in (right if isinstance(right, tuple) else (right,))]
    if any(part is None for part in parts):
        raise ValueError(f"expected, hints: must return a number, an array, a tensor or a tuple, got {kind(right)}")
    return [part for part in parts if part is not None]


def _run(function: Callable, arguments: tuple) -> Any:
    with seeded(0):
        return function(*(_double(argument) for argument in arguments))


def _double(argument: Any) -> Any:
    """A copy, in double precision if it is a floating-point tensor or array."""
    if isinstance(argument, Tensor):
        fresh = argument.detach().clone()
        return (fresh.double() if fresh.is_floating_point() else fresh).requires_grad_(argument.requires_grad)
    if isinstance(argument, np.ndarray):
        return argument.astype(np.float64) if np.issubdtype(argument.dtype, np.floating) else argument.copy()
    return copy.deepcopy(argument)
