"""The graded course: nbgrader is run as a lecturer would run it, upon right, wrong and empty submissions."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools.course.assignment import CHAPTERS, assignment, with_slip
from tools.course.nbgrader import write_course
from tools.course.points import kept

pytest.importorskip("nbgrader", reason="the extra 'teach' is not installed")
SEED = "a-test"
WEEKLY = "VAEKIT_WEEKLY" in os.environ
CHOSEN = CHAPTERS if WEEKLY else CHAPTERS[:1]  # all of them take minutes


def run(folder, *command):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nbgrader calls alembic by name
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command],
        cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course that was written in one place and is used in another, with points that somebody edited."""
    written, used = tmp_path_factory.mktemp("written") / "course", tmp_path_factory.mktemp("used") / "course"
    write_course(written, SEED)
    points = (written / "points.yml").read_text()
    (written / "points.yml").write_text(points.replace("01_vae: {bound: 3", "01_vae: {bound: 5"))
    write_course(written, SEED)
    shutil.move(written, used)
    return used


def submit(course, chapter, student, answer):
    """What a student hands in: the released notebooks, with an answer or as they are."""
    released, handed_in = course / "release" / chapter, course / "submitted" / student / chapter
    shutil.copytree(released, handed_in)
    if answer:
        notebook = nbformat.read(released / "task.ipynb", 4)
        (cell,) = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")]
        cell.source = answer
        nbformat.write(notebook, handed_in / "task.ipynb")
        notebook = nbformat.read(released / "experiment.ipynb", 4)
        notebook.cells[-2].source = "raise SystemExit('this must not be run again')"
        notebook.cells[-2].outputs = [nbformat.v4.new_output("stream", text="NLL, weighted minus plain: seen\n")]
        nbformat.write(notebook, handed_in / "experiment.ipynb")


@pytest.mark.parametrize("chapter", CHOSEN)
def test_nbgrader_grades_right_wrong_and_empty_submissions(chapter, course):
    found, points = assignment(chapter, SEED), kept(course / "points.yml", SEED)[chapter]
    if chapter == "01_vae":
        assert points["bound"] == 5  # what was edited is in force
    run(course, "generate_assignment", chapter)
    released = "".join((course / "release" / chapter / name).read_text() for name in ("task.ipynb", "experiment.ipynb"))
    for secret in ("HIDDEN", "MARK SCHEME", "_off", "BEGIN SOLUTION", *(part.tests[0].call for part in found.parts)):
        assert secret not in released, secret
    for points_for, says in found.key:
        assert says not in released, (points_for, says)
    slip = next(iter(found.slips))
    students = {"right": found.answer, "wrong": with_slip(found, slip), "empty": None}
    for student, answer in students.items():
        submit(course, chapter, student, answer)
    run(course, "autograde", chapter)
    run(course, "generate_feedback", chapter)
    run(course, "export")
    with (course / "grades.csv").open() as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file) if row["assignment"] == chapter}
    tested = sum(points.values()) - points["experiment"]
    assert {float(row["max_score"]) for row in rows.values()} == {tested + points["experiment"]}
    score = {student: float(row["score"]) for student, row in rows.items()}
    assert score["right"] == tested and score["empty"] == 0, score
    assert 0 <= score["wrong"] < tested, score
    assert (course / "feedback" / "wrong" / chapter / "task.html").is_file()
    shown = (course / "feedback" / "right" / chapter / "experiment.html").read_text()
    assert "weighted minus plain: seen" in shown  # handed-in outputs are there to be marked


def test_everything_stays_in_the_folder(course):
    """No absolute path in the configuration: a copied course does not write into the one it was copied from."""
    text = (course / "nbgrader_config.py").read_text()
    assert "/" not in text.split("get_config")[1] and (course / "gradebook.db").is_file()
