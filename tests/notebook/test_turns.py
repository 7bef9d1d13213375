"""One at a time, within this process: locks are held by whoever opened the file, not by the process."""

import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from vaekit.notebook import store, turns
from vaekit.notebook.turns import turn


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(store, "say", lines.append)
    return lines


def test_inside_nobody_else_gets_in_and_afterwards_nothing_is_left(tmp_path, said, monkeypatch):
    made = []
    monkeypatch.setattr(turns, "FileLock", lambda path: made.append(FileLock(path)) or made[-1])
    with turn("x", tmp_path / "entry.run"), pytest.raises(Timeout):
        FileLock(tmp_path / ".entry.run.lock").acquire(blocking=False)
    with pytest.raises(KeyError), turn("x", tmp_path / "entry.run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == [] and said == []
    assert len(made) == 2 and not any(lock.is_locked for lock in made)


def test_who_comes_second_says_so_and_waits(tmp_path, said):
    first, inside, end = FileLock(tmp_path / ".entry.run.lock"), threading.Event(), threading.Event()

    def second():
        with turn("scores", tmp_path / "entry.run"):
            inside.set()
            end.wait(5)

    first.acquire()
    thread = threading.Thread(target=second)
    thread.start()
    assert not inside.wait(0.1)
    assert said == ["scores: another process is at work on it; this one waits for the result"]
    first.release()
    assert inside.wait(5)
    end.set()
    thread.join()
    assert len(said) == 1 and list(tmp_path.iterdir()) == []


def test_a_lock_that_somebody_has_swept_away_is_no_fault(tmp_path, said):
    with turn("x", tmp_path / "entry.run"):
        (tmp_path / ".entry.run.lock").unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError, NotImplementedError])
def test_where_there_are_no_locks_the_work_goes_on(error, tmp_path, said, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    worked = []
    with turn("x", tmp_path / "entry.run"):
        worked.append(Path.cwd())
    assert worked and said == []
