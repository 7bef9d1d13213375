"""Influence by closed form against really leaving one point out."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from torch.distributions import MultivariateNormal

from vaekit.influence.leave_one_out import gaussian_influence, kde_influence, knn_influence, ppca_influence
from vaekit.influence.mixture import Mixtures, _em, mixture_influence

N, M = 12, 7


def points(n, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ torch.randn(d, d, generator=g, dtype=torch.float64)


def by_leaving_out(fit_log_p, train, test):
    """fit_log_p(train, test) -> [M]; really fitted N + 1 times."""
    whole = fit_log_p(train, test)
    return torch.stack([whole - fit_log_p(torch.cat([train[:i], train[i + 1 :]]), test) for i in range(len(train))])


def knn_log_p(k):
    def log_p(train, test):
        d = train.shape[1]
        radius = torch.stack([(train - z).norm(dim=1).sort().values[k - 1] for z in test])
        ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
        return torch.log(k / (len(train) * ball * radius**d))

    return log_p


@pytest.mark.parametrize("k", [1, 3, N - 1])
def test_nearest_neighbours(k):
    train, test = points(N), points(M, seed=1)
    torch.testing.assert_close(knn_influence(train, test, k=k), by_leaving_out(knn_log_p(k), train, test))


@pytest.mark.parametrize("bandwidth", [0.3, 2.0])
def test_kernel_density(bandwidth):
    def log_p(train, test):
        return torch.tensor(KernelDensity(bandwidth=bandwidth, rtol=1e-12).fit(train).score_samples(test))

    train, test = points(N), points(M, seed=1)
    torch.testing.assert_close(kde_influence(train, test, bandwidth=bandwidth), by_leaving_out(log_p, train, test))


def test_kernel_density_where_one_kernel_holds_all():
    """At a training point far from the others log p_{-i} is -10,000 nats or so: no digit may be lost."""
    train = torch.tensor([[0.0], [10.0], [11.0]], dtype=torch.float64)
    influence = kde_influence(train, train[:1], bandwidth=0.1)[0, 0]
    others = torch.tensor([-(10**2) / 0.02, -(11**2) / 0.02], dtype=torch.float64).logsumexp(0)
    torch.testing.assert_close(influence, -others + math.log(2 / 3))


def gaussian_log_p(train, test):
    covariance = torch.from_numpy(np.cov(train.T.numpy(), bias=True))
    return MultivariateNormal(train.mean(0), covariance).log_prob(test)


def test_gaussian():
    train, test = points(N), points(M, seed=1)
    torch.testing.assert_close(gaussian_influence(train, test), by_leaving_out(gaussian_log_p, train, test))


def ppca_log_p(train, test):
    """scikit-learn's fit, put back on the maximum-likelihood scale: it divides by N - 1."""
    pca = PCA(2, svd_solver="full").fit(train)
    covariance = pca.get_covariance() * (len(train) - 1) / len(train)
    return MultivariateNormal(train.mean(0), torch.from_numpy(covariance)).log_prob(test)


def test_probabilistic_pca():
    train, test = points(N, 5), points(M, 5, seed=1)
    torch.testing.assert_close(ppca_influence(train, test, latent_dim=2), by_leaving_out(ppca_log_p, train, test))


def test_mixture_is_refitted():
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    train = (centres[:, None] + torch.randn(3, 8, 2, generator=g, dtype=torch.float64)).flatten(0, 1)
    test = points(M, 2, seed=1)
    options = {"reg_covar": 1e-6, "tol": 1e-13, "max_iter": 5000}
    whole = GaussianMixture(3, random_state=0, n_init=5, **options).fit(train)

    def log_p(points, test):
        start = {"means_init": whole.means_, "weights_init": whole.weights_, "precisions_init": whole.precisions_}
        return torch.tensor(GaussianMixture(3, **start, **options).fit(points).score_samples(test))

    ours = mixture_influence(train, test, components=3, tolerance=1e-13)
    torch.testing.assert_close(ours, by_leaving_out(log_p, train, test), rtol=1e-3, atol=1e-4)


