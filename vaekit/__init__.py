"""Variational auto-encoders beyond the plain ELBO.

One rule: an objective is a callable `(model, x) -> Tensor[B]`, per image, in nats, to be maximised.
"""

from vaekit.bounds import elbo, importance_bound, log_evidence, log_weight
from vaekit.dynamics import leapfrog
from vaekit.flows import PlanarBound
from vaekit.hamiltonian import HamiltonianBound
from vaekit.likelihoods import bernoulli, categorical256, gaussian
from vaekit.model import VAE
from vaekit.networks import conv, dcgan, hvae_conv, mlp
from vaekit.training import History, fit, linear, load_checkpoint

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "HamiltonianBound",
    "History",
    "PlanarBound",
    "bernoulli",
    "categorical256",
    "conv",
    "dcgan",
    "elbo",
    "fit",
    "gaussian",
    "hvae_conv",
    "importance_bound",
    "leapfrog",
    "linear",
    "load_checkpoint",
    "log_evidence",
    "log_weight",
    "mlp",
]
