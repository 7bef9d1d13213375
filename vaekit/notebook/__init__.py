r"""What the chapters' notebooks use, and nothing else does.

Read first: `experiments` (profiles, results with where they are from), then `kept` and `trainings` (work that goes on
where it was stopped). `exercises` checks an answer and `diagnosis` says what is wrong with it; `figures` and `widgets`
draw.
"""

from vaekit.notebook.exercises import Verdict, check, check_value, hint
from vaekit.notebook.experiments import PROFILES, load_results, pick, profile, save_results, tell
from vaekit.notebook.figures import COLOURS, image_grid, image_rows, markdown_table, show, tile, to_png, use_style
from vaekit.notebook.kept import stored
from vaekit.notebook.numbers import number
from vaekit.notebook.table import settings
from vaekit.notebook.trainings import trained
from vaekit.notebook.widgets import follow, frames, frames2

__all__ = [
    "COLOURS",
    "PROFILES",
    "Verdict",
    "check",
    "check_value",
    "follow",
    "frames",
    "frames2",
    "hint",
    "image_grid",
    "image_rows",
    "load_results",
    "markdown_table",
    "number",
    "pick",
    "profile",
    "save_results",
    "settings",
    "show",
    "stored",
    "tell",
    "tile",
    "to_png",
    "trained",
    "use_style",
]
