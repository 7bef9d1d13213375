"""What the runs found, read from `book/results/<chapter>/<best profile>.json`: two directives and a role.

    ```{results} 01_vae
    Test NLL on MNIST, nats | vae.nll | 83.20 ({cite:t}`caterini2018hamiltonian`)
    ```

Each line is a row: what, where in the file's `values` (dots between the keys), and what the paper has, in Markdown.
Without lines, every number of the file becomes a row. A place that does not exist is a warning, hence an error.
`{scoreboard}` shows book/scoreboard.yml, and {number}`03_likelihood_regret: auroc.fashion-mnist.mnist.NLL` one number.
"""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools import scoreboard
from vaekit.notebook import PROFILES, load_results
from vaekit.notebook.numbers import number

FOLDER = Path(__file__).resolve().parents[1] / "results"
log = logging.getLogger(__name__)


class Results(SphinxDirective):
    """See the module's docstring."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The table and, under it, where its numbers are from."""
        chapter = self.arguments[0]
        for profile in PROFILES:
            self.env.note_dependency(str(FOLDER / chapter / f"{profile}.json"))
        record = load_results(chapter, FOLDER)
        if record is None:
            return self._markdown("*This chapter has no stored results yet.*")
        rows = [self._row(line, record["values"]) for line in self.content if line.strip()]
        rows = rows or [(f"`{place}`", written(value), "") for place, value in flatten(record["values"])]
        papers = any(paper for _, _, paper in rows)
        table = ["| what | ours |" + " paper |" * papers, "|:--|--:|" + ":--|" * papers]
        table += [f"| {what} | {ours} |" + f" {paper} |" * papers for what, ours, paper in rows]
        origin = (
            f"Profile `{record['profile']}`, {record['device']}, {record['date']}, commit `{record['commit']}`, "
            f"{record['seconds']} s, torch {record['versions']['torch']}."
        )
        return self._markdown("\n".join([*table, "", "{.provenance}", origin]))

    def _row(self, line: str, values: dict[str, Any]) -> tuple[str, str, str]:
        what, place, paper = (*(part.strip() for part in line.split("|")), "")[:3]
        try:
            value = at(values, place)
        except KeyError:
            log.warning("results: %s has no value at %s", self.arguments[0], place, location=self.get_location())
            return what, "", paper
        return what, written(value), paper

    def _markdown(self, text: str) -> list[nodes.Node]:
        container = nodes.container(classes=["vaekit-results"])
        lines = StringList(text.splitlines(), self.get_source_info()[0])
        self.state.nested_parse(lines, self.content_offset, container)
        return [container]


def flatten(value: Any, place: str = "") -> list[tuple[str, Any]]:
    """Every number below `value` and its place, a mean with its standard error counting as one."""
    if isinstance(value, dict) and "mean" not in value:
        items = value.items()
    elif isinstance(value, list) and len(value) <= 12:
        items = enumerate(value)
    else:
        return [(place, value)]
    return [leaf for key, item in items for leaf in flatten(item, f"{place}.{key}".lstrip("."))]


def at(values: Any, place: str) -> Any:
    """What lies at a place such as `gap.rho_0.1.mean`: keys, which may hold dots themselves, and positions in lists."""
    if not place:
        return values
    keys = values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
    for key in keys:
        if f"{place}.".startswith(f"{key}."):
            return at(values[key], place[len(str(key)) + 1 :])
    raise KeyError(place)


def written(value: Any) -> str:
    """A value of a results file in words."""
    if isinstance(value, dict) and "mean" not in value:
        return "…"
    if isinstance(value, dict | int | float) and not isinstance(value, bool):
        return "…" if isinstance(value, dict) and isinstance(value["mean"], list) else number(value)
    return "…" if isinstance(value, list) else str(value)


class Scoreboard(SphinxDirective):
    """`{scoreboard}`: what the papers claim, and what came out here."""

    def run(self) -> list[nodes.Node]:
        """The table of book/scoreboard.yml."""
        self.env.note_dependency(str(scoreboard.FILE))
        for path in FOLDER.glob("*/*.json"):
            self.env.note_dependency(str(path))
        container = nodes.container(classes=["vaekit-scoreboard"])
        table = scoreboard.markdown("/notebooks/{chapter}.ipynb", cite=True).splitlines()
        self.state.nested_parse(StringList(table, self.get_source_info()[0]), self.content_offset, container)
        return [container]


class Number(SphinxRole):
    """One number in a sentence: the chapter, a colon, and the place in its results."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number in words; its standard error is left to the chapter."""
        chapter, _, place = (part.strip() for part in self.text.partition(":"))
        record = load_results(chapter, FOLDER)
        for profile in PROFILES:
            self.env.note_dependency(str(FOLDER / chapter / f"{profile}.json"))
        try:
            value = at(record["values"], place) if record else None
        except KeyError:
            log.warning("number: %s has no value at %s", chapter, place, location=self.get_location())
            value = None
        value = value["mean"] if isinstance(value, dict) and "mean" in value else value
        return [nodes.Text("–" if value is None else number(value, digits=2))], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("results", Results)
    app.add_directive("scoreboard", Scoreboard)
    app.add_role("number", Number())
    return {"parallel_read_safe": True}
