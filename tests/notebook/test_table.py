"""The table of settings: what is shown of each profile, and what is in force."""

import pytest

from vaekit.notebook import settings, weights
from vaekit.notebook.experiments import PROFILES


@pytest.fixture(autouse=True)
def nobody_has_chosen(monkeypatch):
    monkeypatch.setattr(weights, "_retrain", None)


def test_the_column_in_force_is_returned_and_printed_bold(monkeypatch, capsys):
    monkeypatch.setenv("VAEKIT_PROFILE", "night")
    chosen = settings(
        test_images=(9999, 10_000, 10_001, 1_000_000, 0.5),
        weights=((), [1, 2], (10_000, 0.25), [], ["a|b"]),
        sizes=({"d": 1}, {"d": 1, "k": 10_000}, {"D": (1, 2)}, {}, None),
        binarise=(False, True, False, True, None),
    )
    assert vars(chosen) == {"test_images": 10_001, "weights": (10_000, 0.25), "sizes": {"D": (1, 2)}, "binarise": False}
    assert capsys.readouterr().out.splitlines() == [
        "|  | `smoke` | `cpu` | **`night`** | `gpu` | `paper` |",
        "| :-- | :-- | :-- | :-- | :-- | :-- |",
        "| test images | 9999 | 10,000 | **10,001** | 1,000,000 | 0.5 |",
        "| weights |  | 1, 2 | **10,000, 0.25** |  | a\\|b |",
        "| sizes | d 1 | d 1, k 10,000 | **D 1, 2** |  | – |",
        "| binarise | no | yes | **no** | yes | – |",
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_has_its_place(profile, monkeypatch, capsys):
    monkeypatch.setenv("VAEKIT_PROFILE", profile)
    assert settings(name=PROFILES).name == profile
    assert f"| **{profile}** |" in (said := capsys.readouterr().out) and said.count("**") == 4


def test_a_row_needs_five_values_in_a_tuple():
    for values in ((1, 2, 3, 4), [1, 2, 3, 4, 5], 3):
        with pytest.raises(ValueError, match="epochs: expected a tuple of 5 values, for smoke, cpu, night, gpu, paper"):
            settings(epochs=values)


@pytest.mark.parametrize("choice", [True, False, None])
def test_the_switch_for_training_is_passed_on(choice, monkeypatch):
    settings(retrain=choice)
    assert weights._retrain is choice
    for profile, asked, taken in (("smoke", "0", False), ("cpu", "0", True), ("cpu", "1", False)):
        monkeypatch.setenv("VAEKIT_PROFILE", profile)
        monkeypatch.setenv("VAEKIT_TRAIN", asked)
        assert weights.wanted() is taken
    monkeypatch.delenv("VAEKIT_TRAIN")
    assert weights.wanted() is (choice is False)  # a profile is named: who names one wants it computed
    monkeypatch.delenv("VAEKIT_PROFILE")
    assert weights.wanted() is (choice is not True)
