"""Drawn rooms against slow, obvious drawings, and each factor against what it may change."""

import colorsys
import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline

from vaekit.datasets import load, render_rooms
from vaekit.datasets.rooms import ROOMS

FINE = 12  # points along each side of a pixel in the slow drawings
NAMES = list(ROOMS)


def room(**values):
    """One row of factors for three objects, float64; what is not named is in the middle of its range."""
    usual = {name: values // 2 for name, values in ROOMS.items()}
    return torch.tensor([[float((usual | values)[name]) for name in NAMES]], dtype=torch.float64)


def corners(shape):
    """The outline of a shape in the unit circle, y upwards: [P, 2]."""
    if shape == 0:
        return np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * math.sqrt(0.5)
    if shape == 1:
        turn = np.linspace(0, 2 * math.pi, 500)
        return np.stack([np.cos(turn), 0.6 * np.sin(turn)], 1)
    r, s, turn = 0.5256, math.sqrt(0.5), np.linspace(-math.pi / 4, 3 * math.pi / 4, 300)
    arc = np.stack([s + np.cos(turn), s + np.sin(turn)], 1)
    heart = np.concatenate([[[0, -2 * s]], arc, arc[::-1] * [-1, 1]]) * r
    return heart - [0, (heart[:, 1].max() + heart[:, 1].min()) / 2]


def slow(row, size, objects=3):
    """Every fine point takes the colour of the nearest thing that it is in; a pixel is their mean: [3, size, size]."""
    wall, floor, light, camera = row[:4]
    axis = (np.arange(size * FINE) + 0.5) / FINE
    y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    horizon = 0.45 * size + (camera - 2) * size / 32
    colours = np.where(
        (y < horizon)[:, None], colorsys.hsv_to_rgb(wall / 10, 0.4, 0.9), colorsys.hsv_to_rgb(floor / 10, 0.4, 0.6)
    )
    things = sorted((row[4 + 4 * k : 8 + 4 * k] for k in range(objects)), key=lambda thing: -thing[3])
    for shape, hue, place, distance in things:
        radius = (0.15 - 0.02 * distance) * size
        centre = [(0.16 + 0.68 * place / 31) * size, horizon + (0.3 - 0.065 * distance) * size]
        inside = Outline(centre + radius * corners(shape) * [1, -1]).contains_points(np.stack([x, y], 1))
        colours[inside] = colorsys.hsv_to_rgb(hue / 10, 0.9, 1.0)
    pixels = colours.reshape(size, FINE, size, FINE, 3).mean((1, 3)) * (0.6 + 0.1 * light)
    return torch.tensor(pixels).permute(2, 0, 1)


SOME = [
    [0, 9, 4, 0, 0, 1, 3, 0, 1, 4, 16, 2, 2, 7, 28, 3],
    [5, 3, 1, 4, 2, 0, 16, 0, 0, 6, 20, 1, 1, 2, 12, 3],
    [8, 1, 0, 2, 1, 9, 31, 2, 2, 5, 0, 2, 0, 3, 15, 0],
]


@pytest.mark.parametrize(
    ("row", "size", "objects"),
    [(SOME[0], 32, 3), (SOME[1], 32, 3), (SOME[2], 32, 3), (SOME[0], 32, 1), (SOME[1], 48, 2)],
)
def test_rooms_agree_with_a_slow_drawing(row, size, objects):
    image = render_rooms(torch.tensor([row], dtype=torch.float64), size, objects=objects)[0]
    error = (image - slow(row, size, objects)).abs().amax(0)
    assert error.max() < 0.2  # in corners and where two outlines cross in one pixel
    assert (error > 0.08).sum() <= 6
    assert error.mean() < 2e-3 * 64 / size


def test_an_empty_room_has_two_colours_times_the_light():
    factors = room(wall=3, floor=7, light=1, camera=3)  # the horizon at 0.45 * 40 + 40 / 32 = 19.25
    image = render_rooms(factors, 40, objects=0)[0]
    wall, floor = (
        0.7 * torch.tensor(colorsys.hsv_to_rgb(hue / 10, 0.4, value), dtype=torch.float64)[:, None, None]
        for hue, value in ((3, 0.9), (7, 0.6))
    )
    torch.testing.assert_close(image[:, :19], wall.expand(3, 19, 40))
    torch.testing.assert_close(image[:, 20:], floor.expand(3, 20, 40))
    torch.testing.assert_close(image[:, 19:20], (0.25 * wall + 0.75 * floor).expand(3, 1, 40))


@pytest.mark.parametrize("hue", range(10))
def test_hues_go_around_the_colour_wheel(hue):
    image = render_rooms(room(light=4, hue3=hue, shape3=0, x3=15.5, distance3=0), 40)[0]
    centre = image[:, 30, 20]  # 0.45 * 40 + 0.3 * 40 = 30 from above, in the middle
    torch.testing.assert_close(centre, torch.tensor(colorsys.hsv_to_rgb(hue / 10, 0.9, 1.0), dtype=torch.float64))


def test_light_multiplies_the_whole_picture():
    dark, bright = render_rooms(room(light=0)), render_rooms(room(light=4))
    torch.testing.assert_close(dark / bright, torch.full_like(dark, 0.6))


def test_the_camera_moves_everything_together():
    low, high = render_rooms(room(camera=0)), render_rooms(room(camera=3))  # 3 steps of 64 / 32 pixels
    torch.testing.assert_close(high[:, :, 6:], low[:, :, :-6])
    assert (high - low).abs().max() > 0.1


def test_a_factor_changes_what_it_should_and_nothing_else():
    before = render_rooms(room())
    changed = {name: (render_rooms(room(**{name: 0})) != before).any(1)[0] for name in NAMES}  # [H, W] each
    assert changed["wall"][:28].all() and not changed["wall"][29:].any()  # the horizon: 0.45 * 64 = 28.8
    assert changed["floor"].sum() < 36 * 64 and not changed["floor"][:28].any()  # what is before it hides it
    assert changed["light"].all()
    for name in NAMES[4:]:
        assert not changed[name][:28].any(), name


@pytest.mark.parametrize(("distances", "seen"), [((3, 0), 5), ((0, 3), 0), ((2, 2), 5), ((0, 0), 5)])
def test_what_is_nearer_or_else_later_hides_what_is_behind(distances, seen):
    first, second = distances
    two = {"shape1": 0, "shape2": 0, "x1": 15.5, "x2": 15.5, "hue1": 0, "hue2": 5, "light": 4}
    image = render_rooms(room(**two, distance1=first, distance2=second), objects=2)[0]
    inside_both = round(64 * (0.45 + 0.3 - 0.065 * min(distances))) - 5  # above the centre of the nearer one
    colour = torch.tensor(colorsys.hsv_to_rgb(seen / 10, 0.9, 1.0), dtype=torch.float64)
    torch.testing.assert_close(image[:, inside_both, 32], colour)


def test_the_first_objects_of_the_same_factors_are_drawn():
    factors = load("rooms", n=20, size=1).factors
    for k in range(4):
        images = render_rooms(factors, 16, objects=k)
        assert torch.equal(images, render_rooms(factors[:, : 4 + 4 * k], 16))
    assert torch.equal(images, render_rooms(factors, 16))
    five = torch.cat([factors, factors[:, 4:12]], 1)
    assert torch.equal(render_rooms(five, 16, objects=3), images)


def test_nothing_is_clipped():
    ends = [[0, 5, 4, camera, 0, 0, x, d] for camera in (0, 4) for x in (0, 31) for d in (0, 3)]
    factors = torch.tensor(ends)
    changed = (render_rooms(factors, 32) - render_rooms(factors, 32, objects=0)).abs().amax(1)
    changed[:, 1:-1, 1:-1] = 0
    assert changed.max() == 0
    assert (render_rooms(factors, 32)[:, :, :10] == render_rooms(factors, 32, objects=0)[:, :, :10]).all()


def test_factors_that_do_not_fit_are_refused():
    good = torch.zeros(2, 16)
    for bad in (good[0], good[:, :-1], good[:, :3], good[:0], [[0] * 16], good - 1, good + 10, good * math.nan):
        with pytest.raises(ValueError, match="factors: expected"):
            render_rooms(bad)
    with pytest.raises(ValueError, match="objects: expected at most 3, as many as the factors describe, got 4"):
        render_rooms(good, objects=4)
    with pytest.raises(ValueError, match="objects: expected at least 0, got -1"):
        render_rooms(good, objects=-1)
    with pytest.raises(ValueError, match="size"):
        render_rooms(good, 0)


def test_the_loader_says_what_the_factors_are():
    data = load("rooms", n=7, size=8)
    assert data.images.shape == (7, 3, 8, 8)
    assert data.labels is None
    assert data.factor_names == tuple(ROOMS)
    assert data.factor_sizes == (10, 10, 5, 5) + (3, 10, 32, 4) * 3
