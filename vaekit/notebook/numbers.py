"""Numbers as readers want them: no digit that means nothing, and none left out that means something."""

import math
from collections.abc import Mapping
from typing import Any

MINUS, SUPERSCRIPTS = "−", str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any, error: float | None = None, *, digits: int = 4, sign: bool = False) -> str:
    """A number in words of the page: its standard error with two significant digits, the value to match.

    Args:
        value: A number; or an estimate, that is a mapping or a named tuple with `mean` and `standard_error`.
        error: Its standard error.
        digits: Significant digits where no standard error says how many there are. Whole numbers keep all theirs.
        sign: Write a plus before a positive value, as differences want it.

    Raises:
        ValueError: `error` is negative, or `digits` below 1.

    Example:
        >>> number(-99.76756, 0.07724), number(1629631.6, 479.1), number(20.0, 0.0)
        ('−99.768 ± 0.077', '1,629,630 ± 480', '20 ± 0')
        >>> number(0.80208), number(123456.7), number(369828), number(3.2e-7), number(0.0)
        ('0.8021', '123,500', '369,828', '3.2 × 10⁻⁷', '0')
        >>> number({"mean": 0.3121, "standard_error": 0.0996}, sign=True)
        '+0.31 ± 0.10'
    """
    if isinstance(value, Mapping) and "mean" in value:
        error = value.get("standard_error", value.get("se")) if error is None else error
        value = value["mean"]
    elif hasattr(value, "mean") and hasattr(value, "standard_error"):
        value, error = value.mean, value.standard_error if error is None else error
    if digits < 1:
        raise ValueError(f"digits: expected 1 or more, got {digits}")
    if error is not None and error < 0:
        raise ValueError(f"error: expected a standard error of 0 or more, got {error}")
    if isinstance(value, int) and not isinstance(value, bool) and error is None:
        return _signed(f"{value:,}", sign)
    value = float(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else _signed("∞" if value > 0 else "-∞", sign)
    if error is not None and math.isfinite(error) and error > 1e-12 * abs(value):
        place = _place(error, 2)
        return f"{_signed(_rounded(value, place), sign)} ± {_rounded(error, place)}"
    suffix = "" if error is None else " ± 0" if math.isfinite(error) else " ± unknown"
    if value and not 1e-4 <= abs(value) < 1e7:
        power = math.floor(math.log10(abs(value)))
        mantissa = f"{value / 10.0**power:.{digits - 1}f}".rstrip("0").rstrip(".")
        return f"{_signed(mantissa, sign)} × 10{str(power).translate(SUPERSCRIPTS)}{suffix}"
    text = _rounded(value, _place(value, digits))
    text = text.rstrip("0").rstrip(".") if "." in text else text  # nobody said that those digits are known
    return _signed(text, sign) + suffix


def _place(value: float, digits: int) -> int:
    """How many decimals leave so many significant digits; negative: that many zeros before the point."""
    if value == 0:
        return 0
    place = digits - 1 - math.floor(math.log10(abs(value)))
    # 0.0996 is 0.10 with two digits, not 0.100
    return place - (math.floor(math.log10(abs(round(value, place)))) > math.floor(math.log10(abs(value))))


def _rounded(value: float, place: int) -> str:
    text = f"{round(value, place):,.{max(0, place)}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def _signed(text: str, sign: bool) -> str:
    return text.replace("-", MINUS) if text.startswith("-") else f"+{text}" if sign and text.strip("0.,") else text
