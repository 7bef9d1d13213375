"""Tables of a chapter are numbered, as its figures are, and what is said right at one is its caption.

In a cell's output that is the line before a table that ends with a colon, and the line after it that says what its
numbers are means of; in the text, a line that begins with "Table:". On Colab and GitHub these are plain lines.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

AVERAGED = re.compile(r"\bmean (± |over )", re.IGNORECASE)
PROFILES = re.compile(r"smoke\s+cpu\s+night\s+gpu\s+paper")
SETTINGS = "What decides how long the chapter runs, in each profile; the column in bold is the one that ran."


def number(app: Sphinx, doctree: nodes.document) -> None:
    """Called by Sphinx when a page has been read."""
    if not (chapter := re.match(r"notebooks/(\d+)_", app.env.docname)):
        return
    for count, table in enumerate(list(doctree.findall(nodes.table)), start=1):
        where = f"{int(chapter[1])}.{count}"
        label = nodes.inline("", f"Table {where}.", classes=["vaekit-number"])
        title = nodes.title("", "", label)
        for said in captions(table):
            title += [nodes.Text(" "), *said]
        table.insert(0, title)


def anchor(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Called by Sphinx for each page, when all have been read: with an anchor before that, Sphinx would number too."""
    if chapter := re.match(r"notebooks/(\d+)_", docname):
        for count, table in enumerate(doctree.findall(nodes.table), start=1):
            table["ids"].append(f"table-{int(chapter[1])}-{count}")


def captions(table: nodes.table) -> list[list[nodes.Node]]:
    """What stands right at a table and speaks of it; it is taken out of where it stood."""
    siblings = table.parent.children
    place = siblings.index(table)
    before = siblings[place - 1] if place else None
    after = siblings[place + 1] if place + 1 < len(siblings) else None
    shown = _is_output(table)
    found = []
    for line in (before, after):
        if not isinstance(line, nodes.paragraph):
            continue
        text = line.astext()
        if text.startswith("Table: "):
            first = line.next_node(nodes.Text)
            first.parent.replace(first, nodes.Text(first.removeprefix("Table: ")))
        elif shown and line is before and text.endswith(":"):
            *_, last = line.findall(nodes.Text)
            last.parent.replace(last, nodes.Text(f"{last[:-1]}."))
        elif not (shown and line is after and AVERAGED.search(text) and not isinstance(before, nodes.table)):
            continue
        line.parent.remove(line)
        found.append(line.children)
    if not found and PROFILES.search(" ".join(entry.astext() for entry in table.findall(nodes.entry))):
        found.append([nodes.Text(SETTINGS)])
    return found


def _is_output(node: nodes.Node) -> bool:
    while (node := node.parent) is not None:
        if node.get("nb_element") == "cell_code_output":
            return True
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", number)
    app.connect("doctree-resolved", anchor)
    return {"parallel_read_safe": True}
