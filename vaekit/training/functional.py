"""Calling a module with other weights than its own, also where modules or weights are shared."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def functional_call(
    module: nn.Module, weights: Mapping[str, Tensor], args: tuple = (), kwargs: dict[str, Any] | None = None
) -> Any:
    """What `module(*args, **kwargs)` returns with `weights` in place of its parameters and buffers of these names.

    As `torch.func.functional_call`, but also right where a *module* is registered under two names. There, torch puts
    the new weights in twice and takes them out once, so that they stay. Here each place that holds a weight is changed
    once. A weight that several places share changes in all of them.

    Args:
        module: It is left as it was, also when the call raises.
        weights: New values by name, as `named_parameters()` gives names; what is not named keeps its value.
        args: Of the call.
        kwargs: Of the call.

    Raises:
        ValueError: The module has no parameter or buffer of such a name.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> both = nn.Sequential(layer, layer)
        >>> functional_call(both, {"0.weight": torch.full((1, 1), 3.0)}, (torch.ones(1),)).item()
        9.0
    """
    places: dict[int, dict[tuple[int, str], str]] = {}  # of each weight: (module, its own name there) -> full name
    named: dict[str, int] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for own, tensor in (*owner._parameters.items(), *owner._buffers.items()):
            if tensor is not None:
                full = f"{prefix}.{own}" if prefix else own
                named[full] = id(tensor)
                places.setdefault(id(tensor), {}).setdefault((id(owner), own), full)
    if unknown := sorted(weights.keys() - named.keys()):
        raise ValueError(f"weights: expected names of parameters or buffers of the module, got {unknown}")
    everywhere = {full: value for name, value in weights.items() for full in places[named[name]].values()}
    return torch.func.functional_call(module, everywhere, args, kwargs, tie_weights=False)
