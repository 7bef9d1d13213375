"""What one of several processes says to the others, with the others left out: their answers are made up here."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from vaekit.training import distributed


@pytest.fixture
def three_of_us(monkeypatch):
    """All three processes hold the same numbers; what is sent round is noted."""
    sent = []

    def all_reduce(tensor):
        sent.append(("sum", tensor.numel()))
        tensor *= 3

    def broadcast(tensor, src):
        sent.append(("broadcast", src))
        tensor.fill_(7)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "broadcast", broadcast)
    monkeypatch.setattr(dist, "barrier", lambda: sent.append(("barrier", None)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: sent.append(("left", None)))
    return sent


def test_gradients_are_added_up_in_one_message_each_at_its_place(three_of_us):
    shapes = [(2, 3), (), (4,)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[0].grad = torch.arange(6.0).view(2, 3)
    parameters[2].grad = torch.tensor([1.0, 2.0, 3.0, 4.0])
    distributed.sum_gradients(parameters)
    assert three_of_us == [("sum", 11)]
    assert torch.equal(parameters[0].grad, 3 * torch.arange(6.0).view(2, 3))
    assert torch.equal(parameters[1].grad, torch.zeros(()))
    assert torch.equal(parameters[2].grad, 3 * torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_the_first_process_decides(three_of_us):
    layer = nn.BatchNorm1d(2)
    distributed.broadcast([layer])
    assert three_of_us == [("broadcast", 0)] * 5  # weight, bias, running mean, running variance, counter
    assert all(bool((tensor == 7).all()) for tensor in layer.state_dict().values())
    assert distributed.from_first(1.5, torch.device("cpu")) == 7.0 and three_of_us[-1] == ("broadcast", 0)
    assert distributed.sum_over_processes(torch.tensor(2.0)) == 6.0
    distributed.barrier()
    distributed._leave()
    assert three_of_us[-2:] == [("barrier", None), ("left", None)]


def test_a_single_process_says_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    parameter = nn.Parameter(torch.zeros(2))
    distributed.sum_gradients([parameter])
    assert parameter.grad is None and not distributed.launched()
    assert distributed.join(torch.device("cpu")) == (0, 1)
    assert distributed.from_first(1.1, torch.device("cpu")) == 1.1
    distributed.broadcast([nn.Linear(1, 1)])
    distributed.barrier()
    distributed._leave()


@pytest.mark.parametrize("device, backend", [("cuda", "nccl"), ("cpu", "gloo"), ("mps", "gloo")])
def test_each_process_joins_once_by_what_its_device_speaks(monkeypatch, device, backend):
    joined, at_the_end = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "is_initialized", lambda: bool(joined))
    monkeypatch.setattr(dist, "init_process_group", joined.append)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.atexit, "register", at_the_end.append)
    for _ in range(2):
        assert distributed.join(torch.device(device)) == (1, 2)
    assert joined == [backend] and at_the_end == [distributed._leave]


def test_each_process_takes_its_own_card_unless_told(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    cuda, second, cpu = (torch.device(name) for name in ("cuda", "cuda:1", "cpu"))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.device_of_process(cuda) == cuda
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [distributed.device_of_process(d) for d in (cuda, second, cpu)] == [torch.device("cuda:3"), second, cpu]
    monkeypatch.delenv("LOCAL_RANK")
    assert distributed.device_of_process(cuda) == torch.device("cuda:0")
