import math

import pytest
import torch
from torch import nn

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


def test_edges_of_ranges():
    """Which ends belong to a range, and what counts as a number."""
    for value in (0.5, 1e-300, torch.tensor(2.0), 3):
        checks.positive(value, "x")
    for value in (1, 1.0, 1e-9, torch.tensor(1.0)):
        checks.share(value, "x")
    for value in (0, 0.0, 1 + 1e-9, math.nan, -1, "1", None, True, torch.ones(2), torch.tensor(1j)):
        with pytest.raises(ValueError, match="x: expected a share above 0 and up to 1, got"):
            checks.share(value, "x")
    for value in (1e-9, 1 - 1e-9, torch.tensor([0.1, 0.9]), torch.tensor(0.5)):
        checks.between(value, 0, 1, "x")
    for value in (0, 1, torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.5]), torch.tensor([0.5, math.nan]), math.nan,
                  torch.ones(0), "a", torch.tensor([0.5j])):  # fmt: skip
        with pytest.raises(ValueError, match="x: expected numbers strictly between 0 and 1, got"):
            checks.between(value, 0, 1, "x")
    with checks.trusted():
        checks.between(torch.tensor([0.5, 7.0]), 0, 1, "x")
        with pytest.raises(ValueError, match="x: expected numbers"):
            checks.between(7.0, 0, 1, "x")
    for value in (3, torch.tensor(3).item(), 10**30):
        checks.count(value, 3, "x")
    for value in (2, True, 3.0, "3", None, torch.tensor(3)):
        with pytest.raises(ValueError, match=r"x: expected .*at least 3, got"):
            checks.count(value, 3, "x")
    with pytest.raises(ValueError, match="x: expected at least 0 and finite, got inf"):
        checks.at_least(math.inf, 0, "x")
    checks.shape((1, 2), "x")
    for value in ((), (1, 0), (1, 2.0), 3, "12", None):
        with pytest.raises(ValueError, match="x: expected whole numbers of at least 1, got"):
            checks.shape(value, "x")


def test_pixels_may_lie_on_the_ends_of_the_range():
    checks.images(torch.zeros(2, 3), unit_range=True)
    checks.images(torch.ones(2, 3), unit_range=True)
    checks.images(torch.full((1, 1), 7.0))
    for value in (-1e-6, 1 + 1e-6):
        with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
            checks.images(torch.tensor([[0.5, value]]), unit_range=True)


def test_how_an_error_shows_what_came():
    assert checks.shown(torch.ones(2, 3)) == "a tensor of shape (2, 3)" and checks.shown(torch.tensor(1)) == "tensor(1)"
    assert checks.shown("a" * 77) == repr("a" * 77) and checks.shown("a" * 78) == "'" + "a" * 76 + "..."
    assert checks.described(torch.ones(2)) == "torch.float32 of shape (2,)" and checks.described([]) == "a list"


def test_models_modules_and_functions_are_told_from_what_is_none():
    with_methods = type("Like", (), {"posterior": None})()
    for check, good, bad in (
        (checks.function, (len, lambda: 1, nn.Linear(1, 1), nn.Linear), (3, "elbo", None, [len])),
        (checks.module, (nn.Linear(1, 1),), (nn.Linear, len, None, 3)),
        (checks.model, (with_methods,), (nn.Linear(1, 1), None, "vae")),
    ):
        for value in good:
            check(value, "thing")
        for value in bad:
            with pytest.raises(ValueError, match=r"^thing: expected a "):
                check(value, "thing")
