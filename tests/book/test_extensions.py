"""What makes the book's pages from the notebooks: pictures into files, light pages, links, the scoreboard."""

import base64
import importlib.util
import io
import json
import re
import sys
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes
from PIL import Image

from tools import layout, scoreboard
from tools.notebooks import FOLDER, ROOT, read_script, tags

sys.path.insert(0, str(ROOT / "book" / "_ext"))


def extension(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


cards, folds, front, light, links, pictures, sources, tables, typeset = map(
    extension, ("cards", "folds", "front", "light", "links", "pictures", "sources", "tables", "typeset")
)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_goes_into_a_file_with_its_size(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (7, 5)).save(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    inside = f'<p><img alt="a" src="data:image/png;base64,{data}" style="x"></p>'
    text = pictures.take_out(inside, tmp_path / "_images", "../_images/")
    name = re.search(r'src="../_images/(\w+\.png)"', text)[1]
    assert (tmp_path / "_images" / name).read_bytes() == buffer.getvalue()
    for wanted in ('alt="a"', 'style="x"', 'width="7"', 'height="5"', 'loading="lazy"'):
        assert wanted in text
    assert "base64" not in text and pictures.take_out(text, tmp_path, "../_images/") == text


def test_a_picture_keeps_its_width_in_a_box_that_scrolls():
    html = '<figure class="vaekit-figure"><img src="a.png" width="771" height="9" style="x"><figcaption>c</figcaption>'
    boxed = pictures.in_a_box(html)
    assert '<div class="vaekit-view" style="--vaekit-width:771px"><img src="a.png"' in boxed
    assert boxed.endswith('style="x"></div><figcaption>c</figcaption>') and pictures.in_a_box(boxed) == boxed


# --- folds, and numbers -----------------------------------------------------------------------------------------------


def cell(code, *tags, mode="input", output=""):
    source = nodes.container("", nodes.literal_block("", code), nb_element="cell_code_source")
    found = nodes.container("", source, nb_element="cell_code", hide_mode=mode, classes=["cell", *tags])
    if output:
        found += nodes.container("", nodes.paragraph("", output), nb_element="cell_code_output")
    return found


def test_folded_cells_in_a_row_are_one_fold():
    page = nodes.section("", *[cell("a", "tag_setup"), cell("b"), cell("c"), cell("d", output="D"), cell("e")])
    page += [nodes.paragraph("", "text"), cell("f", mode="input+output", output="F"), cell("g", "tag_solution")]
    folds.merge(None, page)
    cells = [part for part in page if isinstance(part, nodes.container)]
    assert [[code.astext() for code in c[0]] for c in cells] == [["a"], ["b", "c", "d"], ["e"], ["f"], ["g"]]
    assert [c["hide_mode"] for c in cells] == ["input", "input", "input", "all", "input"]
    assert cells[1].astext().endswith("D") and cells[3]["prompt_show"] == "Show code and output"


@pytest.mark.parametrize(
    ("written", "set_"),
    [
        ("a difference of -0.0007.", "a difference of −0.0007."),
        ("2.8e-14 nats, 0.0e+00 nats", "2.8 × 10⁻¹⁴ nats, 0 nats"),
        ("-5e-05, 4e+01, 3e-02 and 1.2e5", "−5 × 10⁻⁵, 40, 0.03 and 1.2 × 10⁵"),
        ("97% or 7 %", "97\u00a0% or 7\u00a0%"),
        ("1.02 ± 0.12 (± 3)", "1.02\u00a0±\u00a00.12 (± 3)"),
        ("from -3 to (-2), -362, -360", "from −3 to (−2), −362, −360"),
        ("2026-11-21, GPT-2, 3-4, x-1, 0xe5, 1e3a, 10%x", "2026-11-21, GPT-2, 3-4, x-1, 0xe5, 1e3a, 10%x"),
    ],
)  # fmt: skip
def test_numbers_are_set_as_a_printer_would(written, set_):
    assert typeset.numbers(written) == set_ == typeset.numbers(set_)


def test_code_and_addresses_keep_their_numbers():
    page = nodes.document("", "")
    page += nodes.paragraph("", "", nodes.literal("", "-1e-5"), nodes.Text(" is -1e-5; https://x.org/-1%20"))
    page += nodes.paragraph("", "", nodes.literal("", "-1e-5"), nodes.Text(" is -1e-5"))
    typeset.mend(None, page)
    assert [part.astext() for part in page] == ["-1e-5 is -1e-5; https://x.org/-1%20", "-1e-5 is −1 × 10⁻⁵"]


def test_tables_are_numbered_and_what_is_said_at_one_is_its_caption():
    def table(*texts):
        row = nodes.row("", *[nodes.entry("", nodes.paragraph("", text)) for text in texts])
        return nodes.table("", nodes.tgroup("", nodes.tbody("", row)))

    def output(*parts):
        return nodes.container("", *parts, nb_element="cell_code_output")

    def line(*texts):
        return nodes.paragraph("", "", *[nodes.strong("", t) if k % 2 else nodes.Text(t) for k, t in enumerate(texts)])

    page = nodes.document("", "")
    page += output(table("smoke", "cpu", "night", "gpu", "paper"), line("Then a fact."))
    page += output(
        line("CR less ", "augmentation", ":"), table("a"), line("Mean ± standard error."), table("b"), table("c")
    )
    page += [output(table("d"), table("e"), line("Mean ± standard error of all.")), line("In words:"), table("f")]
    page += [table("g"), line("Table: what it says.")]
    tables.number(SimpleNamespace(env=SimpleNamespace(docname="notebooks/05_consistency")), page)
    said = [f"{found[0].astext()} {found[1].astext()}" for found in page.findall(nodes.table)]
    assert said == [
        f"Table 5.1. {tables.SETTINGS} {said[0].split(tables.SETTINGS)[1].strip()}",
        "Table 5.2. CR less augmentation. Mean ± standard error. a",
        "Table 5.3. b", "Table 5.4. c", "Table 5.5. d", "Table 5.6. e", "Table 5.7. f", "Table 5.8. what it says. g",
    ]  # fmt: skip
    assert [p.astext() for p in page.findall(nodes.paragraph) if not isinstance(p.parent, nodes.entry)] == [
        "Then a fact.", "Mean ± standard error of all.", "In words:",
    ]  # fmt: skip
    tables.anchor(None, page, "notebooks/05_consistency")
    assert [found["ids"] for found in page.findall(nodes.table)] == [[f"table-5-{k}"] for k in range(1, 9)]


def test_a_column_of_words_begins_at_the_left():
    def row(*texts):
        return nodes.row("", *[nodes.entry("", nodes.paragraph("", t), classes=["text-right"]) for t in texts])

    body = nodes.tbody("", row("a", "plain", "1.0"), row("b", "", "–"))
    table = nodes.table("", nodes.tgroup("", nodes.thead("", row("", "method", "NLL")), body))
    typeset.begin_at_the_left(table)
    aligned = [[entry["classes"] for entry in r] for r in table.findall(nodes.row)]
    assert aligned == 3 * [[["text-right"], [], ["text-right"]]]


# --- light pages -----------------------------------------------------------------------------------------------------

PAGE = """<html><head>
<script src="_static/documentation_options.js?v=1"></script>
<!-- So that users can add custom icons -->
<script src="_static/scripts/fontawesome.js?digest=1"></script>
<script>const THEBE_JS_URL = "https://unpkg.com/thebe"; const a = 1</script>
<script async="async" src="_static/sphinx-thebe.js?v=1"></script>
<script src="_static/page.js"></script>
<script type="application/vnd.jupyter.widget-state+json">{"state": {}}</script>
</head><body><i class="fa-solid fa-list"></i>
<span class="theme  fa-solid fa-list"  title="t"></span> <i class="fab fa-unheard-of"></i></body></html>"""


def test_a_page_loses_what_it_does_not_use():
    once = light.lighten(PAGE, {"list": 'viewBox="0 0 1 1"><path d="M0"/>'}, "const OPTIONS = 1;")
    assert "fontawesome" not in once and "thebe" not in once.lower()
    assert '<script defer src="_static/page.js"></script>' in once
    assert "<script>const OPTIONS = 1;</script>" in once  # inline scripts need them at once
    assert once.index("widget-state") > once.index("<body")
    assert '<svg class="svg-inline--fa fa-solid fa-list" aria-hidden="true" viewBox="0 0 1 1">' in once
    assert '<svg class="svg-inline--fa theme fa-solid fa-list"  title="t" aria-hidden="true" viewBox' in once
    assert '<i class="fab fa-unheard-of"></i>' in once
    assert light.lighten(once, {}, "const OPTIONS = 1;") == once


def test_the_front_page_at_the_root_resolves_its_links_as_it_did():
    html = '<head><title>A &#8212; A</title><link href="https://x.org/book/intro.html" rel="canonical"/></head>'
    html = front.at_the_root(html, "book/intro.html", "https://x.org/")
    assert '<head>\n<base href="book/intro.html"/>' in html and f"<title>{front.TITLE}</title>" in html
    assert '<link href="https://x.org/" rel="canonical"/>' in html


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as section 6 says", ["section 6"]),
        ("Section 10 of chapter 2", ["Section 10", "chapter 2"]),
        ("equation (1.3) and (2.6)", ["equation (1.3)", "(2.6)"]),
        ("Exercise 2, figure 3.1.", ["Exercise 2", "figure 3.1"]),
        ("table 4.2 (Table 1 of the paper)", ["table 4.2"]),
        ("Exercise 4.4 asks; exercise 3 of chapter 5", ["Exercise 4.4", "exercise 3", "chapter 5"]),
        ("intersection 6, f(1.5, 2), 3.1", []),
    ],
)
def test_what_a_reader_would_click_on_is_found(text, found):
    assert [match[0].removesuffix(" of ") for match in links.REFERENCE.finditer(text)] == found


