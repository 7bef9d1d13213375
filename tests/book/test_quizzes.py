"""The quizzes: well-formed, fair, and refused with a word where they are not."""

import importlib.util

import pytest
import yaml

from tools.notebooks import FOLDER, ROOT

spec = importlib.util.spec_from_file_location("quiz", ROOT / "book" / "_ext" / "quiz.py")
quiz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quiz)
QUIZZES = {script.stem: quiz.FOLDER / f"{script.stem}.yml" for script in sorted(FOLDER.glob("[0-9]*.py"))}
GOOD = [{"question": "Q?", "options": [{"text": "a", "reason": "A", "right": True}, {"text": "b", "reason": "B"}]}]


@pytest.mark.parametrize("chapter", QUIZZES)
def test_a_quiz_cannot_be_passed_by_its_looks(chapter):
    questions = quiz.load(QUIZZES[chapter])
    assert len(questions) >= 5 and all(len(question["options"]) == 4 for question in questions)
    places = [[option.get("right", False) for option in question["options"]].index(True) for question in questions]
    assert max(map(places.count, places)) <= len(places) / 2  # always the second would do
    lengths = [[len(option["text"]) for option in question["options"]] for question in questions]
    longest = [row.index(max(row)) == place for row, place in zip(lengths, places, strict=True)]
    assert sum(longest) <= len(questions) / 2  # always the longest would do
    for number, (row, place) in enumerate(zip(lengths, places, strict=True), 1):
        others = [length for k, length in enumerate(row) if k != place]
        far = max(others) - min(others) > 8 or max(row) > 12  # among numbers length says nothing
        assert not far or 0.55 * min(others) <= row[place] <= 1.15 * max(others), f"question {number}: told by length"


@pytest.mark.parametrize("chapter", [chapter for chapter in QUIZZES if chapter[:2] != "01"])
def test_a_quiz_looks_back(chapter):
    about = [str(question["about"]) for question in quiz.load(QUIZZES[chapter]) if "about" in question]
    assert about and all(int(section[0]) < int(chapter[:2]) for section in about)
    for section in about:
        (script,) = FOLDER.glob(f"0{section[0]}_*.py")
        assert f"\n# ## {section.split('§')[1]}. " in script.read_text(encoding="utf-8")


def test_every_quiz_belongs_to_a_chapter():
    assert {path.stem for path in quiz.FOLDER.glob("*.yml")} == set(QUIZZES)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q: q[0].pop("question"), "question 1: expected 'question' and 'options'"),
        (lambda q: q[0]["options"][1].pop("reason"), "'text' and 'reason' of each option"),
        (lambda q: q[0]["options"][1].update(reason=""), "'text' and 'reason' of each option"),
        (lambda q: q[0]["options"][1].update(rigth=True), "'text' and 'reason' of each option"),
        (lambda q: q[0]["options"][1].update(text="a"), "all different"),
        (lambda q: q[0]["options"][1].update(right=True), "one option to be right"),
        (lambda q: q[0]["options"][0].pop("right"), "one option to be right"),
        (lambda q: q.clear(), "a list of questions"),
        (lambda q: q[0].update(about="chapter 1"), "'about' such as '1 §3', got 'chapter 1'"),
    ],
)
def test_a_bad_quiz_is_refused(tmp_path, change, says):
    path = tmp_path / "00_probe.yml"
    path.write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    assert quiz.load(path) == GOOD
    questions = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(questions)
    path.write_text(yaml.safe_dump(questions), encoding="utf-8")
    with pytest.raises(ValueError, match=says) as error:
        quiz.load(path)
    assert "00_probe.yml" in str(error.value)


def test_verdict_and_reason_stand_inside_the_fold():
    text = quiz.markdown(GOOD)
    first, second = text.split(":::{dropdown} ")[1:]
    assert (
        first.startswith("A · a\n") and "✓ **Right.** A\n:::" in first and "Right" not in text.split(":::{dropdown}")[0]
    )
    assert second.startswith("B · b\n") and "✗ **No.** B\n:::" in second
