r"""Likelihood regret: how much the bound of one image gains when the encoder is fitted to that image alone."""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.bounds import elbo
from vaekit.model import VAE
from vaekit.regret.per_image import Moments, PerImage
from vaekit.training.seeding import seeded

Objective = Callable[..., Tensor]
Weights = dict[str, Tensor]

CPU_MEMORY = 2**30  # bytes that a chunk may take where the device does not say how much is free


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
    progress: bool = True,
) -> Tensor:
    r"""The likelihood regret of each image: the higher, the more out of distribution.

    $$\mathrm{LR}(x) = \mathcal L(x; \theta, \phi_x) - \mathcal L(x; \theta, \phi), \qquad
      \phi_x = \text{a few steps of Adam on } \mathcal L(x; \theta, \cdot) \text{ from } \phi,$$

    with the decoder $\theta$ fixed. For the ELBO $\log p_\theta(x)$ cancels and the regret is the posterior gap that
    the steps close, $\mathrm{KL}(q_\phi \| p_\theta(z|x)) - \mathrm{KL}(q_{\phi_x} \| p_\theta(z|x))$. `bound`,
    `adapt`, `steps` and `lr` are all part of the score: scores made with different ones do not compare. In particular
    the regret of `importance_bound` fades as `samples` grow, for it tightens to $\log p_\theta(x)$ on either side.

    Every image has weights of its own, and they are all fitted in one batched computation. All images, and both terms,
    see the same noise: a score depends neither on what else is in the batch nor on `chunk`.

    Args:
        model: The model, left as it was; it is in evaluation mode for the while.
        x: Images `[B, *image]`.
        bound: $\mathcal L$, called as `bound(model, x, samples=...) -> [B]`: `elbo`, `importance_bound`, a
            `HamiltonianBound`, ... Where it has parameters they stay fixed.
        adapt: `"encoder"`, the paper's score: $\phi$ is the encoder's weights. `"posterior"`, a cheap variant: $\phi$
            is the mean and log standard deviation of $q(z|x)$ themselves, and the encoder runs once.
        steps: Steps of Adam, at least 0.
        lr: Their learning rate; by default the paper's 2e-4 for `"encoder"` and 2e-2 for `"posterior"`.
        samples: Draws of z for the bound before and after, at least 1.
        objective: What the steps climb, each with one fresh draw; by default `bound`.
        seed: Of the noise.
        chunk: Images fitted at once; by default as many as fit in half of a GPU's free memory, or in 1 GiB on a CPU.
        progress: Show a bar.

    Returns:
        `[B]`, in nats.

    Raises:
        ValueError: Bad images or numbers, or an unknown `adapt`.
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
    checks.images(x)
    checks.at_least(steps, 0, "steps")
    checks.at_least(samples, 1, "samples")
    lr = {"encoder": 2e-4, "posterior": 2e-2}[adapt] if lr is None else lr
    checks.positive(lr, "lr")
    if chunk is not None:
        checks.at_least(chunk, 1, "chunk")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), seeded(seed, device):
            checks.images(x, shape=tuple(model.likelihood(model.prior.rsample((1,))).event_shape))
            for images in x.split(500):  # refuse a bad image now, not after an hour: under vmap no value can be seen
                images = images.to(device)
                model.log_likelihood(images, model.posterior(images).rsample())
        scored, climbed = _Evaluation(model, bound, samples, adapt), _Evaluation(model, objective or bound, 1, adapt)
        at_once = [chunk or evaluation.images_at_once(x[:1]) for evaluation in (scored, climbed)]
        gains = []
        with tqdm(total=len(x) * steps, unit="step", disable=not progress) as bar, checks.trusted(), torch.no_grad():
            for images in x.split(at_once[1]):
                images = images.to(device)
                weights = climbed.initial_weights(images)
                before = scored.seeded_values(weights, images, seed, at_once[0])
                # elementwise, so one Adam for each image
                optimizer = torch.optim.Adam(weights.values(), lr=lr, maximize=True, fused=True)
                with seeded(seed + 1, device):
                    for _ in range(steps):
                        for name, gradient in climbed.gradients(weights, images).items():
                            weights[name].grad = gradient
                        optimizer.step()
                        bar.update(len(images))
                gains.append(scored.seeded_values(weights, images, seed, at_once[0]) - before)
    finally:
        model.train(was_training)
    regret = torch.cat(gains)
    if not regret.isfinite().all():
        lost = regret.isfinite().logical_not().nonzero().flatten().tolist()
        raise FloatingPointError(f"the bound became NaN or infinite for images {lost}; try a smaller lr (now {lr})")
    return regret


class _Evaluation:
    """A bound as a function of the weights that are fitted to an image, batched over images that each have their own.

    Args:
        model: The model.
        bound: `(model, x, samples=...) -> [B]`.
        samples: S.
        adapt: As in `likelihood_regret`.
    """

    def __init__(self, model: VAE, bound: Objective, samples: int, adapt: str) -> None:
        self.encoder = model.encoder
        per_image = PerImage(model.encoder) if adapt == "encoder" else Moments()
        model = copy.copy(model)
        model._modules = {**model._modules, "encoder": per_image}
        self.pair, self.adapt, self.samples = _Pair(model, bound), adapt, samples
        # randomness="same": every image sees the noise that it would see alone
        self.values = vmap(self._value, randomness="same")  # (weights [B, ...], images [B, *image]) -> [B]
        self.gradients = vmap(grad(self._value), randomness="same")  # likewise -> [B, ...] for each of the weights

    def initial_weights(self, images: Tensor) -> Weights:
        """What is fitted, as it is before: `[B, ...]` each."""
        if self.adapt == "posterior":
            return {"model.encoder.moments": self.encoder(images).clone()}
        named = self.encoder.named_parameters()
        return {f"model.encoder.net.{name}": p.detach().expand(len(images), *p.shape).clone() for name, p in named}

    def seeded_values(self, weights: Weights, images: Tensor, seed: int, at_once: int) -> Tensor:
        """The bound `[B]`, with the same noise for each image however many are evaluated at once."""
        values = []
        for part in torch.arange(len(images), device=images.device).split(at_once):
            with seeded(seed, images.device):
                values.append(self.values({name: w[part] for name, w in weights.items()}, images[part]))
        return torch.cat(values)

    def images_at_once(self, image: Tensor) -> int:
        """How many images to take at once, from the bytes that autograd keeps for one, `[1, *image]`, and one draw."""
        device = next(self.encoder.parameters()).device
        image = image.to(device)
        with torch.no_grad():
            initial = {name: w[0] for name, w in self.initial_weights(image).items()}
        weights = {name: w.requires_grad_() for name, w in initial.items()}
        kept = {}  # bytes at each address

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor), seeded(0, device):
            self._value(weights, image[0], samples=1)
        for fixed in (*self.pair.parameters(), *self.pair.buffers()):
            kept.pop(fixed.data_ptr(), None)
        adam = 4 * sum(w.numel() * w.element_size() for w in weights.values())  # weights, gradients and two moments
        free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else CPU_MEMORY
        return max(1, free // (adam + 2 * self.samples * sum(kept.values())))

    def _value(self, weights: Weights, image: Tensor, samples: int | None = None) -> Tensor:
        return functional_call(self.pair, weights, (image[None], samples or self.samples)).squeeze(0)


class _Pair(nn.Module):
    """A model and its bound as one module, so that `functional_call` can put other weights in the encoder."""

    def __init__(self, model: VAE, bound: Objective) -> None:
        super().__init__()
        self.model, self.bound = model, bound

    def forward(self, x: Tensor, samples: int) -> Tensor:
        return self.bound(self.model, x, samples=samples)
