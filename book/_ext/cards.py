"""Cards for what a page refers to: a word of the glossary with its meaning, a paper with its authors, title and place.

They stand at the page's end as templates, `data-for` naming the link that they belong to; page.js shows them.
"""

from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pybtex.database import Entry, parse_file
from sphinx import addnodes
from sphinx.application import Sphinx

FILE = Path(__file__).resolve().parent.parent / "references.bib"
GLOSSARY = "book/glossary"


@cache
def papers() -> dict[str, str]:
    """What to say of a paper, by its address."""
    entries = parse_file(str(FILE)).entries.values()
    return {entry.fields["url"]: described(entry) for entry in entries if "url" in entry.fields}


def described(entry: Entry) -> str:
    """Authors, year, title and place of a paper, as HTML."""
    names = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
    parts = [", ".join(names[:-1]), *names[-1:]]
    who = f"{names[0]} and others" if len(names) > 3 else " and ".join(filter(None, parts))
    fields = {key: value.translate(str.maketrans("", "", "{}")) for key, value in entry.fields.items()}
    where = next((fields[key] for key in ("booktitle", "journal", "publisher", "howpublished") if key in fields), "")
    text = f"{escape(who)} ({escape(fields.get('year', ''))}). <em>{escape(fields['title'])}</em>."
    return text + (f" {escape(where)}." if where else "")


def meanings(app: Sphinx) -> dict[str, str]:
    """What the glossary says of each word, by the word's anchor."""
    if not hasattr(app, "vaekit_meanings"):
        found = {}
        for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
            term, meaning = item[0], item[-1].deepcopy()
            for pending in list(meaning.findall(addnodes.pending_xref)):
                pending.replace_self(nodes.inline("", pending.astext()))
            for raw in list(meaning.findall(nodes.reference)):
                raw.replace_self(raw.children)
            text = app.builder.render_partial(meaning)["fragment"].strip()
            found[term["ids"][0]] = text.removeprefix("<dd>").removesuffix("</dd>")
        app.vaekit_meanings = found  # type: ignore[attr-defined]
    return app.vaekit_meanings  # type: ignore[attr-defined]


def add(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Called by Sphinx for each page: append the cards that its links need."""
    if doctree is None or "body" not in context:
        return
    cards = {}
    for link in doctree.findall(nodes.reference):
        uri = link.get("refuri", "")
        if "vaekit-term" in link["classes"]:
            anchor = uri.partition("#")[2]
            cards[f"#{anchor}"] = meanings(app).get(anchor, "")
        elif uri in papers():
            cards[uri] = papers()[uri]
    for name, text in cards.items():
        if text:
            context["body"] += f'<template class="vaekit-card" data-for="{escape(name)}">{text}</template>'


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("html-page-context", add)
    return {"parallel_read_safe": True}
