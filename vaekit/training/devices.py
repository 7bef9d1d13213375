"""Where to compute: the best device at hand unless `VAEKIT_DEVICE` names one, and its name for the record."""

import os

import torch


def default_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU; or what the environment variable `VAEKIT_DEVICE` names.

    A machine may offer a device on which nothing can be computed, as virtual Macs do: there, `VAEKIT_DEVICE=cpu` helps.

    Raises:
        ValueError: `VAEKIT_DEVICE` names no device that this machine has.
    """
    named = os.environ.get("VAEKIT_DEVICE")
    if named:
        return _device(named, "VAEKIT_DEVICE")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name() -> str:
    """The default device's name, or the processor with its number of threads: where a result was computed."""
    device = default_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple MPS"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


def device_of(device: torch.device | str | None) -> torch.device:
    """The device that an argument asks for, by default `default_device()`.

    Raises:
        ValueError: It is no device that this machine has.
    """
    return default_device() if device is None else _device(device, "device")


def _device(named: torch.device | str, name: str) -> torch.device:
    try:
        device = torch.device(named)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    there = device.type != "meta"
    if device.type == "cuda":
        there = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    elif device.type == "mps":
        there = torch.backends.mps.is_available()
    if not there:
        raise ValueError(f"{name}: expected cpu, cuda, cuda:1, ... or mps, as this machine has, got {named!r}")
    return device
