import base64
import io
import json
import re
import subprocess
import sys
import textwrap

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from matplotlib.image import imread
from nbclient import NotebookClient

from vaekit.notebook import follow, widgets
from vaekit.notebook.live import form


def figure(level):
    fig, ax = plt.subplots(figsize=(1.5, 1))
    ax.bar(["a"], [level])
    ax.set_ylabel("tall " * level)  # sticks out of the figure, more and more
    return fig


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as in a notebook."""
    out = []
    for module in (widgets, form):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", out.append)
    return out


def stored(output):
    """What a live figure carries for its script."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', output.data, re.DOTALL)[1])


def pixels(data):
    return imread(io.BytesIO(base64.b64decode(data)), format="png")


def frames(count=3, **options):
    return widgets.frames(
        [figure(k) for k in range(count)], [f"{k}" for k in range(count)],
        **{"description": "β", "caption": "As β grows, <b>more</b>.", "alt": "Digits", **options},
    )  # fmt: skip


def frames2(**options):
    grid = [[torch.full((1, 4, 4), (3 * r + c) / 6) for c in range(3)] for r in range(2)]
    options = {"descriptions": ("β", "λ"), "caption": "Both.", "alt": "Grey", **options}
    return widgets.frames2(grid, ["low", "high"], [0.1, 0.2, 0.3], **options)


def test_a_slider_with_caption_and_alternatives(shown):
    assert frames(start=1) is None
    (output,) = shown
    data = stored(output)
    assert data["axes"] == [{"description": "β", "labels": ["0", "1", "2"], "start": 1}]
    assert len(data["pictures"]) == 3 and data["alt"] == "Digits"
    assert "As β grows, <b>more</b>." in output.data
    still = re.search(r'<img alt="(.*?)" src="data:image/png;base64,(.*?)"', output.data)
    assert still[1] == "Digits (β = 1)" and still[2] == data["pictures"][1]


def test_frames_have_one_size_differ_and_are_closed(shown):
    frames()
    images = [pixels(picture) for picture in stored(shown[0])["pictures"]]
    assert len({image.shape for image in images}) == 1
    assert not (images[0] == images[1]).all() and not (images[1] == images[2]).all()
    for image in images:  # nothing is cut off
        edge = torch.cat([torch.tensor(image[i, ..., :3]).flatten() for i in (0, -1)])
        assert (edge == 1).all() and (image[:, 0, :3] == 1).all() and (image[:, -1, :3] == 1).all()
    assert plt.get_fignums() == []


def test_a_generator_keeps_one_figure_open(shown):
    most = []

    def figures():
        for k in range(4):
            yield figure(k)
            most.append(len(plt.get_fignums()))

    widgets.frames(figures(), range(4), description="k", caption="", alt="a")
    assert max(most) == 0 and len(stored(shown[0])["pictures"]) == 4


def test_two_sliders_over_a_grid(shown):
    with plt.rc_context({"image.cmap": "gray_r"}):
        frames2(start=(1, 2))
    data = stored(shown[0])
    assert [(axis["description"], axis["start"]) for axis in data["axes"]] == [("β", 1), ("λ", 2)]
    assert 'alt="Grey (β = high, λ = 0.3)"' in shown[0].data
    ink = [pixels(picture)[..., :3].mean() for picture in data["pictures"]]
    assert len(ink) == 6 and ink == sorted(ink, reverse=True) and ink[0] > ink[5]  # 1 is ink, ink is dark; rows first


def follow_levels(**options):
    drawn = []

    def draw(level):
        drawn.append(level)
        return figure(level)

    options = {"description": "level", "caption": "Higher.", "alt": "A bar", **options}
    follow(draw, [1, 2, 3], **options)
    return drawn


def test_a_slider_that_the_kernel_follows(shown):
    drawn = follow_levels(start=1)
    slider, picture, _ = shown[0].children
    assert drawn == [2] and 'alt="A bar (level = 2)"' in picture.value
    before = picture.value
    slider.index = 2
    assert drawn == [2, 3] and 'alt="A bar (level = 3)"' in picture.value and picture.value != before
    assert plt.get_fignums() == []


@pytest.mark.parametrize("why", ["stored", "no ipywidgets"])
def test_without_a_kernel_to_follow_the_first_picture_is_shown(shown, monkeypatch, why):
    if why == "stored":
        monkeypatch.setenv(widgets.STORING, "1")
    else:
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert follow_levels(start=1) == [2]
    assert not isinstance(shown[0], ipywidgets.Widget)
    assert "At level = 2; in a running notebook a slider changes it" in shown[0].data


def test_a_plain_script_without_jupyter_runs_on_in_silence():
    script = """
        import sys
        sys.modules["IPython"] = sys.modules["ipywidgets"] = None
        import matplotlib; matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        from vaekit.notebook.widgets import follow, frames
        assert frames([plt.figure()], ["a"], description="d", caption="c", alt="a") is None
        assert follow(lambda value: 1 / 0, [1], description="d", caption="c", alt="a") is None
        assert plt.get_fignums() == []
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_stored_in_a_notebook_is_html_alone():
    code = """
        import matplotlib.pyplot as plt
        from vaekit.notebook.widgets import frames
        frames([plt.figure(figsize=(1, 1)) for _ in range(3)], "abc", description="β", caption="Look.", alt="a")
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code).strip())])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs  # shown once, and no figure beside it
    assert output.output_type == "display_data" and set(output.data) == {"text/html", "text/plain"}
    assert '<vaekit-live kind="slider">' in output.data["text/html"]


def test_bad_frames():
    with pytest.raises(ValueError, match="pictures: expected one picture for each of 2 labels, got 1"):
        widgets.frames([figure(0)], ["a", "b"], description="β", caption="", alt="a")
    with pytest.raises(ValueError, match="labels: expected at least one label"):
        widgets.frames([], [], description="β", caption="", alt="a")
    with pytest.raises(ValueError, match="start: expected an index from 0 to 2, got 3"):
        frames(start=3)
    with pytest.raises(ValueError, match=r"start\[1\]: expected an index from 0 to 2, got -1"):
        frames2(start=(0, -1))
    with pytest.raises(ValueError, match="as many rows as row_labels, 2, got 1"):
        widgets.frames2([[figure(0)]], ["a", "b"], ["c"], descriptions=("β", "λ"), caption="", alt="a")
    with pytest.raises(ValueError, match="each row: expected one picture for each of 2 labels, got 1"):
        widgets.frames2([[figure(0)]], ["a"], ["c", "d"], descriptions=("β", "λ"), caption="", alt="a")
    with pytest.raises(ValueError, match="labels: expected one for each of 3 values, got 1"):
        follow_levels(labels=["a"])
    with pytest.raises(ValueError, match="values: expected at least one label, got none"):
        follow(figure, [], description="a", caption="", alt="")
