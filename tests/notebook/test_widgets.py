import base64
import io
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

from vaekit.notebook import widgets


def figure(level):
    fig, ax = plt.subplots(figsize=(1.5, 1))
    ax.bar(["a"], [level])
    ax.set_ylabel("tall " * level)  # sticks out of the figure, more and more
    return fig


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as in a notebook."""
    out = []
    monkeypatch.setattr(widgets, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", out.append)
    return out


def pixels(html):
    return imread(io.BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0])), format="png")


def frames(count=3, **options):
    return widgets.frames(
        [figure(k) for k in range(count)], [f"{k}" for k in range(count)],
        **{"description": "β", "caption": "As β grows, <b>more</b>.", "alt": "Digits", **options},
    )  # fmt: skip


def frames2(**options):
    grid = [[torch.full((1, 4, 4), (3 * r + c) / 6) for c in range(3)] for r in range(2)]
    options = {"descriptions": ("β", "λ"), "caption": "Both.", "alt": "Grey", **options}
    return widgets.frames2(grid, ["low", "high"], [0.1, 0.2, 0.3], **options)


def test_a_slider_over_a_stack_with_caption_and_alternatives(shown):
    assert frames(start=1) is None
    (box,) = shown
    slider, stack, caption = box.children
    assert isinstance(slider, ipywidgets.SelectionSlider) and isinstance(stack, ipywidgets.Stack)
    assert slider.description == "β" and slider.index == stack.selected_index == 1
    assert [label for label, _ in slider.options] == ["0", "1", "2"]
    assert "As β grows, <b>more</b>." in caption.value
    assert [child.value.split('alt="')[1].split('"')[0] for child in stack.children] == [
        f"Digits (β = {k})" for k in range(3)
    ]


def test_frames_have_one_size_differ_and_are_closed(shown):
    frames()
    images = [pixels(child.value) for child in shown[0].children[1].children]
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
    assert max(most) == 0 and len(shown[0].children[1].children) == 4


def test_equal_labels_stay_apart_and_one_picture_needs_no_slider(shown):
    widgets.frames([figure(k) for k in range(3)], ["x", "x", "x"], description="β", caption="", alt="a", start=2)
    frames(1)
    assert shown[0].children[0].index == 2
    assert [type(child).__name__ for child in shown[1].children] == ["Stack", "HTML"]


def test_two_sliders_over_nested_stacks(shown):
    with plt.rc_context({"image.cmap": "gray_r"}):
        frames2(start=(1, 2))
    row, column, outer, _ = shown[0].children
    assert (row.description, column.description) == ("β", "λ")
    assert (row.index, column.index, outer.selected_index) == (1, 2, 1)
    assert [inner.selected_index for inner in outer.children] == [2, 2]
    assert "(β = high, λ = 0.3)" in outer.children[1].children[2].value
    ink = [[pixels(c.value)[..., :3].mean() for c in inner.children] for inner in outer.children]
    assert ink[0] == sorted(ink[0], reverse=True) and ink[0][2] > ink[1][0] > ink[1][1]  # 1 is ink, ink is dark


def test_links_join_each_slider_with_its_stacks(shown, monkeypatch):
    links = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda source, target: links.append((source, target)))
    frames2()
    row, column, outer, _ = shown[0].children
    assert ((row, "index"), (outer, "selected_index")) in links
    assert all(((column, "index"), (inner, "selected_index")) in links for inner in outer.children)
    assert len(links) == 3


@pytest.mark.parametrize("grid", [False, True])
def test_without_stack_a_kernel_swaps_the_picture(shown, monkeypatch, grid):
    monkeypatch.delattr(ipywidgets, "Stack")  # as in ipywidgets 7
    if grid:
        frames2(start=(1, 0))
        row, column, picture, _ = shown[0].children
        assert "(β = high, λ = 0.1)" in picture.value
        row.index, column.index = 0, 1
        assert "(β = low, λ = 0.2)" in picture.value
    else:
        frames(start=2)
        slider, picture, _ = shown[0].children
        assert "(β = 2)" in picture.value
        slider.index = 1
        assert "(β = 1)" in picture.value
    assert isinstance(picture, ipywidgets.HTML)


def test_without_ipywidgets_the_picture_at_the_start_is_shown(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    frames(start=1)
    frames2(start=(1, 1))
    assert "(β = 1)" in shown[0].data and "As β grows" in shown[0].data
    assert "(β = high, λ = 0.2)" in shown[1].data


def test_a_plain_script_without_jupyter_runs_on_in_silence():
    script = """
        import sys
        sys.modules["IPython"] = sys.modules["ipywidgets"] = None
        import matplotlib; matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        from vaekit.notebook.widgets import frames
        assert frames([plt.figure()], ["a"], description="d", caption="c", alt="a") is None
        assert plt.get_fignums() == []
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_state_stored_in_a_notebook_has_stack_and_links():
    code = """
        import matplotlib.pyplot as plt
        from vaekit.notebook.widgets import frames
        frames([plt.figure(figsize=(1, 1)) for _ in range(3)], "abc", description="β", caption="Look.", alt="a")
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code).strip())])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert [o.output_type for o in outputs] == ["display_data"]  # shown once, and no figure beside it
    view = outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"]
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    name = {key: model["model_name"] for key, model in models.items()}
    assert name[view] == "VBoxModel"
    (link,) = [model["state"] for model in models.values() if model["model_name"] == "LinkModel"]
    ends = {(name[key.removeprefix("IPY_MODEL_")], trait) for key, trait in (link["source"], link["target"])}
    assert ends == {("SelectionSliderModel", "index"), ("StackModel", "selected_index")}
    (stack,) = [model["state"] for model in models.values() if model["model_name"] == "StackModel"]
    assert len(stack["children"]) == 3 and stack["selected_index"] == 0


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
