r"""Chapter 4: latents that each act in one place. JL1-VAE (Rhodes & Lee, 2021).

An L1 penalty on the columns of the decoder's Jacobian asks that a small step along a latent change few pixels.

Read first: `penalty` (`decoder_jacobian`, `jacobian_l1`, `JacobianL1`). `baselines` are the objectives it is compared
with; `factor_metrics` scores how latents and known factors match, `local_metrics` the same near a random point.
The paper: https://arxiv.org/abs/2106.02923
"""

from vaekit.jacobian.baselines import FactorVAE, annealed_capacity, beta_tcvae, dip_vae
from vaekit.jacobian.factor_metrics import binned_mutual_information, factor_entropy, modularity, mutual_information_gap
from vaekit.jacobian.local_metrics import LocalScores, local_scores, neighbourhood
from vaekit.jacobian.penalty import JacobianL1, decoder_jacobian, jacobian_l1, jacobian_l2

__all__ = [
    "FactorVAE",
    "JacobianL1",
    "LocalScores",
    "annealed_capacity",
    "beta_tcvae",
    "binned_mutual_information",
    "decoder_jacobian",
    "dip_vae",
    "factor_entropy",
    "jacobian_l1",
    "jacobian_l2",
    "local_scores",
    "modularity",
    "mutual_information_gap",
    "neighbourhood",
]
