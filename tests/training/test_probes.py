"""What is tried out on a few images before an objective is taken one image at a time."""

import pytest
import torch

from vaekit.training.probes import check_one_by_one, probes


@pytest.mark.parametrize(
    "images, low, high",
    [
        (torch.tensor([-2.0, 6.0]), -2, 6),
        (torch.zeros(2), 0, 1),
        (torch.full((2,), 0.5), 0, 1),
        (torch.ones(2), 0, 1),
        (torch.full((2,), 3.0), 3, 4),
        (torch.full((2,), -1.0), -1, 0),
    ],
)
def test_probes_fill_the_range_of_the_images(images, low, high):
    x = probes(images.double().view(2, 1, 1, 1).expand(2, 1, 20, 20), 5)
    assert x.shape == (5, 1, 20, 20) and x.dtype == torch.float64
    assert low <= x.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < x.max() <= high
    assert torch.equal(x, probes(images.double().view(2, 1, 1, 1).expand(2, 1, 20, 20), 5))


X = torch.rand(3, 1, 2, 2, dtype=torch.float64)


def own(x):
    return x[0].sum()


def test_a_value_of_its_own_passes_whatever_its_size():
    for scale in (0.0, 1e-30, 1.0, 1e9):
        check_one_by_one(lambda x, seed, scale=scale: (scale * own(x), scale * x[0] ** 2), X)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("share", [1.0, 1e-3])
def test_the_other_images_are_noticed_in_any_of_the_numbers_however_faint(position, share):
    def measured(x, seed):
        numbers = [own(x), own(x) ** 2, own(x) ** 3]
        numbers[position] = numbers[position] + share * x[1:].sum()
        return numbers

    with pytest.raises(ValueError, match="depends on the other images"):
        check_one_by_one(measured, X)


def test_any_of_the_other_images_is_noticed():
    for place in (1, 2, 3):
        with pytest.raises(ValueError, match="depends on the other images"):
            check_one_by_one(lambda x, seed, place=place: (own(x) + x[place].sum(),), X)


@pytest.mark.parametrize("at", [0, 1])
def test_noise_that_the_seed_does_not_rule_is_noticed(at):
    calls = []

    def measured(x, seed):
        calls.append(seed)
        return (own(x) + (0.01 * len(calls) if seed == at else 0.0),)

    with pytest.raises(ValueError, match="expected noise of torch's default generators"):
        check_one_by_one(measured, X)


def test_what_is_not_a_number_is_for_others_to_tell():
    check_one_by_one(lambda x, seed: (own(x) * float("nan"), x[1].sum()), X)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e6])
def test_what_is_faint_is_judged_beside_its_own_size(scale):
    with pytest.raises(ValueError, match="depends on the other images"):
        check_one_by_one(lambda x, seed: (scale * (own(x) + 0.01 * x[1:].sum()),), X)
    check_one_by_one(lambda x, seed: (scale * (own(x) + 1e-6 * x[1:].sum()),), X)
