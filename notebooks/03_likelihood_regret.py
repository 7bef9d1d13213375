# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-widgets,-language_info,-vaekit
#     cell_metadata_filter: tags
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Likelihood regret: is this image one of ours?
#
# A model that has learnt the density of clothes should find a handwritten digit unlikely. A variational auto-encoder often
# finds it *more* likely than clothes. This chapter shows the failure, explains where it comes from, and follows
# [Xiao, Yan & Amit (2020)](https://arxiv.org/abs/2003.02977) to a better question: not "how likely is this image?" but
# "how much would the model *regret* not having prepared for it?"
#
# **You need:** [chapter 1](01_vae.ipynb) (the ELBO and its gap, sections 3 to 5), Adam, and what a ROC curve is.
# **You will be able to:** say why a likelihood is no measure of belonging, derive the regret as a difference of two
# posterior gaps, compute it for hundreds of images at once, and judge a detector by more than one number.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import hypot
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.distributions import kl_divergence

from vaekit import (
    VAE, bernoulli, categorical256, dcgan, elbo, gaussian, importance_bound,
    likelihood_regret, mlp, mutated, negative_log_likelihood,
)
from vaekit.datasets import load, render_rooms
from vaekit.metrics import auprc, auroc, fpr_at_tpr
from vaekit.notebook import (
    COLOURS, check, frames, hint, image_rows, live, markdown_table, number, pick,
    save_results, settings, show, stored, tell, trained, use_style,
)
from vaekit.regret import authors_dcgan, code_length
from vaekit.training import default_device, load_checkpoint, seeded

use_style()
device = default_device()

# %% [markdown]
# ## 1. A model of clothes meets a digit
#
# We train a VAE on one data set, its *world*, and show it images from others. The images are grey, 32 × 32 (surrounded by
# black where they are smaller), and two sets are made up: uniform noise, and images of one constant grey.
#
# The settings of every profile are in one table; the column in bold is the one that ran here. Worlds, seeds and the numbers of images say how sure
# the results can be; `width` and `latent` are the size of the networks.

# %% tags=["hide-input"]
s = settings(
    #                smoke   cpu     night   gpu     paper
    image_size=(8, 32, 32, 32, 32),
    # 0: small perceptrons
    width=(0, 16, 16, 32, 32),
    latent=(4, 32, 100, 100, 100),
    train_images=(1000, 60_000, 60_000, 60_000, 60_000),
    epochs=(4, 2, 10, 20, 200),
    seeds=(2, 2, 3, 3, 5),
    # of every set, for every score but the next one
    test_images=(30, 60, 250, 500, 500),
    # of every set, for the encoder variant and the weighted scores
    whole_encoder=(10, 30, 100, 500, 500),
    nll_samples=(10, 50, 200, 1000, 1000),
    # of the importance-weighted regret
    score_samples=(10, 50, 1000, 1000, 1000),
    steps=(10, 100, 100, 100, 100),
    rates_of_ratio=(
        (0.2, 0.4),
        (0.1, 0.3),
        (0.1, 0.2, 0.3),
        (0.1, 0.2, 0.3),
        (0.1, 0.2, 0.3),
    ),
    levels_width=(0, 8, 16, 32, 32),
    levels_images=(200, 4000, 20_000, 60_000, 60_000),
    levels_epochs=(1, 3, 4, 10, 200),
    levels_test=(5, 40, 100, 300, 500),
    knob_images=(6, 60, 150, 300, 500),
    # drawn rooms: to learn from, and of every number of objects
    rooms_images=(200, 2000, 10_000, 20_000, 50_000),
    rooms_epochs=(2, 4, 8, 20, 100),
    rooms_test=(20, 40, 100, 300, 500),
)
grey = ["kmnist", "notmnist", "omniglot", "emnist-letters", "cifar10-gray"]
# a world, and what lies outside it
both = {"fashion-mnist": ["mnist", *grey], "mnist": ["fashion-mnist", *grey]}
small = {"shapes": ["digits"], "digits": ["shapes"]}
colour = {"cifar10": ["svhn"], "svhn": ["cifar10"]}
studies = pick(smoke=small, cpu=both, gpu=both, paper=both | colour)
worlds = list(studies)
outside_of = {w: [*studies[w], "noise", "constant"] for w in worlds}
# the pair that we look at most closely
home, away = worlds[0], studies[worlds[0]][0]


def pictures(name: str, n: int, shape: tuple[int, ...]) -> torch.Tensor:
    """n test images of a set, drawn with a fixed seed: [n, *shape]."""
    g = torch.Generator().manual_seed(0)
    if name == "noise":
        return torch.randint(256, (n, *shape), generator=g) / 255
    if name == "constant":
        levels = torch.randint(256, (n, shape[0], 1, 1), generator=g) / 255
        return levels.expand(n, *shape).contiguous()
    split = "train" if name == "cifar10-gray" else "test"
    images = load(name, split, size=s.image_size).images
    return images[torch.randperm(len(images), generator=g)[:n]]


# %% [markdown]
# One function makes a model, one line trains it. `trained` is `fit` that remembers: what has been trained once is not trained again, and a run that was stopped goes on.

# %%
def new_vae(
    shape: tuple[int, ...],
    seed: int,
    width: int,
    outputs: int = 1,
    network: Callable = dcgan,
) -> VAE:
    """Convolutional networks in the manner of the paper (width 0: perceptrons)."""
    with seeded(seed):
        if width:
            pair = network(shape, s.latent, width=width, outputs=outputs)
        else:
            pair = mlp(shape, s.latent, hidden=(64,), outputs=outputs)
    p_x = categorical256 if outputs > 1 else bernoulli
    vae = VAE(*pair, latent_dim=s.latent, likelihood=p_x)
    # the same numbers, laid out as a CPU's convolutions prefer them
    return vae.to(memory_format=torch.channels_last)


training = {
    w: load(w, "train", size=s.image_size).images[: s.train_images] for w in worlds
}
shapes = {w: tuple(training[w].shape[1:]) for w in worlds}
models, histories = {}, {}  # one for each world and seed
for w in worlds:
    for seed in range(s.seeds):
        models[w, seed] = new_vae(shapes[w], seed, s.width)
        histories[w, seed] = trained(
            f"VAE of {w}, seed {seed}",
            models[w, seed],
            elbo,
            training[w],
            epochs=s.epochs,
            batch_size=128,
            seed=seed,
            checkpoint_every=1,
        )
model = models[home, 0]

# %% [markdown]
# **Predict, then run.** Two histograms come next: the NLL of clothes and that of digits, under a model that has seen nothing but clothes. Which lies further left, and do they overlap? Draw your guess before you look.
#
# For every image we estimate $\log p_\theta(x)$ by importance sampling. If the likelihood knew its own, images from outside
# would have a higher *negative* log-likelihood (NLL). (With grey levels the Bernoulli decoder computes a cross-entropy and no density; section 6 repeats the comparison with a proper one.)

# %%
sets = {
    w: {
        name: pictures(name, s.test_images, shapes[w])
        for name in [w, *outside_of[w]]
    }
    for w in worlds
}


def nll_of(images: torch.Tensor, model: VAE, samples: int) -> torch.Tensor:
    return negative_log_likelihood(model, images.to(device), samples=samples).cpu()


nll = {
    (w, seed, name): stored.chunks(
        f"NLL of {name}, VAE of {w}, seed {seed}",
        nll_of,
        x,
        models[w, seed],
        samples=s.nll_samples,
        chunk=100,
    )
    for w in worlds
    for seed in range(s.seeds)
    for name, x in sets[w].items()
}

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(7, 3.2))
pair = {name: nll[home, 0, name] for name in (home, away)}
bins = np.linspace(
    min(v.min() for v in pair.values()),
    torch.cat([*pair.values()]).quantile(0.99),
    40,
)
for (name, values), colour_, where in zip(
    pair.items(), COLOURS, ("the world", "outside"), strict=False
):
    ax.hist(values, bins, alpha=0.6, color=colour_, label=f"{name} ({where})")
ax.set(xlabel="negative log-likelihood, nats", ylabel="test images")
ax.legend()
show(
    fig,
    caption=f"How unlikely a VAE trained on {home} finds test images of {home} "
    f"and of {away}. Further to the right is less likely. A detector "
    "would want the outside set on the right.",
    alt="Two overlapping histograms of negative log-likelihoods, one for images "
    "of the training distribution and one for images from outside.",
)
area = auroc(pair[home], pair[away])
tell(
    f"The probability that an image of {away} has a higher NLL than one of {home} "
    f"is **{number(area.value, area.standard_error)}**: "
    + (
        "worse than tossing a coin. Most images from outside look *more* likely "
        "than the model's own."
        if area.value < 0.5
        else "in this run the likelihood does tell them apart; section 6 shows "
        "where it does not."
    )
)

# %% [markdown]
# This probability has a name: it is the area under the ROC curve, or **AUROC**, of the detector "raise the alarm when the score is
# above a threshold". Chance is 0.5, perfection is 1. Throughout this chapter *a higher score means further out of distribution*.
#
# ## 2. Why a likelihood says so little
#
# Two things hide in $-\log p_\theta(x)$: how well the model knows this kind of image, and how much there is to say about
# the image in the first place. A digit is mostly black; black pixels are easy to predict for any decoder that has ever
# seen a dark background. A shirt has texture, and texture takes many nats to describe even if one has seen a million shirts. That likelihoods
# fail in this way was found for flows, autoregressive models and VAEs alike ([Nalisnick et al., 2019](https://arxiv.org/abs/1810.09136)); that the complexity of the image itself is behind it was argued by [Serrà et al. (2020)](https://arxiv.org/abs/1909.11480).
#
# If that is right, a program that knows nothing about clothes should predict the NLL. Take the size of the image's PNG file.

