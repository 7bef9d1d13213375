import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vaekit.notebook import diagnosis
from vaekit.notebook.exercises import check, check_value

X = torch.tensor([[1.0, -2.0, 0.5], [0.3, 4.0, -1.0]])  # [2, 3], single precision


def total(x):
    return (x**2).sum(-1) + 0.1  # [2]


def verdict(capsys, answer, expected=total, on=(X, 2 * X + 1), **options):
    """The line that is printed, without its beginning; and that the verdict agrees with it."""
    result = check("Exercise 1", answer, expected, on=list(on), **options)
    return line(capsys, result)


def line(capsys, result):
    printed = capsys.readouterr().out
    assert printed.startswith("Exercise 1: ") and printed.endswith((".\n", "?\n")) and printed.count("\n") == 1
    assert bool(result) == (printed == "Exercise 1: correct.\n")
    return printed.removeprefix("Exercise 1: ").strip()


@pytest.mark.parametrize(
    "right",
    [
        lambda x: (x * x).sum(1) + 0.1,
        lambda x: np.square(x.numpy()).sum(1) + 0.1,
        lambda x: [float(row @ row) + 0.1 for row in x],
        lambda x: [row @ row + 0.1 for row in x],
        lambda x: total(x.float()),
        lambda x: total(x).requires_grad_(),
    ],
)
def test_right_answers_of_any_kind(capsys, right):
    assert verdict(capsys, right) == "correct."


def test_a_verdict_is_a_truth_value_that_notebooks_do_not_show(capsys):
    result = check("Exercise 1", total, total, on=[X])
    assert result == True and repr(result) == "True" and result._ipython_display_() is None  # noqa: E712
    assert capsys.readouterr().out == "Exercise 1: correct.\n"


def todo(x):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "not filled in yet."),
        (..., "not filled in yet."),
        (todo, "not filled in yet."),
        (lambda x: None, "not filled in yet: your function returns None."),
        (lambda x: ..., "not filled in yet: your function returns Ellipsis."),
        (3.0, "not right yet: expected a function, got a number."),
        (lambda x: "a", "not right yet: your function is to return numbers, got text."),
        (lambda x: {}, "not right yet: your function is to return numbers, got a dictionary."),
        (lambda x: [1.0, "a"], "not right yet: your function is to return numbers, got a list of 2."),
        (
            lambda x: total(x) * 1j,
            "not right yet: your function is to return numbers, got a tensor of complex numbers of shape (2,).",
        ),
        (lambda x: total(x) if x[0, 0] == 1 else None, "not filled in yet: your function returns None."),
    ],
)
def test_answers_that_are_no_numbers(capsys, answer, said):
    assert verdict(capsys, answer) == said


def broken(x):
    raise RuntimeError("The sizes do not match.\nLong story.")


@pytest.mark.parametrize(
    ("answer", "on", "said"),
    [
        (broken, [X], "broken raised RuntimeError: The sizes do not match."),
        (broken, [X, X], "broken raised RuntimeError on input 1 of 2: The sizes do not match."),
        (lambda x: 1 // (x.shape[0] - 2) + total(x), [X.T @ X, X],
         "your function raised ZeroDivisionError on input 2 of 2: integer division or modulo by zero."),
        (lambda x: nowhere(x), [X],  # noqa: F821
         "your function raised NameError: name 'nowhere' is not defined; run the cells above first."),
        (lambda: 1, [X], "your function raised TypeError: "),
    ],
)  # fmt: skip
def test_exceptions_are_told_in_one_line(capsys, answer, on, said):
    came = verdict(capsys, answer, on=on)
    assert came.startswith(f"not right yet: {said}") and (said.endswith(": ") or came == f"not right yet: {said}")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: total(x)[:1], "expected shape (2,), got (1,)."),
        (lambda x: total(x)[:, None], "expected shape (2,), got (2, 1): a dimension of size 1 too many."),
        (lambda x: x**2 + 0.1 / 3, "expected shape (2,), got (2, 3): a sum over dimension 1 is missing."),
        (lambda x: 3 * x**2 + 0.1, "expected shape (2,), got (2, 3): a mean over dimension 1 is missing."),
        (lambda x: total(x).sum(), "expected shape (2,), got (): it is the sum over all entries, too many."),
        (lambda x: total(x).mean(), "expected shape (2,), got (): it is the mean over all entries, too many."),
    ],
)
def test_wrong_shapes(capsys, answer, said):
    assert verdict(capsys, answer) == f"not right yet: {said}"


