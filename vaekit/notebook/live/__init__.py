"""Live figures: models that run in the page, with no kernel, in the built book, in JupyterLab and on Colab.

Each function makes one figure in one line of a chapter: `live.flow()`, `live.regret(model, images)`. It puts the
model's weights, a still picture and a small runtime in plain JavaScript into one HTML output. On paper, and where no
script may run, the still picture remains.
"""

from vaekit.notebook.live.consistency import dial
from vaekit.notebook.live.flow import flow
from vaekit.notebook.live.influence import influence_points, teachers
from vaekit.notebook.live.jacobian import basis, columns
from vaekit.notebook.live.latent import plane, posterior
from vaekit.notebook.live.lights import lights
from vaekit.notebook.live.regret import regret
from vaekit.notebook.live.slider import slider

__all__ = [
    "basis",
    "columns",
    "dial",
    "flow",
    "influence_points",
    "lights",
    "plane",
    "posterior",
    "regret",
    "slider",
    "teachers",
]
