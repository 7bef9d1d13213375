"""The book builds without a warning, and every page of it works in a real browser."""

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
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
def zipped_address(html):
    """The book served as a host on the web does: text comes compressed."""

    class Zipped(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            path = Path(self.translate_path(self.path))
            data = path.read_bytes()
            text = path.suffix in (".html", ".css", ".js", ".svg", ".json")
            data = gzip.compress(data) if text else data
            self.send_response(200)
            self.send_header("Content-Type", self.guess_type(str(path)))
            self.send_header("Content-Length", str(len(data)))
            if text:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Zipped, directory=str(html)))
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


@contextmanager
def opened(browser, address):
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


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as page:
        yield page


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
    """Every page but `index.html`, which is the landing page once more."""
    found = [p.relative_to(html).as_posix() for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]
    return [path for path in found if path != "index.html"]


def test_the_book_builds_without_a_warning(html):
    front = (html / "index.html").read_text(encoding="utf-8")
    for wanted in ('<base href="book/intro.html"/>', "<title>Beyond the ELBO: what", 'name="description"', "og:image"):
        assert wanted in front
    assert "Beyond the ELBO — Beyond the ELBO" not in front and "intro.html" not in front.split("canonical")[0][-200:]
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
    shown = [results.written(value) for value in (estimate, 0.8020863, 20, "mnist", {"mean": 2.0}, [1, 2], {"a": 1})]
    assert shown == ["−99.768 ± 0.077", "0.8021", "20", "mnist", "2", "…", "…"]
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
    """What axe-core calls a serious or critical barrier."""
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page, None, {"runOnly": rules, "preload": False}).response
    grave = [rule for rule in response["violations"] if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in grave for node in rule["nodes"]]


# axe-core would look at every stroke of a formula, which has a MathML twin, and at every word of code: some are enough.
LIGHTER = """() => {
    document.querySelectorAll('mjx-math, mjx-assistive-mml').forEach(e => e.remove());
    [...document.querySelectorAll('pre')].slice(8).forEach(e => { e.textContent = e.textContent; }); }"""
ALL_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
CONTRAST = {"type": "rule", "values": ["color-contrast"]}
WITHOUT_WORDS = """all => all.filter(e => !/\\w{3}/.test(e.alt) || /^Picture( |$)/.test(e.alt))
    .map(e => e.outerHTML.slice(0, 80))"""


OUT_OF_REACH = """() => {
    const article = document.querySelector('.bd-article'), found = [];
    if (!article) return found;  // the page at the root leads on to the book
    const edge = article.getBoundingClientRect().right + 1;
    const words = e => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 50)}`;
    for (const e of document.querySelectorAll('.bd-article *')) {
        if (!e.offsetParent || e.closest('mjx-math, mjx-assistive-mml, svg, .visually-hidden')) continue;
        const style = getComputedStyle(e).overflowX, wide = e.clientWidth && e.scrollWidth > e.clientWidth + 1;
        if (e.getBoundingClientRect().right > edge && !e.closest('.vaekit-scrolls')) found.push(`beyond: ${words(e)}`);
        if (wide && ['hidden', 'clip'].includes(style)) found.push(`cut off: ${words(e)}`);
        const says = e.classList.contains('vaekit-scrolls') && e.ariaLabel && e.tabIndex === 0;
        const fades = getComputedStyle(e).maskImage !== 'none';
        if (wide && ['auto', 'scroll'].includes(style) && !(says && fades)) found.push(`does not say so: ${words(e)}`);
    }
    return found; }"""


SEEN = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))"  # what scrolls is looked at anew


