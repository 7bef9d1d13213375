r"""Makes links of what a reader would want to click on, so that notebooks stay plain text on Colab and GitHub.

- `\tag{2.6}` in a displayed equation gives it an anchor; "equation (2.6)" or "(2.6)" leads there, from any page;
- "section 6", "exercise 2", "figure 2.3", "table 2.1" lead there, "section 6 of chapter 1", "chapter 4" to that page;
- `elbo` and `fit(...)` lead to the library's pages;
- the first "posterior collapse" of a page leads to the glossary.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
TAG = re.compile(r"\\tag\{([\w.]+)\}")
CALL = re.compile(r"(?:vaekit\.)?([A-Za-z_][\w.]*?)(?:\(.*\))?")
REFERENCE = re.compile(
    r"\b(?P<section>[Ss]ections? (?P<s>\d{1,2}))(?P<of> of (?=[Cc]hapter))?"
    r"|\b(?P<exercise>[Ee]xercise (?:(?P<of_chapter>\d)\.)?(?P<e>\d))\b(?! ·)(?P<in> of (?=[Cc]hapter))?"
    r"|\b(?P<figure>(?P<what>[Ff]igure|[Tt]able) (?P<f>\d\.\d{1,2}))"
    r"|\b(?P<chapter>[Cc]hapter (?P<c>\d))\b"
    r"|(?P<equation>(?:[Ee]quations? )?\((?P<q>\d\.\d{1,2})\))"
)
NOT_WITHIN = (nodes.reference, nodes.title, nodes.literal, nodes.math, nodes.math_block, nodes.raw, nodes.literal_block)
QUIET = ("book/glossary", "book/api/", "book/template", "CHANGELOG")  # no words of the glossary here


def chapters() -> dict[str, str]:
    """Page names by the chapter's number."""
    found = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
    return {str(int(path.name[:2])): f"notebooks/{path.stem}" for path in found}


@cache
def library() -> dict[str, str]:
    """Where the library's public names are defined: `elbo` -> `vaekit.bounds.elbo`."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "vaekit").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, f"{module}.{node.name}")
    return found


def gather(app: Sphinx, doctree: nodes.document) -> None:
    """Give equations their anchors, and note where sections, exercises and equations of this page are."""
    targets: dict[str, str] = {}
    for block in doctree.findall(nodes.math_block):
        if tag := TAG.search(block.astext()):
            identifier = f"equation-{tag[1].replace('.', '-')}"
            block["ids"].append(identifier)
            block["nowrap"] = True  # Sphinx would wrap it in an environment in which no tag may stand
            block[:] = [nodes.Text(rf"\begin{{equation}}{block.astext()}\end{{equation}}")]
            targets[f"equation {tag[1]}"] = identifier
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        if title is not None and (found := re.match(r"(?:(\d+)\. |Exercise (?:\d+\.)?(\d+) ·)", title.astext())):
            targets.setdefault(f"section {found[1]}" if found[1] else f"exercise {found[2]}", section["ids"][0])
    if not hasattr(app.env, "vaekit_targets"):
        app.env.vaekit_targets = {}
    app.env.vaekit_targets[app.env.docname] = targets


def forget(app: Sphinx, env: Any, docname: str) -> None:
    """Called by Sphinx before a page is read again."""
    getattr(env, "vaekit_targets", {}).pop(docname, None)


def link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Called by Sphinx for each page, when all have been read."""
    if app.builder.format != "html":
        return
    _link_literals(app, doctree, docname)
    words = {} if docname.startswith(QUIET) else glossary(app)
    for text in list(doctree.findall(nodes.Text)):
        if not _is_within(text, NOT_WITHIN):
            replaced = _references(app, str(text), docname)
            if words and docname.startswith("notebooks/"):
                replaced = [n for part in replaced for n in _terms(app, part, docname, words)]
            if len(replaced) > 1 or not isinstance(replaced[0], nodes.Text):
                text.parent.replace(text, replaced)


