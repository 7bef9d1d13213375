"""One of several pictures that were drawn beforehand, chosen by one slider or two."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

from vaekit.notebook.live import form


class Axis(NamedTuple):
    """One slider: what it changes, what it says at each step, and where it starts."""

    description: str
    labels: list[str]
    start: int


def slider(pictures: Sequence[bytes], axes: Sequence[Axis], *, caption: str, alt: str) -> None:
    """Show one of several PNGs.

    Args:
        pictures: PNGs of one size; with two axes row by row, the first axis choosing the row.
        axes: One or two.
        caption: What to see. HTML with Unicode, no LaTeX.
        alt: Text alternative of the pictures; "(β = 4)" or the like is added to it.

    Raises:
        ValueError: Other than one or two axes, or another number of pictures than the axes have steps.
    """
    if len(axes) not in (1, 2):
        raise ValueError(f"axes: expected one or two, got {len(axes)}")
    rows = len(axes[0].labels) if len(axes) == 2 else 1
    columns = len(axes[-1].labels)
    if len(pictures) != rows * columns:
        raise ValueError(f"pictures: expected one for each of {rows * columns} steps, got {len(pictures)}")
    first = axes[-1].start + (axes[0].start * columns if len(axes) == 2 else 0)
    where = ", ".join(f"{axis.description} = {axis.labels[axis.start]}" for axis in axes)
    data = {
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
        "axes": [axis._asdict() for axis in axes],
        "alt": alt,
    }
    form.show("slider", data, pictures[first], caption=caption, alt=f"{alt} ({where})", limit=None)
