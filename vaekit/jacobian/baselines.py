r"""Objectives from the literature on disentanglement: the ELBO with another treatment of its KL term or its codes.

All act through the aggregated posterior $q(z) = \tfrac1N \sum_n q_\phi(z \mid x_n)$, which a batch estimates; so their
value for one image depends on the batch that it comes in. The beta-VAE is `elbo(model, x, beta=...)`.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaekit import checks
from vaekit.model import VAE, independent


def beta_tcvae(model: VAE, x: Tensor, *, dataset_size: int, beta: float) -> Tensor:
    r"""The ELBO with weight $\beta$ on one of the three parts of its KL term, the total correlation.

    $$\mathbb E_x \mathrm{KL}\big(q_\phi(z \mid x) \,\|\, p(z)\big) =
      \underbrace{\mathbb E \log \frac{q_\phi(z \mid x)}{q(z)}}_{\text{index-code information}}
      + \underbrace{\mathbb E \log \frac{q(z)}{\prod_i q(z_i)}}_{\text{total correlation}}
      + \underbrace{\sum_i \mathbb E \log \frac{q(z_i)}{p(z_i)}}_{\text{dimension-wise KL}}$$

    with $q(z)$ and $q(z_i)$ from the batch, by minibatch-weighted sampling:
    $\log q(z_b) \approx \log \tfrac{1}{NB} \sum_c q_\phi(z_b \mid x_c)$.

    Args:
        model: The model.
        x: Images `[B, *image]`, a batch of the training set.
        dataset_size: N, images in the training set, at least 1.
        beta: Weight of the total correlation, at least 0; at 1 this is the ELBO, estimated with one draw of z.

    Returns:
        `[B]`, in nats.

    Raises:
        ValueError: Bad images, or a number out of range.

    References:
        Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS 2018,
        https://arxiv.org/abs/1802.04942.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> beta_tcvae(model, torch.rand(5, 1, 8, 8), dataset_size=100, beta=4.0).shape
        torch.Size([5])
    """
    checks.count(dataset_size, 1, "dataset_size")
    checks.at_least(beta, 0, "beta")
    checks.model(model)
    q_z_x = model.posterior(x)
    independent(q_z_x)
    z = q_z_x.rsample()  # [B, D]
    log_p_z, log_q_z_x = model.prior.log_prob(z), q_z_x.log_prob(z)
    log_q_zi_x = q_z_x.base_dist.log_prob(z[:, None])  # [B, B, D], the latents of b under the posterior of c
    log_nb = math.log(dataset_size * len(x))
    log_q_z = log_q_zi_x.sum(-1).logsumexp(1) - log_nb  # [B]
    log_prod_q_zi = (log_q_zi_x.logsumexp(1) - log_nb).sum(-1)  # [B]
    information, total_correlation = log_q_z_x - log_q_z, log_q_z - log_prod_q_zi
    dimension_wise = log_prod_q_zi - log_p_z
    return model.log_likelihood(x, z) - information - beta * total_correlation - dimension_wise


class FactorVAE(nn.Module):
    r"""The ELBO less a multiple of the total correlation of the codes, which a discriminator estimates.

    A network $D$ tells codes drawn from $q(z)$ from codes whose entries are shuffled over the batch, each by itself, as
    if drawn from $\prod_i q(z_i)$. Its logit is then the log-ratio of the two, and the objective is

    $$\mathcal L(x) - \gamma\, \operatorname{logit} D(z), \qquad z \sim q_\phi(z \mid x).$$

    `fit` trains the discriminator in the same step and with the same learning rate: its own cross-entropy is added with
    value 0, so that the nats returned are those of the formula. The model gets no gradient from the cross-entropy, and
    the discriminator none from the formula.

    Args:
        latent_dim: D of the model.
        weight: $\gamma$, at least 0.
        hidden: Width of the discriminator's hidden layers.
        layers: Number of hidden layers, at least 1.

    References:
        Kim & Mnih, "Disentangling by Factorising", ICML 2018, https://arxiv.org/abs/1802.05983. There the discriminator
        has an optimiser of its own and sees a second batch.

    Example:
        >>> from vaekit import VAE, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> FactorVAE(2, weight=30.0, hidden=16)(model, torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(self, latent_dim: int, *, weight: float, hidden: int = 1000, layers: int = 6) -> None:
        """See the class."""
        super().__init__()
        for name, value in {"latent_dim": latent_dim, "hidden": hidden, "layers": layers}.items():
            checks.count(value, 1, name)
        checks.at_least(weight, 0, "weight")
        widths = [latent_dim] + [hidden] * layers
        stack: list[nn.Module] = []
        for before, after in pairwise(widths):
            stack += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*stack, nn.Linear(hidden, 1))
        self.weight = weight

    def forward(self, model: VAE, x: Tensor, *, weight: float | None = None) -> Tensor:
        """Nats per image `[B]`; `weight` in place of the one set above."""
        gamma = self.weight if weight is None else weight
        checks.at_least(gamma, 0, "weight")
        checks.model(model)
        q_z_x = model.posterior(x)
        z = q_z_x.rsample()  # [B, D]
        bound = model.log_likelihood(x, z) - kl_divergence(q_z_x, model.prior)
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        log_ratio = torch.func.functional_call(self.discriminator, frozen, (z,))[:, 0]  # [B]
        codes = z.detach()
        shuffled = codes.gather(0, torch.rand_like(codes).argsort(0))  # each entry by its own permutation
        success = F.logsigmoid(self.discriminator(codes)) + F.logsigmoid(-self.discriminator(shuffled))
        return bound - gamma * log_ratio + (success - success.detach())[:, 0] / 2


