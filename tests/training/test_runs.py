"""A run's folder: it answers for its own run alone, in one piece, with the caller's file modes and no litter."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from vaekit import VAE, Consistency, HamiltonianBound, elbo, fit, gaussian, linear, load_checkpoint, mlp
from vaekit.training.checkpoints import remove_orphans, save_checkpoint
from vaekit.training.runs import digest
from vaekit.training.seeding import seeded

SHAPE = (1, 4, 4)
QUIET = {"epochs": 2, "batch_size": 20, "device": "cpu", "progress": False}


def images(n: int = 30) -> torch.Tensor:
    with seeded(1):
        return torch.rand(n, *SHAPE).round()


def new_model(seed: int = 0, **options) -> VAE:
    with seeded(seed):
        return VAE(*mlp(SHAPE, latent_dim=2, hidden=(6,), **options), latent_dim=2)


def flipped(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1)


CALL = {"model": new_model, "objective": elbo, "x": images, "validation": images}


def train(folder: Path, **change):
    call = {**QUIET, **CALL, "checkpoints": folder} | change
    model, objective, x, validation = (call.pop(name) for name in CALL)
    model, x, validation = (value() if callable(value) else value for value in (model, x, validation))
    return model, fit(model, objective, x, validation=validation, **call)


def loud(model, x):
    return 1e3 * elbo(model, x)


def of_sgd(momentum):
    return partial(torch.optim.SGD, momentum=momentum)


CHANGES = {
    "objective": ({}, {"objective": partial(elbo, beta=50.0)}),
    "a keyword of it": ({"objective": partial(elbo, beta=2.0)}, {"objective": partial(elbo, beta=3.0)}),
    "a bound in it": (
        {"objective": Consistency(elbo, flipped, weight=1.0)},
        {"objective": Consistency(partial(elbo, beta=2.0), flipped, weight=1.0)},
    ),
    "a weight in it": (
        {"objective": Consistency(elbo, flipped, weight=1.0)},
        {"objective": Consistency(elbo, flipped, weight=2.0)},
    ),
    "schedules": ({"schedules": {"beta": linear(0, 1, 5)}}, {"schedules": {"beta": linear(0, 2, 5)}}),
    "no schedules": ({"schedules": {"beta": linear(0, 1, 5)}}, {}),
    "amp": ({}, {"amp": torch.bfloat16}),
    "patience": ({}, {"patience": 9}),
    "activation": ({}, {"model": partial(new_model, activation=nn.Tanh)}),
    "likelihood": ({}, {"model": lambda: VAE(*mlp(SHAPE, 2, hidden=(6,)), latent_dim=2, likelihood=gaussian(1.0))}),
    "initial weights": ({}, {"model": partial(new_model, 1)}),
    "order of the images": ({}, {"x": lambda: images().flip(0)}),
    "other images of the same sum": ({}, {"x": lambda: images().flip(-1)}),
    "validation": ({}, {"validation": lambda: images(40)}),
    "optimizer": ({"optimizer": of_sgd(0.9)}, {"optimizer": of_sgd(0.5)}),
    "seed": ({}, {"seed": 3}),
    "lr": ({}, {"lr": 0.1}),
    "batch_size": ({}, {"batch_size": 10}),
    "binarise": ({}, {"binarise": True}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_folder_answers_for_its_own_run_alone(tmp_path, what):
    first, second = CHANGES[what]
    model, history = train(tmp_path, **first)
    again, remembered = train(tmp_path, **first)  # the same call: nothing is trained
    assert remembered.train == history.train
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match=r"checkpoints: .* holds (another run|a run that began with other weights)"):
        train(tmp_path, **second)


def test_a_finished_run_is_prolonged_with_the_model_that_it_left(tmp_path):
    model, _ = train(tmp_path, epochs=2)
    fit(model, elbo, images(), validation=images(), **QUIET | {"epochs": 4}, checkpoints=tmp_path)
    whole, _ = train(tmp_path / "whole", epochs=4)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_run_that_an_error_stopped_goes_on_with_the_model_that_it_left(tmp_path):
    stop = tmp_path / "stop"
    stop.touch()

    def objective(model, x):
        if (tmp_path / "epoch-0001.pt").exists() and model.training and stop.exists() and len(x) == 10:
            raise ZeroDivisionError
        return elbo(model, x)

    model = new_model()
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, model=lambda: model, objective=objective)
    stop.unlink()
    fit(model, objective, images(), validation=images(), **QUIET, checkpoints=tmp_path)
    whole, _ = train(tmp_path / "whole")
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


def test_half_precision_resumes_with_its_loss_scale(tmp_path):
    """The first steps overflow and halve the scale, so a run under way holds another one than a new run."""
    call = {"objective": loud, "batch_size": 3, "amp": torch.float16, "validation": None}
    train(tmp_path, **call, epochs=1)
    model, _ = train(tmp_path, **call, epochs=2)
    whole, _ = train(tmp_path / "whole", **call, epochs=2)
    scale = load_checkpoint(tmp_path / "last.pt")["scaler"]
    assert scale == load_checkpoint(tmp_path / "whole" / "last.pt")["scaler"] and scale["scale"] < 2.0**16
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


def test_modules_inside_a_function_are_trained_and_saved(tmp_path):
    bound = HamiltonianBound(2, steps=1)
    before = bound.step_logit.detach().clone()
    _, history = train(tmp_path, objective=partial(bound, samples=2))
    assert not torch.equal(before, bound.step_logit)
    saved = load_checkpoint(history.checkpoints[-1])["objective"]
    assert torch.equal(saved["step_logit"], bound.step_logit)


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path = train(tmp_path)[1].checkpoints[0]
    whole, content = path.read_bytes(), load_checkpoint(path)
    noticed = 0
    for k in range(150):
        damaged = bytearray(whole)
        damaged[(k * 7919) % len(whole)] ^= 1 << (k % 8)
        path.write_bytes(damaged)
        try:
            assert same(load_checkpoint(path), content)
        except ValueError as error:
            noticed += 1
            assert str(path) in str(error)
    assert noticed > 50


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = train(tmp_path)[1].checkpoints[0]
    whole = path.read_bytes()
    for k in range(20):
        path.write_bytes(whole[: len(whole) * k // 20])
        with pytest.raises(ValueError, match=f"{path.name}: expected a whole"):
            load_checkpoint(path)


def test_files_have_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        train(tmp_path)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.glob("*.pt")} == {0o640}


WRITER = """
    import sys, torch
    from pathlib import Path
    from vaekit.training import checkpoints
    def stall(descriptor):
        print("writing", flush=True)
        sys.stdin.read()
    checkpoints.os.fsync = stall
    checkpoints.save_checkpoint(sys.argv[1], {"n": 1})
