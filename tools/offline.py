"""The whole book as one zip that opens from disk, without a network: `python -m tools.offline [file.zip]`."""

import sys
import zipfile
from pathlib import Path

from tools import assets
from tools.build_book import build
from tools.notebooks import ROOT

NAME = "beyond-the-elbo"
README = """Beyond the ELBO

Unpack this folder anywhere and open index.html in a browser. Nothing is loaded from a network:
formulas, sliders, quizzes and the search work from disk.

Text and figures: CC BY 4.0. Code: MIT.
"""
LONG_AGO = (2000, 1, 1, 0, 0, 0)  # the same book makes the same zip


def pack(html: Path, target: Path) -> None:
    """Zip a built book, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    files = {path.relative_to(html).as_posix(): path.read_bytes() for path in html.rglob("*") if path.is_file()}
    files = {name: data for name, data in files.items() if not name.startswith(("_sources/", "."))}
    before, after = b"SHOW_SEARCH_SUMMARY: true", b"SHOW_SEARCH_SUMMARY: false"
    for name in files:  # a page opened from disk may not fetch others for their excerpts
        if name.endswith((".html", "documentation_options.js")):
            files[name] = files[name].replace(before, after)
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted({**files, "README.txt": README.encode()}.items()):
            archive.writestr(zipfile.ZipInfo(f"{NAME}/{name}", LONG_AGO), data, zipfile.ZIP_DEFLATED)
    unfinished.replace(target)


def main(target: Path) -> None:
    """Build the book and zip it; without what its pages load there would be no point."""
    if missing := assets.ensure():
        sys.exit(f"offline: could not get {' and '.join(missing)} from npm, without which the pages need a network")
    if status := build(ROOT):
        sys.exit(status)
    pack(ROOT / "_build" / "html", target)
    print(f"The book, offline: {target} ({target.stat().st_size / 2**20:.0f} MiB)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "_build" / f"{NAME}.zip")
