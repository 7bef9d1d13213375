"""Live figures in the book: their runtime and style on the pages that have one, and two directives.

`{live} flow` puts a figure that needs no trained model on a page; `{live-lecture}` all figures of the book on one page,
to be shown full screen one after the other.

A chapter's stored output carries its own runtime. Here the page loads the present one, and the copies are left out, so
that what is mended in the runtime needs no new run of the chapters.
"""

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from vaekit.notebook import live  # noqa: E402
from vaekit.notebook.live import form  # noqa: E402

SCRIPT, STYLE = "vaekit-live.js", "live.css"
FIGURE = re.compile(r'<figure class="vaekit-live".*?</figure>(?=<script>)', re.DOTALL)
COPY = re.compile(r'(<figure class="vaekit-live".*?</figure>)<script>.*?</script>', re.DOTALL)
WITHOUT_MODEL = {"flow": live.flow, "basis": live.basis, "influence": live.influence_points}


def drawn(kind: str) -> str:
    """The HTML of a figure that needs no model."""
    with form.collected() as figures:
        WITHOUT_MODEL[kind]()
    return COPY.sub(r"\1", figures[0])


def stored() -> list[tuple[str, str, str]]:
    """Page, title and HTML of every live figure that the chapters have stored, but for sliders over pictures."""
    parts = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    found = []
    for page in (chapter["file"] for part in parts for chapter in part["chapters"]):
        path = ROOT / f"{page}.ipynb"
        if not path.is_file():
            continue
        notebook = nbformat.read(path, 4)
        title = re.sub(r"^#+\s*", "", notebook.cells[0].source.split("\n")[0])
        outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
        texts = ("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
        found += [(page, title, text) for html in texts for text in FIGURE.findall(html) if 'kind="slider"' not in text]
    return found


class Live(SphinxDirective):
    """`{live} flow`: one figure."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The figure as raw HTML."""
        if self.arguments[0] not in WITHOUT_MODEL:
            raise self.error(f"live: expected one of {', '.join(WITHOUT_MODEL)}, got {self.arguments[0]}")
        return [nodes.raw("", drawn(self.arguments[0]), format="html")]


class Lecture(SphinxDirective):
    """`{live-lecture}`: all figures, one after the other."""

    def run(self) -> list[nodes.Node]:
        """A section for each figure, with buttons that book/_static/lecture.js gives their meaning."""
        for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
            self.env.note_dependency(str(path))
        figures = stored()
        kinds = {re.search(r'kind="(\w+)"', html)[1] for *_, html in figures}  # type: ignore[index]
        extra = {"flow": "The ring", "basis": "A basis to turn", "influence": "Influence by hand"}
        figures += [("", title, drawn(kind)) for kind, title in extra.items() if kind not in kinds]
        buttons = '<button type="button" class="vaekit-show">Full screen</button>'
        sections = (
            f'<section class="vaekit-lecture" aria-label="{title}, figure {k}">'
            f'<p class="vaekit-lecture-title">{k}. {title}</p>{html}{buttons}</section>'
            for k, (_, title, html) in enumerate(figures, 1)
        )
        return [nodes.raw("", "\n".join(sections), format="html")]


def write(app: Sphinx) -> None:
    """The runtime of all kinds, beside the book's other static files."""
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPT).write_text(form.runtime(), encoding="utf-8")


def load(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """On pages with a live figure: load runtime and style, and leave out the copies of the runtime."""
    if "<vaekit-live" in context.get("body", ""):
        context["body"] = COPY.sub(r"\1", context["body"])
        app.add_js_file(SCRIPT, priority=150)
        app.add_css_file(STYLE)
        if 'class="vaekit-lecture"' in context["body"]:
            app.add_js_file("lecture.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("live", Live)
    app.add_directive("live-lecture", Lecture)
    app.connect("builder-inited", write)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True}
