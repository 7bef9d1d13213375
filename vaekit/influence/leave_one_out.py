r"""Exact influence in classical density models: what leaving one training point out really does.

Influence asks a counter-factual. With the loss $\ell(z) = -\log \hat p(z)$ of a density fitted to N points,

$$\operatorname{IF}(x_i, z) = \ell(z;\, \text{fitted without } x_i) - \ell(z;\, \text{fitted with it})
  = \log \frac{\hat p(z)}{\hat p_{-i}(z)},$$

in nats. Positive: $x_i$ is a proponent of $z$, which becomes less likely without it; negative: an opponent. For the
models below it is computed in full, for all N points and M test points at once. All take `train` `[N, d]` and `test`
`[M, d]`, floating point, and return `[N, M]`.

References:
    Kong & Chaudhuri, NeurIPS 2021, section 3, https://arxiv.org/abs/2105.14203 (the counter-factual, and what it says
    of k-NN, KDE and Gaussian mixtures); Koh & Liang, ICML 2017, https://arxiv.org/abs/1703.04730.
"""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaekit import checks


def knn_influence(train: Tensor, test: Tensor, *, k: int) -> Tensor:
    r"""Influence in the k-nearest-neighbour density $\hat p(z) = k / (N V_d R_k(z)^d)$.

    $R_k(z)$ is the distance to the k-th neighbour, $V_d$ the unit ball's volume. Without a neighbour the (k+1)-th takes
    its place; without any other point only N changes:

    $$\operatorname{IF}(x_i, z) = \log\frac{N-1}{N} + d \log\frac{R_{k+1}(z)}{R_k(z)}\, [x_i \in \mathrm{kNN}(z)].$$

    Args:
        train: `[N, d]`.
        test: `[M, d]`; none of them at distance 0 from k training points or more, where the density is infinite.
        k: From 1 to N - 1.

    Raises:
        ValueError: Bad points or `k`.

    Example:
        >>> train = torch.tensor([[0.0], [1.0], [3.0]])
        >>> knn_influence(train, torch.tensor([[0.25]]), k=1).T  # log(2/3) + log(0.75 / 0.25), log(2/3), log(2/3)
        tensor([[ 0.6931, -0.4055, -0.4055]])
    """
    n, d = check_points(train, test, least=2)
    checks.count(k, 1, "k")
    if k >= n:
        raise ValueError(f"k: expected from 1 to {n - 1} (one less than the training points), got {k}")
    near = torch.cdist(test, train, compute_mode="donot_use_mm_for_euclid_dist").topk(k + 1, largest=False)
    radius, wider = near.values[:, k - 1], near.values[:, k]  # [M]
    if not (radius > 0).all():
        raise ValueError(f"test: expected fewer than k = {k} training points at each test point itself")
    gain = d * (wider / radius).log()  # [M]
    influence = train.new_zeros(len(test), n).scatter_(1, near.indices[:, :k], gain[:, None].expand(-1, k))
    return influence.T + math.log((n - 1) / n)


def kde_influence(train: Tensor, test: Tensor, *, bandwidth: float) -> Tensor:
    r"""Influence in the kernel density $\hat p(z) = \tfrac1N \sum_i K_i(z)$, $K_i = \mathcal N(z; x_i, h^2 I)$.

    $$\operatorname{IF}(x_i, z) = \log \frac{(N-1)\,\hat p(z)}{N \hat p(z) - K_i(z)}
      = \log\frac{N-1}{N} - \log\big(1 - r_i(z)\big), \qquad r_i(z) = \frac{K_i(z)}{\sum_j K_j(z)}.$$

    Args:
        train: `[N, d]`.
        test: `[M, d]`.
        bandwidth: h, above 0.

    Raises:
        ValueError: Bad points or `bandwidth`, also one so small that the kernels underflow.
    """
    n, _ = check_points(train, test, least=2)
    checks.positive(bandwidth, "bandwidth")
    square = torch.cdist(train, test, compute_mode="donot_use_mm_for_euclid_dist").square()  # [N, M]
    log_kernel = -square / (2 * bandwidth**2)  # up to a constant that all share
    if not log_kernel.isfinite().all():
        raise ValueError(
            f"bandwidth: expected one in which distances of up to {square.max().sqrt().item():.3g} can be told, got "
            f"{bandwidth}; the kernels underflow"
        )
    share = log_kernel.softmax(0)
    # where one kernel holds nearly all of p(z), 1 - share has no digits left: sum the others instead
    top = share.argmax(0, keepdim=True)
    others = log_kernel.scatter(0, top, -math.inf).logsumexp(0) - log_kernel.logsumexp(0)
    log_rest = torch.log1p(-share).scatter(0, top, others[None])
    return math.log((n - 1) / n) - log_rest


