"""Numbers as a printer sets them, whatever a program wrote: -0.5, 2.8e-14 and 97% become −0.5, 2.8 × 10⁻¹⁴ and 97 %.

A value, its standard error and its per cent stay on one line. A column of a table that holds words begins at the left.
"""

import re
from decimal import Decimal
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NBSP = "\N{NO-BREAK SPACE}"
NOT_WITHIN = (
    nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block, nodes.raw, nodes.comment,
)  # fmt: skip
SCIENTIFIC = re.compile(r"(?<![\w.])([+-]?\d+(?:\.\d+)?)e([+-]?\d{1,3})(?!\w)")
MINUS = re.compile(r"(?<![\w.)\]%°’'*/-])-(?=\d)")
POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NUMBER = re.compile(r"[+−-]?\d|[–-]$")


def numbers(text: str) -> str:
    """The text with its numbers set; done twice it is the same."""
    text = MINUS.sub("−", SCIENTIFIC.sub(_plain, text))
    text = re.sub(r"(?<=\d) ?%(?!\w)", f"{NBSP}%", text)
    return re.sub(r"(?<=\d) ± (?=\d)", f"{NBSP}±{NBSP}", text)


def _plain(match: re.Match[str]) -> str:
    """A number in scientific notation: written out where that is short, else with a power of ten."""
    mantissa, exponent = match[1], int(match[2])
    if Decimal(mantissa) == 0:
        return "0"
    if -4 < exponent < 5:
        return f"{Decimal(match[0]):f}"
    return f"{mantissa} × 10{str(exponent).translate(POWERS)}"


def begin_at_the_left(table: nodes.table) -> None:
    """Where no cell of a column is a number, its right alignment, which is for numbers, goes."""
    rows = [list(row) for row in table.findall(nodes.row)]
    body = [list(row) for part in table.findall(nodes.tbody) for row in part]
    if not body or len({len(row) for row in rows}) != 1:
        return
    for j in range(1, len(rows[0])):
        if not any(NUMBER.match(row[j].astext().strip()) for row in body):
            for row in rows:
                row[j]["classes"] = [name for name in row[j]["classes"] if name != "text-right"]


def mend(app: Sphinx, doctree: nodes.document) -> None:
    """Called by Sphinx when a page has been read."""
    for text in list(doctree.findall(nodes.Text)):
        if "://" not in text and (new := numbers(str(text))) != text and not _is_within(text, NOT_WITHIN):
            text.parent.replace(text, nodes.Text(new))
    for table in doctree.findall(nodes.table):
        begin_at_the_left(table)


def _is_within(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while (node := node.parent) is not None:
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", mend)
    return {"parallel_read_safe": True}
