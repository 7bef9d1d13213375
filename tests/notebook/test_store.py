"""What is in the store is taken; what is damaged or of something else is told and computed anew; nothing is lost."""

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from vaekit import VAE, HamiltonianBound, JacobianL1, elbo, fit, fit_ensemble, mlp
from vaekit.notebook import store, stored, trained, trainings
from vaekit.notebook.encoding import decode, encode
from vaekit.training import seeded
from vaekit.training.checkpoints import save_checkpoint

X = torch.rand(24, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Pair(NamedTuple):
    a: torch.Tensor
    b: list


def vae(seed=0):
    with seeded(seed):
        return VAE(*mlp((1, 2, 2), 2, hidden=(3,)), latent_dim=2)


@pytest.fixture(autouse=True)
def runs(monkeypatch, tmp_path):
    (tmp_path / "calls").touch()
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("VAEKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("VAEKIT_FRESH", raising=False)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def note():
    """Count a call where no digest sees it."""
    with Path(os.environ["CALLS"]).open("a") as stream:
        stream.write("x")


def count():
    return Path(os.environ["CALLS"]).stat().st_size


def counted(x, factor=2):
    note()
    return x * factor + torch.rand(len(x))


def test_a_result_is_computed_once_and_is_the_same_whatever_was_drawn_before(capfd):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = stored("a product", counted, torch.ones(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(stored("a product", counted, torch.ones(3)), first) and count() == 1
    assert "a product: computed in" in (said := capfd.readouterr().err) and "a product: found; it took" in said
    for change in [dict(factor=3), dict(version=1)]:
        stored("a product", counted, torch.ones(3), **change)
    stored("another", counted, torch.ones(3))
    stored("a product", counted, torch.zeros(3))
    assert count() == 5


def test_fresh_computes_anew_with_the_same_random_numbers(monkeypatch):
    first = stored("x", counted, torch.ones(3))
    monkeypatch.setenv("VAEKIT_FRESH", "1")
    assert torch.equal(stored("x", counted, torch.ones(3)), first) and count() == 2


def test_the_librarys_number_makes_old_entries_unused(monkeypatch):
    stored("x", counted, torch.ones(3))
    monkeypatch.setattr(store, "LIBRARY", store.LIBRARY + 1)
    stored("x", counted, torch.ones(3))
    assert count() == 2


KINDS = {
    "tensors": torch.arange(6).reshape(2, 3).T,
    "a number": 1.5,
    "an array": np.arange(3.0),
    "a scalar": np.float32(2.5),
    "a record": Pair(torch.ones(2), [1, (2, "x", None)]),
    "a dictionary": {"a": {1: True, (2, 3): {4}}},
    "a path": Path(__file__),
}


@pytest.mark.parametrize("value", KINDS.values(), ids=KINDS)
def test_what_comes_back_is_what_went_in(value):
    for _ in range(2):
        back = stored("kinds", lambda: value)
        assert type(back) is type(value) and repr(back) == repr(value)


@pytest.mark.parametrize(("value", "place"), [({"m": [vae()]}, r"x\['m'\]\[0\]"), (lambda: 1, "x"), (1 + 2j, "x")])
def test_what_cannot_be_kept_is_refused_by_its_place(value, place, runs):
    make = {"of": value}
    with pytest.raises(ValueError, match=rf"{place}: expected tensors"):
        stored("x", lambda: make["of"])
    assert list(runs.iterdir()) == []


def test_a_function_that_changes_its_argument_is_refused(runs):
    with pytest.raises(ValueError, match="x: expected a function that leaves its arguments"):
        stored("x", torch.Tensor.add_, torch.ones(2), 1)
    assert list(runs.iterdir()) == []


DAMAGE = {
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a flipped bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "another version": lambda content: content.replace(b"vaekit-run-1", b"vaekit-run-0", 1),
    "another program's": lambda content: b"\x89PNG" + os.urandom(300),
}


@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_told_and_computed_anew(how, runs, capfd):
    first = stored("x", counted, torch.ones(3))
    (file,) = runs.iterdir()
    file.write_bytes(how(file.read_bytes()))
    capfd.readouterr()
    assert torch.equal(stored("x", counted, torch.ones(3)), first) and count() == 2
    assert f"{file.name}: not to be used (" in capfd.readouterr().err
    stored("x", counted, torch.ones(3))
    assert count() == 2  # it has been mended


def test_an_entry_cannot_run_code(runs, capfd):
    stored("x", counted, torch.ones(3))
    (file,) = runs.iterdir()
    line = file.read_bytes().split(b"\n", 2)[1]

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(runs / "evil"),))

    body = line + b"\n" + pickle.dumps(Evil())
    file.write_bytes(f"{store.FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body)
    stored("x", counted, torch.ones(3))
    assert not (runs / "evil").exists() and count() == 2


def test_a_full_disk_stops_with_a_message_and_what_was_finished_stays(monkeypatch, runs):
    first = stored("first", counted, torch.ones(3))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"second: the result could not be kept \(No space left on device\)"):
            stored("second", counted, torch.ones(3))
    assert len(list(runs.iterdir())) == 1  # no unfinished file either
    assert torch.equal(stored("first", counted, torch.ones(3)), first) and count() == 2


def test_what_a_killed_process_left_unfinished_is_removed_and_what_another_writes_now_is_not(runs):
    old, new = runs / ".unfinished-a", runs / ".unfinished-b"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    stored("x", counted, torch.ones(3))
    assert not old.exists() and new.exists()


def test_what_another_kind_of_device_computed_is_taken_after_ones_own(runs):
    stored("x", counted, torch.ones(3))
    (file,) = runs.iterdir()
    file.rename(file.with_name(file.name.replace(".cpu.", ".cuda.")))
    stored("x", counted, torch.ones(3))
    assert count() == 1


def test_where_the_store_is_unless_told(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_RUNS", str(tmp_path / "a" / "b"))
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "c" / "d"))
    assert store.folder() == tmp_path / "a" / "b" and store.folder().is_dir()
    monkeypatch.delenv("VAEKIT_RUNS")
    assert store.folder() == tmp_path / "c" / "d" / "runs" and store.folder().is_dir()
    monkeypatch.delenv("VAEKIT_CACHE")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    assert store.folder() == tmp_path / "cache" / "vaekit" / "runs" and store.folder().is_dir()


def test_all_bytes_are_with_the_system_when_it_is_told_to_keep_them(runs, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    stored("few", lambda: 1)
    assert sizes == [file.stat().st_size for file in runs.iterdir()] and sizes[0] < 8192  # io's buffer


def test_the_ledger_has_what_was_found_and_the_time_that_it_saved(monkeypatch):
    monkeypatch.setattr(store, "ledger", store.Ledger())
    stored("x", counted, torch.ones(3))
    assert store.ledger.found == []
    before = store.ledger.seconds
    took = store.origin_of(next(store.folder().iterdir()))["seconds"]
    stored("x", counted, torch.ones(3))
    assert store.ledger.found == ["x"] and store.ledger.seconds == before + took


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (99.9, "99.9 s"), (100, "1.7 min"), (5999, "100.0 min"), (6000, "1.7 h"), (3_600_000, "1000.0 h")],
)
def test_a_time_in_words(seconds, words):
    assert store.duration(seconds) == words


