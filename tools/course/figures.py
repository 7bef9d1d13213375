"""A chapter's figures as they are stored, by the labels of `book/slides/figures.yml`."""

import base64
import html
import io
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import numpy as np
import yaml
from PIL import Image

from tools.notebooks import FOLDER, ROOT

LABELS = ROOT / "book" / "slides" / "figures.yml"
STATE, VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"
IMAGE = re.compile(r'<img[^>]*?alt="([^"]*)"[^>]*?src="(data:[^"]+)"|<img[^>]*?src="(data:[^"]+)"[^>]*?alt="([^"]*)"')


class Figure(NamedTuple):
    """What a slide shows: a picture with its text alternative, and the live figure that it stands for, if any."""

    source: str
    alt: str
    live: str


@cache
def stored(chapter: str) -> tuple[str, ...]:
    """The HTML of every figure that a chapter's notebook has stored, in order.

    Raises:
        ValueError: There is no such chapter.
    """
    path = FOLDER / f"{chapter}.ipynb"
    if not path.is_file():
        raise ValueError(f"chapter: expected one of notebooks/*.ipynb, got {chapter!r}")
    notebook = nbformat.read(path, 4)
    state = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = picture(data[VIEW]["model_id"], state) if VIEW in data else data.get("text/html", "")
            if IMAGE.search(text):
                found.append(text)
    return tuple(found)


def picture(widget: str, state: dict[str, Any]) -> str:
    """What a stored slider shows at its start: its picture and caption."""
    model = state[widget]["state"]
    children = [child.removeprefix("IPY_MODEL_") for child in model.get("children", [])]
    if "selected_index" in model:
        children = children[model["selected_index"] or 0 :][:1]
    value = model.get("value", "") if isinstance(model.get("value", ""), str) else ""
    return (value if "<" in value else "") + "".join(picture(child, state) for child in children)


def words(text: str) -> str:
    """What a figure says of itself: caption and text alternative, without markup."""
    alts = " ".join(a or b for a, _, _, b in IMAGE.findall(text))
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>|<p[^>]*>(.*?)</p>", text, re.DOTALL)
    plain = re.sub(r"<[^>]*>", "", " ".join("".join(pair) for pair in captions))
    return " ".join(html.unescape(f"{alts} {plain}").split())


def panel(source: str, which: int, of: int) -> str:
    """One of several panels that stand side by side, cut where the figure is white from top to bottom.

    Raises:
        ValueError: There are not as many white gaps as panels need.
    """
    image = Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))).convert("RGB")
    white = np.asarray(image).min((0, 2)) > 250  # [width]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], white.astype(int), [0]])))
    gaps = [(b - a, (a + b) // 2) for a, b in zip(edges[::2], edges[1::2], strict=True) if a > 0 and b < len(white)]
    near = [[gap for gap in gaps if abs(gap[1] / len(white) - k / of) < 1 / (3 * of)] for k in range(1, of)]
    if not all(near):  # a gap beside an axis label is none between panels
        raise ValueError(f"panel: expected {of} panels side by side, found {1 + sum(map(bool, near))}")
    cuts = [0, *(max(some)[1] for some in near), len(white)]
    buffer = io.BytesIO()
    image.crop((cuts[which - 1], 0, cuts[which], image.height)).save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@cache
def labels(path: Path = LABELS) -> dict[str, dict[str, str]]:
    """By label: the chapter, and words by which the figure is known (its HTML id, or part of its caption or alt).

    `panel: 2 of 3` takes one of several panels that stand side by side.
    """
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def figure(label: str) -> Figure:
    """A stored figure.

    Raises:
        ValueError: The label is unknown, or not exactly one stored figure of the chapter answers to its words.
    """
    if label not in labels():
        raise ValueError(f"figure: expected a label of {LABELS.name}, got {label!r}")
    chapter, says = labels()[label]["chapter"], labels()[label]["says"]
    matching = [text for text in stored(chapter) if f'id="{says}"' in text or says in words(text)]
    if len(matching) != 1:
        raise ValueError(f"{label}: expected one figure of {chapter} that says {says!r}, found {len(matching)}")
    first, one, other, second = IMAGE.search(matching[0]).groups()  # type: ignore[union-attr]
    if "panel" in labels()[label]:
        which, of = map(int, labels()[label]["panel"].split(" of "))
        return Figure(panel(one or other, which, of), first or second or "", "")
    return Figure(one or other, first or second or "", matching[0] if "<vaekit-live" in matching[0] else "")
