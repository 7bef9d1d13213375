"""The lecturer's seed: whoever has it can write the same numbers, tests and answers again."""

import re
import secrets
from pathlib import Path
from random import Random

from tools.notebooks import ROOT

KEPT = ROOT / "_build" / "seed.txt"


def stream(seed: str, *names: str) -> Random:
    """Random numbers for one purpose; other purposes, such as another chapter's, do not disturb them."""
    return Random("/".join((seed, *names)))


def the_seed(given: str | None, kept: Path = KEPT) -> str:
    """The seed that was given, else the one that was used last, else a new one; it is kept for the next call.

    Raises:
        ValueError: The seed is not of letters, digits, `-`, `_` and `.`.
    """
    if given is not None and not re.fullmatch(r"[\w.-]+", given):
        raise ValueError(f"SEED: expected letters, digits, '-', '_' and '.', got {given!r}")
    seed = given or (kept.read_text(encoding="utf-8").strip() if kept.is_file() else secrets.token_hex(6))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(f"{seed}\n", encoding="utf-8")
    return seed


def fill(text: str, numbers: dict[str, object]) -> str:
    """A text with `@name@` replaced.

    Raises:
        ValueError: A name has no number.
    """
    if missing := sorted(set(re.findall(r"@(\w+)@", text)) - set(numbers)):
        raise ValueError(f"numbers: none for {', '.join(missing)}")
    return re.sub(r"@(\w+)@", lambda m: str(numbers[m[1]]), text)
