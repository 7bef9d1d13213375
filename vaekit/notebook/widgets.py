"""Sliders: over pictures that are drawn beforehand, which need no kernel, and over pictures that the kernel draws.

`frames` and `frames2` store their pictures in a live figure, so that the slider works in the built book, from disk, and
in every front end. `follow` calls the reader's own code at each step of its slider, with ipywidgets and a kernel.
"""

import base64
import html
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar, Union

from torch import Tensor

from vaekit.notebook import live
from vaekit.notebook.figures import image_grid, to_png
from vaekit.notebook.live.form import in_notebook
from vaekit.notebook.live.slider import Axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = Union["Figure", Tensor]
Value = TypeVar("Value")

STORING = "VAEKIT_STORING"  # set while outputs are stored for the book, which has no kernel


def frames(
    pictures: Iterable[Picture],
    labels: Sequence[object],
    *,
    description: str,
    caption: str,
    alt: str,
    start: int = 0,
    dpi: int = 80,
) -> None:
    """Show one of several pictures, chosen by a slider that mouse, finger or arrow keys move.

    Args:
        pictures: matplotlib figures, which are closed, or images with pixels in [0, 1]: `[C, H, W]`, or `[N, C, H, W]`
            for N side by side. All get the same margins. Of a generator's figures no more than one is open at a time.
        labels: What the slider says at each picture.
        description: What the slider changes, such as "β". Unicode, no LaTeX.
        caption: What to see. HTML with Unicode, no LaTeX.
        alt: Text alternative of the pictures; "(β = 4)" or the like is added to it.
        start: Index of the picture that is shown first.
        dpi: Resolution of the PNGs.

    Raises:
        ValueError: No pictures, another number of labels, or `start` out of range.
    """
    axis = _axis(description, labels, start, "labels", "start")
    _show([_figures(pictures, len(labels), "pictures")], [axis], caption, alt, dpi)


def frames2(
    pictures: Iterable[Iterable[Picture]],
    row_labels: Sequence[object],
    column_labels: Sequence[object],
    *,
    descriptions: tuple[str, str],
    caption: str,
    alt: str,
    start: tuple[int, int] = (0, 0),
    dpi: int = 80,
) -> None:
    """Show one picture of a grid, chosen by two sliders: one for the row and one for the column.

    Args:
        pictures: Rows of pictures, each as for `frames`. All of them are stored: 100 take about half a megabyte.
        row_labels: What the first slider says.
        column_labels: What the second slider says.
        descriptions: What the two sliders change.
        caption, alt, dpi: As for `frames`.
        start: Row and column that are shown first.

    Raises:
        ValueError: No pictures, another number of labels, or `start` out of range.
    """
    axes = [
        _axis(descriptions[0], row_labels, start[0], "row_labels", "start[0]"),
        _axis(descriptions[1], column_labels, start[1], "column_labels", "start[1]"),
    ]
    grid = [_figures(row, len(column_labels), "pictures: each row") for row in pictures]
    if len(grid) != len(row_labels):
        raise ValueError(f"pictures: expected as many rows as row_labels, {len(row_labels)}, got {len(grid)}")
    _show(grid, axes, caption, alt, dpi)


def follow(
    draw: "Callable[[Value], Picture]",
    values: Sequence[Value],
    *,
    description: str,
    caption: str,
    alt: str,
    labels: Sequence[object] | None = None,
    start: int = 0,
    dpi: int = 80,
) -> None:
    """Show what `draw` makes of one of the values, drawn anew by the kernel whenever the slider moves.

    Where there is no ipywidgets, and in stored outputs, the picture at the start is shown and its caption says so.

    Args:
        draw: From a value to a matplotlib figure or images, as for `frames`.
        values: What the slider chooses from.
        description: What the slider changes. Unicode, no LaTeX.
        caption: What to see. HTML with Unicode, no LaTeX.
        alt: Text alternative of the pictures.
        labels: What the slider says at each value; by default the value.
        start: Index of the first value.
        dpi: Resolution of the PNGs.

    Raises:
        ValueError: No values, another number of labels, or `start` out of range.
    """
    axis = _axis(description, values if labels is None else labels, start, "values", "start")
    if len(axis.labels) != len(values):
        raise ValueError(f"labels: expected one for each of {len(values)} values, got {len(axis.labels)}")
    if not in_notebook():
        return
    from IPython.display import HTML, display

    def picture(step: int) -> str:
        (fig,) = _figures([draw(values[step])], 1, "draw")
        where = html.escape(f"{alt} ({description} = {axis.labels[step]})")
        data = base64.b64encode(to_png(fig, dpi)).decode()
        return f'<img alt="{where}" style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'

    try:
        import ipywidgets
    except ImportError:
        ipywidgets = None
    if ipywidgets is None or os.environ.get(STORING):
        words = f"{caption} (At {description} = {axis.labels[start]}; in a running notebook a slider changes it.)"
        display(HTML(f'<figure class="vaekit-figure">{picture(start)}<figcaption>{words}</figcaption></figure>'))
        return
    options = [(label, step) for step, label in enumerate(axis.labels)]  # equal labels stay apart
    slider = ipywidgets.SelectionSlider(
        options=options, index=start, description=description, continuous_update=False,
        style={"description_width": "initial"}, layout={"width": "100%", "max_width": "32em"},
    )  # fmt: skip
    shown = ipywidgets.HTML(picture(start))
    slider.observe(lambda change: setattr(shown, "value", picture(change["new"])), names="index")
    display(ipywidgets.VBox([slider, shown, ipywidgets.HTML(f"<figcaption>{caption}</figcaption>")]))


def _axis(description: str, labels: Sequence[object], start: int, name: str, start_name: str) -> Axis:
    if len(labels) == 0:
        raise ValueError(f"{name}: expected at least one label, got none")
    if not 0 <= start < len(labels):
        raise ValueError(f"{start_name}: expected an index from 0 to {len(labels) - 1}, got {start}")
    return Axis(description, [str(label) for label in labels], start)


def _figures(pictures: Iterable[Picture], count: int, name: str) -> "list[Figure]":
    import matplotlib.pyplot as plt

    def figure(picture: Picture) -> "Figure":
        if isinstance(picture, Tensor):
            images = picture if picture.ndim == 4 else picture[None]
            return image_grid(images, columns=len(images)).figure  # type: ignore[return-value]
        return picture

    figures = []
    for picture in pictures:
        figures.append(figure(picture))
        plt.close(figures[-1])  # it can still be drawn, but pyplot neither counts nor shows it
    if len(figures) != count:
        raise ValueError(f"{name}: expected one picture for each of {count} labels, got {len(figures)}")
    return figures


def _show(grid: "list[list[Figure]]", axes: list[Axis], caption: str, alt: str, dpi: int) -> None:
    """All figures cut to one box that holds what is drawn in any of them."""
    if not in_notebook():
        return
    from matplotlib.transforms import Bbox

    figures = [fig for row in grid for fig in row]
    boxes = []
    for fig in figures:
        fig.draw_without_rendering()  # layout engines place the axes only now
        boxes.append(fig.get_tightbbox())
    box = Bbox.union(boxes).padded(0.05)
    live.slider([to_png(fig, dpi, box) for fig in figures], axes, caption=caption, alt=alt)
