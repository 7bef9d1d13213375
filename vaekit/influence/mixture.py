"""Exact influence in a Gaussian mixture: re-fitted without each training point, all these fits side by side."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaekit import checks
from vaekit.influence.leave_one_out import check_points

AT_ONCE = 2**22  # densities in one step of EM: 32 MB in double precision


class Mixtures(NamedTuple):
    """R mixtures of K Gaussians in d dimensions."""

    log_share: Tensor  # [R, K]
    mean: Tensor  # [R, K, d]
    covariance: Tensor  # [R, K, d, d]

    def log_joint(self, points: Tensor) -> Tensor:
        """Log density of points `[n, d]` and of having come from each component: `[R, n, K]`."""
        normal = MultivariateNormal(self.mean, self.covariance, validate_args=False)
        return (normal.log_prob(points[:, None, None]) + self.log_share).transpose(0, 1)  # [n, R, K] -> [R, n, K]


def mixture_influence(
    train: Tensor, test: Tensor, *, components: int, ridge: float = 1e-6, tolerance: float = 1e-9, steps: int = 5000,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    r"""Influence in a mixture of K Gaussians fitted by EM, as `vaekit.influence.leave_one_out` defines it.

    The mixture has no closed form for the fit without a point, and many optima. The counter-factual is taken from the
    optimum that the fit to all points has found: from there, EM goes on without $x_i$ until the log-likelihood per
    point gains less than `tolerance` in a step, for all i side by side.

    Args:
        train: Training points `[N, d]`; double precision is advised.
        test: Test points `[M, d]`.
        components: K, from 1 to N - 1.
        ridge: Added to the diagonal of each covariance, so that no component shrinks onto one point; above 0.
        tolerance: In nats a point; above 0.
        steps: At most, of EM.
        seed: Of the k-means start of the fit to all points.

    Returns:
        `[N, M]`, in nats.

    Raises:
        ValueError: Bad points or numbers.
        RuntimeError: EM did not get to `tolerance` in `steps`.

    References:
        Dempster, Laird & Rubin, JRSS B 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x (EM).
    """
    n, _ = check_points(train, test, least=2)
    checks.count(components, 1, "components")
    checks.count(seed, 0, "seed")
    if components >= n:
        raise ValueError(f"components: expected from 1 to {n - 1}, got {components}")
    checks.positive(ridge, "ridge")
    checks.positive(tolerance, "tolerance")
    checks.count(steps, 1, "steps")
    from sklearn.mixture import GaussianMixture  # slow to import, and needed here alone

    start = GaussianMixture(components, reg_covar=ridge, random_state=seed, n_init=5, tol=1e-4, max_iter=1000)
    start.fit(train.cpu().double().numpy())
    found = (torch.as_tensor(value).to(train) for value in (start.weights_, start.means_, start.covariances_))
    share, mean, covariance = (value[None] for value in found)
    all_points = train.new_ones(1, n)
    whole = _em(train, all_points, Mixtures(share.log(), mean, covariance), ridge, tolerance, steps)
    log_p = whole.log_joint(test).logsumexp(-1)  # [1, M]
    influence = []
    for left_out in torch.arange(n, device=train.device).split(max(1, AT_ONCE // (n * components))):
        weights = all_points.repeat(len(left_out), 1).scatter_(1, left_out[:, None], 0.0)  # [R, N]
        here = Mixtures(*(value.expand(len(left_out), *value.shape[1:]) for value in whole))
        without = _em(train, weights, here, ridge, tolerance, steps)
        influence.append(log_p - without.log_joint(test).logsumexp(-1))
    return torch.cat(influence)


def _em(points: Tensor, weights: Tensor, mixtures: Mixtures, ridge: float, tolerance: float, steps: int) -> Mixtures:
    """EM for R mixtures, each with its own weights `[R, N]` of the points, until all have converged."""
    before = weights.new_full((len(weights),), -torch.inf)
    ridge_matrix = ridge * torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    for _ in range(steps):
        log_joint = mixtures.log_joint(points)  # [R, N, K]
        log_p = log_joint.logsumexp(-1)
        mean_nats = (weights * log_p).sum(1) / weights.sum(1)  # [R]
        if ((mean_nats - before).abs() < tolerance).all():
            return mixtures
        before = mean_nats
        r = weights[..., None] * (log_joint - log_p[..., None]).exp()  # [R, N, K]
        # without its only point a component is empty: its share is 0, and it stays so
        count = r.sum(1).clamp_min(torch.finfo(r.dtype).tiny)  # [R, K]
        mean = (r.mT @ points) / count[..., None]  # [R, K, d]
        e = points[:, None] - mean[:, None]  # [R, N, K, d]
        covariance = torch.einsum("rnk,rnki,rnkj->rkij", r, e, e) / count[..., None, None]
        share = count / weights.sum(1, keepdim=True)
        mixtures = Mixtures(share.log(), mean, covariance + ridge_matrix)
    raise RuntimeError(f"EM: the log-likelihood still gains more than {tolerance} nats a point after {steps} steps")
