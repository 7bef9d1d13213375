"""`seeded`: the same numbers inside, nothing changed outside."""

import pytest
import torch

from vaekit.training.seeding import seeded


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
