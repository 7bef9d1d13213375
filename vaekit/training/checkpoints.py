"""Checkpoint files: written whole or not at all, read whole or not at all, and without running any code in them."""

import contextlib
import glob
import io
import os
import secrets
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

FORMAT = "vaekit-1"


def save_checkpoint(path: Path | str, content: dict[str, Any]) -> Path:
    """Write `content` so that `path` holds, at every moment, either what it held before or all of the new content.

    The bytes go to a temporary file beside `path`, are forced to disk and then take its name in one step. What a
    process that was killed left behind of an earlier attempt is removed.

    Args:
        path: The file, in a folder that exists; it gets the mode that the umask gives to new files.
        content: Tensors, numbers, strings, and lists and dictionaries of these.

    Raises:
        OSError: The folder cannot be written or the disk is full; what was at `path` is untouched.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    try:
        remove_orphans(path)
        with _beside(path) as (unfinished, file):
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # where an open file cannot be renamed
                file.close()
            unfinished.replace(path)
    except OSError as error:
        message = f"could not write the checkpoint ({error.strerror}); an earlier one is untouched"
        raise OSError(error.errno, message, str(path)) from error
    return path


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint that `fit` wrote, onto the CPU; the checksum of every tensor in it is compared first.

    Returns:
        `model` and `objective` (state dictionaries), `lr`, `epoch`, `step`, `train` and `validation` (nats per epoch).
        `model.load_state_dict(load_checkpoint(path)["model"])` brings a model back.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is cut off or damaged, is not a checkpoint of this library, or holds more than weights and
            numbers.
    """
    if not isinstance(path, Path | str):
        raise ValueError(f"path: expected a file's path, got {type(path).__name__}")
    stored = io.BytesIO(Path(path).read_bytes())
    try:
        with zipfile.ZipFile(stored) as archive:  # torch writes these checksums but does not read them
            damaged = archive.testzip()
        stored.seek(0)
        content = None if damaged else torch.load(stored, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes did to the reader, they are not a checkpoint
        raise ValueError(
            f"{path}: expected a whole vaekit checkpoint, got a truncated, damaged or foreign file"
        ) from error
    if damaged:
        raise ValueError(f"{path}: expected a whole vaekit checkpoint, got a damaged file: wrong checksum of {damaged}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a checkpoint written by vaekit's fit, got another program's file")
    return content


def ensure_writable(folder: Path) -> None:
    """Create `folder` if need be, and find out now, not after the first epoch, whether files can be written there.

    Raises:
        OSError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"checkpoints: cannot write to this folder ({error.strerror})"
        raise type(error)(error.errno, message, str(folder)) from error


def remove_orphans(path: Path) -> None:
    """Remove temporary files of `path` whose writers are no more; one that is being written is locked, and stays."""
    for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), unfinished.open("rb") as file:
            _lock(file)
            unfinished.unlink()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside `path`, locked while it is open, and gone at the end unless it has been given its name."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("xb") as file:
            with contextlib.suppress(OSError):  # some network folders know no locks
                _lock(file)
            yield unfinished, file
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _lock(file: IO[bytes]) -> None:
    """Lock an open file until it is closed, or its process ends.

    Raises:
        OSError: Another process holds the lock, or the file system knows none.
    """
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
