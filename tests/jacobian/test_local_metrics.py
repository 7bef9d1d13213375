import math

import pytest
import torch

from vaekit.jacobian.factor_metrics import binned_mutual_information
from vaekit.jacobian.local_metrics import local_scores, neighbourhood

SIZES = [64] * 6


def scores_of(code, rho, **options):
    """Scores of a code that is a function of the factors: nothing is rendered."""
    return local_scores(code, lambda factors: factors.double(), SIZES, rho=rho, **options)


def exact_ceiling(rho, n=64, bins=5):
    """The gap of a perfect code, by enumeration: H(bin) / H(factor), averaged over all centres of one factor."""
    gaps = []
    for centre in range(n):
        values = range(max(0, centre - int(n * rho)), min(n - 1, centre + int(n * rho)) + 1)
        low, width = values[0], values[-1] - values[0]
        cells = [min(bins - 1, (v - low) * bins // width) for v in values]
        shares = [cells.count(cell) / len(cells) for cell in set(cells)]
        gaps.append(-sum(p * math.log(p) for p in shares) / math.log(len(values)))
    return sum(gaps) / n


# The second column: the ceilings to three digits, worked out once by hand for 64 values and five bins.
@pytest.mark.parametrize(("rho", "known"), [(0.1, 0.637), (0.2, 0.521), (0.3, 0.464), (0.6, 0.406), (1.0, 0.387)])
def test_the_factors_themselves_reach_the_ceiling_of_the_binned_gap(rho, known):
    assert exact_ceiling(rho) == pytest.approx(known, abs=6e-4)
    scores = scores_of(lambda x: x, rho, points=10_000, centres=20)
    assert scores.gap.item() == pytest.approx(scores.gap_ceiling, abs=1e-12)
    assert scores.gap_ceiling == pytest.approx(known, abs=0.006)  # 120 random centres in place of all 64
    assert scores.modularity.item() == pytest.approx(scores.modularity_ceiling)
    assert scores.modularity_ceiling > 0.999


def test_order_scale_and_sign_of_latents_do_not_matter():
    plain = scores_of(lambda x: x, 0.2, points=500, centres=3)
    scale = torch.tensor([1.0, -2, 4, -8, 16, 32]).double()
    other = scores_of(lambda x: (x * scale + 3).flip(-1), 0.2, points=500, centres=3)
    assert other.gap.item() == pytest.approx(plain.gap.item(), abs=0.02)


def test_a_shuffled_code_scores_nothing():
    g = torch.Generator().manual_seed(1)
    scores = scores_of(lambda x: x[torch.randperm(len(x), generator=g)], 0.3, points=4000, centres=5, chunk=4000)
    assert scores.gap.item() < 0.003
    assert scores.gap_ceiling > 0.4


def test_a_code_turned_by_45_degrees_loses_the_gap():
    c = 0.5**0.5
    turn = torch.block_diag(*[torch.tensor([[c, -c], [c, c]], dtype=torch.float64)] * 3)
    both = scores_of(lambda x: torch.stack([x, x @ turn]), 1.0, points=4000, centres=2)
    assert both.gap.shape == both.modularity.shape == (2,)
    assert both.gap[0] > 0.37 and both.gap[1] < 0.02
    assert both.modularity[1] < 0.9


def test_a_code_may_be_perfect_here_and_there_yet_not_everywhere():
    """A code that swaps two factors from one half of the range to the other."""

    def swapping(x):
        swap = x[:, :1] >= 32
        return torch.cat([x[:, :1], torch.where(swap, x[:, [2, 1]], x[:, [1, 2]]), x[:, 3:]], 1)

    local, everywhere = (scores_of(swapping, rho, points=2000, centres=40) for rho in (0.05, 1.0))
    assert everywhere.gap / everywhere.gap_ceiling < 0.8
    assert local.gap / local.gap_ceiling > 0.9


def test_a_neighbourhood():
    factors = neighbourhood([64, 30, 20], rho=0.1, points=4000, frozen=[1], generator=torch.Generator().manual_seed(5))
    assert factors[:, 1].unique().numel() == 1
    centred = neighbourhood([64], rho=1.0, points=9000, generator=torch.Generator().manual_seed(5))[:, 0]
    assert sorted(centred.unique().tolist()) == list(range(64))
    for seed in range(50):
        values = neighbourhood([64], rho=0.1, points=500, generator=torch.Generator().manual_seed(seed))[:, 0]
        low, high = values.min().item(), values.max().item()
        assert low >= 0 and high <= 63
        assert high - low == 12 if low > 0 and high < 63 else 6 <= high - low <= 12


def test_factors_with_few_values_are_frozen_and_do_not_count():
    free = local_scores(lambda x: x, lambda f: f.double(), [64, 64], rho=0.3, points=500, centres=4)
    held = local_scores(lambda x: x, lambda f: f.double(), [64, 64, 5], rho=0.3, points=500, centres=4)
    assert held.information.shape == (3, 2)
    assert held.gap.item() == pytest.approx(free.gap.item(), abs=0.03)
    loose = local_scores(lambda x: x, lambda f: f.double(), [64, 64, 5], rho=0.3, frozen=[], points=500, centres=4)
    assert loose.information.shape == (3, 3)


def test_same_seed_same_scores():
    first, again, other = (scores_of(lambda x: x, 0.1, points=50, centres=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.gap, again.gap)
    assert not torch.equal(first.gap, other.gap)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": 0.0}, "rho"),
        ({"rho": 1.5}, "rho"),
        ({"points": 0}, "points"),
        ({"centres": 0}, "centres"),
        ({"chunk": 0}, "chunk"),
        ({"bins": 1}, "bins"),
        ({"rho": 0.01}, "at least 2 factors that vary, got 0"),
        ({"frozen": [0, 1, 2, 3, 4]}, "at least 2 factors that vary, got 1"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        scores_of(lambda x: x, **({"rho": 0.1, "points": 20, "centres": 1} | change))


@pytest.mark.parametrize(("n", "rho", "radius"), [(150, 0.42, 63), (100, 0.29, 29), (28, 0.1, 2), (7, 1, 7)])
def test_the_radius_is_the_floor_of_its_share(n, rho, radius):
    widest = 0
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        values = neighbourhood([n], rho=rho, points=3000, generator=g)[:, 0]
        if values.min() > 0 and values.max() < n - 1:
            assert values.max() - values.min() == 2 * radius
        widest = max(widest, values.max() - values.min())
    assert widest == min(2 * radius, n - 1)


def test_centres_are_uniform_over_the_whole_range():
    g = torch.Generator().manual_seed(0)
    centres = torch.cat([neighbourhood([8, 3], rho=1.0, points=1, frozen=[0, 1], generator=g) for _ in range(2000)])
    for values, factor in zip((8, 3), centres.T, strict=True):
        counts = torch.bincount(factor, minlength=values).double()
        expected = 2000 / values
        assert len(counts) == values
        assert ((counts - expected) ** 2 / expected).sum() < values - 1 + 5 * math.sqrt(2 * (values - 1))


def test_a_neighbourhood_is_centred_on_its_centre():
    """The same draws, with the factor frozen and free."""
    for seed in range(20):
        g = torch.Generator()
        centre = neighbourhood([100], rho=0.1, points=1, frozen=[0], generator=g.manual_seed(seed)).item()
        values = neighbourhood([100], rho=0.1, points=2000, generator=g.manual_seed(seed))
        assert (values.min().item(), values.max().item()) == (max(0, centre - 10), min(99, centre + 10))


def test_ten_thousand_points_around_twenty_centres_unless_told():
    seen = []

    def render(factors):
        seen.append(len(factors))
        return factors.double()

    plain = local_scores(lambda x: x, render, [64, 10, 9], rho=0.3)
    assert seen == [1000] * 200
    assert plain.information.shape == (3, 2)  # of ten values a factor varies, of nine it is frozen


def test_the_table_is_the_mean_over_the_neighbourhoods():
    g, turn = torch.Generator().manual_seed(4), torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double()
    tables = []
    for _ in range(3):
        factors = neighbourhood(SIZES, rho=0.2, points=300, generator=g)
        tables.append(binned_mutual_information(factors.double() @ turn, factors, bins=5))
    ours = scores_of(lambda x: x @ turn, 0.2, points=300, centres=3, seed=4).information
    assert ours.shape == (3, 6)
    torch.testing.assert_close(ours, torch.stack(tables).mean(0))
