"""What helps a reader find the book and a way through it: times, bridges, previews."""

import importlib.util
import itertools
import json
import struct
import sys

import pytest
import yaml

from tools.notebooks import FOLDER, ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))  # as Sphinx does
spec = importlib.util.spec_from_file_location("times", ROOT / "book" / "_ext" / "times.py")
times = importlib.util.module_from_spec(spec)
spec.loader.exec_module(times)
CHAPTERS = [path.stem for path in sorted(FOLDER.glob("[0-9]*.ipynb"))]


def notebook(*cells):
    return {"cells": [{"metadata": {"tags": tags}, "source": [text]} for text, tags in cells]}


def test_reading_time_counts_words_that_are_shown():
    words = "word " * times.WORDS_A_MINUTE * 20
    assert times.minutes_to_read(notebook((words, []))) == 20
    assert times.minutes_to_read(notebook((words, []), (words, ["solution"]), (words, ["hide-input"]))) == 20
    assert times.minutes_to_read(notebook((words + f"<details>{words}</details>", []))) == 20
    assert times.minutes_to_read(notebook((words, []), (words, []))) == 40


def test_a_run_that_was_not_made_has_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(times, "ROOT", tmp_path)
    folder = tmp_path / "book" / "results" / "08_x"
    folder.mkdir(parents=True)
    (folder / "cpu.json").write_text(json.dumps({"seconds": 660, "device": "CPU, 2 threads"}))
    assert times.minutes_to_run("08_x", "cpu") == (11, "CPU, 2 threads")
    assert times.minutes_to_run("08_x", "gpu") is None


def test_each_chapter_leads_to_the_one_after_it():
    way = yaml.safe_load((ROOT / "book" / "way.yml").read_text(encoding="utf-8"))
    assert list(way) == CHAPTERS
    for here, following in itertools.pairwise(CHAPTERS):
        assert f"({following})" in way[here] and f"hapter {int(following[:2])}]" in way[here]


def test_the_preview_has_the_size_that_previews_have():
    assert struct.unpack(">II", (ROOT / "book" / "_static" / "card.png").read_bytes()[16:24]) == (1200, 630)


def test_the_citation_names_the_five_papers_as_the_bibliography_has_them():
    papers = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    assert len(papers) == 5
    for paper in papers:
        number = paper["identifiers"][0]["value"].removeprefix("arXiv:")
        entry = next(line for line in bibliography.splitlines() if f"arxiv.org/abs/{number}" in line)
        assert all(author["family-names"] in entry for author in paper["authors"]) and str(paper["year"]) in entry
        plain = entry.replace("{", "").replace("}", "").lower()
        assert paper["title"].lower() in plain


@pytest.mark.parametrize("name", ["_config.yml", "CITATION.cff"])
def test_addresses_follow_a_fork(name):
    from tools import address

    owner, project = address.current().split("/")
    assert f"{owner.lower()}.github.io/{project}" in (ROOT / name).read_text(encoding="utf-8")
