"""One process at a time for each piece of work: who comes second waits, and then finds the result in the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vaekit.notebook import store


@contextmanager
def turn(name: str, path: Path) -> Iterator[None]:
    """Inside, no other process computes the entry `path`; a process that was killed holds nothing up.

    Where the file system knows no locks, all go ahead at once: the entry stays whole, since it is written in one step,
    but a training that two processes share may have to be started again.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        store.say(f"{name}: another process is at work on it; this one waits for the result")
        lock.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
