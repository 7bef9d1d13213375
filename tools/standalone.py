"""Cells that do not depend on a chapter's experiments: exercises, and what is tagged `standalone`.

They run by themselves after the set-up cell, the imports (the first other code cell) and what is tagged `settings` or
`shared` (a function that both the chapter and its exercises use), in seconds. Their outputs are spliced into the
notebook; everything else in it stays as it was stored.
"""

import json
import re
import symtable
from collections.abc import Callable, Iterator

from nbformat import NotebookNode

from tools.notebooks import hashes, standalone, tags

FOUNDATION = frozenset({"setup", "settings", "shared"})  # tags
WIDGETS = "application/vnd.jupyter.widget-state+json"


def foundation(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that the others build on: set-up, imports (the first other code cell), settings, shared."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    imports = next((cell for cell in cells if "setup" not in tags(cell) and not standalone(cell)), None)
    return [cell for cell in cells if cell is imports or not FOUNDATION.isdisjoint(tags(cell))]


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell reads, in its functions too, and those that it binds."""

    def inside(table: symtable.SymbolTable) -> Iterator[str]:
        for child in table.get_children():
            yield from (s.get_name() for s in child.get_symbols() if s.is_global() and s.is_referenced())
            yield from inside(child)

    top = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    return {s.get_name() for s in top.get_symbols() if s.is_referenced()} | set(inside(top)), bound


def tangles(notebook: NotebookNode) -> list[str]:
    """Where a standalone cell uses what the chapter's run makes, or the run what a standalone cell makes."""
    found: list[str] = []
    makers: dict[str, tuple[int, str]] = {}  # of each name so far, the last
    base = foundation(notebook)
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        kind = "foundation" if any(cell is b for b in base) else "standalone" if standalone(cell) else "run"
        reads, bound = names(cell.source)
        for name in sorted((reads - bound) & set(makers)):
            maker, made_by = makers[name]
            if made_by not in ("foundation", kind):
                whose = "the chapter's run makes" if made_by == "run" else "an exercise makes"
                found.append(f"code cell {number} uses {name}, which {whose} in code cell {maker}")
        makers |= dict.fromkeys(bound, (number, kind))
    return found


def splice(notebook: NotebookNode, run: Callable[[NotebookNode], NotebookNode]) -> None:
    """Run the standalone cells of `notebook` by themselves and put their outputs in, in place.

    Args:
        notebook: With the stored outputs of the other cells.
        run: Executes a notebook in place, in a fresh kernel, and returns it.
    """
    base = foundation(notebook)
    cells = [c for c in notebook.cells if standalone(c) or any(c is b for b in base)]
    part = NotebookNode(json.loads(json.dumps(notebook | {"cells": cells})), metadata={})
    part = _nodes(part)
    run(part)
    for cell, done in zip(cells, part.cells, strict=True):
        if standalone(cell):
            cell.outputs = done.outputs
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    _merge_widgets(notebook, part)
    notebook.metadata.vaekit["standalone"] = hashes(notebook)["standalone"]


def _nodes(value: object) -> object:
    """Dictionaries as nbformat's own, all the way down."""
    if isinstance(value, dict):
        return NotebookNode({key: _nodes(item) for key, item in value.items()})
    return [_nodes(item) for item in value] if isinstance(value, list) else value


def _merge_widgets(notebook: NotebookNode, part: NotebookNode) -> None:
    """The widgets' states of both, as far as an output shows them or they are tied to a shown one (as a link is)."""
    states = [book.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}) for book in (notebook, part)]
    state = states[0] | states[1]
    ties: dict[str, set[str]] = {name: set() for name in state}
    for name, model in state.items():
        for other in set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(model))) & set(state):
            ties[name].add(other)
            ties[other].add(name)
    shown = set(re.findall(r'"model_id": "(\w+)"', json.dumps([c.get("outputs", []) for c in notebook.cells])))
    kept, new = set(), shown & set(state)
    while new:
        kept |= new
        new = set().union(*(ties[name] for name in new)) - kept
    notebook.metadata.pop("widgets", None)
    if kept:
        content = {"state": {k: state[k] for k in state if k in kept}, "version_major": 2, "version_minor": 0}
        notebook.metadata["widgets"] = _nodes({WIDGETS: content})
