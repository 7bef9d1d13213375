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
from functools import partial
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.distributions import kl_divergence

from vaekit import (
    VAE, bernoulli, categorical256, dcgan, elbo, fit, gaussian, importance_bound,
    likelihood_regret, mlp, mutated, negative_log_likelihood,
)
from vaekit.datasets import load
from vaekit.metrics import auprc, auroc, fpr_at_tpr, mean_and_standard_error
from vaekit.notebook import (
    COLOURS, check, frames, hint, image_rows, markdown_table, pick, save_results, show,
    tell, use_style,
)
from vaekit.regret import code_length
from vaekit.training import default_device, seeded

use_style()
device = default_device()

# %% [markdown]
# ## 1. A model of clothes meets a digit
#
# We train a VAE on one data set, its *world*, and show it images from others. The images are grey, 32 × 32 (surrounded by
# black where they are smaller), and two sets are made up: uniform noise, and images of one constant grey.

# %% [markdown]
# **Predict, then run.** Two histograms come next: the NLL of clothes and that of digits, under a model that has seen nothing but clothes. Which lies further left, and do they overlap? Draw your guess before you look.

# %% tags=["hide-input"]
grey = ["kmnist", "notmnist", "omniglot", "emnist-letters", "cifar10-gray"]
# a world, and what lies outside it
big = {"fashion-mnist": ["mnist", *grey], "mnist": ["fashion-mnist", *grey]}
studies = pick(
    smoke={"shapes": ["digits"], "digits": ["shapes"]},
    cpu=big,
    gpu=big,
    paper=big | {"cifar10": ["svhn"], "svhn": ["cifar10"]},
)
settings = pick(
    smoke=dict(
        size=8,
        latent=4,
        train=1000,
        epochs=4,
        seeds=2,
        n=60,
        n_others=40,
        n_encoder=20,
        nll_samples=10,
        steps=20,
        categorical=200,
    ),
    cpu=dict(
        size=32,
        width=16,
        latent=32,
        train=60_000,
        epochs=2,
        seeds=2,
        n=500,
        n_others=250,
        n_encoder=50,
        nll_samples=50,
        steps=100,
        categorical=4000,
    ),
    gpu=dict(
        size=32,
        width=32,
        latent=100,
        train=60_000,
        epochs=20,
        seeds=3,
        n=500,
        n_others=500,
        n_encoder=500,
        nll_samples=1000,
        steps=100,
        categorical=60_000,
    ),
    paper=dict(
        size=32,
        width=32,
        latent=100,
        train=60_000,
        epochs=200,
        seeds=5,
        n=500,
        n_others=500,
        n_encoder=500,
        nll_samples=1000,
        steps=100,
        categorical=60_000,
    ),
)
worlds = list(studies)


def pictures(name: str, n: int, shape: tuple[int, ...]) -> torch.Tensor:
    """n test images of a set, drawn with a fixed seed: [n, *shape]."""
    g = torch.Generator().manual_seed(0)
    if name == "noise":
        return torch.randint(256, (n, *shape), generator=g) / 255
    if name == "constant":
        return (
            (torch.randint(256, (n, shape[0], 1, 1), generator=g) / 255)
            .expand(n, *shape)
            .contiguous()
        )
    images = load(
        name, "train" if name == "cifar10-gray" else "test", size=settings["size"]
    ).images
    return images[torch.randperm(len(images), generator=g)[:n]]


# %% tags=["hide-input"]
def new_vae(
    shape: tuple[int, ...], seed: int, outputs: int = 1, width: int | None = None
) -> VAE:
    """The paper's convolutional networks (in the smoke profile: small perceptrons).
    """
    latent, width = settings["latent"], width or settings.get("width")
    with seeded(seed):
        pair = (
            dcgan(shape, latent, width=width, outputs=outputs)
            if width
            else mlp(shape, latent, hidden=(64,), outputs=outputs)
        )
        return VAE(
            *pair,
            latent_dim=latent,
            likelihood=categorical256 if outputs > 1 else bernoulli,
        )


training = {
    w: load(w, "train", size=settings["size"]).images[: settings["train"]]
    for w in worlds
}
shapes = {w: tuple(training[w].shape[1:]) for w in worlds}
models: dict[str, list[VAE]] = {w: [] for w in worlds}  # one for each seed
for w in worlds:
    for seed in range(settings["seeds"]):
        models[w].append(new_vae(shapes[w], seed))
        fit(
            models[w][-1],
            elbo,
            training[w],
            epochs=settings["epochs"],
            batch_size=128,
            seed=seed,
            progress=False,
        )

