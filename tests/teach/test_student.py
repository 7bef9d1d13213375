"""For a class: chapters without solutions, and graded tasks that tell a right answer from every common error."""

import math
import re

import nbformat
import pytest
import yaml

from tools import notebooks, student
from tools.course.assignment import CHAPTERS, EXPERIMENT, assignment, with_slip
from tools.course.draw import fill, the_seed
from tools.course.nbgrader import IMPORTS, hidden
from tools.course.points import default, kept

SEEDS = ("one", "two", "three")
chapters = pytest.mark.parametrize("chapter", CHAPTERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    student.main(folder, "one")
    return folder


# --- the chapters -----------------------------------------------------------------------------------------------------


@chapters
def test_no_solution_and_no_output_is_left_in_a_chapter(chapter, folder):
    notebook = nbformat.read(folder / "chapters" / f"{chapter}.ipynb", 4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "BEGIN SOLUTION" not in text and "<summary>Solution" not in text and "solutions are folded" not in text
    assert not any(cell.get("outputs") for cell in notebook.cells)
    script = notebooks.read_script(notebooks.FOLDER / f"{chapter}.py")
    for lesson in re.findall(r"^## \d+\. .*", "\n".join(c.source for c in script.cells), re.MULTILINE):
        assert lesson in text
    address = f"https://colab.research.google.com/github/vaekit/vaekit/blob/student/{chapter}.ipynb"
    assert address in "\n".join(c.source for c in script.cells) and address not in text
    assert len(re.findall(r"^\*\*\d\.\*\* ", notebook.cells[-1].source, re.MULTILINE)) >= 5  # its quiz
    solutions = [c.source for c in script.cells if c.cell_type == "code" and "solution" in notebooks.tags(c)]
    assert not any(source in text for source in solutions if "### BEGIN SOLUTION" not in source)
    stubs = [cell.source for cell in notebook.cells if {"solution", "exercise"} & set(notebooks.tags(cell))]
    assert stubs
    for cell in script.cells:
        for solution in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.DOTALL):
            lines = [line for line in solution.splitlines() if len(line.strip()) > 30]
            assert not any(line in stub for line in lines for stub in stubs)


# --- the graded tasks -------------------------------------------------------------------------------------------------


def score(found, code):
    """Points of an answer by the hidden tests, as nbgrader would give them."""
    scope, points = {"math": math}, 0
    exec(code, scope)
    for part in found.parts:
        try:
            exec(hidden(part, part.points), dict(scope))
            points += part.points
        except Exception:
            pass
    return points


@chapters
@pytest.mark.parametrize("seed", SEEDS)
def test_the_model_answer_has_all_points_and_each_common_error_loses_some(chapter, seed):
    found = assignment(chapter, seed)
    total = sum(part.points for part in found.parts)
    assert score(found, found.answer) == total and len(found.slips) >= 4
    for says in found.slips:
        assert score(found, with_slip(found, says)) < total, says


@chapters
def test_an_empty_answer_and_tricks_have_no_points(chapter):
    found = assignment(chapter, "one")
    names = re.findall(r"^def (\w+)", found.answer, re.MULTILINE)
    stub = "\n".join(f"def {name}(*a):\n    raise NotImplementedError()" for name in names)
    assert score(found, stub) == 0
    shadows = "\n".join(f"{n} = lambda *a: 0" for n in ("abs", "float", "hasattr", "isinstance", "range", "check"))
    constant = "\n".join(f"def {name}(*a): return 0.123456" for name in names)
    anything = "\n".join(f"def {name}(*a): return Yes()" for name in names)
    agreeable = """
class Yes:
    def __getitem__(self, k): return self
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __eq__(self, other): return True
    def __float__(self): return 0.0
    def item(self): return self
"""
    assert score(found, f"{shadows}\n{constant}") == 0
    assert score(found, f"{agreeable}\n{anything}") == 0


@chapters
def test_another_seed_asks_for_other_numbers(chapter):
    tests = [[test for part in assignment(chapter, seed).parts for test in part.tests] for seed in SEEDS]
    assert tests[0] != tests[1] != tests[2] != tests[0]
    assert tests[0] == [test for part in assignment(chapter, SEEDS[0]).parts for test in part.tests]


@chapters
def test_an_experiment_s_model_answer_runs_and_its_key_adds_up(chapter, capsys):
    """As it stands, but for a single epoch and two seeds; what it prints are numbers."""
    found = assignment(chapter, "one")
    small = re.sub(r"^epochs, seeds(.*) = \d+, \d+", r"epochs, seeds\1 = 1, 2", found.model, flags=re.MULTILINE)
    assert small != found.model
    exec(IMPORTS + "\n" + small, {})
    said = capsys.readouterr().out
    assert re.search(r"\d\.\d", said) and "nan" not in said
    assert sum(points for points, _ in found.key) == EXPERIMENT
    assert "@" not in found.task + found.experiment + found.expect + "".join(says for _, says in found.key)


# --- points and seeds -------------------------------------------------------------------------------------------------


def test_edited_points_are_kept_and_bad_ones_refused(tmp_path):
    path = tmp_path / "points.yml"
    assert kept(path, "one") == default("one")
    path.write_text(path.read_text().replace("bound: 3", "bound: 7"))
    assert kept(path, "one")["01_vae"]["bound"] == 7
    for change, says in (
        (lambda p: p["01_vae"].pop("gap"), "01_vae: expected points for bound, guess, gap, experiment"),
        (lambda p: p["01_vae"].update(gap=-1), "gap: expected a whole number from 0 on, got -1"),
        (lambda p: p["01_vae"].update(gap="many"), "got 'many'"),
        (lambda p: p.pop("07_together"), "07_together: expected points"),
    ):
        points = default("one")
        change(points)
        path.write_text(yaml.safe_dump(points))
        with pytest.raises(ValueError, match=says):
            kept(path, "one")


def test_a_seed_is_kept_and_a_strange_one_refused(tmp_path):
    path = tmp_path / "deep" / "seed.txt"
    drawn = the_seed(None, path)
    assert len(drawn) >= 8 and the_seed(None, path) == drawn
    assert the_seed("term-1", path) == "term-1" == the_seed(None, path)
    with pytest.raises(ValueError, match=r"SEED: expected letters, digits.*got 'a b'"):
        the_seed("a b", path)


def test_a_text_without_its_number_is_refused():
    assert fill("@a@ and @b@", {"a": 1, "b": 2.5}) == "1 and 2.5"
    with pytest.raises(ValueError, match="none for b"):
        fill("@a@ and @b@", {"a": 1})


def test_an_unknown_chapter_is_refused():
    with pytest.raises(ValueError, match=r"chapter: expected one of 01_vae.*got '99_none'"):
        assignment("99_none", "one")
