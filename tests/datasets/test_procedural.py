"""Drawn images against slow, obvious drawings, and against what geometry says of them."""

import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline

from vaekit.datasets import load, render_rooms, render_shapes, render_three_dots

FINE = 16  # points along each side of a pixel in the slow drawings


def coverage(inside, size):
    """The share of every pixel's FINE x FINE points that are inside: points [P, 2] -> bool [P]."""
    axis = (np.arange(size * FINE) + 0.5) / FINE
    y, x = np.meshgrid(axis, axis, indexing="ij")
    points = inside(np.stack([x.ravel(), y.ravel()], 1))
    return points.reshape(size, FINE, size, FINE).mean((1, 3))


def slow_three_dots(factors, size):
    def inside(points):
        centres = np.array(factors, float).reshape(3, 2) * size / 63
        return np.any([np.hypot(*(points - c).T) <= 0.08 * size for c in centres], axis=0)

    return 1 - coverage(inside, size)


def slow_shape(factors, size):
    shape, scale, orientation, x, y = factors
    radius = 0.2 * size * np.linspace(0.5, 1, 6)[scale]
    if shape == 0:
        turn = math.pi / 4 + np.arange(4) * math.pi / 2
        corners = np.stack([np.cos(turn), np.sin(turn)], 1)
    elif shape == 1:
        turn = np.linspace(0, 2 * math.pi, 500)
        corners = np.stack([np.cos(turn), 0.6 * np.sin(turn)], 1)
    else:  # around the heart: the lower corner, the right disc's half circle, the left one's
        r, s = 0.5256, math.sqrt(0.5)
        turn = np.linspace(-math.pi / 4, 3 * math.pi / 4, 300)
        arc = np.stack([s + np.cos(turn), s + np.sin(turn)], 1)
        corners = np.concatenate([[[0, -2 * s]], arc, arc[::-1] * [-1, 1]]) * r
        corners[:, 1] -= (corners[:, 1].max() + corners[:, 1].min()) / 2
    angle = orientation * math.pi / 20
    turned = corners @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = size * (0.25 + 0.5 * np.array([x, y]) / 31)
    return coverage(Outline(centre + radius * turned * [1, -1]).contains_points, size)


@pytest.mark.parametrize("size", [32, 64])
def test_three_dots_agree_with_a_slow_drawing(size):
    factors = torch.tensor(
        [[10, 5, 30, 40, 60, 20], [0, 0, 63, 63, 20, 50], [31, 32, 0, 63, 63, 0], [7, 33, 52, 3, 29, 50]]
    )
    images = render_three_dots(factors, size)[:, 0].numpy()
    for image, row in zip(images, factors.tolist(), strict=True):
        error = np.abs(image - slow_three_dots(row, size))
        assert error.max() < 0.08
        assert error.mean() < 1.5e-3 * 64 / size


def test_overlapping_dots_are_a_union():
    row = [20, 20, 24, 22, 20, 26]
    error = np.abs(render_three_dots(torch.tensor([row]))[0, 0].numpy() - slow_three_dots(row, 64))
    assert error.max() < 0.25  # only where two outlines cross in one pixel is it above 0.08
    assert (error > 0.08).sum() <= 6


def test_a_dot_has_its_centre_and_area():
    x, y = 22, 41
    image = 1 - render_three_dots(torch.tensor([[x, y] * 3], dtype=torch.float64))[0, 0]
    axis = torch.arange(64, dtype=torch.float64) + 0.5
    area = image.sum().item()
    assert area == pytest.approx(math.pi * 5.12**2, rel=0.01)
    assert (image.sum(0) @ axis).item() / area == pytest.approx(64 * x / 63, abs=0.02)  # x runs along a row
    assert (image.sum(1) @ axis).item() / area == pytest.approx(64 * y / 63, abs=0.02)


