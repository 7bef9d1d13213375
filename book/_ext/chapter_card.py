"""The directive `chapter-card`: one chapter on the landing page, a link once its notebook is there.

```{chapter-card} 02_hamiltonian_vae
:title: Let the model bend the guess
:picture: hamiltonian
:figure: reconstructions
What it does, in two sentences.
```

`figure` shows a stored figure of the chapter: the first whose text alternative has these words.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

import times
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx_design.shared import create_component

ROOT = Path(__file__).resolve().parents[2]


class ChapterCard(SphinxDirective):
    """See the module's docstring."""

    required_arguments = 1
    has_content = True
    option_spec = dict.fromkeys(("title", "picture", "figure"), directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """A card of sphinx-design's; it must stand within a `grid`."""
        chapter = self.arguments[0]
        written = f"notebooks/{chapter}" in self.env.found_docs
        picture = ROOT / "book" / "pictures" / f"{self.options['picture']}.svg"
        self.env.note_dependency(str(picture))
        card = [
            f"::::{{grid-item-card}} {self.options['title']}",
            *([f":link: /notebooks/{chapter}", ":link-type: doc"] if written else []),
            ":class-item: vaekit-chapter",
            "",
            *picture.read_text(encoding="utf-8").splitlines(),
            "",
            *self.content,
            "",
            *figure(chapter, self.options.get("figure", "")),
            *(["", "{.vaekit-times}", times.line(chapter)] if written else []),
            *([] if written else ["", "{bdg-secondary}`coming`"]),
            "::::",
        ]
        holder = create_component("grid-row", [])
        self.state.nested_parse(StringList(card, self.get_source_info()[0]), self.content_offset, holder)
        return holder.children


def figure(chapter: str, words: str) -> list[str]:
    """The chapter's first stored figure of which the text alternative has these words, as lines of raw HTML."""
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    if not words or not path.is_file():
        return []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = (output.get("data", {}).get("text/html", "") for cell in cells for output in cell.get("outputs", []))
    for text in map("".join, outputs):
        for found in re.finditer(r'<img[^>]*? alt="([^"]*)"[^>]*?src="(data:image/[^"]+)"', text):
            if words in found[1]:
                alt = html.escape(html.unescape(found[1]))
                return ["```{raw} html", f'<img class="vaekit-thumbnail" alt="{alt}" src="{found[2]}">', "```"]
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("chapter-card", ChapterCard)
    return {"parallel_read_safe": True}
