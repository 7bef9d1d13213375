r"""Training, for every chapter: one loop for any objective, and what it needs to survive.

Read first: `loop` (`fit`). `ensemble` trains several seeds as one batched model; `runs` and `checkpoints` keep a run on
disk, whole or not at all; `seeding` makes noise repeatable; `distributed` spreads a step over processes; `devices` says
where to compute.
"""

from vaekit.training.checkpoints import ensure_writable, load_checkpoint, save_checkpoint
from vaekit.training.devices import default_device, device_name
from vaekit.training.ensemble import fit_ensemble
from vaekit.training.loop import History, Objective, Schedule, fit, linear
from vaekit.training.seeding import seeded

__all__ = [
    "History",
    "Objective",
    "Schedule",
    "default_device",
    "device_name",
    "ensure_writable",
    "fit",
    "fit_ensemble",
    "linear",
    "load_checkpoint",
    "save_checkpoint",
    "seeded",
]
