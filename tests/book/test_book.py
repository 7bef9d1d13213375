"""The book builds without a warning, and every page of it works in a real browser."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import offline

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = "application/vnd.jupyter.widget-state+json"
HARMLESS = "Identifier 'THEBE_JS_URL' has already been declared"  # Jupyter Book includes one script twice


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The book, built from scratch: what an earlier build has read would hide its warnings."""
    output = tmp_path_factory.mktemp("book")
    run = subprocess.run(
        [sys.executable, "-m", "tools.build_book", output], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    return output / "_build" / "html"


@pytest.fixture(scope="module")
def address(html):
    """The book served on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Chromium or Chrome. Where there is none: a failure if $VAEKIT_REQUIRE_BROWSER is set, else a skip."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    found = os.environ.get("VAEKIT_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    found = found or (mac if Path(mac).exists() else None)
    if not found:
        message = "no Chromium or Chrome here: install one, or name it in VAEKIT_BROWSER"
        pytest.fail(message) if os.environ.get("VAEKIT_REQUIRE_BROWSER") else pytest.skip(message)
    with playwright.sync_playwright() as context:
        instance = context.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield instance
        instance.close()


@pytest.fixture
def page(browser, address):
    """A page, with `page.open(path)`; what goes wrong on it is collected in `page.faults`."""
    context = browser.new_context()
    page = context.new_page()
    faults = page.faults = []
    inside = (f"{address}/", "data:", "blob:") + (() if vendored() else ("https://cdn.jsdelivr.net/npm/",))
    page.on("console", lambda m: m.type == "error" and HARMLESS not in m.text and faults.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: HARMLESS not in str(e) and faults.append(f"error: {e}"))
    page.on("requestfailed", lambda r: faults.append(f"failed: {r.url}"))
    page.on("response", lambda r: r.status >= 400 and faults.append(f"{r.status}: {r.url}"))
    page.on("request", lambda r: r.url.startswith(inside) or faults.append(f"leaves this machine: {r.url}"))

    def open_(path):
        page.goto(f"{address}/{path}")
        page.evaluate("() => window.MathJax?.startup?.promise.then(() => null)")  # formulas are typeset by then

    page.open = open_
    yield page
    context.close()


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def vendored():
    """Whether the book brings everything that its pages load."""
    assets = module(ROOT / "tools" / "assets.py")
    return all(map(assets.local, assets.BOOK))


def pages(html):
    """Every page but `index.html`, which sends its reader on to the landing page."""
    found = [p.relative_to(html).as_posix() for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]
    return [path for path in found if path != "index.html"]


def test_the_book_builds_without_a_warning(html):
    assert "url=book/intro.html" in (html / "index.html").read_text(encoding="utf-8")
    built = {path.removesuffix(".html") for path in pages(html)}
    assert {"book/intro", "book/results", "book/api/bounds"} <= built
    assert {f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("[0-9]*.ipynb")} <= built


def test_docstrings_arrive_as_mathematics_and_code(html):
    page = (html / "book" / "api" / "bounds.html").read_text(encoding="utf-8")
    assert r"\mathcal L(x) = \mathbb E_{q_\phi(z \mid x)}" in page
    text = page[page.index("<article") : page.index("</article")]
    for raw in ("$$", "`[B]`", "Returns:</p>\n<p>Returns"):
        assert raw not in text
    assert '<span class="pre">[B]</span>' in text


def test_results_are_written_with_their_standard_errors():
    results = module(ROOT / "book" / "_ext" / "results.py")
    estimate = {"mean": -99.76756, "standard_error": 0.07724, "images": 100}
    shown = [results.number(value) for value in (estimate, 0.8020863, 123456.7, 20, "mnist", {"mean": 2.0})]
    assert shown == ["−99.768 ± 0.077", "0.8021", "123,457", "20", "mnist", "2"]
    pairs = [(0.81666, 7.9e-17), (0.99444, 0.004), (1629631.6, 479.1), (3.0, 0.0), (131.54, 0.6454)]
    shown = [results.number({"mean": mean, "standard_error": error}) for mean, error in pairs]
    assert shown == ["0.8167 ± 0", "0.9944 ± 0.0040", "1,629,632 ± 479", "3 ± 0", "131.54 ± 0.65"]
    dotted = {"gap": {"rho_0.1": [3, {"mean": 4}]}}
    assert results.at(dotted, "gap.rho_0.1.1.mean") == 4
    assert results.at(dotted, "gap.rho_0.1.0") == 3
    for nowhere in ("gap.rho_0", "gap.rho_0.1.2", "gap.rho_0.1.0.mean"):
        with pytest.raises(KeyError):
            results.at(dotted, nowhere)
    assert results.flatten({"a": {"b": estimate, "c": [1, 2]}}) == [("a.b", estimate), ("a.c.0", 1), ("a.c.1", 2)]


def test_docstrings_are_translated():
    docstrings = module(ROOT / "book" / "_ext" / "docstrings.py")
    lines = ["A text.", "", "Returns:", "    The file. Provenance: device.", "", "Raises:", "    ValueError: Bad."]
    docstrings.before_napoleon(None, "", "", None, None, lines)
    assert ":" not in lines[3] and lines[6] == "    ValueError: Bad."
    lines += ["`[B]` and `elbo`s; 2$x$, ``as it is``.", "", "  before $$a", "  = b.$$ after"]
    docstrings.after_napoleon(None, "", "", None, None, lines)
    assert lines[3] == "    The file. Provenance: device."
    assert lines[7] == r"``[B]`` and :py:obj:`elbo <vaekit.bounds.elbo>`\ s; 2\ :math:`x`, ``as it is``."
    assert [line.rstrip() for line in lines[9:]] == [
        "  before", "", "  .. math::", "", "     a", "     = b.", "", "   after",
    ]  # fmt: skip


def barriers(page, rules):
    """What axe-core calls a serious or critical barrier. It does not look into formulas, which have a MathML twin."""
    from axe_playwright_python.sync_playwright import Axe

    context, options = {"exclude": [["mjx-math"], ["mjx-assistive-mml"]]}, {"runOnly": rules, "preload": False}
    response = Axe().run(page, context, options).response
    grave = [rule for rule in response["violations"] if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in grave for node in rule["nodes"]]


ALL_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
CONTRAST = {"type": "rule", "values": ["color-contrast"]}
WITHOUT_WORDS = """all => all.filter(e => !/\\w{3}/.test(e.alt) || e.alt.startsWith('Picture'))
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.browser
def test_every_page_loads_without_a_fault_fits_a_phone_and_shuts_nobody_out(html, page):
    """Every page: no error, no request that leaves this machine, words for each picture, nothing serious for axe."""
    faults, listings = {}, [path for path in pages(html) if path.startswith("_modules/vaekit")]
    for path in pages(html):
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.open(path)
        wordless = page.eval_on_selector_all("article img:not(.toggler)", WITHOUT_WORDS)
        page.faults += [f"no text alternative: {tag}" for tag in wordless]
        page.faults += ["a formula is wrong"] * page.locator("[data-mml-node='merror']").count()
        if path not in listings[2:]:  # listings of source code are all alike
            page.add_style_tag(content="* { transition: none !important; }")
            page.faults += barriers(page, ALL_RULES)
            page.emulate_media(color_scheme="dark")
            page.faults += [f"in the dark: {fault}" for fault in barriers(page, CONTRAST)]
        page.set_viewport_size({"width": 320, "height": 800})
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 320:
            page.faults.append(f"{width} pixels wide on a phone of 320")
        if page.faults:
            faults[path] = page.faults.copy()
            page.faults.clear()
    assert faults == {}


CUT_OFF = """() => [...document.querySelectorAll('.bd-article :is(mjx-container[display], pre, table, img)')]
    .filter(e => e.offsetParent && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth))
    .map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 60))"""


FURNITURE = ".bd-sidebar-primary, .bd-header-article, .prev-next-footer, details.hide, .noUi-target"


@pytest.mark.browser
def test_a_chapter_prints_whole_and_light(html, page):
    """On A4 nothing is cut off, no furniture is left, no code is folded, and a dark page prints light."""
    page.set_viewport_size({"width": 680, "height": 1000})  # A4 within margins of 15 mm
    page.emulate_media(media="print", color_scheme="dark")
    for path in [*(path for path in pages(html) if path.startswith("notebooks/")), "book/results.html"]:
        page.open(path)
        assert page.evaluate(CUT_OFF) == [], path
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        left = page.locator(FURNITURE).evaluate_all("all => all.filter(e => e.offsetParent).map(e => e.className)")
        assert left == []


FOCUS = """() => {
    const e = document.activeElement, style = getComputedStyle(e), words = e.textContent.trim().slice(0, 30);
    return {seen: style.outlineStyle !== 'none' || style.boxShadow !== 'none',
            what: `${e.tagName} ${e.className} ${e.closest('.tag_solution') ? 'solution' : ''} ${words}`}; }"""


@pytest.mark.browser
def test_the_keyboard_reaches_every_kind_of_control(page):
    """Tab by Tab through a chapter: each stop can be seen, and the way passes all that a mouse could use."""
    page.open("notebooks/02_hamiltonian_vae.html")
    page.wait_for_selector(".noUi-handle[aria-label='tempering']")
    stops = []
    while not stops or "BODY" not in stops[-1]["what"]:
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUS))
        assert len(stops) < 500
    reached = "\n".join(stop["what"] for stop in stops)
    for control in ("Skip to main", "theme-switch", "noUi-handle", "SUMMARY  solution", "sd-summary", "right-next"):
        assert control in reached, control
    assert [stop["what"] for stop in stops[:-1] if not stop["seen"]] == []


