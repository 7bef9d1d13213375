r"""How well latents and factors of variation match in a neighbourhood: scores of the factors near a random centre.

A model may line up its latents with other directions in other places. A local score is computed from images whose
factors lie within a radius $\rho$, a share of each factor's range, of a random centre, and averaged over centres;
$\rho = 1$ gives the global score.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit import checks
from vaekit.jacobian.factor_metrics import binned_mutual_information, factor_entropy, modularity, mutual_information_gap


class LocalScores(NamedTuple):
    """What `local_scores` returns; `[...]` are the leading dimensions of the codes, such as models.

    Attributes:
        gap: Local mutual-information gap `[...]`.
        modularity: Local modularity `[...]`.
        gap_ceiling: The gap of a perfect code, the factors themselves, in as many bins: a number.
        modularity_ceiling: Its modularity.
        information: The table `[..., D, F']` in nats, averaged over centres; F' counts the factors that vary.
    """

    gap: Tensor
    modularity: Tensor
    gap_ceiling: float
    modularity_ceiling: float
    information: Tensor


def neighbourhood(
    sizes: Sequence[int],
    *,
    rho: float,
    points: int,
    frozen: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Factors around a random centre: each uniform within $\lfloor n \rho \rfloor$ of the centre's, inside its range.

    Args:
        sizes: n, the number of values of each factor.
        rho: Radius as a share of the range, above 0, up to 1.
        points: N, at least 1.
        frozen: Indices of factors that keep the centre's value.
        generator: Source of randomness.

    Returns:
        `[N, F]`, whole numbers from 0 to n - 1.
    """
    limits = torch.tensor(sizes)
    centre = (torch.rand(len(sizes), generator=generator) * limits).long()
    radius = torch.tensor([_radius(n, rho) for n in sizes])
    radius[list(frozen)] = 0
    low, high = (centre - radius).clamp_min(0), torch.minimum(centre + radius, limits - 1)
    return low + (torch.rand(points, len(sizes), generator=generator) * (high - low + 1)).long()


def _radius(n: int, rho: float) -> int:
    """The floor of n rho, without the last digit's rounding: 29 for 100 and 0.29, where 100 * 0.29 is 28.99..."""
    return math.floor(n * rho + 1e-9)


@torch.no_grad()
def local_scores(
    encode: Callable[[Tensor], Tensor],
    render: Callable[[Tensor], Tensor],
    sizes: Sequence[int],
    *,
    rho: float,
    points: int = 10_000,
    centres: int = 20,
    bins: int = 5,
    frozen: Sequence[int] | None = None,
    seed: int = 0,
    chunk: int = 1000,
) -> LocalScores:
    r"""Local mutual-information gap and modularity, with the scores of a perfect code beside them.

    Args:
        encode: From images `[n, *image]` to codes `[..., n, D]`, such as the posterior means of one or of many models.
        render: From factors `[n, F]`, whole numbers, to images.
        sizes: The number of values of each factor.
        rho: Radius of a neighbourhood as a share of each factor's range, above 0, up to 1; 1 gives the global scores.
        points: Images in a neighbourhood.
        centres: Neighbourhoods, over which scores are averaged.
        bins: Bins for a code.
        frozen: Indices of factors that stay as they are at the centre; by default those with fewer than 10 values. Name
            those without an order too.
        seed: For centres and points; the same for all models that are to be compared.
        chunk: Images rendered and encoded at once.

    Returns:
        The scores, each the mean over neighbourhoods. Latents that carry nothing count in modularity. Factors that do
        not vary count in neither score; the authors of the paper count them in modularity (see there for what that
        changes), and accept a single factor that varies, for which modularity says nothing.

    Raises:
        ValueError: `rho` outside (0, 1], fewer than 2 factors that vary, or a number below 1.

    References:
        Rhodes & Lee, NeurIPS 2021, https://arxiv.org/abs/2106.02923.
    """
    checks.share(rho, "rho")
    checks.function(encode, "encode")
    checks.function(render, "render")
    checks.shape(sizes, "sizes")
    checks.count(seed, 0, "seed")
    for name, value in {"points": points, "centres": centres, "chunk": chunk}.items():
        checks.count(value, 1, name)
    held = {i for i, n in enumerate(sizes) if n < 10} if frozen is None else set(frozen)
    varying = [i for i, n in enumerate(sizes) if i not in held and _radius(n, rho) > 0]
    if len(varying) < 2:
        raise ValueError(f"sizes, rho, frozen: expected at least 2 factors that vary, got {len(varying)}")
    generator = torch.Generator().manual_seed(seed)
    scores, tables = [], []
    for _ in range(centres):
        factors = neighbourhood(sizes, rho=rho, points=points, frozen=sorted(held), generator=generator)
        codes = torch.cat([encode(render(part)).cpu() for part in factors.split(chunk)], -2)  # [..., N, D]
        truth = factors[:, varying] - factors[:, varying].amin(0)
        entropy = factor_entropy(truth)
        table, perfect = (binned_mutual_information(c, truth, bins=bins) for c in (codes, truth.double()))
        scores.append([s for t in (table, perfect) for s in (mutual_information_gap(t, entropy), modularity(t))])
        tables.append(table)
    gap, modular, gap_ceiling, modularity_ceiling = (torch.stack(s).mean(0) for s in zip(*scores, strict=True))
    return LocalScores(gap, modular, gap_ceiling.item(), modularity_ceiling.item(), torch.stack(tables).mean(0))