def test_an_entry_says_where_it_is_from_without_its_value(runs):
    stored("a product", counted, torch.ones(3))
    (file,) = runs.iterdir()
    origin = store.origin_of(file)
    assert origin["name"] == "a product" and origin["kind"] == "cpu" and origin["library"] == store.LIBRARY
    assert file.name == f"a-product.{origin['key'][:24]}.cpu.run" and 0 <= origin["seconds"] < 60
    file.write_bytes(b"vaekit-run-1\n")
    with pytest.raises(ValueError, match="it is not an entry of the store"):
        store.origin_of(file)


def test_a_record_whose_class_is_gone_or_has_other_fields_is_not_made():
    kept = encode(Pair(torch.ones(2), [1]), "pair")
    assert decode(kept).b == [1]
    for change in ({"name": "Nobody"}, {"name": "X"}, {"module": "nowhere"}, {"value": {"b": [1], "a": torch.ones(2)}}):
        with pytest.raises(ValueError, match=r"there is no class .* with these fields"):
            decode(kept | change)


def test_what_is_said_goes_to_the_reader_or_into_the_record(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("VAEKIT_PROGRESS", raising=False)
    for notebook, stream in ((None, "err"), (object(), "out")):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda notebook=notebook: notebook))
        store.say("trained", event="end")
        store.say("", event="start")
        came = capsys.readouterr()
        assert getattr(came, stream) == "trained\n" and came.out + came.err == "trained\n" and store.shown()
    monkeypatch.setenv("VAEKIT_PROGRESS", str(tmp_path / "record"))
    store.say("trained", event="end", name="β")
    store.say("", event="start")
    lines = (tmp_path / "record").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"message": "trained", "event": "end", "name": "β"}, {"message": "", "event": "start"},
    ]  # fmt: skip
    assert capsys.readouterr() == ("", "") and not store.shown()


