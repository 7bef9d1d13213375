r"""Lower bounds on the log evidence log p(x), and unbiased estimates of the evidence itself.

Every bound here is an *objective*: a callable `(model, x) -> Tensor[B]`, per image, in nats, to be maximised.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vaekit import checks
from vaekit.model import VAE, evaluating

LogWeight = Callable[..., Tensor]


def elbo(model: VAE, x: Tensor, *, beta: float = 1.0, samples: int = 1) -> Tensor:
    r"""The evidence lower bound, with the KL term in closed form.

    $$\mathcal L(x) = \mathbb E_{q_\phi(z \mid x)}\big[\log p_\theta(x \mid z)\big]
      - \beta\, \mathrm{KL}\big(q_\phi(z \mid x) \,\|\, p(z)\big) \;\le\; \log p_\theta(x) \quad (\beta \ge 1).$$

    The expectation is a mean over `samples` reparameterised draws.

    Args:
        model: The model.
        x: Images `[B, *image]`.
        beta: Weight $\beta$ of the KL term, at least 0; 1 gives the ELBO, more the $\beta$-VAE's objective.
        samples: Draws of z per image, at least 1.

    Returns:
        `[B]`, in nats.

    Raises:
        ValueError: Bad images, `beta` below 0 or `samples` below 1.

    References:
        Kingma & Welling, ICLR 2014, eq. 7, https://arxiv.org/abs/1312.6114;
        Higgins et al., "beta-VAE", ICLR 2017, eq. 4, https://openreview.net/forum?id=Sy2fzU9gl.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> elbo(model, torch.rand(5, 1, 8, 8).round()).shape
        torch.Size([5])
    """
    checks.model(model)
    checks.at_least(beta, 0, "beta")
    checks.count(samples, 1, "samples")
    q_z = model.posterior(x)
    z = q_z.rsample((samples,))  # [S, B, D]
    log_p_x_z = model.log_likelihood(x, z).mean(0)  # [B]
    return log_p_x_z - beta * kl_divergence(q_z, model.prior)


def log_weight(model: VAE, x: Tensor, *, samples: int) -> Tensor:
    r"""Logarithms of unbiased estimates of the evidence.

    $$\log w_s = \log p_\theta(x, z_s) - \log q_\phi(z_s \mid x), \quad z_s \sim q_\phi(z \mid x),
      \qquad \mathbb E[w_s] = p_\theta(x).$$

    Args:
        model: The model.
        x: Images `[B, *image]`.
        samples: S, draws of z per image, at least 1.

    Returns:
        `[S, B]`, in nats.

    Raises:
        ValueError: Bad images or `samples` below 1.
    """
    checks.count(samples, 1, "samples")
    checks.model(model)
    q_z = model.posterior(x)
    z = q_z.rsample((samples,))  # [S, B, D]
    return model.log_joint(x, z) - q_z.log_prob(z)


def importance_bound(model: VAE, x: Tensor, *, samples: int) -> Tensor:
    r"""The importance-weighted bound: tighter than the ELBO, and the tighter the more samples.

    $$\mathcal L_S(x) = \mathbb E\Big[\log \tfrac1S \sum_{s=1}^S w_s\Big], \qquad
      \mathcal L_1 \le \mathcal L_S \le \mathcal L_{S+1} \le \log p_\theta(x).$$

    Args, returns and errors as for `log_weight`, but the shape is `[B]`.

    References:
        Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, eq. 8 and theorem 1,
        https://arxiv.org/abs/1509.00519.
    """
    return log_mean_exp(log_weight(model, x, samples=samples))


def log_mean_exp(values: Tensor) -> Tensor:
    r"""$\log \tfrac1S \sum_s e^{v_s}$ over the first dimension, without overflow."""
    return values.logsumexp(0) - math.log(values.shape[0])


@torch.no_grad()
def log_evidence(
    model: VAE, x: Tensor, *, samples: int = 1000, log_weight: LogWeight = log_weight, chunk: int = 10_000
) -> Tensor:
    r"""Importance-sampling estimate of $\log p_\theta(x)$: `importance_bound` with many samples, in bounded memory.

    A lower bound in expectation, whose gap shrinks as $\operatorname{Var}(w) / (2 S\, p(x)^2)$ to leading order.

    Args:
        model: The model; it is put in evaluation mode for the while.
        x: Images `[N, *image]`, on any device; they move to the model's in pieces.
        samples: S, weights per image, at least 1.
        log_weight: `(model, x, *, samples) -> [S, B]`, logarithms of unbiased estimates of p(x). A bound with a better
            proposal brings its own, such as `HamiltonianBound.log_weight`.
        chunk: How many (sample, image) pairs are decoded at once; the memory needed is proportional to it.

    Returns:
        `[N]`, in nats, on the model's device.

    Raises:
        ValueError: Bad images, `samples` or `chunk` below 1.

    References:
        Burda et al., ICLR 2016, section 5, https://arxiv.org/abs/1509.00519; Rezende et al., ICML 2014, appendix E.
    """
    checks.model(model)
    checks.function(log_weight, "log_weight")
    checks.images(x)
    checks.count(samples, 1, "samples")
    checks.count(chunk, 1, "chunk")
    device = next(model.parameters()).device
    with evaluating(model):
        per_pass = min(samples, chunk)  # samples drawn at once for each image of a batch
        batch = max(1, chunk // per_pass)
        estimates = []
        for images in x.split(batch):
            images = images.to(device)
            total = torch.full((len(images),), -math.inf, dtype=images.dtype, device=device)
            for start in range(0, samples, per_pass):
                weights = log_weight(model, images, samples=min(per_pass, samples - start))  # [S', B]
                total = torch.logaddexp(total, weights.logsumexp(0))
            estimates.append(total - math.log(samples))
    return torch.cat(estimates)
