import math

import pytest
import torch

from vaekit import checks
from vaekit.training.seeding import seeded

GOOD = torch.rand(3, 1, 2, 2)


def test_good_images_pass():
    checks.images(GOOD)
    checks.images(GOOD, shape=(1, 2, 2), dtype=torch.float32, unit_range=True)
    checks.images(GOOD.double() * 9 - 4)
    checks.images(torch.tensor([[0.0, 1.0]]), unit_range=True)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (GOOD.numpy(), {}, "photos: expected a torch.Tensor of images, got ndarray"),
        (GOOD.long(), {}, "photos: expected floating-point pixels, got dtype torch.int64; convert with x.float"),
        (GOOD, {"dtype": torch.float64}, "photos: expected dtype torch.float64"),
        (GOOD, {"shape": (1, 2, 3)}, r"photos: expected images of shape \(1, 2, 3\), got .* \(3, 1, 2, 2\)"),
        (GOOD[0, 0, 0], {}, r"photos: expected a non-empty batch of images \[B, \*image\], got shape \(2,\)"),
        (GOOD[:0], {}, "photos: expected a non-empty batch"),
        (torch.tensor([[0.0, math.nan]]), {}, "photos: found NaN or infinite pixels"),
        (torch.tensor([[0.0, -math.inf]]), {}, "photos: found NaN or infinite pixels"),
        (torch.tensor([[0.0, math.inf]]), {}, "photos: found NaN or infinite pixels"),
        (torch.tensor([[0.0, 1.01]]), {"unit_range": True}, r"photos: expected pixels in \[0, 1\], got .* 0 to 1.01"),
        (torch.tensor([[-0.5, 1.0]]), {"unit_range": True}, r"got values from -0.5 to 1; divide by 255\?"),
    ],
)
def test_bad_images_are_named(x, options, message):
    with pytest.raises(ValueError, match=message):
        checks.images(x, name="photos", **options)


def test_trusted_values_are_not_looked_at_but_shapes_are():
    bad = GOOD * math.nan
    with checks.trusted():
        checks.images(bad, unit_range=True)
        with pytest.raises(ValueError, match="x: expected images of shape"):
            checks.images(bad, shape=(9,))
    with pytest.raises(ValueError, match="found NaN"):
        checks.images(bad)


def test_trust_ends_with_an_error_and_may_be_nested():
    with pytest.raises(KeyError), checks.trusted():
        with checks.trusted():
            pass
        checks.images(GOOD * math.nan)
        raise KeyError
    with pytest.raises(ValueError, match="found NaN"):
        checks.images(GOOD * math.nan)


def test_under_vmap_what_cannot_be_told_passes():
    def first(x):
        checks.images(x[None], unit_range=True)
        return x.sum()

    assert torch.func.vmap(first)(GOOD).shape == (3,)


def test_numbers():
    checks.at_least(0, 0, "n")
    checks.positive(1e-300, "scale")
    for value in (-1e-9, math.nan, -math.inf):
        with pytest.raises(ValueError, match="n: expected at least 0, got"):
            checks.at_least(value, 0, "n")
    for value in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale: expected a positive finite number, got"):
            checks.positive(value, "scale")


def test_a_seeded_block_repeats_itself_and_leaves_the_callers_stream_alone():
    torch.manual_seed(5)
    undisturbed = torch.rand(2)
    torch.manual_seed(5)
    with seeded(0):
        one = torch.rand(3)
    assert torch.equal(torch.rand(2), undisturbed)
    with pytest.raises(KeyError), seeded(0):
        assert torch.equal(torch.rand(3), one)
        raise KeyError
    state = torch.get_rng_state()
    with seeded(1):
        assert not torch.equal(torch.rand(3), one)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_blocks_nest():
    with seeded(0):
        whole = torch.rand(4)
    with seeded(0):
        start = torch.rand(2)
        with seeded(7):
            torch.rand(9)
        assert torch.equal(torch.cat([start, torch.rand(2)]), whole)
