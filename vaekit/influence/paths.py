"""Which path to take: the fastest that gives the gradients that plain automatic differentiation gives."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vaekit.influence.gradients import PATHS, PerImage
from vaekit.influence.scored import Scored, directional, one_by_one
from vaekit.training.seeding import seeded

FEW = 3  # queries up to which one forward pass for each beats forming every training image's gradient
SEEDS = (0, 1)  # of the noise with which paths are compared


class Paths:
    """The paths that are sound for an objective, its model and every one of the checkpoints.

    A layer's factors are the whole truth only if its weight acts through the layer's own call, once differentiated.
    That is not so where a weight is also used elsewhere, or where the objective contains derivatives of the network
    (a Jacobian penalty, Hamiltonian dynamics). Such a use may not show at one place: its gradient may vanish on a blank
    image, or behind a gate that is still shut. So each path is compared, entry by entry and in double precision, with
    plain automatic differentiation: on random images with the first checkpoint's weights moved at random, and at each
    checkpoint on a few of the images themselves.

    Args:
        scored: Model and objective; they are copied.
        names: The parameters that count.
        images: A few images `[n, *image]`.
        load: Puts the weights of a checkpoint in place in `scored`, by its number.
        checkpoints: How many there are.
    """

    def __init__(
        self, scored: Scored, names: Sequence[str], images: Tensor, load: Callable[[int], None], checkpoints: int
    ) -> None:
        """See the class."""
        self.scored, self.names, self.images, self.load, self.checkpoints = scored, names, images, load, checkpoints
        self.twin, self.exact = scored, False
        load(0)
        one_by_one(scored, self._parameters(), images[:1], 0)  # an objective wrong in itself fails here, in its words
        if images.device.type != "mps":
            try:
                twin = scored.in_double()
                with seeded(0, images.device), torch.no_grad():
                    twin(images[:1].double())
                self.twin, self.exact, self.images = twin, True, images.double()
            except Exception:  # an objective that insists on single precision
                self.twin = scored

    def choose(self, path: str, *, queries: int | None) -> tuple[str, bool]:
        """How to take gradients, and whether to use them as directions of forward mode.

        Args:
            path: One of `PATHS`, `forward`, or `auto` for the fastest sound one.
            queries: Number of test images; `None` for self-influence, which has no forward path.

        Raises:
            ValueError: There is no such path, or it does not give this objective's gradients.
        """
        known = ("auto", *PATHS, *(("forward",) if queries is not None else ()))
        if path not in known:
            raise ValueError(f"path: expected one of {', '.join(known)}, got {path!r}")
        if path == "auto":
            few = queries is not None and queries <= FEW
            path = next(p for p in ("layers", *(("forward",) if few else ()), "general", "loop") if self._is_sound(p))
        elif not self._is_sound(path):
            raise ValueError(f"path: {path!r} does not give this objective's gradients; 'auto' finds one that does")
        if path == "forward":
            return next(p for p in PATHS if self._is_sound(p)), True
        return path, False

    def _is_sound(self, path: str) -> bool:
        return path == "loop" or all(self._agrees(path, images) for images in self._situations())

    def _situations(self) -> Iterator[Tensor]:
        """Images to compare paths on, with the weights in place in the twin."""
        self._put(0)
        weights = {name: p.clone() for name, p in self.twin.named_parameters()}
        with torch.no_grad(), seeded(0, self.images.device):
            for name, p in self.twin.named_parameters():
                p.add_(0.1 * torch.randn_like(p) * weights[name].square().mean().sqrt().clamp_min(0.1))
            low, high = self.images.aminmax()
            noise = low + (high - low) * torch.rand_like(self.images)
        yield noise if high > low else self.images
        for index in range(self.checkpoints):
            self._put(index)
            yield self.images
        self.load(0)

    def _put(self, index: int) -> None:
        self.load(index)
        if self.twin is not self.scored:
            self.twin.load_state_dict(self.scored.state_dict())

    def _agrees(self, path: str, images: Tensor) -> bool:
        """Whether the path gives the gradients of the loop, at the weights that are in place."""
        try:
            truths = [one_by_one(self.twin, self._parameters(), images, seed) for seed in SEEDS]
        except Exception:  # nothing to compare with: dynamics that diverge with the weights that were moved, say
            return True
        if not all(g.isfinite().all() for truth in truths for g in truth.values()):
            return True  # the run will say so
        try:
            if path == "forward":
                return all(self._slopes_agree(images, truth, seed) for truth, seed in zip(truths, SEEDS, strict=True))
            gradient = PerImage(self.twin, self.names, path, images[:1], seeds=SEEDS)
            return all(self._same(gradient(images, [s]), truth) for truth, s in zip(truths, SEEDS, strict=True))
        except Exception:  # whatever it is, it is the path's doing: the loop has just gone through
            return False

    def _same(self, gradients: dict, truth: dict[str, Tensor]) -> bool:
        formed = {name: g if isinstance(g, Tensor) else g.form() for name, g in gradients.items()}
        largest = max(float(g.abs().max()) for g in truth.values())
        return all(self._close(formed[name], g.reshape(len(g), -1), largest) for name, g in truth.items())

    def _slopes_agree(self, images: Tensor, truth: dict[str, Tensor], seed: int) -> bool:
        with seeded(seed, images.device):
            direction = {name: torch.randn_like(g[0]) for name, g in truth.items()}
        expected = torch.stack([(g * direction[name]).reshape(len(g), -1).sum(1) for name, g in truth.items()]).sum(0)
        length = float(torch.stack([g.reshape(len(g), -1).square().sum(1) for g in truth.values()]).sum(0).sqrt().max())
        return self._close(directional(self.twin, images, direction, seed), expected, length)

    def _close(self, came: Tensor, expected: Tensor, scale: float) -> bool:
        """Entry by entry; what is small beside `scale` may be all rounding."""
        rtol, floor = (1e-6, 1e-9) if self.exact else (10 * torch.finfo(came.dtype).eps ** 0.5, 3e-6)
        return torch.allclose(came, expected, rtol=rtol, atol=floor * scale)

    def _parameters(self) -> dict[str, Tensor]:
        parameters = dict(self.twin.named_parameters())
        return {name: parameters[name] for name in self.names}