def test_wrong_shapes_where_something_else_is_expected(capsys):
    said = verdict(capsys, lambda x: x.T, lambda x: x)
    assert said == "not right yet: expected shape (2, 3), got (3, 2): it is transposed."
    said = verdict(capsys, lambda x: total(x), lambda x: total(x)[None])
    assert said == "not right yet: expected shape (1, 2), got (2,): a dimension of size 1 too few."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: -total(x), "it has the wrong sign."),
        (lambda x: 2 * total(x).float(),
         "it is the right one times 2 (a size of the input: a sum where a mean is due?)."),
        (lambda x: 0.7 * total(x), "it is the right one times 0.7."),
        (lambda x: 0.7 * (total(x) * torch.tensor([1, 1 + 3e-6])).float(), "it is the right one times 0.7."),
        (lambda x: -0.5 * total(x), "it is the right one times -0.5."),
        (lambda x: total(x) / math.log(2), "it is the right one times 1 / log 2."),
        (lambda x: total(x) / 3, "it is the right one divided by 3 (a size of the input: a mean where a sum is due?)."),
        (lambda x: total(x) * 6, "it is the right one times 6 (a size of the input: a sum where a mean is due?)."),
        (lambda x: total(x) + 0.5 * math.log(2 * math.pi), "it is too large by ½ log 2π everywhere."),
        (lambda x: total(x) - 0.1, "it is too small by 0.1 everywhere."),
        (lambda x: total(x).log(), "it is not the right one but its logarithm."),
        (lambda x: total(x).exp(), "it is not the right one but its exponential."),
        (lambda x: total(x).sqrt(), "it is not the right one but its square root."),
        (lambda x: total(x) ** 2, "it is not the right one but its square."),
        (lambda x: 1 / total(x), "it is not the right one but its reciprocal."),
        (lambda x: 1 - total(x), "it is not the right one but one minus it."),
        (lambda x: total(x) / 0, "it is inf at [0] on input 1 of 2, where a finite number is expected."),
        (lambda x: (x[:, 0] - 3).log(), "it is nan at [0] on input 1 of 2, where a finite number is expected."),
        (lambda x: 0 * total(x), "the largest difference is 84.66 at [1] on input 2 of 2: expected 84.66, got 0."),
        (lambda x: total(x) + torch.tensor([0.0, 1e-3]) * (x[0, 0] > 2),
         "the largest difference is 0.001 at [1] on input 2 of 2: expected 84.66, got 84.661."),
    ],
)  # fmt: skip
def test_wrong_numbers(capsys, answer, said):
    assert verdict(capsys, answer) == f"not right yet: {said}"


def test_a_single_number_is_not_called_a_multiple_of_another(capsys):
    def wrong(factor):
        return verdict(capsys, lambda x: factor * x, lambda x: x, on=[1.7])

    assert wrong(1.3) == "not right yet: the largest difference is 0.51: expected 1.7, got 2.21."
    assert wrong(0.5) == "not right yet: it is the right one times 1/2."
    assert wrong(-1) == "not right yet: it has the wrong sign."


def test_a_mean_is_told_over_inputs_of_several_sizes(capsys):
    said = verdict(capsys, lambda x: x.mean(), lambda x: x.sum(), on=[torch.arange(n) + 1.5 for n in (3, 5)])
    why = "(a size of the input: a mean where a sum is due?)"
    assert said == f"not right yet: it is the right one divided by 3 on input 1 of 2 {why}."


def test_a_mean_is_not_told_where_only_some_inputs_say_so(capsys):
    on = [torch.ones(1, 3), torch.ones(1, 5)]
    said = verdict(capsys, lambda x: x.sum() / (1 if x.shape[1] == 3 else 5), lambda x: x.sum(), on=on)
    assert said == "not right yet: the largest difference is 4 on input 2 of 2: expected 5, got 1."


def test_infinities_that_are_expected_are_right(capsys):
    on = [torch.tensor([0.0, 1.0])]
    assert verdict(capsys, torch.log, lambda x: x.log(), on=on) == "correct."
    said = verdict(capsys, lambda x: 2 * x.log() + 1, lambda x: x.log(), on=on)
    assert said == "not right yet: the largest difference is 1 at [1]: expected 0, got 1."


