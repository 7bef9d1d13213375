"""Variational auto-encoders beyond the plain ELBO.

One rule: an objective is a callable `(model, x) -> Tensor[B]`, per image, in nats, to be maximised.
"""

from vaekit.bounds import elbo, importance_bound, log_evidence, log_weight
from vaekit.consistency import Consistency, posterior_divergence
from vaekit.disentanglement import FactorVAE, annealed_capacity, beta_tcvae, dip_vae
from vaekit.dynamics import leapfrog
from vaekit.ensemble import fit_ensemble
from vaekit.factor_metrics import binned_mutual_information, factor_entropy, modularity, mutual_information_gap
from vaekit.flows import PlanarBound
from vaekit.hamiltonian import HamiltonianBound
from vaekit.hierarchical import TwoLevelVAE, two_level_mlp
from vaekit.influence import Strongest, self_influence, strongest, tracin
from vaekit.jacobian import JacobianL1, decoder_jacobian, jacobian_l1, jacobian_l2
from vaekit.likelihoods import bernoulli, categorical256, gaussian
from vaekit.local_metrics import LocalScores, local_scores
from vaekit.model import VAE
from vaekit.networks import conv, dcgan, hvae_conv, mlp
from vaekit.ood import input_complexity, likelihood_ratio, mutated, negative_log_likelihood
from vaekit.regret import likelihood_regret
from vaekit.training import History, fit, linear, load_checkpoint

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Consistency",
    "FactorVAE",
    "HamiltonianBound",
    "History",
    "JacobianL1",
    "LocalScores",
    "PlanarBound",
    "Strongest",
    "TwoLevelVAE",
    "annealed_capacity",
    "bernoulli",
    "beta_tcvae",
    "binned_mutual_information",
    "categorical256",
    "conv",
    "dcgan",
    "decoder_jacobian",
    "dip_vae",
    "elbo",
    "factor_entropy",
    "fit",
    "fit_ensemble",
    "gaussian",
    "hvae_conv",
    "importance_bound",
    "input_complexity",
    "jacobian_l1",
    "jacobian_l2",
    "leapfrog",
    "likelihood_ratio",
    "likelihood_regret",
    "linear",
    "load_checkpoint",
    "local_scores",
    "log_evidence",
    "log_weight",
    "mlp",
    "modularity",
    "mutated",
    "mutual_information_gap",
    "negative_log_likelihood",
    "posterior_divergence",
    "self_influence",
    "strongest",
    "tracin",
    "two_level_mlp",
]
