"""Numbers that say how a model does: how well scores tell data sets apart, and how much of its code a model uses.

Scores of disentanglement are in `vaekit.jacobian.factor_metrics` and `vaekit.jacobian.local_metrics`.
"""

from vaekit.metrics.codes import ActiveUnits, Information, active_units, mutual_information
from vaekit.metrics.detection import Estimate, Mean, auprc, auroc, fpr_at_tpr, mean_and_standard_error

__all__ = [
    "ActiveUnits",
    "Estimate",
    "Information",
    "Mean",
    "active_units",
    "auprc",
    "auroc",
    "fpr_at_tpr",
    "mean_and_standard_error",
    "mutual_information",
]
