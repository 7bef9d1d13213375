"""The decks: every slide fits, nothing comes over a network, no solution is shown, all prose is in the notes."""

import re

import nbformat
import pytest

from tests.book.test_book import browser  # noqa: F401 a fixture
from tools import assets, slides
from tools.notebooks import FOLDER

CHAPTERS = sorted(FOLDER.glob("[0-9]*.ipynb"))
each = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    if assets.ensure(("mathjax", "reveal")):
        pytest.skip("reveal.js cannot be had here: no npm, or no network")
    folder = tmp_path_factory.mktemp("slides")
    slides.main(folder)
    return folder


def test_sentences_end_where_they_should():
    text = "Take $x = 1.$ Then, e.g. by [A. B., 2018](http://a.b/c. D), it *holds.* See **this:** `a. B` is right! So"
    first = "Take $x = 1.$ Then, e.g. by [A. B., 2018](http://a.b/c. D), it *holds.*"
    assert slides.sentences(text) == [first, "See **this:**", "`a. B` is right!", "So"]
    assert slides.sentences("1. One thing. 2 more.") == ["1. One thing. 2 more."]


def test_the_gist_is_the_beginning_what_is_bold_and_what_leads_over():
    long = "This sentence is long enough to stand on a slide by itself, without another one."
    assert slides.gist(f"{long} Dull. A **bold** one. Dull. Hence:") == f"{long} A **bold** one. Hence:"
    assert slides.gist("Short. Second. Third.") == "Short. Second."


@each
def test_a_deck_has_the_chapter_s_sections_figures_and_prose(path):
    notebook = nbformat.read(path, 4)
    deck = slides.deck(notebook)
    headings = {re.sub(r"<[^>]*>", "", slide.heading) for slide in deck}
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for title in re.findall(r"^## (\d+\. [\w ]+)", text, re.MULTILINE):
        empty = re.search(rf"^## {re.escape(title)}.*\n\s*(?=#)", text, re.MULTILINE)
        assert empty or any(heading.startswith(title) for heading in headings), title
    everything = "".join(block.html for slide in deck for block in slide.blocks)
    stored = [o.data for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    pictures = sum("<img" in data.get("text/html", "") or slides.VIEW in data for data in stored)
    assert everything.count("<img") >= pictures > 0
    notes = "".join(note for slide in deck for note in slide.notes)
    for word in set(re.findall(r"\b[a-z]{9,}\b", re.sub(r"<details>.*?</details>|\$.*?\$", "", text, flags=re.DOTALL))):
        assert word in notes or word in "".join(headings), word
    assert "BEGIN SOLUTION" not in everything + notes and "<details>" not in everything + notes


@pytest.mark.browser
@each
def test_every_slide_fits_and_needs_no_network(path, decks, browser):  # noqa: F811
    page, faults = browser.new_page(viewport={"width": 1280, "height": 720}), []
    page.on("console", lambda m: m.type == "error" and faults.append(m.text))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
    page.on("requestfailed", lambda r: faults.append(r.url))
    page.goto((decks / f"{path.stem}.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady && Reveal.isReady()")
    overfull = page.evaluate(
        """() => Array.from({length: Reveal.getTotalSlides()}, (_, k) => {
            Reveal.slide(k);
            const slide = Reveal.getCurrentSlide(), content = slide.querySelector('.content');
            const full = slide.scrollHeight > 721 || slide.scrollWidth > 1281 || content.style.zoom < 0.7;
            return full ? [k, slide.innerText] : null;
        }).filter(fault => fault)"""
    )
    assert overfull == []
    assert page.locator("mjx-container").count() > 10 and page.locator("[data-mml-node='merror']").count() == 0
    assert page.locator("aside mjx-container").count() == 0  # notes are typeset nowhere, so that a deck opens at once
    assert faults == []
    page.close()
