"""The front page stands at the book's root address itself, with a title and a description, not behind a redirect."""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

TITLE = "Beyond the ELBO: what variational auto-encoders can do"


def entitle(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Called by Sphinx for each page: titles that say where one is; the front page's is not the book's name twice."""
    if pagename == app.config.root_doc:
        context["title"], context["docstitle"] = TITLE, ""
    for way in ("prev", "next"):  # "Next: 3. Likelihood regret", as in the contents at the left
        there = context.get(way)
        chapter = re.search(r"(?:^|notebooks/)(\d+)_", there["link"]) if there else None
        if chapter and not there["title"][0].isdigit():
            context[way] = {**there, "title": f"{int(chapter[1])}. {there['title']}"}
    if pagename.startswith("book/api/"):
        context["theme_show_toc_level"] = 3  # every function in the contents at the right


def at_the_root(html: str, page: str, address: str) -> str:
    """The front page for the root: links in it are relative to where it was written."""
    html = re.sub(r"<title>.*?</title>", f"<title>{TITLE}</title>", html, count=1, flags=re.DOTALL)
    html = html.replace(f"{address}{page}", address)
    return html.replace("<head>", f'<head>\n<base href="{page}"/>', 1)


def write(app: Sphinx, exception: Exception | None) -> None:
    """Called by Sphinx when all pages are written (and made light)."""
    page = f"{app.config.root_doc}.html"
    if exception is None and app.builder.format == "html":
        html = (Path(app.outdir) / page).read_text(encoding="utf-8")
        target = Path(app.outdir) / "index.html"
        target.write_text(at_the_root(html, page, app.config.html_baseurl), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("html-page-context", entitle)
    app.connect("build-finished", write, priority=950)
    return {"parallel_read_safe": True}
