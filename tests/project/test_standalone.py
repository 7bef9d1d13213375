"""Exercises run by themselves, and their outputs take their place among those of the chapter's run."""

import shutil
import subprocess
import sys

import nbformat
import pytest

from tools import notebooks, standalone

CHAPTER = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% tags=["setup"]
a = 1

# %%
import math

# %% tags=["settings"]
scale = 2

# %% [markdown]
# # A chapter

# %%
open("count.txt", "a").write("x")
long = math.sqrt(16) * scale
long

# %% tags=["solution"]
def double(x):
    return scale * x

# %% tags=["check"]
double(5)

# %% [markdown]
# The end.

# %%
print("last", long)
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    path = tmp_path_factory.mktemp("chapter") / "00_probe.py"
    path.write_text(CHAPTER, encoding="utf-8")
    run = execute(path, "smoke")
    assert run.returncode == 0, run.stderr
    return path.parent


@pytest.fixture
def chapter(executed, tmp_path):
    shutil.copytree(executed, tmp_path, dirs_exist_ok=True)
    return tmp_path / "00_probe.py"


def execute(script, how):
    code = (
        "import pathlib\nfrom tools import execute\n"
        f"folder = pathlib.Path({str(script.parent)!r})\nexecute.FOLDER = execute.ROOT = folder\n"
        f"execute.main({script.stem!r}, {how!r})"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=notebooks.ROOT, capture_output=True, text=True)


def outputs(script):
    cells = [c for c in nbformat.read(script.with_suffix(".ipynb"), 4).cells if c.cell_type == "code"]
    shown = [[o.get("text") or o.data["text/plain"] for o in c.outputs] for c in cells]
    counts = [[c.execution_count, *(o.execution_count for o in c.outputs if "execution_count" in o)] for c in cells]
    assert all(set(count) == {k} for k, count in enumerate(counts, 1))
    return shown


def test_an_exercise_that_changed_needs_only_its_own_run(chapter):
    assert outputs(chapter)[3:] == [["8.0"], [], ["10"], ["last 8.0\n"]]
    before = nbformat.read(chapter.with_suffix(".ipynb"), 4).metadata.vaekit
    extra = '# %% tags=["check"]\ndouble(5)\n\n# %% tags=["exercise"]\nprint("new")\n'
    text = CHAPTER.replace("return scale * x", "return scale * x + 1")
    chapter.write_text(text.replace('# %% tags=["check"]\ndouble(5)\n', extra), encoding="utf-8")
    run = execute(chapter, "--standalone")
    assert run.returncode == 0, run.stderr
    assert outputs(chapter)[3:] == [["8.0"], [], ["11"], ["new\n"], ["last 8.0\n"]]
    assert (chapter.parent / "count.txt").read_text() == "x"  # the chapter's run was not repeated
    notebook = nbformat.read(chapter.with_suffix(".ipynb"), 4)
    after = notebook.metadata.vaekit
    assert {k for k in before if before[k] != after[k]} == {"standalone"}
    assert notebooks.hashes(notebook).items() <= after.items()


def test_a_change_of_the_run_stays_stale_after_a_standalone_run(chapter):
    chapter.write_text(CHAPTER.replace("sqrt(16)", "sqrt(25)").replace("double(5)", "double(6)"), encoding="utf-8")
    assert execute(chapter, "--standalone").returncode == 0
    notebook = nbformat.read(chapter.with_suffix(".ipynb"), 4)
    now = notebooks.hashes(notebook)
    assert notebook.metadata.vaekit["standalone"] == now["standalone"]
    assert notebook.metadata.vaekit["sources"] != now["sources"]


def test_an_exercise_that_leans_on_the_run_is_named_and_nothing_is_written(chapter):
    stored = chapter.with_suffix(".ipynb").read_bytes()
    chapter.write_text(CHAPTER.replace("double(5)", "double(long)"), encoding="utf-8")
    run = execute(chapter, "--standalone")
    assert run.returncode != 0
    assert "code cell 6 uses long, which the chapter's run makes in code cell 4" in run.stderr
    assert chapter.with_suffix(".ipynb").read_bytes() == stored


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("double(5)", "double(5)", []),
        ("double(5)", "[long for long in (1, 2)]", []),
        ("scale * x", "long * x", ["code cell 5 uses long, which the chapter's run makes in code cell 4"]),
        ("double(5)", "scale = 7", ["code cell 7 uses scale, which an exercise makes in code cell 6"]),
        ('"last", long', '"last", double(1)', ["code cell 7 uses double, which an exercise makes in code cell 5"]),
    ],
)
def test_what_ties_exercises_to_the_run_is_found(tmp_path, before, after, found):
    script = tmp_path / "00_probe.py"
    text = CHAPTER.replace('print("last", long)', 'print("last", long * scale)') if "scale = 7" in after else CHAPTER
    script.write_text(text.replace(before, after), encoding="utf-8")
    assert standalone.tangles(notebooks.read_script(script)) == found


def test_a_widgets_links_are_kept_and_those_of_a_replaced_output_are_not():
    def book(shown, state):
        cell = nbformat.v4.new_code_cell(
            outputs=[nbformat.v4.new_output("display_data", {"application/x+json": {"model_id": shown}})]
        )
        return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {standalone.WIDGETS: {"state": state}}})

    link = {"a1": {"layout": "IPY_MODEL_a2"}, "a2": {}, "a3": {"source": ["IPY_MODEL_a1", "index"]}}
    old, new = book("a1", link | {"b1": {"layout": "IPY_MODEL_b2"}, "b2": {}}), book("c1", {"c1": {}})
    old.cells += new.cells
    standalone._merge_widgets(old, new)
    assert set(old.metadata.widgets[standalone.WIDGETS]["state"]) == {"a1", "a2", "a3", "c1"}
