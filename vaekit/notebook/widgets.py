"""Sliders over pictures that are drawn beforehand; in the built book they work with no kernel running.

The browser swaps the pictures: they sit in an ipywidgets `Stack`, whose index is linked to the slider's by `jslink`.
ipywidgets 7 has no `Stack`; there a kernel swaps them. Without ipywidgets the first picture is shown by itself, and in
a plain script nothing is shown.
"""

import base64
import html
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Union

from torch import Tensor

from vaekit.notebook.figures import image_grid, to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = Union["Figure", Tensor]


class _Axis(NamedTuple):
    """One slider: what it changes, what it says at each step, and where it starts."""

    description: str
    labels: list[str]
    start: int


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


def _axis(description: str, labels: Sequence[object], start: int, name: str, start_name: str) -> _Axis:
    if len(labels) == 0:
        raise ValueError(f"{name}: expected at least one label, got none")
    if not 0 <= start < len(labels):
        raise ValueError(f"{start_name}: expected an index from 0 to {len(labels) - 1}, got {start}")
    return _Axis(description, [str(label) for label in labels], start)


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


def _show(grid: "list[list[Figure]]", axes: list[_Axis], caption: str, alt: str, dpi: int) -> None:
    if not _in_notebook():
        return
    from IPython.display import HTML, display

    pictures = _draw(grid, axes, alt, dpi)
    words = f'<figcaption class="vaekit-caption">{caption}</figcaption>'
    first = pictures[axes[0].start if len(axes) == 2 else 0][axes[-1].start]
    widgets = _ipywidgets()
    display(HTML(f"<figure>{first}{words}</figure>") if widgets is None else _assemble(widgets, pictures, axes, words))


def _draw(grid: "list[list[Figure]]", axes: list[_Axis], alt: str, dpi: int) -> list[list[str]]:
    """Each figure as an HTML image, all cut to one box that holds what is drawn in any of them."""
    from matplotlib.transforms import Bbox

    boxes = []
    for fig in (fig for row in grid for fig in row):
        fig.draw_without_rendering()  # layout engines place the axes only now
        boxes.append(fig.get_tightbbox())
    box = Bbox.union(boxes).padded(0.05)

    def image(fig: "Figure", steps: tuple[int, ...]) -> str:
        where = ", ".join(f"{axis.description} = {axis.labels[step]}" for axis, step in zip(axes, steps, strict=True))
        data = base64.b64encode(to_png(fig, dpi, box)).decode()
        looks = 'class="dark-light" style="max-width:100%;height:auto"'
        return f'<img {looks} alt="{html.escape(f"{alt} ({where})")}" src="data:image/png;base64,{data}">'

    return [[image(fig, (r, c)[-len(axes) :]) for c, fig in enumerate(row)] for r, row in enumerate(grid)]


def _assemble(widgets: ModuleType, pictures: list[list[str]], axes: list[_Axis], words: str) -> object:
    sliders = [
        widgets.SelectionSlider(
            options=[(label, step) for step, label in enumerate(axis.labels)],  # equal labels stay apart
            index=axis.start,
            description=axis.description,
            style={"description_width": "initial"},
            layout={"width": "100%", "max_width": "32em"},
        )
        for axis in axes
    ]
    *row, column = sliders
    if hasattr(widgets, "Stack"):
        stacks = [widgets.Stack([widgets.HTML(i) for i in images], selected_index=column.index) for images in pictures]
        for stack in stacks:
            widgets.jslink((column, "index"), (stack, "selected_index"))
        picture = stacks[0]
        if row:
            picture = widgets.Stack(stacks, selected_index=row[0].index)
            widgets.jslink((row[0], "index"), (picture, "selected_index"))
    else:
        picture = widgets.HTML()

        def swap(_: object = None) -> None:
            picture.value = pictures[row[0].index if row else 0][column.index]

        for slider in sliders:
            slider.observe(swap, names="index")
        swap()
    movable = [slider for slider in sliders if len(slider.options) > 1]  # a slider with one step fails in the browser
    return widgets.VBox([*movable, picture, widgets.HTML(words)])


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _ipywidgets() -> ModuleType | None:
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets
