"""The repository agrees with itself: notebooks with their scripts and outputs, environments, addresses, API pages."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_output

from tools import address, notebooks

ROOT = notebooks.ROOT
LIBRARY = ROOT / "vaekit"
FOLDERS = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))
SCRIPTS = sorted(notebooks.FOLDER.glob("[0-9]*.py"))
CHAPTERS = sorted(notebooks.FOLDER.glob("[0-9]*.ipynb"))
by_name = {"ids": lambda path: path.name}

SCRIPT = '''# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A title

# %% tags=["setup"]
a = 1

# %%
print(a + 1)
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "00_probe.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


# --- the notebooks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCRIPTS, **by_name)
def test_a_script_and_its_notebook_say_the_same(path):
    assert notebooks.differences(path) == [], "make sync"


@pytest.mark.parametrize("path", CHAPTERS, **by_name)
def test_a_notebook_has_its_script(path):
    assert path.with_suffix(".py") in SCRIPTS


@pytest.mark.parametrize("path", CHAPTERS, **by_name)
def test_stored_outputs_are_of_the_code_that_stands_there(path):
    notebook = nbformat.read(path, 4)
    stored, now = notebook.metadata.get("vaekit", {}), notebooks.hashes(notebook)
    assert stored.get("sources") == now["sources"], "make experiments"
    assert stored.get("standalone") == now["standalone"], "make standalone"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", CHAPTERS, **by_name)
def test_every_stored_widget_has_its_state(path):
    notebook = nbformat.read(path, 4)
    kind = "application/vnd.jupyter.widget-view+json"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = {output.data[kind]["model_id"] for output in outputs if kind in output.get("data", {})}
    saved = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    assert shown <= set(saved)


@pytest.mark.parametrize("path", CHAPTERS, **by_name)
def test_stored_outputs_name_no_folder_of_the_machine_and_are_small(path):
    outputs = [cell.get("outputs", []) for cell in nbformat.read(path, 4).cells]
    assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|content)/[\w.-]+", json.dumps(outputs)) == []
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("path", SCRIPTS, **by_name)
def test_the_first_code_cell_installs_the_library_on_colab(path):
    cell = next(cell for cell in notebooks.read_script(path).cells if cell.cell_type == "code")
    assert cell.source.splitlines() == [
        "import importlib.util",
        "",
        'if importlib.util.find_spec("vaekit") is None:  # on Colab',
        '    get_ipython().run_line_magic("pip", "install -q git+https://github.com/'
        f'{address.current()}")  # noqa: F821',
    ]
    assert "setup" in notebooks.tags(cell)


def test_a_difference_between_a_pair_is_found(script):
    assert notebooks.differences(script) == ["00_probe.py has no .ipynb"]
    assert notebooks.synchronise(script)
    assert notebooks.differences(script) == []
    for before, after in [("a + 1", "a + 2"), ('tags=["setup"]', 'tags=["check"]'), ("# # A title", "# # Title")]:
        script.write_text(SCRIPT.replace(before, after), encoding="utf-8")
        assert len(notebooks.differences(script)) == 1, before
    script.write_text(SCRIPT + "\n# %%\na\n", encoding="utf-8")
    assert notebooks.differences(script) == ["4 cells against 3"]


def test_synchronising_keeps_the_outputs_of_unchanged_cells_alone(script):
    notebooks.synchronise(script)
    path = script.with_suffix(".ipynb")
    notebook = nbformat.read(path, 4)
    notebook.metadata["vaekit"] = notebooks.hashes(notebook)
    for count, cell in enumerate(notebook.cells[1:], start=1):
        cell.outputs, cell.execution_count = [new_output("stream", text=f"{count}\n")], count
    nbformat.write(notebook, path)
    notebooks.synchronise(script)
    assert not notebooks.synchronise(script)  # a second time there is nothing to do

    script.write_text(SCRIPT.replace("A title", "Another").replace("a + 1", "a + 2"), encoding="utf-8")
    assert notebooks.synchronise(script)
    after = nbformat.read(path, 4)
    assert [cell.source for cell in after.cells] == ["# Another", "a = 1", "print(a + 2)"]
    assert [len(cell.outputs) for cell in after.cells[1:]] == [1, 0]
    assert after.metadata["vaekit"]["sources"] != notebooks.hashes(after)["sources"]  # stale, and known to be


def test_prose_and_the_set_up_cell_do_not_make_outputs_stale_and_code_does(script):
    before = notebooks.hashes(notebooks.read_script(script))
    script.write_text(SCRIPT.replace("A title", "Another").replace("a = 1", "a = 1.0"), encoding="utf-8")
    assert notebooks.hashes(notebooks.read_script(script)) == before
    script.write_text(SCRIPT.replace("a + 1", "a + 2"), encoding="utf-8")
    assert notebooks.hashes(notebooks.read_script(script)) != before


def execute(script, profile="smoke"):
    """Run `tools/execute.py` on a script that lies elsewhere."""
    code = (
        "import pathlib\nfrom tools import execute\n"
        f"folder = pathlib.Path({str(script.parent)!r})\nexecute.FOLDER = execute.ROOT = folder\n"
        f"execute.main({script.stem!r}, {profile!r})"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_executing_stores_outputs_and_where_they_are_from(script):
    text = SCRIPT + f"print({str(script.parent / 'inside')!r})\n"
    script.write_text(text, encoding="utf-8")
    run = execute(script)
    assert run.returncode == 0, run.stderr
    notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
    assert notebook.cells[-1].outputs[0].text == "2\ninside\n"  # the folder is stripped
    origin = notebook.metadata["vaekit"]
    assert set(origin) == {"profile", "device", "date", "commit", "seconds", "sources", "standalone"}
    assert origin["profile"] == "smoke" and notebooks.hashes(notebook).items() <= origin.items()
    assert all("execution" not in cell.metadata for cell in notebook.cells)  # no timings: they differ at every run

    stored = script.with_suffix(".ipynb").read_bytes()
    script.write_text(SCRIPT.replace("a + 1", "1 / 0"), encoding="utf-8")
    run = execute(script)
    assert run.returncode != 0 and "ZeroDivisionError" in run.stderr
    assert script.with_suffix(".ipynb").read_bytes() == stored  # a run that stops leaves what was there


def test_a_lesser_profile_does_not_replace_the_outputs_of_a_better_one(script):
    notebook = notebooks.read_script(script)
    notebook.metadata["vaekit"] = {"profile": "cpu"} | notebooks.hashes(notebook)
    notebooks.write(notebook, script.with_suffix(".ipynb"))
    stored = script.with_suffix(".ipynb").read_bytes()
    run = execute(script)
    assert run.returncode == 0, run.stderr
    assert script.with_suffix(".ipynb").read_bytes() == stored
    assert (script.parent / "_build" / "notebooks" / "smoke" / "00_probe.ipynb").is_file()


# --- environments, addresses, pages ----------------------------------------------------------------------------------


def test_the_conda_environment_has_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["notebook"]
    wanted = [w.replace("torch>", "pytorch>").replace("matplotlib>", "matplotlib-base>") for w in wanted]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    extra = {"jupyterlab", "pip", f"python{project['requires-python']}"}
    assert {entry for entry in conda if isinstance(entry, str)} == set(wanted) | extra


def test_the_pinned_versions_are_ones_that_pyproject_allows():
    packaging = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {
        r.name.lower(): r.specifier
        for group in (project["dependencies"], *project["optional-dependencies"].values())
        for r in map(packaging.Requirement, group)
    }
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert version in allowed.get(name.lower(), packaging.Requirement("x").specifier), line


def test_the_public_address_is_the_same_everywhere():
    owner, name = address.current().split("/")
    found = re.compile(rf"(?:github\.com/|/github/|/gh/)([\w.-]+)/{re.escape(name)}(?![\w-])")
    others = {
        f"{path.relative_to(ROOT)}: {match}"
        for path in address.text_files()
        for match in found.findall(path.read_text(encoding="utf-8"))
        if match != owner
    }
    assert others == set()


def test_one_command_points_everything_at_a_fork(tmp_path, monkeypatch):
    old, new = "someone/book", "else-where/my.fork"
    text = (
        f"https://github.com/{old}/issues https://colab.research.google.com/github/{old}/blob/main/x.ipynb "
        f"git+https://github.com/{old} https://mybinder.org/v2/gh/{old}/main https://someone.github.io/book/page "
    )
    kept = "https://github.com/someone/bookshelf https://github.com/another/book"
    (tmp_path / "a.md").write_text(text + kept, encoding="utf-8")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\0github.com/someone/book")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(address, "ROOT", tmp_path)
    assert address.rewrite(old, new) == 1
    after = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert after.endswith(kept) and old not in after.removesuffix(kept)
    assert after.count(new) == 4 and "https://else-where.github.io/my.fork/page" in after
    assert b"someone/book" in (tmp_path / "b.png").read_bytes()


INTERNAL = {  # what no reader calls by name
    "checks", "regret.evaluation", "regret.frozen", "regret.noise", "regret.per_image", "training.probes",
    "training.runs", "training.ascent", "training.asked",
    "notebook.diagnosis", "notebook.sources", "notebook.digest", "notebook.encoding", "notebook.turns",
    "influence.asked", "influence.factors", "influence.gradients", "influence.paths", "influence.run",
    "influence.scored", "datasets.dataset", "datasets.downloads", "datasets.outlines", "datasets.procedural",
    "datasets.readers", "datasets.rooms", "datasets.sources", "metrics.codes", "metrics.detection",
    "notebook.attempts", "notebook.functions", "notebook.objectives",
    "notebook.live.consistency", "notebook.live.flow", "notebook.live.influence", "notebook.live.jacobian",
    "notebook.live.latent", "notebook.live.lights", "notebook.live.regret", "notebook.live.slider",
}  # fmt: skip


def test_every_module_of_the_library_has_its_place_in_the_api_pages():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md"))
    shown = set(re.findall(r"automodule:: vaekit\.(\S+)", pages))
    modules = {".".join(p.relative_to(LIBRARY).with_suffix("").parts) for p in LIBRARY.rglob("*.py")}
    public = {name for name in modules if "__init__" not in name and ".references." not in name}
    assert public - INTERNAL <= shown
    assert modules >= INTERNAL


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_hands_on_stands_in_the_table_of_its_page(folder):
    page = (ROOT / "book" / "api" / f"{folder}.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^   ~vaekit\.\S+\.(\w+)$", page, re.MULTILINE))
    package = importlib.import_module(f"vaekit.{folder}")
    public = {name for name in package.__all__ if inspect.isroutine(getattr(package, name))}
    public |= {name for name in package.__all__ if inspect.isclass(getattr(package, name))}
    assert public <= table


# --- the library's layers --------------------------------------------------------------------------------------------

CHAPTER_FOLDERS = ("hamiltonian", "regret", "jacobian", "consistency", "influence")
LAYERS = [  # each may import what stands above it in this list, and itself
    {"checks"},
    {"likelihoods", "networks", "training", "datasets"},
    {"model"},
    {"bounds", "metrics"},
    set(CHAPTER_FOLDERS),
    {"notebook"},
]


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports_run_downwards_only(path):
    room = path.relative_to(LIBRARY).with_suffix("").parts[0]
    if room == "__init__":
        return
    level = next(i for i, layer in enumerate(LAYERS) if room in layer)
    below = set().union(*LAYERS[:level]) | {room} | (LAYERS[level] if room in LAYERS[1] else set())
    if room in {"bounds", "metrics"}:
        below |= LAYERS[3]
    assert imported_rooms(path.read_text(encoding="utf-8")) <= below


def imported_rooms(source):
    """The rooms of `vaekit` that a module imports from, wherever in its text the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vaekit.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "vaekit":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaekit."):
            found.add(node.module.split(".")[1])
    return found


