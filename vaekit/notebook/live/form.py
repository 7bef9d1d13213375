"""The form of a live figure: one HTML output that starts itself in every front end; where it cannot, a picture."""

import base64
import html
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaekit.notebook.figures import to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNTIME = Path(__file__).parent / "runtime"
DRAWN = ("pictures", "plots", "engine")
MODEL = (*DRAWN, "vae")
SCENE = (*MODEL, "scene")
NEEDS = {  # the files of the runtime that a kind of figure is made of; `core` and `parts` come before them
    "slider": (), "flow": DRAWN, "basis": SCENE, "influence": (*DRAWN, "densities"),
    "posterior": MODEL, "plane": MODEL, "regret": MODEL, "columns": SCENE, "dial": SCENE,
    "teachers": (*MODEL, "tracin"), "lights": SCENE,
}  # fmt: skip
_collecting: ContextVar[list[str] | None] = ContextVar("_collecting", default=None)
_COMMENT = re.compile(r"//.*|/\*\*.*\*/")  # a line that is nothing else
LARGEST = 500_000  # bytes of a figure, runtime and still picture included


def show(
    kind: str, data: dict[str, Any], still: "Figure | bytes", *, caption: str, alt: str, limit: int | None = LARGEST
) -> None:
    """Show a live figure in a notebook; nothing to see in a plain script.

    Args:
        kind: One of `NEEDS`.
        data: What its script reads: plain numbers, strings, lists, dictionaries, and what `export` makes.
        still: The picture that stands for it on paper and where no script may run: a matplotlib figure, which is
            closed, or a PNG.
        caption: What there is to do and to see. HTML with Unicode, no LaTeX.
        alt: Text alternative of the still picture.
        limit: Bytes that the figure may take.

    Raises:
        ValueError: As `figure`.
    """
    text = figure(kind, data, still, caption=caption, alt=alt, limit=limit)
    if (into := _collecting.get()) is not None:
        into.append(text)
    elif in_notebook():
        from IPython.display import HTML, display

        display(HTML(text))


def figure(
    kind: str, data: dict[str, Any], still: "Figure | bytes", *, caption: str, alt: str, limit: int | None = LARGEST
) -> str:
    """The HTML of a live figure; arguments as for `show`.

    Raises:
        ValueError: An unknown kind, or a figure of more bytes than `limit`.
    """
    if kind not in NEEDS:
        raise ValueError(f"kind: expected one of {', '.join(sorted(NEEDS))}, got {kind!r}")
    png = still if isinstance(still, bytes) else to_png(still, 90)
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"'
    image += ' style="max-width:100%;height:auto">'
    text = (
        f'<figure class="vaekit-live" style="margin:0.5rem 0 1.25rem"><vaekit-live kind="{kind}">{image}'
        f'<script type="application/json">{_json(data)}</script></vaekit-live>'
        f'<figcaption style="margin:0.6em auto 0;max-width:46rem;text-align:center">{caption}</figcaption></figure>'
        f"<script>{runtime(kind)}</script>"
    )
    if limit is not None and len(text.encode()) > limit:
        raise ValueError(
            f"{kind}: expected a figure of at most {limit // 1000} kB, got {len(text.encode()) / 1000:.0f} kB; "
            "take fewer bits, a smaller model or fewer images"
        )
    return text


@contextmanager
def collected() -> Iterator[list[str]]:
    """Inside this block figures are not shown: their HTML is put in the list."""
    texts: list[str] = []
    token = _collecting.set(texts)
    try:
        yield texts
    finally:
        _collecting.reset(token)


def runtime(*kinds: str) -> str:
    """The scripts that these kinds of figure need; of all kinds, where none is named."""
    names = dict.fromkeys(("core", "parts", *(name for kind in kinds or NEEDS for name in (*NEEDS[kind], kind))))
    files = ((RUNTIME / f"{name}.js").read_text(encoding="utf-8") for name in names)
    lines = (line.strip() for text in files for line in text.splitlines())
    return "\n".join(line for line in lines if line and not _COMMENT.fullmatch(line))


def in_notebook() -> bool:
    """Whether there is a notebook to show something in."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _json(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: neither a closing tag nor a comment can begin in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
