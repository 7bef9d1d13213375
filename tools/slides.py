"""Decks by session: `python -m tools.slides [--pdf] [folder]` writes `book/slides/session-*.md` as reveal.js decks.

A deck is Markdown: slides between lines of `---`, each a heading with its kind, its sections and its minutes, such as

    ## Who is noisier, and by how much? {vote | 1 §4 | 5 min}
    Text, formulas between dollars, numbers as {{01_vae: NLL}} from the stored results, and one figure:
    ![what to see](figure:naive)
    Notes:
    What the speaker says; shown by the key S, and in print.
"""

import argparse
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tools import assets
from tools.course import numbers
from tools.course.figures import figure
from tools.notebooks import ROOT
from vaekit.notebook.live import form

DECKS = ROOT / "book" / "slides"
PAGE = (Path(__file__).parent / "slides.html").read_text(encoding="utf-8")
KINDS = {
    "title": "", "claim": "", "board": "At the board", "predict": "Predict", "vote": "Vote", "show": "And the answer",
    "try": "Your turn", "live": "Try it", "break": "Break", "exit": "Exit question", "home": "At home",
}  # fmt: skip
ANSWER = "A full answer:"
HEADING = re.compile(r"^(#{1,2}) (.*?) \{([^}]*)\}\n")
OPTIONS = re.compile(r"^\*\*A\*\* .*?  \*\*B\*\*.*$", re.MULTILINE)
FIGURE = re.compile(r"^!\[([^\]]*)\]\(figure:([\w-]+)\)$", re.MULTILINE)


class Slide(NamedTuple):
    """One slide as it is written."""

    heading: str
    kind: str
    sections: tuple[str, ...]  # such as "1 §4"
    minutes: int
    beside: bool  # the figure to the right of the text instead of below it
    text: str
    notes: str


def read(path: Path) -> list[Slide]:
    """The slides of a deck.

    Raises:
        ValueError: A slide has no heading of the form above, an unknown kind, no notes, or more than one figure.
    """
    slides = []
    for number, source in enumerate(re.split(r"^---\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE), 1):
        where = f"{path.name}, slide {number}"
        found = HEADING.match(source.strip() + "\n")
        if not found:
            raise ValueError(f"{where}: expected a heading such as '## Text {{claim | 1 §2 | 5 min}}'")
        kind, *rest = (part.strip() for part in found[3].split("|"))
        if kind not in KINDS:
            raise ValueError(f"{where}: expected a kind among {', '.join(KINDS)}, got {kind!r}")
        text, separator, notes = (source.strip() + "\n")[found.end() :].partition("Notes:\n")
        if not separator or not notes.strip():
            raise ValueError(f"{where}: expected a line 'Notes:' and notes below it")
        if len(FIGURE.findall(text)) > 1:
            raise ValueError(f"{where}: expected one figure at most")
        minutes = sum(int(part.removesuffix(" min")) for part in rest if part.endswith(" min"))
        sections = tuple(part for part in rest if re.fullmatch(r"\d §\d+", part))
        slides.append(Slide(found[2], kind, sections, minutes, "beside" in rest, text.strip(), notes.strip()))
    return slides


def decks() -> dict[str, list[Slide]]:
    """All decks by name."""
    return {path.stem: read(path) for path in sorted(DECKS.glob("session-*.md"))}


def formula(tex: str, options: dict) -> str:
    """A formula as MathJax finds it."""
    return (r"\[%s\]" if options["display_mode"] else r"\(%s\)") % html.escape(tex)


def kept_tex(tex: str, options: dict) -> str:
    """A formula in the notes, which the page turns into MathML: the speaker's window has no MathJax."""
    tag = "div" if options["display_mode"] else "span"
    return f'<{tag} class="tex">{html.escape(tex)}</{tag}>'


markdown = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=formula)
noted = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=kept_tex)


def shown(match: re.Match[str]) -> str:
    """The figure that a line of Markdown names."""
    found = figure(match[2])
    caption = f"<figcaption>{markdown.renderInline(match[1])}</figcaption>" if match[1] else ""
    if found.live:
        body = re.sub(r"<figcaption.*?</figcaption>|<script>.*?</script>\s*$", "", found.live, flags=re.DOTALL)
        return f'<div class="figure live">{body}{caption}</div>'
    return f'<div class="figure"><img alt="{html.escape(found.alt)}" src="{found.source}">{caption}</div>'


