"""Pictures out of the pages: each in a file, its size given, loaded when it comes near; figures are numbered.

A notebook's figure is HTML with the picture inside, so that the notebook is whole. In the book that would make
a page of megabytes that has to arrive before its last paragraph can be read.
"""

import base64
import hashlib
import re
import struct
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

INSIDE = re.compile(
    r'<img(?P<before>[^>]*?) src="data:image/(?P<kind>png|svg\+xml);base64,(?P<data>[^"]+)"(?P<after>[^>]*)>'
)
CAPTION = re.compile(r"(?P<tag><figcaption[^>]*>)")
WIDE = re.compile(r'(<figure class="vaekit-figure">)(<img [^>]*?\bwidth="(\d+)"[^>]*>)')
FOLDER = "_images"


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels of a PNG."""
    return struct.unpack(">II", png[16:24])


def take_out(text: str, folder: Path, prefix: str) -> str:
    """The HTML with its pictures written to `folder`, which it calls `prefix`."""

    def to_file(match: re.Match[str]) -> str:
        data = base64.b64decode(match["data"])
        suffix = "png" if match["kind"] == "png" else "svg"
        name = f"{hashlib.sha256(data).hexdigest()[:20]}.{suffix}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).is_file():
            (folder / name).write_bytes(data)
        rest = f"{match['before']}{match['after']}"
        sizes = ""
        if suffix == "png" and " width=" not in rest:
            sizes = ' width="{}" height="{}"'.format(*size(data))
        lazy = "" if " loading=" in rest else ' loading="lazy" decoding="async"'
        return f'<img src="{prefix}{name}"{sizes}{lazy}{rest}>'

    return INSIDE.sub(to_file, text)


def in_a_box(text: str) -> str:
    """The HTML with each figure's picture in a box that knows its width: on a phone it scrolls rather than shrinks."""
    return WIDE.sub(r'\1<div class="vaekit-view" style="--vaekit-width:\3px">\2</div>', text)


def mend(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Called by Sphinx for each page: treat its outputs, and number the figures of a chapter."""
    if app.builder.format != "html":
        return
    up = "../" * docname.count("/")
    chapter = re.match(r"notebooks/(\d+)_", docname)
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        where = f"{int(chapter[1])}.{count}"
        anchor = f'<span class="vaekit-number" id="figure-{where.replace(".", "-")}">Figure {where}.</span> '
        return match["tag"] + anchor

    for raw in doctree.findall(nodes.raw):
        if "html" in raw.get("format", "") and "<" in raw.astext():
            text = in_a_box(take_out(raw.astext(), Path(app.outdir) / FOLDER, f"{up}{FOLDER}/"))
            text = CAPTION.sub(number, text) if chapter else text
            if text != raw.astext():
                raw[:] = [nodes.Text(text)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-resolved", mend, priority=700)
    return {"parallel_read_safe": True}