@pytest.mark.browser
def test_mathematics_is_typeset(page):
    page.open("book/notation.html")
    assert page.locator("mjx-container").count() > 30
    assert page.faults == []


@pytest.mark.browser
def test_sliders_change_the_picture(html, page):
    """On every page that shows a slider: without a kernel, and by the keyboard."""
    shown = [path for path in pages(html) if WIDGETS in (html / path).read_text(encoding="utf-8")]
    if not shown:
        pytest.skip("no chapter with a slider yet")
    visible = "[...document.querySelectorAll('.jupyter-widgets img')].filter(e => e.offsetParent !== null)"
    pictures = f"JSON.stringify({visible}.map(e => e.src))"
    for path in shown:
        page.open(path)
        page.wait_for_function(f"{visible}.length > 0")
        before = page.evaluate(pictures)
        handle = page.locator(".jupyter-widgets .noUi-handle").first
        handle.focus()
        at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
        page.wait_for_function(f"before => {pictures} !== before", arg=before)
        assert page.faults == [], path


@pytest.mark.browser
def test_quizzes_are_answered_by_the_keyboard(html, page):
    for path in sorted((ROOT / "book" / "quizzes").glob("*.yml")):
        page.open(f"notebooks/{path.stem}.html")
        options = page.locator("#quiz details")
        assert options.count() >= 20 and options.locator("mjx-merror").count() == 0
        options.first.locator("summary").focus()
        for option in (options.nth(0), options.nth(1)):  # the second is one step further
            assert not option.get_by_text("Right.").or_(option.get_by_text("No.", exact=True)).is_visible()
            page.keyboard.press("Enter")
            assert option.get_by_text("Right.").or_(option.get_by_text("No.", exact=True)).is_visible()
            page.keyboard.press("Tab")
        assert page.faults == [], path.stem


