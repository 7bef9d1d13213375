"""Below each chapter's title: in which profile its stored outputs were made, on what, when, and from which commit."""

import json
from typing import Any

from sphinx.application import Sphinx

SMOKE = " This is the smallest scale, for testing: pictures show what the code does, and the numbers mean nothing."


def say_where_from(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the line to the notebook's first cell, in the page only."""
    if not docname.startswith("notebooks/"):
        return
    notebook: dict[str, Any] = json.loads(source[0])
    origin = notebook["metadata"].get("vaekit")
    if origin is None:
        return
    minutes = max(1, round(origin["seconds"] / 60))
    line = (
        f"Stored outputs: profile `{origin['profile']}`, {origin['device']}, {origin['date']}, "
        f"commit `{origin['commit']}`, {minutes} min.{SMOKE if origin['profile'] == 'smoke' else ''}"
    )
    first = notebook["cells"][0]
    first["source"] = "".join(first["source"]) + f"\n\n{{.provenance}}\n{line}\n"
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", say_where_from)
    return {"parallel_read_safe": True}
