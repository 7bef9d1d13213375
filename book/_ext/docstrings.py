r"""Let docstrings say `$\mathcal L$`, `$$ ... $$` and `code`, and have the API pages show them as such.

Autodoc expects reStructuredText. Before napoleon reads the sections, colons of a `Returns` text are hidden from it (it
would take what stands before one for a type); after it, Markdown's mathematics and code become reStructuredText's.
"""

import re
from typing import Any

from sphinx.application import Sphinx

import vaekit

COLON = "\x1f"
SPAN = re.compile(r"(?<![`:])(``[^`]+``|:[\w:]+:`[^`]+`)|`([^`]+)`|(?<![\\$])\$(?!\$)([^$]+?)\$(?!\$)", re.DOTALL)


def before_napoleon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Hide the colons in the text of `Returns:` and `Yields:`."""
    inside = False
    for i, line in enumerate(lines):
        if re.match(r"\w[\w ]*:\s*$", line):
            inside = line.strip() in ("Returns:", "Yields:")
        elif inside:
            lines[i] = line.replace(":", COLON)


def after_napoleon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Translate mathematics and code."""
    text = "\n".join(lines).replace(COLON, ":")
    text = re.sub(r"^([^\n$]*)\$\$(.+?)\$\$", _block, text, flags=re.DOTALL | re.MULTILINE)
    lines[:] = SPAN.sub(_span, text).split("\n")


def _block(match: re.Match[str]) -> str:
    """A displayed equation, indented as the line that it begins on."""
    before, equation = match.groups()
    indent = " " * (len(before) - len(before.lstrip()))
    body = "\n".join(f"{indent}   {line.strip()}" for line in equation.strip().splitlines())
    return f"{before.rstrip()}\n\n{indent}.. math::\n\n{body}\n\n{indent}"


def _span(match: re.Match[str]) -> str:
    """Inline mathematics, a link to a name that `vaekit` exports, or a literal."""
    done, code, equation = match.groups()
    if done:
        return done
    if equation:
        span = f":math:`{' '.join(equation.split())}`"
    else:
        code = " ".join(code.split())
        module = getattr(getattr(vaekit, code, None), "__module__", None) or ""
        span = f":py:obj:`{code} <{module}.{code}>`" if module.startswith("vaekit") else f"``{code}``"
    # reStructuredText wants a boundary on either side; an escaped space is one that does not show
    glued_before = re.search(r"[^\s'\"(\[{<\-/:]\Z", match.string[: match.start()])
    glued_after = re.match(r"[^\s'\")\]}>\-/:.,;!?\\]", match.string[match.end() :])
    return "\\ " * bool(glued_before) + span + "\\ " * bool(glued_after)


def skip_fields(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out a named tuple's fields one by one: its `Attributes:` section has them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx, on both sides of napoleon (priority 500)."""
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True}