@pytest.mark.browser
def test_the_zipped_book_works_from_disk(html, browser, tmp_path):
    """Unpacked anywhere and opened without a network: formulas, a slider, a quiz, the search, the way back."""
    if not vendored():
        pytest.skip("what the pages load could not be had here: no npm, or no network")
    for name in ("one", "two"):
        offline.pack(html, tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    zipfile.ZipFile(tmp_path / "one.zip").extractall(tmp_path)
    root = tmp_path / offline.NAME
    page, faults = browser.new_page(), []
    page.on("console", lambda m: m.type == "error" and HARMLESS not in m.text and faults.append(m.text))
    page.on("pageerror", lambda e: HARMLESS not in str(e) and faults.append(str(e)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or faults.append(r.url))
    page.goto((root / "index.html").as_uri())
    page.wait_for_url("**/book/intro.html")
    page.goto((root / "notebooks" / "02_hamiltonian_vae.html").as_uri())
    page.wait_for_selector("mjx-container")
    page.wait_for_selector(".noUi-handle")
    page.locator("#quiz summary").first.click()
    assert page.locator("#quiz details[open]").count() == 1
    page.goto((root / "search.html").as_uri() + "?q=leapfrog")
    page.locator("#search-results a", has_text="Hamiltonian VAE").first.click()
    page.wait_for_url("**/02_hamiltonian_vae.html*")
    assert faults == []
    page.close()