def test_tuples_are_compared_one_by_one(capsys):
    def both(x):
        return x.sum(), x.mean()

    assert verdict(capsys, lambda x: (x.sum(), x.mean()), both) == "correct."
    said = verdict(capsys, lambda x: (x.sum(), -x.mean()), both)
    assert said == "not right yet, result 2 of 2: it has the wrong sign."
    said = verdict(capsys, total, both)
    assert said == "not right yet: total is to return a tuple of 2, got a tensor of shape (2,)."
    said = verdict(capsys, lambda x: (x.sum(),), both)
    assert said == "not right yet: your function is to return a tuple of 2, got a tuple of 1."


def test_hints_name_expected_mistakes(capsys):
    hints = {"the square is missing": lambda x: x.sum(-1) + 0.1, "never": lambda x: x}
    assert verdict(capsys, lambda x: x.sum(1) + 0.1, hints=hints) == "not right yet: the square is missing."
    assert verdict(capsys, total, hints=hints) == "correct."
    assert verdict(capsys, lambda x: -total(x), hints=hints) == "not right yet: it has the wrong sign."


def test_tolerance_counts_small_numbers_absolutely_and_large_ones_relatively(capsys):
    def off(by):
        return lambda x: x * (1 + by) + by

    on = [torch.tensor([0.0, 1e6, -3.0])]
    assert verdict(capsys, off(5e-7), lambda x: x, on=on) == "correct."
    assert verdict(capsys, off(3e-6), lambda x: x, on=on) != "correct."
    assert verdict(capsys, off(3e-6), lambda x: x, on=on, tolerance=1e-5) == "correct."
    assert verdict(capsys, lambda x: off(3e-6)(x).float(), lambda x: x, on=on) == "correct."
    assert verdict(capsys, lambda x: off(3e-5)(x).float(), lambda x: x, on=on) != "correct."


def test_inputs_come_as_fresh_copies_in_double_precision_with_the_same_noise(capsys):
    seen = []

    def greedy(x, model, array, count):
        seen.append((x.dtype, array.dtype, count, x.requires_grad))
        value = x * model.weight + torch.randn(2) + torch.tensor(array)
        with torch.no_grad():
            x.zero_()
            model.weight.zero_()
            array[:] = 0
        return value

    x, array = torch.ones(2, dtype=torch.float64, requires_grad=True), np.ones(2, dtype=np.float32)
    model = nn.Linear(2, 1).double()
    state = torch.get_rng_state()
    assert verdict(capsys, greedy, greedy, on=[(x, model, array, 3)] * 2) == "correct."
    assert seen == [(torch.float64, np.float64, 3, True)] * 4
    assert x.sum() == 2 and (model.weight != 0).all() and array.sum() == 2
    assert torch.equal(state, torch.get_rng_state())


def test_mistakes_of_the_author_raise():
    with pytest.raises(ValueError, match="on: expected at least one input"):
        check("Exercise 1", total, total, on=[])
    with pytest.raises(ValueError, match="expected, hints: must return a number"):
        check("Exercise 1", total, lambda x: "a", on=[X])
    with pytest.raises(ZeroDivisionError):
        check("Exercise 1", total, lambda x: 1 // 0, on=[X])


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (2.5, 2.5, "correct."),
        (torch.tensor(2.5), 2.5, "correct."),
        (np.float32(2.5), 2.5, "correct."),
        (" B ", "b", "correct."),
        (True, True, "correct."),
        ([1, 2], np.array([1.0, 2.0]), "correct."),
        (None, 2.5, "not filled in yet."),
        (..., 2.5, "not filled in yet."),
        ("", "b", "not filled in yet."),
        ("c", "b", "not right yet: it is not 'c'."),
        (False, True, "not right yet: it is not False."),
        (1, True, "not right yet: expected True or False, got a number."),
        (True, 1.0, "not right yet: expected a number, got True or False."),
        (2, "b", "not right yet: expected text, got a number."),
        ("b", 2, "not right yet: expected a number, got text."),
        (2.6, 2.5, "not right yet: it is too large."),
        (2.4, 2.5, "not right yet: it is too small."),
        (-2.5, 2.5, "not right yet: it has the wrong sign."),
        (5.0, 2.5, "not right yet: it is the right one times 2: is a factor 1/2 missing?"),
        (math.nan, 2.5, "not right yet: it is nan, where a finite number is expected."),
        (2.5, math.inf, "not right yet: it is too small."),
        ([1, 2, 3], [1.0, 2.0], "not right yet: expected shape (2,), got (3,)."),
        ([1.0, 7.0], [1.0, 2.0], "not right yet: some of the numbers differ."),
    ],
)
def test_values(capsys, answer, expected, said):
    assert line(capsys, check_value("Exercise 1", answer, expected)) == said


