"""How much of its code a model uses: active units, and what the code says about the image."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit import checks
from vaekit.metrics.detection import mean_and_standard_error
from vaekit.model import VAE, evaluating, independent


class ActiveUnits(NamedTuple):
    """How many latent variables are in use, and the variance over images of each one's posterior mean, `[D]`."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    variance: Tensor


class Information(NamedTuple):
    """What a code says about which image it came from, in nats; never more than `ceiling`, which is log N."""

    nats: float
    standard_error: float
    ceiling: float


@torch.no_grad()
def active_units(model: VAE, x: Tensor, *, threshold: float = 0.01) -> ActiveUnits:
    r"""Latent variables whose posterior mean moves with the image: $\operatorname{Var}_x(\mu_d(x)) >$ `threshold`.

    Args:
        model: The model; it is put in evaluation mode for the while.
        x: Images `[N, *image]`, N at least 2, on any device; they move to the model's in pieces.
        threshold: At least 0.

    Raises:
        ValueError: Bad images, fewer than 2 of them, or a negative threshold.

    References:
        Burda, Grosse & Salakhutdinov, ICLR 2016, section 5.2, https://arxiv.org/abs/1509.00519.
    """
    checks.at_least(threshold, 0, "threshold")
    mean, _ = _moments(model, x)
    checks.count(len(mean), 2, "x: number of images")
    variance = mean.var(0)  # [D]
    return ActiveUnits(int((variance > threshold).sum()), variance)


@torch.no_grad()
def mutual_information(
    model: VAE, x: Tensor, *, samples: int = 1, drawn: int | None = None, chunk: int = 4_000_000
) -> Information:
    r"""What z says about which of the N images it was drawn for, against the aggregate posterior over these images:

    $$I_q(x; z) = \tfrac1N \sum_n \mathrm{KL}\big(q(z \mid x_n) \,\|\, p(z)\big) - \mathrm{KL}\big(q(z) \,\|\, p(z)\big)
      = \tfrac1N \sum_n \mathbb E_{q(z \mid x_n)}\!\big[\log q(z \mid x_n) - \log q(z)\big],
      \qquad q(z) = \tfrac1N \sum_m q(z \mid x_m).$$

    The mean over draws is unbiased for these N images. As an estimate for the *population* that they come from it is
    biased low and can never exceed $\log N$: near that ceiling it says "at least", no more.

    Args:
        model: The model; it is put in evaluation mode for the while.
        x: Images `[N, *image]`, on any device; they move to the model's in pieces.
        samples: S, draws of z per image, at least 1. Time grows as $S N^2 D$.
        drawn: Codes are drawn for the first so many images only, 2 or more, and judged against all N of them; by
            default for all. The ceiling stays, and time grows as $S N D$ times this.
        chunk: How many (draw, image) pairs are held at once; the memory needed is proportional to it.

    Returns:
        The estimate, its standard error over images, and $\log N$; in nats.

    Raises:
        ValueError: Bad images, `samples` or `chunk` below 1, `drawn` below 2 or above N.

    References:
        Hoffman & Johnson, "ELBO surgery", NeurIPS workshop 2016,
        http://approximateinference.org/accepted/HoffmanJohnson2016.pdf.
    """
    checks.count(samples, 1, "samples")
    checks.count(chunk, 1, "chunk")
    mean, std = _moments(model, x)  # [N, D]
    n, drawn = len(mean), len(mean) if drawn is None else drawn
    checks.count(drawn, min(2, n), "drawn")
    if drawn > n:
        raise ValueError(f"drawn: expected at most the number of images, {n}, got {drawn}")
    precision = std**-2
    constant = (mean**2 * precision).sum(-1) + 2 * std.log().sum(-1)  # [N]; the terms in 2 pi cancel in the end
    total = torch.zeros(drawn, dtype=mean.dtype, device=mean.device)
    for rows in torch.arange(drawn, device=mean.device).split(max(1, chunk // n)):
        for _ in range(samples):
            z = mean[rows] + std[rows] * torch.randn_like(mean[rows])  # [R, D]
            # the square written out, so that no [R, N, D] is ever made; in double precision it cancels harmlessly
            log_q = -0.5 * (z**2 @ precision.T - 2 * z @ (mean * precision).T + constant)  # [R, N]
            own = log_q.gather(1, rows[:, None]).squeeze(1)
            total[rows] += own - (log_q.logsumexp(1) - math.log(n))
    return Information(*mean_and_standard_error(total / samples), math.log(n))


def _moments(model: VAE, x: Tensor, batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Posterior means and standard deviations `[N, D]` in double precision."""
    checks.model(model)
    checks.images(x)
    device = next(model.parameters()).device
    with evaluating(model):
        parts = [independent(model.posterior(images.to(device))) for images in x.split(batch)]
    where = torch.device("cpu") if device.type == "mps" else device  # MPS has no double precision
    mean, std = torch.cat([q.mean for q in parts]), torch.cat([q.stddev for q in parts])
    return mean.to(where).double(), std.to(where).double()
