"""The instructor's pack: complete, seeded, readable without a network, and no part of the book."""

import re
import xml.etree.ElementTree as ET

import nbformat
import pytest
import yaml

from tests.book.test_book import browser  # noqa: F401 a fixture
from tools import assets, slides, teach
from tools.course import documents, keys, quizzes
from tools.course.assignment import CHAPTERS, assignment
from tools.notebooks import ROOT

PAGES = ("index", "script", "boards", "demos", "handouts", "errors", "derivations", "keys", "report",
         "exam", "exam-solutions", "practice", "practice-solutions")  # fmt: skip


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    if assets.ensure(("mathjax", "reveal")):
        pytest.skip("MathJax and reveal.js cannot be had here: no npm, or no network")
    folder = tmp_path_factory.mktemp("teach")
    teach.main(folder, "a-seed")
    return folder


def test_the_pack_is_complete(pack):
    for name in PAGES:
        text = (pack / f"{name}.html").read_text(encoding="utf-8")
        assert len(text) > 3000 and "<h1>" in text and not re.search(r"@\w+@", text), name
        for link in re.findall(r'href="([^"]+)"', text):
            assert link.startswith("https:") or (pack / link).is_file(), f"{name}: {link}"
    for file in re.findall(r"`([\w./]+)`", (teach.PACK / "index.md").read_text(encoding="utf-8")):
        assert (pack / file).exists(), file
    assert "a-seed" in (pack / "index.html").read_text(encoding="utf-8")
    nbformat.validate(nbformat.read(pack / "project.ipynb", 4))
    assert {path.stem for path in (pack / "slides").glob("session-*.html")} == set(slides.decks())


def test_print_files_come_with_and_without_solutions(pack):
    for name in ("exam", "practice"):
        without, with_ = ((pack / f"{name}{end}.html").read_text(encoding="utf-8") for end in ("", "-solutions"))
        assert without.count("<h2>") == with_.count("<h2>") == 8
        assert "Solution" not in without and with_.count('class="solution"') == 8
    assert (pack / "exam.html").read_text() != (pack / "practice.html").read_text().replace("A practice exam", "Exam")


def test_every_question_of_a_session_has_its_answer(pack):
    script = (pack / "script.html").read_text(encoding="utf-8")
    for name, deck in slides.decks().items():
        for slide in deck:
            if slide.kind == "exit":
                assert slides.ANSWER in slide.notes and len(slide.notes.split(slides.ANSWER)[1]) > 150, name
    assert script.count(slides.ANSWER) == len(slides.decks())
    public = [slides.without_answer(slide) for deck in slides.decks().values() for slide in deck]
    assert not any(slides.ANSWER in slide.notes for slide in public)


def test_keys_say_what_each_error_loses(pack):
    text = (pack / "keys.html").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        found = assignment(chapter, "a-seed")
        assert keys.score(found, found.answer) == sum(part.points for part in found.parts)
        for part in found.parts:
            for test in part.tests:
                assert f"{test.expected:.6g}" in text
        assert documents.markdown.renderInline(found.key[0][1]) in text


def test_derivations_and_errors_are_those_of_the_chapters():
    derivations, errors = keys.derivations(), keys.errors()
    assert len(re.findall(r"^## \d\.\d · ", derivations, re.M)) >= 7 and "complete if" in derivations
    assert len(re.findall(r"^\*\*Exercise ", errors, re.M)) >= 14 and errors.count("\n- ") > 60


def test_quizzes_go_into_moodle():
    questions = quizzes.questions()
    tree = ET.fromstring(quizzes.moodle().encode())
    asked = tree.findall("question[@type='multichoice']")
    assert [q.findtext("name/text") for q in asked] == list(questions)
    for element, question in zip(asked, questions.values(), strict=True):
        fractions = [answer.get("fraction") for answer in element.findall("answer")]
        assert fractions == ["100" if option.get("right") else "0" for option in question["options"]]
        assert all(answer.findtext("feedback/text") for answer in element.findall("answer"))
    text = quizzes.gift()
    assert len(re.findall(r"^::\d\.\d+::", text, re.M)) == len(questions)
    blocks = re.findall(r"^::.*?^\}$", text, re.M | re.S)
    for block, question in zip(blocks, questions.values(), strict=True):
        lines = block.splitlines()[1:-1]
        assert [line[2] for line in lines] == ["=" if option.get("right") else "~" for option in question["options"]]
        for line in lines:  # what means something in GIFT is escaped
            assert len(re.findall(r"(?<!\\)#", line)) == 1 and not re.search(r"(?<!\\)[{}]", line)
    assert not re.search(r"\$[^C]", text)


def test_nothing_of_the_pack_is_in_the_book():
    toc = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    assert "slides/session" not in toc and "pack/" not in toc and "course" not in toc
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["only_build_toc_files"] is True


@pytest.mark.browser
def test_pages_show_their_formulas_without_a_network(pack, browser):  # noqa: F811
    page, faults = browser.new_page(), []
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
    page.on("requestfailed", lambda r: faults.append(r.url))
    for name in ("script", "keys", "exam-solutions", "derivations", "boards"):
        page.goto((pack / f"{name}.html").as_uri())
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise")
        assert page.locator("mjx-container").count() > 5, name
        assert page.locator("[data-mml-node='merror']").count() == 0, name
    assert faults == []
    page.close()