def test_an_import_is_found_wherever_it_stands():
    source = "import vaekit.regret.score\nfrom vaekit import checks, VAE\ndef f():\n    from vaekit.notebook import x"
    assert imported_rooms(source) == {"regret", "checks", "VAE", "notebook"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_room_is_found_by_its_name(folder):
    assert (ROOT / "tests" / folder).is_dir()
    assert (ROOT / "book" / "api" / f"{folder}.md").is_file()
    opening = importlib.import_module(f"vaekit.{folder}").__doc__
    if folder in CHAPTER_FOLDERS:
        number = CHAPTER_FOLDERS.index(folder) + 2
        assert opening.startswith(f"Chapter {number}:") and "arxiv.org/abs/" in opening and "Read first" in opening
        assert any(folder in path.stem for path in CHAPTERS if path.name.startswith(f"{number:02}"))


def test_nothing_refers_to_the_machine_it_was_written_on():
    inside = re.compile(r"(?<![\w.:/$}])/(?:home|root|work|Users)/[\w.-]+")
    found = {
        f"{path.relative_to(ROOT)}: {match}"
        for path in address.text_files()
        if path.suffix != ".ipynb" and path != Path(__file__)
        for match in inside.findall(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_stored_picture_went_through_show_with_its_caption(path):
    """A figure that a cell leaves open is drawn below it by itself, without words, and again where it is shown."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    bare = [c.source[-60:] for c in cells for o in c.outputs if any(k.startswith("image/") for k in o.get("data", {}))]
    assert bare == []