def test_an_exercise_is_found_by_its_own_number():
    page = nodes.document("", "")
    for title in ("9. Exercises", "Exercise 4.1 · One", "Exercise 4.2 · Two", "Exercise 4.2 again"):
        section = nodes.section("", nodes.title("", title), ids=[title.split(" ·")[0].replace(" ", "-")])
        page += section
    app = SimpleNamespace(env=SimpleNamespace(docname="notebooks/04_jacobian_l1"))
    links.gather(app, page)
    assert app.env.vaekit_targets == {
        "notebooks/04_jacobian_l1": {
            "section 9": "9.-Exercises", "exercise 1": "Exercise-4.1", "exercise 2": "Exercise-4.2",
        }
    }  # fmt: skip
    for said, where in [("Exercise 4.2", "Exercise-4.2"), ("exercise 1 of chapter 4", "Exercise-4.1")]:
        app.builder = SimpleNamespace(get_relative_uri=lambda here, there: f"{there}.html")
        link = links._references(app, said, "notebooks/07_together")[0]
        assert link["refuri"] == f"notebooks/04_jacobian_l1.html#{where}"


def test_the_library_is_known_by_its_names():
    assert links.library()["elbo"] == "vaekit.bounds.elbo"
    assert links.CALL.fullmatch("fit(model, elbo)")[1] == "fit" and links.CALL.fullmatch("a + b") is None


