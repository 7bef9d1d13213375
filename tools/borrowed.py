"""Compute for a while on a machine that is lent, and carry home what was finished: no Jupyter, no network needed.

    python -m tools.borrowed --minutes 9 --in carried --out carried 01_vae 02_hamiltonian_vae

runs the chapters' scripts one after the other and stops by itself: what is being computed is interrupted, at most one
epoch or chunk of it is lost, and all that the store of runs has gained lies in `--out`, in at most 8 files of at most
16 MiB. `--in` first brings such files into the store; the next run, here or elsewhere, goes on from there.
"""

import argparse
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tools.progress import Progress
from vaekit.notebook import store
from vaekit.notebook.experiments import PROFILES

CHAPTERS = Path(__file__).resolve().parent.parent / "notebooks"
PARTS, LIMIT = 8, 16 * 2**20  # files, bytes in each
BLOCK = 512  # a tar archive's unit

Stamps = dict[str, tuple[int, int]]


def run(chapters: list[str], profile: str, seconds: float) -> list[str]:
    """Run scripts one after the other for at most `seconds`; returns those that ended by an error."""
    end, failed = time.monotonic() + seconds, []
    environment = os.environ | {"VAEKIT_PROFILE": profile, "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
    for chapter in chapters:
        if (left := end - time.monotonic()) <= 0:
            print(f"{chapter}: no time left")
            continue
        with Progress(f"{chapter} {profile}") as progress:
            environment["VAEKIT_PROGRESS"] = os.environ["VAEKIT_PROGRESS"]
            work = subprocess.Popen(
                [sys.executable, str(CHAPTERS / f"{chapter}.py")], cwd=CHAPTERS, env=environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                errors, status = work.communicate(timeout=left)[1], "finished"
            except subprocess.TimeoutExpired:
                errors, status = _stop(work), "stopped in time; it goes on from there"
            if work.returncode and status == "finished":
                status = f"ended by an error:\n{errors[-2000:]}"
                failed.append(chapter)
        print(f"{chapter}: {status} ({len(progress.seconds)} pieces are done)", flush=True)
    return failed


def _stop(work: subprocess.Popen) -> str:
    """Interrupt a script as Ctrl-C does; one that does not heed it is killed, which the store survives as well."""
    work.send_signal(signal.SIGINT)
    try:
        return work.communicate(timeout=5)[1]
    except subprocess.TimeoutExpired:
        work.kill()
        return work.communicate()[1]


def stamps(folder: Path) -> Stamps:
    """When each file of the store was last changed, and its size."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.stat().st_size) for p in files}


def pack(folder: Path, names: list[str], out: Path) -> list[str]:
    """Write files of the store into at most `PARTS` archives; returns the names of those that did not fit.

    Finished work goes first, then what unfinished work resumes from, then checkpoints of single epochs. A file that is
    larger than an archive may be is cut into pieces.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("runs-*.tar"):
        old.unlink()
    order = sorted(names, key=lambda n: (not n.endswith(".run"), "/epoch-" in n, n))
    room, contents, left_out = [LIMIT - 20 * BLOCK] * PARTS, [list[tuple[str, int, int]]() for _ in range(PARTS)], []
    most = LIMIT - 24 * BLOCK
    for name in order:
        size, before = (folder / name).stat().st_size, list(room)
        cuts = range(0, max(size, 1), most)
        placed = []
        for k, start in enumerate(cuts):
            length = min(most, size - start)
            need = -(-length // BLOCK) * BLOCK + 4 * BLOCK  # with its head, and a long name's
            part = next((i for i in range(PARTS) if room[i] >= need), None)
            if part is None:
                break
            room[part] -= need
            placed.append((part, f"{name}#{k}#{len(cuts)}", start, length))
        if len(placed) < len(cuts):
            room, _ = before, left_out.append(name)
            continue
        for part, label, start, length in placed:
            contents[part].append((label, start, length))
    for part, pieces in enumerate(contents):
        if not pieces:
            continue
        with tarfile.open(out / f"runs-{part}.tar", "w") as archive:
            for label, start, length in pieces:
                path = folder / label.split("#")[0]
                entry = tarfile.TarInfo(label)
                entry.size, entry.mtime = length, path.stat().st_mtime
                with path.open("rb") as stream:
                    stream.seek(start)
                    archive.addfile(entry, io.BytesIO(stream.read(length)))
    return left_out


def unpack(source: Path, folder: Path) -> list[str]:
    """Bring archives that `pack` wrote into the store; returns the names of files that are not whole.

    Raises:
        ValueError: An archive that is not one, or a name that leads out of the store.
    """
    pieces: dict[str, dict[int, tuple[bytes, float, int]]] = {}
    for path in sorted(source.glob("runs-*.tar")):
        for label, content, changed in _members(path):
            name, number, count = label.rsplit("#", 2)
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise ValueError(f"{path.name}: expected names inside the store, got {name!r}")
            pieces.setdefault(name, {})[int(number)] = (content, changed, int(count))
    broken = []
    for name, found in pieces.items():
        if len(found) < found[min(found)][2]:
            broken.append(name)
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=".unfinished-")
        with os.fdopen(handle, "wb") as stream:
            for number in sorted(found):
                stream.write(found[number][0])
        os.utime(unfinished, (found[0][1], found[0][1]))
        Path(unfinished).replace(target)
    return broken


def _members(path: Path) -> Iterator[tuple[str, bytes, float]]:
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                if (stream := archive.extractfile(entry)) is not None and entry.name.count("#") >= 2:
                    yield entry.name, stream.read(), entry.mtime
    except tarfile.TarError as error:
        raise ValueError(f"{path.name}: expected an archive of runs, got something else ({error})") from None


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.borrowed", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="how long, all in all; without it nothing is computed")
    parser.add_argument("--profile", default="gpu", choices=PROFILES)
    parser.add_argument("--in", dest="source", type=Path, help="a folder of archives to bring into the store first")
    parser.add_argument("--out", type=Path, help="the folder for what the store has gained")
    parser.add_argument("chapters", nargs="*", help="such as 01_vae; all, if none is named")
    asked = parser.parse_args(arguments)
    began, folder = time.monotonic(), store.folder()
    existing = [path.stem for path in sorted(CHAPTERS.glob("[0-9]*.py"))]
    if unknown := sorted(set(asked.chapters) - set(existing)):
        parser.error(f"no such chapter: {', '.join(unknown)}; there are {', '.join(existing)}")
    before = stamps(folder)
    if asked.source:
        for name in unpack(asked.source, folder):
            print(f"{name}: not whole, left out")
    failed = []
    if asked.minutes:
        reserve = min(30.0, 6 * asked.minutes)  # for stopping and packing
        left = 60 * asked.minutes - reserve - (time.monotonic() - began)
        failed = run(asked.chapters or existing, asked.profile, left)
    if asked.out:
        new = [name for name, stamp in stamps(folder).items() if before.get(name) != stamp and name != "times.json"]
        for name in pack(folder, new, asked.out):
            print(f"{name}: there was no room for it")
        print(f"{len(new)} files of the store in {asked.out}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
