"""How long a chapter takes: to read, from its words; to run, from what its stored runs took.

    ```{times}
    ```

is a table of all chapters. A run that has not been made has no time, and is not guessed.
"""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
WORDS_A_MINUTE = 90  # of prose and shown code, with formulas that are thought about; a formula counts by its symbols
PROFILES = ("cpu", "night", "gpu", "paper")


def chapters() -> list[str]:
    """The notebooks' names."""
    return [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]


def minutes_to_read(notebook: dict[str, Any]) -> int:
    """Rounded to five minutes; folded code and solutions are not counted."""
    words = 0
    for cell in notebook["cells"]:
        if not {"hide-input", "setup", "solution", "check"} & set(cell["metadata"].get("tags", [])):
            text = re.sub(r"<details>.*?</details>", "", "".join(cell["source"]), flags=re.DOTALL)
            words += len(re.findall(r"[^\s$\\{}_^]+", text))
    return max(5, 5 * round(words / WORDS_A_MINUTE / 5))


def minutes_to_run(chapter: str, profile: str) -> tuple[int, str] | None:
    """How long the stored run took, and on what; `None` where there is none."""
    path = ROOT / "book" / "results" / chapter / f"{profile}.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return max(1, round(record["seconds"] / 60)), record["device"]


def line(chapter: str) -> str:
    """A chapter's times in a few words."""
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    parts = [f"{minutes_to_read(json.loads(path.read_text(encoding='utf-8')))} min to read"]
    for profile in PROFILES:
        if run := minutes_to_run(chapter, profile):
            parts.append(f"{run[0]} min to run (`{profile}`)")
    return " · ".join(parts)


class Times(SphinxDirective):
    """See the module's docstring."""

    def run(self) -> list[nodes.Node]:
        """A table."""
        rows = ["| chapter | to read | `cpu` | `gpu` | `paper` |", "|:--|--:|--:|--:|--:|"]
        devices = set()
        for chapter in chapters():
            path = ROOT / "notebooks" / f"{chapter}.ipynb"
            self.env.note_dependency(str(path))
            cells = [f"{minutes_to_read(json.loads(path.read_text(encoding='utf-8')))} min"]
            for profile in PROFILES:
                run = minutes_to_run(chapter, profile)
                cells.append(f"{run[0]} min" if run else "not measured")
                devices |= {run[1]} if run else set()
            rows.append(f"| {{doc}}`/notebooks/{chapter}` | {' | '.join(cells)} |")
        rule = f"Reading: {WORDS_A_MINUTE} words a minute; folded code and solutions are not counted."
        where = f"Measured on: {'; '.join(sorted(devices))}. {rule}"
        container = nodes.container(classes=["vaekit-results"])
        text = StringList([*rows, "", "{.provenance}", where], self.get_source_info()[0])
        self.state.nested_parse(text, self.content_offset, container)
        return [container]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("times", Times)
    return {"parallel_read_safe": True}