def test_a_card_says_who_wrote_a_paper():
    said = cards.papers()
    assert said["https://arxiv.org/abs/1312.6114"] == (
        "Kingma and Welling (2014). <em>Auto-Encoding Variational Bayes</em>. "
        "International Conference on Learning Representations."
    )
    assert any("and others (" in text for text in said.values())


def test_a_name_leads_to_the_lines_that_define_it():
    where = sources.resolve("py", {"module": "vaekit.bounds", "fullname": "elbo"})
    path, first, last = re.fullmatch(r"https://github.com/[^/]+/[^/]+/blob/main/(.*)#L(\d+)-L(\d+)", where).groups()
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(first) - 1 : int(last)]
    assert any(line.startswith("def elbo(") for line in lines[:3]) and lines[-1].strip().startswith("return")
    assert sources.resolve("py", {"module": "vaekit.bounds", "fullname": "no_such_name"}) is None
    assert sources.resolve("py", {"module": "vaekit", "fullname": "VAE.latent_dim"}) is None


# --- the scoreboard --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("a > 1", "holds"), ("a < 1", "does not hold"), ("a > 1.9", "undecided"), ("b > a", "undecided"),
        ("exact < b", "holds"), ("exact > 0.5", "undecided"),
    ],
)  # fmt: skip
def test_a_verdict_counts_what_lies_beyond_two_standard_errors(condition, word):
    values = {"a": {"mean": 2.0, "standard_error": 0.1}, "b": {"mean": 2.2, "standard_error": 0.1}, "exact": 0.5}
    assert scoreboard.verdict(condition, values) == word


def test_a_condition_of_another_form_is_refused():
    with pytest.raises(ValueError, match="holds: expected a condition"):
        scoreboard.verdict("a >= b", {})


def test_the_scoreboard_reads_the_best_run(tmp_path):
    entry = {"claim": "C", "chapter": "08_x", "paper": "P", "source": "s", "ours": "{v} nats", "holds": "v > 0"}
    (tmp_path / "scores.yml").write_text(yaml.safe_dump([entry | {"values": {"v": "a.b_0.1"}}]))
    assert scoreboard.lines(tmp_path / "scores.yml", tmp_path)[0].verdict == "not run"
    (tmp_path / "08_x").mkdir()
    for profile, mean in (("cpu", 5.0), ("gpu", -1.0)):
        record = {"profile": profile, "values": {"a": {"b_0.1": {"mean": mean, "standard_error": 0.25}}}}
        (tmp_path / "08_x" / f"{profile}.json").write_text(json.dumps(record))
    line = scoreboard.lines(tmp_path / "scores.yml", tmp_path)[0]
    assert (line.ours, line.profile, line.verdict) == ("−1.00\u00a0±\u00a00.25 nats", "gpu", "does not hold")


def test_the_readme_has_the_scoreboard_of_the_stored_runs(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    assert not scoreboard.main(copy), "python -m tools.scoreboard"


# --- the chapters' code ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[0-9]*.py")), ids=lambda path: path.name)
def test_no_open_line_of_code_is_wider_than_the_page(path):
    cells = [cell for cell in read_script(path).cells if cell.cell_type == "code"]
    long = [line for cell in cells if "hide-input" not in tags(cell) for line in layout.long_lines(cell.source)]
    assert long == [], "python -m tools.layout"


def test_the_layout_keeps_what_code_does():
    source = (
        'words = f"Some words and {number:.2f} and many more words, so that the line is far too long for a page"\n'
        "value = 1  # and a comment behind it that goes on and on until it is wider than any page of this book\n"
    )
    laid_out = layout.lay_out(source)
    assert layout.long_lines(laid_out) == [] and layout.lay_out(laid_out) == laid_out
    names = {"number": 2}
    exec(laid_out, names)
    assert names["words"] == "Some words and 2.00 and many more words, so that the line is far too long for a page"
