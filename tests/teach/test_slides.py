"""The decks: every slide fits and can be read from the last row, nothing comes over a network, minutes add up."""

import re

import nbformat
import pytest

from tests.book.test_book import browser  # noqa: F401 a fixture
from tools import assets, slides
from tools.course.figures import figure, labels, panel, stored
from tools.course.numbers import WHERE, filled, one
from tools.notebooks import FOLDER, hashes, read_script

DECKS = slides.decks()
each = pytest.mark.parametrize("name", DECKS)
SMALLEST = 24  # pixels of 720


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if assets.ensure(("mathjax", "reveal")):
        pytest.skip("reveal.js cannot be had here: no npm, or no network")
    folder = tmp_path_factory.mktemp("slides")
    slides.write(folder)
    return folder


@each
def test_a_session_fills_its_two_hours_and_has_all_that_it_needs(name):
    deck = DECKS[name]
    kinds = [slide.kind for slide in deck]
    assert sum(slide.minutes for slide in deck) == 120
    assert 17 <= len(deck) <= 23 and kinds[0] == "title" and kinds[-2:] == ["exit", "home"]
    assert kinds.count("break") == 1 and kinds.count("exit") == 1 and "try" in kinds
    assert kinds.count("predict") + kinds.count("vote") >= 3
    before = sum(slide.minutes for slide in deck[: kinds.index("break")])
    assert 40 <= before <= 75  # nobody listens for longer
    assert sum("](figure:" in slide.text for slide in deck) >= 5
    for slide in deck:
        assert len(slide.notes) > 40, slide.heading
        if slide.kind in ("predict", "vote"):  # who asks must be able to answer
            assert re.search(r"answer is [A-D]|^[A-D][.:,]|sketch|Answer|[A-D]\. ", slide.notes, re.I | re.M), (
                slide.heading
            )


@each
def test_a_slide_leaves_nothing_undefined(name):
    for slide in DECKS[name]:
        words = len(re.findall(r"\w+", re.sub(r"\$.*?\$|!\[.*?\)", "", slide.text, flags=re.DOTALL)))
        assert words <= 110, f"{slide.heading}: {words} words"
        assert len(slide.heading) <= 85, slide.heading


USED = {label for deck in DECKS.values() for slide in deck for _, label in slides.FIGURE.findall(slide.text)}


def waits(chapter):
    """Whether the chapter's code was changed after its last run: its figures and numbers are about to change."""
    notebook = nbformat.read(FOLDER / f"{chapter}.ipynb", 4)
    return (
        notebook.metadata.get("vaekit", {}).get("sources") != hashes(read_script(FOLDER / f"{chapter}.py"))["sources"]
    )


@pytest.mark.parametrize("chapter", sorted({labels()[label]["chapter"] for label in USED}))
def test_the_figures_and_numbers_of_slides_are_stored(chapter):
    if waits(chapter):
        pytest.skip(f"{chapter} waits for a run")
    for label in sorted(label for label in USED if labels()[label]["chapter"] == chapter):
        assert figure(label).alt and figure(label).source.startswith("data:image/")
    for deck in DECKS.values():
        for slide in deck:
            for match in WHERE.finditer(slide.text + slide.notes):
                assert match[1] != chapter or "…" not in filled(match[0])


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no result at 'nonsense'"):
        one("01_vae", "nonsense")
    with pytest.raises(ValueError, match="01_vae: no result at 'a'; 01_vae: no result at 'b'"):
        filled("{{01_vae: a}} and {{01_vae: b}}")
    with pytest.raises(ValueError, match="no way to write a number is called 'loud'"):
        one("01_vae", "NLL", "loud")
    with pytest.raises(ValueError, match=r"expected a label of figures.yml, got 'nonsense'"):
        figure("nonsense")
    with pytest.raises(ValueError, match="got '99_none'"):
        stored("99_none")


