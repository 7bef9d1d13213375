"""Pictures: pixels where they belong, a caption and a text alternative, small files."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from vaekit.notebook import figures

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def test_tiles_stand_row_by_row_with_a_gap():
    images = torch.arange(1, 6).float()[:, None, None, None].expand(5, 1, 2, 3) / 10
    grid = figures.tile(images, columns=2, gap=1)
    assert grid.shape == (3 * 2 + 2, 2 * 3 + 1)
    expected = np.zeros((8, 7))
    for i in range(5):
        row, column = divmod(i, 2)
        expected[3 * row : 3 * row + 2, 4 * column : 4 * column + 3] = (i + 1) / 10
    assert np.allclose(grid, expected)


def test_colour_tiles_keep_their_channels():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    grid = figures.tile(images, columns=2, gap=0)
    assert np.allclose(grid[:, 4:], images[1].permute(1, 2, 0))


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (3, 4, 4), (0, 1, 4, 4)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match="images: expected"):
        figures.tile(torch.zeros(shape), columns=2)


def test_a_figure_becomes_a_small_png_and_is_closed():
    fig, ax = plt.subplots(figsize=(4, 3))
    ax.plot([0, 1])
    png = figures.to_png(fig, dpi=100)
    assert Image.open(io.BytesIO(png)).format == "PNG" and len(png) < 20_000
    assert not plt.fignum_exists(fig.number)


def test_show_gives_a_caption_and_an_escaped_text_alternative(monkeypatch):
    display = pytest.importorskip("IPython.display")
    import IPython

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(display, "display", shown.append)
    fig, _ = plt.subplots()
    figures.show(fig, caption="As β <b>grows</b>", alt='a "line" & more')
    text = shown[0].data
    assert 'alt="a &quot;line&quot; &amp; more"' in text
    assert "<figcaption>As β <b>grows</b></figcaption>" in text
    assert 'src="data:image/png;base64,' in text and "width=" not in text


def test_more_pixels_do_not_make_a_figure_larger(monkeypatch):
    display = pytest.importorskip("IPython.display")
    import IPython

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(display, "display", shown.append)
    monkeypatch.setattr(figures, "to_png", lambda fig, dpi: _png(300, 150))
    figures.show(None, caption="c", alt="a", dpi=150)
    assert ' width="200" height="100"' in shown[0].data


def _png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="png")
    return buffer.getvalue()


def test_palette_differs_in_brightness_as_well_as_in_hue():
    """Readers who see no colour at all tell neighbouring lines apart: relative luminances differ (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    values = [luminance(colour) for colour in figures.COLOURS]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 0.01


def test_tables_are_markdown():
    assert figures.markdown_table(["a", "b"], [[1, 2.5]]) == "| a | b |\n|:--|--:|\n| 1 | 2.5 |"
