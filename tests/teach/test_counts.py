"""How many effects chapter 7 looks at is one number, from its stored results, wherever it is spoken of."""

import math

import pytest
import yaml
from scipy.stats import t

from tools import slides
from tools.notebooks import ROOT
from vaekit.notebook import load_results

VALUES = load_results("07_together", ROOT / "book" / "results")["values"]
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def chance() -> str:
    """The expected number of false alarms, in words."""
    expected = VALUES["counts"]["lights"]["looked at"] / 20
    low, high = math.floor(expected), math.ceil(expected)
    return WORDS[low] if low == high else f"{WORDS[low]} or {WORDS[high]}"


@pytest.mark.parametrize(
    ("world", "effects", "seeds"),
    [
        ("lights", VALUES["effects"], VALUES["settings"]["seeds"]),
        ("handwriting", VALUES["handwriting"]["effects"], VALUES["settings"]["digits_seeds"]),
    ],
)
def test_effects_are_counted_from_their_own_numbers(world, effects, seeds):
    each = [effect for of_quantity in effects.values() for effect in of_quantity.values()]
    beyond = [2 * t.sf(abs(e["mean"]) / e["standard_error"], seeds - 1) < 0.05 for e in each if e["standard_error"]]
    assert VALUES["counts"][world] == {
        "looked at": len(each), "clear": sum(beyond), "by chance": pytest.approx(len(each) / 20),
    }  # fmt: skip


def test_quiz_and_slides_speak_of_the_same_number():
    number = VALUES["counts"]["lights"]["looked at"]
    quiz = yaml.safe_load((ROOT / "book/quizzes/07_together.yml").read_text(encoding="utf-8"))
    (question,) = [q for q in quiz if "nothing* had any effect" in q["question"]]
    (right,) = [option["text"] for option in question["options"] if option.get("right")]
    assert f" {number} effects" in question["question"] and right == f"{chance()} on average"
    (slide,) = [slide for slide in slides.decks()["session-6"] if "effects are looked at" in slide.heading]
    assert slide.heading.startswith(f"{number} effects") and f"{chance()} on average" in slide.text


def test_the_exam_says_of_the_interaction_what_the_runs_found():
    found = {}
    for world, effects, seeds in (
        ("lights", VALUES["effects"], VALUES["settings"]["seeds"]),
        ("handwriting", VALUES["handwriting"]["effects"], VALUES["settings"]["digits_seeds"]),
    ):
        effect = effects["NLL"]["H × C"]
        clear = 2 * t.sf(abs(effect["mean"]) / effect["standard_error"], seeds - 1) < 0.05
        found[world] = ("helps" if effect["mean"] < 0 else "hinders") if clear else "undecided"
    exam = (ROOT / "tools/course/exam.md").read_text(encoding="utf-8")
    said = f"is {found['lights']} on lights, and the flow {found['handwriting']} consistency on handwriting"
    assert f"the interaction of H and C on the likelihood {said}" in exam
