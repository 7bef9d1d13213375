"""Numbers in teaching material: read from the chapters' stored results, as `{{01_vae: NLL}}`."""

import math
import re
import sys
from functools import cache
from typing import Any

from tools.notebooks import ROOT
from vaekit.notebook import load_results
from vaekit.notebook.numbers import number

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from results import at

WHERE = re.compile(r"\{\{(\w+): ([^}|]+?)(?: \| ([^}|]+?))?\}\}")
RESULTS = ROOT / "book" / "results"


@cache
def values(chapter: str) -> dict[str, Any]:
    """The values of a chapter's best run.

    Raises:
        ValueError: The chapter has no stored results.
    """
    record = load_results(chapter, RESULTS)
    if record is None:
        raise ValueError(f"{chapter}: no results are stored")
    return record["values"]


def one(chapter: str, place: str, how: str | None = None) -> str:
    """A number in words; `how`: `sign`, `minus`, `percent`, `mean`, or a format such as `.0f`.

    Raises:
        ValueError: There is no such number, or no such way to write it.
    """
    try:
        value = at(values(chapter), place)
    except KeyError:
        raise ValueError(f"{chapter}: no result at {place!r}") from None
    pair = isinstance(value, dict)
    mean, error = (value["mean"], value.get("standard_error")) if pair else (value, None)
    if how == "minus":
        return number(-mean, error)
    if how == "percent":
        return f"{number(100 * mean, None if error is None else 100 * error, digits=3)} %"
    if how == "sign":
        return number(mean, error, sign=True)
    if how == "mean":
        return number(mean, digits=3)
    if how is None:
        return number(mean, error)
    if re.fullmatch(r"\.\df", how) and math.isfinite(mean):
        return f"{mean:,{how}}".replace("-", "−")
    raise ValueError(f"{chapter}, {place}: no way to write a number is called {how!r}")


def shown(text: str) -> tuple[str, list[str]]:
    """A text with every `{{chapter: place | how}}` replaced, by an ellipsis where there is none, and the faults."""
    faults = []

    def replace(match: re.Match[str]) -> str:
        try:
            return one(*match.groups())
        except ValueError as fault:
            faults.append(str(fault))
            return "…"

    return WHERE.sub(replace, text), faults


def filled(text: str) -> str:
    """As `shown`, but all numbers must be there.

    Raises:
        ValueError: A number does not exist; the message names all of them.
    """
    result, faults = shown(text)
    if faults:
        raise ValueError("; ".join(faults))
    return result