def test_hints_for_values(capsys):
    hints = {"that is the prior": "a", "bits, not nats.": 3.0, "is a half missing?": 5.0}
    assert line(capsys, check_value("Exercise 1", "A", "b", hints=hints)) == "not right yet: that is the prior."
    assert line(capsys, check_value("Exercise 1", 3, 2.5, hints=hints)) == "not right yet: bits, not nats."
    assert line(capsys, check_value("Exercise 1", 5.0, 2.5, hints=hints)) == "not right yet: is a half missing?"


def test_a_notebook_shows_no_value_and_nbgrader_gets_the_points(capsys, monkeypatch):
    from IPython.core.formatters import DisplayFormatter

    show = DisplayFormatter().format
    verdicts = check("Exercise 1", total, total, on=[X]), check("Exercise 1", None, total, on=[X])
    assert [repr(v) for v in verdicts] == ["True", "False"]
    assert [show(v) for v in verdicts] == [({}, {})] * 2
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert [show(v)[0] for v in verdicts] == [{"text/plain": "1"}, {"text/plain": "0"}]


@pytest.mark.parametrize("expected", [0.0, 1.0, -3.0, 1e6])
@pytest.mark.parametrize(
    ("kind", "options", "least"),
    [
        (np.float64, {}, 1e-6),
        (np.float64, {"tolerance": 1e-3}, 1e-3),
        (np.float32, {}, 1e-5),
        (np.float32, {"tolerance": 1e-2}, 1e-2),
        (float, {}, 1e-5),
    ],
)
def test_what_passes_ends_at_the_tolerance(capsys, expected, kind, options, least):
    """At `tolerance * (1 + |expected|)`, for functions and for values; in single precision at 1e-5 or more."""
    for share, passes in ((0.98, True), (1.02, False), (-0.98, True), (-1.02, False)):
        off = share * least * (1 + abs(expected))
        if kind is not np.float64 and expected == 1e6:
            off = round(off / 0.0625) * 0.0625  # what single precision can tell apart there
        given = np.asarray(kind(expected + off)) if kind is not float else expected + off
        assert bool(check_value("Exercise 1", given, expected, **options)) is passes
        answer = partial(lambda given, x: given, given)
        verdict = check("Exercise 1", answer, lambda x: (0 * x + expected).sum(), on=[torch.ones(1)], **options)
        assert bool(verdict) is passes
    capsys.readouterr()


def test_a_factor_goes_by_name_within_ten_tolerances(capsys):
    def wrong(factor):
        return verdict(capsys, lambda x: factor * x, lambda x: x, on=[torch.tensor([1.0, 2.0, 5.0])])

    assert wrong(2 * (1 + 9e-6)) == "not right yet: it is the right one times 2: is a factor 1/2 missing?"
    assert wrong(2 * (1 + 12e-6)) == "not right yet: it is the right one times 2."
    assert wrong(0.5 * (1 - 9e-6)) == "not right yet: it is the right one times 1/2."
    assert wrong(1.75) == "not right yet: it is the right one times 1.75."


def test_factors_and_offsets_are_the_numbers_that_their_names_say():
    numbers = {
        "2": 2, "1/2": 0.5, "4": 4, "1/4": 0.25, "100": 100, "1/100": 0.01, "255": 255, "1/255": 0.00392156862745098,
        "log 2": 0.6931471805599453, "1 / log 2": 1.4426950408889634, "π": 3.141592653589793, "1/π": 0.3183098861837907,
        "2π": 6.283185307179586, "1/2π": 0.15915494309189535, "√2": 1.4142135623730951, "1/√2": 0.7071067811865476,
        "√2π": 2.5066282746310002, "1/√2π": 0.3989422804014327,
    }  # fmt: skip
    assert pytest.approx(numbers, rel=1e-12) == diagnosis.FACTORS
    numbers = {"1": 1, "1/2": 0.5, "log 2": 0.6931471805599453, "log 2π": 1.8378770664093453}
    assert pytest.approx(numbers | {"½ log 2π": 0.9189385332046727}, rel=1e-12) == diagnosis.OFFSETS
