"""Which device is taken by default, and how to choose another."""

import pytest
import torch

from vaekit import VAE, elbo, fit, mlp
from vaekit.training import default_device, device_name


def offer(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.delenv("VAEKIT_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"card {device.index or 0}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("cuda, mps, device", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_at_hand(monkeypatch, cuda, mps, device):
    offer(monkeypatch, cuda=cuda, mps=mps)
    assert default_device() == torch.device(device)


@pytest.mark.parametrize("named", ["cpu", "cuda", "cuda:1", "mps"])
def test_the_environment_decides(monkeypatch, named):
    offer(monkeypatch, cuda=True, mps=True)
    monkeypatch.setenv("VAEKIT_DEVICE", named)
    assert default_device() == torch.device(named)


def test_the_name_is_that_of_the_device_in_use(monkeypatch):
    offer(monkeypatch, cuda=True, mps=True)
    names = {"cuda": "card 0", "cuda:1": "card 1", "mps": "Apple MPS"}
    for named, name in names.items():
        monkeypatch.setenv("VAEKIT_DEVICE", named)
        assert device_name() == name
    monkeypatch.setenv("VAEKIT_DEVICE", "cpu")
    assert device_name().startswith("CPU, ")


@pytest.mark.parametrize("named", ["gpu", "cuda:2", "mps", "meta", "CPU!"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, named):
    offer(monkeypatch, cuda=True, mps=False)
    monkeypatch.setenv("VAEKIT_DEVICE", named)
    with pytest.raises(ValueError, match=f"VAEKIT_DEVICE: expected cpu, cuda.*got '{named}'"):
        default_device()


def test_training_follows_it(monkeypatch):
    offer(monkeypatch, cuda=True, mps=True)
    monkeypatch.setenv("VAEKIT_DEVICE", "cpu")
    model = VAE(*mlp((1, 4, 4), latent_dim=2, hidden=(3,)), latent_dim=2)
    fit(model, elbo, torch.rand(4, 1, 4, 4), epochs=1, progress=False)
    assert model._zero.device.type == "cpu"


def test_a_machine_with_one_card(monkeypatch):
    offer(monkeypatch, cuda=True, mps=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for named in ("cuda", "cuda:0"):
        monkeypatch.setenv("VAEKIT_DEVICE", named)
        assert default_device() == torch.device(named)
    monkeypatch.setenv("VAEKIT_DEVICE", "cuda:1")
    with pytest.raises(ValueError, match="as this machine has, got 'cuda:1'"):
        default_device()
