"""Render the book to `_build/html`, a warning being an error: `python -m tools.build_book [another output folder]`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import assets

ROOT = Path(__file__).resolve().parent.parent


def build(output: Path) -> int:
    """Build into `output/html`; returns the exit status, and prints nothing but warnings."""
    if missing := assets.ensure():
        print(f"note: could not get {' and '.join(missing)} from npm; these pages load them from a CDN")
    # a grammar of addresses that jsonschema would compile for four seconds, and Jupyter Book never asks for
    start = "import sys; sys.modules['rfc3987_syntax'] = None; from jupyter_book.cli.main import main; main()"
    jupyter_book = [sys.executable, "-c", start]
    command = [
        *jupyter_book, "build", str(ROOT), "--config", str(ROOT / "_config.yml"),
        "--toc", str(ROOT / "book" / "_toc.yml"), "--path-output", str(output), "-W", "--keep-going", "-q",
    ]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        print(re.sub(r"\x1b\[[\d;]*m", "", run.stdout + run.stderr), file=sys.stderr)
        # what was read with warnings must be read again, or the next build would pass over them
        shutil.rmtree(output / "_build" / ".doctrees", ignore_errors=True)
    return run.returncode


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
