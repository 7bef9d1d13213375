"""Profiles, and results that say where they come from."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit.notebook import experiments
from vaekit.notebook.experiments import PROFILES, load_results, pick, profile, save_results, tell


def test_the_environment_chooses_the_profile(monkeypatch):
    for name in PROFILES:
        monkeypatch.setenv("VAEKIT_PROFILE", name)
        assert profile() == name
        assert pick(smoke="smoke", cpu="cpu", night="night", gpu="gpu", paper="paper") == name
        assert pick(smoke="smoke", cpu="cpu", gpu="gpu", paper="paper") == ("cpu" if name == "night" else name)


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("VAEKIT_PROFILE", "huge")
    with pytest.raises(ValueError, match="VAEKIT_PROFILE: expected one of smoke, cpu, night, gpu, paper, got 'huge'"):
        profile()


def test_results_come_back_as_plain_numbers_with_their_provenance(monkeypatch, tmp_path):
    monkeypatch.setenv("VAEKIT_PROFILE", "cpu")
    monkeypatch.setenv("VAEKIT_RESULTS", str(tmp_path))
    values = {"a": torch.tensor(1.5), "b": np.float32(2.5), "c": [np.arange(2), float("nan")], "d": {1: float("inf")}}
    save_results("01_vae", values)
    record = load_results("01_vae")
    assert record["values"] == {"a": 1.5, "b": 2.5, "c": [[0, 1], None], "d": {"1": None}}
    assert record["profile"] == "cpu" and record["versions"]["torch"] == torch.__version__
    assert record["device"] and len(record["date"]) == len("2026-01-31") and record["seconds"] >= 0
    assert [p.name for p in (tmp_path / "01_vae").iterdir()] == ["cpu.json"]


def test_the_best_profile_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("VAEKIT_RESULTS", str(tmp_path))
    assert load_results("01_vae") is None
    for name in ("gpu", "smoke", "cpu"):
        monkeypatch.setenv("VAEKIT_PROFILE", name)
        save_results("01_vae", {"from": name})
    assert load_results("01_vae")["values"] == {"from": "gpu"}


def test_smoke_numbers_never_reach_the_book(monkeypatch, tmp_path):
    monkeypatch.delenv("VAEKIT_RESULTS", raising=False)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("VAEKIT_PROFILE", "smoke")
    save_results("x", {})
    assert (tmp_path / "_build" / "results" / "x" / "smoke.json").is_file()
    assert not (tmp_path / "book" / "results").exists()
    monkeypatch.setenv("VAEKIT_PROFILE", "cpu")
    save_results("x", {})
    assert (tmp_path / "book" / "results" / "x" / "cpu.json").is_file()


def test_the_commit_is_the_one_that_git_names():
    root = Path(experiments.__file__).parent
    named = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    if named.returncode:
        assert experiments._commit() == "unknown"
    else:
        assert named.stdout.startswith(experiments._commit().rstrip("+"))


def test_tell_prints_in_a_plain_script(capsys):
    tell("**bold**")
    assert capsys.readouterr().out == "**bold**\n"


def test_importing_vaekit_needs_no_jupyter_and_seeds_nothing():
    code = (
        "import sys, torch; torch.manual_seed(5); before = torch.get_rng_state(); import vaekit, json;"
        "print(json.dumps([sorted({'IPython', 'ipywidgets', 'jupytext', 'pooch', 'sklearn'} & set(sys.modules)),"
        "bool(torch.equal(before, torch.get_rng_state()))]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == [[], True]
