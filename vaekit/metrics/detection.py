"""How well scores tell two data sets apart, and the spread of a mean; each number with its standard error."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaekit import checks

Scores = Tensor | np.ndarray | Sequence[float]


class Estimate(NamedTuple):
    """An area and its standard error."""

    value: float
    standard_error: float


class Mean(NamedTuple):
    """A mean over runs and its standard error."""

    mean: float
    standard_error: float


def mean_and_standard_error(values: Scores) -> Mean:
    r"""Mean of independent runs and its standard error $s / \sqrt n$, with $s^2$ the unbiased variance.

    Args:
        values: n numbers, such as one per seed. For n = 1 the standard error is NaN: one run says nothing about spread.

    Raises:
        ValueError: No numbers.

    Example:
        >>> mean_and_standard_error([1.0, 2.0, 3.0])
        Mean(mean=2.0, standard_error=0.5773502691896258)
    """
    v = _numbers(values, "values")
    error = v.std().item() / math.sqrt(len(v)) if len(v) > 1 else math.nan
    return Mean(v.mean().item(), error)


def auroc(scores_in: Scores, scores_out: Scores) -> Estimate:
    r"""Area under the ROC curve of a detector whose higher scores say "out of distribution", with its standard error.

    $$A = \frac{1}{mn} \sum_{i=1}^m \sum_{j=1}^n \Big(\mathbb 1[s^{\rm out}_j > s^{\rm in}_i]
      + \tfrac12 \mathbb 1[s^{\rm out}_j = s^{\rm in}_i]\Big),$$

    the probability that an image from outside scores above one from inside. With $u_i$ and $v_j$ the inner means over
    the other set, the standard error is DeLong's, $\sqrt{\operatorname{Var}(u)/m + \operatorname{Var}(v)/n}$. It is 0
    where the sets are fully apart, and NaN where one of them has a single score. Costs $O((m + n) \log(m + n))$.

    Args:
        scores_in: m scores of images like the training data.
        scores_out: n scores of others.

    Returns:
        The area, from 0 to 1 (chance: 0.5), and its standard error over images. Seeds of the model come on top.

    Raises:
        ValueError: No scores, more than one dimension, or a NaN.

    References:
        DeLong, DeLong & Clarke-Pearson, Biometrics 44:837-845, 1988, https://doi.org/10.2307/2531595.

    Example:
        >>> auroc([0.1, 0.2, 0.3], [0.2, 0.4]).value
        0.75
    """
    inside, outside = _numbers(scores_in, "scores_in"), _numbers(scores_out, "scores_out")
    v = _share_below(inside, outside)  # [n], share of the inside below each one outside
    u = 1 - _share_below(outside, inside)  # [m]
    spread = [p.var().item() / len(p) if len(p) > 1 else math.nan for p in (u, v)]
    return Estimate(v.mean().item(), math.sqrt(sum(spread)))


def auprc(scores_in: Scores, scores_out: Scores) -> float:
    r"""Average precision $\sum_k (R_k - R_{k-1}) P_k$, the area under the precision-recall curve, outside as positives.

    The sum runs over the distinct scores as thresholds, from the highest down. Chance is the share of outside images.

    Args, errors: as for `auroc`.
    """
    inside, outside = _numbers(scores_in, "scores_in"), _numbers(scores_out, "scores_out")
    thresholds, count = outside.unique(return_counts=True)
    caught = len(outside) - torch.searchsorted(outside.sort().values, thresholds)  # scores outside >= each threshold
    false = len(inside) - torch.searchsorted(inside.sort().values, thresholds)
    precision = caught.double() / (caught + false)
    return (precision * count).sum().item() / len(outside)


def fpr_at_tpr(scores_in: Scores, scores_out: Scores, tpr: float = 0.95) -> float:
    """Share of inside images that are flagged at the highest threshold that still flags a share `tpr` of the outside.

    An image is flagged if its score is at least the threshold. Some papers take the inside as the positives; theirs is
    `fpr_at_tpr(-scores_out, -scores_in)`.

    Args, errors: as for `auroc`; and `ValueError` where `tpr` is not in (0, 1].
    """
    inside, outside = _numbers(scores_in, "scores_in"), _numbers(scores_out, "scores_out")
    checks.share(tpr, "tpr")
    needed = math.ceil(tpr * len(outside) - 1e-9)  # 0.07 * 100 is a little more than 7
    threshold = outside.sort(descending=True).values[needed - 1]
    return (inside >= threshold).double().mean().item()


def _numbers(values: Scores, name: str) -> Tensor:
    values = values.detach().cpu() if isinstance(values, Tensor) else values  # MPS has no double precision
    try:
        v = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers in one dimension, got {checks.shown(values)}") from error
    if v.ndim != 1 or len(v) == 0:
        raise ValueError(f"{name}: expected one or more numbers in one dimension, got shape {tuple(v.shape)}")
    if v.isnan().any():
        raise ValueError(f"{name}: found NaN")
    return v


def _share_below(these: Tensor, values: Tensor) -> Tensor:
    """For each of `values` the share of `these` below it, those equal counting half."""
    ordered = these.sort().values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(these))
