"""What must hold of an objective that is taken for one image at a time, tried out on a few images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Measured = Callable[[Tensor, int], Sequence[Tensor]]


def probes(images: Tensor, n: int) -> Tensor:
    """Random images `[n, *image]` in the range of `images`: those of a data set may be blank, or all the same."""
    low, high = images.aminmax()
    if not high > low:
        low, high = (low * 0, low * 0 + 1) if 0 <= low <= 1 else (low, low + 1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(n, *images.shape[1:], generator=generator, dtype=torch.float32).to(images)
    return low + (high - low) * noise


def check_one_by_one(measured: Measured, images: Tensor) -> None:
    """Refuse an objective whose value for one image means nothing by itself.

    Args:
        measured: From a batch `[B, *image]` and a seed to tensors that belong to the batch's first image alone, such as
            the objective there and its gradients.
        images: Any images that the objective takes, `[n, *image]`.

    Raises:
        ValueError: They change with the other images of the batch, or from one call to the next with the same seed.
    """
    x = probes(images, 7)
    for seed in range(2):
        once, again, beside_others = (measured(x[rows], seed) for rows in ([0, 1, 2, 3],) * 2 + ([0, 4, 5, 6],))
        if not _same(once, again):
            raise ValueError(
                "objective: expected noise of torch's default generators alone, so that it can be repeated; got "
                "another value from the same seed (noise of numpy, or of a generator of its own?)"
            )
        if not _same(once, beside_others):
            raise ValueError(
                "objective: expected a value for each image by itself, got one that depends on the other images of the "
                "batch (a total correlation, a covariance of codes, batch normalisation without running statistics?); "
                "taken one image at a time it would be another objective"
            )


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Up to rounding; what is NaN is for others to tell."""
    finite = all(t.isfinite().all() for t in (*a, *b))
    return not finite or all(
        float((s - t).abs().max()) <= 1e-4 * max(float(s.abs().max()), 1e-6) for s, t in zip(a, b, strict=True)
    )
