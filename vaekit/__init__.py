"""Variational auto-encoders beyond the plain ELBO.

One rule: an objective is a callable `(model, x) -> Tensor[B]`, per image, in nats, to be maximised.
"""

from vaekit.bounds import elbo, importance_bound, log_evidence, log_weight
from vaekit.consistency import Consistency, TwoLevelVAE, posterior_divergence, two_level_mlp
from vaekit.hamiltonian import HamiltonianBound, PlanarBound, leapfrog
from vaekit.influence import Strongest, self_influence, strongest, tracin
from vaekit.jacobian import (
    FactorVAE,
    JacobianL1,
    LocalScores,
    annealed_capacity,
    beta_tcvae,
    binned_mutual_information,
    decoder_jacobian,
    dip_vae,
    factor_entropy,
    jacobian_l1,
    jacobian_l2,
    local_scores,
    modularity,
    mutual_information_gap,
)
from vaekit.likelihoods import bernoulli, categorical256, gaussian
from vaekit.model import VAE
from vaekit.networks import conv, dcgan, hvae_conv, mlp
from vaekit.regret import input_complexity, likelihood_ratio, likelihood_regret, mutated, negative_log_likelihood
from vaekit.training import History, fit, fit_ensemble, linear, load_checkpoint

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
