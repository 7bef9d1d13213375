"""Every exercise of the book, answered rightly in several ways and wrongly in many."""

import importlib
import io
import re
import signal
import sys
from contextlib import redirect_stdout
from functools import cache

import pytest
import torch

from tools import notebooks, standalone
from vaekit.notebook import attempts, references
from vaekit.notebook.exercises import check, hint

CHAPTERS = [str(k) for k in range(1, references.CHAPTERS + 1)]
TABLES = {chapter: importlib.import_module(f"tests.notebook.answers.chapter{chapter}") for chapter in CHAPTERS}
EXERCISES = [name for chapter in CHAPTERS for name in references.names(chapter)]
SETTLED = [name for name in EXERCISES if name.split(".")[1].isdigit()]
every_exercise = pytest.mark.parametrize("name", EXERCISES)


@cache
def chapter_of(chapter):
    """A chapter's cells, and the names that its set-up and imports make."""
    script = next(notebooks.FOLDER.glob(f"{int(chapter):02}_*.py"))
    notebook = notebooks.read_script(script)
    made = {"__name__": "__main__"}
    for cell in standalone.foundation(notebook):
        if "setup" not in notebooks.tags(cell):
            exec(compile(cell.source, f"chapter {chapter}", "exec"), made)
    return notebook.cells, made


def cell_with(name, tag, text):
    cells = chapter_of(name.split(".")[0])[0]
    return next(c for c in cells if c.cell_type == "code" and tag in notebooks.tags(c) and text in c.source)


def stub_of(name):
    """The function's name, and the source of its cell, which for a warm-up has the check as well."""
    asked = cell_with(name, "check" if name in SETTLED else "warm-up", f'check("{name}"').source
    answer = re.search(rf'check\("{name}", (\w+)\)', asked)[1]
    return answer, cell_with(name, "exercise", f"def {answer}(").source if name in SETTLED else asked


def written(name, answer):
    """The function that an answer stands for: a change of the first right one, a name, or code."""
    made = dict(chapter_of(name.split(".")[0])[1])
    base = TABLES[name.split(".")[0]].RIGHT[name][0]
    solution = f"solution_{name.replace('.', '_')}"
    source = cell_with(name, "solution", f"def {solution}(").source if base == solution else f"answer = {base}"
    if isinstance(answer, tuple):
        assert source.count(answer[0]) >= 1, f"{answer[0]!r} is not in the first right answer"
        source = source.replace(answer[0], answer[1])
    elif answer != base:
        source = f"answer = {answer}"
    exec(compile(source, f"an answer to {name}", "exec"), made)
    return made[solution if source.startswith("# @title") else "answer"]


