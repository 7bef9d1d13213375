"""Checkpoint files: written whole or not at all, read without running any code that they might carry."""

import contextlib
import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

FORMAT = "vaekit-1"


def save_checkpoint(path: Path | str, content: dict[str, Any]) -> Path:
    """Write `content` so that `path` holds, at every moment, either what it held before or all of the new content.

    The bytes go to a temporary file beside `path`, are forced to disk and then take its name in one step.

    Args:
        path: The file, in a folder that exists.
        content: Tensors, numbers, strings, and lists and dictionaries of these.

    Raises:
        OSError: The folder cannot be written or the disk is full; what was at `path` is untouched.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).replace(path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not write the checkpoint ({error.strerror}); an earlier one is untouched", str(path)
        ) from error
    finally:
        with contextlib.suppress(OSError):
            Path(unfinished).unlink()  # there only if the replacement did not happen
    return path


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint that `fit` wrote, onto the CPU.

    Returns:
        `model` and `objective` (state dictionaries), `lr`, `epoch`, `step`, `train` and `validation` (nats per epoch).
        `model.load_state_dict(load_checkpoint(path)["model"])` brings a model back.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is cut off, is not a checkpoint of this library, or holds more than weights and numbers.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: expected a whole vaekit checkpoint, got a truncated or foreign file") from error
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
