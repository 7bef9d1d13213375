"""Numbers on the page: digits that mean something, and only those."""

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaekit.notebook.numbers import number


class Estimate(NamedTuple):
    mean: float
    standard_error: float


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (-99.76756, 0.07724, "−99.768 ± 0.077"),
        (5510.2, 5.2, "5,510.2 ± 5.2"),
        (1629631.6, 479.1, "1,629,630 ± 480"),
        (20.0, 0.0, "20 ± 0"),
        (0.81666, 7.9e-17, "0.8167 ± 0"),
        (-0.0012, 0.0004, "−0.00120 ± 0.00040"),
        (-0.0004, 0.012, "0.000 ± 0.012"),
        (0.3121, 0.0996, "0.31 ± 0.10"),
        (1e-9, 0.5, "0.00 ± 0.50"),
        (0.0, 0.0, "0 ± 0"),
        (0.5, math.inf, "0.5 ± unknown"),
        (0.8020863, None, "0.8021"),
        (2.0, None, "2"),
        (0.5, None, "0.5"),
        (12.3401, None, "12.34"),
        (99999.6, None, "100,000"),
        (123456.7, None, "123,500"),
        (369828, None, "369,828"),
        (-7, None, "−7"),
        (0.0, None, "0"),
        (-0.0, None, "0"),
        (3.2e-7, None, "3.2 × 10⁻⁷"),
        (-2.5e11, None, "−2.5 × 10¹¹"),
        (math.nan, None, "not a number"),
        (-math.inf, None, "−∞"),
    ],
)
def test_as_many_digits_as_mean_something(value, error, written):
    assert number(value, error) == written


def test_estimates_and_signs():
    for estimate in (Estimate(1.0, 0.25), {"mean": 1.0, "standard_error": 0.25}, {"mean": 1.0, "se": 0.25, "n": 3}):
        assert number(estimate) == "1.00 ± 0.25"
    assert number(0.31, 0.12, sign=True) == "+0.31 ± 0.12" and number(-0.31, 0.12, sign=True) == "−0.31 ± 0.12"
    assert number(0, sign=True) == "0" and number(3, sign=True) == "+3"


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e4))
def test_the_written_number_is_the_number_as_far_as_its_error_goes(value, error):
    mean, spread = (float(part.replace(",", "").replace("−", "-")) for part in number(value, error).split(" ± "))
    assert abs(spread - error) <= 0.051 * error and abs(mean - value) <= 0.051 * error
    assert len(number(value, error).split(" ± ")[1].replace(",", "").replace(".", "").strip("0")) <= 2


@pytest.mark.parametrize(("arguments", "says"), [({"error": -1.0}, "error: "), ({"digits": 0}, "digits: ")])
def test_what_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        number(1.0, **arguments)
