r"""How well latents and factors of variation match, one to one: a table of mutual informations, and two scores of it.

The table holds $I_{ij} = I(c_i; v_j)$ between each latent's code, cut into a few bins, and each factor, in nats. The
scores read it in its two directions: is each factor in one latent (the gap), is each latent about one factor (the
modularity)? `vaekit.jacobian.local_metrics` fills the table from neighbourhoods of the data.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vaekit import checks


def binned_mutual_information(codes: Tensor, factors: Tensor, *, bins: int = 5) -> Tensor:
    r"""$I(c_i; v_j)$ of the empirical joint distribution, each latent cut into bins of equal width.

    $$I_{ij} = \sum_{a, b} \hat p_{ij}(a, b) \log \frac{\hat p_{ij}(a, b)}{\hat p_i(a)\, \hat p_j(b)}.$$

    The estimate is too high by about (bins - 1)(values - 1) / 2N nats.

    Args:
        codes: `[..., N, D]`.
        factors: `[N, F]`, whole numbers from 0.
        bins: Between the least and the largest code of each latent, at least 2.

    Returns:
        `[..., D, F]`, in nats, at least 0.

    Raises:
        ValueError: Shapes that do not fit, codes that are not finite, or `bins` below 2.
    """
    checks.count(bins, 2, "bins")
    _check_factors(factors)
    if not isinstance(codes, Tensor) or not codes.is_floating_point():
        raise ValueError(f"codes: expected a floating-point tensor [..., N, D], got {checks.described(codes)}")
    if codes.ndim < 2 or factors.ndim != 2 or codes.shape[-2] != len(factors) or codes.numel() == 0:
        raise ValueError(
            f"codes, factors: expected [..., N, D] and [N, F], got {tuple(codes.shape)} and {tuple(factors.shape)}"
        )
    if not checks.is_true(codes.isfinite().all()):
        raise ValueError("codes: found NaN or infinite values; every code must be finite")
    low, high = codes.amin(-2, keepdim=True), codes.amax(-2, keepdim=True)
    width = (high - low).clamp_min(torch.finfo(codes.dtype).tiny)
    cells = ((codes - low) / width * bins).long().clamp_max(bins - 1)  # [..., N, D]
    values = int(factors.max()) + 1
    code_is = one_hot(cells, bins).to(codes.dtype).flatten(-2)  # [..., N, D * bins]
    factor_is = one_hot(factors.long(), values).to(codes.dtype).flatten(-2)  # [N, F * values]
    joint = code_is.transpose(-1, -2) @ factor_is / len(factors)  # [..., D * bins, F * values]
    joint = joint.unflatten(-1, (-1, values)).unflatten(-3, (-1, bins)).transpose(-2, -3)  # [..., D, F, bins, values]
    apart = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return _without_rounding(torch.where(joint > 0, joint * (joint / apart).log(), 0).sum((-1, -2)))


def factor_entropy(factors: Tensor) -> Tensor:
    """Entropy in nats of the empirical distribution of each factor; whole numbers from 0, `[N, F]`, to `[F]`.

    Raises:
        ValueError: Not such factors.
    """
    _check_factors(factors)
    precision = torch.float32 if factors.device.type == "mps" else torch.float64
    p = one_hot(factors.long()).to(precision).mean(0)  # [F, values]
    return -torch.special.xlogy(p, p).sum(-1)


def mutual_information_gap(information: Tensor, entropy: Tensor) -> Tensor:
    r"""$\mathrm{MIG} = \tfrac1F \sum_j \big(I_{(1)j} - I_{(2)j}\big) / H(v_j)$: is each factor in one latent alone?

    Args:
        information: $I_{ij}$ `[..., D, F]` in nats, D at least 2.
        entropy: $H(v_j)$ `[F]` in nats, above 0.

    Returns:
        `[...]`, from 0 to 1; with few bins even a perfect code stays below 1.

    Raises:
        ValueError: A factor with entropy 0, which never varies, or fewer than 2 latents.

    References:
        Chen et al., "Isolating Sources of Disentanglement in VAEs", NeurIPS 2018, eq. 6, https://arxiv.org/abs/1802.04942.

    Example:
        >>> mutual_information_gap(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, 2.0]))
        tensor(0.7500)
    """
    _check_information(information, latents=2, factors=1)
    if not bool((entropy > 0).all()):
        raise ValueError("entropy: expected every factor to vary, got one with entropy 0; leave it out")
    first, second = information.topk(2, dim=-2).values.unbind(-2)  # [..., F]
    return ((first - second) / entropy).mean(-1)


def modularity(information: Tensor) -> Tensor:
    r"""Is each latent about one factor alone? The mean over latents i of

    $$1 - \frac{\sum_j I_{ij}^2 - \max_j I_{ij}^2}{(F - 1) \max_j I_{ij}^2},$$

    which is 1 for a latent that informs of one factor and 0 for one that informs of all equally (or of none).

    F is the number of factors in the table. A factor that does not vary adds a column of zeros: then the sums stay, and
    only F grows. Two such conventions are related by $(1 - m)(F - 1) = (1 - m')(F' - 1)$, latents that inform of none
    left out. `vaekit.local_scores` leaves factors that do not vary out; the authors of JL1-VAE count them.

    Args:
        information: $I_{ij}$ `[..., D, F]` in nats, F at least 2.

    Returns:
        `[...]`, from 0 to 1.

    Raises:
        ValueError: Fewer than 2 factors.

    References:
        Ridgeway & Mozer, "Learning Deep Disentangled Embeddings with the F-Statistic Loss", NeurIPS 2018,
        https://arxiv.org/abs/1802.05312.

    Example:
        >>> modularity(torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
        tensor(0.5000)
    """
    _check_information(information, latents=1, factors=2)
    count = information.shape[-1]
    squares = _without_rounding(information).square()
    largest = squares.amax(-1)
    others = (squares.sum(-1) - largest) / ((count - 1) * largest)
    return torch.where(largest > 0, 1 - others, 0).mean(-1)


def _without_rounding(information: Tensor) -> Tensor:
    """At least 0, and 0 where it is no more than what rounding leaves of a 0, as in scikit-learn."""
    return torch.where(information <= 32 * torch.finfo(information.dtype).eps, 0, information)


def _check_factors(factors: Tensor) -> None:
    if not isinstance(factors, Tensor) or factors.ndim != 2 or factors.numel() == 0:
        raise ValueError(f"factors: expected a tensor [N, F] of whole numbers, got {checks.described(factors)}")
    if not checks.is_true(((factors >= 0) & (factors == factors.long())).all()):
        raise ValueError("factors: expected whole numbers from 0, got others; they are not rounded for you")


def _check_information(information: Tensor, latents: int, factors: int) -> None:
    fine = isinstance(information, Tensor) and information.is_floating_point() and information.ndim >= 2
    if not fine or information.shape[-2] < latents or information.shape[-1] < factors:
        expected = f"[..., D, F] with D at least {latents} and F at least {factors}"
        raise ValueError(f"information: expected a tensor {expected}, got {checks.described(information)}")
    if not checks.is_true(information.isfinite().all()):
        raise ValueError("information: found NaN or infinite values; expected nats")
