"""A chapter's settings: one table over all profiles, of which the values in force come back."""

from types import SimpleNamespace
from typing import Any

from vaekit.notebook import weights
from vaekit.notebook.experiments import PROFILES, profile, tell


def settings(*, retrain: bool | None = None, **table: tuple) -> SimpleNamespace:
    """Show a chapter's settings, a column for each profile, and return those of the profile in force.

    Args:
        retrain: Whether models whose weights are kept beside the book are trained all the same; None leaves it to
            `VAEKIT_TRAIN` and `VAEKIT_PROFILE` (see `weights.wanted`).
        **table: For each name a tuple of five values, for `smoke`, `cpu`, `night`, `gpu` and `paper`.

    Returns:
        The values in force, by name.

    Raises:
        ValueError: A name without five values.

    Example:
        >>> s = settings(epochs=(1, 10, 40, 100, 2000))  # doctest: +ELLIPSIS
        |...
        >>> s.epochs in (1, 10, 40, 100, 2000)
        True
    """
    for name, values in table.items():
        if not isinstance(values, tuple) or len(values) != len(PROFILES):
            raise ValueError(
                f"{name}: expected a tuple of {len(PROFILES)} values, for {', '.join(PROFILES)}; got {values!r}"
            )
    weights.retrain(retrain)
    now = PROFILES.index(profile())
    heads = ["", *(f"`{name}`" for name in PROFILES)]
    heads[now + 1] = f"**{heads[now + 1]}**"
    lines = [heads, [":--"] * len(heads)]
    for name, row in table.items():
        cells = [_cell(value).replace("|", "\\|") for value in row]
        cells[now] = f"**{cells[now]}**" if cells[now] else ""
        lines.append([name.replace("_", " "), *cells])
    tell("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return SimpleNamespace(**{name: values[now] for name, values in table.items()})


def _cell(value: Any) -> str:
    """A value as a reader would write it."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(map(_cell, value))
    elif value is None or isinstance(value, bool):
        text = {None: "–", True: "yes", False: "no"}[value]
    else:
        text = f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
    return text
