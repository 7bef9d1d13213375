"""Kept weights stand in for a training where nobody asks to train, and only where they are whole and fit."""

import re

import pytest
import torch

from tools.weights import keep_weights
from vaekit import VAE, HamiltonianBound, mlp
from vaekit.notebook import settings, trained, weights
from vaekit.training import seeded

X = torch.rand(24, 1, 2, 2, generator=torch.Generator().manual_seed(0))
KEEP = "00_probe/flow"


def vae(hidden=3):
    with seeded(0):
        return VAE(*mlp((1, 2, 2), 2, hidden=(hidden,)), latent_dim=2)


def train(hidden=3, **change):
    model, objective = vae(hidden), HamiltonianBound(2, steps=1)
    history = trained("flow", model, objective, X, **{"epochs": 2, "progress": False, "keep": KEEP} | change)
    return model, objective, history


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The weights of one training; afterwards a reader with an empty store who names no profile."""
    monkeypatch.setattr(weights, "INDEX", tmp_path / "weights.json")
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(weights, "_retrain", None)
    monkeypatch.setenv("VAEKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VAEKIT_PROFILE", "cpu")
    monkeypatch.delenv("VAEKIT_TRAIN", raising=False)
    from vaekit.notebook import store

    events = []
    with monkeypatch.context() as patch:
        patch.setattr(store, "say", lambda message, **event: events.append(event))
        before = train()
    assert keep_weights(events, "smoke") == [] and keep_weights(events, "night") == [KEEP]
    monkeypatch.setenv("VAEKIT_RUNS", str(tmp_path / "a reader's"))
    monkeypatch.delenv("VAEKIT_PROFILE")
    return before


def is_kept(found, kept):
    pairs = zip(
        (*found[0].parameters(), *found[1].parameters()), (*kept[0].parameters(), *kept[1].parameters()), strict=True
    )
    assert not found[0].training
    return all(torch.equal(a, b.half().float()) for a, b in pairs)


def test_a_reader_gets_the_weights_in_half_precision_with_their_history(kept, capfd):
    found = train(epochs=500)
    assert is_kept(found, kept)
    assert found[2].train == kept[2].train and found[2].checkpoints == []
    said = capfd.readouterr().err
    assert "flow: kept weights, trained in the profile night" in said and "VAEKIT_TRAIN=1" in said


@pytest.mark.parametrize("how", ["VAEKIT_TRAIN", "VAEKIT_PROFILE", "settings", "no name"])
def test_who_asks_for_training_gets_it(kept, monkeypatch, how, capfd):
    if how == "VAEKIT_TRAIN":
        monkeypatch.setenv(how, "1")
    elif how == "VAEKIT_PROFILE":
        monkeypatch.setenv(how, "cpu")
    elif how == "settings":
        settings(retrain=True)
    found = train(epochs=3, **({"keep": None} if how == "no name" else {}))
    assert not is_kept(found, kept) and len(found[2].train) == 3


def test_the_smallest_profile_never_takes_them_and_another_does_if_told(kept, monkeypatch):
    monkeypatch.setenv("VAEKIT_TRAIN", "0")
    monkeypatch.setenv("VAEKIT_PROFILE", "smoke")
    assert len(train(epochs=1)[2].train) == 1
    monkeypatch.setenv("VAEKIT_PROFILE", "cpu")
    assert is_kept(train(epochs=4), kept)


def test_weights_of_another_network_or_with_another_digest_are_told_and_not_used(kept, capfd):
    assert len(train(hidden=4, epochs=1)[2].train) == 1
    assert "flow: is trained, since kept weights are not to be used (they are of another net" in capfd.readouterr().err
    path = weights.FOLDER / f"{KEEP}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    assert len(train(epochs=1)[2].train) == 1
    assert "expected the digest" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({}, "bias has None, expected (1,)"),
        ({"weight": torch.ones(1, 1), "bias": torch.ones(2)}, "bias has (2,), expected (1,)"),
        ({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, "weight has (1, 2), expected (1, 1)"),
        ({"weight": torch.ones(1, 1), "bias": torch.ones(1), "more": torch.ones(1)}, "more has (1,), expected None"),
    ],
)
def test_what_does_not_fit_is_named(state, said):
    layer = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match=re.escape(said)):
        weights._check_fit(layer, state)
    weights._check_fit(layer, layer.state_dict())


def test_without_a_network_a_reader_trains(kept, monkeypatch, capfd, tmp_path):
    import pooch

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "nowhere")
    assert len(train(epochs=1)[2].train) == 1 and "(no network)" in capfd.readouterr().err


def test_too_many_weights_are_refused(kept, monkeypatch):
    from tools import weights as tool

    monkeypatch.setattr(tool, "LIMIT", 100)
    monkeypatch.setenv("VAEKIT_PROFILE", "cpu")
    events = []
    monkeypatch.setattr("vaekit.notebook.store.say", lambda message, **event: events.append(event))
    train()
    with pytest.raises(ValueError, match="00_probe/flow: expected at most 100 bytes"):
        tool.keep_weights(events, "cpu")


def test_what_is_kept_is_listed_and_whole():
    for name in weights.index():
        assert weights.find(name).is_file()
    assert sum(entry["bytes"] for entry in weights.index().values()) <= 10 * 2**20