def said(name, answer):
    """What the check says, after the exercise's name."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        verdict = check(name, answer)
    line = printed.getvalue()
    assert line.count("\n") == 1 and line.startswith(f"{references.title(name)}: ")
    assert bool(verdict) == (": correct." in line)
    return line.split(": ", 1)[1].strip()


@every_exercise
def test_right_formulations_pass(name):
    right = TABLES[name.split(".")[0]].RIGHT[name]
    assert len(right) >= 3
    for answer in right:
        assert said(name, written(name, answer)).startswith("correct. "), answer


@every_exercise
def test_wrong_answers_fail_and_are_told_why(name):
    wrong = TABLES[name.split(".")[0]].WRONG[name]
    assert len({answer[:2] for answer in wrong}) >= 10
    told = {answer: said(name, written(name, answer[:2])) for answer in wrong}
    assert {a: s for a, s in told.items() if not s.startswith("not right yet") or a[2] not in s} == {}


@every_exercise
def test_every_mistake_that_is_expected_is_recognised_as_that(name):
    mistakes = references.find(name).mistakes
    assert {m: s for m, f in mistakes.items() if m.rstrip(".?") not in (s := said(name, f))} == {}


def endless(*arguments):
    while True:
        pass


def endless_and_deaf(*arguments):
    while True:
        try:  # noqa: SIM105
            endless()
        except Exception:
            pass


@pytest.mark.parametrize("name", SETTLED)
def test_answers_that_do_not_answer(name):
    assert said(name, None) == "not filled in yet."
    assert said(name, lambda *a: sys.exit()).startswith("not right yet: your function ends the program")
    assert "got a dictionary" in said(name, lambda *a: {})
    assert "complex numbers" in said(name, lambda *a: torch.ones(2) * 1j)
    with pytest.raises(KeyboardInterrupt):
        said(name, interrupted)


def interrupted(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("answer", [endless, endless_and_deaf])
@pytest.mark.parametrize("name", ["1.1", "1.4"])
def test_an_endless_loop_ends(name, answer, monkeypatch):
    monkeypatch.setattr(attempts.Answer.__init__, "__defaults__", (0.2,))
    expected = f"not right yet: {answer.__name__} had not returned after 0.2 seconds of computing"
    assert said(name, answer).startswith(expected)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_a_module_that_is_being_imported_is_not_cut_in_two(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("x = sum(i % 7 for i in range(8_000_000))")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(attempts._TimeIsUp), attempts.time_limit(0.05):
        import slow_to_import

        endless()
    assert slow_to_import.x > 0 and sys.modules["slow_to_import"] is slow_to_import


# --- as they stand in the chapters ----------------------------------------------------------------------------------


@every_exercise
def test_a_stub_is_told_to_be_empty_after_the_imports_alone(name):
    answer, source = stub_of(name)
    made = dict(chapter_of(name.split(".")[0])[1])
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(source, made)
    assert said(name, made[answer]).startswith("not filled in yet")
    assert len(source.splitlines()) <= 40 and max(map(len, source.splitlines())) <= 88


@pytest.mark.parametrize("name", SETTLED)
def test_an_exercise_hides_its_solution_and_shows_no_reference(name):
    cells, _ = chapter_of(name.split(".")[0])
    order = [c for c in cells if c.cell_type == "code" and {"exercise", "check", "solution"} & set(notebooks.tags(c))]
    stub = next(k for k, c in enumerate(order) if c.source == stub_of(name)[1])
    assert [set(notebooks.tags(c)) & {"exercise", "check", "solution"} for c in order[stub : stub + 3]] == [
        {"exercise"}, {"check"}, {"solution"},
    ]  # fmt: skip
    check_cell, solution = order[stub + 1], order[stub + 2]
    assert check_cell.source == f'check("{name}", {stub_of(name)[0]})\n# hint("{name}")'
    assert "hide-input" in notebooks.tags(solution) and solution.metadata["jupyter"] == {"source_hidden": True}
    assert solution.metadata["cellView"] == "form" and solution.source.startswith(
        '# @title Solution { display-mode: "form" }'
    )
    assert len(solution.source.splitlines()) <= 40


@every_exercise
def test_hints_come_in_three_steps(name, capsys):
    assert list(references.hints(name)) == ["idea", "first line", "shapes"]
    for _ in range(4):
        hint(name)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.startswith(references.title(name)) for line in lines)
    assert lines[:3] == lines[3:]


def test_progress_counts_what_has_passed():
    from vaekit.notebook.exercises import _done

    _done.clear()
    total = len(references.names("1"))
    assert said("1.b", written("1.b", TABLES["1"].RIGHT["1.b"][0])) == f"correct. 1 of {total} done in this chapter."
    assert said("1.1", written("1.1", "solution_1_1")) == f"correct. 2 of {total} done in this chapter."
    assert "done" not in said("1.1", None)
    assert said("1.b", written("1.b", TABLES["1"].RIGHT["1.b"][1])).startswith("correct. 1 of")
    _done.clear()


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"expected an exercise of the book, got '1.9'; there are 1.a, 1.b, 1.1"):
        check("1.9", None)
    with pytest.raises(ValueError, match="got 'Exercise 1'; there are chapters 1 to 7"):
        hint("Exercise 1")


@pytest.mark.parametrize("name", ["1.4", "2.4", "5.4"])
def test_what_a_chapter_tells_to_train_with_an_answer_runs(name):
    cells, made = chapter_of(name.split(".")[0])
    answer = stub_of(name)[0]
    prose = (cell.source for cell in cells if cell.cell_type == "markdown")
    fenced = [re.search(r"```python\n(.*?)```", text, re.DOTALL) for text in prose]
    code = next(found[1] for found in fenced if found and re.search(rf"\b{answer}\b", found[1]))
    changes = {r"epochs=\d+": "epochs=1, progress=False", '"mnist"': '"digits"', r"^fit\(": "history = fit("}
    for old, new in {**changes, r"\bimages, (?=epochs|binarise)": "images[:200], "}.items():
        code = re.sub(old, new, code, flags=re.MULTILINE)
    made = made | {answer: written(name, TABLES[name.split(".")[0]].RIGHT[name][0])}
    exec(compile(code, f"training in {name}", "exec"), made)
    assert len(made["history"].train) == 1 and made["history"].train[0] < 0
