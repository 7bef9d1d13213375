import math

import pytest
import torch

from vaekit.consistency.transforms import (
    RandomAffine,
    RandomBrightness,
    RandomNoise,
    affine,
    black_or_white,
    compose,
)
from vaekit.training.seeding import seeded


def images(n=3, channels=2, height=6, width=8):
    g = torch.Generator().manual_seed(2)
    return torch.rand(n, channels, height, width, dtype=torch.float64, generator=g)


def slow_affine(x, angle, translation, scale, shear):
    """Pixel by pixel: solve M p + t = p' for p and mix the four neighbours; everything per image."""
    n, _, height, width = x.shape
    out = torch.zeros_like(x)
    for b in range(n):
        a, k = math.radians(angle[b]), math.radians(shear[b])
        rotate = torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]], dtype=x.dtype)
        slant = torch.tensor([[1.0, math.tan(k)], [0.0, 1.0]], dtype=x.dtype)
        matrix = scale[b] * rotate @ slant
        for row in range(height):
            for column in range(width):
                target = torch.tensor([column - (width - 1) / 2, row - (height - 1) / 2], dtype=x.dtype)
                source = torch.linalg.solve(matrix, target - torch.tensor(translation[b], dtype=x.dtype))
                u, v = source[0].item() + (width - 1) / 2, source[1].item() + (height - 1) / 2
                for i in (math.floor(v), math.floor(v) + 1):
                    for j in (math.floor(u), math.floor(u) + 1):
                        if 0 <= i < height and 0 <= j < width:
                            weight = (1 - abs(v - i)) * (1 - abs(u - j))
                            out[b, :, row, column] += weight * x[b, :, i, j]
    return out


@pytest.mark.parametrize(
    "parameters",
    [
        {"angle": [20.0, -75.0, 190.0]},
        {"translation": [[1.5, 0.0], [-2.25, 1.0], [0.3, -0.6]]},
        {"scale": [0.6, 1.7, 1.0]},
        {"shear": [25.0, -40.0, 5.0]},
        {
            "angle": [20.0, -75.0, 5.0], "translation": [[1.5, 0.0], [-2.25, 1.0], [0.3, -0.6]],
            "scale": [0.8, 1.3, 1.1], "shear": [10.0, -20.0, 30.0],
        },
    ],
    ids=["rotation", "translation", "scale", "shear", "all at once"],
)  # fmt: skip
def test_affine_against_a_slow_reference(parameters):
    x = images()
    neutral = {"angle": [0.0] * 3, "translation": [[0.0, 0.0]] * 3, "scale": [1.0] * 3, "shear": [0.0] * 3}
    fast = affine(x, **{k: torch.tensor(v, dtype=torch.float64) for k, v in parameters.items()})
    torch.testing.assert_close(fast, slow_affine(x, **(neutral | parameters)))


