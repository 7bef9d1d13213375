"""What is wrong with a student's function, beside one that is right, on given inputs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vaekit.notebook.attempts import NOT_YET, Answer, Fault, copies, kind, said_of
from vaekit.notebook.diagnosis import alike, as_numbers, largest_difference, shape_fault, value_fault
from vaekit.training.seeding import seeded

Mistakes = Mapping[str, Callable[..., Any]]


def function_fault(
    answer: Any, reference: Callable, make_inputs: Callable[[], Sequence[tuple]], mistakes: Mistakes,
    tolerance: float = 1e-6, parts: Sequence[str] = (),
) -> str | None:  # fmt: skip
    """In words; None if nothing is wrong.

    Args:
        answer: The student's function.
        reference: A right one.
        make_inputs: Makes the inputs, one tuple of arguments per call.
        mistakes: What to say, and a function that makes this mistake.
        tolerance: Greatest `|answer - reference| / (1 + |reference|)` that passes.
        parts: Names of the entries along the result's last dimension.

    Raises:
        ValueError: `reference` or a mistake returns no numbers.
    """
    inputs, rights = make_inputs(), known(reference, make_inputs)
    where = [said_of(arguments, reference, k, len(inputs)) for k, arguments in enumerate(inputs)]
    try:
        student = Answer(answer)
        results = [
            _results(student, arguments, len(rights[0]), place) for arguments, place in zip(inputs, where, strict=True)
        ]
    except Fault as fault:
        return str(fault)
    if _same(results, rights, tolerance):
        return None
    for said, mistake in mistakes.items():
        if _same(results, known(mistake, make_inputs), tolerance):
            return f"{NOT_YET}: {said.rstrip('.')}"
    for part in range(len(rights[0])):
        ours, theirs = [r[part] for r in rights], [r[part] for r in results]
        if all(map(alike, theirs, ours, [tolerance] * len(ours))):
            continue
        which = f", result {part + 1} of {len(rights[0])}" if len(rights[0]) > 1 else ""
        faults = [shape_fault(a, b, tolerance) for a, b in zip(theirs, ours, strict=True)]
        found = next(filter(None, faults), None) or value_fault(theirs, ours, inputs, tolerance, where)
        return f"{NOT_YET}{which}: {found or largest_difference(theirs, ours, where, parts)}"
    return None


@functools.lru_cache(maxsize=500)
def known(function: Callable, make_inputs: Callable[[], Sequence[tuple]]) -> list[list[Tensor]]:
    """What a function of the author's returns: for each input a list of tensors. It is computed once."""
    return [_right(function, arguments) for arguments in make_inputs()]


def _right(function: Callable, arguments: tuple) -> list[Tensor]:
    """What a function of the author's returns, as a list of tensors."""
    with seeded(0):
        right = function(*copies(arguments))
    parts = [as_numbers(part) for part in (right if isinstance(right, tuple) else (right,))]
    if any(part is None for part in parts):
        raise ValueError(f"expected, hints: must return a number, an array, a tensor or a tuple, got {kind(right)}")
    return [part for part in parts if part is not None]


def _results(student: Answer, arguments: tuple, count: int, where: str) -> list[Tensor]:
    """What the student's function returns, as a list of `count` tensors."""
    with seeded(0):
        came = student(copies(arguments), where)
    parts = [as_numbers(part) for part in (came if count > 1 and isinstance(came, tuple) else (came,))]
    if len(parts) != count:
        raise Fault(f"{NOT_YET}: {student.name} is to return a tuple of {count}, got {kind(came)}")
    if any(part is None for part in parts):
        raise Fault(f"{NOT_YET}: {student.name} is to return numbers, got {kind(came)}")
    return [part for part in parts if part is not None]


def _same(these: list[list[Tensor]], those: list[list[Tensor]], tolerance: float) -> bool:
    return all(alike(a, b, tolerance) for pair in zip(these, those, strict=True) for a, b in zip(*pair, strict=True))