def render(slide: Slide, faults: list[str]) -> str:
    """A slide as a section of the deck; what is missing is named in `faults` and shown as an ellipsis."""
    text, pictures = slide.text, []
    for match in FIGURE.finditer(slide.text):
        text = text.replace(match[0], "")
        try:
            pictures.append(shown(match))
        except ValueError as fault:
            faults.append(str(fault))
    parts = []
    for part in (text, slide.notes):
        result, missing = numbers.shown(part)
        parts.append(result)
        faults += missing
    parts[0] = OPTIONS.sub(lambda m: "- " + re.sub(r"\s{2,}(?=\*\*[B-D]\*\*)", "\n- ", m[0]), parts[0])
    level = 1 if slide.kind == "title" else 2
    pill = f'<p class="pill">{KINDS[slide.kind]}</p>' if KINDS[slide.kind] else ""
    body = f'<div class="text">{markdown.render(parts[0])}</div>{"".join(pictures)}'
    return (
        f'<section class="{slide.kind}{" beside" * slide.beside}{" plain" * (not pictures)}"><header>{pill}'
        f"<h{level}>{markdown.renderInline(slide.heading)}</h{level}></header>"
        f'<div class="content">{body}</div><aside class="notes">{noted.render(parts[1])}</aside></section>'
    )


def write_deck(name: str, slides: list[Slide], folder: Path) -> list[str]:
    """Write one deck; returns what was missing."""
    faults: list[str] = []
    sections = "\n".join(render(slide, faults) for slide in slides)
    kinds = sorted(set(re.findall(r'<vaekit-live kind="(\w+)"', sections)))
    script = f"<script>{form.runtime(*kinds)}</script>" if kinds else ""
    title = f"{name.replace('-', ' ').capitalize()} · {slides[0].heading}"
    page = PAGE.replace("@title@", html.escape(title)).replace("@slides@", sections).replace("@live@", script)
    (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return [f"{name}: {fault}" for fault in faults]


def browser() -> str:
    """Chromium or Chrome, by name.

    Raises:
        ValueError: There is none.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if (found := next(filter(None, map(shutil.which, names)), None)) is None:
        raise ValueError(f"PDF: expected one of {', '.join(names)} to be installed")
    return found


def write_pdf(page: Path, query: str = "") -> Path:
    """Print a page to a PDF of the same name."""
    pdf = page.with_suffix(".pdf")
    subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
            "--virtual-time-budget=60000", f"--print-to-pdf={pdf}", page.resolve().as_uri() + query,
        ],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return pdf


def without_answer(slide: Slide) -> Slide:
    """The slide as it is published: the model answer to an exit question is in the instructor's pack alone."""
    return slide._replace(notes=slide.notes.partition(ANSWER)[0].strip()) if slide.kind == "exit" else slide


def write(folder: Path, *, answers: bool = False) -> list[str]:
    """Write all decks, a page that lists them, and what they load; returns what was missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("mathjax", "reveal"):
        root = assets.VENDOR / f"{name}-{assets.PACKAGES[name][1]}"
        shutil.copytree(root, folder / name, dirs_exist_ok=True)
    written = decks() if answers else {name: [*map(without_answer, deck)] for name, deck in decks().items()}
    faults = [fault for name, slides in written.items() for fault in write_deck(name, slides, folder)]
    items = "".join(
        f'<li><a href="{name}.html">{html.escape(slides[0].heading)}</a>, {len(slides)} slides</li>'
        for name, slides in written.items()
    )
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    body = f"<body style='font: 1.2rem sans-serif; margin: 3rem'><h1>Slides, by session</h1><ol>{items}</ol>"
    (folder / "index.html").write_text(f"{head}<title>Slides</title>{body}", encoding="utf-8")
    return faults


def main(folder: Path, *, pdf: bool = False) -> None:
    """Write all decks, and say what they are shown without."""
    if missing := assets.ensure(("mathjax", "reveal")):
        sys.exit(f"slides: could not get {' and '.join(missing)} from npm, without which they would need a network")
    faults = write(folder)
    for page in sorted(folder.glob("session-*.html")) if pdf else ():
        write_pdf(page, "?print")
    print(f"Slides: {folder}/index.html")
    if faults:
        print("slides: shown without\n  " + "\n  ".join(faults), file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pdf", action="store_true", help="print every deck to a PDF as well")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "slides")
    given = parser.parse_args()
    main(given.folder.resolve(), pdf=given.pdf)