def test_whole_pixels_and_right_angles_are_exact():
    x = images(height=6, width=6)
    torch.testing.assert_close(affine(x), x)
    moved = affine(x, translation=torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(moved, torch.nn.functional.pad(x, (2, -2, -1, 1)))
    torch.testing.assert_close(affine(x, angle=90.0), x.rot90(1, (2, 3)))  # rot90 turns counter-clockwise
    torch.testing.assert_close(affine(x, angle=-90.0), x.rot90(-1, (2, 3)))


@pytest.mark.parametrize(
    "identity", [RandomAffine(), RandomBrightness(1, 1), RandomNoise(0), compose(RandomAffine(), RandomNoise(0))]
)
def test_identity_parameters_return_the_image(identity):
    torch.testing.assert_close(identity(images()), images())


def brightness_reference(x, low, high):
    factor = low + (high - low) * torch.rand(len(x), dtype=x.dtype)
    return torch.stack([(f * image).clamp(max=1) for f, image in zip(factor, x, strict=True)])


def noise_reference(x, std):
    return torch.minimum(torch.maximum(x + std * torch.randn(x.shape, dtype=x.dtype), torch.zeros(())), torch.ones(()))


def affine_reference(x, degrees, translate, scale, shear):
    unit = 2 * torch.rand(4, len(x), dtype=x.dtype) - 1
    s = scale[0] + (scale[1] - scale[0]) * torch.rand(len(x), dtype=x.dtype)
    shifts = [[translate * x.shape[3] * a, translate * x.shape[2] * b] for a, b in unit[2:].T.tolist()]
    return slow_affine(x, (degrees * unit[0]).tolist(), shifts, s.tolist(), (shear * unit[1]).tolist())


RANDOM = {
    "affine": (RandomAffine(40.0, 0.2, (0.7, 1.4), 15.0), lambda x: affine_reference(x, 40.0, 0.2, (0.7, 1.4), 15.0)),
    "brightness": (RandomBrightness(0.5, 1.5), lambda x: brightness_reference(x, 0.5, 1.5)),
    "noise": (RandomNoise(0.3), lambda x: noise_reference(x, 0.3)),
    "composed": (
        compose(RandomNoise(0.3), RandomBrightness(0.5, 1.5)),
        lambda x: brightness_reference(noise_reference(x, 0.3), 0.5, 1.5),
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_transform_is_its_reference_with_the_same_draws(name):
    transform, reference = RANDOM[name]
    with seeded(7):
        fast = transform(images())
    with seeded(7):
        torch.testing.assert_close(fast, reference(images()))


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_has_its_own_draw_and_stays_in_range(name):
    transform, _ = RANDOM[name]
    same = images(1).expand(8, -1, -1, -1)
    with seeded(7):
        drawn = transform(same)
        other = transform(same)
    assert drawn.shape == same.shape and drawn.dtype == same.dtype
    assert drawn.min() >= 0 and drawn.max() <= 1
    distances = torch.cdist(drawn.flatten(1), drawn.flatten(1)) + torch.eye(8)
    assert (distances > 1e-3).all() and (drawn - other).abs().max() > 1e-3
    with seeded(7):
        assert torch.equal(transform(same), drawn)


def test_draws_fill_their_ranges_evenly():
    ramp = torch.zeros(4000, 1, 9, 9, dtype=torch.float64)
    ramp[:, 0, 4, 4] = 1.0
    with seeded(0):
        moved = RandomAffine(translate=2 / 9)(ramp)[:, 0]  # up to two pixels either way
        bright = RandomBrightness(0.25, 0.75)(ramp)[:, 0, 4, 4]
    place = torch.arange(9.0, dtype=torch.float64) - 4
    for centre in (moved.sum(1) @ place, moved.sum(2) @ place):  # interpolation keeps the centre of mass
        assert centre.abs().max() <= 2 + 1e-9
        assert abs(centre.mean()) < 4 * (4 / math.sqrt(12)) / 4000**0.5
        assert abs(centre.std() - 4 / math.sqrt(12)) < 0.05
    assert bright.min() >= 0.25 and bright.max() <= 0.75 and abs(bright.mean() - 0.5) < 0.01


def test_in_range_to_the_last_bit():
    x = torch.ones(64, 1, 33, 33)  # a size at which the four weights sum to more than 1 in floating point
    with seeded(0):
        moved = RandomAffine(30, 0.1, (0.75, 1.25), 10)(x)
    assert moved.max() <= 1 and moved.min() >= 0


def test_half_precision_and_no_global_state():
    state = torch.get_rng_state()
    affine(images().float(), angle=10.0)
    assert torch.equal(state, torch.get_rng_state())
    assert RandomAffine(degrees=10)(images().to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAffine(degrees=-1), "degrees: expected at least 0"),
        (lambda: RandomAffine(translate=math.nan), "translate: expected at least 0"),
        (lambda: RandomAffine(scale=(1.1, 0.9)), "scale: expected 0 < low <= high, got 1.1 and 0.9"),
        (lambda: RandomAffine(shear=90), "shear: expected numbers strictly between -90 and 90"),
        (lambda: RandomBrightness(0, 1), "low, high: expected a positive finite"),
        (lambda: RandomNoise(-0.1), "std: expected at least 0"),
        (lambda: affine(torch.rand(3, 4)), r"expected images \[B, C, H, W\], got shape \(3, 4\)"),
        (lambda: RandomNoise(0.1)(2 + images()), r"expected pixels in \[0, 1\]"),
        (lambda: RandomBrightness(0.5, 1)(2 + images()), r"expected pixels in \[0, 1\]"),
        (lambda: RandomBrightness(0.5, 1)(torch.rand(3, 4)), r"expected images \[B, C, H, W\]"),
        (lambda: RandomAffine()(torch.zeros(1, 1, 3, 3, dtype=torch.long)), "floating-point"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_black_or_white_draws_each_pixel_with_its_own_probability():
    grey = torch.linspace(0, 1, 12, dtype=torch.float64).view(1, 1, 3, 4)
    with seeded(0):
        drawn = black_or_white(grey.expand(20_000, -1, -1, -1))
    assert drawn.dtype == torch.float64 and set(drawn.unique().tolist()) == {0.0, 1.0}
    share = drawn.mean(0, keepdim=True)
    assert share[0, 0, 0, 0] == 0 and share[0, 0, -1, -1] == 1  # never and always, not nearly
    assert ((share - grey).abs() <= 5 * (grey * (1 - grey) / 20_000).sqrt()).all()
    pixels = drawn.flatten(1)[:, 1:-1]
    assert (torch.corrcoef(pixels.T) - torch.eye(10)).abs().max() < 0.05  # each on its own
    with pytest.raises(ValueError, match="x"):
        black_or_white(grey + 0.1)
