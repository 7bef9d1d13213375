"""Files from a data folder, from the cache, or from the internet: with the digest they must have, or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaekit.datasets.sources import File

__all__ = ["cache_folder", "data_folder", "fetch", "find"]

ROUNDS = 5  # how often a mirror whose answer was cut off is asked to go on
TIMEOUT = (10, 60)  # seconds to connect, seconds of silence


def data_folder() -> Path | None:
    """The folder that `VAEKIT_DATA` names, or None where it is not set.

    Raises:
        ValueError: It is set and there is no such folder.
    """
    named = os.environ.get("VAEKIT_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(f"VAEKIT_DATA: expected a folder with data sets, got {named!r}, which is not a folder")
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: `VAEKIT_CACHE`, or the user's cache folder of the operating system."""
    named = os.environ.get("VAEKIT_CACHE")
    if named:
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("vaekit"))


def find(file: File, *, progress: bool = True) -> Path:
    """The path of `file`: in the data folder if it is there, else in the cache, downloaded if need be.

    Raises:
        ValueError: The data folder's file has another digest. (It is yours, so it is left alone.)
        ConnectionError: It is neither here nor to be had from any mirror; the message says where to put it.
    """
    folder = data_folder()
    if folder is None or not (path := folder / file.path).exists():
        return fetch(file, cache_folder(), progress=progress)
    if (digest := _digest(path, file)) != file.digest:
        raise ValueError(f"{path}: expected {file.digest}, got {digest}; replace it with {file.urls[0]}")
    return path


def fetch(file: File, folder: Path, *, progress: bool = True) -> Path:
    """Download `file` into `folder` unless it is already there with the right digest.

    The mirrors are tried in order. An answer that is cut off stays beside the file as `*.part` and is continued, from
    the same mirror or another, now or by the next call. A file whose digest differs is deleted, and it never bears its
    final name. Two processes that want the same file take turns.

    Raises:
        ConnectionError: No mirror gave the file; the message says why, and which file to put where.
    """
    path = folder / file.path
    if path.exists() and _digest(path, file) == file.digest:
        return path
    import pooch
    import requests

    part = path.with_name(path.name + ".part")
    mirrors, reasons = list(file.urls), {}
    with _turn(path):
        if path.exists() and _digest(path, file) != file.digest:
            path.unlink()
        for _ in range(ROUNDS):
            for url in tuple(mirrors):
                resumed = part.exists()
                download = _Download(part, progress)
                try:
                    return Path(pooch.retrieve(url, file.digest, path.name, path.parent, downloader=download))
                except requests.RequestException as error:
                    reasons[url] = str(error)
                    hopeless = not part.exists()
                except ValueError:  # pooch's word for a wrong digest
                    reasons[url] = f"what it sends is not the file with {file.digest}"
                    hopeless = not resumed  # else the beginning, from elsewhere or from before, may be at fault
                if hopeless:
                    mirrors.remove(url)
    tried = "".join(f"\n  {url}: {reason}" for url, reason in reasons.items())
    raise ConnectionError(
        f"{file.path}: not to be had from any mirror.{tried}\n"
        f"Without internet: get {file.urls[0]} on another machine and put it at {path}, or at {file.path} below a "
        f"folder that the environment variable VAEKIT_DATA names. Its digest must be {file.digest}."
    )


def _digest(path: Path, file: File) -> str:
    """The digest of what lies at `path`, written as in `file.digest`."""
    algorithm = file.digest.partition(":")[0]
    with path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


class _Download:
    """A downloader for pooch that goes on where the last one stopped."""

    def __init__(self, part: Path, progress: bool) -> None:
        self.part, self.progress = part, progress

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        import requests
        import urllib3
        from tqdm.auto import tqdm

        done = self.part.stat().st_size if self.part.exists() else 0
        # identity: a server that "helps" by compressing or unpacking .gz files would change both offsets and bytes
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()  # longer than the file: nothing to continue
                return self(url, output_file, pooch)
            response.raise_for_status()
            if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                done = 0  # the whole file, although a part was asked for
            length = response.headers.get("Content-Length")
            total = None if length is None else done + int(length)
            shown = {"total": total, "initial": done, "desc": self.part.stem, "disable": not self.progress}
            bar = tqdm(unit="B", unit_scale=True, **shown)
            with self.part.open("ab" if done else "wb") as out, bar:
                try:
                    for chunk in response.raw.stream(2**16, decode_content=False):
                        bar.update(out.write(chunk))
                except urllib3.exceptions.HTTPError as error:
                    raise requests.ConnectionError(f"cut off after {out.tell()} bytes ({error})") from error
        self.part.replace(output_file)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Hold the file's lock, so that two processes (ranks of one training run, say) do not write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: two at once may both fail on the digest, and neither keeps a wrong file
        yield
        return
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
