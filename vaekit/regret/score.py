r"""Likelihood regret: how much the bound of one image gains when the encoder is fitted to that image alone."""

from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.bounds import elbo
from vaekit.model import VAE
from vaekit.regret.evaluation import Evaluation, Objective, check_bound
from vaekit.regret.frozen import frozen
from vaekit.training.objectives import private_copy
from vaekit.training.seeding import seeded


def likelihood_regret(
    model: VAE,
    x: Tensor,
    *,
    bound: Objective = elbo,
    adapt: Literal["encoder", "posterior"] = "encoder",
    steps: int = 100,
    lr: float | None = None,
    samples: int = 32,
    objective: Objective | None = None,
    seed: int = 0,
    chunk: int | None = None,
    memory: int | None = None,
    progress: bool = True,
) -> Tensor:
    r"""The likelihood regret of each image: the higher, the more out of distribution.

    $$\mathrm{LR}(x) = \mathcal L(x; \theta, \phi_x) - \mathcal L(x; \theta, \phi), \qquad
      \phi_x = \text{a few steps of Adam on } \mathcal L(x; \theta, \cdot) \text{ from } \phi,$$

    with the decoder $\theta$ fixed. For the ELBO $\log p_\theta(x)$ cancels and the regret is the posterior gap that
    the steps close, $\mathrm{KL}(q_\phi \| p_\theta(z|x)) - \mathrm{KL}(q_{\phi_x} \| p_\theta(z|x))$. `bound`,
    `adapt`, `steps` and `lr` are all part of the score: scores made with different ones do not compare. In particular
    the regret of `importance_bound` fades as `samples` grow, for it tightens to $\log p_\theta(x)$ on either side.

    Every image has weights of its own, and they are all fitted in one batched computation. Both terms see the same
    noise, which follows from `seed` and the image's pixels: a score depends neither on what else is in the batch nor on
    `chunk`, and the errors of different images' scores are independent. (The steps' noise is shared by all images.)

    Args:
        model: The model, left as it was; a copy of it in evaluation mode is fitted.
        x: Images `[B, *image]`.
        bound: $\mathcal L$, called as `bound(model, x, samples=...) -> [B]`: `elbo`, `importance_bound`, a
            `HamiltonianBound`, ... Where it has parameters they stay fixed.
        adapt: `"encoder"`, the paper's score: $\phi$ is the encoder's weights. `"posterior"`, a cheap variant: $\phi$
            is the mean and log standard deviation of $q(z|x)$ themselves, and the encoder runs once. What the encoder
            shares with the decoder is adapted in the encoder alone.
        steps: Steps of Adam, at least 0.
        lr: Their learning rate; by default the paper's 2e-4 for `"encoder"` and 2e-2 for `"posterior"`.
        samples: Draws of z for the bound before and after, at least 1.
        objective: What the steps climb, each with one fresh draw; by default `bound`.
        seed: Of the noise.
        chunk: Images fitted at once; by default as many as fit into `memory`.
        memory: Bytes that a pass may take; by default half of a GPU's free memory, or 1 GiB on a CPU. Where the draws
            of one image take more they are decoded a few at a time, unless the bound takes gradients inside.
        progress: Show a bar.

    Returns:
        `[B]`, in nats.

    Raises:
        ValueError: Bad images or numbers, an unknown `adapt`, or a bound whose value for one image depends on others.
        FloatingPointError: A bound became NaN or infinite; the message names the images.

    References:
        Xiao, Yan & Amit, "Likelihood Regret", NeurIPS 2020, https://arxiv.org/abs/2003.02977. Their code climbs `elbo`
        and scores with `importance_bound` of 1000 samples; it has no `"posterior"`.

    Example:
        >>> from vaekit import VAE, likelihood_regret, mlp
        >>> model = VAE(*mlp((1, 8, 8), latent_dim=2), latent_dim=2)
        >>> likelihood_regret(model, torch.rand(5, 1, 8, 8), steps=10, progress=False).shape
        torch.Size([5])
    """
    if adapt not in ("encoder", "posterior"):
        raise ValueError(f"adapt: expected 'encoder' or 'posterior', got {adapt!r}")
    checks.model(model)
    checks.function(bound, "bound")
    checks.images(x)
    checks.count(seed, 0, "seed")
    checks.count(steps, 0, "steps")
    checks.count(samples, 1, "samples")
    lr = {"encoder": 2e-4, "posterior": 2e-2}[adapt] if lr is None else lr
    checks.positive(lr, "lr")
    if memory is not None:
        checks.count(memory, 1, "memory")
    if chunk is not None:
        checks.count(chunk, 1, "chunk")
    device = next(model.parameters()).device
    model, (bound, climb) = private_copy(model, (bound, objective or bound))
    model.eval()
    model.check_images(x)  # now, not after an hour: under vmap no value can be seen
    model.decoder = frozen(model.decoder)
    for each in dict.fromkeys((bound, climb)):
        check_bound(model, each, x[:1].to(device))
    scored, climbed = Evaluation(model, bound, samples, adapt), Evaluation(model, climb, 1, adapt)
    gains = []
    with tqdm(total=len(x) * steps, unit="step", disable=not progress) as bar, checks.trusted(), torch.no_grad():
        at_once = [evaluation.fit_into(memory, x[:1].to(device)) for evaluation in (scored, climbed)]
        for images in x.split(chunk or at_once[1]):
            images = images.to(device)
            weights = climbed.initial_weights(images)
            before = scored.values(weights, images, seed, chunk or at_once[0])
            # elementwise, so one Adam for each image
            optimizer = torch.optim.Adam(weights.values(), lr=lr, maximize=True, fused=True)
            with seeded(seed + 1, device):
                for _ in range(steps):
                    for name, gradient in climbed.gradients(weights, images).items():
                        weights[name].grad = gradient
                    optimizer.step()
                    bar.update(len(images))
            gains.append(scored.values(weights, images, seed, chunk or at_once[0]) - before)
    regret = torch.cat(gains)
    if not regret.isfinite().all():
        lost = regret.isfinite().logical_not().nonzero().flatten().tolist()
        raise FloatingPointError(f"the bound became NaN or infinite for images {lost}; try a smaller lr (now {lr})")
    return regret
