r"""Scores that say how far an image is from what a model was trained on, beside the likelihood regret.

Every score is `[B]`, in nats, and the higher, the more out of distribution.
"""

import io
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from vaekit import checks
from vaekit.bounds import elbo, log_evidence, log_weight
from vaekit.model import VAE

Codec = Literal["png", "jpeg2000"]


def negative_log_likelihood(
    model: VAE, x: Tensor, *, samples: int = 1000, log_weight: Callable[..., Tensor] = log_weight, chunk: int = 10_000
) -> Tensor:
    r"""$-\log p_\theta(x)$, estimated by importance sampling: the score that one would expect to work.

    Args:
        model: The model.
        x: Images `[B, *image]`.
        samples: Importance samples per image, at least 1.
        log_weight: As for `vaekit.log_evidence`.
        chunk: As there: images times samples to take at once.

    Returns:
        `[B]`, in nats.

    Raises:
        ValueError: Bad images or `samples` below 1.

    References:
        Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?", ICLR 2019,
        https://arxiv.org/abs/1810.09136 (on why it does not).
    """
    return -log_evidence(model, x, samples=samples, log_weight=log_weight, chunk=chunk)


def likelihood_ratio(
    model: VAE, background: VAE, x: Tensor, *, samples: int = 1000, chunk: int = 10_000
) -> Tensor:
    r"""$\log p_{\text{background}}(x) - \log p_\theta(x)$: what the model knows beyond the look of single pixels.

    The background model is trained on `mutated` images, in which the small-scale statistics survive and the meaning
    does not: `fit(background, mutated(elbo), images, ...)`.

    Args:
        model: The model.
        background: The same architecture, trained on mutated images.
        x: Images `[B, *image]`.
        samples: Importance samples per image and model, at least 1.
        chunk: As for `vaekit.log_evidence`: images times samples to take at once.

    Returns:
        `[B]`, in nats: minus the ratio of the paper, which is high for what is in distribution.

    Raises:
        ValueError: Bad images or `samples` below 1.

    References:
        Ren et al., "Likelihood Ratios for Out-of-Distribution Detection", NeurIPS 2019, eq. 5,
        https://arxiv.org/abs/1906.02845.

    Example:
        >>> from vaekit import VAE, fit, mlp
        >>> images = torch.rand(64, 1, 8, 8)
        >>> model, background = (VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2) for _ in range(2))
        >>> _ = fit(model, elbo, images, epochs=1, device="cpu", progress=False)
        >>> _ = fit(background, mutated(elbo, rate=0.2), images, epochs=1, device="cpu", progress=False)
        >>> likelihood_ratio(model, background, images[:5], samples=10).shape
        torch.Size([5])
    """
    checks.model(background, "background")
    log_p_background, log_p = (log_evidence(m, x, samples=samples, chunk=chunk) for m in (background, model))
    return log_p_background - log_p


def input_complexity(
    model: VAE, x: Tensor, *, codec: Codec = "png", samples: int = 1000, chunk: int = 10_000
) -> Tensor:
    r"""$-\log p_\theta(x) - L(x)$, with the length $L$ of a lossless code: a simple image owes its likelihood to it.

    Both terms are in nats. They measure the same thing, the cost of the 256 grey levels, under `categorical256`; under
    `bernoulli` the first is a cost of binarised pixels, and the difference no longer has a meaning of its own.

    Args:
        model: The model.
        x: Images `[B, 1 or 3, H, W]` in [0, 1].
        codec: `"png"` or `"jpeg2000"`.
        samples: Importance samples per image, at least 1.
        chunk: As for `vaekit.log_evidence`: images times samples to take at once.

    Returns:
        `[B]`, in nats.

    Raises:
        ValueError: Bad images, `samples` below 1 or an unknown codec.

    References:
        Serrà et al., "Input Complexity and Out-of-distribution Detection with Likelihood-based Generative Models", ICLR
        2020, https://arxiv.org/abs/1909.11480.
    """
    checks.model(model)
    length = code_length(x, codec=codec)  # first: it refuses at once what log_evidence would meet late
    return -log_evidence(model, x, samples=samples, chunk=chunk) - length.to(next(model.parameters()).device)


def code_length(x: Tensor, *, codec: Codec = "png") -> Tensor:
    r"""Length of each image's file under a lossless codec: `[B]`, in nats (8 ln 2 a byte), the file's header included.

    Args:
        x: Images `[B, 1 or 3, H, W]` in [0, 1], rounded to 256 levels.
        codec: `"png"` or `"jpeg2000"`.

    Raises:
        ValueError: Not such images, or another codec.

    Example:
        >>> flat, noise = torch.zeros(1, 1, 28, 28), torch.rand(1, 1, 28, 28)
        >>> bool(code_length(flat) < code_length(noise))
        True
    """
    formats: dict[str, dict[str, Any]] = {
        "png": {"format": "PNG", "optimize": True},
        "jpeg2000": {"format": "JPEG2000", "irreversible": False},
    }
    if codec not in formats:
        raise ValueError(f"codec: expected one of {', '.join(formats)}, got {codec!r}")
    checks.images(x, unit_range=True)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x: expected images [B, 1 or 3, H, W], got shape {tuple(x.shape)}")
    from PIL import Image

    levels = (x * 255).round().to(torch.uint8).movedim(1, -1).squeeze(-1).cpu().numpy()  # [B, H, W] or [B, H, W, 3]
    lengths = []
    for pixels in levels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, **formats[codec])
        lengths.append(8 * math.log(2) * file.tell())
    return torch.tensor(lengths, dtype=x.dtype, device=x.device)


def mutated(bound: Callable[..., Tensor] = elbo, *, rate: float = 0.2) -> Callable[..., Tensor]:
    r"""The objective of a background model for `likelihood_ratio`: `bound` of images with some pixels replaced.

    Each pixel is replaced, with probability `rate`, by one of the 256 grey levels drawn at random; anew at each call.

    Args:
        bound: Any objective `(model, x, **options) -> [B]`.
        rate: From 0 to 1.

    Raises:
        ValueError: `rate` outside [0, 1].

    References:
        Ren et al., NeurIPS 2019, section 3, https://arxiv.org/abs/1906.02845.
    """
    checks.function(bound, "bound")
    checks.at_least(rate, 0, "rate")
    if rate > 1:
        raise ValueError(f"rate: expected a probability from 0 to 1, got {rate}")

    def objective(model: VAE, x: Tensor, **options: float) -> Tensor:
        replaced = torch.rand_like(x) < rate
        return bound(model, torch.where(replaced, torch.randint_like(x, 256) / 255, x), **options)

    return objective
