"""Work on a lent machine stops in time, is carried home in small files, and goes on from there."""

import io
import random
import tarfile
import time

import pytest

from tools import borrowed

SCRIPT = """
import os, time
from pathlib import Path
import torch
from vaekit import VAE, elbo, mlp
from vaekit.notebook import stored, trained
from vaekit.training import seeded

def slow(x):
    with Path(os.environ["LOG"]).open("a") as log:
        log.write("x")
    time.sleep(0.1)
    return x + torch.rand(len(x))

found = stored.chunks("slow", slow, torch.arange(float(os.environ["CHUNKS"])), chunk=1)
Path(os.environ["RESULT"]).write_text(str(found.sum().item()))
"""


@pytest.fixture
def chapters(monkeypatch, tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "01_probe.py").write_text(SCRIPT)
    (tmp_path / "chapters" / "02_wrong.py").write_text("1 / 0")
    monkeypatch.setattr(borrowed, "CHAPTERS", tmp_path / "chapters")
    for name in ("LOG", "RESULT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("VAEKIT_RUNS", str(tmp_path / "lent"))
    (tmp_path / "LOG").touch()
    return tmp_path


def test_it_stops_in_time_and_goes_on_elsewhere(chapters, monkeypatch, capsys):
    monkeypatch.setenv("CHUNKS", "1000")
    began = time.monotonic()
    seconds = 20
    out = chapters / "out"
    asked = ["--profile", "smoke", "--out", str(out), "01_probe"]
    while not (chapters / "LOG").stat().st_size and seconds < 300:  # a busy machine needs longer to begin
        began = time.monotonic()
        assert borrowed.main(["--minutes", str(seconds / 60), *asked]) == 0
        assert time.monotonic() - began < seconds + 2
        seconds *= 2
    assert "01_probe: stopped in time" in capsys.readouterr().out and not (chapters / "RESULT").exists()
    computed = (chapters / "LOG").stat().st_size
    assert 0 < len(list(out.iterdir())) <= 8

    monkeypatch.setenv("VAEKIT_RUNS", str(chapters / "home"))  # another machine
    monkeypatch.setenv("CHUNKS", "1000")
    assert borrowed.main(["--in", str(out)]) == 0
    assert len(list((chapters / "home").glob("slow-chunk*.run"))) in (computed, computed - 1)


def test_a_chapter_that_fails_is_named_and_the_others_run(chapters, monkeypatch, capsys):
    monkeypatch.setenv("CHUNKS", "2")
    assert borrowed.main(["--minutes", "9", "--profile", "smoke", "02_wrong", "01_probe"]) == 1
    said = capsys.readouterr().out
    assert "02_wrong: ended by an error" in said and "ZeroDivisionError" in said
    assert "01_probe: finished" in said and (chapters / "RESULT").exists()
    with pytest.raises(SystemExit):
        borrowed.main(["03_none"])


def test_what_is_packed_comes_back_whole_and_large_files_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(borrowed, "LIMIT", 64 * 1024)
    rng = random.Random(0)
    sizes = {"a.run": 100_000, "b.training/last.pt": 30_000, "b.training/epoch-0001.pt": 60_000, "c.run": 0}
    for name, size in sizes.items():
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).write_bytes(rng.randbytes(size))
    assert borrowed.pack(tmp_path / "store", list(sizes), tmp_path / "out") == []
    files = list((tmp_path / "out").iterdir())
    assert len(files) <= 8 and all(file.stat().st_size <= 64 * 1024 for file in files)
    assert borrowed.unpack(tmp_path / "out", tmp_path / "home") == []
    before, after = borrowed.stamps(tmp_path / "store"), borrowed.stamps(tmp_path / "home")
    assert before.keys() == after.keys() == sizes.keys()
    assert all((tmp_path / "store" / n).read_bytes() == (tmp_path / "home" / n).read_bytes() for n in sizes)


def test_what_does_not_fit_is_named_and_finished_work_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(borrowed, "LIMIT", 32 * 1024)
    monkeypatch.setattr(borrowed, "PARTS", 2)
    for name in ("t/epoch-0001.pt", "t/last.pt", "z.run"):
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(bytes(15_000))
    names = ["t/epoch-0001.pt", "t/last.pt", "z.run"]
    assert borrowed.pack(tmp_path / "s", names, tmp_path / "out") == ["t/epoch-0001.pt"]


def test_a_lost_archive_spoils_only_what_was_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(borrowed, "LIMIT", 64 * 1024)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "big.run").write_bytes(bytes(100_000))
    (tmp_path / "store" / "small.run").write_bytes(b"small")
    borrowed.pack(tmp_path / "store", ["big.run", "small.run"], tmp_path / "out")
    (tmp_path / "out" / "runs-0.tar").unlink()
    assert borrowed.unpack(tmp_path / "out", tmp_path / "home") == ["big.run"]
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["small.run"]


def test_foreign_archives_are_refused(tmp_path):
    (tmp_path / "runs-0.tar").write_bytes(b"not a tar")
    with pytest.raises(ValueError, match=r"runs-0.tar: expected an archive"):
        borrowed.unpack(tmp_path, tmp_path / "home")
    with tarfile.open(tmp_path / "runs-0.tar", "w") as archive:
        entry = tarfile.TarInfo("../evil.run#0#1")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(ValueError, match="expected names inside the store"):
        borrowed.unpack(tmp_path, tmp_path / "home")
    assert not (tmp_path / "evil.run").exists()
