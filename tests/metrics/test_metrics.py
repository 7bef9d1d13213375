import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from tests.helpers import Encoder, linear_gaussian
from vaekit.bounds import log_evidence
from vaekit.metrics import (
    active_units,
    auprc,
    auroc,
    fpr_at_tpr,
    mean_and_standard_error,
    mutual_information,
)
from vaekit.training.seeding import seeded


def scores(kind, seed=0, m=60, n=45):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(size=m), rng.normal(0.7, 1.5, size=n)
    return (inside.round(0), outside.round(0)) if kind == "ties" else (inside, outside)


def labels(inside, outside):
    return np.r_[np.zeros(len(inside)), np.ones(len(outside))], np.r_[inside, outside]


@pytest.mark.parametrize("kind", ["ties", "continuous"])
@pytest.mark.parametrize("seed", range(5))
def test_areas_and_false_positives_against_scikit_learn(kind, seed):
    inside, outside = scores(kind, seed)
    truth, all_scores = labels(inside, outside)
    assert auroc(inside, outside).value == pytest.approx(roc_auc_score(truth, all_scores), abs=1e-12)
    assert auprc(inside, outside) == pytest.approx(average_precision_score(truth, all_scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(truth, all_scores, drop_intermediate=False)
    for wanted in (0.5, 0.8, 0.95, 1.0):
        assert fpr_at_tpr(inside, outside, wanted) == pytest.approx(fpr[tpr >= wanted - 1e-12].min(), abs=1e-12)


@pytest.mark.parametrize("kind", ["ties", "continuous"])
def test_standard_error_against_a_bootstrap(kind):
    inside, outside = scores(kind, m=150, n=100)
    rng = np.random.default_rng(1)
    areas = [auroc(rng.choice(inside, len(inside)), rng.choice(outside, len(outside))).value for _ in range(2000)]
    assert auroc(inside, outside).standard_error == pytest.approx(np.std(areas), rel=0.06)  # its own error: 1.6 %


def test_standard_error_by_the_definition_in_its_paper():
    inside, outside = scores("ties", m=7, n=5)
    psi = (outside[None] > inside[:, None]) + 0.5 * (outside[None] == inside[:, None])  # [m, n]
    variance = psi.mean(1).var(ddof=1) / 7 + psi.mean(0).var(ddof=1) / 5
    assert auroc(inside, outside).standard_error == pytest.approx(math.sqrt(variance), abs=1e-12)


def test_sets_apart_equal_and_single():
    assert auroc([0.0, 1.0], [2.0, 3.0]) == (1.0, 0.0)
    assert auroc([2.0, 3.0], [0.0, 1.0]) == (0.0, 0.0)
    assert auroc([1.0] * 4, [1.0] * 9) == (0.5, 0.0)
    assert auroc([0.0, math.inf], torch.tensor([1.0, math.inf])).value == (1 + 0 + 1 + 0.5) / 4
    value, error = auroc([0.0], [1.0, 2.0])
    assert value == 1.0 and math.isnan(error)
    assert auprc([0.0, 1.0], [2.0]) == 1.0
    assert fpr_at_tpr([0.0, 1.0], [2.0, 3.0]) == 0.0


def test_the_share_that_must_be_caught_is_not_lost_to_rounding():
    inside, outside = np.arange(100.0), np.arange(100.0)
    assert fpr_at_tpr(inside, outside, 0.07) == 0.07  # although 0.07 * 100 > 7


@pytest.mark.parametrize("metric", [auroc, auprc, fpr_at_tpr])
def test_bad_scores(metric):
    with pytest.raises(ValueError, match=r"scores_in: expected one or more numbers in one dimension, got shape \(0,\)"):
        metric([], [1.0])
    with pytest.raises(ValueError, match=r"scores_out: expected .* got shape \(2, 1\)"):
        metric([1.0], torch.zeros(2, 1))
    with pytest.raises(ValueError, match="scores_out: found NaN"):
        metric([1.0], [math.nan])


def test_bad_share():
    for tpr in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="tpr: expected a share above 0"):
            fpr_at_tpr([1.0], [1.0], tpr)


def test_mean_and_standard_error():
    values = [1.0, 4.0, 7.0, 8.0]
    mean, error = mean_and_standard_error(torch.tensor(values))
    assert mean == 5.0 and error == pytest.approx(np.std(values, ddof=1) / 2)
    assert math.isnan(mean_and_standard_error([3.0]).standard_error)
    with pytest.raises(ValueError, match="values: expected one or more"):
        mean_and_standard_error([])


def test_active_units_of_a_model_with_one_silent_unit():
    exact = linear_gaussian(latent=3, batch=20_000, exact=True, orthogonal=True)
    with torch.no_grad():
        exact.model.encoder.matrix[1] = 0.0
    count, variance = active_units(exact.model, exact.x)
    matrix = exact.model.encoder.matrix.detach()
    expected = (matrix @ exact.evidence.covariance_matrix @ matrix.T).diagonal()
    torch.testing.assert_close(variance, expected, rtol=0.03, atol=1e-12)  # a variance of 20,000 normals: 1 %
    assert count == 2 and variance[1] == 0
    assert active_units(exact.model, exact.x, threshold=variance.max().item()).count == 0  # more than, not as much as
    with pytest.raises(ValueError, match="x: number of images: expected at least 2, got 1"):
        active_units(exact.model, exact.x[:1])
    with pytest.raises(ValueError, match="threshold: expected at least 0"):
        active_units(exact.model, exact.x, threshold=-1)


def exact_information(exact):
    """I(x; z) of the exact posterior: half the log determinant of its precision, which is I + W'W / s^2."""
    return 0.5 * exact.precision.logdet().item()


def test_mutual_information_of_a_linear_model_is_known():
    exact = linear_gaussian(latent=2, batch=4000, scale=1.5, exact=True, orthogonal=True)
    truth = exact_information(exact)
    with seeded(0):
        nats, error, ceiling = mutual_information(exact.model, exact.x, samples=4)
    assert ceiling == pytest.approx(math.log(4000)) and truth < ceiling / 3
    assert abs(nats - truth) < 4 * error < 0.15 * truth


class Spread(Encoder):
    """An encoder whose standard deviations differ from image to image."""

    def forward(self, x):
        mean, log_std = super().forward(x).chunk(2, -1)
        return torch.cat([mean, log_std + 1 + mean.sin()], -1)


def test_mutual_information_against_brute_force_on_the_same_draws():
    exact = linear_gaussian(latent=3, batch=6)
    exact.model.encoder.__class__ = Spread
    q_z = exact.model.posterior(exact.x)
    with seeded(0), torch.no_grad():
        z = torch.stack([q_z.rsample() for _ in range(50)])  # [S, N, D]
        log_q = torch.stack([q_z.log_prob(z.roll(k, 1)).roll(-k, 1) for k in range(6)])  # [N, S, N]
        terms = log_q[0] - log_q.logsumexp(0) + math.log(6)
    with seeded(0):
        nats, error, _ = mutual_information(exact.model, exact.x, samples=50)
    assert nats == pytest.approx(terms.mean().item(), abs=1e-10)
    assert error == pytest.approx(terms.mean(0).std().item() / math.sqrt(6), abs=1e-10)
    with seeded(1):
        pieces = mutual_information(exact.model, exact.x, samples=2000, chunk=13)  # two images at a time
    assert abs(pieces.nats - nats) < 0.15


def test_mutual_information_of_a_few_codes_among_all_images():
    exact = linear_gaussian(latent=3, batch=6)
    exact.model.encoder.__class__ = Spread
    q_z = exact.model.posterior(exact.x)
    with seeded(0), torch.no_grad():
        z = q_z.mean[:4] + q_z.stddev[:4] * torch.stack([torch.randn(4, 3, dtype=torch.float64) for _ in range(50)])
        log_q = q_z.log_prob(z[:, :, None])  # [S, 4, N]
        terms = log_q.diagonal(dim1=1, dim2=2) - log_q.logsumexp(-1) + math.log(6)
    with seeded(0):
        nats, error, ceiling = mutual_information(exact.model, exact.x, samples=50, drawn=4)
    assert nats == pytest.approx(terms.mean().item(), abs=1e-10) and ceiling == pytest.approx(math.log(6))
    assert error == pytest.approx(terms.mean(0).std().item() / 2, abs=1e-10)
    for drawn in (1, 7, 2.5):
        with pytest.raises(ValueError, match="drawn"):
            mutual_information(exact.model, exact.x, drawn=drawn)


def test_mutual_information_ends_at_log_n_and_at_zero():
    exact = linear_gaussian(latent=2, batch=50)
    with torch.no_grad():
        exact.model.encoder.log_std.fill_(-12.0)  # posteriors so narrow that no two overlap
        assert mutual_information(exact.model, exact.x).nats == pytest.approx(math.log(50), abs=1e-6)
        exact.model.encoder.matrix.zero_()  # the same posterior for every image
        assert mutual_information(exact.model, exact.x).nats == pytest.approx(0, abs=1e-6)


def test_mutual_information_of_a_model_in_single_precision():
    exact = linear_gaussian(latent=2, batch=300)
    with torch.no_grad():
        exact.model.encoder.log_std.fill_(-4.0)
        exact.model.encoder.bias += 1000  # means far from zero beside their spread
        with seeded(0):
            double = mutual_information(exact.model, exact.x, samples=4)
        with seeded(0):
            single = mutual_information(exact.model.float(), exact.x.float(), samples=4)
    assert single.nats == pytest.approx(double.nats, abs=0.02)


def test_the_mode_is_left_alone_and_bad_input_is_named():
    exact = linear_gaussian()
    exact.model.train()
    mutual_information(exact.model, exact.x)
    assert exact.model.training
    with pytest.raises(ValueError, match="samples: expected at least 1"):
        mutual_information(exact.model, exact.x, samples=0)
    with pytest.raises(ValueError, match="chunk: expected at least 1"):
        mutual_information(exact.model, exact.x, chunk=0)
    with pytest.raises(ValueError, match="x: found NaN"):
        mutual_information(exact.model, exact.x * math.nan)


@pytest.mark.parametrize(
    "measure", [active_units, mutual_information, lambda model, x: log_evidence(model, x, samples=2)]
)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_each_layer_is_left_in_its_own_mode(measure, error):
    """Also where a part of the model is frozen in evaluation mode, and where the work is broken off."""
    exact, modes = linear_gaussian(), []
    model = exact.model.train()
    model.encoder.eval()

    def look(*_):
        modes.append([module.training for module in model.modules()])
        if error is not None:
            raise error

    before = [module.training for module in model.modules()]
    model.encoder.register_forward_pre_hook(look)
    with pytest.raises(error) if error else nullcontext():
        measure(model, exact.x)
    assert modes and not any(map(any, modes))
    assert [module.training for module in model.modules()] == before == [True, False, True]


def test_a_unit_is_active_above_one_hundredth():
    exact = linear_gaussian(latent=3, batch=500)
    with torch.no_grad():
        exact.model.encoder.matrix.mul_(
            (torch.tensor([0.011, 0.009, 0.5]).double() / active_units(exact.model, exact.x).variance).sqrt()[:, None]
        )
    count, variance = active_units(exact.model, exact.x)
    torch.testing.assert_close(variance, torch.tensor([0.011, 0.009, 0.5]).double())
    assert count == 2


def test_ninety_five_of_a_hundred_unless_told():
    inside, outside = torch.arange(100.0), torch.arange(100.0)
    assert fpr_at_tpr(inside, outside) == fpr_at_tpr(inside, outside, 0.95) == 0.95


def test_two_are_enough_for_a_spread():
    assert mean_and_standard_error([1.0, 3.0]) == (2.0, 1.0)
    exact = linear_gaussian(batch=5)
    assert mutual_information(exact.model, exact.x, drawn=2).standard_error > 0
