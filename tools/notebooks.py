"""The chapters as pairs: `notebooks/NN_name.py`, which people edit, and `notebooks/NN_name.ipynb`, which they open.

Run as a script, it brings every `.ipynb` up to its `.py`. An output is kept where its cell still does the same.
"""

import ast
import hashlib
import json
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from vaekit.notebook.sources import written_out

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
STANDALONE = frozenset({"exercise", "check", "solution", "warm-up", "standalone"})  # tags
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read_script(script: Path) -> NotebookNode:
    """The notebook that a `.py` stands for, without outputs; a cell's id follows from its source."""
    notebook = jupytext.read(script)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python"))
    seen: set[str] = set()
    for cell in notebook.cells:
        cell.metadata = NotebookNode(tags=tags(cell)) if tags(cell) else NotebookNode()
        if "solution" in tags(cell) and cell.cell_type == "code":  # folded in JupyterLab and on Colab too
            cell.metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
        digest = hashlib.sha256(cell.source.encode()).hexdigest()
        cell.id = next(name for i in range(10_000) if (name := f"{digest[:8]}-{i}" if i else digest[:8]) not in seen)
        seen.add(cell.id)
    return notebook


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags."""
    return list(cell.metadata.get("tags", []))


def code(source: str) -> str:
    """What a cell's code does, without what cannot change its output: layout, comments, and where names come from."""
    return written_out([node for node in ast.parse(source).body if not isinstance(node, ast.Import | ast.ImportFrom)])


def standalone(cell: NotebookNode) -> bool:
    """Whether a cell does not depend on the chapter's run: an exercise, or one that says so by its tag."""
    return cell.cell_type == "code" and not STANDALONE.isdisjoint(tags(cell))


def hashes(notebook: NotebookNode) -> dict[str, str]:
    """SHA-256 of what the code cells do, in order: what the stored outputs depend on.

    Two parts: `standalone` for the cells that run without the chapter's experiments, `sources` for all others. Prose
    and layout are left out, imports too (a name that is missing stops a run, and the tests run every cell), and so is
    the set-up cell, in which a fork has its own address.
    """
    parts: dict[str, list[str]] = {"sources": [], "standalone": []}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "setup" not in tags(cell):
            parts["standalone" if standalone(cell) else "sources"].append(code(cell.source))
    return {part: hashlib.sha256(json.dumps(cells).encode()).hexdigest() for part, cells in parts.items()}


def differences(script: Path) -> list[str]:
    """Where a `.py` and its `.ipynb` say something different; empty for a true pair."""
    if not script.with_suffix(".ipynb").is_file():
        return [f"{script.name} has no .ipynb"]
    ours, theirs = (
        [(cell.cell_type, cell.source.rstrip(), tags(cell)) for cell in notebook.cells]
        for notebook in (read_script(script), nbformat.read(script.with_suffix(".ipynb"), 4))
    )
    found = [f"cell {i}: {a!r} against {b!r}" for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    if len(ours) != len(theirs):
        found.append(f"{len(ours)} cells against {len(theirs)}")
    return found


def synchronise(script: Path) -> bool:
    """Make the `.ipynb` follow its `.py`; returns whether it changed."""
    path, notebook = script.with_suffix(".ipynb"), read_script(script)
    if path.is_file():
        old = nbformat.read(path, 4)
        notebook.metadata |= {key: old.metadata[key] for key in ("widgets", "vaekit") if key in old.metadata}
        executed: dict[str, list[NotebookNode]] = {}
        for cell in old.cells:
            if cell.cell_type == "code":
                executed.setdefault(code(cell.source), []).append(cell)
        for cell in notebook.cells:
            if cell.cell_type == "code" and (same := executed.get(code(cell.source))):
                before = same.pop(0)
                cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return write(notebook, path)


def write(notebook: NotebookNode, path: Path) -> bool:
    """Write a notebook whole or not at all; returns whether the file changed."""
    text = nbformat.writes(notebook, 4) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    return True


if __name__ == "__main__":
    for script in sorted(FOLDER.glob("[0-9]*.py")):
        if synchronise(script):
            print(f"{script.stem}.ipynb now follows {script.name}")