# %% [markdown]
# **Warm-up 3.a · The same unit.** Fill in the blank: a score that subtracts from each image's NLL (in nats) the size of its file (in bytes).

# %% tags=["warm-up", "nbval-check-output"]
def beyond_the_file(nll: torch.Tensor, file_size: torch.Tensor) -> torch.Tensor:
    """NLL less the file's size, in nats; sizes come in bytes. [B], [B] -> [B]."""
    return ...  # fill in


check("3.a", beyond_the_file)

# %% tags=["hide-input"]
length = {w: {name: code_length(x) for name, x in sets[w].items()} for w in worlds}
fig, ax = plt.subplots(figsize=(7.2, 4))
shown = [name for name in sets[home] if name != "constant"]
for name, colour_, marker in zip(
    shown, [*COLOURS, "0.5"], "osv^<>DP", strict=False
):
    ax.scatter(
        length[home][name],
        nll[home, 0, name],
        s=14,
        alpha=0.5,
        color=colour_,
        marker=marker,
        label=name,
    )
ax.set(
    xscale="log",
    yscale="log",
    xlabel="size of the PNG file, nats",
    ylabel="negative log-likelihood, nats",
)
ax.minorticks_off()
ax.xaxis.set_major_formatter("{x:,.0f}")
ax.yaxis.set_major_formatter("{x:,.0f}")
low, high = (
    f([v for name in shown for v in length[home][name].tolist()])
    for f in (min, max)
)
ax.set_xticks(
    [t for t in (500, 1000, 2000, 4000, 8000) if low / 1.3 < t < high * 1.3]
)
low, high = (
    f([v for name in shown for v in nll[home, 0, name].tolist()])
    for f in (min, max)
)
ax.set_yticks(
    [t for t in (20, 50, 100, 200, 500, 1000, 2000) if low / 1.3 < t < high * 1.3]
)
fig.legend(
    *ax.get_legend_handles_labels(),
    loc="outside right upper",
    markerscale=1.6,
    fontsize=9,
)
fig.set_layout_engine("constrained")
show(
    fig,
    caption="Each point is an image: the size of its PNG file against its NLL "
    f"under the model of {home}. Images that compress well are likely, "
    "whatever they show.",
    alt="Scatter plot on logarithmic axes; the negative log-likelihood rises with "
    "the size of the compressed file across data sets.",
)
real = [name for name in shown if name != "noise"]
ranks = torch.stack(
    [
        torch.cat([values[name] for name in real]).argsort().argsort().float()
        for values in (length[home], {name: nll[home, 0, name] for name in real})
    ]
)
file_rank = torch.corrcoef(ranks)[0, 1].item()
tell(f"Rank correlation between the two over all real images: **{file_rank:.2f}**.")

# %% [markdown]
# Real images, that is: an image of one constant grey, which is not in the figure, compresses best of all and is unlikely nevertheless.
#
# ## 3. What the regret asks
#
# We want to divide out what *any* explanation of the image would need. Compare the model with the best explanation
# of this one image that a model of its kind could give:
#
# $$\log \frac{\max_{\text{parameters}}\; p(x)}{p_{\text{trained}}(x)}.$$
#
# Numerator and denominator share what comes with the image, so it cancels. But a numerator that may do
# *anything* is no yardstick: a decoder that is re-fitted to one image paints that image whatever $z$ is, and the ratio says
# nothing. The idea of [Xiao et al.](https://arxiv.org/abs/2003.02977) is to free only the part of a VAE that cannot cheat.
# Keep the decoder $\theta$, hence the density, and re-fit the **encoder**. With $\mathcal L(x; \theta, \phi)$ the ELBO,
#
# $$\boxed{\;\mathrm{LR}(x) = \max_{\phi'}\, \mathcal L(x; \theta, \phi') - \mathcal L(x; \theta, \phi)\;} \tag{3.1}$$
#
# is the **likelihood regret**. It is the logarithm of a ratio of two (lower bounds on) likelihoods: the best that could have been
# said about $x$ with this decoder, over what was said.
#
# ### It is a difference of posterior gaps
#
# The first chapter showed that, for any guess $q$,
#
# $$\mathcal L(x; \theta, q) = \log p_\theta(x) - \mathrm{KL}\big(q(z) \,\|\, p_\theta(z \mid x)\big).$$
#
# Insert this twice. The decoder is the same in both terms, so $\log p_\theta(x)$ cancels *exactly*:
#
# $$\begin{aligned}
# \mathrm{LR}(x) = {} & \mathrm{KL}\big(q_\phi(z \mid x) \,\|\, p_\theta(z \mid x)\big) \\
# & - \mathrm{KL}\big(q_{\phi_x}(z \mid x) \,\|\, p_\theta(z \mid x)\big),
# \end{aligned} \tag{3.3}$$
#
# where $\phi_x$ are the re-fitted weights. Three consequences:
#
# 1. **The likelihood is gone, but not all that fooled us.** $\log p_\theta(x)$ has cancelled exactly. What remains are two divergences from the posterior
#    $p_\theta(z \mid x)$, and how much a given mistake of the encoder counts in them depends on how *sharp* that posterior is: an image with much to explain pins $z$ down, and the same step away from its mean then
#    makes a difference of more nats. So a regret, too, should tend to be larger for busy images than for simple ones. Section 6 looks.
# 2. **The regret is the amortisation gap** that we measured in the first chapter, image by image. The encoder was trained to
#    be right about its world; elsewhere it extrapolates, and the gap opens. The regret is an alarm raised by the *encoder's* ignorance.
# 3. $0 \le \mathrm{LR}(x) \le \log p_\theta(x) - \mathcal L(x; \theta, \phi)$: it can never exceed the whole posterior gap.
#
# ### What "max" means
#
# A whole encoder can reach any $(\mu, \log\sigma)$ for a single image; moving the biases of its last layer is enough (exercise 3.3). So with
# enough steps, re-fitting the encoder and re-fitting $\mu$ and $\log\sigma$ directly would end at the same place. The paper takes
# **100 steps of Adam** with learning rate $2 \cdot 10^{-4}$, and stops short of it; and since the steps are noisy, an estimated regret can come out a little below zero. Steps and rate are therefore part of the *definition*
# of the score. We shall use two variants:
#
# - `adapt="encoder"`, the paper's: a copy of the whole encoder for each image;
# - `adapt="posterior"`, which the authors' published code does not have: $\mu$ and $\log\sigma$ themselves. The encoder runs once, so it is much faster.
#
# and score each with two bounds: the ELBO, and the importance-weighted bound with which the authors score.
#
# **Ask yourself.** What is the regret under an encoder that is perfect for every image? And under one that gives the same answer to all?
#
# <details><summary>One answer</summary>
#
# Zero everywhere under the first: no alarm is left. Under the second it is the whole way from one fixed Gaussian to the best one, large for familiar and strange images alike. The score lives on an encoder that is good at home and bad abroad.
#
# </details>
#
# ## 4. The method, in code
#
# For one image equation (3.1) is a dozen lines. Note the noise: both bounds are estimated with the *same* draws of $\varepsilon$
# (common random numbers), so that their difference is far less noisy than either.

# %% [markdown]
# **Warm-up 3.b · One step for every image.** Fill in the blank: one step of plain gradient ascent on each image's own guess. `bound(mean, log_std)` gives one number an image.