# %% [markdown]
# For every image we estimate $\log p_\theta(x)$ by importance sampling. If the likelihood knew its own, images from outside
# would have a higher *negative* log-likelihood (NLL). (With grey levels the Bernoulli decoder computes a cross-entropy and no density; section 7 repeats the comparison with a proper one.)

# %%
sets = {
    w: {
        name: pictures(
            name,
            settings["n" if name in (w, studies[w][0]) else "n_others"],
            shapes[w],
        )
        for name in [w, *studies[w], "noise", "constant"]
    }
    for w in worlds
}
# the pair that we look at most closely
home, away = worlds[0], studies[worlds[0]][0]
model, shape = models[home][0], shapes[home]
with seeded(0, device):
    nll = {
        name: negative_log_likelihood(
            model, x, samples=settings["nll_samples"]
        ).cpu()
        for name, x in sets[home].items()
    }

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(7, 3.2))
bins = np.linspace(
    min(v.min() for v in nll.values()),
    torch.cat([nll[home], nll[away]]).quantile(0.99),
    50,
)
for name, colour in ((home, COLOURS[0]), (away, COLOURS[1])):
    ax.hist(
        nll[name],
        bins,
        alpha=0.6,
        color=colour,
        label=f"{name} ({'the world' if name == home else 'outside'})",
    )
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
area = auroc(nll[home], nll[away])
tell(
    f"The probability that an image of {away} has a higher NLL than one of {home} "
    f"is **{area.value:.3f} ± {area.standard_error:.3f}**: "
    + (
        "worse than tossing a coin. Most images from outside look *more* likely "
        "than the model's own."
        if area.value < 0.5
        else "in this run the likelihood does tell them apart; the table of "
        "section 6 shows where it does not."
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
# seen a dark background. A shirt has texture, and texture costs nats even if one has seen a million shirts. That likelihoods
# fail in this way was found for flows, autoregressive models and VAEs alike ([Nalisnick et al., 2019](https://arxiv.org/abs/1810.09136)); that the cost of the image itself is behind it was argued by [Serrà et al. (2020)](https://arxiv.org/abs/1909.11480).
#
# If that is right, a program that knows nothing about clothes should predict the NLL. Take the size of the image's PNG file.

# %% [markdown]
# **Warm-up 3.a · The same unit.** Fill in the blank: a score that subtracts from each image's NLL (in nats) the size of its file (in bytes).

# %% tags=["warm-up", "nbval-check-output"]
def beyond_the_file(nll: torch.Tensor, file_size: torch.Tensor) -> torch.Tensor:
    """NLL in nats less the file's size in nats; sizes come in bytes. [B], [B] -> [B]."""
    return ...  # fill in


check("3.a", beyond_the_file)

# %% tags=["hide-input"]
length = {name: code_length(x) for name, x in sets[home].items()}  # [n], in nats
fig, ax = plt.subplots(figsize=(6.5, 3.8))
for (name, values), colour, marker in zip(
    nll.items(), [*COLOURS, "0.5"], "osv^<>DP", strict=False
):
    ax.scatter(
        length[name],
        values,
        s=9,
        alpha=0.5,
        color=colour,
        marker=marker,
        label=name,
    )
ax.set(
    xscale="log",
    yscale="log",
    xlabel="size of the PNG file, nats",
    ylabel="negative log-likelihood, nats",
)
ax.legend(fontsize=8, markerscale=2, ncols=2)
show(
    fig,
    caption="Each point is an image: the size of its PNG file against its NLL "
    f"under the model of {home}. Images that compress well are likely, "
    "whatever they show.",
    alt="Scatter plot on logarithmic axes; the negative log-likelihood rises with "
    "the size of the compressed file across data sets.",
)
named = [name for name in nll if name not in ("noise", "constant")]
stacked = torch.stack(
    [
        torch.cat([values[name] for name in named]).argsort().argsort().float()
        for values in (length, nll)
    ]
)
tell(
    "Rank correlation between the two over all real images: "
    f"**{torch.corrcoef(stacked)[0, 1].item():.2f}**."
)

# %% [markdown]
# Real images, that is: an image of one constant grey, which is not in the figure, compresses best of all and is unlikely nevertheless, as the table of section 6 shows.
#
# ## 3. What the regret asks
#
# We want to divide out what *any* explanation of the image would cost. Compare the model with the best explanation
# of this one image that a model of its kind could give:
#
# $$\log \frac{\max_{\text{parameters}}\; p(x)}{p_{\text{trained}}(x)}.$$
#
# Numerator and denominator share the cost that comes with the image, so it cancels. But a numerator that may do
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
# $$\mathcal L(x; \theta, q) = \log p_\theta(x) - \mathrm{KL}\big(q(z) \,\|\, p_\theta(z \mid x)\big). \tag{3.2}$$
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
#    $p_\theta(z \mid x)$, and how far a given mistake of the encoder counts in them depends on how *sharp* that posterior is: an image with much to explain pins $z$ down, and the same step away from its mean then
#    costs more nats. So the regret still tends to be larger for busy images than for simple ones; keep this in mind for the rows of section 6 in which it does worst.
# 2. **The regret is the amortisation gap** that we measured in the first chapter, image by image. The encoder was trained to
#    be right about its world; elsewhere it extrapolates, and the gap opens. The regret is an alarm raised by the *encoder's* ignorance.
# 3. $0 \le \mathrm{LR}(x) \le \log p_\theta(x) - \mathcal L(x; \theta, \phi)$: it can never exceed the whole posterior gap.
#
# ### What "max" means
#
# A whole encoder can reach any $(\mu, \log\sigma)$ for a single image; moving the biases of its last layer is enough (exercise 3). So with
# enough steps, re-fitting the encoder and re-fitting $\mu$ and $\log\sigma$ directly would end at the same place. The paper takes
# **100 steps of Adam** with learning rate $2 \cdot 10^{-4}$, and stops short of it; and since the steps are noisy, an estimated regret can come out a little below zero. Steps and rate are therefore part of the *definition*
# of the score. We shall use two variants:
#
# - `adapt="encoder"`, the paper's: a copy of the whole encoder for each image;
# - `adapt="posterior"`, which the authors' published code does not have: $\mu$ and $\log\sigma$ themselves. The encoder runs once, so it is much cheaper.
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


few = torch.cat([sets[home][home][:2], sets[home][away][:2]]).to(device)
one_by_one = torch.cat(
    [regret_of_one(model, image, settings["steps"]) for image in few.split(1)]
)
together = likelihood_regret(model, few, steps=settings["steps"], progress=False)
tell(
    "Regret in nats of two images of each set:\n\n"
    + markdown_table(
        ["", *(f"{name} {i}" for name in (home, away) for i in (1, 2))],
        [
            ["one by one", *(f"{v:.2f}" for v in one_by_one)],
            ["`likelihood_regret`", *(f"{v:.2f}" for v in together)],
        ],
    )
)

# %% [markdown]
# A loop over images leaves the processor mostly waiting, and putting several images through *one* copy would be wrong: they
# would be fitted jointly, and an image's score would depend on its neighbours. The library gives every image its own weights and computes
# all of them at once. `torch.func` makes that short:
#
# ```python
# def value(weights, image):                                       # the bound of one image, given an encoder
#     return functional_call(pair, weights, (image[None],)).squeeze(0)
#
# weights = {name: p.expand(B, *p.shape).clone() for name, p in encoder.named_parameters()}   # [B, ...] each
# gradients = vmap(grad(value), randomness="same")(weights, images)                           # likewise
# ```
#
# `grad` differentiates with respect to the encoder's weights, `vmap` turns "for each image" into one batched computation, and
# `randomness="same"` gives each image the noise that it would see alone. Adam works element by element, so one Adam on the stacked weights is $B$
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
# ## 6. The experiment
#
# Beside the regret stand the scores that it has to beat:
#
# - the **NLL**;
# - the **likelihood ratio** to a background model ([Ren et al., 2019](https://arxiv.org/abs/1906.02845)): a second VAE learns from images
#   in which each pixel was replaced, with probability 0.2, by a random grey level. What it knows is "background", and is subtracted: $\log p_{\text{background}}(x) - \log p_\theta(x)$;
# - **input complexity** ([Serrà et al., 2020](https://arxiv.org/abs/1909.11480)): $-\log p_\theta(x) - L(x)$ with $L(x)$ the length of the PNG or JPEG 2000 file, the idea of section 2 made into a score. Both terms in nats. *Read these two columns with care:* the difference has a meaning where both terms are code lengths of the same thing, the 256 grey levels. Under our Bernoulli decoder the first term is a cross-entropy and no code length, several times smaller than the second; so these two columns rank the images almost by the size of their files alone, the smallest first. They say what a file's size can do, not what the score of Serrà et al. can.
#
# Each is one call in the library (`negative_log_likelihood`, `likelihood_ratio`, `input_complexity`, `likelihood_regret`); below they share the NLL, to compute it only once.

# %% [markdown]
# **Predict, then run.** Cover the table below. For each of the two worlds, which outside set will the NLL miss worst? And will the regret be the best score on every row? Rank the scores before you look.

# %% tags=["hide-input"]
backgrounds = {w: new_vae(shapes[w], seed=100) for w in worlds}
for w in worlds:
    fit(
        backgrounds[w],
        mutated(elbo, rate=0.2),
        training[w],
        epochs=settings["epochs"],
        batch_size=128,
        progress=False,
    )

regret = partial(likelihood_regret, steps=settings["steps"], progress=False)
SCORES = (
    "NLL",
    "likelihood ratio",
    "complexity, PNG",
    "complexity, JPEG 2000",
    "regret, posterior",
    "regret, encoder",
)


def all_scores(w: str, x: torch.Tensor, n_encoder: int) -> dict[str, torch.Tensor]:
    """All six scores [n] of images; the last, which costs most, of the first
    n_encoder only.
    """
    vae = models[w][0]
    with seeded(0, device):
        nll = negative_log_likelihood(vae, x, samples=settings["nll_samples"]).cpu()
        background = negative_log_likelihood(
            backgrounds[w], x, samples=settings["nll_samples"]
        ).cpu()
    complexity = [
        nll - code_length(x, codec=codec) for codec in ("png", "jpeg2000")
    ]
    return dict(
        zip(
            SCORES,
            [
                nll,
                nll - background,
                *complexity,
                regret(vae, x, adapt="posterior").cpu(),
                regret(vae, x[:n_encoder]).cpu(),
            ],
            strict=True,
        )
    )


# %% tags=["hide-input"]
scores: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
for w in worlds:
    main = (w, studies[w][0])
    scores[w] = {
        name: all_scores(w, x, settings["n" if name in main else "n_encoder"])
        for name, x in sets[w].items()
    }
areas = {
    w: {
        name: {s: auroc(scores[w][w][s], scores[w][name][s]) for s in SCORES}
        for name in scores[w]
        if name != w
    }
    for w in worlds
}
average = {
    s: np.mean([area[s].value for w in worlds for area in areas[w].values()])
    for s in SCORES
}

# %% tags=["hide-input"]
table = []
for w in worlds:
    for name, area in areas[w].items():
        best = max(area[s].value for s in SCORES)
        cells = [
            f"{area[s].value:.3f} ± {area[s].standard_error:.3f}" for s in SCORES
        ]
        table.append(
            [
                f"{w} → {name}",
                *(
                    f"**{c}**" if area[s].value == best else c
                    for s, c in zip(SCORES, cells, strict=True)
                ),
            ]
        )
table.append(["*average over all rows*", *(f"{average[s]:.3f}" for s in SCORES)])
tell(
    "AUROC ± standard error over images. Each row: the world that the model was "
    f"trained on → the set from outside; {settings['n']} images of the world and "
    f"of the set in the first row of each world, {settings['n_others']} of the "
    f"other sets (in the last column {settings['n_encoder']}). Best of the row in "
    "bold.\n\n" + markdown_table(["trained on → outside", *SCORES], table)
)
winner = max(average, key=average.get)
tell(
    f"On average over these {len(table) - 1} rows the best score is **{winner}** "
    f"({average[winner]:.3f}). "
    + " ".join(
        f"{s[0].upper() + s[1:]}: worst on {min(rows, key=rows.get)} "
        f"({min(rows.values()):.3f})."
        for s in SCORES
        for rows in [
            {
                f"{w} → {name}": area[s].value
                for w in worlds
                for name, area in areas[w].items()
            }
        ]
    )
)

# %% [markdown]
# The paper trains longer and with a 256-way likelihood. The scores that the authors once stored with [their code](https://github.com/XavierXiao/Likelihood-Regret)
# for Fashion-MNIST → MNIST (200 images of each) give an AUROC of 0.976 for the regret and 0.191 for the NLL.
#
# One AUROC averages over all thresholds. A guard has to pick one, so two more numbers for the main pairs: the area under the
# precision-recall curve (**AUPRC**, outside images as positives, chance is the share of outside images, here one half) and the share of false alarms
# at the threshold that catches 95 % of the outside images (**FPR at 95 % TPR**, lower is better). And what each score costs.

# %% tags=["hide-input"]
sample = sets[home][home][: settings["n_encoder"]]
background, samples = backgrounds[home], settings["nll_samples"]
calls = {
    "NLL": lambda: negative_log_likelihood(model, sample, samples=samples),
    "likelihood ratio": lambda: [
        negative_log_likelihood(m, sample, samples=samples)
        for m in (model, background)
    ],
    "complexity, PNG": lambda: (
        negative_log_likelihood(model, sample, samples=samples),
        code_length(sample),
    ),
    "complexity, JPEG 2000": lambda: (
        negative_log_likelihood(model, sample, samples=samples),
        code_length(sample, codec="jpeg2000"),
    ),
    "regret, posterior": lambda: regret(model, sample, adapt="posterior"),
    "regret, encoder": lambda: regret(model, sample),
}
cost = {}
for s in SCORES:
    started = perf_counter()
    calls[s]()
    if device.type == "cuda":
        torch.cuda.synchronize()
    cost[s] = 1000 * (perf_counter() - started) / len(sample)

# %% tags=["hide-input"]
details = {}
for w in worlds:
    inside, outside = scores[w][w], scores[w][studies[w][0]]
    details[w] = {
        s: (auprc(inside[s], outside[s]), fpr_at_tpr(inside[s], outside[s]))
        for s in SCORES
    }
tell(
    markdown_table(
        [
            "",
            *(
                f"{w} → {studies[w][0]}: {what}"
                for w in worlds
                for what in ("AUPRC", "FPR at 95 % TPR")
            ),
            "ms an image",
        ],
        [
            [
                s,
                *(f"{v:.3f}" for w in worlds for v in details[w][s]),
                f"{cost[s]:.1f}",
            ]
            for s in SCORES
        ],
    )
)

# %% tags=["hide-input"]
fig, axes = plt.subplots(
    len(worlds), 3, figsize=(10, 2.5 * len(worlds)), squeeze=False
)
for row, w in zip(axes, worlds, strict=True):
    for ax, s in zip(
        row, ("NLL", "regret, posterior", "regret, encoder"), strict=True
    ):
        inside, outside = scores[w][w][s], scores[w][studies[w][0]][s]
        both = torch.cat([inside, outside])
        bins = np.linspace(both.min(), both.quantile(0.99), 45)
        ax.hist(inside, bins, alpha=0.6, label=w)
        ax.hist(outside, bins, alpha=0.6, label=studies[w][0])
        ax.set_title(f"{s}: AUROC {auroc(inside, outside).value:.3f}")
        ax.set(xlabel="nats", yticks=[])
    row[0].legend(fontsize=8)
fig.tight_layout()
show(
    fig,
    caption="The same test images under three scores; each row is a model with "
    "its own world (blue) and the main set from outside (orange). The "
    "further apart the two colours, the better the detector.",
    alt="Grid of histograms: for each trained model, negative log-likelihood, "
    "regret of the posterior and regret of the encoder, inside against "
    "outside.",
)

# %% [markdown]
# Where would *you* put the threshold? Move it. Everything to the right of the line raises the alarm.

# %% tags=["hide-input"]
inside, outside = (
    scores[home][home]["regret, posterior"],
    scores[home][away]["regret, posterior"],
)
bins = np.linspace(0, float(torch.cat([inside, outside]).quantile(0.98)), 45)
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
# Which images have the most regret? The images of both sets with the least and with the most, with their reconstructions *before* any re-fitting. Images of the world with a
# high regret are often odd ones out; images from outside with a low regret look like something from the world.

# %% tags=["hide-input"]
rows = {}
for name in (home, away):
    order = scores[home][name]["regret, posterior"].argsort()
    chosen = torch.cat([order[:6], order[-6:]])
    rows[f"{name}"] = sets[home][name][chosen]
    rows[f"{name}, reconstructed"] = model.reconstruct(rows[name].to(device)).cpu()
fig = image_rows(rows)
show(
    fig,
    caption="In each row the six images with the least regret, then the six with "
    "the most (posterior variant). Below each set, the decoder's answer "
    "to the trained encoder's guess.",
    alt="Four rows of twelve images: images of the world and their "
    "reconstructions, images from outside and their reconstructions.",
)

# %% [markdown]
# ### Does it depend on the seed?
#
# The standard errors above say how much another draw of *test images* would change. Another training run is another matter, so here are the main pairs for every seed.

# %% tags=["hide-input"]
over_seeds: dict[str, dict[str, list[float]]] = {
    w: {"NLL": [], "regret, posterior": []} for w in worlds
}
for w in worlds:
    for seed, vae in enumerate(models[w]):
        a, b = sets[w][w], sets[w][studies[w][0]]
        if seed == 0:
            both = [
                (scores[w][w][s], scores[w][studies[w][0]][s])
                for s in over_seeds[w]
            ]
        else:
            with seeded(0, device):
                both = [
                    tuple(
                        negative_log_likelihood(
                            vae, x, samples=settings["nll_samples"]
                        )
                        for x in (a, b)
                    )
                ]
            both.append(tuple(regret(vae, x, adapt="posterior") for x in (a, b)))
        for s, (inside, outside) in zip(over_seeds[w], both, strict=True):
            over_seeds[w][s].append(auroc(inside, outside).value)
seeds_summary = {
    w: {s: mean_and_standard_error(v) for s, v in values.items()}
    for w, values in over_seeds.items()
}
tell(
    markdown_table(
        [
            f"AUROC, mean ± standard error over {settings['seeds']} seeds",
            "NLL",
            "regret, posterior",
        ],
        [
            [
                f"{w} → {studies[w][0]}",
                *(
                    f"{v.mean:.3f} ± {v.standard_error:.3f}"
                    for v in values.values()
                ),
            ]
            for w, values in seeds_summary.items()
        ],
    )
)

# %% [markdown]
# ## 7. Every knob is part of the score
#
# **Steps and learning rate.** Too few steps and nothing has happened yet. With many, every image arrives at its own best guess, those of the world too; and with a large rate the last
# steps are noise. See which of these matters.

# %% [markdown]
# **Predict, then run.** As the number of steps grows, does the AUROC of the regret rise for ever, rise and level off, or rise and fall? Think of what a re-fitted image of the *world* gains in the end.

# %% tags=["hide-input"]
n_knob = pick(smoke=10, cpu=100, gpu=300, paper=500)
inside, outside = sets[home][home][:n_knob], sets[home][away][:n_knob]
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
    size = n_knob if adapt == "posterior" else max(1, n_knob // 2)
    for lr in rates:
        for k in steps_grid:
            a, b = (
                likelihood_regret(
                    model, x[:size], adapt=adapt, steps=k, lr=lr, progress=False
                ).cpu()
                for x in (inside, outside)
            )
            knobs[adapt, lr, k] = (
                auroc(a, b).value,
                a.mean().item(),
                b.mean().item(),
            )

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
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
    ax.legend(fontsize=8)
axes[0].set_ylabel(f"AUROC, {home} → {away}")
show(
    fig,
    caption="AUROC against the number of steps, for three learning rates of each "
    "variant. The dotted line is chance.",
    alt="Two panels of curves: area under the ROC curve against the number of "
    "optimisation steps for three learning rates.",
)

# %% [markdown]
# In the stored run it is the rate: at the largest one the curve on the left turns down, and on the right it starts low, because ten large steps make the bound *worse*. At the smaller rates more steps do no harm; the early stop saves time here and nothing else.
#
# **The bound.** The authors optimise the ELBO but *score* with the importance-weighted bound of 1,000 samples. Both terms of the
# regret then move towards the same number, $\log p_\theta(x)$, whatever the encoder (first chapter, section 7): to leading order the bound of $S$ samples falls short by
# $\operatorname{Var}(w) / (2 S\, p_\theta(x)^2)$, so the regret must fade as $1/S$ once $S$ is large enough. A better bound makes a *smaller* regret. Whether it makes a worse detector is another matter.

# %% tags=["hide-input"]
bound_samples = pick(
    smoke=[1, 10],
    cpu=[1, 10, 100, 1000],
    gpu=[1, 10, 100, 1000, 10_000],
    paper=[1, 10, 100, 1000, 10_000],
)
n_bound = max(5, n_knob // 2)
fading = []
for s in bound_samples:
    weighted = partial(
        likelihood_regret,
        bound=importance_bound,
        objective=elbo,
        samples=s,
        adapt="posterior",
        steps=settings["steps"],
        progress=False,
    )
    a, b = (
        weighted(model, inside[:n_bound]).cpu(),
        weighted(model, outside[:n_bound]).cpu(),
    )
    fading.append((s, a.mean().item(), b.mean().item(), auroc(a, b)))
tell(
    "The regret measured with the importance-weighted bound (posterior variant, "
    f"{n_bound} + {n_bound} images):\n\n"
    + markdown_table(
        ["samples S", f"mean regret, {home}", f"mean regret, {away}", "AUROC"],
        [
            [
                f"{s:,}",
                f"{a:.2f}",
                f"{b:.2f}",
                f"{area.value:.3f} ± {area.standard_error:.3f}",
            ]
            for s, a, b, area in fading
        ],
    )
)

# %% [markdown]
# In the stored run the regret shrinks, more slowly than $1/S$: with so many latent variables a thousand samples are far from enough for the leading order. The AUROC does not suffer, so the order of the images survives; in the limit nothing would be left to order.
#
# So say which bound you used, and do not compare regrets that were measured with different ones.
#
# **The likelihood.** With grey levels a Bernoulli decoder computes a cross-entropy that is no density. The paper's decoder instead gives each of the 256 grey
# levels a probability. That is about ten times the work, so on a small machine the model below is smaller and trained on fewer images: compare the two *scores* within this table, not the table with the one above.

# %% tags=["hide-input"]
pixelwise = new_vae(
    shape, seed=0, outputs=256, width=pick(smoke=None, cpu=8, gpu=32, paper=32)
)
fit(
    pixelwise,
    elbo,
    training[home][: settings["categorical"]],
    epochs=pick(smoke=1, cpu=3, gpu=5, paper=200),
    batch_size=64,
    progress=False,
)
n_levels = pick(smoke=5, cpu=40, gpu=300, paper=500)
both = [x[:n_levels] for x in (inside, outside)]
levels = {}
with seeded(0, device):
    levels["NLL"] = [
        negative_log_likelihood(pixelwise, x, samples=10, chunk=100).cpu()
        for x in both
    ]
levels["regret, posterior"] = [
    regret(pixelwise, x, adapt="posterior", samples=4).cpu() for x in both
]
levels_area = {s: auroc(*pair) for s, pair in levels.items()}
tell(
    f"256 grey levels, {settings['categorical']:,} training images, {home} → "
    f"{away}, {n_levels} + {n_levels} images: "
    + ", ".join(
        f"{s} {area.value:.3f} ± {area.standard_error:.3f}"
        for s, area in levels_area.items()
    )
    + f" (AUROC). Mean NLL: {levels['NLL'][0].mean():.0f} nats inside, "
    f"{levels['NLL'][1].mean():.0f} outside."
)

# %% [markdown]
# **The training.** The regret compares the encoder with what the decoder could do, so the decoder must be able to do something. Here is the same model after one pass over a
# tenth of the images:

# %% tags=["hide-input"]
green = new_vae(shape, seed=0)
fit(
    green,
    elbo,
    training[home][: settings["train"] // 10],
    epochs=1,
    batch_size=128,
    progress=False,
)
early = {}
with seeded(0, device):
    early["NLL"] = [
        negative_log_likelihood(green, x, samples=settings["nll_samples"]).cpu()
        for x in (inside, outside)
    ]
early["regret, posterior"] = [
    regret(green, x, adapt="posterior").cpu() for x in (inside, outside)
]
early_area = {s: auroc(*pair) for s, pair in early.items()}
tell(
    markdown_table(
        [f"AUROC, {home} → {away}", "hardly trained", "trained"],
        [
            [
                s,
                f"{a.value:.3f} ± {a.standard_error:.3f}",
                f"{areas[home][away][s].value:.3f} ± "
                f"{areas[home][away][s].standard_error:.3f}",
            ]
            for s, a in early_area.items()
        ],
    )
)

# %% [markdown]
# ## 8. What it does not do
#
# First what this run shows, then what no run can show.

# %% tags=["hide-input"]
regrets = [s for s in SCORES if s.startswith("regret")]
hardest = {
    s: min(
        (
            (area[s].value, f"{w} → {name}")
            for w in worlds
            for name, area in areas[w].items()
        )
    )
    for s in regrets
}
beaten = []
for w in worlds:
    for name, area in areas[w].items():
        s = max(SCORES[:4], key=lambda s: area[s].value)
        ours, theirs = area[regrets[0]], area[s]
        if theirs.value > ours.value + 2 * (
            ours.standard_error + theirs.standard_error
        ):
            beaten.append(
                f"{w} → {name} ({s}: {theirs.value:.3f}, {regrets[0]}: "
                f"{ours.value:.3f})"
            )
tell(
    "In this run the regret is weakest on "
    + " and on ".join(f"{row} ({s}: {v:.3f})" for s, (v, row) in hardest.items())
    + ". "
    + (
        "A simpler score beats the posterior variant, by more than two standard "
        "errors of each, on: " + "; ".join(beaten) + "."
        if beaten
        else "No simpler score beats the posterior variant anywhere by more than "
        "two standard errors of each."
    )
)

# %% [markdown]
# - **It measures the encoder's ignorance, not the image's strangeness.** An image that the encoder happens to handle has little regret, however odd. A world whose images
#   include something like the outside (handwritten letters for a model of handwritten digits) teaches the encoder to handle the outside too.
# - **It needs a decoder that can do better.** If no $z$ explains the image, re-fitting gains little. Far-off images such as noise are caught anyway as a rule, because the gap is wide, but nothing guarantees it.
# - **It feeds on a weakness.** Whatever closes the amortisation gap everywhere (a richer posterior, iterative inference, an encoder trained on all sorts of images) would take the regret away with it.
# - **It needs a trained model.** See the table just above: how far the regret can be trusted depends on how much the decoder has learnt.
# - **It costs** an optimisation per image. The posterior variant makes that bearable.
# - **The protocol is kinder than the world.** The outside sets are known, clean and half of the data. A deployed detector meets one stranger in a thousand images, of a kind that nobody has named; then precision at a low rate of false alarms matters, about which the AUROC says little. And steps and rate were chosen by the paper's authors, and by us for the posterior variant, on sets like these.


# %% tags=["hide-input"]
def stored(area: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("mean", "standard_error"), area, strict=True))


save_results(
    "03_likelihood_regret",
    {
        "settings": settings,
        "auroc": {
            w: {
                name: {s: stored(area[s]) for s in SCORES}
                for name, area in areas[w].items()
            }
            for w in worlds
        },
        "average_auroc": average,
        "main_pairs": {
            w: {
                s: {"auprc": v[0], "fpr_at_95_tpr": v[1]}
                for s, v in details[w].items()
            }
            | {"outside": studies[w][0]}
            for w in worlds
        },
        "mean_score": {
            w: {
                name: {s: v.mean().item() for s, v in values.items()}
                for name, values in scores[w].items()
            }
            for w in worlds
        },
        "milliseconds_an_image": cost,
        "seeds": {
            w: {
                s: {"mean": v.mean, "standard_error": v.standard_error}
                for s, v in values.items()
            }
            for w, values in seeds_summary.items()
        },
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
            {
                "samples": s,
                "mean_inside": a,
                "mean_outside": b,
                "auroc": stored(area),
            }
            for s, a, b, area in fading
        ],
        "hardly_trained": {s: stored(area) for s, area in early_area.items()},
        "categorical": {s: stored(area) for s, area in levels_area.items()},
    },
)

# %% [markdown]
# ## 9. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a second or two.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("3.1")

# %% [markdown]
# ### Exercise 3.1 · The area by counting (10 minutes)
#
# The AUROC is the probability that an outside image scores above an inside image, with ties counted one half. Write it as that, without any curve.

# %% tags=["exercise"]
def area_by_counting(scores_in: torch.Tensor, scores_out: torch.Tensor) -> torch.Tensor:
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
    """Regret [B] after `steps` of Adam on the last layer's biases, image by image."""
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
