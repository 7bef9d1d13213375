"""What a file of scores answers for, whose seeds the noise has, and how much memory is counted for an image."""

import math

import pytest
import torch
from torch import nn

from tests.influence.test_scores import brute_gram, checkpoint, images, noiseless, once, small_mlp
from vaekit import elbo, self_influence, strongest, tracin
from vaekit.influence import factors as factors_module
from vaekit.influence import run as run_module
from vaekit.influence.asked import noise_seeds
from vaekit.influence.factors import Factors, cross, has_factors, pairs_are_cheaper
from vaekit.influence.gradients import PerImage
from vaekit.influence.leave_one_out import kde_influence, knn_influence
from vaekit.influence.run import Run
from vaekit.influence.scored import Scored
from vaekit.training.checkpoints import load_checkpoint, save_checkpoint


def test_seeds_of_the_noise_are_the_same_for_ever_and_each_is_used_once():
    halves = noise_seeds(3, 2, 5, unbiased=True)
    assert [[len(half) for half in checkpoint] for checkpoint in halves] == [[3, 2], [3, 2]]
    flat = [seed for checkpoint in halves for half in checkpoint for seed in half]
    assert len(set(flat)) == 10 and min(flat) >= 0 and 2**60 < max(flat) < 2**62
    together = noise_seeds(3, 2, 5, unbiased=False)
    assert [seed for (row,) in together for seed in row] == flat
    assert flat == torch.randint(2**62, (10,), generator=torch.Generator().manual_seed(3)).tolist()
    assert noise_seeds(4, 2, 5, unbiased=True) != halves
    assert [[len(half) for half in checkpoint] for checkpoint in noise_seeds(0, 1, 2, unbiased=True)] == [[1, 1]]


def changed(tensor, index=-1, by=1e-9):
    tensor = tensor.clone()
    tensor.view(-1)[index] -= by
    return tensor


