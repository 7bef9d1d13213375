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
# # Consistency: one picture, one code
#
# Turn a handwritten 7 by ten degrees and you still read a 7. Nothing in the evidence lower bound says that an encoder should agree. This chapter measures
# how far apart an encoder puts an image and its transformed copy, explains why it does so, and adds the distance to the objective as a cost:
# **consistency regularisation** ([Sinha & Dieng, 2021](https://arxiv.org/abs/2105.14859)). Then it asks, with controls, what that
# cost buys that plain data augmentation does not.
#
# **You need:** [chapter 1](01_vae.ipynb) (the two terms of the ELBO, amortised inference).
# **You will be able to:** derive what the divergence between two posteriors charges for, say what its direction means, set up a control that tells a
# regulariser from its augmentation, and read a mutual information that has hit its ceiling.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Ellipse
from torch import nn
from torch.distributions import Normal, kl_divergence

from vaekit import (
    VAE, Consistency, elbo, fit, importance_bound, log_evidence, mlp,
    posterior_divergence, two_level_mlp,
)
from vaekit.consistency import (
    RandomAffine, RandomBrightness, RandomNoise, affine, compose,
)
from vaekit.datasets import binarise, load
from vaekit.metrics import mean_and_standard_error, mutual_information
from vaekit.notebook import (
    COLOURS, check, frames, hint, image_rows, markdown_table, pick, save_results, show,
    tell, use_style,
)
from vaekit.training import default_device, seeded

use_style()
device = default_device()

# %% [markdown]
# ## 1. Two places for one digit
#
# We begin with a plain VAE that has two latent variables, so that its posteriors can be drawn as ellipses. Grey levels are read as probabilities of a white
# pixel and drawn anew in each epoch, as in the first chapter. After training we take a few test images, turn each of them step by step, and watch where
# the encoder puts it.

# %% [markdown]
# **Predict, then run.** A digit is turned step by step by up to 30°. Will its posterior stay where it is, move a little within its own ellipse, or wander far outside of it? Sketch the path that you expect.

# %% tags=["hide-input", "remove-output"]
settings = pick(
    smoke=dict(
        data=["digits"],
        train=1000,
        test=200,
        latent=4,
        hidden=(32,),
        epochs=6,
        flat_epochs=20,
        seeds=2,
        samples=20,
    ),
    cpu=dict(
        data=["mnist", "omniglot", "fashion-mnist"],
        train=5000,
        test=2000,
        latent=40,
        hidden=(200,),
        epochs=16,
        flat_epochs=30,
        seeds=3,
        samples=100,
    ),
    gpu=dict(
        data=["mnist", "omniglot", "fashion-mnist"],
        train=18_000,
        test=5000,
        latent=40,
        hidden=(400,),
        epochs=60,
        flat_epochs=60,
        seeds=3,
        samples=500,
    ),
    paper=dict(
        data=["mnist", "omniglot", "fashion-mnist"],
        train=50_000,
        test=5000,
        latent=32,
        hidden=(1000, 1000, 1000),
        epochs=500,
        flat_epochs=100,
        seeds=5,
        samples=1000,
    ),
)


