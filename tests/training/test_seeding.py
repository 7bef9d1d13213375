"""`seeded`: the same numbers inside, nothing changed outside."""

from contextlib import nullcontext

import pytest
import torch

from tests.pretended_gpu import pretended_gpu
from vaekit.training.seeding import generator, mix, seeded


def test_same_seed_same_numbers_and_the_callers_stream_goes_on():
    torch.manual_seed(1)
    expected = torch.randn(6)
    torch.manual_seed(1)
    first = torch.randn(3)
    with seeded(7):
        a = torch.randn(4)
    with seeded(7):
        b = torch.randn(4)
    with seeded(8):
        c = torch.randn(4)
    assert torch.equal(torch.cat([first, torch.randn(3)]), expected)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_state_comes_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(0):
        torch.randn(3)
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpus_stream_is_scoped_too():
    before = torch.cuda.get_rng_state()
    with seeded(3, "cuda"):
        a = torch.randn(4, device="cuda")
    with seeded(3, "cuda"):
        assert torch.equal(a, torch.randn(4, device="cuda"))
    assert torch.equal(before, torch.cuda.get_rng_state())


def test_seeds_are_the_same_for_ever():
    """What a chapter shows was drawn from these; another numpy or another order of mixing would draw anew."""
    assert [mix(0), mix(5, 1, 1), mix(3, 0, 7)] == [2968811710, 3269189123, 3908964647]
    assert generator("cpu", 5, 0).initial_seed() == 16823399
    assert torch.randperm(6, generator=generator("cpu", 5, 0)).tolist() == [5, 4, 2, 3, 0, 1]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_an_accelerators_stream_is_scoped_too(kind):
    with pretended_gpu(kind) as gpu:
        module = torch.get_device_module(gpu)
        module.manual_seed(5)
        expected = torch.randn(6, device=gpu).cpu()
        module.manual_seed(5)
        first, here = torch.randn(3, device=gpu).cpu(), torch.get_rng_state()
        with seeded(7, gpu):
            a, b = torch.randn(4, device=gpu).cpu(), torch.randn(4)
        with seeded(7, gpu):
            again = torch.randn(4, device=gpu).cpu()
        with seeded(7):
            assert torch.equal(b, torch.randn(4))
        assert torch.equal(a, again)
        assert torch.equal(torch.cat([first, torch.randn(3, device=gpu).cpu()]), expected)
        assert torch.equal(here, torch.get_rng_state())


def test_a_seed_that_is_no_whole_number_is_named():
    with pytest.raises(ValueError, match="seed: expected a whole number, got"), seeded(1.5):
        pass


def test_of_several_cards_the_one_that_is_named_is_seeded_and_put_back(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: done.append(("get", device.index)) or "before")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda new, device: done.append((new, device.index)))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(done.append(("on", device.index))))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: done.append(("seed", seed)))
    with pytest.raises(KeyError), seeded(7, "cuda:1"):
        raise KeyError
    assert done == [("get", 1), ("on", 1), ("seed", 7), ("before", 1)]
