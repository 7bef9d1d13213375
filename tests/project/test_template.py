"""The template of a chapter passes the tests that chapters have to pass."""

import os
import shutil
import subprocess
import sys

import pytest

from tools import new_chapter
from tools.notebooks import ROOT

NAME = "08_a_probe"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of what belongs to the project, with a chapter made from the template and executed."""
    root = tmp_path_factory.mktemp("project") / "copy"
    parts = ("book", "notebooks", "tests", "tools", "vaekit")
    for part in parts:
        skip = shutil.ignore_patterns("vendor", "__pycache__", ".ipynb_checkpoints", "results")
        shutil.copytree(ROOT / part, root / part, ignore=skip)
    for file in ("pyproject.toml", "conftest.py", "_config.yml", "environment.yml", "constraints.txt"):
        shutil.copy(ROOT / file, root)
    run(root, "-m", "tools.new_chapter", NAME, "A probe: what the template is worth")
    run(root, "-m", "tools.execute", NAME, "smoke")
    return root


def run(root, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(root), "VAEKIT_PROFILE": "smoke"}
    environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_")}
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_chapter_from_the_template_passes_what_chapters_must_pass(repository):
    topics = ("project/test_project", "book/test_quizzes")
    tests = [f"tests/{topic}.py" for topic in topics]
    out = run(repository, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", NAME, "-m", "not browser", *tests)
    assert int(out.split(" passed")[0].split()[-1]) >= 7 and "failed" not in out and "skipped" not in out
    assert "A probe: what the template is worth" in (repository / "notebooks" / f"{NAME}.ipynb").read_text()


@pytest.mark.parametrize(
    ("name", "title", "says"),
    [
        ("my_method", "T", "expected a number and a name"),
        ("8_x", "T", "expected a number and a name"),
        ("01_other", "T", "the number 01 is taken by 01_vae.py"),
        ("08_x", " ", "expected some words"),
    ],
)
def test_a_bad_name_is_refused(name, title, says):
    with pytest.raises(ValueError, match=says):
        new_chapter.create(name, title)