# %% tags=["warm-up", "nbval-check-output"]
def one_step_up(
    mean: torch.Tensor, log_std: torch.Tensor, bound, lr: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log std, both [B, D], after a step of size lr up the bound."""
    return ...  # fill in


check("3.b", one_step_up)

# %%
def regret_of_one(
    model: VAE, image: torch.Tensor, steps: int, lr: float = 2e-4, samples: int = 32
) -> torch.Tensor:
    fitted = copy.deepcopy(model).eval()
    with seeded(0, device), torch.no_grad():
        before = elbo(fitted, image, samples=samples)
    optimizer = torch.optim.Adam(fitted.encoder.parameters(), lr=lr)
    with seeded(1, device):
        for _ in range(steps):
            optimizer.zero_grad()
            (-elbo(fitted, image).sum()).backward()  # one fresh draw of z a step
            optimizer.step()
    with seeded(0, device), torch.no_grad():  # the same draws as before
        return elbo(fitted, image, samples=samples) - before


# %% tags=["hide-input"]
few = torch.cat([sets[home][home][:2], sets[home][away][:2]]).to(device)
one_by_one = torch.cat(
    [regret_of_one(model, image, s.steps) for image in few.split(1)]
)
together = likelihood_regret(model, few, steps=s.steps, progress=False)
tell(
    "Regret in nats of two images of each set, by the loop and by the library. "
    "They differ by the noise of the draws:\n\n"
    + markdown_table(
        ["", *(f"{name} {i}" for name in (home, away) for i in (1, 2))],
        [
            ["one by one", *(f"{v:.1f}" for v in one_by_one)],
            ["`likelihood_regret`", *(f"{v:.1f}" for v in together)],
        ],
    )
)

# %% [markdown]
# A loop over images leaves the processor mostly waiting, and putting several images through *one* copy would be wrong: they
# would be fitted jointly, and an image's score would depend on its neighbours. The library gives every image its own weights and computes
# all of them at once. `torch.func` makes that short:
#
# ```python
# def value(weights, image):                # the bound of one image, given an encoder
#     return functional_call(pair, weights, (image[None],)).squeeze(0)
#
# weights = {name: p.expand(B, *p.shape).clone()           # [B, ...] each
#            for name, p in encoder.named_parameters()}
# gradients = vmap(grad(value))(weights, images)           # likewise
# ```
#
# `grad` differentiates with respect to the encoder's weights, and `vmap` turns "for each image" into one batched computation. Adam works element by element, so one Adam on the stacked weights is $B$
# independent ones. For `adapt="posterior"` the "encoder" is just its output, $2D$ numbers. Everything else is the same code.
#
# ## 5. A case that can be solved
#
# Take a linear decoder with Gaussian noise, $p(x \mid z) = \mathcal N(Wz + b, s^2 I)$. The posterior is
# $\mathcal N(m, \Lambda^{-1})$ with $\Lambda = I + W^\top W / s^2$, the best diagonal guess has mean $m$ and variances $1 / \Lambda_{dd}$ (first chapter, exercise 3), and so
#
# $$\begin{aligned}
# \mathrm{LR}(x) = {} & \tfrac12 \sum_d \big(\Lambda_{dd}\,\sigma_d^2 - 1 - \log(\Lambda_{dd}\,\sigma_d^2)\big) \\
# & + \tfrac12 (\mu - m)^\top \Lambda\, (\mu - m)
# \end{aligned} \tag{3.4}$$
#
# for an encoder that answers $\mathcal N(\mu, \operatorname{diag}\sigma^2)$. Width and place each contribute, and nothing else does. The ELBO has a closed form too, without any noise, and the library takes it as it takes every bound:


# %%
def linear_vae(
    pixels: int = 6, latent_dim: int = 2, scale: float = 0.5, seed: int = 0
) -> tuple[VAE, torch.Tensor]:
    """A linear VAE with an encoder that was never trained, and eight images [8, 1,
    1, pixels] drawn from the model.
    """
    with seeded(seed):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * latent_dim))
        decoder = nn.Sequential(
            nn.Linear(latent_dim, pixels), nn.Unflatten(-1, (1, 1, pixels))
        )
        vae = VAE(
            encoder, decoder, latent_dim=latent_dim, likelihood=gaussian(scale)
        ).double()
        return vae, vae.likelihood(vae.prior.rsample((8,))).sample()


def exact_elbo(
    model: VAE, x: torch.Tensor, samples: int = 1, scale: float = 0.5
) -> torch.Tensor:
    """The ELBO of a linear VAE in closed form, [B]; `samples` is ignored, for
    nothing is drawn.
    """
    q_z, W = model.posterior(x), model.decoder[0].weight  # [P, D]
    spread = 0.5 * (q_z.variance * W.square().sum(0)).sum(-1) / scale**2
    return (
        model.log_likelihood(x, q_z.mean) - spread - kl_divergence(q_z, model.prior)
    )


def exact_regret(model: VAE, x: torch.Tensor, scale: float = 0.5) -> torch.Tensor:
    W, b = model.decoder[0].weight, model.decoder[0].bias
    precision = torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / scale**2
    m = (x.flatten(1) - b) @ W @ torch.linalg.inv(precision) / scale**2  # [B, D]
    q_z = model.posterior(x)
    scaled, shift = precision.diagonal() * q_z.variance, q_z.mean - m
    return (
        0.5 * (scaled - 1 - scaled.log()).sum(-1)
        + 0.5 * (shift @ precision * shift).sum(-1)
    ).detach()


# %% tags=["hide-input"]
vae, x = linear_vae()
truth = exact_regret(vae, x)
counts = [0, 3, 10, 30, 100, 300, 1000]
climb = {
    adapt: torch.stack(
        [
            likelihood_regret(
                vae,
                x,
                bound=exact_elbo,
                adapt=adapt,
                lr=lr,
                steps=k,
                progress=False,
            )
            for k in counts
        ]
    )
    for adapt, lr in (("posterior", 0.02), ("encoder", 0.002))
}
fig, ax = plt.subplots(figsize=(6, 3))
for (adapt, values), marker in zip(climb.items(), "os", strict=True):
    ax.plot(
        counts,
        (values / truth).mean(1).detach(),
        f"{marker}-",
        label=f'adapt="{adapt}"',
    )
ax.axhline(1, color="black", lw=1, ls="--", label="closed form")
ax.set(
    xscale="symlog",
    xlim=(0, counts[-1]),
    xlabel="steps of Adam",
    ylabel="share of the exact regret",
)
ax.legend()
show(
    fig,
    caption="Regret of eight images under a linear VAE with an untrained encoder, "
    "as a share of the closed form. No steps, no regret; both variants "
    "climb to the same height and neither exceeds it.",
    alt="Two curves rising from zero to one against the number of optimisation "
    "steps.",
)
tell(
    f"After {counts[-1]:,} steps the posterior variant is within "
    f"{(climb['posterior'][-1] / truth - 1).abs().max().item():.1e} of the closed "
    "form for every image."
)

# %% [markdown]
# **Ask yourself.** The encoder's mean is off by 0.1, once along an eigenvector of $\Lambda$ with eigenvalue 1, once along one with eigenvalue 100. How many nats is each mistake?
#
# <details><summary>One answer</summary>
#
# By (3.4) half the eigenvalue times 0.01: 0.005 and 0.5 nats. The same mistake counts a hundred times as much where the posterior is ten times as narrow, which is why busy images have large regrets.
#
# </details>

# %% [markdown]
# ## 6. The experiment
#
# Beside the regret stand the scores that it has to beat:
#
# - the **NLL**;
# - the **likelihood ratio** to a background model ([Ren et al., 2019](https://arxiv.org/abs/1906.02845)): a second VAE learns from images
#   in which each pixel was replaced, with probability $r$, by a random grey level. What it knows is "background", and is subtracted: $\log p_{\text{background}}(x) - \log p_\theta(x)$. Like its authors, we choose $r$ on a set that is not among the tests (here drawn shapes);
# - the **size of the file** alone, with no model at all: minus the length of the PNG. If section 2 is right, this should do well wherever the NLL fails.
#
# A fourth, **input complexity** ([Serrà et al., 2020](https://arxiv.org/abs/1909.11480)), is the NLL minus the length of the file. That difference means something only if both terms are code lengths of the same thing, the 256 grey levels, and a Bernoulli decoder's cross-entropy is none. It joins further below, with a decoder that has 256 levels.

# %% tags=["hide-input"]
backgrounds, chosen_rate, tuning = {}, {}, {}
held_out = {
    w: load("shapes", "test", n=s.test_images, size=s.image_size).images
    for w in worlds
}
if small == studies:  # in the smoke profile the shapes are a world
    held_out = {w: pictures("noise", s.test_images, shapes[w]) for w in worlds}
inside_too = {w: training[w][-s.test_images :] for w in worlds}
for w in worlds:
    for rate in s.rates_of_ratio:
        backgrounds[w, rate] = new_vae(shapes[w], 100, s.width)
        trained(
            f"background of {w}, rate {rate}",
            backgrounds[w, rate],
            mutated(elbo, rate=rate),
            training[w],
            epochs=max(1, s.epochs // 2),
            batch_size=128,
        )
        held = [
            stored(
                f"ratio of {kind}, {w}, rate {rate}",
                lambda x, a, b, n: nll_of(x, a, n) - nll_of(x, b, n),
                x,
                models[w, 0],
                backgrounds[w, rate],
                s.nll_samples,
            )
            for kind, x in (
                ("world", inside_too[w].expand(-1, *shapes[w])),
                ("shapes", held_out[w].expand(-1, *shapes[w])),
            )
        ]
        tuning[w, rate] = auroc(*held).value
    chosen_rate[w] = max(s.rates_of_ratio, key=lambda rate: tuning[w, rate])
tell(
    "AUROC of the likelihood ratio on the held-out set, by the rate of mutation: "
    + "; ".join(
        f"{w}: "
        + ", ".join(
            f"{rate:g} → {tuning[w, rate]:.3f}" for rate in s.rates_of_ratio
        )
        for w in worlds
    )
    + "."
)

# %% [markdown]
# **Predict, then run.** Cover the figure below. For each of the two worlds, which outside set will the NLL miss worst? And will the regret be the best score on every row? Rank the scores before you look.

# %%
def regret_of(images: torch.Tensor, model: VAE, **options: object) -> torch.Tensor:
    return likelihood_regret(
        model, images.to(device), progress=False, **options
    ).cpu()


weighted = dict(bound=importance_bound, objective=elbo, samples=s.score_samples)
kinds = {
    "regret, posterior": dict(adapt="posterior"),
    "regret, posterior, weighted": dict(adapt="posterior", **weighted),
    "regret, encoder": dict(adapt="encoder"),
    "regret, encoder, weighted": dict(adapt="encoder", **weighted),
}
regrets = {}
for w in worlds:
    for kind, options in kinds.items():
        all_images = kind == "regret, posterior"
        for seed in range(s.seeds if all_images else 1):
            for name, x in sets[w].items():
                regrets[kind, w, seed, name] = stored.chunks(
                    f"{kind}, {name}, VAE of {w}, seed {seed}",
                    regret_of,
                    x if all_images else x[: s.whole_encoder],
                    models[w, seed],
                    steps=s.steps,
                    chunk=50,
                    **options,
                )

# %% tags=["hide-input"]
ratio = {
    (w, name): nll[w, 0, name]
    - stored(
        f"background NLL of {name}, {w}",
        nll_of,
        x,
        backgrounds[w, chosen_rate[w]],
        s.nll_samples,
    )
    for w in worlds
    for name, x in sets[w].items()
}
SCORES = ("NLL", "likelihood ratio", "file size alone", *kinds)


def score(kind: str, w: str, name: str, seed: int = 0) -> torch.Tensor:
    """A score of the images of a set [n], under the model of world w."""
    if kind == "NLL":
        return nll[w, seed, name]
    if kind == "likelihood ratio":
        return ratio[w, name]
    if kind == "file size alone":
        return -length[w][name]
    return regrets[kind, w, seed, name]


def area_over_seeds(kind: str, w: str, name: str) -> tuple[float, float]:
    """Mean AUROC over the seeds that there are, and its error over images and seeds."""
    seeds = range(s.seeds) if kind in ("NLL", "regret, posterior") else [0]
    each = [auroc(score(kind, w, w, k), score(kind, w, name, k)) for k in seeds]
    values = torch.tensor([a.value for a in each])
    # the same images for each seed
    over_images = sum(a.standard_error for a in each) / len(each)
    over_seeds = values.std().item() / len(each) ** 0.5 if len(each) > 1 else 0.0
    return values.mean().item(), hypot(over_images, over_seeds)


areas = {
    w: {
        name: {kind: area_over_seeds(kind, w, name) for kind in SCORES}
        for name in outside_of[w]
    }
    for w in worlds
}
rows_of = [(w, name) for w in worlds for name in outside_of[w]]
average = {
    kind: np.mean([areas[w][name][kind][0] for w, name in rows_of])
    for kind in SCORES
}

# %% tags=["hide-input"]
drawn = (
    "NLL",
    "likelihood ratio",
    "file size alone",
    "regret, posterior",
    "regret, encoder",
)
fig, axes = plt.subplots(
    1,
    len(worlds),
    figsize=(7.6, 4.4),
    sharex=True,
    layout="constrained",
    squeeze=False,
)
for ax, w in zip(axes[0], worlds, strict=False):
    for row, name in enumerate(outside_of[w]):
        ax.axhline(row, color="0.9", lw=1, zorder=0)
        for shift, kind, colour_, marker in zip(
            np.linspace(-0.28, 0.28, 5), drawn, COLOURS, "sD^ov", strict=False
        ):
            value, error = areas[w][name][kind]
            ax.errorbar(
                value,
                row + shift,
                xerr=2 * error,
                color=colour_,
                marker=marker,
                ms=5,
                lw=1,
                label=kind if row == 0 else None,
            )
    ax.axvline(0.5, color="black", lw=1, ls=":")
    ax.set(
        yticks=range(len(outside_of[w])),
        yticklabels=outside_of[w],
        title=f"world: {w}",
        xlim=(-0.05, 1.05),
        xlabel="AUROC",
    )
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
fig.legend(
    *axes[0, 0].get_legend_handles_labels(),
    loc="outside upper center",
    ncols=3,
    fontsize=9,
)
show(
    fig,
    caption="How well five scores tell images of the world from images of each "
    "outside set: AUROC with two standard errors (over images and, where "
    "several models were trained, over seeds). The dotted line is chance; "
    "left of it the score is turned round.",
    alt="Dot chart with a panel for each world and a row for each outside set; "
    "five markers a row show the area under the ROC curve of five scores.",
)
worst = {
    kind: min(rows_of, key=lambda row: areas[row[0]][row[1]][kind][0])
    for kind in SCORES
}
tell(
    "On average over all rows of the figure: "
    + ", ".join(
        f"{kind} {average[kind]:.3f}"
        for kind in sorted(SCORES, key=average.get, reverse=True)
    )
    + "; each is worst on: "
    + ", ".join(
        f"{kind}: {row[0]} → {row[1]} ({areas[row[0]][row[1]][kind][0]:.3f})"
        for kind, row in worst.items()
        if kind in drawn
    )
    + "."
)

# %% tags=["hide-input", "hide-output"]
tell(
    f"AUROC ± standard error. {s.test_images} images of each set, "
    f"{s.whole_encoder} for the encoder variants and the weighted scores; NLL and "
    f"posterior variant by the ELBO: mean over {s.seeds} seeds. *Weighted*: scored with the "
    f"importance-weighted bound of {s.score_samples} samples instead of the "
    "ELBO.\n\n"
    + markdown_table(
        ["world → outside", *SCORES],
        [
            [f"{w} → {name}", *(number(*areas[w][name][kind]) for kind in SCORES)]
            for w, name in rows_of
        ]
        + [["*average*", *(f"{average[kind]:.3f}" for kind in SCORES)]],
    )
)

# %% [markdown]
# The scores that the authors once stored with [their code](https://github.com/XavierXiao/Likelihood-Regret)
# for Fashion-MNIST → MNIST (200 images of each; 256 grey levels, 200 epochs, the weighted bound) give an AUROC of 0.976 for the regret and 0.191 for the NLL.
#
# Do the two variants differ? They were given the same images, so compare them pair by pair: draw images anew from both sets, with replacement, and look at how the *difference* of the two areas varies.

# %% tags=["hide-input"]
def paired(
    a: str, b: str, w: str, name: str, draws: int = 500
) -> tuple[float, float]:
    """AUROC of score a less that of b on the same images, and its bootstrap standard error."""
    n = min(len(score(kind, w, x)) for kind in (a, b) for x in (w, name))
    four = [[score(kind, w, x)[:n] for x in (w, name)] for kind in (a, b)]
    g = torch.Generator().manual_seed(0)
    found = []
    for _ in range(draws):
        i, j = (torch.randint(n, (n,), generator=g) for _ in range(2))
        found.append(
            auroc(four[0][0][i], four[0][1][j]).value
            - auroc(four[1][0][i], four[1][1][j]).value
        )
    return auroc(*four[0]).value - auroc(*four[1]).value, torch.tensor(
        found
    ).std().item()


comparisons = {
    "encoder − posterior": ("regret, encoder", "regret, posterior"),
    "weighted − ELBO (posterior)": (
        "regret, posterior, weighted",
        "regret, posterior",
    ),
    "weighted − ELBO (encoder)": ("regret, encoder, weighted", "regret, encoder"),
}
differences = {
    what: {f"{w} → {name}": paired(*two, w, name) for w, name in rows_of}
    for what, two in comparisons.items()
}
beyond = {
    what: [row for row, (d, e) in rows.items() if abs(d) > 2 * e and e > 0]
    for what, rows in differences.items()
}
tell(
    "Paired differences of AUROC, seed 0, with bootstrap standard errors over "
    "images:\n\n"
    + markdown_table(
        ["world → outside", *comparisons],
        [
            [
                f"{w} → {name}",
                *(
                    number(*differences[what][f"{w} → {name}"], sign=True)
                    for what in comparisons
                ),
            ]
            for w, name in rows_of
        ],
    )
    + "\n\nBeyond two standard errors: "
    + "; ".join(
        f"{what}: {', '.join(rows) or 'none'}" for what, rows in beyond.items()
    )
    + "."
)

# %% [markdown]
# ### Is the regret free of what fooled the likelihood?
#
# Section 3 promised a look. If the sharpness of the posterior still speaks in the regret, then sets that the model finds likely should have *low* regret, and the set with the lowest NLL should be the hardest case. Each point below is one outside set.

# %% tags=["hide-input"]
def rank_correlation(a: list[float], b: list[float]) -> float:
    ranks = torch.stack(
        [torch.tensor(v).argsort().argsort().double() for v in (a, b)]
    )
    return torch.corrcoef(ranks)[0, 1].item()


fig, axes = plt.subplots(
    1, len(worlds), figsize=(7.6, 3.6), layout="constrained", squeeze=False
)
spearman = {}
for ax, w in zip(axes[0], worlds, strict=False):
    means = {
        name: [
            score(kind, w, name).mean().item()
            for kind in ("NLL", "regret, posterior")
        ]
        for name in [w, *outside_of[w]]
    }
    for name, (x, y) in means.items():
        inside = name == w
        ax.plot(
            x,
            y,
            "*" if inside else "o",
            ms=11 if inside else 6,
            color=COLOURS[0 if inside else 1],
        )
        left = x < np.median([m[0] for m in means.values()])
        ax.annotate(
            name,
            (x, y),
            textcoords="offset points",
            xytext=(7 if left else -7, -3),
            ha="left" if left else "right",
            fontsize=9,
        )
    ax.set(xscale="log", yscale="log", xlabel="mean NLL, nats", title=f"world: {w}")
    ax.minorticks_off()
    out = [means[name] for name in outside_of[w]]
    spearman[w] = rank_correlation([m[0] for m in out], [m[1] for m in out])
axes[0, 0].set_ylabel("mean regret (posterior), nats")
show(
    fig,
    caption="Every set by its mean NLL and its mean regret under one model: the "
    "star is the world, circles are outside sets, both axes logarithmic. "
    "What the regret adds is the height above the star; along the sets it "
    "still rises with the NLL.",
    alt="Two scatter plots on logarithmic axes, a labelled point for each data "
    "set; mean regret rises with mean negative log-likelihood, and the world "
    "lies below the others.",
)
tell(
    "Rank correlation of mean NLL and mean regret over the outside sets: "
    + ", ".join(f"**{value:.2f}** (world {w})" for w, value in spearman.items())
    + "."
)

# %% [markdown]
# It is not free of it. In the stored run (`cpu`) the regret orders the outside sets almost as the likelihood does, and under the model of clothes the set with the *lowest* NLL, OMNIGLOT's thin strokes, is also the one with the lowest regret, and the hardest case. What makes the score useful is the height above the star: the encoder knows its own world, and there
# a given likelihood goes with much less regret than anywhere else.

# %% [markdown]
# ### A failure by construction
#
# Clothes and digits differ in a hundred ways at once, and complexity has been our *explanation* of what we saw. To find out whether it is the cause, turn it like a knob and leave everything else as it is. `rooms` are drawn: a wall, a floor, some light, and up to five objects on the floor, each with its own shape, hue and place. The same room can be drawn with none of its objects, with the first, with the first two, and so on. (The set is ours, in the manner of [3D Shapes](https://github.com/google-deepmind/3d-shapes); nothing in the literature was measured on it.)

# %% tags=["hide-input"]
objects = range(6)  # how many of its objects a room may show


def rooms(split: str, n: int, shown: int) -> torch.Tensor:
    """The first n rooms of a split with `shown` of five objects: [n, 3, H, W]."""
    three, more = (
        load("rooms", split, n=n, size=1, seed=seed).factors for seed in (0, 1)
    )
    factors = torch.cat([three, more[:, 4:12]], dim=1)
    return render_rooms(factors, s.image_size, objects=shown)


show(
    image_rows({f"{k} shown": rooms("test", 10, k) for k in objects}),
    caption="Ten rooms. From row to row each gains one object, and nothing else "
    "changes.",
    alt="Six rows of ten coloured rooms; the first row is empty, the last has "
    "five objects in each room.",
)

# %% [markdown]
# One VAE learns rooms with three objects, another one rooms with a single one; then both look at the same test rooms with every number of objects. The decoder's noise is Gaussian with standard deviation 0.1 here: under a Bernoulli decoder a pixel of middle grey takes many nats even where the decoder is exactly right, and the light in the room would drown what stands in it.
#
# **Predict, then run.** If a score tells how far an image is from the world, its AUROC is one half at the world's own number of objects and rises *to both sides*, like a V. If it tells how complicated an image is, it rises from left to right through one half, wherever the world is. Draw both for a world of three objects. Which will the NLL be, and which the regret?

# %%
room_worlds = (3, 1)
room_scores = {}  # by score, objects of the world, seed, objects shown
for w in room_worlds:
    images = rooms("train", s.rooms_images, w)
    for seed in range(s.seeds):
        pair = new_vae(tuple(images.shape[1:]), seed, s.width)
        roomy = VAE(
            pair.encoder,
            pair.decoder,
            latent_dim=s.latent,
            likelihood=gaussian(0.1),
        )
        trained(
            f"VAE of rooms, {w} of 5 objects, seed {seed}",
            roomy,
            elbo,
            images,
            epochs=s.rooms_epochs,
            batch_size=128,
            seed=seed,
        )
        for k in objects:
            x = rooms("test", s.rooms_test, k)
            name = f"rooms, {k} of 5 objects, world {w}, seed {seed}"
            room_scores["NLL", w, seed, k] = stored.chunks(
                f"NLL of {name}", nll_of, x, roomy, samples=s.nll_samples, chunk=100
            )
            room_scores["regret, posterior", w, seed, k] = stored.chunks(
                f"regret of {name}",
                regret_of,
                x,
                roomy,
                adapt="posterior",
                steps=s.steps,
                chunk=50,
            )
            room_scores["file size alone", w, seed, k] = -code_length(x)

# %% tags=["hide-input"]
ROOM_SCORES = ("NLL", "regret, posterior", "file size alone")


def room_area(kind: str, w: int, k: int) -> tuple[float, float]:
    """Mean AUROC of k objects, world of w, and its error over images and seeds."""
    if k == w:
        return 0.5, 0.0  # the world itself
    scores = [
        [room_scores[kind, w, seed, shown] for shown in (w, k)]
        for seed in range(s.seeds)
    ]
    each = [auroc(*two) for two in scores]
    values = torch.tensor([a.value for a in each])
    over_images = sum(a.standard_error for a in each) / len(each)
    over_seeds = values.std().item() / len(each) ** 0.5
    return values.mean().item(), hypot(over_images, over_seeds)


room_areas = {
    w: {k: {kind: room_area(kind, w, k) for kind in ROOM_SCORES} for k in objects}
    for w in room_worlds
}

# %% tags=["hide-input"]
fig, axes = plt.subplots(
    1, len(room_worlds), figsize=(7.6, 3.4), sharey=True, layout="constrained"
)
for ax, w in zip(axes, room_worlds, strict=True):
    for shift, kind, colour_, marker in zip(
        (-0.06, 0.06, 0), ROOM_SCORES, COLOURS, "so^", strict=False
    ):
        values, errors = np.array([room_areas[w][k][kind] for k in objects]).T
        ax.errorbar(
            np.array(objects) + shift,
            values,
            2 * errors,
            fmt=f"{marker}-",
            color=colour_,
            ms=5,
            lw=1,
            label=kind,
        )
    ax.axhline(0.5, color="black", lw=1, ls=":")
    ax.axvline(w, color="0.8", lw=6, zorder=0)
    ax.set(
        xticks=objects,
        ylim=(-0.05, 1.05),
        xlabel="objects in the room",
        title=f"world: {w} object{'s' * (w > 1)}",
    )
axes[0].set_ylabel("AUROC")
fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3
)
show(
    fig,
    caption="How well three scores tell rooms of the world (grey bar) from the "
    "same rooms with another number of objects: AUROC with two standard errors "
    "over images and seeds. A measure of belonging would be a V with its foot on "
    "the bar.",
    alt="Two panels of three curves each: area under the ROC curve against the "
    "number of objects, for a world of three objects and for a world of one.",
)


# %% tags=["hide-input"]
def shape_of(values: list[float], w: int) -> str:
    """What a curve of AUROC against the number of objects does."""
    if all(b >= a for a, b in pairwise(values)):
        return "rises with their number"
    if all(b <= a for a, b in pairwise(values)):
        return "falls with their number"
    if min(values) == values[w]:
        return "is lowest in the world"
    return "does neither rise nor fall throughout"


def share_above(kind: str, w: int) -> float:
    """How often a room scores higher than the same room with an object less."""
    return np.mean(
        [
            (room_scores[kind, w, seed, k] > room_scores[kind, w, seed, k - 1])
            .float()
            .mean()
            .item()
            for seed in range(s.seeds)
            for k in objects[1:]
        ]
    )


room_shares = {
    w: {kind: share_above(kind, w) for kind in ROOM_SCORES[:2]} for w in room_worlds
}
for w in room_worlds:
    tell(
        f"World of {w} object{'s' * (w > 1)}, AUROC for empty rooms → for five "
        "objects: "
        + "; ".join(
            f"**{kind}** {number(*room_areas[w][0][kind])} → "
            f"{number(*room_areas[w][5][kind])}, "
            + shape_of([room_areas[w][k][kind][0] for k in objects], w)
            for kind in ROOM_SCORES
        )
        + ". One more object in the same room raises the NLL in "
        f"{100 * room_shares[w]['NLL']:.0f} % of all cases, the regret in "
        f"{100 * room_shares[w]['regret, posterior']:.0f} %."
    )

# %% [markdown]
# The failure can be made to order. Whatever the world, three objects or one, the NLL finds most empty rooms more likely than the rooms it has learnt, and it says so room by room: put one more object into a picture, and its NLL nearly always goes up. There is no V with its foot on the world. What the model has learnt plays hardly any part; how much there is to say does.
#
# And the regret does **not** repair it. Its curve is flatter, but as far as these few rooms show it leans the same way: empty rooms are regretted *less* than those of the world. Section 3 warned of it, and here is a reading that fits. Wall, floor, light and camera are in every training image, so that the encoder knows all of an empty room, and there is less in it to be wrong about. A digit was found out because strokes are *foreign* to an encoder of clothes. Where the outside is the world with something left out, nothing is foreign, and the regret has nothing to find.
#
# **Ask yourself.** Someone trains on rooms with one object, tests with rooms of five, and reports that the NLL tells them apart well. Has this likelihood learnt to know its own?
#
# <details><summary>One answer</summary>
#
# No. It is larger for busier rooms whatever the world is, and here the outside happens to be the busier side. Test a detector with outside sets on *both* sides of the world: simpler ones and richer ones. (A score that asks whether an NLL is *unusual*, in either direction, is not fooled in this way: exercise 3.4.)
#
# </details>

# %% [markdown]
# ### A proper density: 256 grey levels
#
# The paper's decoder gives each of the 256 grey levels of a pixel a probability. Then $-\log p_\theta(x)$ is a code length, in nats, of the very thing that a PNG file stores, and input complexity, their difference, has its meaning. The output is 256 times as large, so this model is smaller and trained on fewer images:
# compare the columns of this table with each other, not with the figure above.

# %% tags=["hide-input"]
pixelwise = new_vae(shapes[home], 0, s.levels_width, outputs=256)
trained(
    f"256 levels, {home}",
    pixelwise,
    elbo,
    training[home][: s.levels_images],
    epochs=s.levels_epochs,
    batch_size=64,
)
levels = {}  # each score's values by set
LEVELS = (
    "NLL",
    "file size alone",
    "complexity, PNG",
    "complexity, JPEG 2000",
    "regret, posterior",
)
for name, x in sets[home].items():
    x = x[: s.levels_test]
    cost_ = stored.chunks(
        f"256 levels, NLL of {name}", nll_of, x, pixelwise, samples=10, chunk=25
    )
    lengths = [code_length(x, codec=codec) for codec in ("png", "jpeg2000")]
    gain = stored.chunks(
        f"256 levels, regret of {name}",
        regret_of,
        x,
        pixelwise,
        adapt="posterior",
        samples=4,
        steps=s.steps,
        chunk=25,
    )
    levels[name] = dict(
        zip(
            LEVELS,
            [cost_, -lengths[0], cost_ - lengths[0], cost_ - lengths[1], gain],
            strict=True,
        )
    )
levels_area = {
    name: {kind: auroc(levels[home][kind], levels[name][kind]) for kind in LEVELS}
    for name in outside_of[home]
}
levels_average = {
    kind: np.mean([levels_area[name][kind].value for name in levels_area])
    for kind in LEVELS
}
tell(
    f"AUROC ± standard error over images with 256 grey levels; world {home}, "
    f"{s.levels_images:,} training images, one seed, {s.levels_test} images of "
    "each set.\n\n"
    + markdown_table(
        ["outside", *LEVELS],
        [
            [name, *(number(a.value, a.standard_error) for a in row.values())]
            for name, row in levels_area.items()
        ]
        + [["*average*", *(f"{v:.3f}" for v in levels_average.values())]],
    )
    + f"\n\nMean NLL of {home}: {levels[home]['NLL'].mean():,.0f} nats "
    f"({levels[home]['NLL'].mean() / np.log(2) / np.prod(shapes[home]):.2f} "
    "bits a pixel); mean PNG file: "
    f"{-levels[home]['file size alone'].mean():,.0f} nats."
)

# %% [markdown]
# With a proper density input complexity means something, and in this small run the PNG version does better on average than either of its parts, though it is no match for the regret; on single sets (grey CIFAR-10) it is far ahead of it. All of these are worse than the figure above, the regret too: a model that has seen a fifteenth of the images for three epochs has an encoder that is unsure at home as well.
# Where the size of the file alone does best (MNIST, OMNIGLOT) it beats everything; on grey CIFAR-10 and on noise it is worse than useless, since a stranger may as well be complicated as simple.
#
# ### Choosing a threshold
#
# One AUROC averages over all thresholds. A guard has to pick one, so two more numbers for the main pairs: the area under the
# precision-recall curve (**AUPRC**, outside images as positives; chance is one half here) and the share of false alarms
# at the threshold that catches 80 % or 95 % of the outside images (**FPR at 80 %** and **at 95 % TPR**, lower is better; the paper reports 80 %). And how long each score takes.

# %% tags=["hide-input"]
sample = sets[home][home][: min(20, s.whole_encoder)].to(device)
calls = {
    "NLL": lambda: nll_of(sample, model, s.nll_samples),
    "likelihood ratio": lambda: [
        nll_of(sample, m, s.nll_samples)
        for m in (model, backgrounds[home, chosen_rate[home]])
    ],
    "file size alone": lambda: code_length(sample),
    **{
        kind: partial(regret_of, sample, model, steps=s.steps, **options)
        for kind, options in kinds.items()
    },
}
cost = {}
for kind, call in calls.items():
    started = perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    cost[kind] = 1000 * (perf_counter() - started) / len(sample)
details = {}
for w in worlds:
    two = {
        kind: (score(kind, w, w), score(kind, w, studies[w][0])) for kind in SCORES
    }
    details[w] = {
        kind: (auprc(*v), fpr_at_tpr(*v, tpr=0.8), fpr_at_tpr(*v, tpr=0.95))
        for kind, v in two.items()
    }
for w in worlds:
    tell(
        markdown_table(
            [
                f"{w} → {studies[w][0]}",
                "AUPRC",
                "FPR at 80 % TPR",
                "FPR at 95 % TPR",
                "ms an image",
            ],
            [
                [
                    kind,
                    *(f"{v:.3f}" for v in details[w][kind]),
                    f"{number(cost[kind], digits=2)}" if w == home else "–",
                ]
                for kind in SCORES
            ],
        )
    )

# %% [markdown]
# Where would *you* put the threshold? Move it. Everything to the right of the line raises the alarm.

# %% tags=["hide-input"]
inside, outside = (score("regret, posterior", home, name) for name in (home, away))
bins = np.linspace(
    min(0, inside.min().item()),
    float(torch.cat([inside, outside]).quantile(0.98)),
    45,
)
steps_of_slider, labels = [], []
for q in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99):
    threshold = inside.quantile(q).item()
    false, caught = (
        (values >= threshold).float().mean().item() for values in (inside, outside)
    )
    fig, ax = plt.subplots(figsize=(6.4, 2.8))
    ax.hist(inside, bins, alpha=0.6, label=home)
    ax.hist(outside, bins, alpha=0.6, label=away)
    ax.axvline(threshold, color="black", lw=1.5)
    ax.set(xlabel="regret (posterior), nats", yticks=[])
    ax.set_title(
        f"threshold {threshold:.1f} nats: {100 * false:.0f} % false alarms, "
        f"{100 * caught:.0f} % caught"
    )
    ax.legend(loc="upper right")
    steps_of_slider.append(fig)
    labels.append(f"{threshold:.1f}")
frames(
    steps_of_slider,
    labels,
    description="threshold",
    caption=f"Regret of test images from {home} (inside) and {away} (outside), and "
    "what a threshold makes of them. To the left more is caught, and more of "
    "the innocent are accused.",
    alt="Two histograms of regret with a vertical line at the threshold",
)

# %% [markdown]
# ### Draw something
#
# The model of clothes runs in the page. **Try:** draw a digit, then a shirt. Which has the lower NLL, which the lower regret? Then make the NLL as small as you can: how simple must a drawing be, and does its regret follow?

# %% tags=["hide-input"]
live.regret(
    model,
    {name: sets[home][name] for name in (home, away)},
    bits=10,
    trained=f"{s.train_images:,} images, {s.epochs} epochs, {s.latent} latent "
    "variables",
)

# %% [markdown]
# Which images have the most regret? The images of both sets with the least and with the most, with their reconstructions *before* any re-fitting. Images of the world with a
# high regret are often odd ones out; images from outside with a low regret look like something from the world.

# %% tags=["hide-input"]
rows = {}
for name in (home, away):
    order = score("regret, posterior", home, name).argsort()
    chosen = torch.cat([order[:5], order[-5:]])
    rows[f"{name}"] = sets[home][name][chosen]
    rows[f"{name}, reconstructed"] = model.reconstruct(rows[name].to(device)).cpu()
show(
    image_rows(rows),
    caption="In each row the five images with the least regret, then the five with "
    "the most (posterior variant). Below each set, the decoder's answer to "
    "the trained encoder's guess.",
    alt="Four rows of ten images: images of the world and their reconstructions, "
    "images from outside and their reconstructions.",
)

# %% [markdown]
# ## 7. Every knob is part of the score
#
# **Steps and learning rate.** Too few steps and nothing has happened yet. With many, every image arrives at its own best guess, those of the world too; and with a large rate the last
# steps are noise. See which of these matters.

# %% [markdown]
# **Predict, then run.** As the number of steps grows, does the AUROC of the regret rise for ever, rise and level off, or rise and fall? Think of what a re-fitted image of the *world* gains in the end.

# %% tags=["hide-input"]
n = s.knob_images
grids = {
    "posterior": (
        pick(
            smoke=[1, 10],
            cpu=[3, 10, 30, 100, 300],
            gpu=[1, 3, 10, 30, 100, 300],
            paper=[1, 3, 10, 30, 100, 300, 1000],
        ),
        [5e-3, 2e-2, 1e-1],
    ),
    "encoder": (
        pick(
            smoke=[1, 10],
            cpu=[10, 30, 100],
            gpu=[3, 10, 30, 100, 300],
            paper=[3, 10, 30, 100, 300],
        ),
        [5e-5, 2e-4, 1e-3],
    ),
}
knobs = {}
for adapt, (steps_grid, rates) in grids.items():
    size = n if adapt == "posterior" else max(1, n // 2)
    for lr in rates:
        for k in steps_grid:
            a, b = (
                stored(
                    f"{adapt}, {k} steps of {lr:g}, {name}",
                    regret_of,
                    sets[home][name][:size],
                    model,
                    adapt=adapt,
                    steps=k,
                    lr=lr,
                )
                for name in (home, away)
            )
            knobs[adapt, lr, k] = (
                auroc(a, b).value,
                a.mean().item(),
                b.mean().item(),
            )

# %% tags=["hide-input"]
fig, axes = plt.subplots(
    1, 2, figsize=(7.6, 3.2), sharey=True, layout="constrained"
)
for ax, (adapt, (steps_grid, rates)) in zip(axes, grids.items(), strict=True):
    for lr, marker in zip(rates, "osv", strict=True):
        ax.plot(
            steps_grid,
            [knobs[adapt, lr, k][0] for k in steps_grid],
            f"{marker}-",
            label=f"learning rate {lr:g}",
        )
    ax.axhline(0.5, color="black", lw=1, ls=":")
    ax.set(xscale="log", xlabel="steps", title=f'adapt="{adapt}"')
    ax.legend(fontsize=9)
axes[0].set_ylabel(f"AUROC, {home} → {away}")
show(
    fig,
    caption="AUROC against the number of steps, for three learning rates of each "
    "variant. The dotted line is chance.",
    alt="Two panels of curves: area under the ROC curve against the number of "
    "optimisation steps for three learning rates.",
)

# %% [markdown]
# In the stored run (`cpu`) more steps help up to about a hundred and then do little, except at the largest rates: there the AUROC of the posterior variant turns down in the end, and ten large steps of the encoder make the bound of both sets *worse*. An early stop is not what makes the score work; it saves time.
#
# **The bound.** The authors climb the ELBO but *score* with the importance-weighted bound of 1,000 samples. Both terms of the
# regret then move towards the same number, $\log p_\theta(x)$, whatever the encoder ([chapter 1](01_vae.ipynb), section 7): to leading order the bound of $S$ samples falls short by
# $\operatorname{Var}(w) / (2 S\, p_\theta(x)^2)$, so the regret must fade as $1/S$ once $S$ is large enough. A better bound makes a *smaller* regret. Whether it makes a worse detector is another matter.

# %% tags=["hide-input"]
bound_samples = pick(
    smoke=[1, 10],
    cpu=[1, 10, 100],
    night=[1, 10, 100, 1000],
    gpu=[1, 10, 100, 1000],
    paper=[1, 10, 100, 1000, 10_000],
)
fading = []
for k in bound_samples:
    options = dict(
        bound=importance_bound,
        objective=elbo,
        samples=k,
        adapt="posterior",
        steps=s.steps,
    )
    a, b = (
        stored.chunks(
            f"regret by {k} weighted samples, {name}",
            regret_of,
            sets[home][name][:n],
            model,
            chunk=25,
            **options,
        )
        for name in (home, away)
    )
    fading.append((k, a.mean().item(), b.mean().item(), auroc(a, b)))
tell(
    "The regret measured with the importance-weighted bound (posterior variant, "
    f"{n} + {n} images):\n\n"
    + markdown_table(
        ["samples S", f"mean regret, {home}", f"mean regret, {away}", "AUROC"],
        [
            [
                f"{k:,}",
                f"{a:.2f}",
                f"{b:.2f}",
                number(area.value, area.standard_error),
            ]
            for k, a, b, area in fading
        ],
    )
)

# %% [markdown]
# In the stored run (`cpu`) the regret shrinks with $S$, more slowly than $1/S$: with so many latent variables a hundred samples are far from enough for the leading order. The AUROC of these few images hardly moves from one $S$ to the next, but all are below the ELBO's: in the table of section 6 the weighted score is worse on nearly every row where there is room, for both variants,
# though with so few images on three of them alone by more than two standard errors of the paired difference. The draws of a single image are noisy, and a difference of two weighted bounds keeps more of that noise than of the signal. (The paper's thousand samples are in the profiles `night` and above.)
#
# So say which bound you used, and do not compare regrets that were measured with different ones.
#
# **The training.** The regret compares the encoder with what the decoder could do, so the decoder must be able to do something. Does a better model regret less? Follow one model through its training, from a first look at a tenth of the images on.

# %% tags=["hide-input"]
early = new_vae(shapes[home], 0, s.width)
trained(
    f"a tenth of {home}",
    early,
    elbo,
    training[home][: s.train_images // 10],
    epochs=1,
    batch_size=128,
)
stages = {0.1: early}
for epoch, file in enumerate(histories[home, 0].checkpoints, start=1):
    stages[epoch] = new_vae(shapes[home], 0, s.width)
    stages[epoch].load_state_dict(load_checkpoint(file)["model"])
    stages[epoch].to(device).eval()
course = {}
for epoch, stage in stages.items():
    of_stage = {}
    for name in (home, away):
        x = sets[home][name][:n]
        of_stage[name] = (
            stored(
                f"NLL of {name} after {epoch} epochs",
                nll_of,
                x,
                stage,
                s.nll_samples,
            ),
            stored(
                f"regret of {name} after {epoch} epochs",
                regret_of,
                x,
                stage,
                adapt="posterior",
                steps=s.steps,
            ),
        )
    course[epoch] = {
        "NLL": auroc(of_stage[home][0], of_stage[away][0]),
        "regret, posterior": auroc(of_stage[home][1], of_stage[away][1]),
        "means": {
            name: (v[0].mean().item(), v[1].mean().item())
            for name, v in of_stage.items()
        },
    }

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2), layout="constrained")
for kind, marker in (("NLL", "s"), ("regret, posterior", "o")):
    found = [course[epoch][kind] for epoch in stages]
    left.errorbar(
        [*stages],
        [a.value for a in found],
        [a.standard_error for a in found],
        fmt=f"{marker}-",
        capsize=3,
        label=kind,
    )
left.axhline(0.5, color="black", lw=1, ls=":")
left.set(
    xscale="log", xlabel="epochs of training", ylabel=f"AUROC, {home} → {away}"
)
left.legend(fontsize=9)
for name, marker in ((home, "o"), (away, "^")):
    right.plot(
        [*stages],
        [course[epoch]["means"][name][1] for epoch in stages],
        f"{marker}-",
        label=name,
    )
right.set(
    xscale="log",
    yscale="log",
    xlabel="epochs of training",
    ylabel="mean regret, nats",
)
right.legend(fontsize=9)
for ax in (left, right):
    ax.minorticks_off()
    ax.set_xticks([*stages] if len(stages) < 5 else [0.1, 1, 3, len(stages) - 1])
    ax.xaxis.set_major_formatter("{x:g}")
show(
    fig,
    caption="One model in the course of its training (0.1: one pass over a tenth "
    "of the images). Left: how well NLL and regret detect the outside "
    "set, with standard errors over images. Right: the mean regret of "
    "both sets.",
    alt="Two line charts against epochs of training: area under the ROC curve of "
    "two scores, and mean regret of the world and of the outside set.",
)

# %% [markdown]
# In the stored run (`cpu`) the regret of a hardly trained model is no better than chance, since such a model regrets everything alike. Training *lowers* the regret of the world and *raises* that of the outside set: the decoder learns what it could say about any strokes, the encoder learns to find it for clothes alone. The likelihood stays below chance throughout.
#
# **The network.** `dcgan` is not quite the network of the authors. [Theirs](https://github.com/XavierXiao/Likelihood-Regret), `authors_dcgan`, normalises after the encoder's first convolution too, has plain ReLUs there, and no bias at the output. Does that matter? The same images in the same order, the same number of epochs:

# %% tags=["hide-input"]
theirs = new_vae(shapes[home], 0, s.width, network=authors_dcgan)
trained(
    f"the authors' network, VAE of {home}, seed 0",
    theirs,
    elbo,
    training[home],
    epochs=s.epochs,
    batch_size=128,
)
by_network = {
    "`dcgan`": {
        name: (score("NLL", home, name), score("regret, posterior", home, name))
        for name in (home, away)
    },
    "`authors_dcgan`": {
        name: (
            stored(
                f"NLL of {name}, their network",
                nll_of,
                sets[home][name],
                theirs,
                s.nll_samples,
            ),
            stored(
                f"regret of {name}, their network",
                regret_of,
                sets[home][name],
                theirs,
                adapt="posterior",
                steps=s.steps,
            ),
        )
        for name in (home, away)
    },
}
network_areas = {
    network: {
        kind: auroc(values[home][i], values[away][i])
        for i, kind in enumerate(("NLL", "regret, posterior"))
    }
    for network, values in by_network.items()
}
tell(
    markdown_table(
        ["network", f"mean NLL, {home}", "AUROC of the NLL", "of the regret"],
        [
            [
                network,
                f"{by_network[network][home][0].mean():.1f}",
                *(number(a.value, a.standard_error) for a in row.values()),
            ]
            for network, row in network_areas.items()
        ],
    )
    + f"\n\n{home} → {away}, seed 0 of either, {s.test_images} images of each set; "
    "regret: posterior variant."
)

# %% [markdown]
# Hardly. Under either network digits are more likely than clothes, and under either the regret finds them out; the differences are within the error of so few images.
#
# ## 8. What it does not do
#
# First what this run shows, then what no run can show.

# %% tags=["hide-input"]
ours = "regret, posterior"
beaten = []
for w, name in rows_of:
    simpler = max(SCORES[:3], key=lambda kind: areas[w][name][kind][0])
    (a, e), (b, f) = areas[w][name][simpler], areas[w][name][ours]
    if a - b > 2 * hypot(e, f):
        beaten.append(f"{w} → {name} ({simpler} {a:.3f}, regret {b:.3f})")
hardest = min(rows_of, key=lambda row: areas[row[0]][row[1]][ours][0])
tell(
    f"In this run the regret (posterior variant) is weakest on {hardest[0]} → "
    f"{hardest[1]}, at {areas[hardest[0]][hardest[1]][ours][0]:.3f}. "
    + (
        "A simpler score is better by more than two standard errors on "
        + "; ".join(beaten)
        + "."
        if beaten
        else "No simpler score is better anywhere by more than two standard errors."
    )
)

# %% [markdown]
# - **It measures the encoder's ignorance, not the image's strangeness.** An image that the encoder happens to handle has little regret, however odd. A world whose images
#   include something like the outside (handwritten letters for a model of handwritten digits) teaches the encoder to handle the outside too.
# - **It needs a decoder that can do better.** If no $z$ explains the image, re-fitting gains little. Far-off images such as noise are caught anyway as a rule, because the gap is wide, but nothing guarantees it.
# - **It feeds on a weakness.** Whatever closes the amortisation gap everywhere (a richer posterior, iterative inference, an encoder trained on all sorts of images) would take the regret away with it.
# - **It takes an optimisation per image.** The posterior variant makes that bearable.
# - **The protocol is kinder than the world.** The outside sets are known, clean and half of the data. A deployed detector meets one stranger in a thousand images, of a kind that nobody has named; then precision at a low rate of false alarms matters, about which the AUROC says little. And steps and rate were chosen by the paper's authors, and by us for the posterior variant, on sets like these.


# %% tags=["hide-input"]
def kept(area: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("mean", "standard_error"), area, strict=True))


save_results(
    "03_likelihood_regret",
    {
        "settings": vars(s),
        "auroc": {
            w: {
                name: {kind: kept(area[kind]) for kind in SCORES}
                for name, area in areas[w].items()
            }
            for w in worlds
        },
        "average_auroc": average,
        "paired": {
            what: {row: kept(d) for row, d in rows.items()}
            for what, rows in differences.items()
        },
        "rank_correlation_nll_regret": spearman,
        "rooms": {
            f"world of {w}": {
                f"{k} objects": {
                    kind: kept(room_areas[w][k][kind])
                    | {"mean_score": room_scores[kind, w, 0, k].mean().item()}
                    for kind in ROOM_SCORES
                }
                for k in objects
            }
            for w in room_worlds
        },
        "rooms_raised_by_an_object": room_shares,
        "rank_correlation_file_nll": file_rank,
        "ratio_rate": chosen_rate,
        "main_pairs": {
            w: {
                kind: dict(
                    zip(("auprc", "fpr_at_80_tpr", "fpr_at_95_tpr"), v, strict=True)
                )
                for kind, v in details[w].items()
            }
            | {"outside": studies[w][0]}
            for w in worlds
        },
        "mean_score": {
            w: {
                name: {kind: score(kind, w, name).mean().item() for kind in SCORES}
                for name in sets[w]
            }
            for w in worlds
        },
        "milliseconds_an_image": cost,
        "steps_and_rates": [
            {
                "adapt": adapt,
                "lr": lr,
                "steps": k,
                "auroc": v[0],
                "mean_inside": v[1],
                "mean_outside": v[2],
            }
            for (adapt, lr, k), v in knobs.items()
        ],
        "importance_bound": [
            {"samples": k, "mean_inside": a, "mean_outside": b, "auroc": kept(area)}
            for k, a, b, area in fading
        ],
        "networks": {
            network.strip("`"): {kind: kept(area) for kind, area in row.items()}
            | {"mean_nll": by_network[network][home][0].mean().item()}
            for network, row in network_areas.items()
        },
        "training": {
            str(epoch): {kind: kept(found[kind]) for kind in ("NLL", ours)}
            | {"means": found["means"]}
            for epoch, found in course.items()
        },
        "categorical": {
            name: {kind: kept(a) for kind, a in row.items()}
            for name, row in levels_area.items()
        },
        "categorical_average": levels_average,
    },
)

# %% [markdown]
# **Ask yourself.** One image in a thousand is a stranger. A detector finds 80 % of the strangers and accuses 5 % of the rest. What share of its alarms is right?
#
# <details><summary>One answer</summary>
#
# Of 100,000 images 100 are strangers, of which 80 are found; of the other 99,900 it accuses 4,995. So 80 of 5,075 alarms are right, 1.6 %. The AUROC of such a detector may well be 0.95.
#
# </details>

# %% [markdown]
# ## 9. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# [The same chapter without them](https://colab.research.google.com/github/vaekit/vaekit/blob/student/03_likelihood_regret.ipynb) opens in Colab.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a second or two.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("3.1")

# %% [markdown]
# ### Exercise 3.1 · The area by counting (10 minutes)
#
# The AUROC is the probability that an outside image scores above an inside image, with ties counted one half. Write it as that, without any curve.

# %% tags=["exercise"]
def area_by_counting(
    scores_in: torch.Tensor, scores_out: torch.Tensor
) -> torch.Tensor:
    """Share of pairs (inside, outside) in the right order, ties counted one half.

    [M], [N] -> a 0-dimensional tensor.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("3.1", area_by_counting)
# hint("3.1")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_3_1(scores_in: torch.Tensor, scores_out: torch.Tensor) -> torch.Tensor:
    above = (scores_out[:, None] > scores_in).double()
    ties = (scores_out[:, None] == scores_in).double()
    return (above + 0.5 * ties).mean()


# %% [markdown]
# ### Exercise 3.2 · Whom does a linear model regret? (25 minutes)
#
# Section 5 has the regret of one image. Which *kind* of images has a large one on average? Let the encoder be linear, $\mu(x) = A(x - b)$ with a constant $\sigma$, where the right answer would be $m(x) = M(x - b)$, and let the images have the second moment
# $S = \mathbb E[(x - b)(x - b)^\top]$. Derive the closed form (3.4) once more for yourself, from $\mathrm{LR}(x) = \mathrm{KL}(q_\phi \| p(z|x)) - \min_q \mathrm{KL}(q \| p(z|x))$ over diagonal Gaussians $q$; then its mean over the images; then write the mean as a function. For which $S$ is only the width's share left?
#
# <details><summary>Solution</summary>
#
# $2\,\mathrm{KL}\big(\mathcal N(\mu, \operatorname{diag}\sigma^2) \,\|\, \mathcal N(m, \Lambda^{-1})\big) = \sum_d \Lambda_{dd}\sigma_d^2 + (\mu - m)^\top\Lambda(\mu - m) - D - \log|\Lambda| - \sum_d\log\sigma_d^2$.
# The best $q$ has $\mu = m$ and $\sigma_d^2 = 1/\Lambda_{dd}$, where twice the divergence is $\sum_d \log\Lambda_{dd} - \log|\Lambda|$. Subtract: $D$ becomes
# a 1 under the sum, $\log|\Lambda|$ cancels, and (3.4) is left. Only its second term depends on the image, through $v = \mu - m = (A - M)(x - b)$, and $\mathbb E[v^\top \Lambda v] = \operatorname{tr}(\Lambda\, \mathbb E[v v^\top])$. So
# $$\mathbb E[\mathrm{LR}] = \tfrac12\sum_d\big(\Lambda_{dd}\sigma_d^2 - 1 - \log(\Lambda_{dd}\sigma_d^2)\big) + \tfrac12\operatorname{tr}\big((A - M)^\top \Lambda\, (A - M)\, S\big).$$
# How likely the images are plays no part. An encoder trained on a world is right where that world varies: there $(A - M)$ is small. In directions in which the training images do not vary nothing has ever corrected it, and images with variance *there* are regretted. If $S$ lives where $A = M$, only the width is left.
#
# Your derivation is complete if it
#
# - starts from two divergences with the *same* $p(z|x)$, and says why the second has $\mu = m$ and $\sigma_d^2 = 1/\Lambda_{dd}$;
# - shows what cancels;
# - takes the mean with a trace, not image by image;
# - says in words which images have a large regret.
#
# </details>

# %% tags=["exercise"]
def mean_regret(
    A: torch.Tensor,
    std: torch.Tensor,
    M: torch.Tensor,
    precision: torch.Tensor,
    S: torch.Tensor,
) -> torch.Tensor:
    """Mean regret in nats over images with the second moment S [P, P].

    A, M: [D, P]; std: [D]; precision: [D, D], of the exact posterior.
    Returns a 0-dimensional tensor.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("3.2", mean_regret)
# hint("3.2")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_3_2(
    A: torch.Tensor,
    std: torch.Tensor,
    M: torch.Tensor,
    precision: torch.Tensor,
    S: torch.Tensor,
) -> torch.Tensor:
    t = precision.diagonal() * std**2  # [D]
    width = 0.5 * (t - 1 - t.log()).sum()
    return width + 0.5 * ((A - M).T @ precision @ (A - M) @ S).trace()


# %% [markdown]
# ### Exercise 3.3 · How little of an encoder has to move (25 minutes)
#
# Re-fit *only the biases of the encoder's last layer*, image by image, with Adam. Explain why the result must equal `adapt="posterior"`, step by step and not only in
# the limit. The check hands in a linear model, whose last layer is `model.encoder[1]`, and its ELBO in closed form, `bound(model, x)`, which draws nothing.
#
# <details><summary>Solution</summary>
#
# The biases $c$ are added to the encoder's answer, $(\mu, \log\sigma) = h(x) + c$. So the bound is the same function of $c$ as of the answer, up to a shift, and its gradients with respect to both are equal. Adam sees the same gradients from the same start, keeps the same moments, and takes the same steps; after each, the answer is the same. It needs one copy of the biases
# for each image: a shared one would be pulled by all of them.
#
# Your explanation is complete if it
#
# - writes the answer as a function of the biases;
# - compares gradients, not only optima;
# - says why Adam, whose steps depend on the whole history, still agrees.
#
# </details>

# %% tags=["exercise"]
def regret_of_biases(
    model: VAE, bound, x: torch.Tensor, steps: int, lr: float
) -> torch.Tensor:
    """Regret [B] after `steps` of Adam on each image's own last biases."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("3.3", regret_of_biases)
# hint("3.3")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_3_3(
    model: VAE, bound, x: torch.Tensor, steps: int, lr: float
) -> torch.Tensor:
    gains = []
    for image in x.split(1):
        fitted = copy.deepcopy(model)
        optimizer = torch.optim.Adam([fitted.encoder[1].bias], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            (-bound(fitted, image).sum()).backward()
            optimizer.step()
        gains.append((bound(fitted, image) - bound(model, image)).detach())
    return torch.cat(gains)


# %% [markdown]
# ### Exercise 3.4 · Typicality (research, an afternoon on Colab)
#
# If outside images can be *too likely*, why not raise the alarm on either side? A **typicality** score is the distance of an image's NLL from what is usual for the world,
# $|\mathrm{NLL}(x) - \overline{\mathrm{NLL}}|$ with the mean taken over held-out images of the world ([Nalisnick et al., 2019](https://arxiv.org/abs/1906.02994) test whole batches in this way). Write it.

# %% tags=["exercise"]
def typicality(nll: torch.Tensor, nll_of_the_world: torch.Tensor) -> torch.Tensor:
    """Distance of each NLL from the mean over held-out images of the world.

    [B], [M] -> [B].
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("3.4", typicality)
# hint("3.4")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_3_4(nll: torch.Tensor, nll_of_the_world: torch.Tensor) -> torch.Tensor:
    return (nll - nll_of_the_world.mean()).abs()


# %% [markdown]
# Then add it to the table of section 6, and answer: on which rows does it rescue the NLL, on which does it harm it, and what does a histogram tell about why it cannot catch up with the regret on others?
#
# <details><summary>Solution</summary>
#
# It folds the NLL's axis at the world's mean. Where an outside set lies wholly on the *low* side, as digits do for a model of clothes, the NLL ranks nearly every pair wrongly, and the fold turns most of them round: it rescues these rows. Where an outside set lies on the high side already, the fold helps nothing and brings in the world's own left tail: it does a little harm.
# It fails where the histograms of world and outside *overlap in the middle*: an outside image of ordinary NLL is typical by definition, and no function of the NLL alone can tell it from the world. The regret can, because it asks a second question of the image, how much its own guess could be improved.
#
# Your report is complete if it
#
# - takes the mean from held-out images of the world, not from those that are judged;
# - shows NLL, typicality and regret side by side with standard errors, for both worlds;
# - has the two histograms for a row that is rescued and for one that is not;
# - says what a batch of images could do that one image cannot.
#
# </details>

# %% [markdown]
# ## 10. Further reading
#
# - [Xiao, Yan & Amit, *Likelihood Regret*, 2020](https://arxiv.org/abs/2003.02977): the paper of this chapter.
# - [Nalisnick et al., *Do Deep Generative Models Know What They Don't Know?*, 2019](https://arxiv.org/abs/1810.09136): the failure, and a second-order explanation of it.
# - [Serrà et al., *Input Complexity and Out-of-distribution Detection*, 2020](https://arxiv.org/abs/1909.11480), and [Ren et al., *Likelihood Ratios for Out-of-Distribution Detection*, 2019](https://arxiv.org/abs/1906.02845): the two baselines.
# - [Cremer, Li & Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018](https://arxiv.org/abs/1801.03558): the amortisation gap, measured.