# --- chunks ----------------------------------------------------------------------------------------------------------


def summary(x, scale=1.0):
    note()
    return Pair(x * scale, [float(v) for v in x.sum((1, 2, 3))])


def stopped(x, scale):
    if count() == int(os.environ["STOP"]):
        raise KeyboardInterrupt
    return summary(x, scale)


def test_chunks_join_to_the_whole_and_a_stop_repeats_none_that_was_finished(runs, monkeypatch):
    monkeypatch.setenv("STOP", "2")
    with pytest.raises(KeyboardInterrupt):
        stored.chunks("s", stopped, X, 2.0, chunk=10)
    assert count() == 2
    monkeypatch.setenv("STOP", "9")
    found = stored.chunks("s", stopped, X, 2.0, chunk=10)
    assert count() == 3 and torch.equal(found.a, 2 * X)
    assert found.b == pytest.approx(X.sum((1, 2, 3)).tolist())
    assert len(list(runs.iterdir())) == 1  # the chunks' own files are gone
    stored.chunks("s", stopped, X, 2.0, chunk=10)
    assert count() == 3


def test_chunks_along_another_dimension_and_of_a_list():
    found = stored.chunks("t", lambda x, m: m @ x.flatten(1).T, X, torch.ones(5, 4), chunk=7, dim=1)
    assert torch.allclose(found, X.flatten(1).sum(1).expand(5, 24))
    assert stored.chunks("l", lambda seeds: [s**2 for s in seeds], range(5), chunk=2) == [0, 1, 4, 9, 16]


def test_bad_chunks_are_refused():
    for arguments, words in [((X,), "chunk"), ((X[:0],), "over")]:
        with pytest.raises(ValueError, match=words):
            stored.chunks("x", torch.abs, *arguments, chunk=0 if words == "chunk" else 5)
    with pytest.raises(ValueError, match=r"x: expected results that can be joined .* got Tensor"):
        stored.chunks("x", torch.sum, X, chunk=5)


# --- trainings -------------------------------------------------------------------------------------------------------