WEIGHT = "decoder.net.0.weight"
CHANGES = {
    "learning rate": lambda state, x, z: ([state | {"lr": state["lr"] + 1e-12}], x, z, {}),
    "one more checkpoint": lambda state, x, z: ([state, state], x, z, {}),
    "a weight": lambda state, x, z: (
        [state | {"model": state["model"] | {WEIGHT: changed(state["model"][WEIGHT])}}], x, z, {}),
    "the last pixel to train on": lambda state, x, z: ([state], changed(x), z, {}),
    "the last pixel to test": lambda state, x, z: ([state], x, changed(z), {}),
    "one image less": lambda state, x, z: ([state], x[:-1], z, {}),
    "size of the pieces": lambda state, x, z: ([state], x, z, {"chunk": 4}),
    "halves or not": lambda state, x, z: ([state], x, z, {"unbiased": False}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_answers_for_nothing_that_differs_in_the_least(tmp_path, what):
    """Differences too small for the objective's values at the first images to tell."""
    model, x, z, file = small_mlp(), images(6), images(3, seed=1), tmp_path / "scores.pt"
    options = {"samples": 2, "chunk": 3, "resume": file, "progress": False}
    state = checkpoint(model, 0.1)
    tracin(model, noiseless, [state], x, z, **options)
    other, x_new, z_new, change = CHANGES[what](state, x, z)
    with pytest.raises(ValueError, match=r"resume: .* holds scores of other images, weights or settings"):
        tracin(model, noiseless, other, x_new, z_new, **options | change)
    tracin(model, noiseless, [state], x, z, **options)


@pytest.mark.parametrize(("dtype", "rounding", "too_much"), [(torch.float64, 1e-10, 1e-8), (torch.float32, 1e-6, 1e-4)])
def test_values_of_the_objective_may_differ_by_rounding_alone(tmp_path, dtype, rounding, too_much):
    model, x, file = small_mlp().to(dtype), images(5).to(dtype), tmp_path / "scores.pt"
    ask = lambda: self_influence(model, elbo, [checkpoint(model)], x, samples=2, resume=file)  # noqa: E731
    scores, content = ask(), load_checkpoint(file)
    assert len(content["nats"]) == 4
    for position in (0, 3):
        for relative, refused in ((rounding, False), (too_much, True)):
            nats = list(content["nats"])
            nats[position] *= 1 + relative
            save_checkpoint(file, content | {"nats": nats})
            if refused:
                with pytest.raises(ValueError, match="of another objective"):
                    ask()
            else:
                assert torch.equal(ask(), scores)


def test_sixteen_draws_in_two_halves_unless_told():
    model, x, z = small_mlp(), images(3), images(2, seed=1)
    named = {"samples": 16, "unbiased": True, "seed": 0, "layers": None, "path": "auto"}
    expected = tracin(model, elbo, [checkpoint(model)], x, z, **named)
    assert torch.equal(tracin(model, elbo, [checkpoint(model)], x, z), expected)
    assert strongest(model, noiseless, [checkpoint(model)], images(12), z, samples=2).proponents.shape == (2, 10)
    every = strongest(model, noiseless, [checkpoint(model)], x, z, k=3, samples=2)  # as many as there are
    assert [sorted(row) for row in every.proponents.tolist()] == [[0, 1, 2]] * 2


def test_products_of_factors_in_pieces(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x, z = (Factors(*(torch.randn(n, t, d, generator=g).double() for d in (3, 5))) for n, t in ((7, 2), (6, 3)))
    whole = x.form() @ z.form().T
    for numbers in (1, 2 * 6 * 3 * 3, 10**6):
        monkeypatch.setattr(factors_module, "AT_ONCE", numbers)
        torch.testing.assert_close(cross(x, z), whole)
        torch.testing.assert_close(cross(x.form(), z), whole)
    for t, u in ((1, 1), (2, 1), (1, 3), (2, 2)):
        x, z = (Factors(*(torch.randn(n, k, d, generator=g).double() for d in (3, 5))) for n, k in ((7, t), (6, u)))
        torch.testing.assert_close(cross(x, z), x.form() @ z.form().T)


def test_a_piece_of_products_takes_no_more_than_it_may(monkeypatch):
    """Of M images with T positions against N with U: M T x N U numbers at once."""
    x, z = (Factors(torch.ones(n, t, 30), torch.ones(n, t, 40)) for n, t in ((7, 2), (6, 3)))
    sizes, multiply = [], torch.Tensor.mul_
    monkeypatch.setattr(torch.Tensor, "mul_", lambda self, other: sizes.append(self.numel()) or multiply(self, other))
    for rows, pieces in ((1, [1] * 7), (3, [3, 3, 1]), (7, [7])):
        monkeypatch.setattr(factors_module, "AT_ONCE", rows * 2 * 6 * 3)
        cross(x, z)
        assert [size // (2 * 6 * 3) for size in sizes] == pieces
        sizes.clear()


def test_when_pairs_are_cheaper():
    """T^2 (p + q) steps against p q."""
    assert [pairs_are_cheaper(t, 40, 40) for t in (1, 2, 3, 4, 5)] == [True, True, True, True, False]
    assert not pairs_are_cheaper(1, 2, 2)  # a draw
    assert pairs_are_cheaper(1, 3, 2)


@pytest.mark.parametrize(
    ("layer", "known"),
    [
        (nn.Linear(2, 2), True),
        (nn.Conv2d(2, 2, 3), True),
        (nn.Conv2d(2, 2, 3, padding_mode="reflect", padding=1), False),
        (nn.Conv2d(2, 2, 3, padding="same"), False),
        (nn.Conv2d(2, 2, 3, groups=2), False),
        (nn.ConvTranspose2d(2, 2, 3, stride=2, output_padding=1), True),
        (nn.ConvTranspose2d(2, 2, 3, stride=(2, 1), output_padding=(1, 0)), True),
        (nn.ConvTranspose2d(2, 2, 3, stride=(2, 1), dilation=2, output_padding=(1, 1)), False),
        (nn.Conv1d(2, 2, 3), False),
        (nn.BatchNorm2d(2), False),
        (nn.utils.parametrizations.orthogonal(nn.Linear(2, 2)), False),
        (type("Mine", (nn.Linear,), {})(2, 2), False),
        (type("Mine", (nn.Conv2d,), {})(2, 2, 3), False),
    ],
)
def test_which_layers_have_factors(layer, known):
    assert has_factors(layer) is known


def test_numbers_that_are_kept_of_an_image():
    """Of linear layers q -> p, for each of T positions p + q; p q where gradients are formed; and the pass's own."""
    model, x = small_mlp(), images(1)
    sizes = [(9, 4), (4, 4), (2, 4), (4, 9)]  # (q, p) of the encoder's and the decoder's layers
    names = [f"model.{name}" for name, _ in model.named_parameters()]
    everything = sum(q * p + p for q, p in sizes)
    assert PerImage(Scored(model, noiseless), names, "general", x).numbers == everything
    for draws, t in ((1, 1), (3, 1)):  # noiseless: no layer sees noise, so that a draw brings no position
        formed = sum(0 if t * t * (p + q) < p * q else p * q for q, p in sizes)
        kept = sum(t * (p + q) + 4 * (p + q) for q, p in sizes)
        assert PerImage(Scored(model, noiseless), names, "layers", x, draws).numbers == kept + formed
    noisy = PerImage(Scored(model, elbo), names, "layers", x, 3)
    kept = sum(t * (p + q) + 4 * (p + q) for (q, p), t in zip(sizes, (1, 1, 3, 3), strict=True))
    formed = sum(0 if t * t * (p + q) < p * q else p * q for (q, p), t in zip(sizes, (1, 1, 3, 3), strict=True))
    assert noisy.numbers == kept + formed


def test_two_points_are_enough_to_leave_one_out():
    train, test = torch.tensor([[0.0], [3.0]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64)
    kernels = [math.exp(-((z - 1) ** 2) / 2) for z in (0, 3)]
    expected = [math.log(sum(kernels) / 2 / kernels[1]), math.log(sum(kernels) / 2 / kernels[0])]
    assert kde_influence(train, test, bandwidth=1.0).flatten().tolist() == pytest.approx(expected)
    # the nearest is 1 away; without it 2, and one point in place of two: log 1/(2 r) against log 1/r
    assert knn_influence(train, test, k=1).flatten().tolist() == pytest.approx([0.0, math.log(1 / 2)])


def test_pieces_are_as_large_as_memory_and_the_cache_allow(monkeypatch):
    model, x = small_mlp(), images(3)

    def plan(**options):
        return Run(model, elbo, [checkpoint(model)], x, None, samples=4, **options)

    for halves, options in ((2, {}), (1, {"unbiased": False})):
        of_an_image = halves * plan(**options).gradient.numbers
        for budget, pieces in ((2**26, 256), (10 * of_an_image, 10), (10 * of_an_image - 1, 9), (1, 1)):
            monkeypatch.setattr(run_module, "BUDGET", budget)
            assert plan(**options).chunk == pieces
        assert plan(chunk=3, **options).chunk == 3


@pytest.mark.parametrize(("every", "times"), [(30.0, 1), (-1.0, 3)])
def test_scores_are_saved_now_and_then_and_at_the_end(tmp_path, monkeypatch, every, times):
    model, saved = small_mlp(), []
    monkeypatch.setattr(run_module, "SAVE_EVERY", every)
    monkeypatch.setattr(run_module, "save_checkpoint", lambda path, content: saved.append(content["done"]))
    self_influence(model, elbo, [checkpoint(model)], images(6), samples=2, chunk=2, resume=tmp_path / "scores.pt")
    assert saved == [1, 2, 3][-times:]


def test_the_single_strongest():
    model, x, z = small_mlp(), images(4), images(2, seed=1)
    scores = tracin(model, noiseless, [checkpoint(model)], x, z, samples=2)
    ends = strongest(model, noiseless, [checkpoint(model)], x, z, k=1, samples=2)
    assert torch.equal(ends.proponents[:, 0], scores.argmax(0)) and torch.equal(ends.opponents[:, 0], scores.argmin(0))


def test_an_objective_that_insists_on_single_precision_keeps_its_fast_path():
    """Compared up to single precision's rounding, where it cannot be compared in double precision."""

    def insists(model, x):
        if x.dtype != torch.float32:
            raise TypeError
        return noiseless(model, x)

    model, x, z = small_mlp().float(), images(5).float(), images(3, seed=1).float()
    scores = tracin(model, insists, [checkpoint(model)], x, z, path="layers", **once)
    torch.testing.assert_close(scores, brute_gram(model, noiseless, x, z))
