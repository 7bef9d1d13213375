"""What can be said of Colab without an environment of its own; `make colab` does the rest."""

import tomllib

from packaging.requirements import Requirement

from tools import colab
from tools.notebooks import ROOT


def test_installing_the_library_changes_nothing_that_colab_ships():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {r.name: r for r in map(Requirement, project["dependencies"])}
    notebook = {r.name: r for r in map(Requirement, project["optional-dependencies"]["notebook"])}
    shipped = {r.name: str(r.specifier).removeprefix("==") for r in map(Requirement, colab.pins())}
    added = {"torch", "filelock", "safetensors"}  # filelock comes with torch, and safetensors needs nothing else
    assert shipped["ipywidgets"] == "7.7.1" and set(wanted) - added <= set(shipped)
    for name, version in shipped.items():
        for requirement in (wanted.get(name), notebook.get(name) if name == "ipywidgets" else None):
            assert requirement is None or version in requirement.specifier, f"pip would replace {name} {version}"
    assert all(v in wanted["torch"].specifier for v in ("2.6.0", "2.11.0"))


def test_what_an_installation_added_and_changed_is_told_apart():
    before = "numpy==2.0.2\ntorch==2.11.0\ntqdm==4.67.1"
    after = "numpy==2.1.0\ntorch==2.11.0\nvaekit @ file:///x"
    added, changed = colab.changes(before, after)
    assert added == ["vaekit @ file:///x"]
    assert changed == ["numpy==2.0.2 -> numpy==2.1.0", "tqdm==4.67.1 -> gone"]
    assert colab.changes(before, before) == ([], [])