def equal(a, b):
    return all(torch.equal(u, v) for u, v in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_training_is_that_of_fit_and_is_found_the_second_time(capfd):
    plain, bound = vae(), HamiltonianBound(2, steps=1)
    wanted = fit(plain, bound, X, epochs=2, batch_size=8, progress=False)
    for time_ in range(2):
        model, objective = vae(), HamiltonianBound(2, steps=1)
        history = trained("flow", model, objective, X, epochs=2, batch_size=8, progress=False)
        assert history.train == wanted.train and equal(model, plain) and equal(objective, bound)
        assert not model.training and history.checkpoints == []
        assert ("flow: found" in capfd.readouterr().err) == bool(time_)


def test_asked_for_checkpoints_are_there_and_if_one_is_lost_it_is_trained_anew(capfd):
    ask = dict(epochs=3, checkpoint_every=2, batch_size=8, progress=False)
    first = trained("t", vae(), elbo, X, **ask)
    again = trained("t", vae(), elbo, X, **ask)
    assert again == first and [file.name for file in again.checkpoints] == ["epoch-0002.pt"]
    assert again.checkpoints[0].is_file()
    again.checkpoints[0].unlink()
    capfd.readouterr()
    assert trained("t", vae(), elbo, X, **ask).train == first.train
    assert "1 of its checkpoints are missing" in capfd.readouterr().err and again.checkpoints[0].is_file()


def test_another_seed_setting_or_initial_weight_is_another_training(runs):
    for seed, change in [(0, {}), (1, {}), (0, dict(lr=1e-2)), (0, dict(seed=1)), (0, dict(epochs=2))]:
        trained("t", vae(seed), elbo, X, **{"epochs": 1, "progress": False} | change)
    for objective, x in [(partial(elbo, beta=2.0), X), (elbo, X.flip(0))]:
        trained("t", vae(), objective, x, epochs=1, progress=False)
    trained("t", vae(), elbo, X, epochs=1, progress=True, device="cpu")  # neither changes the result
    assert len(list(runs.iterdir())) == 7  # and nothing else is left there


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_truncated_checkpoint_is_told_and_the_training_begins_anew(runs, monkeypatch, capfd):
    plain = vae()
    wanted = fit(plain, elbo, X, epochs=3, progress=False)
    with monkeypatch.context() as patch:  # stopped at the last moment: trained, and not yet written
        patch.setattr(store, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained("t", vae(), elbo, X, epochs=3, progress=False)
    (last,) = runs.glob("*/last.pt")
    last.write_bytes(last.read_bytes()[:500])
    model = vae()
    assert trained("t", model, elbo, X, epochs=3, progress=False).train == wanted.train and equal(model, plain)
    assert "t: begins anew" in capfd.readouterr().err


def test_the_time_of_a_training_that_was_stopped_counts(tmp_path, capfd, monkeypatch):
    """Until its last whole epoch; and a clock that has been set back takes nothing away."""
    last, began = tmp_path / "last.pt", tmp_path / "began.json"
    assert trainings._so_far("t", tmp_path) == (0.0, 0)
    for at, spent in ((997.0, 8.0), (1003.0, 5.0)):
        save_checkpoint(last, {"epoch": 4})
        os.utime(last, (1000, 1000))
        began.write_text(json.dumps([5.0, at]))
        now = time.time()
        assert trainings._so_far("t", tmp_path) == (spent, 4)
        noted = json.loads(began.read_text())
        assert noted[0] == spent and now <= noted[1] <= time.time()
    last.write_bytes(b"")
    assert trainings._so_far("t", tmp_path) == (0.0, 0) and not last.exists()
    assert "t: begins anew" in capfd.readouterr().err
    save_checkpoint(last, {"epoch": 4})
    monkeypatch.setenv("VAEKIT_FRESH", "1")
    assert trainings._so_far("t", tmp_path) == (0.0, 0) and not last.exists()


def test_checkpoints_and_resume_are_the_stores_own():
    with pytest.raises(ValueError, match="checkpoints: expected none"):
        trained("t", vae(), elbo, X, epochs=1, checkpoints="x")


def test_an_objective_without_weights_is_left_alike_by_an_ensemble_that_is_trained_and_one_that_is_found():
    modes = []
    for _ in range(2):
        objective = JacobianL1(elbo, weight=0.1)
        trained.ensemble("e", [vae(0), vae(1)], objective, X, epochs=1, progress=False)
        modes.append(objective.training)
    assert modes == [False, False]


def test_an_ensemble_is_kept_as_a_whole():
    plain = [vae(s) for s in range(2)]
    wanted = fit_ensemble(plain, elbo, X, epochs=2, progress=False)
    for _ in range(2):
        models = [vae(s) for s in range(2)]
        assert torch.equal(trained.ensemble("e", models, elbo, X, epochs=2, progress=False), wanted)
        assert all(map(equal, models, plain))


# --- kill -9 ---------------------------------------------------------------------------------------------------------

KILLS = int(os.environ.get("VAEKIT_KILLS", "5"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_work_ends_with_the_same_numbers_and_so_do_several_processes_with_one_store(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    wanted, found, together = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['killed']} kills; {len(found['steps'])} steps in place of {len(wanted['steps'])}")
    assert found["killed"] > 0 and found["numbers"] == wanted["numbers"]
    assert set(found["steps"]) == set(wanted["steps"])
    assert len(found["steps"]) <= len(wanted["steps"]) + found["killed"]
    assert together == [wanted["numbers"]] * 3, done.stderr