def images_of(name: str, split: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n images [n, 1, H, W] of a split, chosen at random once and for all, and
    their labels.
    """
    data = load(name, split, progress=False)
    chosen = data[
        torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n]
    ]
    return chosen.images, chosen.labels


first = settings["data"][0]
train, _ = images_of(first, "train", settings["train"])
grey, labels = images_of(first, "test", settings["test"])
test = binarise(grey, torch.Generator().manual_seed(0)).to(device)
shape = tuple(train.shape[1:])


def new_vae(latent_dim: int, seed: int) -> VAE:
    with seeded(seed):
        return VAE(
            *mlp(shape, latent_dim, hidden=settings["hidden"]),
            latent_dim=latent_dim,
        )


flat = new_vae(2, seed=0)
fit(
    flat,
    elbo,
    train,
    binarise=True,
    epochs=settings["flat_epochs"],
    lr=3e-3,
    progress=False,
)


# %% tags=["hide-input"]
def turned(x: torch.Tensor, most: float = 30.0, steps: int = 7) -> torch.Tensor:
    """One image [1, H, W] turned from -most to most degrees, [steps, 1, H, W];
    black and white like the rest.
    """
    return affine(
        x.expand(steps, -1, -1, -1), angle=torch.linspace(-most, most, steps)
    ).round()


@torch.no_grad()
def latent_map(ax: plt.Axes, model: VAE, shown: list[int]) -> None:
    """Codes of test images in grey, and for a few images the posteriors of their
    turned copies (dark: the original).
    """
    codes = model.posterior(test).mean.cpu()
    ax.scatter(*codes.T, s=3, color="0.8", zorder=0)
    for n, colour in zip(shown, COLOURS, strict=False):
        q_z = model.posterior(turned(test[n]))
        mean, std = q_z.mean.cpu(), q_z.stddev.cpu()
        ax.plot(*mean.T, "-", color=colour, lw=1, zorder=2)
        for k, (m, s) in enumerate(zip(mean, std, strict=True)):
            original = k == len(mean) // 2
            ax.add_patch(
                Ellipse(
                    tuple(m),
                    *(2 * s),
                    fc=colour,
                    ec=colour,
                    alpha=0.85 if original else 0.25,
                    zorder=3,
                )
            )
        ax.annotate(
            str(labels[n].item()),
            tuple(mean[0]),
            color=colour,
            weight="bold",
            fontsize=12,
            zorder=4,
        )
    ax.set(
        xlabel="z₁", ylabel="z₂", xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal"
    )


shown = [int((labels == digit).nonzero()[0]) for digit in (0, 2, 3, 4, 7)]
fig = image_rows(
    {str(labels[n].item()): turned(test[n]).cpu() for n in shown},
    title="turned by −30°, −20°, …, 30°",
)
show(
    fig,
    caption="Five test images, each turned in steps of ten degrees. The image in "
    "the middle of a row is the original.",
    alt="Five rows of seven images; along each row one digit rotates from thirty "
    "degrees clockwise to thirty degrees counter-clockwise.",
)
fig, ax = plt.subplots(figsize=(5.4, 5.4))
latent_map(ax, flat, shown)
show(
    fig,
    caption="The latent space of a plain VAE. Grey dots: posterior means of test "
    "images. Each coloured chain: the posteriors of one image while it "
    "turns (one standard deviation in each direction; the dark ellipse is "
    "the original, the label stands at −30°). Compare the length of a "
    "chain with the width of its ellipses.",
    alt="Scatter plot of grey dots with five coloured chains of ellipses, one for "
    "each digit and its turned copies.",
)

# %% [markdown]
# The ellipses are the encoder's own statement of how well it knows $z$. A copy that lands several ellipses away is, to this encoder, a *different picture*.
# How different? Compare the two posteriors by the divergence that the rest of this chapter is about:

# %%
with torch.no_grad(), seeded(0, device):
    rows = []
    for degrees in (0, 5, 10, 20, 30):
        copies = affine(test, angle=float(degrees)).round()
        apart = posterior_divergence(flat, test, copies)  # [N], nats
        changed = (
            ((copies != test).flatten(1).sum(1) / (test > 0.5).flatten(1).sum(1))
            .mean()
            .item()
        )
        q_z, moved = flat.posterior(test), flat.posterior(copies).mean
        # in standard deviations of the original
        steps = ((moved - q_z.mean) / q_z.stddev).norm(dim=1).median().item()
        rows.append(
            [
                f"{degrees}°",
                f"{changed:.0%}",
                f"{steps:.1f}",
                f"{apart.mean().item():.1f}",
                f"{apart.median().item():.1f}",
            ]
        )
    others = posterior_divergence(flat, test, test.roll(1, 0))
tell(
    f"{len(test):,} test images and their turned copies: pixels that differ, as a "
    "share of the white ones; how far the posterior mean moves, in standard "
    "deviations of the original's posterior (median); and KL(copy ‖ original) in "
    "nats.\n\n"
    + markdown_table(
        ["turned by", "pixels changed", "mean moves by", "KL, mean", "KL, median"],
        rows,
    )
    + "\n\nFor comparison: between two *unrelated* test images the KL has a "
    f"median of {others.median().item():.1f} nats."
)

# %% [markdown]
# ## 2. Why amortisation does that
#
# Whose fault is it? Read the bound once more:
#
# $$\mathcal L(x) = \log p_\theta(x) - \mathrm{KL}\big(q_\phi(z \mid x) \,\|\, p_\theta(z \mid x)\big).$$
#
# It is a sum over training images, and each term speaks of one image alone. Three things follow.
#
# **The bound never compares two images.** The encoder is one function for all of them, so that neighbours in pixel space *tend* to have neighbouring codes.
# But look at the second column of the table: a small turn exchanges a good part of the pixels that make up a stroke. In pixel space the copy is no close neighbour.
#
# **Where there are no data, anything goes.** An image that the encoder has not seen in training enters no term. Its posterior is whatever the network happens to say.
#
# **Where there are data, the decoder wants to know.** Augmentation, that is, adding turned copies to the training set, cures the second point and not the first.
# Worse: a decoder must reproduce *this* copy pixel by pixel, and for that it needs the angle. The true posterior $p_\theta(z \mid \tilde x)$ of a good model
# really is elsewhere. A VAE trained on augmented images has every reason to *encode* the transformation, and none to ignore it. (In section 5 it encodes the copy about as well as the plain VAE does.)
#
# If we want codes that agree, we have to say so.
#
# ## 3. The objective
#
# Let $t(\tilde x \mid x)$ be a random transformation: draw an angle, a shift, a scale, and apply them. Consistency regularisation maximises
#
# $$\begin{aligned}
# \mathcal L_{\rm CR}(x) = {} & \mathcal L(x) + \mathbb E_{t(\tilde x \mid x)}\Big[\mathcal L(\tilde x) \\
# & - \lambda\, \mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big)\Big].
# \end{aligned} \tag{5.1}$$
#
# Both copies are explained, each with its own bound, and the two explanations must agree. The weight $\lambda \ge 0$ is the price of a nat of disagreement. Any bound can stand in for
# $\mathcal L$: the ELBO, a $\beta$-VAE's, an importance-weighted one. For two diagonal Gaussians, with $\mu, \sigma$ at $x$ and $\tilde\mu, \tilde\sigma$ at $\tilde x$,
#
# $$\begin{aligned}
# & \mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big) \\
# & \quad = \tfrac12 \sum_d \Big[\log\frac{\sigma_d^2}{\tilde\sigma_d^2} - 1 + \frac{\tilde\sigma_d^2 + (\tilde\mu_d - \mu_d)^2}{\sigma_d^2}\Big].
# \end{aligned} \tag{5.2}$$
#
# Look at the last fraction. The distance between the means counts in units of the *original's* standard deviation. So an encoder can pay less in
# two ways: by moving the means together, which is what we want, or by **widening $\sigma$**, which makes every code vaguer. Keep this second way in mind.
#
# ### What the divergence charges for
#
# There is an exact account of it. Fix $x$, write $\tilde q = q_\phi(z \mid \tilde x)$ and let $\bar q(z) = \mathbb E_{t(\tilde x \mid x)}[\tilde q(z)]$ be the mixture of the copies' posteriors.
# For *any* density $r(z)$,
#
# $$\begin{gathered}
# \log\frac{\tilde q}{r} = \log\frac{\tilde q}{\bar q} + \log\frac{\bar q}{r} \quad\Longrightarrow\quad \\
# \mathbb E_t\,\mathrm{KL}(\tilde q \,\|\, r) = \underbrace{\mathbb E_t\,\mathrm{KL}(\tilde q \,\|\, \bar q)}_{I_q(z;\, \tilde x \mid x)} + \mathrm{KL}(\bar q \,\|\, r),
# \end{gathered}$$
#
# because the average of $\log(\bar q / r)$ over $z \sim \tilde q$ and then over the copies is an average over $\bar q$. With $r = q_\phi(z \mid x)$:
#
# $$\begin{aligned}
# & \mathbb E_t\,\mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big) \\
# & \quad = \underbrace{I_q(z;\, \tilde x \mid x)}_{\substack{\text{what the code tells about}\\ \text{which copy it is}}}
# + \underbrace{\mathrm{KL}\big(\bar q \,\|\, q_\phi(z \mid x)\big)}_{\substack{\text{how badly the original's}\\ \text{posterior covers its copies}}}.
# \end{aligned} \tag{5.3}$$
#
# The first term is the **nuisance information**: nats that the code spends on the angle. The chain rule puts it in its place. Since $z$ is drawn from $\tilde x$ alone,
#
# $$\underbrace{I_q(\tilde x; z)}_{\text{all that the code holds}} = \underbrace{I_q(x; z)}_{\text{which picture}} + \underbrace{I_q(\tilde x; z \mid x)}_{\text{which copy of it}}.$$
#
# So the cost is a tax on the second part. Whether the *first* part grows in return is not decided by algebra: it is an empirical question, and the paper's claim. We shall measure both parts.

# %% [markdown]
# ### Which way round?
#
# The divergence has a direction: copy first, original second. To see what it means, hold the copies' posteriors fixed and ask which Gaussian $r = \mathcal N(\mu, \sigma^2)$ for the
# original costs least. In one dimension, setting the derivatives to zero,
#
# $$\begin{aligned}
# \min_r \mathbb E_t\,\mathrm{KL}(\tilde q \,\|\, r): \quad & \mu = \mathbb E_t[\tilde\mu], & \sigma^2 &= \mathbb E_t\big[\tilde\sigma^2 + (\tilde\mu - \mu)^2\big]; \\
# \min_r \mathbb E_t\,\mathrm{KL}(r \,\|\, \tilde q): \quad & \mu = \frac{\mathbb E_t[\tilde\mu / \tilde\sigma^2]}{\mathbb E_t[1/\tilde\sigma^2]}, & \frac1{\sigma^2} &= \mathbb E_t\Big[\frac1{\tilde\sigma^2}\Big].
# \end{aligned} \tag{5.4}$$
#
# In the direction of the paper the original's posterior takes on the mean and the *variance of the whole mixture*: it grows until it covers its copies. The other direction
# makes it as narrow as the copies are, wherever they lie. A picture with two copies:

# %% tags=["hide-input"]
z = torch.linspace(-5, 5, 400)
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
for ax, gap in zip(axes, (1.0, 2.5), strict=True):
    for m in (-gap, gap):
        ax.plot(
            z,
            Normal(m, 0.7).log_prob(z).exp(),
            color="0.6",
            lw=1.5,
            label="two copies" if m < 0 else None,
        )
    ax.plot(
        z,
        Normal(0.0, math.sqrt(0.49 + gap**2)).log_prob(z).exp(),
        label="best original, KL(copy ‖ original)",
    )
    ax.plot(
        z,
        Normal(0.0, 0.7).log_prob(z).exp(),
        "--",
        label="best original, KL(original ‖ copy)",
    )
    ax.set(xlabel="z", title=f"copies {2 * gap:g} apart")
axes[0].set_ylabel("density")
fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc="upper center",
    ncols=3,
    bbox_to_anchor=(0.5, 1.1),
)
show(
    fig,
    caption="Which posterior for the original is best, if those of its copies "
    "(grey) stay where they are? In the paper's direction it covers them "
    "(solid); in the other it sits between them, as narrow as they are "
    "(dashed).",
    alt="Two panels with two grey bell curves each; a wide solid curve covers "
    "both of them, a narrow dashed curve stands in the middle.",
)

# %% [markdown]
# ## 4. The method, in code
#
# A transformation is a function from images to images that draws its own randomness. The library's transforms work on a whole batch at once and draw other parameters for each image. The objective is equation (5.1) with one draw of $\tilde x$ for each image. One detail matters
# for a Bernoulli likelihood: interpolation leaves grey pixels, and a grey pixel is a probability, not an observation. So the last step draws black or white again:

# %%
augment = compose(
    RandomAffine(degrees=15, translate=0.05, scale=(0.9, 1.1)), torch.bernoulli
)

# %% tags=["hide-input"]
with seeded(0, device):
    fig = image_rows(
        {
            "x": test[:14].cpu(),
            "t(x)": augment(test[:14]).cpu(),
            "another draw": augment(test[:14]).cpu(),
        }
    )
show(
    fig,
    caption="Test images and two draws of t: up to 15° either way, shifts of up "
    "to 5 % of the width, scales from 0.9 to 1.1, a new draw for each "
    "image. The ranges are those of the authors' released code.",
    alt="Three rows of the same fourteen images; the lower two show slightly "
    "rotated, shifted and rescaled copies.",
)

# %% [markdown]
# The objective is the formula. Both copies go through the bound as *one* batch, so that each image is encoded once:


# %%
def my_consistency(model: VAE, x: torch.Tensor, weight: float) -> torch.Tensor:
    both = torch.cat([x, augment(x)])  # [2B, *image]
    bound_x, bound_tx = elbo(model, both).chunk(2)  # [B] each
    q_both = model.posterior(both)
    q_x, q_tx = q_both[: len(x)], q_both[len(x) :]
    return bound_x + bound_tx - weight * kl_divergence(q_tx, q_x)  # [B], in nats


with seeded(1, device):
    mine = my_consistency(flat, test, weight=2.0)
with seeded(1, device):
    theirs = Consistency(elbo, augment, weight=2.0)(flat, test)
tell(
    "Largest difference from the library's `Consistency`: "
    f"{(mine - theirs).abs().max().item():.1e} nats."
)

# %% [markdown]
# The library's version takes any bound, and spares the second call of the encoder that you see here: it hands the bound a model that remembers the posterior of this very batch.
# Gradients flow through both posteriors; neither copy is the teacher of the other.
#
# With `weight=0.0` what remains is $\mathcal L(x) + \mathcal L(\tilde x)$: **plain data augmentation**. That is the control. A method that is compared with a VAE which
# never saw a turned digit gets credit for the turning.
#
# ### A check against closed forms
#
# For a linear encoder $\mu(x) = Ax$ with constant $\sigma$ and a transformation $\tilde x = x + \delta$, the divergence does not depend on $x$ at all: it is $\tfrac12\,|A\delta / \sigma|^2$. And the identity of
# section 3 can be tested, since for shifts $\delta \sim \mathcal N(0, S)$ the mixture $\bar q$ is again a Gaussian, with variance $\sigma^2 + a^\top S a$ in each latent direction (one latent variable below).

# %%
with seeded(3):
    a, sigma = torch.randn(1, 6).double(), torch.tensor([0.4]).double()
    root = torch.randn(6, 6).double() * 0.3  # S = root root'


class LinearEncoder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1) @ a.T  # [B, 1]
        return torch.cat([mean, sigma.log().expand_as(mean)], -1)


linear = VAE(LinearEncoder(), nn.Identity(), latent_dim=1).double()
with seeded(4):
    x = torch.randn(50_000, 1, 1, 6).double()
    delta = (torch.randn(50_000, 6).double() @ root.T)[:, None, None]
measured = posterior_divergence(linear, x, x + delta)  # [B]
per_image = 0.5 * ((delta.flatten(1) @ a.T) / sigma).square().sum(-1)
spread = (a @ root).square().sum() / sigma.square().sum()  # a'Sa / sigma²
# I(z; delta): a Gaussian channel with this signal-to-noise ratio
nuisance = 0.5 * (1 + spread).log()
# KL(N(., sigma² + a'Sa) || N(., sigma²))
cover = 0.5 * (spread - (1 + spread).log())
error = measured.std() / len(measured) ** 0.5
tell(
    "Largest difference from ½|Aδ/σ|²: "
    f"{(measured - per_image).abs().max().item():.1e} nats. Average divergence: "
    f"{measured.mean().item():.3f} ± {error.item():.3f} nats measured, and "
    f"{nuisance.item():.3f} (nuisance information) + {cover.item():.3f} "
    f"(covering) = {(nuisance + cover).item():.3f} nats by the identity."
)

# %% [markdown]
# ## 5. What λ does
#
# Back to digits and two latent variables. We train the same model with growing $\lambda$ and measure what the code tells: *which copy*, $I_q(\tilde x; z \mid x)$, and *which picture*. For the second we take the information between an image and its own code, without a transformation; the first term of the chain rule, between an image and the code of a copy, is another number. Both are
# estimated against finite mixtures, hence capped at the logarithm of the number of images, or copies, in the mixture; the figure shows the caps.

# %% [markdown]
# **Predict, then run.** As $\lambda$ grows from 0, which falls first, what the code tells about the *copy* or what it tells about the *picture*? And what will the ellipses do?

# %% [markdown]
# **Warm-up 5.a · Which copy is it?** Fill in the blank: an estimate of the nuisance information $I_q(z; \tilde x \mid x)$ of (5.3) for one picture. Each of $K$ copies has a posterior; from each, one $z_k$ was drawn.

# %% tags=["warm-up", "nbval-check-output"]
def nuisance(log_q: torch.Tensor) -> torch.Tensor:
    """Nats about which copy it is; log_q[k, j] = log q(z_k | copy j): a number."""
    return ...  # fill in


check("5.a", nuisance)

# %% tags=["hide-input"]
@torch.no_grad()
def nuisance_information(model: VAE, x: torch.Tensor, copies: int = 64) -> float:
    """Which copy of its image the code tells, I(x̃; z | x), in nats; at most
    log(copies).
    """
    total = 0.0
    for image in x:
        # batch [K]
        q_z = model.posterior(augment(image.expand(copies, -1, -1, -1)))
        z = q_z.rsample()[:, None]  # [K, 1, D]
        log_q = q_z.log_prob(z)  # [K, K], each code under each copy's posterior
        total += (
            (log_q.diagonal() - log_q.logsumexp(1) + math.log(copies)).mean().item()
        )
    return total / len(x)


lambdas = pick(
    smoke=[0.0, 1.0, 10.0],
    cpu=[0.0, 0.1, 0.3, 1.0, 3.0, 10.0],
    gpu=[0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    paper=[0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
)
images, copies = pick(smoke=5, cpu=200, gpu=500, paper=1000), 64
flats: dict[float | None, VAE] = {None: flat}
for weight in lambdas:
    flats[weight] = new_vae(2, seed=0)
    fit(
        flats[weight],
        Consistency(elbo, augment, weight=weight),
        train,
        binarise=True,
        epochs=settings["flat_epochs"],
        lr=3e-3,
        progress=False,
    )

sweep = []
for weight, model in flats.items():
    with torch.no_grad(), seeded(0, device):
        q_z = model.posterior(test)
        sweep.append(
            {
                "lambda": weight,
                "rate": kl_divergence(q_z, model.prior).mean().item(),
                "distortion": -model.log_likelihood(test, q_z.rsample((10,)))
                .mean()
                .item(),
                "nll": -log_evidence(model, test, samples=settings["samples"])
                .mean()
                .item(),
                "which_picture": mutual_information(model, test, samples=5).nats,
                "which_copy": nuisance_information(model, test[:images], copies),
                "std": q_z.stddev.mean().item(),
                "spread": q_z.mean.std(0).mean().item(),
            }
        )
names = ["plain" if s["lambda"] is None else f"{s['lambda']:g}" for s in sweep]

# %% tags=["hide-input"]
pictures = []
for name, model, found in zip(names, flats.values(), sweep, strict=True):
    fig, ax = plt.subplots(figsize=(5, 5))
    latent_map(ax, model, shown)
    ax.set_title(
        ("plain VAE, no augmentation" if name == "plain" else f"λ = {name}")
        + f"\nwhich picture {found['which_picture']:.2f}, which copy "
        f"{found['which_copy']:.2f} nats",
        fontsize=10,
    )
    pictures.append(fig)
frames(
    pictures,
    names,
    description="λ",
    caption="Move the slider: the chains of turned copies as λ grows (λ = 0 is "
    "augmentation alone). They shorten, and the ellipses grow. The images "
    "are the five from the beginning, turned by up to 30°, twice as far "
    "as in training.",
    alt="The latent plane with a chain of seven ellipses for each of five digits",
)

# %% tags=["hide-input"]
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3))
ticks = range(len(sweep))
for ax, keys in (
    (left, ("which_picture", "which_copy")),
    (middle, ("std", "spread")),
    (right, ("nll",)),
):
    for key, marker in zip(keys, "os", strict=False):
        ax.plot(
            ticks,
            [s[key] for s in sweep],
            marker + "-",
            label=key.replace("_", " "),
        )
    ax.set_xticks(ticks, names)
    ax.set_xlabel("λ")
left.axhline(math.log(len(test)), color=COLOURS[0], ls=":", lw=1)
left.axhline(math.log(copies), color=COLOURS[1], ls=":", lw=1)
left.set(ylabel="nats", title="information in the code")
left.legend(fontsize=8)
middle.set(title="means and widths", yscale="log")
middle.legend(["mean posterior std", "spread of the means"], fontsize=8)
right.set(ylabel="nats", title="NLL of test images")
fig.tight_layout()
show(
    fig,
    caption="One model for each λ, two latent variables, one seed. Left: what the "
    "code tells about the picture and about the copy, with the caps of "
    "the estimates dotted. Middle: average width of a posterior against "
    "the spread of the posterior means. Right: negative log-likelihood, "
    "lower is better.",
    alt="Three line charts against lambda: information about picture and copy, "
    "posterior widths and spread, and negative log-likelihood.",
)

# %% tags=["hide-input"]
control, strongest = sweep[1], sweep[-1]
tell(
    f"From λ = 0 to λ = {lambdas[-1]:g} the nuisance information goes from "
    f"{control['which_copy']:.2f} to {strongest['which_copy']:.2f} nats, and what "
    f"the code tells about the *picture* from {control['which_picture']:.2f} to "
    f"{strongest['which_picture']:.2f} nats. The average posterior is "
    f"{strongest['std'] / control['std']:.1f} times as wide, while the means "
    f"spread {strongest['spread'] / control['spread']:.2f} times as far. The NLL "
    f"changes by {strongest['nll'] - control['nll']:+.1f} nats."
)

# %% [markdown]
# Read the middle panel against the loophole of section 3. If the code became less sensitive to the angle *and to nothing else*, the chains would shrink and the widths would stay. To the extent that the widths
# grow instead, the tax is paid by vagueness, and the code loses picture and angle alike. In the stored run that is what happens: the widths treble while the means hardly draw together, and what the code tells falls for both: in nats more for the picture, as a share of what was there more for the copy.
#
# ## 6. The experiment, with its controls
#
# Now with enough latent variables to be useful. Four ways to train: a **plain** VAE; the same with **augmentation** (λ = 0); **CR-VAE** with a mild and with a full price of disagreement (λ = 0.1 and λ = 1). All start from the same weights for a given seed, see the
# same images in the same order, and train for the same number of epochs. (The last three see two copies per step, which is why the plain one is no control for them.)
#
# What we measure on test images, binarised once:
#
# - **NLL** by importance sampling, and its two parts in the bound, the **rate** $\mathbb E\,\mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z))$ and the **distortion** $-\mathbb E_q[\log p_\theta(x \mid z)]$;
# - **MI**, the mutual information of image and code. Its estimate cannot exceed $\log N$ for $N$ test images, and the rate is an upper bound on the true value ([Alemi et al., 2018](https://arxiv.org/abs/1711.00464)): between those two numbers lies what we do not know;
# - **active units**: latent variables whose posterior mean has a variance above 0.01 over images;
# - accuracy of a **5-nearest-neighbour** classifier and a **linear probe** on posterior means with ten labelled images a class (for OMNIGLOT: twenty characters that were not in training);
# - **divergence** from the original to its copy, for transformations as in training and for others: shear, brightness, pixel noise;
# - **retrieval**: the share of transformed images whose nearest code, among all test images, belongs to their own original. A vaguer code cannot improve this one.

# %% [markdown]
# **Predict, then run.** Cover the last two columns of the table (CR-VAE) and predict them from the first two: which of the rows will get better than with augmentation alone, and which worse?

# %% tags=["hide-input"]
unseen = {
    "shear": compose(RandomAffine(shear=25), torch.bernoulli),
    "brightness": compose(RandomBrightness(0.5, 1.0), torch.bernoulli),
    "noise": compose(RandomNoise(0.2), torch.bernoulli),
}


def few_labels(
    codes: torch.Tensor, labels: torch.Tensor, per_class: int = 10
) -> tuple[float, float]:
    """Test accuracy of 5 nearest neighbours and of a linear probe that know
    `per_class` labels of each class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # [N], images of the same class that come earlier
    seen_before = (labels[:, None] == labels).tril(-1).sum(1)
    known = seen_before < per_class
    inputs, targets = codes.double().numpy(), labels.numpy()
    scores = []
    for classifier in (KNeighborsClassifier(5), LogisticRegression(max_iter=1000)):
        probe = make_pipeline(StandardScaler(), classifier).fit(
            inputs[known], targets[known]
        )
        scores.append(probe.score(inputs[~known], targets[~known]))
    return scores[0], scores[1]


class UpperLevel(nn.Module):
    """A two-level model, looked at through its upper level alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def posterior(self, x: torch.Tensor) -> torch.distributions.Distribution:
        return self.model.posterior(x).upper


@torch.no_grad()
def evaluate(
    model: VAE, x: torch.Tensor, probe: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, float]:
    """Every number of the table for test images x [N, *image] and a set with
    labels.
    """
    with seeded(0, device):
        q_z = model.posterior(x)
        # unit spread, for distances
        codes = q_z.mean / q_z.mean.std(0).clamp_min(1e-6)
        upper = UpperLevel(model) if hasattr(model, "upper_head") else model
        found = {
            "NLL": -log_evidence(model, x[:500], samples=settings["samples"])
            .mean()
            .item(),
            "rate": kl_divergence(q_z, model.prior).mean().item(),
            "distortion": -model.log_likelihood(x, q_z.rsample((5,))).mean().item(),
            "MI": mutual_information(upper, x).nats,
            "active units": float((q_z.mean.var(0) > 0.01).sum()),
        }
        found["5-NN"], found["probe"] = few_labels(
            model.posterior(probe[0]).mean.cpu(), probe[1]
        )
        apart, hits = {}, {}
        for name, transform in {"seen": augment, **unseen}.items():
            copies = transform(x)
            apart[name] = posterior_divergence(model, x, copies).mean().item()
            moved = model.posterior(copies).mean / q_z.mean.std(0).clamp_min(1e-6)
            nearest = torch.cdist(moved, codes).argmin(1)
            hits[name] = (
                (nearest == torch.arange(len(x), device=device))
                .double()
                .mean()
                .item()
            )
        for kind, values in (("divergence", apart), ("retrieval", hits)):
            found[f"{kind}, seen"] = values["seen"]
            found[f"{kind}, unseen"] = sum(values[name] for name in unseen) / len(
                unseen
            )
    return found


# %% tags=["hide-input"]
def probe_set(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Test images with labels, black and white, in random order: of twenty classes
    if there are more.
    """
    data = load(name, "test", progress=False)
    generator = torch.Generator().manual_seed(1)
    classes = data.labels.unique()
    if len(classes) > 20:
        classes = classes[torch.randperm(len(classes), generator=generator)[:20]]
    chosen = torch.isin(data.labels, classes).nonzero().squeeze(1)
    chosen = chosen[
        torch.randperm(len(chosen), generator=generator)[: settings["test"]]
    ]
    return binarise(data.images[chosen], generator).to(device), data.labels[chosen]


def train_and_evaluate(
    name: str, methods: dict, make: object, seeds: int
) -> dict[str, list[dict[str, float]]]:
    """For each method the numbers of each seed."""
    train, _ = images_of(name, "train", settings["train"])
    x = binarise(
        images_of(name, "test", settings["test"])[0],
        torch.Generator().manual_seed(0),
    ).to(device)
    probe, found = probe_set(name), {}
    for method, objective in methods.items():
        found[method] = []
        for seed in range(seeds):
            model = make(seed)
            fit(
                model,
                objective,
                train,
                binarise=True,
                epochs=settings["epochs"],
                lr=3e-3,
                seed=seed,
                progress=False,
            )
            found[method].append(evaluate(model, x, probe))
    return found


methods = {
    "plain": elbo,
    "augmentation": Consistency(elbo, augment, weight=0.0),
    "CR, λ = 0.1": Consistency(elbo, augment, weight=0.1),
    "CR, λ = 1": Consistency(elbo, augment, weight=1.0),
}
results = {
    name: train_and_evaluate(
        name, methods, partial(new_vae, settings["latent"]), settings["seeds"]
    )
    for name in settings["data"]
}

# %% tags=["hide-input"]
columns = list(next(iter(results.values()))["plain"][0])
digits_shown = {
    "5-NN": 3,
    "probe": 3,
    "active units": 1,
    "retrieval, seen": 3,
    "retrieval, unseen": 3,
}


def written(values: list[float], digits: int) -> str:
    mean, error = mean_and_standard_error(values)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Metrics down, methods across: mean ± standard error over seeds."""
    rows = [
        [
            c,
            *(
                written([run[c] for run in runs], digits_shown.get(c, 2))
                for runs in found.values()
            ),
        ]
        for c in columns
    ]
    return markdown_table(["", *found], rows)


tell(
    f"Mean ± standard error over {settings['seeds']} seeds; {settings['train']:,} "
    f"training and {len(test):,} test images (log N = {math.log(len(test)):.2f}), "
    f"{settings['latent']} latent variables, {settings['epochs']} epochs.\n\n"
    + "\n\n".join(
        f"**{name}**\n\n{table(found)}" for name, found in results.items()
    )
)

# %% [markdown]
# ### What the penalty itself did
#
# The seeds share their starting weights and the order of their images across methods, so that the *difference* between CR-VAE and its control can be taken seed by seed. A star marks a mean difference of more than two standard errors. With three seeds that happens by chance about once in five times (Student's $t$ with two degrees of freedom): expect two stray stars in each column, and look for those that return on every data set.


# %% [markdown]
# **Warm-up 5.b · Paired seeds.** Fill in the blank: the mean difference of two methods over seeds, and its standard error, when both were run with the same seeds.

# %% tags=["warm-up", "nbval-check-output"]
def paired_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of a - b over seeds, and its standard error: [seeds] twice -> [2]."""
    return ...  # fill in


check("5.b", paired_difference)

# %%
def differences(
    found: dict[str, list[dict[str, float]]], method: str, control: str
) -> dict[str, tuple[float, float]]:
    """For each metric mean and standard error of (method − control), seed by seed.
    """
    pairs = list(zip(found[method], found[control], strict=True))
    return {
        c: tuple(
            mean_and_standard_error([ours[c] - theirs[c] for ours, theirs in pairs])
        )
        for c in columns
    }


compared = {
    f"{name}: {method} − {control}": differences(found, method, control)
    for name, found in results.items()
    for method, control in (
        ("augmentation", "plain"),
        ("CR, λ = 0.1", "augmentation"),
        ("CR, λ = 1", "augmentation"),
    )
}

# %% tags=["hide-input"]
def star(mean: float, error: float, digits: int) -> str:
    return f"{mean:+.{digits}f} ± {error:.{digits}f}" + (
        " *" if abs(mean) > 2 * error else ""
    )


for name in settings["data"]:
    chosen = {
        key.partition(": ")[2]: value
        for key, value in compared.items()
        if key.startswith(f"{name}:")
    }
    rows = [
        [c, *(star(*value[c], digits_shown.get(c, 2)) for value in chosen.values())]
        for c in columns
    ]
    tell(f"**{name}**\n\n" + markdown_table(["", *chosen], rows))

# %% tags=["hide-input"]
goal = []
for name in settings["data"]:
    for method in ("CR, λ = 0.1", "CR, λ = 1"):
        d = compared[f"{name}: {method} − augmentation"]
        more = [c for c in ("MI", "active units") if d[c][0] > 2 * d[c][1]]
        less = [c for c in ("MI", "active units") if d[c][0] < -2 * d[c][1]]
        worse = d["NLL"][0] > 2 * d["NLL"][1]
        words = f"more {' and '.join(more)}; " if more else ""
        words += f"less {' and '.join(less)}; " if less else ""
        words += (
            ""
            if more or less
            else "no difference in MI or active units beyond two standard errors; "
        )
        goal.append(
            [
                name,
                method,
                words + ("NLL worse" if worse else "NLL not worse"),
                "yes" if len(more) == 2 and not worse else "no",
            ]
        )
met = {row[0] for row in goal if row[3] == "yes"}
tell(
    "Does the penalty bring more mutual information *and* more active units than "
    "augmentation alone, at no worse NLL, beyond two standard errors?\n\n"
    + markdown_table(["data", "method", "against λ = 0", "claim met"], goal)
    + f"\n\nOn {len(met)} of {len(settings['data'])} data sets in this run."
)

# %% [markdown]
# In the stored run the claim is met on no data set. The penalty takes information out of the code (MI and rate fall everywhere) and, at $\lambda = 1$, costs likelihood. What it does buy is a code that needs fewer labels: the nearest-neighbour accuracy with ten labels a class rises on all three data sets, where augmentation alone leaves it about as it was. The linear
# probe gains less, and retrieval of transformed images gains little for the transformations seen in training and nothing for the others. A divergence that falls so far while retrieval hardly moves is what section 5 led us to expect: posteriors that widen.
#
# ### Other bounds, and two levels
#
# `Consistency` takes any bound. Here are three more on the first data set: a $\beta$-VAE, the importance-weighted bound with five samples, and a VAE with **two levels** of latent variables, $p(z_2)\,p_\theta(z_1 \mid z_2)\,p_\theta(x \mid z_1, z_2)$, as a small
# stand-in for the deep hierarchies (NVAE, [Vahdat & Kautz, 2020](https://arxiv.org/abs/2007.03898)) of the paper. Its posterior is $q_\phi(z_2 \mid x)\,q_\phi(z_1 \mid z_2, x)$, and by the chain rule the divergence is the *sum of the levels' divergences*,
#
# $$\begin{aligned}
# & \mathrm{KL}\big(q_\phi(z_2 \mid \tilde x) \,\|\, q_\phi(z_2 \mid x)\big) \\
# & \quad + \mathbb E_{q_\phi(z_2 \mid \tilde x)}\,\mathrm{KL}\big(q_\phi(z_1 \mid z_2, \tilde x) \,\|\, q_\phi(z_1 \mid z_2, x)\big).
# \end{aligned}$$
#
# For the two-level model, MI is that of the upper level.


# %% tags=["hide-input"]
def new_two_level(seed: int) -> VAE:
    with seeded(seed):
        return two_level_mlp(
            shape,
            (settings["latent"] // 4, settings["latent"]),
            hidden=settings["hidden"][0],
        )


bounds = {
    "β-VAE, β = 2": (partial(elbo, beta=2.0), partial(new_vae, settings["latent"])),
    "IWAE, 5 samples": (
        partial(importance_bound, samples=5),
        partial(new_vae, settings["latent"]),
    ),
    "two levels": (elbo, new_two_level),
}
others = {}
for name, (bound, make) in bounds.items():
    ways = {
        "plain": bound,
        "augmentation": Consistency(bound, augment, weight=0.0),
        "CR, λ = 1": Consistency(bound, augment, weight=1.0),
    }
    others[name] = train_and_evaluate(first, ways, make, settings["seeds"])

# %% tags=["hide-input"]
for name, found in others.items():
    d = differences(found, "CR, λ = 1", "augmentation")
    rows = [
        [
            c,
            *(
                written([run[c] for run in runs], digits_shown.get(c, 2))
                for runs in found.values()
            ),
            star(*d[c], digits_shown.get(c, 2)),
        ]
        for c in columns
    ]
    tell(
        f"**{name}**, {first}\n\n"
        + markdown_table(["", *found, "CR − augmentation"], rows)
    )

# %% tags=["hide-input"]
everything = {f"{name}": found for name, found in results.items()} | {
    f"{first}, {name}": found for name, found in others.items()
}
fig, axes = plt.subplots(
    1, 4, figsize=(12, 0.45 * len(everything) + 1.2), sharey=True
)
for ax, column in zip(
    axes, ("NLL", "rate", "5-NN", "retrieval, unseen"), strict=True
):
    for row, found in enumerate(everything.values()):
        for (method, control), colour, marker, offset in (
            (("augmentation", "plain"), COLOURS[0], "o", -0.12),
            (("CR, λ = 1", "augmentation"), COLOURS[1], "s", 0.12),
        ):
            mean, error = differences(found, method, control)[column]
            ax.errorbar(
                mean,
                row + offset,
                xerr=2 * error,
                fmt=marker,
                color=colour,
                capsize=2,
                ms=5,
            )
    ax.axvline(0, color="black", lw=1)
    ax.set(title=column, xlabel="difference")
axes[0].set_yticks(range(len(everything)), list(everything))
axes[0].invert_yaxis()
handles = [
    plt.Line2D([], [], color=c, marker=m, ls="")
    for c, m in ((COLOURS[0], "o"), (COLOURS[1], "s"))
]
fig.legend(
    handles,
    ["augmentation − plain", "CR (λ = 1) − augmentation"],
    loc="upper center",
    ncols=2,
    bbox_to_anchor=(0.5, 1.08),
)
fig.tight_layout()
show(
    fig,
    caption="Who brought the gain? Circles: what augmentation adds to a plain "
    "VAE. Squares: what the divergence adds to augmentation. Mean "
    "difference over seeds, with two standard errors. NLL: left of zero "
    "is better; accuracy and retrieval: right of zero is better.",
    alt="Four panels of differences with error bars, one row for each data set "
    "and bound, comparing the effect of augmentation with that of the penalty.",
)

# %% tags=["hide-input"]
def plain_key(text: str) -> str:
    """A key for the results file: letters, digits and single underscores."""
    return "_".join(
        "".join(
            c if c.isalnum() else " "
            for c in text.replace("−", "minus").replace("λ", "")
        ).split()
    )


def numbers(values: list[float]) -> dict[str, float]:
    return mean_and_standard_error(values)._asdict()


def summary_of(found: dict[str, list[dict[str, float]]]) -> dict:
    return {
        plain_key(m): {
            plain_key(c): numbers([run[c] for run in runs]) for c in columns
        }
        for m, runs in found.items()
    }


save_results(
    "05_consistency",
    {
        "settings": settings,
        "data": {
            plain_key(name): summary_of(found) for name, found in results.items()
        },
        "bounds": {
            plain_key(name): summary_of(found) for name, found in others.items()
        },
        "differences": {
            plain_key(key): {
                plain_key(c): dict(
                    zip(("mean", "standard_error"), value, strict=True)
                )
                for c, value in difference.items()
            }
            for key, difference in compared.items()
        },
        "claim": {"met_on": len(met), "of": len(settings["data"])},
        "sweep": sweep,
        "mutual_information_ceiling": math.log(len(test)),
    },
)

# %% [markdown]
# ## 7. What it does not do
#
# **It does not tell invariance from vagueness.** A divergence between posteriors falls when the means agree and when the posteriors widen. That is why the table has *retrieval* beside *divergence*: only the first
# demands that the copy be nearer to its own original than to others. The divergence alone is the quantity that was optimised.
#
# **It cannot make the decoder forget.** Both bounds ask for each copy's exact pixels. As long as they do, the angle is worth nats to the decoder, and λ only sets how many of them it may have. Methods that compare codes without
# a decoder are free of that conflict, and have another one: without a decoder nothing keeps the code from collapsing to a point.
#
# **It knows the transformations it was shown.** Look at the rows *seen* and *unseen*. What carries over to shear, brightness and noise is an empirical matter, not a promise.
#
# **The mutual information of the table has a ceiling.** With $N$ test images its estimate ends at $\log N$. When two methods both sit near the ceiling, equal numbers do not mean equal codes. The rate bounds the truth from above,
# and *which picture* in section 5 was measured with two latent variables, well below the ceiling, for that reason.
#
# **About the paper's numbers.** The paper measures mutual information, active units, KL, NLL and the accuracy of a classifier on codes, for four kinds of VAE, on MNIST, OMNIGLOT and CelebA, and finds them improved; with NVAE as the model
# it reports 76.93 nats on binarised MNIST ([Sinha & Dieng, 2021](https://arxiv.org/abs/2105.14859)), which no network of the size used here comes near. Its released code averages the reconstruction over pixels while it sums the divergence, so that its λ is not ours. The
# tables of section 6 are therefore a test of the *claim*, at the scale of the profile that they name, not a reproduction of its tables.

# %% [markdown]
# ## 8. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a second or two.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("5.1")

# %% [markdown]
# ### Exercise 5.1 · Two Gaussians (10 minutes)
#
# Write the divergence (5.2) as a function of two means and two *log standard deviations*, one number for each row. Mind the direction: copy first.

# %% tags=["exercise"]
def divergence(
    mean_tx: torch.Tensor,
    log_std_tx: torch.Tensor,
    mean_x: torch.Tensor,
    log_std_x: torch.Tensor,
) -> torch.Tensor:
    """KL(N(mean_tx, exp(log_std_tx)²) || N(mean_x, exp(log_std_x)²)) in nats.

    Four times [B, D] -> [B].
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("5.1", divergence)
# hint("5.1")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_5_1(
    mean_tx: torch.Tensor,
    log_std_tx: torch.Tensor,
    mean_x: torch.Tensor,
    log_std_x: torch.Tensor,
) -> torch.Tensor:
    square = (mean_tx - mean_x) ** 2
    distance = ((2 * log_std_tx).exp() + square) / (2 * log_std_x).exp()
    return 0.5 * (2 * log_std_x - 2 * log_std_tx - 1 + distance).sum(-1)


# %% [markdown]
# ### Exercise 5.2 · The best original (20 minutes)
#
# The posteriors of $K$ copies are fixed, $\mathcal N(m_k, s_k^2)$. Which Gaussian $\mathcal N(\mu, \sigma^2)$ for the original has the least mean divergence to them, copy first and original first? Derive both pairs of formulas, then write them as one function.
#
# <details><summary>Solution</summary>
#
# *Copy first.* Up to constants the mean of $\mathrm{KL}(\text{copy} \,\|\, \text{original})$ is $\tfrac12\log\sigma^2 + \frac{1}{2\sigma^2}\,\frac1K\sum_k\big[s_k^2 + (m_k - \mu)^2\big]$. The derivative in $\mu$ vanishes at $\mu = \frac1K\sum_k m_k$, the one in $\sigma^2$ where $\sigma^2$ equals the mean of the bracket:
# $$\mu = \tfrac1K\textstyle\sum_k m_k, \qquad \sigma^2 = \tfrac1K\textstyle\sum_k \big[s_k^2 + (m_k - \mu)^2\big],$$
# mean and variance of the mixture of the copies. The best original is *wide*: it covers them all.
#
# *Original first.* The mean of $\mathrm{KL}(\text{original} \,\|\, \text{copy})$ is $\frac1K\sum_k \frac{\sigma^2 + (\mu - m_k)^2}{2 s_k^2} - \tfrac12\log\sigma^2$ up to constants. With $\tau = \frac1K\sum_k s_k^{-2}$,
# $$\mu = \tfrac{1}{K\tau}\textstyle\sum_k m_k\, s_k^{-2}, \qquad \sigma^2 = 1/\tau,$$
# a mean weighted by precision, and a width that does not see how far the copies lie apart. The best original is *narrow*.
#
# Your derivation is complete if it
#
# - writes both divergences with the right Gaussian in the denominator;
# - differentiates in $\sigma^2$ (or $\log\sigma$) at fixed $\mu$ and uses the optimal $\mu$;
# - notices that the scatter of the $m_k$ enters $\sigma$ in one direction only, and says what that means for section 3's second way.
#
# </details>

# %% tags=["exercise"]
def best_original(
    means: torch.Tensor, stds: torch.Tensor, copy_first: bool
) -> torch.Tensor:
    """(mu, sigma) of the Gaussian of least mean divergence: [K], [K] -> [2]."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("5.2", best_original)
# hint("5.2")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_5_2(
    means: torch.Tensor, stds: torch.Tensor, copy_first: bool
) -> torch.Tensor:
    if copy_first:
        mu = means.mean()
        return torch.stack([mu, (stds**2 + (means - mu) ** 2).mean().sqrt()])
    precision = stds**-2
    mu = (means * precision).mean() / precision.mean()
    return torch.stack([mu, precision.mean() ** -0.5])


# %% [markdown]
# ### Exercise 5.3 · Three ways to agree (20 minutes)
#
# Let the encoder be linear, $\mu(x) = Ax$, with constant $\sigma$, and the transformation a small random shift of pixels $\tilde x = x + \delta$ with $\mathbb E[\delta] = 0$ and covariance $S$. Show that the expected divergence is $\tfrac12\sum_d a_d^\top S a_d / \sigma_d^2$,
# where $a_d$ is row $d$ of $A$. Then show that scaling $A$ by $c < 1$ and scaling $\sigma$ by $1/c$ lower it by the same factor. Which of the two lowers the information about the picture, and which lowers the rate? Is there a third way? Write the expected divergence as a function.
#
# <details><summary>Solution</summary>
#
# Both posteriors have the same covariance, so only the distance of the means remains: $\mathrm{KL} = \tfrac12 \sum_d (a_d^\top\delta)^2/\sigma_d^2$, and $\mathbb E[(a_d^\top\delta)^2] = a_d^\top S a_d$. Only the ratio $a_d/\sigma_d$ appears, so both
# scalings multiply the divergence by $c^2$. The information $I_q(x; z)$ depends on the same ratios (rescaling $z$ changes no information), so *both* lower it, and by the same amount. Both lower the rate $\tfrac12\sum_d(\sigma_d^2 + \mathbb E[\mu_d^2] - 1 - \log\sigma_d^2)$ too:
# shrinking $A$ through $\mathbb E[\mu_d^2]$, widening $\sigma$ through $\sigma_d^2 - \log\sigma_d^2$ as long as $\sigma_d < 1$. Only a third way leaves the information about the picture alone: rotate $a_d$ *away from the directions of $S$*. That is invariance, and a linear encoder can have it exactly, if the pictures
# differ in directions in which the transformation does nothing.
#
# Your derivation is complete if it
#
# - says why logarithms and traces cancel;
# - averages a square with the covariance, not with the mean;
# - treats information and rate apart;
# - finds the third way and says when it exists.
#
# </details>

# %% tags=["exercise"]
def expected_divergence(
    A: torch.Tensor, S: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Mean divergence in nats for A [D, P], S [P, P] and sigma [D].

    A 0-dimensional tensor.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("5.3", expected_divergence)
# hint("5.3")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_5_3(
    A: torch.Tensor, S: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    return 0.5 * ((A @ S * A).sum(1) / sigma**2).sum()


# %% [markdown]
# ### Exercise 5.4 · One teacher, one pupil (research, an evening on Colab)
#
# Self-supervised methods often stop the gradient on one side: the original's posterior is a *target*, and only the copy's moves. Write this variant as an objective, with no gradient through $q_\phi(z \mid x)$ inside the divergence.

# %% tags=["exercise"]
def taught(
    model: VAE, x: torch.Tensor, tx: torch.Tensor, weight: float = 1.0
) -> torch.Tensor:
    """L(x) + L(tx) - weight * KL(q(z|tx) || q(z|x)), with L the ELBO: [B].

    In the divergence, q(z|x) is held fixed.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("5.4", taught)
# hint("5.4")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_5_4(
    model: VAE, x: torch.Tensor, tx: torch.Tensor, weight: float = 1.0
) -> torch.Tensor:
    with torch.no_grad():
        target = model.posterior(x)
    disagreement = kl_divergence(model.posterior(tx), target)
    return elbo(model, x) + elbo(model, tx) - weight * disagreement


# %% [markdown]
# Then train with it, and look at the widths as in section 5:
#
# ```python
# turn = RandomAffine(degrees=15)
# images = binarise(load("digits").images)  # or load("mnist")
# with seeded(0):
#     model = VAE(*mlp(images.shape[1:], 2, hidden=(64,)), latent_dim=2)
# fit(model, lambda model, x: taught(model, x, binarise(turn(x))), images, epochs=20)
# ```
#
# Of the two ways to lower the divergence, moving the means together and widening $\sigma$: which one has the stopped gradient closed?
#
# <details><summary>Solution</summary>
#
# Look at (5.2) as a function of the copy's side alone, which is all that still feels it. The $\sigma$ in the denominator is the teacher's, and a constant: making the original vaguer is no longer rewarded. What is left to the pupil is to bring $\tilde\mu$ to $\mu$, and to bring $\tilde\sigma$ to $\sigma$, from either side, for in $\tilde\sigma$ the divergence is $\tfrac12(\tilde\sigma^2/\sigma^2 - \log\tilde\sigma^2)$, least at $\tilde\sigma = \sigma$.
# So **widening is closed, and moving the means together stays open**. Two reservations. The encoder is one network for both sides, so whatever teaches it about copies changes the originals as well; an image of the training set is close to many copies of its neighbours. And the decoder still asks for the exact pixels of each copy, as section 7 says, so the agreement that is reached is a compromise as before,
# at a smaller divergence per unit of width. Expect narrower posteriors and more information about the picture than with both gradients at the same $\lambda$; your figure decides.
#
# Your report is complete if it
#
# - shows the mean $\sigma$ of originals and of copies over $\lambda$, for both variants and several seeds;
# - shows the distance of the means in units of $\sigma$, *and* in the latent space's own unit;
# - compares the information about the picture at equal divergence, not at equal $\lambda$.
#
# </details>

# %% [markdown]
# ## 9. Further reading
#
# - [Sinha & Dieng, *Consistency Regularization for Variational Auto-Encoders*, 2021](https://arxiv.org/abs/2105.14859): the paper of this chapter.
# - [Alemi et al., *Fixing a Broken ELBO*, 2018](https://arxiv.org/abs/1711.00464): rate, distortion, and the information between them.
# - [Hoffman & Johnson, *ELBO surgery*, 2016](http://approximateinference.org/accepted/HoffmanJohnson2016.pdf): the mutual information inside the KL term.
# - [Burda, Grosse & Salakhutdinov, 2016](https://arxiv.org/abs/1509.00519): importance-weighted bounds, and active units.
# - [Vahdat & Kautz, *NVAE*, 2020](https://arxiv.org/abs/2007.03898): truly deep hierarchies of latent variables.
