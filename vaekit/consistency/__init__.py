r"""Chapter 5: an image and its transformed copy mean the same. CR-VAE (Sinha & Dieng, 2021).

The divergence between the posteriors of an image and of a shifted, turned or scaled copy is added, as a cost, to any
bound.

Read first: `objective` (`posterior_divergence`, `Consistency`). `transforms` has the changes that keep the meaning;
`two_level` a model with two levels of latents. The paper: https://arxiv.org/abs/2105.14859
"""

from vaekit.consistency.objective import Consistency, Transform, posterior_divergence
from vaekit.consistency.transforms import (
    RandomAffine,
    RandomBrightness,
    RandomNoise,
    affine,
    black_or_white,
    compose,
)
from vaekit.consistency.two_level import TwoLevelNormal, TwoLevelVAE, level_divergences, two_level_mlp

__all__ = [
    "Consistency",
    "RandomAffine",
    "RandomBrightness",
    "RandomNoise",
    "Transform",
    "TwoLevelNormal",
    "TwoLevelVAE",
    "affine",
    "black_or_white",
    "compose",
    "level_divergences",
    "posterior_divergence",
    "two_level_mlp",
]