"""


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path, code = tmp_path / "c.pt", textwrap.dedent(WRITER)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed, living = (subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) for _ in range(2))
    assert killed.stdout.readline() == living.stdout.readline() == b"writing\n"
    assert len(list(tmp_path.iterdir())) == 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    other = tmp_path / ".d.pt.0123.tmp"  # another file's: not ours to remove
    other.touch()
    save_checkpoint(path, {"n": 2})
    assert len(list(tmp_path.iterdir())) == 3  # c.pt, the living one's, the other file's
    living.communicate(b"")
    assert living.returncode == 0 and load_checkpoint(path)["n"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, "c.pt"]


@contextmanager
def without_rights(folder: Path):
    """Inside, this process may read `folder` and write nothing in it."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no POSIX rights")
def test_a_finished_run_in_a_read_only_folder_is_read():
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "run"
        Path(outer).chmod(0o755)
        _, history = train(folder)
        with without_rights(folder):
            _, remembered = train(folder)
            with pytest.raises(OSError, match="cannot write to this folder"):
                train(folder, epochs=3)
        assert remembered.train == history.train and len(remembered.checkpoints) == 2


def test_early_stopping_holds_when_the_run_is_read_again(tmp_path):
    values = tmp_path / "calls"
    values.write_text("")

    def objective(model, x):
        if model.training:
            return elbo(model, x)
        values.write_text(values.read_text() + "x")
        return torch.full((len(x),), -float(len(values.read_text())))

    call = {"objective": objective, "validation": images(10), "patience": 2, "epochs": 20}
    model, history = train(tmp_path, **call)
    assert (history.stopped, len(history.train)) == ("early", 3)
    best = load_checkpoint(tmp_path / "epoch-0001.pt")["model"]
    again, remembered = train(tmp_path, **call)
    assert remembered[:4] == history[:4]
    for kept in (model, again):
        assert all(torch.equal(v, best[k]) for k, v in kept.state_dict().items())


def test_the_record_counts_steps_and_keeps_the_rate(tmp_path):
    _, history = train(tmp_path, lr=0.02, epochs=3, checkpoint_every=2)
    assert [p.name for p in history.checkpoints] == ["epoch-0002.pt"]
    kept = load_checkpoint(history.checkpoints[0])
    assert (kept["epoch"], kept["step"], kept["lr"]) == (2, 4, 0.02)
    last = load_checkpoint(tmp_path / "last.pt")
    assert (last["epoch"], last["step"], last["train"], last["validation"]) == (3, 6, history.train, history.validation)