@pytest.fixture(scope="module")
def walk(html, browser, address):
    """Every page, opened once: what goes wrong as it loads, what axe-core says, and what a desk and a phone cut off."""
    with opened(browser, address) as page:
        found, kinds = {}, ("_modules/vaekit", "notebooks/")
        listings, chapters = ([path for path in pages(html) if path.startswith(kind)] for kind in kinds)
        for path in pages(html):
            seen = found[path] = {"loads": [], "reads": [], 1400: [], 390: [], "phone": []}
            page.emulate_media(color_scheme="light")
            page.set_viewport_size({"width": 1400, "height": 900})
            page.open(path)
            seen["loads"] += ["a formula is wrong"] * page.locator("[data-mml-node='merror']").count()
            wordless = page.eval_on_selector_all("article img:not(.toggler)", WITHOUT_WORDS)
            seen["reads"] += [f"no text alternative: {tag}" for tag in wordless]
            for width in (1400, 390) if path not in listings else ():
                page.set_viewport_size({"width": width, "height": 900})
                page.evaluate(SEEN)
                seen[width] = page.evaluate(OUT_OF_REACH)
            page.set_viewport_size({"width": 320, "height": 800})
            if (width := page.evaluate("document.documentElement.scrollWidth")) > 320:
                seen["phone"].append(f"{width} pixels wide")
            page.set_viewport_size({"width": 1400, "height": 900})
            page.evaluate(LIGHTER)
            if path not in listings[2:]:  # listings of source code are all alike
                page.add_style_tag(content="* { transition: none !important; }")
                seen["reads"] += barriers(page, ALL_RULES)
                if path not in chapters[2:]:  # they share a style sheet
                    page.emulate_media(color_scheme="dark")
                    seen["reads"] += [f"in the dark: {fault}" for fault in barriers(page, CONTRAST)]
            seen["loads"] += page.faults
            page.faults.clear()
    return found


def faults(walk, kind):
    return {path: seen[kind] for path, seen in walk.items() if seen[kind]}


@pytest.mark.browser
def test_every_page_loads_without_a_fault_and_asks_nothing_of_other_machines(walk):
    assert len(walk) > 30 and faults(walk, "loads") == {}


@pytest.mark.browser
def test_no_page_shuts_anybody_out(walk):
    """Words for each picture, and nothing serious for axe-core, in the light and in the dark."""
    assert faults(walk, "reads") == {}


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_wider_than_its_box_unless_it_scrolls_and_says_so(walk, width):
    """Tables, code, equations, inline formulas: on a desk and on a phone."""
    assert faults(walk, width) == {}


@pytest.mark.browser
def test_every_page_fits_the_smallest_phone(walk):
    assert faults(walk, "phone") == {}


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
    let e = document.activeElement;
    while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;  // a live figure's own controls
    const style = getComputedStyle(e), words = e.textContent.trim().slice(0, 30);
    return {seen: style.outlineStyle !== 'none' || style.boxShadow !== 'none',
            what: `${e.tagName} ${e.className} ${e.closest('.tag_solution') ? 'solution' : ''} ${words}`}; }"""


@pytest.mark.browser
def test_the_keyboard_reaches_every_kind_of_control(page):
    """Tab by Tab through a chapter: each stop can be seen, and the way passes all that a mouse could use."""
    page.open("notebooks/02_hamiltonian_vae.html")
    page.locator("vaekit-live[kind=slider]").first.scroll_into_view_if_needed()  # a live figure starts when it is seen
    page.wait_for_selector("vaekit-live[kind=slider] input[type=range]")
    stops = []
    while not stops or "BODY" not in stops[-1]["what"]:
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUS))
        assert len(stops) < 500
    reached = "\n".join(stop["what"] for stop in stops)
    for control in ("Skip to main", "theme-switch", "INPUT", "SUMMARY  solution", "sd-summary", "right-next"):
        assert control in reached, control
    assert [stop["what"] for stop in stops[:-1] if not stop["seen"]] == []


@pytest.mark.browser
def test_what_scrolls_fades_where_it_goes_on(html, page):
    """At the start on the right, at the end on the left; and a table's first column stays."""
    page.set_viewport_size({"width": 390, "height": 900})
    page.open("book/notation.html")
    page.wait_for_selector(".vaekit-scrolls table")
    box = page.locator(".vaekit-scrolls:has(table)").first
    assert "at-start" in box.get_attribute("class")
    first = box.locator("td").first
    before = first.bounding_box()["x"]
    box.evaluate("e => { e.scrollLeft = 40; }")
    page.wait_for_function("() => document.querySelector('.vaekit-scrolls.midway table')")
    assert abs(first.bounding_box()["x"] - before) < 1
    box.evaluate("e => { e.scrollLeft = 9999; }")
    page.wait_for_function("() => document.querySelector('.vaekit-scrolls.at-end table')")


