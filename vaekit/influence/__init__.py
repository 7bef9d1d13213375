r"""Chapter 6: which training images made the model see this? VAE-TracIn (Kong & Chaudhuri, 2021).

A step of gradient ascent on the objective $o$ at training image $x$, of size $\eta$, changes what the objective says of
another image $z$ by $\eta\, \nabla_\theta o(x) \cdot \nabla_\theta o(z)$ to first order. Summed over the training run,

$$\operatorname{TracIn}(x, z) = \sum_{c} \eta_c \, \nabla_\theta o(x; \theta_c) \cdot \nabla_\theta o(z; \theta_c).$$

`tracin` gives the matrix of these scores, `self_influence` its diagonal, `strongest` the ends of its columns.

Read first: `scores`. `leave_one_out` and `mixture` have density models in which the effect of a training point is known
exactly. How scores are computed: `run` goes through checkpoints and images in resumable pieces, `paths` chooses between
ways to gradients, `gradients` and `factors` take them layer by layer. The paper: https://arxiv.org/abs/2105.14203
"""

from vaekit.influence.leave_one_out import gaussian_influence, kde_influence, knn_influence, ppca_influence
from vaekit.influence.mixture import Mixtures, mixture_influence
from vaekit.influence.scores import Strongest, self_influence, strongest, tracin

__all__ = [
    "Mixtures",
    "Strongest",
    "gaussian_influence",
    "kde_influence",
    "knn_influence",
    "mixture_influence",
    "ppca_influence",
    "self_influence",
    "strongest",
    "tracin",
]
