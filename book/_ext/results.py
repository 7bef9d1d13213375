"""The directive `results`: a chapter's numbers, read from `book/results/<chapter>/<best profile>.json`.

    ```{results} 01_vae
    Test NLL on MNIST, nats | vae.nll | 83.20 ({cite:t}`caterini2018hamiltonian`)
    ```

Each line is a row: what, where in the file's `values` (dots between the keys), and what the paper has, in Markdown.
Without lines, every number of the file becomes a row. A place that does not exist is a warning, hence an error.
"""

import math
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from vaekit.notebook import PROFILES, load_results

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
        rows = rows or [(f"`{place}`", number(value), "") for place, value in flatten(record["values"])]
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
        return what, number(value), paper

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


def number(value: Any) -> str:
    """A value as readers want it: four significant digits; a mean as far as the two digits of its standard error go."""
    if isinstance(value, dict) and "mean" in value:
        mean, error = value["mean"], value.get("standard_error", value.get("se"))
        if error is None or error <= 1e-9 * abs(mean):  # every seed agrees, up to rounding
            return number(mean) + ("" if error is None else " ± 0")
        decimals = max(0, 1 - math.floor(math.log10(error)))
        return f"{mean:,.{decimals}f} ± {error:,.{decimals}f}".replace("-", "−")
    if isinstance(value, float):
        return (f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}").replace("-", "−")
    return "…" if isinstance(value, list | dict) else str(value)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("results", Results)
    return {"parallel_read_safe": True}
