"""Figures in one style: readable on a light and on a dark page, in print, and for colour-blind readers."""

import base64
import html
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Okabe & Ito's palette, told apart by readers with any common colour-vision deficiency; black comes last.
# https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def use_style() -> None:
    """Set matplotlib's defaults for the book: the palette, quiet axes, an opaque white ground, readable type."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.grid": True,
            "grid.alpha": 0.25,
            "font.size": 10,
            "legend.frameon": False,
            "figure.facecolor": "white",
            "figure.dpi": 100,
            "image.cmap": "gray_r",
            "image.interpolation": "nearest",
            "savefig.facecolor": "white",
        }
    )


def to_png(fig: "Figure", dpi: int = 100, box: "Bbox | str" = "tight") -> bytes:
    """The figure as PNG bytes, cut to `box` (in inches; by default to what is drawn); the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, bbox_inches=box, metadata={"Software": None})
    plt.close(fig)
    return _palette(buffer.getvalue())


def show(fig: "Figure", *, caption: str, alt: str, dpi: int = 100) -> None:
    """Show a figure with a caption and a text alternative: as HTML in a notebook; nothing to see in a plain script.

    Args:
        fig: The matplotlib figure; it is closed.
        caption: What to see in it. HTML; write Greek letters as they are, not in LaTeX.
        alt: The text alternative for readers who do not see the picture.
        dpi: Resolution of the PNG; above 100 it has more pixels, and is shown no larger.
    """
    png = to_png(fig, dpi)
    data = base64.b64encode(png).decode()
    width, height = (round(int.from_bytes(png[i : i + 4], "big") * 100 / dpi) for i in (16, 20))
    sizes = f' width="{width}" height="{height}"' if dpi != 100 else ""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        display = sys.modules["IPython"].display
        display.display(
            display.HTML(
                f'<figure class="vaekit-figure"><img class="dark-light" alt="{html.escape(alt)}" '
                f'src="data:image/png;base64,{data}"{sizes} style="max-width:100%;height:auto">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        )


def tile(images: Tensor, columns: int, *, gap: int = 1) -> np.ndarray:
    """Images side by side in one array, row by row.

    Args:
        images: `[N, C, H, W]` with C = 1 or 3, pixels in [0, 1].
        columns: Images in a row.
        gap: Pixels between two images, left white where ink is dark (that is, 0).

    Returns:
        `[rows * (H + gap) - gap, columns * (W + gap) - gap]`, with a last dimension of 3 for colour.

    Raises:
        ValueError: The images have another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images: expected [N, 1 or 3, H, W] with N at least 1, got shape {tuple(images.shape)}")
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    canvas = torch.zeros(rows, columns, channels, height + gap, width + gap)
    canvas.view(-1, channels, height + gap, width + gap)[:n, :, :height, :width] = images.detach().float().cpu()
    grid = canvas.permute(0, 3, 1, 4, 2).reshape(rows * (height + gap), columns * (width + gap), channels)
    grid = grid[: grid.shape[0] - gap, : grid.shape[1] - gap].clamp(0, 1)
    return grid.squeeze(-1).numpy()


def image_grid(images: Tensor, *, columns: int = 10, title: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw images side by side, ink dark on white; returns the axes.

    Args:
        images: `[N, C, H, W]` with C = 1 or 3, pixels in [0, 1].
        columns: Images in a row.
        title: Put above the grid.
        ax: Where to draw; by default on a new figure of a fitting size.
    """
    import matplotlib.pyplot as plt

    grid = tile(images, columns)
    if ax is None:
        _, ax = plt.subplots(figsize=(0.6 * columns, 0.6 * columns * grid.shape[0] / grid.shape[1] + 0.3 * bool(title)))
    ax.imshow(grid, vmin=0, vmax=1)
    ax.set_axis_off()
    if title:
        ax.set_title(title)
    return ax


def image_rows(rows: dict[str, Tensor], *, title: str = "") -> "Figure":
    """One row of images for each entry, its name to the left: originals above reconstructions, say.

    Args:
        rows: Names and images `[N, C, H, W]`, the same N for all.
        title: Put above.
    """
    import matplotlib.pyplot as plt

    columns = max(len(images) for images in rows.values())
    fig, axes = plt.subplots(len(rows), 1, figsize=(0.6 * columns + 1, 0.62 * len(rows) + 0.3 * bool(title)))
    for ax, (name, images) in zip(np.atleast_1d(axes), rows.items(), strict=True):
        image_grid(images, columns=columns, ax=ax)
        ax.text(-0.01, 0.5, name, transform=ax.transAxes, ha="right", va="center")
    if title:
        fig.suptitle(title)
    return fig


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, the others to the right.

    Example:
        >>> print(markdown_table(["model", "nats"], [["VAE", -86.4]]))
        | model | nats |
        |:--|--:|
        | VAE | -86.4 |
    """
    lines = [list(header), *rows]
    written = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join([written[0], "|:--" + "|--:" * (len(header) - 1) + "|", *written[1:]])


def _palette(png: bytes) -> bytes:
    """The same picture with at most 256 colours, which halves most figures; unchanged where Pillow is missing."""
    try:
        from PIL import Image
    except ImportError:
        return png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        buffer, format="png", optimize=True
    )
    return min(png, buffer.getvalue(), key=len)
