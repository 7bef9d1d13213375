"""The scoreboard: claims of the papers, their numbers and ours, with verdicts that follow from both.

`book/scoreboard.yml` has the claims; the numbers are read from `book/results`. The results page shows the table, and
`python -m tools.scoreboard` writes it into README.md.
"""

import json
import operator
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vaekit.notebook import PROFILES
from vaekit.notebook.numbers import number

ROOT = Path(__file__).resolve().parent.parent
FILE, RESULTS = ROOT / "book" / "scoreboard.yml", ROOT / "book" / "results"
BETWEEN = re.compile(r"(<!-- scoreboard -->\n).*?(<!-- /scoreboard -->)", re.DOTALL)
OPERATIONS = {"<": operator.lt, ">": operator.gt}


class Line(NamedTuple):
    """A line of the scoreboard, in words."""

    claim: str
    chapter: str
    paper: str
    source: str
    ours: str
    profile: str
    verdict: str


def best(chapter: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The record of a chapter's best run."""
    for profile in reversed(PROFILES):
        if (path := folder / chapter / f"{profile}.json").is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def at(values: Any, place: str) -> Any:
    """What lies at a place such as `gap.rho_0.1`: keys, which may hold dots; `KeyError` where nothing does."""
    if not place:
        return values
    for key in values if isinstance(values, dict) else ():
        if f"{place}.".startswith(f"{key}."):
            return at(values[key], place[len(str(key)) + 1 :])
    raise KeyError(place)


def verdict(condition: str, values: dict[str, Any]) -> str:
    """Whether `a > b` holds: "holds" or "does not hold" beyond two standard errors of the difference, else "undecided".

    Raises:
        ValueError: The condition is not of that form.
    """
    if not (parts := re.fullmatch(r"\s*(\S+)\s*([<>])\s*(\S+)\s*", condition)):
        raise ValueError(f"holds: expected a condition like 'a > b' or 'a < 0.5', got {condition!r}")
    means, variance = [], 0.0
    for term in (parts[1], parts[3]):
        value = values[term] if term in values else float(term)
        means.append(float(value["mean"] if isinstance(value, dict) else value))
        variance += float(value.get("standard_error", 0) if isinstance(value, dict) else 0) ** 2
    difference = means[0] - means[1]
    if abs(difference) <= 2 * variance**0.5:
        return "undecided"
    return "holds" if OPERATIONS[parts[2]](difference, 0) else "does not hold"


def lines(file: Path = FILE, folder: Path = RESULTS) -> list[Line]:
    """The scoreboard; a chapter without results has a dash for ours."""
    found = []
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")):
        record = best(entry["chapter"], folder)
        ours, profile, word = "–", "–", "not run"
        if record is not None:
            values = {name: at(record["values"], place) for name, place in entry["values"].items()}
            written = {name: number(value).replace(" ± ", "\u00a0±\u00a0") for name, value in values.items()}
            ours = entry["ours"].format(**written)
            profile, word = record["profile"], verdict(entry["holds"], values)
        found.append(Line(entry["claim"], entry["chapter"], entry["paper"], entry["source"], ours, profile, word))
    return found


def markdown(link: str, cite: bool = False) -> str:
    """The table; `link` says where a chapter is, `{chapter}` standing for its name."""
    rows = ["| claim | paper | ours | scale | verdict | |", "|:--|:--|:--|:--|:--|:--|"]
    for line in lines():
        paper = f"{line.paper} {{cite:p}}`{line.source}`" if cite else line.paper
        where = f"[chapter {int(line.chapter[:2])}]({link.format(chapter=line.chapter)})"
        rows.append(f"| {line.claim} | {paper} | {line.ours} | `{line.profile}` | **{line.verdict}** | {where} |")
    return "\n".join(rows)


def main(readme: Path = ROOT / "README.md") -> bool:
    """Write the table into the README; returns whether it changed."""
    text = readme.read_text(encoding="utf-8")
    table = markdown("https://vaekit.github.io/vaekit/notebooks/{chapter}.html")
    replaced = BETWEEN.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text)
    if replaced != text:
        readme.write_text(replaced, encoding="utf-8")
    return replaced != text


if __name__ == "__main__":
    main()
