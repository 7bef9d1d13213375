"""Pages of the instructor's pack: Markdown with formulas, to be read on a screen and printed on paper."""

import html
import re
import shutil
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tools import assets

PAGE = (Path(__file__).parent / "document.html").read_text(encoding="utf-8")
DROPDOWN = re.compile(r"^:::\{dropdown\} (.*?)\n(.*?)^:::$", re.DOTALL | re.MULTILINE)


def formula(tex: str, options: dict) -> str:
    """A formula as MathJax finds it."""
    return (r"\[%s\]" if options["display_mode"] else r"\(%s\)") % html.escape(tex)


markdown = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=formula)


def page(text: str, kind: str = "") -> str:
    """A page's HTML; what the book folds stands open, in a box."""
    title = re.search(r"^# (.*)$", text, re.MULTILINE)
    opened = DROPDOWN.sub(lambda m: f'<div class="solution">\n\n**{m[1]}**\n\n{m[2]}\n</div>', text)
    named = PAGE.replace("@title@", html.escape(title[1] if title else "Page")).replace("@kind@", kind)
    return named.replace("@body@", markdown.render(opened))


def write(text: str, path: Path, kind: str = "") -> None:
    """Write a page, and beside it the formulas' renderer, once for the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.parent / "mathjax"
    if not target.is_dir():
        shutil.copytree(assets.VENDOR / f"mathjax-{assets.PACKAGES['mathjax'][1]}", target)
    path.write_text(page(text, kind), encoding="utf-8")
