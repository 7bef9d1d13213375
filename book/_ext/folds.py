"""A run of folded cells is one fold, as long as nothing is shown between them: nine times "Show code" says nothing."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

APART = {"tag_setup", "tag_solution"}  # cells that the text speaks of by themselves


def merge(app: Sphinx, doctree: nodes.document) -> None:
    """Called by Sphinx when a page has been read: put the code of folded cells without output into the next one."""
    for cell in list(doctree.findall(_is_cell)):
        if cell["hide_mode"] == "input+output":
            cell["hide_mode"] = "all"
            cell["prompt_show"], cell["prompt_hide"] = "Show code and output", "Hide code and output"
        following = cell.next_node(descend=False, siblings=True)
        if len(cell) == 1 and _is_code(cell) and _is_code(following):
            following[0][:0] = cell[0].children
            cell.parent.remove(cell)


def _is_cell(node: nodes.Node | None) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code" and bool(node.get("hide_mode"))


def _is_code(node: nodes.Node | None) -> bool:
    """Whether it is a cell whose code alone is folded, and may stand in a fold with other code."""
    if not _is_cell(node) or not len(node) or node[0].get("nb_element") != "cell_code_source":
        return False
    return node["hide_mode"] == "input" and not APART & set(node["classes"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", merge)
    return {"parallel_read_safe": True}