SLOW = {"offline": False, "latency": 40, "downloadThroughput": 200_000, "uploadThroughput": 200_000}  # 1.6 Mbit/s
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@pytest.mark.browser
@pytest.mark.parametrize("path", ["book/intro.html", "notebooks/01_vae.html", "notebooks/04_jacobian_l1.html"])
def test_a_page_is_light_and_shows_its_text_soon(html, browser, zipped_address, path):
    """At 1.6 Mbit/s with gzip: text within 2.5 s, and at most 1.5 MB until everything in sight is there."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    sizes = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", SLOW)
    page.goto(f"{zipped_address}/{path}", timeout=120_000)
    page.wait_for_timeout(1500)
    painted = page.evaluate(PAINTED)
    context.close()
    assert sum(sizes) < 1_500_000
    assert painted < 2_500 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))  # a busy machine is not a slow line


def test_pages_carry_no_picture_and_no_script_before_their_text(html):
    for path in pages(html):
        text = (html / path).read_text(encoding="utf-8")
        assert "fontawesome" not in text.split("<body")[0] and "thebe" not in text.lower(), path
        assert re.findall(r'<(?:i|span) class="[^"]*\bfa-[^>]*>', text) == [], path
        if path.startswith("notebooks/"):
            shown = re.sub(r"<script type=.application/.*?</script>", "", text, flags=re.DOTALL)
            assert "data:image/png;base64" not in shown
            for tag in re.findall(r'<img [^>]*src="[^"]*_images/[^"]*"[^>]*>', text):
                assert ("width=" in tag and "height=" in tag and 'loading="lazy"' in tag) or "vaekit-live" in text, tag


def test_names_sections_equations_and_words_are_links(html):
    text = (html / "notebooks" / "01_vae.html").read_text(encoding="utf-8")
    assert 'href="../book/api/bounds.html#vaekit.bounds.elbo"' in text  # in code and in text
    assert 'href="#equation-1-3"' in text and 'id="equation-1-3"' in text
    assert re.search(r'href="#what-the-plain-vae-leaves-open">Section 10</a>', text)
    assert 'href="../book/glossary.html#term-ELBO"' in text and 'id="figure-1-1"' in text
    for path in pages(html):
        page = (html / path).read_text(encoding="utf-8")
        for anchor in re.findall(r'href="#((?:equation|figure)-[\d-]+)"', page):
            assert f'id="{anchor}"' in page, f"{path}: {anchor}"


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
            for _ in range(9):  # past the links of the answer, if it has any, to the next option
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.tagName") == "SUMMARY":
                    break
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
    page.get_by_role("link", name="Read chapter 1").click()
    page.wait_for_url("**/notebooks/01_vae.html")
    page.goto((root / "notebooks" / "02_hamiltonian_vae.html").as_uri())
    page.wait_for_selector("mjx-container")
    page.locator("vaekit-live[kind=slider]").first.scroll_into_view_if_needed()  # a live figure starts when it is seen
    page.wait_for_selector("vaekit-live[kind=slider] input[type=range]")
    page.locator("#quiz summary").first.click()
    assert page.locator("#quiz details[open]").count() == 1
    page.goto((root / "search.html").as_uri() + "?q=leapfrog")
    page.locator("#search-results a", has_text="Hamiltonian VAE").first.click()
    page.wait_for_url("**/02_hamiltonian_vae.html*")
    assert faults == []
    page.close()
