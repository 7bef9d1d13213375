"""The workflows ask for what is there: targets, modules, files, chapters, and the versions that the library allows."""

import importlib.util
import re
import tomllib

import pytest
import yaml

from tools.notebooks import FOLDER, ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
by_name = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path):
    """A workflow; YAML reads its key `on` as a truth."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content.pop(True), content


def commands(path):
    return [step["run"] for job in read(path)[1]["jobs"].values() for step in job["steps"] if "run" in step]


def test_there_are_workflows():
    assert {path.stem for path in WORKFLOWS} >= {"tests", "book", "devices", "versions"}


@by_name
def test_what_starts_it_and_what_it_needs_is_there(path):
    started, content = read(path)
    for pattern in (started.get("push") or {}).get("paths", []):
        assert any(ROOT.glob(pattern)), f"{pattern} is no file"
    for job in content["jobs"].values():
        needed = job.get("needs", [])
        assert ({needed} if isinstance(needed, str) else set(needed)) <= content["jobs"].keys()
        assert all(re.fullmatch(r"actions/[a-z-]+@v[0-9]+", step["uses"]) for step in job["steps"] if "uses" in step)


@by_name
def test_each_command_is_one_that_there_is(path):
    for command in commands(path):
        assert set(re.findall(r"\bmake ([a-z]+)", command)) <= TARGETS
        for module in re.findall(r"python -m ([a-z_.]+)", command):
            assert importlib.util.find_spec(module) is not None
        for name in re.findall(r"[\s:](tests/[\w/*.]+|constraints[\w-]*\.txt|\.ci/\w+)", command):
            assert any(ROOT.glob(name)), f"{name} is no file"


def test_every_chapter_runs_on_the_pretended_gpu():
    _, content = read(ROOT / ".github" / "workflows" / "devices.yml")
    matrix = content["jobs"]["chapters"]["strategy"]["matrix"]
    assert matrix["chapter"] == sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def test_the_oldest_versions_are_those_that_the_library_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in pins if line and not line.startswith("#"))
    for requirement in project["dependencies"]:
        name, least = requirement.split(">=")
        pinned = oldest[name].split(".")
        assert pinned[: len(least.split("."))] == least.split("."), f"{name}: {oldest[name]} is not {least}"
    _, content = read(ROOT / ".github" / "workflows" / "versions.yml")
    matrix = content["jobs"]["library"]["strategy"]["matrix"]["include"]
    assert matrix[0]["python"] == project["requires-python"].removeprefix(">=")
