"""The student edition: no solution is left in it, and its self-checks tell the empty answer from the right one."""

import builtins
import re
import symtable

import nbformat
import pytest

from tools import notebooks, student

SCRIPTS = sorted(notebooks.FOLDER.glob("[0-9]*.py"))
chapters = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


def graded(notebook):
    return [cell for cell in notebook.cells if "nbgrader" in cell.metadata]


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """By chapter: the assignment and the release, as written."""
    folder = tmp_path_factory.mktemp("student")
    student.main(folder)
    files = {p.stem: [folder / kind / p.stem / f"{p.stem}.ipynb" for kind in ("source", "release")] for p in SCRIPTS}
    return {chapter: [nbformat.read(path, 4) for path in paths] for chapter, paths in files.items()}


@chapters
def test_an_assignment_follows_nbgraders_conventions(path, editions):
    for notebook in editions[path.stem]:
        nbformat.validate(notebook)
        cells = graded(notebook)
        ids = [cell.metadata.nbgrader.grade_id for cell in cells]
        assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z]+-\d+", name) for name in ids)
        for cell in cells:
            mark = cell.metadata.nbgrader
            kind = mark.grade_id.split("-")[0]
            expected = {"answer": (False, True, None), "check": (True, False, 1), "derivation": (True, True, 2)}[kind]
            assert (mark.grade, mark.solution, mark.get("points")) == expected
            assert (mark.schema_version, mark.locked, mark.task) == (3, not mark.solution, False)
            assert cell.cell_type == ("markdown" if kind == "derivation" else "code")
        exercises = re.findall(r"^### Exercise (\d+)", "\n".join(c.source for c in notebook.cells), re.MULTILINE)
        assert exercises == [str(k) for k in range(1, len(exercises) + 1)] and len(exercises) >= 4
        assert {name.split("-")[1] for name in ids} == set(exercises)  # an exercise without a mark would be lost
        assert any(name.startswith("derivation") for name in ids)
        assert not any(cell.get("outputs") for cell in notebook.cells)


@chapters
def test_no_solution_is_left_in_a_release(path, editions):
    assignment, release = editions[path.stem]
    assert len(release.cells) == len(assignment.cells)
    text = "\n".join(cell.source for cell in release.cells)
    assert "BEGIN SOLUTION" not in text and "<summary>Solution" not in text and "folded solution" not in text
    for with_, without in zip(graded(assignment), graded(release), strict=True):
        if not with_.metadata.nbgrader.solution:
            assert with_.source == without.source
        elif with_.cell_type == "markdown":
            assert without.source == student.TEXT_STUB and len(with_.source) > 200
        else:
            solution = re.search(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", with_.source, re.DOTALL)[1]
            lines = {line.strip() for line in solution.splitlines()} - {""}
            assert lines and not lines & {line.strip() for line in without.source.splitlines()}
            assert without.source.count("raise NotImplementedError()") == with_.source.count("### BEGIN SOLUTION")
            signature = [line for line in with_.source.splitlines() if line.startswith("def ")]
            assert signature == [line for line in without.source.splitlines() if line.startswith("def ")]


# --- the self-checks --------------------------------------------------------------------------------------------------


def names(source):
    """The global names that a cell binds, and those that it uses, functions' bodies included."""

    def tables(table):
        return [table, *(inner for child in table.get_children() for inner in tables(child))]

    cell, *inside = tables(symtable.symtable(source, "cell", "exec"))
    bound = {s.get_name() for s in cell.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used = {s.get_name() for s in cell.get_symbols() if s.is_referenced()}
    return bound, used | {s.get_name() for table in inside for s in table.get_symbols() if s.is_global()}


def needed(sources, wanted):
    """The cells among `sources` that the names in `wanted` depend on, in order."""
    keep = set()
    wanted = {(name, len(sources)) for name in wanted}
    while wanted:
        name, before = wanted.pop()
        if hasattr(builtins, name):
            continue
        where = next((k for k in reversed(range(before)) if name in names(sources[k])[0]), None)
        if where is not None and where not in keep:
            keep.add(where)
            wanted |= {(used, where) for used in names(sources[where])[1]}
    return [sources[k] for k in sorted(keep)]


@chapters
def test_a_check_passes_the_solution_and_tells_what_an_empty_answer_lacks(path, editions, capsys, monkeypatch):
    """Each check is run after the stub and after the solution, upon just the cells that it depends on."""
    monkeypatch.setenv("VAEKIT_PROFILE", "smoke")
    assignment, release = editions[path.stem]
    pairs = [p for p in zip(assignment.cells, release.cells, strict=True) if p[0].cell_type == "code"]
    pairs = [p for p in pairs if "setup" not in notebooks.tags(p[0])]
    kinds = [p[0].metadata.get("nbgrader", {}).get("grade_id", "").split("-")[0] for p in pairs]
    start = min(k for k, kind in enumerate(kinds) if kind)
    exercises = [p[0].source for p in pairs[start:]]
    before = [p[0].source for p in pairs[:start]]
    used = set().union(*(names(source)[1] for source in exercises)) - set().union(*(names(s)[0] for s in exercises))
    scope = {"__name__": "__main__"}
    for source in needed(before, used):
        exec(compile(source, path.stem, "exec"), scope)
    capsys.readouterr()
    checks = 0
    for k in range(start, len(pairs)):
        if kinds[k] != "check":
            exec(compile(pairs[k][0].source, path.stem, "exec"), scope)
            continue
        number = pairs[k][0].metadata.nbgrader.grade_id.split("-")[1]
        answer = next(j for j in reversed(range(k)) if kinds[j] == "answer")
        for cell, said in ((pairs[answer][1], "not filled in yet"), (pairs[answer][0], "correct")):
            exec(compile(cell.source, path.stem, "exec"), scope)
            exec(compile(pairs[k][0].source, path.stem, "exec"), scope)
            assert capsys.readouterr().out == f"Exercise {number}: {said}.\n"
        checks += 1
    assert checks >= 3
