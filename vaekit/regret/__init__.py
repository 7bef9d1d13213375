r"""Chapter 3: is this image like the training data? Likelihood regret (Xiao, Yan & Amit, 2020).

How many nats does the bound of one image gain when the posterior is fitted to that image alone? Little for an image
like those of the training, much for a stranger, also where the likelihood itself is fooled.

Read first: `score` (`likelihood_regret`); `baselines` has the scores that it is compared with, `per_image` how many
images are fitted side by side. The paper: https://arxiv.org/abs/2003.02977
"""

from vaekit.regret.baselines import (
    Codec,
    code_length,
    input_complexity,
    likelihood_ratio,
    mutated,
    negative_log_likelihood,
)
from vaekit.regret.networks import authors_dcgan
from vaekit.regret.score import likelihood_regret

__all__ = [
    "Codec",
    "authors_dcgan",
    "code_length",
    "input_complexity",
    "likelihood_ratio",
    "likelihood_regret",
    "mutated",
    "negative_log_likelihood",
]
