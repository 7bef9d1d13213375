import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from vaekit.jacobian.factor_metrics import binned_mutual_information, factor_entropy, modularity, mutual_information_gap


def draws(n=500, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 3, generator=g, dtype=torch.float64), torch.randint(7, (n, 2), generator=g)


def test_mutual_information_against_scikit_learn():
    codes, factors = draws()
    codes[..., 2] += factors[:, 0]
    ours = binned_mutual_information(codes, factors, bins=5)
    assert ours.shape == (2, 3, 2)
    for model in range(2):
        for i in range(3):
            code = codes[model, :, i].numpy()
            cells = np.digitize(code, np.histogram(code, 5)[1][1:-1])
            for j in range(2):
                assert ours[model, i, j].item() == pytest.approx(mutual_info_score(cells, factors[:, j]), abs=1e-12)


def test_entropy_against_its_definition():
    factors = torch.tensor([[0, 0], [0, 1], [1, 2], [3, 3]])
    expected = [1.5 * math.log(2), 2 * math.log(2)]
    torch.testing.assert_close(factor_entropy(factors), torch.tensor(expected, dtype=torch.float64))


def test_gap_and_modularity_by_hand():
    information = torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.8, 0.0], [0.0, 0.2, 0.5]], dtype=torch.float64)
    entropy = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    gap = ((0.9 - 0.3) / 1 + (0.8 - 0.2) / 2 + (0.5 - 0.0) / 0.5) / 3
    modular = 1 - (0.01 / (2 * 0.81) + 0.09 / (2 * 0.64) + 0.04 / (2 * 0.25)) / 3
    assert mutual_information_gap(information, entropy).item() == pytest.approx(gap)
    assert modularity(information).item() == pytest.approx(modular)


def test_a_latent_without_information_has_modularity_zero():
    assert modularity(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).item() == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_code_informs_of_nothing(dtype):
    """Rounding leaves some 1e-16 nats of the zeros, which scored modularities of .6 to 1."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        factors = torch.stack([torch.randint(n, (997,), generator=g) for n in (5, 8, 13)], 1)
        codes = torch.stack([torch.full((997,), 0.3), factors[:, 1].float()], 1).to(dtype)
        information = binned_mutual_information(codes, factors)
        assert (information[0] == 0).all() and information[1, 1] > 1
        assert modularity(information) == modularity(information[1:]) / 2
        noise = torch.rand(1, 3, generator=g, dtype=torch.float64).to(dtype) * 3 * torch.finfo(dtype).eps
        assert modularity(noise) == 0


def test_factors_that_do_not_vary_only_change_the_count():
    g = torch.Generator().manual_seed(0)
    information = torch.rand(4, 3, generator=g, dtype=torch.float64)
    wider = torch.cat([information, torch.zeros(4, 2, dtype=torch.float64)], 1)
    assert ((1 - modularity(wider)) * (5 - 1)).item() == pytest.approx(((1 - modularity(information)) * (3 - 1)).item())


def test_bad_tables_and_codes():
    codes, factors = draws()
    with pytest.raises(ValueError, match="codes, factors"):
        binned_mutual_information(codes[:, :9], factors)
    with pytest.raises(ValueError, match=r"codes, factors: expected .*, got \(500, 0\)"):
        binned_mutual_information(codes[0, :, :0], factors)
    assert binned_mutual_information(torch.ones(1, 1), torch.ones(1, 1)).tolist() == [[0]]  # a single point
    with pytest.raises(ValueError, match="codes: found NaN"):
        binned_mutual_information(codes * float("nan"), factors)
    with pytest.raises(ValueError, match="D at least 2"):
        mutual_information_gap(torch.ones(1, 3), torch.ones(3))
    with pytest.raises(ValueError, match="entropy 0"):
        mutual_information_gap(torch.ones(2, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="F at least 2"):
        modularity(torch.ones(3, 1))
