"""Which path to take: the fastest that gives the gradients that plain automatic differentiation gives."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekit.influence.gradients import PATHS, PerImage
from vaekit.influence.scored import Scored, directional

FEW = 3  # queries up to which one forward pass for each beats forming every training image's gradient


def choose_path(
    scored: Scored, names: Sequence[str], image: Tensor, *, path: str, queries: int | None
) -> tuple[str, bool]:
    """How to take gradients, and whether to use them as directions of forward mode.

    A layer's factors are the whole truth only if its weight acts through the layer's own call, once differentiated.
    That is not so where a weight is also used elsewhere, or where the objective contains derivatives of the network
    (a Jacobian penalty, Hamiltonian dynamics). So each path is compared, parameter by parameter, on one image with
    plain automatic differentiation before it is trusted.

    Args:
        scored: Model and objective.
        names: The parameters that count.
        image: One image `[1, *image]`.
        path: One of `PATHS`, `forward`, or `auto` for the fastest sound one.
        queries: Number of test images; `None` for self-influence, which has no forward path.

    Raises:
        ValueError: There is no such path, or it does not give this objective's gradients.
    """
    known = ("auto", *PATHS, *(("forward",) if queries is not None else ()))
    if path not in known:
        raise ValueError(f"path: expected one of {', '.join(known)}, got {path!r}")
    truth = _gradient(scored, names, "loop", image)  # an objective that is wrong in itself fails here, in its own words
    candidates = (path,) if path in PATHS else PATHS
    sound = next((p for p in candidates if p == "loop" or _is_sound(scored, names, p, image, truth)), None)
    if path == "forward" or (path == "auto" and sound != "layers" and queries is not None and queries <= FEW):
        if _forward_is_sound(scored, image, truth):
            return sound or "loop", True
        sound = None if path == "forward" else sound
    if sound is None:
        raise ValueError(f"path: {path!r} does not give this objective's gradients; 'auto' finds one that does")
    return sound, False


def _gradient(scored: Scored, names: Sequence[str], path: str, image: Tensor) -> dict[str, Tensor]:
    gradients = PerImage(scored, names, path, image)(image, [0])
    return {name: g if isinstance(g, Tensor) else g.form() for name, g in gradients.items()}  # [1, P] each


def _is_sound(scored: Scored, names: Sequence[str], path: str, image: Tensor, truth: dict[str, Tensor]) -> bool:
    try:
        gradients = _gradient(scored, names, path, image)
    except Exception:  # whatever it is, it is the path's doing: the loop has just gone through
        return False
    scale = max(float(g.abs().max()) for g in truth.values())
    precision = 10 * torch.finfo(image.dtype).eps ** 0.5
    return all(
        float((gradients[name] - g).abs().max()) <= precision * (float(g.abs().max()) + 1e-3 * scale)
        for name, g in truth.items()
    )


def _forward_is_sound(scored: Scored, image: Tensor, truth: dict[str, Tensor]) -> bool:
    shapes = {name: p.shape for name, p in scored.named_parameters()}
    try:
        slope = directional(scored, image, {name: g.view(shapes[name]) for name, g in truth.items()}, seed=0)
    except Exception:  # as above
        return False
    square = sum(float((g**2).sum()) for g in truth.values())
    return abs(float(slope) - square) <= 10 * torch.finfo(image.dtype).eps ** 0.5 * square
