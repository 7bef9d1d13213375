r"""Which training images made the model see this? VAE-TracIn: inner products of gradients, summed over checkpoints.

A step of gradient ascent on the objective $o$ at training image $x$, of size $\eta$, changes what the objective says of
another image $z$ by $\eta\, \nabla_\theta o(x) \cdot \nabla_\theta o(z)$ to first order. Summed over the training run,

$$\operatorname{TracIn}(x, z) = \sum_{c} \eta_c \, \nabla_\theta o(x; \theta_c) \cdot \nabla_\theta o(z; \theta_c).$$

`tracin` gives the matrix of these scores, `self_influence` its diagonal, `strongest` the ends of its columns.
"""

from vaekit.influence.scores import Strongest, self_influence, strongest, tracin

__all__ = ["Strongest", "self_influence", "strongest", "tracin"]