def test_schedules_go_on_where_they_were(tmp_path):
    call = {"schedules": {"beta": linear(0, 1, 7)}}
    train(tmp_path, **call, epochs=1)
    model, _ = train(tmp_path, **call, epochs=3)
    whole, _ = train(tmp_path / "whole", **call, epochs=3)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_resumed_run_measures_its_own_time(tmp_path):
    train(tmp_path)
    began = time.perf_counter()
    assert 0 <= train(tmp_path)[1].seconds <= time.perf_counter() - began


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("vaekit.training.distributed.join", lambda device: (1, 2))
    train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_as_soon_as_it_is_resumed_can_be_resumed_again(tmp_path):
    stop = tmp_path / "stop"

    def objective(model, x):
        if stop.exists():
            raise ZeroDivisionError
        return elbo(model, x)

    train(tmp_path, objective=objective, epochs=1)
    before = (tmp_path / "last.pt").read_bytes()
    stop.touch()
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, objective=objective)
    assert (tmp_path / "last.pt").read_bytes() == before
    stop.unlink()
    model, _ = train(tmp_path, objective=objective)
    whole, _ = train(tmp_path / "whole", objective=objective)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_run_begun_anew_forgets_the_old_one_before_its_first_epoch(tmp_path):
    train(tmp_path)

    def fails(model, x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, objective=fails, seed=1, resume=False)
    model, history = train(tmp_path, seed=1)  # neither refused nor resumed
    whole, expected = train(tmp_path / "whole", seed=1)
    assert history.train == expected.train
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_refusal_names_what_differs_in_words(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match=r"holds another run \(another objective, another schedules\); take"):
        train(tmp_path, objective=partial(elbo, beta=2.0), schedules={"beta": linear(0, 1, 5)})


def test_another_process_leaves_no_note_in_the_first_ones_file(tmp_path, monkeypatch):
    monkeypatch.setattr("vaekit.training.distributed.join", lambda device: (0, 2))
    train(tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    monkeypatch.setattr("vaekit.training.distributed.join", lambda device: (1, 2))
    train(tmp_path, epochs=3)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_fingerprint_of_weights_tells_names_shapes_and_types():
    ones = torch.ones(4)
    groups = [
        {"model": {"a": ones}}, {"model": {"b": ones}}, {"objective": {"a": ones}}, {"model": {"a": ones.view(2, 2)}},
        {"model": {"a": ones.view(torch.int32)}}, {"model": {"a": 2 * ones}}, {"model": {"a": ones, "b": ones[:0]}},
    ]  # fmt: skip
    assert len({digest(group) for group in groups}) == len(groups)
    assert digest(groups[0]) == digest({"model": {"a": torch.ones(8)[::2]}})


def test_all_bytes_are_with_the_system_when_it_is_told_to_keep_them(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    paths = [save_checkpoint(tmp_path / f"{n}.pt", {"n": torch.arange(n)}) for n in (1, 10_000)]
    assert sizes == [path.stat().st_size for path in paths] and 0 < sizes[0] < 8192 < sizes[1]  # io's buffer


def test_a_locked_temporary_file_is_somebody_elses(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    held, left = tmp_path / ".c.pt.0001.tmp", tmp_path / ".c.pt.0002.tmp"
    left.touch()
    with held.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        save_checkpoint(tmp_path / "c.pt", {"n": 1})
        assert held.exists() and not left.exists()


def test_a_temporary_file_is_locked_while_it_is_written_and_gone_if_it_fails(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def fails(descriptor):
        (unfinished,) = tmp_path.glob(".c.pt.*.tmp")
        with unfinished.open("rb") as other, pytest.raises(OSError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_orphans(tmp_path / "c.pt")
        assert unfinished.exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=r"could not write the checkpoint \(No space left on device\)"):
        save_checkpoint(tmp_path / "c.pt", {"n": 1})
    assert list(tmp_path.iterdir()) == []


def test_no_process_trains_before_the_first_has_made_the_folder_ready(tmp_path, monkeypatch):
    train(tmp_path)
    order = []
    wait = lambda: order.append(("wait", (tmp_path / "last.pt").exists()))  # noqa: E731
    monkeypatch.setattr("vaekit.training.distributed.barrier", wait)

    def objective(model, x):
        order.append("step")
        return elbo(model, x)

    train(tmp_path, objective=objective, seed=1, resume=False, epochs=1, batch_size=30, validation=None)
    assert order == [("wait", False), "step"]