def test_numbers_are_written_as_asked():
    assert one("01_vae", "NLL") == one("01_vae", "NLL", "minus").removeprefix("−")
    assert filled("{{01_vae: gradient_noise_ratio.latent_dim}}").isdigit()
    assert one("06_influence", "same_label.mnist.chance", "percent").endswith(" %")
    assert re.fullmatch(r"[+−].*", one("07_together", "effects.NLL.C", "sign"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no heading\nNotes:\nx", "expected a heading such as"),
        ("## A {loud | 1 §2}\nNotes:\nx", "expected a kind among .*, got 'loud'"),
        ("## A {claim}\ntext", "expected a line 'Notes:'"),
        ("## A {claim}\n![](figure:a)\n![](figure:b)\nNotes:\nx", "one figure at most"),
    ],
)
def test_a_bad_slide_is_refused(tmp_path, text, says):
    path = tmp_path / "session-9.md"
    path.write_text(f"# T {{title}}\nNotes:\nx\n---\n{text}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=says) as error:
        slides.read(path)
    assert "session-9.md, slide 2" in str(error.value)


def test_options_on_one_line_become_a_list():
    slide = slides.Slide("Q?", "vote", (), 1, False, "**A** one  **B** two  **C** three", "The answer is A.")
    assert slides.render(slide, []).count("<li>") == 3


def test_a_panel_is_cut_at_the_widest_white_gaps():
    import base64
    import io

    import numpy as np
    from PIL import Image

    pixels = np.full((20, 100, 3), 255, np.uint8)
    for a, b in ((2, 5), (25, 32), (35, 45), (57, 95)):  # a label far away, two things close together, one apart
        pixels[5:15, a:b] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    widths = [Image.open(io.BytesIO(base64.b64decode(panel(source, k, 2).split(",")[1]))).width for k in (1, 2)]
    assert widths == [51, 49]
    with pytest.raises(ValueError, match="expected 4 panels side by side, found 3"):
        panel(source, 1, 4)


MEASURE = """smallest => Array.from({length: Reveal.getTotalSlides()}, (_, k) => {
    Reveal.slide(k);
    const slide = Reveal.getCurrentSlide(), box = slide.getBoundingClientRect(), faults = [];
    const seen = e => !e.closest("aside, mjx-assistive-mml, .live figure");
    const header = slide.querySelector("header").getBoundingClientRect();
    for (const e of slide.querySelectorAll("header *, .content *")) {
        const r = e.getBoundingClientRect();
        if (!seen(e) || !r.width || !r.height) continue;
        if (r.right > box.right - 10 || r.bottom > box.bottom - 4 || r.left < box.left - 1)
            faults.push(e.outerHTML.slice(0, 80));
    }
    for (const e of slide.querySelectorAll(".content > *, .text > *")) {
        if (e.getBoundingClientRect().top < header.bottom - 1) faults.push("above: " + e.innerText.slice(0, 40));
        if (e.scrollWidth > e.clientWidth + 1) faults.push("too wide: " + e.innerText.slice(0, 40));
    }
    const walk = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
    for (let node; node = walk.nextNode();) {
        const e = node.parentElement.closest("mjx-container") || node.parentElement;
        if (!node.textContent.trim() || !seen(e) || e.closest("script, style")) continue;
        const size = parseFloat(getComputedStyle(e).fontSize);
        if (size < smallest - 0.1) faults.push(size + " px: " + node.textContent.slice(0, 40));
    }
    return faults.length ? [k + 1, faults.slice(0, 4)] : null;
}).filter(fault => fault)"""


@pytest.mark.browser
@each
def test_every_slide_fits_is_legible_and_needs_no_network(name, folder, browser):  # noqa: F811
    page, faults = browser.new_page(viewport={"width": 1280, "height": 720}), []
    page.on("console", lambda m: m.type == "error" and faults.append(m.text))
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or faults.append(r.url))
    page.on("requestfailed", lambda r: faults.append(r.url))
    page.goto((folder / f"{name}.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady && Reveal.isReady()")
    assert page.evaluate(MEASURE, SMALLEST) == []
    assert page.locator("[data-mml-node='merror'], merror").count() == 0
    assert page.evaluate(
        "document.querySelectorAll('aside .tex').length === document.querySelectorAll('aside math').length"
    )
    assert page.evaluate("![...document.querySelectorAll('aside')].some(e => /[$]|\\\\\\\\[a-z]/.test(e.textContent))")
    assert faults == []
    page.close()


@pytest.mark.browser
def test_a_deck_prints_a_page_a_slide(folder):
    try:
        slides.browser()
    except ValueError:
        pytest.skip("no Chromium")
    pdf = slides.write_pdf(folder / "session-5.html", "?print").read_bytes()
    assert b"/MediaBox [0 0 960 540]" in pdf  # 16:9
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert pages == len(DECKS["session-5"])