def test_exchanging_dots_changes_nothing():
    factors = torch.randint(64, (20, 3, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(render_three_dots(factors.flatten(1)), render_three_dots(factors.flip(1).flatten(1)))


SOME_SHAPES = [(0, 5, 0, 16, 16), (0, 2, 7, 3, 30), (1, 5, 3, 20, 8)]
SOME_SHAPES += [(1, 0, 33, 0, 0), (2, 5, 0, 15, 15), (2, 4, 13, 31, 9)]


@pytest.mark.parametrize("row", SOME_SHAPES)
@pytest.mark.parametrize("size", [32, 64])
def test_shapes_agree_with_a_slow_drawing_from_their_corners(row, size):
    error = np.abs(render_shapes(torch.tensor([row]), size)[0, 0].numpy() - slow_shape(row, size))
    assert error.max() < 0.26  # in a right-angled corner, where the smaller share a stands for the product a b
    assert (error > 0.08).sum() <= 5  # nowhere else
    assert error.mean() < 1.5e-3 * 64 / size


def test_shapes_have_their_areas():
    factors = torch.tensor([[shape, 5, 4, 16, 16] for shape in range(3)])
    r = 0.5256
    areas = torch.tensor([2.0, 0.6 * math.pi, (4 + math.pi) * r**2]) * 12.8**2
    torch.testing.assert_close(render_shapes(factors).sum((1, 2, 3)), areas, rtol=5e-3, atol=0)


def test_ten_of_forty_orientations_are_a_quarter_turn_counter_clockwise():
    factors = torch.tensor([[shape, 5, k, 15.5, 15.5] for shape in (1, 2) for k in (3, 13)], dtype=torch.float64)
    images = render_shapes(factors)
    torch.testing.assert_close(images[1::2], images[0::2].rot90(1, (2, 3)))
    assert (images[1] - images[0]).abs().max() > 0.5


def test_shapes_are_never_clipped():
    ends = [(shape, 5, k, x, y) for shape in range(3) for k in range(0, 40, 3) for x in (0, 31) for y in (0, 31)]
    images = render_shapes(torch.tensor(ends), 32)
    border = images.clone()
    border[:, :, 1:-1, 1:-1] = 0
    assert border.max() == 0


@pytest.mark.parametrize("name", ["three-dots", "shapes", "rooms"])
def test_many_at_once_are_the_same_as_one_by_one(name):
    data = load(name, n=130, size=24)
    render = {"three-dots": render_three_dots, "shapes": render_shapes, "rooms": render_rooms}[name]
    assert torch.equal(data.images, render(data.factors, 24))
    assert torch.equal(data.images, torch.cat([render(row[None], 24) for row in data.factors]))
    assert data.images.dtype == torch.float32
    assert render(data.factors[:2].double(), 24).dtype == torch.float64


@pytest.mark.parametrize("name", ["three-dots", "shapes", "rooms"])
def test_draws_are_fixed_by_seed_and_split(name):
    data = load(name, n=600, size=8)
    assert torch.equal(load(name, n=600, size=8).factors, data.factors)
    assert torch.equal(load(name, n=50, size=8).factors, data[:50].factors)
    assert not torch.equal(load(name, n=600, size=8, seed=1).factors, data.factors)
    assert not torch.equal(load(name, "test", n=600, size=8).factors, data.factors)
    assert (data.factors >= 0).all()
    assert (data.factors.amax(0) < torch.tensor(data.factor_sizes)).all()
    assert data.factors.shape[1] == len(data.factor_names) == len(data.factor_sizes)


def test_factors_are_uniform():
    # chi-squared over all values of every factor: mean = degrees of freedom, sd = sqrt(2 dof); 5 sd is generous
    for name in ("three-dots", "shapes", "rooms"):
        data = load(name, n=20_000, size=1)
        for factor, values in zip(data.factors.T, data.factor_sizes, strict=True):
            counts = torch.bincount(factor, minlength=values).double()
            expected = len(data) / values
            assert ((counts - expected) ** 2 / expected).sum() < values - 1 + 5 * math.sqrt(2 * (values - 1))


def test_train_and_test_share_no_image():
    for name in ("three-dots", "rooms", "shapes"):
        states = [set(map(tuple, load(name, split, n=20_000, size=1).factors.tolist())) for split in ("train", "test")]
        assert not states[0] & states[1]
    assert len(states[0]) == 20_000  # shapes: without repetition


def test_labels_of_shapes_are_shapes():
    data = load("shapes", n=5, size=8)
    assert torch.equal(data.labels, data.factors[:, 0])
    assert load("three-dots", n=5, size=8).labels is None


@pytest.mark.parametrize("render", [render_three_dots, render_shapes])
def test_bad_factors_are_refused(render):
    width = 6 if render is render_three_dots else 5
    good = torch.zeros(2, width)
    for bad in (good[0], good[:, :-1], good[:0], [[0] * width], good - 1, good + 64, good * math.nan):
        with pytest.raises(ValueError, match="factors"):
            render(bad)
    with pytest.raises(ValueError, match="size"):
        render(good, 0)


def test_more_shapes_than_there_are_is_refused():
    with pytest.raises(ValueError, match="368640"):
        load("shapes", n=400_000)


def test_draws_are_the_same_for_ever():
    """What stored results were computed from; another generator or another order would draw anew."""
    assert load("three-dots", n=2, size=8).factors.tolist() == DOTS
    assert load("three-dots", "test", n=1, size=8, seed=1).factors.tolist() == DOTS_OF_THE_TEST
    assert load("rooms", n=1, size=8).factors.tolist() == THINGS
    assert load("rooms", "test", n=1, size=8, seed=1).factors.tolist() == THINGS_OF_THE_TEST
    assert load("shapes", n=2, size=8).factors.tolist() == FORMS
    assert load("shapes", "test", n=1, size=8, seed=1).factors.tolist() == FORMS_OF_THE_TEST


DOTS = [[44, 47, 53, 0, 3, 59], [3, 39, 9, 19, 21, 50]]
DOTS_OF_THE_TEST = [[42, 24, 57, 3, 56, 8]]
THINGS = [[4, 9, 3, 0, 1, 9, 3, 3, 1, 3, 21, 2, 0, 9, 6, 0]]
THINGS_OF_THE_TEST = [[6, 8, 2, 2, 1, 0, 0, 1, 1, 9, 10, 3, 2, 9, 10, 1]]
FORMS = [[0, 1, 10, 21, 12], [1, 4, 13, 29, 13]]
FORMS_OF_THE_TEST = [[2, 2, 19, 13, 30]]