def glossary(app: Sphinx) -> dict[str, tuple[str, str]]:
    """The glossary's words, in lower case, and where they are explained: page and anchor."""
    objects = app.env.get_domain("std").objects
    return {word.lower(): (page, anchor) for (kind, word), (page, anchor) in objects.items() if kind == "term"}


def _references(app: Sphinx, text: str, docname: str) -> list[nodes.Node]:
    parts: list[nodes.Node] = []
    done, matches = 0, list(REFERENCE.finditer(text))
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        page = docname
        of = match["of"] or match["in"] or ""
        if of and following and following["c"]:
            page = chapters().get(following["c"], docname)
        elif match["of_chapter"]:
            page = chapters().get(match["of_chapter"], docname)
        where = _where(app, match, page)
        if where is None:
            continue
        stop = match.end() - len(of)
        parts += [nodes.Text(text[done : match.start()]), _reference(app, docname, *where, text[match.start() : stop])]
        done = stop
    return [part for part in [*parts, nodes.Text(text[done:])] if part.astext()] or [nodes.Text("")]


def _where(app: Sphinx, match: re.Match[str], page: str) -> tuple[str, str] | None:
    """Page and anchor of what a reference names."""
    targets = app.env.vaekit_targets
    if match["c"]:
        other = chapters().get(match["c"])
        return (other, "") if other in targets and other != page else None
    if match["q"] or match["f"]:
        number = match["q"] or match["f"]
        other = chapters().get(number.split(".")[0])
        if match["f"]:
            return (other, f"{match['what'].lower()}-{number.replace('.', '-')}") if other in targets else None
        return (other, anchor) if (anchor := targets.get(other, {}).get(f"equation {number}")) else None
    name = f"section {match['s']}" if match["s"] else f"exercise {match['e']}"
    return (page, anchor) if (anchor := targets.get(page, {}).get(name)) else None


def _terms(app: Sphinx, part: nodes.Node, docname: str, words: dict[str, tuple[str, str]]) -> list[nodes.Node]:
    """Link the first use of each word; `words` loses those that were found."""
    if not isinstance(part, nodes.Text) or not words:
        return [part]
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    if not (found := re.search(rf"(?<![\w-])({pattern})(?:s|es)?(?![\w-])", part, re.IGNORECASE)):
        return [part]
    page, anchor = words.pop(found[1].lower())
    node = _reference(app, docname, page, anchor, found[0])
    node["classes"].append("vaekit-term")
    before, after = nodes.Text(part[: found.start()]), nodes.Text(part[found.end() :])
    return [n for n in [before, node, *_terms(app, after, docname, words)] if n.astext()]


def _link_literals(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    documented = app.env.get_domain("py").objects
    for literal in list(doctree.findall(nodes.literal)):
        if _is_within(literal, (nodes.reference, nodes.title)) or not (call := CALL.fullmatch(literal.astext())):
            continue
        entry = documented.get(library().get(call[1], "")) or documented.get(literal.astext())
        if entry:
            reference = _reference(app, docname, entry.docname, entry.node_id, "")
            literal.parent.replace(literal, reference)
            reference[:] = [literal]


def _reference(app: Sphinx, docname: str, page: str, anchor: str, text: str) -> nodes.reference:
    uri = "" if page == docname else app.builder.get_relative_uri(docname, page)
    uri += f"#{anchor}" if anchor else ""
    return nodes.reference("", "", nodes.Text(text), internal=True, refuri=uri)


def _is_within(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while (node := node.parent) is not None:
        fold = any(name.startswith(("sd-summary", "vaekit-option")) for name in node.get("classes", []))
        if isinstance(node, kinds) or fold or type(node).__name__ == "dropdown_title":
            return True  # the title of a fold is a control: no link may stand in it
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", gather)
    app.connect("env-purge-doc", forget)
    app.connect("doctree-resolved", link, priority=600)
    return {"parallel_read_safe": False, "env_version": 1}
