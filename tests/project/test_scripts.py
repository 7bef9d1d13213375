"""The paired `.py` of a chapter runs on a machine without Jupyter, and finds what the notebook finds."""

import json
import os
import subprocess
import sys

from tools import notebooks

WITHOUT_JUPYTER = """
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"IPython", "ipywidgets", "ipykernel", "jupytext", "nbformat", "nbclient"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def results(folder, command, **environment):
    env = os.environ | {"VAEKIT_PROFILE": "smoke", "VAEKIT_RESULTS": str(folder), "MPLBACKEND": "Agg", **environment}
    run = subprocess.run(command, env=env, cwd=notebooks.FOLDER, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads((folder / "01_vae" / "smoke.json").read_text())["values"]


def test_a_plain_script_finds_what_the_notebook_finds(tmp_path):
    script = notebooks.FOLDER / "01_vae.py"
    plain = results(tmp_path / "plain", [sys.executable, "-c", WITHOUT_JUPYTER, str(script)])
    code = "import sys; from pathlib import Path; from tools.execute import execute;execute(Path(sys.argv[1]), 'smoke')"
    root = {"PYTHONPATH": os.pathsep.join([str(notebooks.ROOT), str(notebooks.ROOT / "tools")])}
    assert results(tmp_path / "notebook", [sys.executable, "-c", code, str(script)], **root) == plain
