"""Run a chapter in a profile and store its outputs: `python -m tools.execute 01_vae cpu`.

`python -m tools.execute 01_vae --standalone` runs only the cells that do not depend on the chapter's experiments, such
as exercises, in the profile of the stored outputs, and leaves the other cells' outputs as they are.

What is stored says where it is from: `metadata.vaekit` has the profile, device, date, commit, seconds, and the hash of
the code that ran. A run that stops, by an error or by hand, leaves the notebook as it was, and what it had finished
lies in the store of runs: the next one goes on from there. `VAEKIT_FRESH=1` leaves the store aside; `VAEKIT_NOTE` adds
a word to the record, such as that the machine was busy.
"""

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tools.notebooks import FOLDER, ROOT, hashes, read_script, synchronise, write
from tools.progress import Progress
from tools.standalone import splice, tangles
from tools.weights import keep_weights
from vaekit.notebook import experiments


def run(notebook: NotebookNode, profile: str) -> NotebookNode:
    """Execute a notebook in place, in the chapters' folder and a fresh kernel."""
    os.environ |= {"VAEKIT_PROFILE": profile, "VAEKIT_STORING": "1"}
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False, store_widget_state=True, coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    return client.execute()


def execute(script: Path, profile: str) -> NotebookNode:
    """The notebook of a `.py`, with outputs, widgets' state and provenance."""
    notebook = read_script(script)
    metadata = dict(notebook.metadata)
    started = perf_counter()
    with Progress(f"{script.stem} {profile}") as progress:
        run(notebook, profile)
    origin = {
        "profile": profile,
        "device": experiments.device_name(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": experiments._commit(),
        "seconds": round(perf_counter() - started + progress.found),  # with what was found in the store
    }
    if note := os.environ.get("VAEKIT_NOTE"):
        origin["note"] = note
    keep_weights(progress.events, profile)
    widgets = notebook.metadata.get("widgets")
    origin |= hashes(notebook)
    notebook.metadata = NotebookNode(metadata | {"vaekit": origin} | ({"widgets": widgets} if widgets else {}))
    return notebook


def execute_standalone(script: Path) -> NotebookNode:
    """The stored notebook of a `.py`, with new outputs of the cells that do not depend on its experiments."""
    if found := tangles(read_script(script)):
        sys.exit("\n".join([f"{script.stem}: its exercises do not stand by themselves", *found]))
    synchronise(script)
    notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
    if "vaekit" not in notebook.metadata:
        sys.exit(f"{script.stem}: has no stored outputs yet; run it in a profile first")
    splice(notebook, lambda part: run(part, notebook.metadata.vaekit["profile"]))
    return notebook


def strip_paths(notebook: NotebookNode) -> None:
    """Take this machine's folders out of the stored text."""
    folders = re.compile("|".join(re.escape(f"{folder}{os.sep}") for folder in (ROOT, sys.prefix, Path.home())))
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = folders.sub("", output.text)
            for kind, text in output.get("data", {}).items():
                if kind.startswith("text/") and isinstance(text, str):
                    output.data[kind] = folders.sub("", text)


def destination(script: Path, profile: str) -> Path:
    """The paired notebook; but where that holds a better profile's outputs of the same code, a file under `_build`."""
    path = script.with_suffix(".ipynb")
    if path.is_file():
        stored = nbformat.read(path, 4).metadata.get("vaekit", {})
        fresh = hashes(read_script(script)).items() <= stored.items()
        if fresh and experiments.PROFILES.index(stored["profile"]) > experiments.PROFILES.index(profile):
            elsewhere = ROOT / "_build" / "notebooks" / profile
            elsewhere.mkdir(parents=True, exist_ok=True)
            return elsewhere / path.name
    return path


def main(chapter: str, profile: str) -> None:
    """Run `notebooks/<chapter>.py` and store what it shows."""
    script = FOLDER / f"{chapter}.py"
    if not script.is_file():
        sys.exit(f"{chapter}: no such chapter; there are {', '.join(p.stem for p in sorted(FOLDER.glob('[0-9]*.py')))}")
    if profile == "--standalone":
        notebook, path = execute_standalone(script), script.with_suffix(".ipynb")
        said = f"the standalone cells ran in the profile {notebook.metadata.vaekit['profile']}"
    elif profile in experiments.PROFILES:
        notebook, path = execute(script, profile), destination(script, profile)
        said = f"{notebook.metadata.vaekit['seconds']} s in the profile {profile}"
    else:
        sys.exit(f"{profile}: no such profile; there are {', '.join(experiments.PROFILES)}, or --standalone")
    strip_paths(notebook)
    write(notebook, path)
    print(f"{path.relative_to(ROOT)}: {said}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tools.execute CHAPTER PROFILE|--standalone")
    main(*sys.argv[1:])
