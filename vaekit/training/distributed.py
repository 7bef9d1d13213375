"""Data-parallel training on `torch.distributed`, without a wrapper around the model.

Launched by `torchrun`, every process runs the same script. Each takes its share of every batch, and the gradients are
summed, so that a step is the step that one process would take on the whole batch. In a single process all of this does
nothing.
"""

import atexit
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def launched() -> bool:
    """Whether `torchrun` (or the like) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def device_of_process(default: torch.device) -> torch.device:
    """This process's own GPU if it is one of several on a machine with GPUs, else `default`."""
    if launched() and default.type == "cuda" and default.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return default


def join(device: torch.device) -> tuple[int, int]:
    """Join the process group if there is one to join.

    Args:
        device: Where this process computes; NCCL connects GPUs, gloo everything else.

    Returns:
        This process's rank and the number of processes; `(0, 1)` for a single process.
    """
    if not launched():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return dist.get_rank(), dist.get_world_size()


def broadcast(modules: Iterable[nn.Module]) -> None:
    """Give every process the parameters and buffers of the first."""
    if dist.is_initialized():
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), src=0)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Add up the gradients over all processes, in one message; a missing one counts as zero."""
    if dist.is_initialized():
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def from_first(value: float, device: torch.device) -> float:
    """The first process's `value`, so that all take the same decision."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor(value, device=device, dtype=torch.float64 if device.type != "mps" else torch.float32)
    dist.broadcast(shared, src=0)
    return shared.item()


def barrier() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