def gaussian_influence(train: Tensor, test: Tensor) -> Tensor:
    r"""Influence in a Gaussian fitted by maximum likelihood, $\hat p = \mathcal N(\mu, \Sigma)$.

    With $e_i = x_i - \mu$, leaving out $x_i$ moves the fit to

    $$\mu_{-i} = \mu - \frac{e_i}{N-1}, \qquad
      \Sigma_{-i} = \frac{N}{N-1}\Big(\Sigma - \frac{e_i e_i^\top}{N-1}\Big).$$

    Args:
        train: `[N, d]`, in general position with N at least d + 2.
        test: `[M, d]`.

    Raises:
        ValueError: Bad points, or a covariance that is singular.
    """
    check_points(train, test, least=train.shape[-1] + 2 if isinstance(train, Tensor) and train.ndim == 2 else 2)
    mean, covariance, means, covariances = _moments(train)
    return _log_normal(test, mean[None], covariance[None]) - _log_normal(test, means, covariances)


def ppca_influence(train: Tensor, test: Tensor, *, latent_dim: int) -> Tensor:
    r"""Influence in probabilistic PCA fitted by maximum likelihood: a linear VAE whose optimum is known.

    $\hat p = \mathcal N(\mu, W W^\top + \sigma^2 I)$, where $W W^\top + \sigma^2 I$ keeps the D largest eigenvalues of
    the covariance and replaces the others by their mean $\sigma^2$. Each fit without a point is that of $\Sigma_{-i}$
    (see `gaussian_influence`), by its own eigendecomposition.

    Args:
        train: `[N, d]`.
        test: `[M, d]`.
        latent_dim: D, from 1 to d - 1; N at least D + 3.

    Raises:
        ValueError: Bad points or `latent_dim`, or a residual variance of 0.

    References:
        Tipping & Bishop, "Probabilistic Principal Component Analysis", JRSS B 1999, eqs. 7 and 8,
        https://doi.org/10.1111/1467-9868.00196.
    """
    checks.count(latent_dim, 1, "latent_dim")
    _, d = check_points(train, test, least=latent_dim + 3)
    if latent_dim >= d:
        raise ValueError(f"latent_dim: expected from 1 to {d - 1} (one less than the dimensions), got {latent_dim}")
    mean, covariance, means, covariances = _moments(train)

    def fitted(covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)  # rising
        noise = values[..., : d - latent_dim].mean(-1, keepdim=True)
        kept = torch.cat([noise.expand_as(values[..., : d - latent_dim]), values[..., d - latent_dim :]], dim=-1)
        return (vectors * kept[..., None, :]) @ vectors.mT

    return _log_normal(test, mean[None], fitted(covariance)[None]) - _log_normal(test, means, fitted(covariances))


def check_points(train: Tensor, test: Tensor, *, least: int) -> tuple[int, int]:
    """Refuse what is not two sets of points of one kind; returns N and d."""
    for points, name in ((train, "train"), (test, "test")):
        checks.images(points, name=name)
        if points.ndim != 2:
            raise ValueError(f"{name}: expected points [n, d], got shape {tuple(points.shape)}")
    if test.shape[1] != train.shape[1] or test.dtype != train.dtype:
        raise ValueError(f"test: expected points [M, {train.shape[1]}] of {train.dtype}, got {tuple(test.shape)}")
    checks.count(len(train), least, "train: number of points")
    return train.shape[0], train.shape[1]


def _moments(train: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean `[d]` and covariance `[d, d]` of all points, and `[N, d]`, `[N, d, d]` of all but one."""
    n = len(train)
    mean = train.mean(0)
    e = train - mean  # [N, d]
    covariance = e.T @ e / n
    means = mean - e / (n - 1)
    covariances = n / (n - 1) * (covariance - e[:, :, None] * e[:, None, :] / (n - 1))
    return mean, covariance, means, covariances


def _log_normal(test: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Log densities of `test` `[M, d]` under K Gaussians: `[K, M]`."""
    factors, failed = torch.linalg.cholesky_ex(covariances)
    if failed.any():
        raise ValueError("train: the covariance of all points, or of all but one, is singular; expected more points")
    return MultivariateNormal(means, scale_tril=factors, validate_args=False).log_prob(test[:, None]).T