def test_mixture_of_one_is_a_gaussian():
    train, test = points(N), points(M, seed=1)
    one = mixture_influence(train, test, components=1, ridge=1e-12)
    torch.testing.assert_close(one, gaussian_influence(train, test), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda x, z: knn_influence(x, z, k=0), "k: expected"),
        (lambda x, z: knn_influence(x, z, k=N), "k: expected from 1 to 11"),
        (lambda x, z: knn_influence(x, x[:1], k=1), "test: expected fewer than k = 1 training points"),
        (lambda x, z: kde_influence(x, z, bandwidth=0.0), "bandwidth: expected a positive"),
        (lambda x, z: kde_influence(x, z[:, :2], bandwidth=1.0), r"test: expected points \[M, 3\]"),
        (lambda x, z: kde_influence(x.long(), z, bandwidth=1.0), "train: expected floating-point"),
        (lambda x, z: kde_influence(x, z[0], bandwidth=1.0), "test: expected"),
        (lambda x, z: gaussian_influence(x[:4], z), "train: number of points: expected at least 5"),
        (lambda x, z: gaussian_influence(x * torch.tensor([1.0, 1.0, 0.0]), z), "singular"),
        (lambda x, z: ppca_influence(x, z, latent_dim=3), "latent_dim: expected from 1 to 2"),
        (lambda x, z: mixture_influence(x, z, components=N), "components: expected from 1 to 11"),
        (lambda x, z: mixture_influence(x, z, components=2, ridge=0.0), "ridge: expected a positive"),
    ],
)
def test_bad_input(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(points(N), points(M, seed=1))


def test_em_that_does_not_converge_says_so():
    with pytest.raises(RuntimeError, match="after 1 steps"):
        mixture_influence(points(N), points(M), components=2, tolerance=1e-15, steps=1)


def test_a_component_without_its_only_point_is_empty():
    """Two components, one for a single far point: without it the mixture is the Gaussian of all other points."""
    g = torch.Generator().manual_seed(0)
    near, far = torch.randn(20, 2, generator=g, dtype=torch.float64), torch.full((1, 2), 40.0, dtype=torch.float64)
    train, test, ridge = torch.cat([near, far]), torch.randn(5, 2, generator=g, dtype=torch.float64), 1e-3
    influence = mixture_influence(train, test, components=2, ridge=ridge)
    assert influence.isfinite().all()
    # the rest is fitted as before, and takes the whole share
    torch.testing.assert_close(influence[-1], torch.full((5,), math.log(20 / 21)).double(), rtol=1e-6, atol=1e-6)


def test_a_bandwidth_that_underflows_is_refused():
    train, test = torch.rand(4, 2, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)
    for bandwidth in (1e-300, 1e-160):
        with pytest.raises(ValueError, match="bandwidth: expected one in which distances"):
            kde_influence(train, test, bandwidth=bandwidth)
    assert kde_influence(train, test, bandwidth=1e-100).isfinite().all()


def test_em_ends_where_a_point_gains_less_than_the_tolerance_in_a_step():
    """Against EM on a line, written out; one point is left out."""
    x = np.array([-2.0, -1.5, -0.5, 0.4, 1.0, 1.8, 3.0, 9.0])
    w, ridge = np.array([1.0] * 7 + [0.0]), 1e-3
    share, mean, variance = np.array([0.5, 0.5]), np.array([-0.5, 0.5]), np.array([1.0, 2.0])
    start = Mixtures(*(torch.tensor(v)[None] for v in (np.log(share), mean[:, None], variance[:, None, None])))
    states, nats = [], []
    for _ in range(60):
        joint = share * np.exp(-((x[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        states.append((share, mean, variance))
        nats.append((w * np.log(joint.sum(1))).sum() / 7)
        r = w[:, None] * joint / joint.sum(1, keepdims=True)
        share, mean = r.sum(0) / 7, (r * x[:, None]).sum(0) / r.sum(0)
        variance = (r * (x[:, None] - mean) ** 2).sum(0) / r.sum(0) + ridge
    points, weights = torch.tensor(x)[:, None], torch.tensor(w)[None]
    for tolerance in (1e-2, 1e-3, 1e-4):
        last = next(k for k in range(1, 60) if abs(nats[k] - nats[k - 1]) < tolerance)
        found = _em(points, weights, start, ridge, tolerance, last + 1)
        for ours, theirs in zip((found.log_share.exp(), found.mean, found.covariance), states[last], strict=True):
            np.testing.assert_allclose(ours.flatten(), theirs, rtol=1e-9)
        with pytest.raises(RuntimeError, match=f"after {last} steps"):
            _em(points, weights, start, ridge, tolerance, last)
