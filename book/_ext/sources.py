"""Each name on the API pages has a link to its source on GitHub."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools import address

ROOT = Path(__file__).resolve().parents[2]


def resolve(domain: str, info: dict[str, str]) -> str | None:
    """The address of the lines that define a name; `None` where that cannot be told."""
    try:
        found: Any = importlib.import_module(info["module"])
        for part in info["fullname"].split("."):
            found = getattr(found, part)
        found = inspect.unwrap(found.fget if isinstance(found, property) else found)
        path = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT)
        lines, first = inspect.getsourcelines(found)
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return None
    return f"https://github.com/{address.current()}/blob/main/{path.as_posix()}#L{first}-L{first + len(lines) - 1}"


def choose(app: Sphinx, config: Config) -> None:
    """Called by Sphinx when the configuration has been read."""
    config.linkcode_resolve = resolve


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", choose)
    return {"parallel_read_safe": True}
