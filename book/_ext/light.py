"""Makes pages light: what the theme loads and does not use is left out, and no script stands before the first text.

Font Awesome's 1.5 MB of script draws fifteen icons: each is put into the page as the few bytes of SVG that it is. Of
its fonts only the icons that a style sheet names are kept. Scripts wait until the page has been read.

Icons: Font Awesome Free, CC BY 4.0, https://fontawesome.com
"""

import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ICON = re.compile(r'<(i|span) class="([^"]*\bfa(?:[bsr]|-solid|-brands|-regular)? [^"]*)"([^>]*)></\1>')
RULE = re.compile(r"(?:\.fa-[\w-]+(?:::?before)?,?)+\{(?:--fa|content:)[^}]*\}")  # one icon's letter
STATE = re.compile(r'<script type="application/vnd\.jupyter\.widget-state\+json">.*?</script>', re.DOTALL)
FONT = re.compile(r'src:url\(([^)]+?/(fa-[\w-]+))\.woff2\) format\("woff2"\),url\([^)]+\) format\("truetype"\)')
SCRIPT = re.compile(r'<script (?![^>]*\b(?:defer|async|type)\b)([^>]*\bsrc="[^"]+"[^>]*)></script>')
THEBE = re.compile(r'<script>const THEBE_JS_URL.*?</script>|<script[^>]*sphinx-thebe\.js[^>]*></script>'
                   r'|<link[^>]*sphinx-thebe\.css[^>]*/>|<script type="text/x-thebe-config">.*?</script>'
                   r"|<script>kernelName = .*?</script>", re.DOTALL)  # fmt: skip
OPTIONS = re.compile(r'<script [^>]*src="[^"]*documentation_options\.js[^"]*"[^>]*></script>')


def lighten(html: str, icons: dict[str, str], options: str = "") -> str:
    """A page without what it does not use; done twice it is the same."""
    html = re.sub(r"<!-- So that users can add custom icons -->\s*", "", html)
    html = re.sub(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>\s*", "", html)
    html = ICON.sub(lambda m: _svg(m, icons), html)
    html = THEBE.sub("", html)
    if (state := STATE.search(html)) and state.end() < html.find("<body"):  # megabytes of sliders come after the text
        html = html.replace(state[0], "", 1).replace("</body>", f"{state[0]}\n</body>", 1)
    html = OPTIONS.sub(f"<script>{options}</script>", html) if options else html  # an inline script reads them
    return SCRIPT.sub(r"<script defer \1></script>", html)


def _svg(icon: re.Match[str], icons: dict[str, str]) -> str:
    classes, attributes = " ".join(icon[2].split()), icon[3]
    names = [name.removeprefix("fa-") for name in classes.split() if name.startswith("fa-")]
    drawn = next((icons[name] for name in names if name in icons), None)
    if drawn is None:
        return icon[0]
    hidden = "" if "aria-" in attributes else ' aria-hidden="true"'
    return f'<svg class="svg-inline--fa {classes}"{attributes}{hidden} {drawn}</svg>'


@cache
def drawings(script: Path) -> dict[str, str]:
    """Every icon of Font Awesome's script by its names: `viewBox="..."><path .../>`."""
    text, found = script.read_text(encoding="utf-8"), {}
    pattern = re.compile(r'"?([a-z][\w-]*)"?:\[(\d+),(\d+),\[([^\]]*)\],"[0-9a-f]+","([^"]+)"\]')
    for name, width, height, others, path in pattern.findall(text):
        drawing = f'viewBox="0 0 {width} {height}"><path fill="currentColor" d="{path}"/>'
        for each in (name, *re.findall(r'"([a-z][\w-]*)"', others)):
            found[each] = drawing  # the solid ones come last
    return found


def subset(styles: Path) -> None:
    """Keep of the icon fonts what the style sheets in `styles` and beside it name."""
    from fontTools import subset as cutter
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.WARNING)

    sheet = styles / "pydata-sphinx-theme.css"
    text = RULE.sub("", sheet.read_text(encoding="utf-8"))
    others = [path.read_text(encoding="utf-8") for path in (*styles.glob("*.css"), *styles.parent.glob("*.css"))]
    letters = "".join([text, *(other for other in others if not RULE.search(other))])
    wanted = {ord(letter) for letter in letters if "\ue000" <= letter <= "\uf8ff"}
    wanted |= {int(code, 16) for code in re.findall(r"\\(f[0-9a-f]{3})\b", letters)}
    for _, name in FONT.findall(text):
        folder = styles.parent / "vendor" / "fontawesome" / "webfonts"
        font = TTFont(folder / f"{name}.ttf")
        worker = cutter.Subsetter(cutter.Options(hinting=False, layout_features=[]))
        worker.populate(unicodes=wanted)
        worker.subset(font)
        font.flavor = "woff"
        font.save(folder / f"{name}.woff")
    sheet.write_text(FONT.sub(r'src:url(\1.woff) format("woff")', text), encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Called by Sphinx when all pages are written."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    script = static / "scripts" / "fontawesome.js"
    if script.is_file():
        icons = drawings(script)
        options = (static / "documentation_options.js").read_text(encoding="utf-8").strip()
        for page in Path(app.outdir).rglob("*.html"):
            html = page.read_text(encoding="utf-8")
            if (light := lighten(html, icons, options)) != html:
                page.write_text(light, encoding="utf-8")
        subset(static / "styles")
    fonts = "vendor/fontawesome/webfonts"
    for pattern in ("scripts/*.map", "styles/*.map", "scripts/fontawesome*", f"{fonts}/*.ttf", f"{fonts}/*.woff2"):
        for unused in static.glob(pattern):
            unused.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True}
