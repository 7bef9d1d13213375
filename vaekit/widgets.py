"""Sliders over stored pictures that move without a kernel: in the built book, in Jupyter and on Colab.

Every frame is drawn beforehand and stored in the notebook as a PNG. With ipywidgets 8 the browser itself links the
slider to the frames, so that a static page needs no Python. ipywidgets 7, which Colab has, lacks the widget for that;
there the kernel exchanges the picture. In a plain script nothing is shown.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vaekit import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def frames(
    pictures: "Sequence[Figure | bytes]", labels: Sequence[str], *, description: str, caption: str, start: int = 0
) -> Any:
    """Show a slider over pictures.

    Args:
        pictures: One a position: matplotlib figures (they are closed), or PNG bytes. Same size, or the page jumps.
        labels: What the slider reads at each position; all different.
        description: The slider's name, such as `β`; a Greek letter itself, for LaTeX stays raw in labels.
        caption: What to see while it moves. HTML.
        start: The position shown first.

    Returns:
        The widget, which has been displayed; `None` in a plain script or where ipywidgets is not installed.

    Raises:
        ValueError: No pictures, another number of labels, two labels alike, or `start` out of range.
    """
    _check_labels(labels, len(pictures), "labels", "pictures")
    return frames2(
        [pictures], [""], labels, row_description="", description=description, caption=caption, start=(0, start)
    )


def frames2(
    pictures: "Sequence[Sequence[Figure | bytes]]",
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    row_description: str,
    description: str,
    caption: str,
    start: tuple[int, int] = (0, 0),
) -> Any:
    """Show two sliders over a grid of pictures: one chooses the row, the other the column.

    Args:
        pictures: Rows of pictures, all equally long.
        row_labels: What the first slider reads, one a row; a single row needs no slider and gets none.
        column_labels: What the second slider reads, one a column.
        row_description: The first slider's name.
        description: The second slider's name.
        caption: What to see. HTML.
        start: Row and column shown first.

    Returns:
        As `frames`.

    Raises:
        ValueError: As `frames`, for rows and for columns.
    """
    _check_labels(row_labels, len(pictures), "row_labels", "rows of pictures")
    for row in pictures:
        _check_labels(column_labels, len(row), "column_labels", "pictures in a row")
    if not (0 <= start[0] < len(row_labels) and 0 <= start[1] < len(column_labels)):
        raise ValueError(f"start: expected a position within {len(row_labels)} x {len(column_labels)}, got {start}")
    grid = [[picture if isinstance(picture, bytes) else figures.to_png(picture) for picture in row] for row in pictures]
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return None
    from IPython.display import Image, display

    try:
        import ipywidgets
    except ImportError:
        display(Image(grid[start[0]][start[1]]))
        return None
    columns = _slider(ipywidgets, column_labels, description, start[1])
    rows = _slider(ipywidgets, row_labels, row_description, start[0])
    join = _linked_in_the_browser if hasattr(ipywidgets, "Stack") else _exchanged_by_the_kernel
    shown = join(ipywidgets, grid, rows, columns)
    sliders = [rows, columns] if len(row_labels) > 1 else [columns]
    text = ipywidgets.HTML(f'<p class="vaekit-caption">{caption}</p>')
    widget = ipywidgets.VBox([*sliders, shown, text])
    display(widget)
    return widget


def _slider(ipywidgets: Any, labels: Sequence[str], description: str, start: int) -> Any:
    return ipywidgets.SelectionSlider(options=list(labels), index=start, description=description)


def _linked_in_the_browser(ipywidgets: Any, grid: list[list[bytes]], rows: Any, columns: Any) -> Any:
    """Stacks of images whose visible member follows a slider, by links that live in the page."""

    def stack(children: list[Any], slider: Any) -> Any:
        stacked = ipywidgets.Stack(children, selected_index=slider.index)
        ipywidgets.jslink((slider, "index"), (stacked, "selected_index"))
        return stacked

    by_row = [stack([ipywidgets.Image(value=png, format="png") for png in row], columns) for row in grid]
    return stack(by_row, rows) if len(by_row) > 1 else by_row[0]


def _exchanged_by_the_kernel(ipywidgets: Any, grid: list[list[bytes]], rows: Any, columns: Any) -> Any:
    """One image whose bytes a callback in the kernel replaces."""
    image = ipywidgets.Image(value=grid[rows.index][columns.index], format="png")

    def follow(_: Any) -> None:
        image.value = grid[rows.index][columns.index]

    rows.observe(follow, names="index")
    columns.observe(follow, names="index")
    return image


def _check_labels(labels: Sequence[str], count: int, name: str, of: str) -> None:
    if count == 0:
        raise ValueError(f"pictures: expected at least one, got no {of}")
    if len(labels) != count or len(set(labels)) != count:
        raise ValueError(f"{name}: expected {count} different ones, as many as {of}, got {list(labels)}")