def dip_vae(model: VAE, x: Tensor, *, off_diagonal: float, diagonal: float, kind: str = "i") -> Tensor:
    r"""The ELBO less the squared distance of the codes' covariance from the identity ("disentangled inferred prior").

    $$\mathcal L(x) - \lambda_\text{od} \sum_{i \ne j} C_{ij}^2 - \lambda_\text{d} \sum_i (C_{ii} - 1)^2$$

    with $C = \operatorname{Cov}_x[\mu_\phi(x)]$ for DIP-VAE-I, and for DIP-VAE-II the covariance of $q(z)$ itself,
    $C = \operatorname{Cov}_x[\mu_\phi(x)] + \mathbb E_x \operatorname{diag}\sigma_\phi(x)^2$, both over the batch.

    Args:
        model: The model.
        x: Images `[B, *image]`.
        off_diagonal: $\lambda_\text{od}$, at least 0.
        diagonal: $\lambda_\text{d}$, at least 0.
        kind: "i" or "ii".

    Returns:
        `[B]`, in nats; the penalty is the same for all images of a batch.

    Raises:
        ValueError: Bad images, a weight below 0, or another `kind`.

    References:
        Kumar, Sattigeri & Balakrishnan, "Variational Inference of Disentangled Latent Concepts from Unlabeled
        Observations", ICLR 2018, https://arxiv.org/abs/1711.00848.
    """
    checks.at_least(off_diagonal, 0, "off_diagonal")
    checks.at_least(diagonal, 0, "diagonal")
    if kind not in ("i", "ii"):
        raise ValueError(f"kind: expected 'i' or 'ii', got {kind!r}")
    checks.model(model)
    q_z_x = model.posterior(x)
    bound = model.log_likelihood(x, q_z_x.rsample()) - kl_divergence(q_z_x, model.prior)
    centred = q_z_x.mean - q_z_x.mean.mean(0)  # [B, D]
    covariance = centred.T @ centred / len(x)  # [D, D]
    if kind == "ii":
        covariance = covariance + q_z_x.variance.mean(0).diag_embed()
    variances = covariance.diagonal()
    others = covariance.square().sum() - variances.square().sum()
    return bound - off_diagonal * others - diagonal * (variances - 1).square().sum()


def annealed_capacity(model: VAE, x: Tensor, *, capacity: float, weight: float) -> Tensor:
    r"""A reconstruction term and a KL term that is held at a given value, which training raises.

    $$\mathbb E_{q_\phi(z \mid x)} \log p_\theta(x \mid z) -
      \gamma\, \big\lvert \mathbb E_x \mathrm{KL}\big(q_\phi(z \mid x) \,\|\, p(z)\big) - C \big\rvert$$

    with the mean KL over the batch. `fit(..., schedules={"capacity": linear(0, 25, steps)})` raises C.

    Args:
        model: The model.
        x: Images `[B, *image]`.
        capacity: C in nats, at least 0.
        weight: $\gamma$, at least 0.

    Returns:
        `[B]`, in nats.

    References:
        Burgess et al., "Understanding disentangling in beta-VAE", 2018, https://arxiv.org/abs/1804.03599.
    """
    checks.at_least(capacity, 0, "capacity")
    checks.at_least(weight, 0, "weight")
    checks.model(model)
    q_z_x = model.posterior(x)
    kl = kl_divergence(q_z_x, model.prior).mean()
    return model.log_likelihood(x, q_z_x.rsample()) - weight * (kl - capacity).abs()
