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
# # Latent axes that mean something: the Jacobian L1 penalty
#
# The axes of a latent space are ours to choose, and a plain VAE has little reason to choose well. This chapter finds out what the ELBO says about the axes (something, but not enough),
# adds a cost that says more, an L1 norm of the decoder's Jacobian ([Rhodes & Lee, 2021](https://arxiv.org/abs/2106.02923)), and measures whether latents then match the
# causes of an image *nearby*, where one can ask for it, rather than everywhere, where often one cannot.
#
# **You need:** [chapter 1](01_vae.ipynb) (the ELBO), Jacobians, the singular value decomposition.
# **You will be able to:** say why VAEs line up with local principal components and when that fails, differentiate a decoder forwards, say what the gradient of an exact derivative leaves out, train with the penalty, and read a
# disentanglement score without being fooled by it.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import math
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from sklearn.decomposition import FastICA
from torch import nn
from torch.distributions import kl_divergence

from vaekit import (
    VAE, JacobianL1, conv, decoder_jacobian, elbo, jacobian_l1, jacobian_l2,
    linear, local_scores, log_evidence, mlp,
)
from vaekit.datasets import load, render_three_dots
from vaekit.jacobian import FactorVAE, annealed_capacity, beta_tcvae, dip_vae
from vaekit.likelihoods import Bernoulli
from vaekit.metrics import Mean, mean_and_standard_error
from vaekit.notebook import (
    COLOURS, check, hint, live, markdown_table, number, save_results,
    settings, show, stored, tell, trained, use_style,
)
from vaekit.training import default_device, seeded

use_style()
device = default_device()

# %% [markdown]
# Everything that decides how long the chapter runs is in one table. The column in force is that of the profile
# ([set-up](../book/setup.md)); the stored pages say which one they come from.

# %% tags=["settings", "hide-input"]
ALL_METHODS = ("β-VAE", "JL1", "FactorVAE", "JL2", "DIP-VAE-I", "β-TCVAE")
ALL_METHODS += ("DIP-VAE-II", "annealed")
s = settings(
    # columns: smoke, cpu, night, gpu, paper
    size=(16, 16, 16, 32, 64),  # pixels on a side
    network=("mlp 32", "mlp 128 128", "mlp 128 128", "conv", "conv"),
    images=(640, 20_000, 20_000, 50_000, 500_000),
    epochs=(1, 2, 10, 64, 39),
    batch_size=(32, 32, 32, 64, 64),
    anneal=(5, 400, 3_000, 20_000, 100_000),  # steps in which weights rise
    lr=(2e-3, 1e-3, 1e-3, 5e-4, 1e-4),
    gamma=(0.05, 0.05, 0.05, 0.1, 0.1),  # of JL1 with dots in lanes
    beta=(1, 1, 1, 1, 4),  # of the KL term, where nothing else is said
    columns=(2, 1, 1, 2, None),  # of the Jacobian, for each image and step
    seeds=(2, 2, 3, 5, 10),
    tuning_seeds=(1, 1, 1, 2, 3),
    budget=(2, 2, 3, 4, 4),  # settings that every method may try
    methods=(  # compared with dots anywhere
        ("β-VAE", "JL1", "FactorVAE"),
        ("β-VAE", "JL1", "FactorVAE"),
        ALL_METHODS[:4],
        *[ALL_METHODS] * 2,
    ),
    filters=(4, 16, 16, 16, 32),  # latents for photographs
    hidden=(16, 64, 64, 1000, 1000),  # of FactorVAE's discriminator
    layers=(2, 3, 3, 6, 6),  # of FactorVAE's discriminator
    rhos=((0.1, 1.0), (0.1, 0.3, 1.0), *[(0.1, 0.2, 0.3, 0.6, 1.0)] * 3),
    points=(500, 1_000, 1_000, 4_000, 10_000),  # images of a neighbourhood
    centres=(2, 5, 10, 20, 20),  # neighbourhoods
    rotations=(10, 40, 50, 100, 100),  # random codes to compare with
    judged=(40, 200, 300, 1_000, 2_000),  # test images for likelihoods
    weights=(10, 50, 100, 500, 1_000),  # importance weights for each
    crops=(500, 20_000, 20_000, 50_000, 50_000),  # of photographs
    crop_steps=(30, 800, 1_500, 5_000, 10_000),
)
size, rhos, latent_dim = s.size, s.rhos, 10
steps_taken = s.epochs * math.ceil(s.images / s.batch_size)

# %% [markdown]
# ## 1. Three dots, six numbers
#
# Here are images with nothing in them but three black dots. Each was drawn from six numbers, $x$ and $y$ of each dot. A VAE sees only the pixels. Will its latents find the six numbers?

# %% [markdown]
# **Predict, then run.** A VAE with ten latents is shown thousands of such pictures. Will one latent move one dot sideways, or will each latent move all dots at once? Say which you expect, and why a likelihood should care.

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 8, figsize=(8, 2.1))
for ax, image in zip(
    axes.flat, load("three-dots", n=16, size=64).images, strict=True
):
    ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(True)
show(
    fig,
    caption="Three dots at random places. Six numbers make the image; nobody tells "
    "the model which, nor that there are six.",
    alt="Two rows of eight white squares with three black dots each, at random "
    "positions.",
)

# %% [markdown]
# In a sense it cannot. Exchange two dots and the image is the same, so "the first dot" is not a property of the picture: no continuous code can follow it everywhere. But *near* a given picture
# it is perfectly clear which dot is which. That is the sense of **local disentanglement**: close to any image, each latent should move one thing.
#
# What a latent moves is a picture itself. Write $g(z) = \mathbb E[x \mid z]$ for the mean image that the decoder draws. Column $i$ of its **Jacobian**,
#
# $$J_i(z) = \frac{\partial g(z)}{\partial z_i} \in \mathbb R^{\text{image}},$$
#
# is how the image changes when latent $i$ moves a little. We can look at such columns before any training, because the renderer of the data set can be differentiated as well as a
# decoder can. Above: the six numbers as they are. Below: the same picture, its six numbers mixed by a random rotation.

# %%
place = torch.tensor([[14.0, 20.0, 44.0, 12.0, 36.0, 48.0]], dtype=torch.float64)


def renderer_columns(directions: torch.Tensor, size: int = 64) -> torch.Tensor:
    """Derivatives of the drawn image along `directions` [K, 6] of its factors: [K,
    1, size, size].
    """
    draw = partial(render_three_dots, size=size)
    return torch.func.vmap(
        lambda v: torch.func.jvp(draw, (place,), (v[None],))[1][0]
    )(directions)


with seeded(0):
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
straight, mixed = (
    renderer_columns(torch.eye(6, dtype=torch.float64)),
    renderer_columns(rotation),
)


# %% tags=["hide-input"]
def draw_columns(
    rows: dict[str, torch.Tensor], columns: int, scale: float | None = None
) -> plt.Figure:
    """Rows of signed images [K, 1, H, W]: purple where a pixel gets lighter, orange
    where it gets darker.
    """
    fig, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(0.95 * columns + 1.2, 1.05 * len(rows)),
        squeeze=False,
    )
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        limit = scale or float(images.abs().quantile(0.995)) or 1.0
        for ax in line:
            ax.set_axis_off()
        for ax, image in zip(line, images, strict=False):
            ax.imshow(image[0].detach().cpu(), cmap="PuOr", vmin=-limit, vmax=limit)
        line[0].text(
            -0.08, 0.5, name, transform=line[0].transAxes, ha="right", va="center"
        )
    return fig


fig = draw_columns({"six numbers": straight, "rotated": mixed}, 6)
show(
    fig,
    caption="What changes in the image when one number moves. Above, the numbers "
    "that drew it: each moves one dot. Below, a rotation of them: each "
    "moves all dots at once. Purple pixels get lighter, orange ones "
    "darker. Both rows span the same small changes of the image.",
    alt="Two rows of six difference images. Above, each shows the two edges of a "
    "single dot; below, each shows the edges of all three.",
)

# %% tags=["hide-input"]
l1 = {
    "six numbers": straight.abs().sum().item(),
    "rotated": mixed.abs().sum().item(),
}
l2 = {
    "six numbers": straight.square().sum().item(),
    "rotated": mixed.square().sum().item(),
}
tell(
    markdown_table(
        ["code", "sum of squares of the columns", "sum of absolute values"],
        [[name, f"{l2[name]:.1f}", f"{l1[name]:.1f}"] for name in l1],
    )
)

# %% [markdown]
# The sum of squares is the same in both rows; the sum of absolute values is not. This table is the chapter in a nutshell. The rest asks three questions: why the ELBO does not prefer the upper row by itself; how to make it;
# and what we have gained once it does.
#
# ## 2. What the ELBO says about axes
#
# ### A rotation that the evidence cannot see
#
# Let $R$ be a rotation of the latent space, and replace the decoder $g$ by $\tilde g(z) = g(R^\top z)$. The prior $\mathcal N(0, I)$ does not change under rotation, so $\tilde g$ and $g$
# give the same distribution over images: **no amount of data tells them apart**. If anything prefers one of them, it is the posterior's shape. We let
# $q(z \mid x) = \mathcal N(\mu, \operatorname{diag}\sigma^2)$, and an axis-aligned Gaussian does notice a rotation.
#
# ### Why VAEs line up with local principal components
#
# Take Gaussian noise of variance $s^2$ and a posterior narrow enough for the decoder to be straight across it, $g(\mu + \sigma \odot \varepsilon) \approx g(\mu) + J (\sigma \odot \varepsilon)$. The expected squared error is then
#
# $$\mathbb E_\varepsilon \|x - g(\mu + \sigma \odot \varepsilon)\|^2 \approx \|x - g(\mu)\|^2 + \sum_i \sigma_i^2 \|J_i\|^2, \tag{4.1}$$
#
# since $\mathbb E\,\varepsilon_i \varepsilon_j = 0$ for $i \ne j$. The part of the ELBO that depends on the widths $\sigma_i$ is, up to its sign,
#
# $$\frac12 \sum_i \Big( \frac{\sigma_i^2 \|J_i\|^2}{s^2} + \sigma_i^2 - 1 - \log \sigma_i^2 \Big).$$
#
# Each $\sigma_i$ can be chosen by itself. Setting the derivative to zero gives $\sigma_i^2 = (1 + \|J_i\|^2 / s^2)^{-1}$: a latent that moves the image a lot must be known precisely. Put back in, the cost is
#
# $$C(J) = \frac12 \sum_i \log \Big( 1 + \frac{\|J_i\|^2}{s^2} \Big) = \frac12 \sum_i \log \big( I + J^\top J / s^2 \big)_{ii}. \tag{4.2}$$
#
# Now rotate: $J \to J R$ with $R$ of our choice. The product of the diagonal entries of a positive definite matrix is at least its determinant (Hadamard's inequality), with equality only if the matrix is diagonal, so
#
# $$C(J R) \;\ge\; \frac12 \log \det \big( I + J^\top J / s^2 \big), \tag{4.3}$$
#
# with equality if and only if the columns of $J R$ are orthogonal. The right-hand side does not depend on $R$. So the ELBO prefers **orthogonal columns**, and the rotation that makes the columns of $J$ orthogonal is the one of its singular value decomposition: locally, the latents are
# the principal components of what the decoder can do ([Rolínek et al., 2019](https://arxiv.org/abs/1812.06775), "by accident", because nobody asked for a diagonal posterior with this in mind).
#
# ### Where this is silent
#
# If two singular values are equal, every rotation between their two directions keeps the columns orthogonal, and $C$ does not move at all. And that is our picture: three dots of one size,
# each of which can go up or sideways. If the dots do not overlap, their columns are orthogonal and of nearly one length.

# %%
singular_values = torch.linalg.svdvals(straight.flatten(1))


def pca_cost(columns: torch.Tensor, noise: float = 0.5) -> float:
    """C(J) in nats, for columns [D, *image]."""
    return (
        0.5
        * torch.log1p(columns.flatten(1).square().sum(1) / noise**2).sum().item()
    )


tell(
    "The six singular values of the renderer's Jacobian at this picture: "
    + ", ".join(f"{v:.2f}" for v in singular_values)
    + f". The cost $C$ of the six numbers is {pca_cost(straight):.4f} nats, of "
    f"the random rotation {pca_cost(mixed):.4f} nats, a difference of "
    f"{pca_cost(mixed) - pca_cost(straight):.4f}."
)

# %% [markdown]
# A VAE on this data is left without a preference, by a symmetry of the data and not by bad luck. To get dots apart we need a cost that sees what the sum of squares does not.
#
# ### From sparse coding to an L1 cost
#
# The same problem was met, and solved, long before VAEs. In independent component analysis and in sparse coding, principal components are the wrong axes for natural images, since many orthogonal bases explain the same covariance, and a *sparse* basis is the
# right one ([Olshausen & Field, 1996](https://doi.org/10.1038/381607a0)). Near a point, a decoder *is* a linear generative model, $x \approx g(\mu) + J\,\delta z$, so the same cure applies to $J$: ask that its entries be sparse,
#
# $$\|J\|_1 = \sum_{i, p} \Big\lvert \frac{\partial g_p(z)}{\partial z_i} \Big\rvert . \tag{4.4}$$
#
# Why does L1 tell rotations apart? For a pixel $p$ that only latent 1 moves, row $p$ of $J$ is $(a, 0)$. Turned by an angle $\varphi$ it becomes $(a \cos\varphi, -a \sin\varphi)$, with the absolute sum
# $|a|\,(|\cos\varphi| + |\sin\varphi|)$: least on the axes, and $\sqrt 2$ times as much at 45°. Where two latents change *different* pixels, L1 wants them unmixed. Where they change the *same* pixels, it depends on how:

# %% tags=["hide-input"]
angles = torch.linspace(0, math.pi / 2, 46, dtype=torch.float64)


def turned(i: int, j: int, norm: torch.Tensor) -> list[float]:
    """The norm of columns i and j, turned by each angle, over its value at angle 0.
    """
    values = [
        norm(math.cos(a) * straight[i] + math.sin(a) * straight[j]).sum()
        + norm(math.cos(a) * straight[j] - math.sin(a) * straight[i]).sum()
        for a in angles.tolist()
    ]
    return [(v / values[0]).item() for v in values]


fig, ax = plt.subplots(figsize=(6, 3.2))
degrees = angles * 180 / math.pi
ax.plot(degrees, turned(0, 2, torch.abs), label="L1: two dots, sideways")
ax.plot(
    degrees, turned(0, 1, torch.abs), "--", label="L1: one dot, sideways and down"
)
ax.plot(degrees, turned(0, 2, torch.square), ":", label="L2: either")
ax.set(
    xlabel="rotation between two latents, degrees", ylabel="norm, relative to 0°"
)
ax.legend()
show(
    fig,
    caption="L1 norm of two columns as they are mixed. Mixing two <em>dots</em> "
    "costs up to 41 % more. Mixing the two directions of <em>one round "
    "dot</em> costs nothing: a disc has no corners by which to tell right "
    "from up. The sum of squares never moves.",
    alt="Line chart over the angle from 0 to 90 degrees: one curve rises to 1.41 "
    "at 45 degrees and falls back; two others stay at 1.",
)

# %% [markdown]
# Keep the dashed line in mind. The penalty can separate the dots from one another. It **cannot** say which way a round dot should be asked to move: any two perpendicular directions will do. We come back to this
# when we read the scores.
#
# **Turn it yourself.** Below, two latents move two dots, and the page differentiates the drawing as you turn their basis. At which angle is the L1 norm largest, and by how much? Let "descend" find the axes again. Then push the dots together until they overlap, and descend once more: does it still find them?

# %% tags=["standalone", "hide-input"]
live.basis()

# %% [markdown]
# ## 3. The method, in code
#
# The objective is any bound less the penalty, at a draw $z \sim q_\phi(z \mid x)$ that is *detached*, so that only the decoder feels it:
#
# $$\mathcal L(x) - \gamma \sum_{i,p} \Big\lvert \frac{\partial g_p(z)}{\partial z_i} \Big\rvert . \tag{4.5}$$
#
# Backward passes give rows of $J$, one for each of hundreds of pixels. We want its ten columns. **Forward mode** computes a column along with the image: each layer passes on a pair, its value $h$ and its tangent $\dot h$,
# $(h, \dot h) \mapsto (f(h), f'(h)\,\dot h)$, starting from $(z, e_i)$. The work for a column is about that of one more decoding. The library does all columns of equation (4.5) in one go, sharing $h$ between them:


# %%
def jacobian(model: VAE, z: torch.Tensor) -> torch.Tensor:
    """[B, D, *image] from z [B, D]: `vaekit.decoder_jacobian` without its checks.
    """
    # [D, B, D]
    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None].expand(
        -1, len(z), -1
    )

    def column(v: torch.Tensor) -> torch.Tensor:
        # J v
        return torch.func.jvp(lambda z: model.likelihood(z).mean, (z,), (v,))[1]

    return torch.func.vmap(column)(basis).transpose(0, 1)


with seeded(0):
    small = VAE(*mlp((1, 16, 16), latent_dim=10, hidden=(64,)), latent_dim=10)
    z = torch.randn(8, 10)
exact = jacobian(small.double(), z.double())
assert torch.equal(exact, decoder_jacobian(small, z.double()))

# %% [markdown]
# The other way, the paper's, is to shift $z$ by a small step $\varepsilon$ in each direction and divide the difference by it, $(g(z + \varepsilon e_i) - g(z)) / \varepsilon$. As a *value* the first is exact and the second is not. For training we need a *gradient*, and there, as the next section shows, it is the other way round.
#
# We need not compute every column at every step. Let each image draw $k$ of the $D$ columns without replacement, and weigh their sum by $D / k$. Each column is drawn with probability $k / D$, so
# the expectation is the full norm, and what is added is a little more noise on a gradient that is noisy anyway.

# %% [markdown]
# **Warm-up 4.a · One column.** Fill in the blank: column $i$ of a decoder's Jacobian by forward mode, for a batch of latents at once.

# %% tags=["warm-up", "nbval-check-output"]
def column(decode, z: torch.Tensor, i: int) -> torch.Tensor:
    """d decode(z) / d z_i for each row of z [B, D]; decode(z) is [B, P]: [B, P]."""
    return ...  # fill in


check("4.a", column)

# %% [markdown]
# `JacobianL1` wraps any bound: the ELBO, the objective of another chapter, anything that returns nats per image. It draws $z$ from the posterior without a gradient, and subtracts. The weights rise linearly from zero: a
# penalty in force from the first step would keep the decoder from drawing anything at all. `fit` hands each scheduled weight to the objective by name.
#
# ```python
# class JacobianL1(nn.Module):
#     def forward(self, model, x, *, weight=None, **options):
#         gamma = self.weight if weight is None else weight
#         bound = self.bound(model, x, **options)                      # [B]
#         with torch.no_grad():
#             z = model.posterior(x).rsample()                         # the penalty does not train the encoder
#         return bound - gamma * jacobian_l1(model, z, columns=self.columns, differences=self.differences)
# ```
#
# ### A check against a closed form
#
# For a linear decoder with a sigmoid, $g(z) = \operatorname{sigmoid}(Wz + b)$, the chain rule gives $J = \operatorname{diag}\big(p (1 - p)\big) W$ with $p = g(z)$. And if we rotate the latent space, the image at the rotated point
# must stay, the L2 norm of $J$ must stay, and the L1 norm must not.

# %%
with seeded(2):
    W, b = (
        torch.zeros(6, 2, dtype=torch.float64),
        torch.randn(6, dtype=torch.float64),
    )
    # each pixel has one cause
    W[:3, 0], W[3:, 1] = (
        torch.randn(3, dtype=torch.float64),
        torch.randn(3, dtype=torch.float64),
    )
    z = torch.randn(5, 2, dtype=torch.float64)


def linear_sigmoid(W: torch.Tensor, b: torch.Tensor) -> VAE:
    """A VAE whose decoder is sigmoid(W z + b); its encoder plays no part here."""
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (1, 1, 6)))
    with torch.no_grad():
        decoder[0].weight.data, decoder[0].bias.data = W.clone(), b.clone()
    return VAE(nn.Identity(), decoder, latent_dim=2)


def pair_rotation(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


# %%
p = torch.sigmoid(z @ W.T + b)
by_hand = (p * (1 - p))[:, None] * W.T  # [B, D, P]
by_library = decoder_jacobian(linear_sigmoid(W, b), z).flatten(2)
norms = {
    angle: [
        norm(
            linear_sigmoid(W @ pair_rotation(math.radians(angle)), b),
            z @ pair_rotation(math.radians(angle)),
        )
        .mean()
        .item()
        for norm in (jacobian_l1, jacobian_l2)
    ]
    for angle in (0, 15, 45)
}

# %% tags=["hide-input"]
tell(
    "Largest difference between the library's Jacobian and the formula: "
    f"{(by_library - by_hand).abs().max():.1e}."
)
tell(
    markdown_table(
        ["rotation", "L1 norm", "squared L2 norm"],
        [[f"{angle}°", f"{a:.4f}", f"{c:.4f}"] for angle, (a, c) in norms.items()],
    )
)

# %% [markdown]
# ## 4. The gradient that exactness loses
#
# A decoder of ReLUs is piecewise linear in $z$. Its Jacobian is constant inside each linear region and **jumps** where a unit switches. So (4.4) is the mean, over the draws of $z$, of a step function, and when the weights move, the steps do two things: they change their height, and they change their place.
#
# Write $f_\theta(z)$ for the penalty at $z$, and $h_k(z) = 0$ for the border at which unit $k$ switches. For a function with jumps at moving places the derivative of an expectation has two terms (this is Leibniz's rule for an integral with moving ends, in more dimensions):
#
# $$\nabla_\theta\, \mathbb E\, f_\theta(z) = \underbrace{\mathbb E\, \nabla_\theta f_\theta(z)}_{\text{the heights}} + \underbrace{\sum_k \mathbb E\Big[\delta\big(h_k(z)\big)\, \nabla_\theta h_k(z)\, \big(f_\theta\big|_{h_k = 0^+} - f_\theta\big|_{h_k = 0^-}\big)\Big]}_{\text{the places}} . \tag{4.6}$$
#
# Automatic differentiation sees one $z$ at a time. At that $z$ no border passes, with probability one, so it returns the first term, always, however exact its derivatives are. The second term is not noise that averages out: it is missing.
#
# **By hand.** One latent, one unit, one pixel: $g(z) = \max(0, z + b)$ with $z \sim \mathcal N(0, 1)$. Its derivative is 1 where $z > -b$ and 0 elsewhere, so the penalty is $\mathbb E\,|g'(z)| = P(z > -b) = \Phi(b)$, and its slope in $b$ is the normal density $\varphi(b)$: raise the bias, and more draws find the unit switched on. But at every single $z$ the derivative is 1 or 0, and moving $b$ changes neither. Autograd says **zero**.
#
# Now the forward difference. $\big(\max(0, z + \varepsilon + b) - \max(0, z + b)\big) / \varepsilon$ is 1 on the right of the border and 0 on its left, and in between, over a stretch of width $\varepsilon$, it rises in a straight line with slope $1/\varepsilon$. It has no jump, so its gradient can be taken inside the expectation: it is $1/\varepsilon$ on the stretch and zero elsewhere, with the mean
#
# $$\frac{\Phi(b + \varepsilon) - \Phi(b)}{\varepsilon} \;\to\; \varphi(b) . \tag{4.7}$$
#
# The right answer, up to a bias of order $\varepsilon$. But only a share of about $\varepsilon\,\varphi(b)$ of all draws falls on the stretch, each with $1/\varepsilon$, so the variance grows as $\varphi(b) / \varepsilon$. A small step is right on average and mostly noise; a large step is calm and a little off.

# %% [markdown]
# **Predict, then run.** At $b = 0$ the slope is $\varphi(0) = 0.399$. A batch has 64 draws. With the authors' step, $\varepsilon = 0.001$, in what share of all batches is the gradient exactly zero?

# %%
steps = torch.logspace(-3, 0, 13)
b = torch.zeros(())
with seeded(3):
    draws_of_z = torch.randn(4000, 64)  # batches of 64


def batch_gradient(step: float) -> torch.Tensor:
    """d/db of the mean over each batch of |g(z + step) - g(z)| / step: [4000]."""

    def penalty(b: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        g = lambda z: torch.relu(z + b)  # noqa: E731
        return ((g(z + step) - g(z)) / step).abs().mean()

    return torch.func.vmap(torch.func.grad(penalty), (None, 0))(b, draws_of_z)


found = torch.stack([batch_gradient(step) for step in steps.tolist()])  # [13, 4000]


def exact_penalty(b: torch.Tensor) -> torch.Tensor:
    derivative = torch.func.vmap(torch.func.grad(lambda z: torch.relu(z + b)))
    return derivative(draws_of_z.flatten()).abs().mean()


autograd_says = torch.func.grad(exact_penalty)(b)

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.9), layout="constrained")
density, normal = 1 / math.sqrt(2 * math.pi), torch.distributions.Normal(0, 1)
left.semilogx(steps, found.mean(1), "o", ms=4, label="mean over the draws")
left.semilogx(steps, (normal.cdf(steps) - 0.5) / steps, color="0.4", label="(4.7)")
left.axhline(density, color=COLOURS[1], ls="--", label="true slope")
left.axhline(autograd_says.item(), color=COLOURS[2], ls=":", label="autograd")
left.set(xlabel="step ε", ylabel="gradient in b", ylim=(-0.03, 0.52))
left.legend(fontsize=9, loc="center left", bbox_to_anchor=(0, 0.4))
right.loglog(steps, found.std(1), "o-", ms=4, label="from a batch of 64")
right.loglog(
    steps, (density / steps / 64).sqrt(), "--", color="0.4", label="√(φ(b) / 64 ε)"
)
right.axhline(density, color=COLOURS[1], ls="--", label="true slope")
right.set(xlabel="step ε", ylabel="standard deviation")
right.legend(fontsize=9)
show(
    fig,
    caption="One unit, b = 0. Left: forward differences give the true slope for "
    "small steps; differentiating the exact derivative gives zero. Right: "
    "the smaller the step, the noisier the gradient of a batch.",
    alt="Left: points on a curve that reaches the true slope 0.4 as the step "
    "falls, above a line at zero for autograd. Right: a falling line of the "
    "standard deviation against the step, on logarithmic axes.",
)
tell(
    "Batches of 64 in which the gradient is exactly zero: "
    + ", ".join(
        f"**{100 * (found[i] == 0).float().mean():.0f} %** at ε = {steps[i]:g}"
        for i in (0, 4, 8)
    )
    + "."
)

# %% [markdown]
# A smooth activation (Softplus, tanh) has no borders, hence no second term: there, exact derivatives have the exact gradient. For ReLU we have three choices: the exact derivative with part of its gradient missing, a difference with all of it and noise, or another activation. Section 7 trains all of them from the same weights and lets them settle it.
#
# %% [markdown]
# ## 5. Where it can be solved: the axes of photographs
#
# With a linear decoder, $g(z) = Wz$, everything in section 2 is exact, and the model can be trained without a single random draw. For given $W$ the best encoder is known, and its ELBO, averaged over data with mean zero and covariance $S$, is
#
# $$\mathcal L(W) = \underbrace{-\tfrac12 \log\det(2\pi C) - \tfrac12 \operatorname{tr}(S C^{-1})}_{\text{the evidence, with } C = W W^\top + s^2 I} \;-\; \underbrace{\tfrac12 \Big( \sum_i \log M_{ii} - \log\det M \Big)}_{\text{Hadamard's gap, with } M = I + W^\top W / s^2} . \tag{4.8}$$
#
# The first part does not change when $W$ is rotated. The second is the gap of (4.3): zero if and only if the columns are orthogonal. So the ELBO's columns are the principal components (chapter 1), and with $-\gamma\,\|W\|_1$ the penalty enters a problem in which nothing else chooses. We climb it for small crops of two photographs, where sparse coding has been at home since 1996, and put principal and independent components beside it.

# %% [markdown]
# **Predict, then run.** Principal components of photographs look like waves that fill the crop. What will the columns look like under the penalty? And what does the evidence lose?

# %%
def crops(n: int, width: int = 16) -> torch.Tensor:
    """Grey crops of scikit-learn's two photographs, without their mean: [n, P]."""
    g = torch.Generator().manual_seed(0)
    found = []
    for photograph in load_sample_images().images:
        grey = torch.tensor(photograph / 255.0).mean(-1)  # [H, W]
        # [H', W', width, width], every crop of half the resolution
        every = grey[::2, ::2].unfold(0, width, 1).unfold(1, width, 1)
        row = torch.randint(every.shape[0], (n // 2,), generator=g)
        column = torch.randint(every.shape[1], (n // 2,), generator=g)
        found.append(every[row, column].flatten(1))
    x = torch.cat(found)
    return x - x.mean(1, keepdim=True) - (x - x.mean(1, keepdim=True)).mean(0)


# %%
def linear_elbo(W: torch.Tensor, S: torch.Tensor, s2: float) -> torch.Tensor:
    """Evidence and Hadamard's gap of (4.8), in nats an image, for W [P, D]: [2]."""
    eye = torch.eye(W.shape[1], dtype=W.dtype)
    M = eye + W.T @ W / s2  # [D, D]
    log_det = torch.linalg.slogdet(M)[1]
    inside = torch.linalg.solve(M, W.T @ S @ W).trace() / s2**2
    log_det_C = len(S) * math.log(2 * math.pi * s2) + log_det
    evidence = -(log_det_C + S.trace() / s2 - inside) / 2
    return torch.stack([evidence, (M.diagonal().log().sum() - log_det) / 2])


def climb(S: torch.Tensor, gamma: float, D: int, s2: float, steps: int) -> dict:
    """The best W [P, D] under the ELBO less gamma times its L1 norm."""
    W = (0.1 * torch.randn(len(S), D, dtype=S.dtype)).requires_grad_()
    optimizer = torch.optim.Adam([W], 0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        evidence, gap = linear_elbo(W, S, s2)
        (gap - evidence + gamma * W.abs().sum()).backward()
        optimizer.step()
        decay.step()
    return {"W": W.detach(), "terms": linear_elbo(W.detach(), S, s2)}


# %% tags=["hide-input"]
photographs = crops(s.crops)
S = photographs.T @ photographs / len(photographs)
filters = s.filters
noise = 0.1**2

# %%
solved = {
    gamma: stored(
        f"crops, γ = {gamma:g}", climb, S, gamma, filters, noise, s.crop_steps
    )
    for gamma in (0.0, 0.1, 1.0)
}
principal = torch.linalg.eigh(S)[1].flip(1)[:, :filters]
ica = FastICA(filters, random_state=0, whiten="unit-variance", max_iter=400)
with warnings.catch_warnings():  # of slow convergence, in a smoke run
    warnings.simplefilter("ignore")
    ica.fit(photographs.numpy())
bases = {
    "PCA": principal,
    "VAE (γ = 0)": solved[0.0]["W"],
    "ICA": torch.tensor(ica.mixing_),
    "JL1, γ = 0.1": solved[0.1]["W"],
    "JL1, γ = 1": solved[1.0]["W"],
}


def pixels_moved(columns: torch.Tensor) -> torch.Tensor:
    """Participation ratio of columns [..., P], from 1/P to 1: [...]."""
    l1, l2 = columns.abs().sum(-1), columns.norm(dim=-1)
    return l1.square() / l2.square().clamp_min(1e-12) / columns.shape[-1]


# %% tags=["hide-input"]
shown_filters = min(8, filters)
fig, axes = plt.subplots(
    len(bases), shown_filters, figsize=(7.6, 4.9), layout="constrained"
)
for line, (name, W) in zip(axes, bases.items(), strict=True):
    order = W.norm(dim=0).argsort(descending=True)[:shown_filters]
    if name == "PCA":
        order = range(shown_filters)
    for ax, k in zip(line, order, strict=True):
        limit = W[:, k].abs().max()
        ax.imshow(W[:, k].reshape(16, 16), cmap="PuOr", vmin=-limit, vmax=limit)
        ax.set_axis_off()
    line[0].text(
        -0.12, 0.5, name, transform=line[0].transAxes, ha="right", va="center"
    )
show(
    fig,
    caption="Columns of linear decoders for 16 × 16 crops of photographs, largest "
    "first. The VAE's are the principal components, waves over the whole crop; the "
    "penalty makes them local.",
    alt="Five rows of small filters: waves over the whole crop for PCA and for the "
    "VAE, mixed patterns for ICA, and small patches under the penalty.",
)
# %% tags=["hide-input"]
columns_of_crops = {
    name: {"pixels_moved": pixels_moved(W.T).mean().item()}
    for name, W in bases.items()
}
for gamma, name in (
    (0.0, "VAE (γ = 0)"),
    (0.1, "JL1, γ = 0.1"),
    (1.0, "JL1, γ = 1"),
):
    evidence, gap = solved[gamma]["terms"].tolist()
    columns_of_crops[name] |= {"evidence": evidence, "gap": gap}
tell(
    markdown_table(
        ["columns", "share of pixels moved", "evidence, nats", "gap, nats"],
        [
            [
                name,
                *(
                    number(v[k]) if k in v else "–"
                    for k in ("pixels_moved", "evidence", "gap")
                ),
            ]
            for name, v in columns_of_crops.items()
        ],
    )
    + "\n\nThe share of pixels moved is the participation ratio "
    "$\\|J_i\\|_1^2 / (P\\,\\|J_i\\|_2^2)$: $1/P$ for a column that changes one "
    "pixel of $P$, 1 for one that changes all alike."
)

# %% [markdown]
# In the stored run (`night`; nothing here is drawn at random but the crops) theory and picture agree: without a penalty Hadamard's gap is zero to seven digits and the columns are principal components. A weight of 0.1 halves the share of pixels that a column moves and takes half a nat of evidence, of 257; a weight of 1 leaves patches in one place and takes ten. Independent components of so few dimensions are not local on these photographs: sparse codes and sparse columns are different things.

# %% [markdown]
# ## 6. Scores, near and far
#
# How well do latents match factors? Fill a table with the mutual information $I_{ij}$ between each latent's code (the posterior mean, cut into five bins) and each factor. Two numbers summarise it:
#
# - The **mutual-information gap** of a factor $v_j$, with the informations of all latents sorted as $I_{(1)j} \ge I_{(2)j} \ge \dots$, is $(I_{(1)j} - I_{(2)j}) / H(v_j)$, the lead of its best latent over the second best, as a share of the factor's entropy ([Chen et al., 2018](https://arxiv.org/abs/1802.04942)).
# - The **modularity** of a latent is $1 - \frac{\sum_j I_{ij}^2 - \max_j I_{ij}^2}{(F - 1) \max_j I_{ij}^2}$ with $F$ the number of factors, which is 1 if it informs of one factor alone ([Ridgeway & Mozer, 2018](https://arxiv.org/abs/1802.05312)).
#
# Both are averaged. **Local** scores fill the table from images near a random centre: each factor is drawn uniformly within $\lfloor n \rho \rfloor$ of the centre's value, where $n$ is its number of values. At $\rho = 1$ this is the
# usual global score. Five bins say little about 13 values, so even a *perfect* code has a gap well below 1: no score should be read without the scores of codes whose quality we know.

# %% [markdown]
# **Warm-up 4.b · The gap.** Fill in the blank: the mutual-information gap of every factor.

# %% tags=["warm-up", "nbval-check-output"]
def information_gap(
    information: torch.Tensor, entropy: torch.Tensor
) -> torch.Tensor:
    """The gap of each factor, from I [D latents, F factors] and H [F]: [F]."""
    return ...  # fill in


check("4.b", information_gap)

# %% [markdown]
# **Predict, then run.** Three kinds of code are scored next: the six factors themselves, a code in which the two numbers of each dot are mixed, and codes of ten latents, as many as our models have, each a random mixture of all six. Rank them by both scores. Will the perfect one get a 1?

# %% tags=["hide-input"]
with seeded(0):
    within_dots = torch.stack(
        [
            torch.block_diag(*(pair_rotation(math.pi / 2 * a) for a in row))
            for row in torch.rand(s.rotations, 3).tolist()
        ]
    )
    # six rows of a random rotation of ten dimensions
    everything = torch.linalg.qr(
        torch.randn(s.rotations, latent_dim, latent_dim, dtype=torch.float64)
    )[0][:, :6]
# %% tags=["hide-input"]
known_codes = {
    "the six factors": torch.eye(6, dtype=torch.float64)[None],
    "x and y of each dot mixed": within_dots,
    "ten random mixtures": everything,
}


def scores_of_code(R: torch.Tensor, rho: float, points: int, centres: int) -> dict:
    """Gap and modularity of the codes f @ R[k] of the factors f: [K] each."""
    found = local_scores(
        lambda f: f @ R,
        lambda f: f.double(),
        [64] * 6,
        rho=rho,
        points=points,
        centres=centres,
    )
    return {"gap": found.gap, "modularity": found.modularity}


references = {
    name: {
        rho: stored(
            f"{name}, ρ = {rho:g}", scores_of_code, R, rho, s.points, s.centres
        )
        for rho in rhos
    }
    for name, R in known_codes.items()
}
# %% tags=["hide-input"]
tell(
    markdown_table(
        [
            "code",
            "gap, ρ = 0.1",
            "gap, ρ = 1",
            "modularity, ρ = 0.1",
            "modularity, ρ = 1",
        ],
        [
            [
                name,
                *(
                    f"{v[rho][kind].mean():.3f}"
                    + (
                        f" ({v[rho][kind].std():.3f})"
                        if len(v[rho][kind]) > 1
                        else ""
                    )
                    for kind in ("gap", "modularity")
                    for rho in (0.1, 1.0)
                ),
            ]
            for name, v in references.items()
        ],
    )
    + f"\n\nMean over {s.rotations} random codes; in brackets their standard "
    "deviation, from one code to the next."
)

# %% [markdown]
# Read the first column. The ceiling is far below 1. A code that follows each dot perfectly but in directions of its own choice, which is all the L1 penalty can ask for, loses more than half of it. And the last row is what comes by itself: mixtures of everything are not at zero. The paper's medians at $\rho = 0.1$ (ten seeds, read off its figure) are 0.123 for the penalised VAE and 0.062 for a β-VAE.
#
# %% [markdown]
# ## 7. The experiment
#
# Two worlds of three dots. In the paper's, the dots go **anywhere**, overlap and leave the picture, so that a global code cannot exist. Before it we try an easier one, in which every dot keeps to its own **lane**, the left, middle or
# right third of the picture, with less room sideways than up and down. Here a perfect global code exists; yet the three vertical movements have equal singular values, so by section 2 the ELBO has no reason to keep them apart.
#
# The paper's pictures have 64 × 64 pixels. A smaller picture has fewer pixels to be explained and to be changed, so weights do not carry over: the KL term would weigh more. We keep the balance by counting each pixel as often as it stands for
# pixels of the full size, in the likelihood and in the penalty. All nats below are therefore nats of the full size.

# %% [markdown]
# **Predict, then run.** In lanes, a perfect global code exists; anywhere, it does not. In which of the two worlds do you expect the penalty to lead, and at which radius: far (global scores) or near (local ones)?

# %% tags=["hide-input"]
# pixels of the full size that a pixel of ours stands for
stands_for = (64 / size) ** 2


def positions(world: str, factors: torch.Tensor) -> torch.Tensor:
    """Where the dots are [N, 6], from factors [N, 6], both from 0 to 63."""
    if world == "anywhere":  # the paper's data set
        return factors[:, :6].float()
    x, y = factors[:, 0:6:2] / 63, factors[:, 1:6:2] / 63  # [N, 3] each
    return 63 * torch.stack(
        [(torch.arange(3) + 0.15 + 0.7 * x) / 3, 0.1 + 0.8 * y], -1
    ).flatten(1)


def drawn(world: str, factors: torch.Tensor) -> torch.Tensor:
    """Images [N, 1, size, size]; a seventh factor is the light on all of it."""
    images = render_three_dots(positions(world, factors), size)
    if factors.shape[1] == 7:
        images = images * (0.3 + 0.7 * factors[:, 6, None, None, None] / 63)
    return images


# %% tags=["hide-input"]
def factors_of(n: int, seed: int, count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(64, (n, count), generator=generator)


class Coarse(Bernoulli):
    """Pixels that each count `stands_for` times."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return stands_for * super().log_prob(value)


def with_activation(module: nn.Module, activation: Callable) -> nn.Module:
    """The same networks with another activation in place of ReLU."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, activation())
        else:
            with_activation(child, activation)
    return module


def new_model(seed: int, activation: Callable = nn.ReLU) -> VAE:
    shape, (kind, *hidden) = (1, size, size), s.network.split()
    with seeded(seed):
        widths = tuple(map(int, hidden))
        pair = (
            mlp(shape, latent_dim, hidden=widths)
            if kind == "mlp"
            else conv(shape, latent_dim)
        )
    model = VAE(*pair, latent_dim=latent_dim, likelihood=Coarse)
    return with_activation(model, activation)


# %% [markdown]
# The seeds of a method are stacked into one batched model and trained side by side.

# %%
images_of = {
    world: drawn(world, factors_of(s.images, seed=0))
    for world in ("lanes", "anywhere")
}
images_of["lamp"] = drawn("lanes", factors_of(s.images, seed=0, count=7))


def rising(to: float) -> Callable[[int], float]:
    return linear(0, to, steps=s.anneal)


# %% tags=["hide-input"]
def train(
    name: str,
    world: str,
    method: tuple[object, dict],
    seeds: range,
    activation: Callable = nn.ReLU,
) -> list[VAE]:
    """Models of a method (an objective and what rises), one for each seed."""
    objective, schedules = method
    models = [new_model(seed, activation) for seed in seeds]
    trained.ensemble(
        f"{world}: {name}, {len(seeds)} seeds from {seeds[0]}",
        models,
        objective,
        images_of[world],
        epochs=s.epochs,
        batch_size=s.batch_size,
        lr=s.lr,
        schedules=schedules,
        seeds=list(seeds),
        device=device,
    )
    return models


def penalised(
    gamma: float, norm: int = 1, differences: float | None = 0.1
) -> tuple[object, dict]:
    weight = gamma * stands_for
    objective = JacobianL1(
        elbo, weight=weight, columns=s.columns, norm=norm, differences=differences
    )
    return objective, {"beta": rising(s.beta), "weight": rising(weight)}


# %% [markdown]
# What is measured, for every model. Beside the two scores there is a direct look at what the penalty is for. Give every pixel of a picture to the nearest dot, and let $m_{ik}$ be how much latent $i$ changes the pixels of dot $k$, the sum of $|J_{pi}|$. The **strongest-dot share**
# $\sum_i \max_k m_{ik} / \sum_{ik} m_{ik}$ is 1 if each latent moves one dot, whichever way, and 1/3 if each moves all three alike. It needs no bins, and it does not mind the rotation within a dot.
#
# Disentangling could take something away, so the rest is what a VAE is usually asked for: the ELBO, the negative log-likelihood (NLL) by importance weights, and the ELBO's two parts, reconstruction and KL. And the penalty itself, twice. $\|J\|_1$, which is what the paper minimises, can be lowered by **stretching**: a decoder for which $z$ has to go twice as far has half the Jacobian and draws the same pictures. In
# units of the posterior's own width, $\sum_i \sigma_i \|J_i\|_1$, stretching changes nothing, because $\sigma_i$ stretches along.

# %% tags=["hide-input"]
@torch.no_grad()
def dot_shares(jacobian: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Sums over latents of m_ik: the largest over dots, and all [B, 2]; from
    columns [B, D, 1, H, W] and positions [B, 6], from 0 to 63.
    """
    pixels = jacobian.shape[-1]
    centres = place.view(-1, 3, 2) * (pixels / 63)  # [B, 3, 2]
    grid = torch.arange(pixels) + 0.5
    dx2 = (grid - centres[..., :1]).square()  # [B, 3, W]
    dy2 = (grid - centres[..., 1:]).square()  # [B, 3, H]
    # [B, H, W, 3]
    owner = nn.functional.one_hot(
        (dx2[:, :, None] + dy2[..., None]).argmin(1), 3
    ).to(jacobian.dtype)
    m = torch.einsum("bdhw,bhwk->bdk", jacobian.abs()[:, :, 0].cpu(), owner)
    return torch.stack([m.amax(-1).sum(1), m.sum((1, 2))], 1)


@torch.no_grad()
def describe(
    model: VAE, x: torch.Tensor, place: torch.Tensor, weights: int
) -> dict:
    """What section 7 measures beside the scores, as a mean over images."""
    q_z = model.posterior(x)
    columns = decoder_jacobian(model, q_z.mean)  # [B, D, 1, H, W]
    l1 = columns.flatten(2).abs().sum(-1) * stands_for  # [B, D]
    kl = kl_divergence(q_z, model.prior).mean()
    bound = elbo(model, x, samples=20).mean()
    largest, all_ = dot_shares(columns, place).sum(0)
    values = {
        "share": largest / all_,
        "elbo": bound,
        "nll": -log_evidence(model, x, samples=weights).mean(),
        "reconstruction": bound + kl,
        "kl": kl,
        "l1": l1.sum(1).mean(),
        "l1_in_widths": (l1 * q_z.stddev).sum(1).mean(),
    }
    return {name: value.item() for name, value in values.items()}


# %% tags=["hide-input"]
def scores(
    models: list[VAE], world: str, radii: tuple, points: int, centres: int
) -> dict:
    """Gap and modularity of each model at each radius: {kind: {rho: list}}."""
    found = {
        rho: local_scores(
            lambda images: torch.stack(
                [m.posterior(images.to(device)).mean for m in models]
            ),
            partial(drawn, world),
            [64] * 6,
            rho=rho,
            points=points,
            centres=centres,
        )
        for rho in radii
    }
    return {
        kind: {rho: getattr(v, kind).tolist() for rho, v in found.items()}
        for kind in ("gap", "modularity")
    }


# %% tags=["hide-input"]
def judge(name: str, world: str, models: list[VAE]) -> dict:
    """Scores at all radii and the rest, each a list over models."""
    factors = factors_of(s.judged, seed=1)
    x = drawn(world, factors).to(device)
    found = stored(
        f"{world}: scores of {name}",
        scores,
        models,
        world,
        rhos,
        s.points,
        s.centres,
    )
    rest = [
        stored(
            f"{world}: rest of {name}, {k}",
            describe,
            m,
            x,
            positions(world, factors),
            s.weights,
        )
        for k, m in enumerate(models)
    ]
    return found | {key: [r[key] for r in rest] for key in rest[0]}


# %% [markdown]
# ### Dots in lanes, and how to differentiate the penalty
#
# In this world we settle the question of section 4. The same initial weights, the same order of images, the same weight $\gamma$ (0.05 in the stored run; we lowered it from 0.1, and let it rise over 3,000 steps in place of 1,000, after a first run *on these very seeds* in which latents had died, so take the gains in this world as optimistic): the exact derivative, differences with $\varepsilon = 0.1$ and with the paper's $0.001$, and exact derivatives of networks with Softplus, beside a plain VAE of either kind.

# %% tags=["hide-input"]
finals = range(100, 100 + s.seeds)
variants = {
    "β-VAE": (elbo, {"beta": rising(s.beta)}),
    "JL1, exact": penalised(s.gamma, differences=None),
    "JL1, ε = 0.1": penalised(s.gamma),
    "JL1, ε = 0.001": penalised(s.gamma, differences=0.001),
    "β-VAE, Softplus": (elbo, {"beta": rising(s.beta)}),
    "JL1, Softplus, exact": penalised(s.gamma, differences=None),
}
in_lanes = {
    name: train(
        name, "lanes", method, finals,
        nn.Softplus if "Softplus" in name else nn.ReLU,
    )
    for name, method in variants.items()
}
lanes = {name: judge(name, "lanes", models) for name, models in in_lanes.items()}

# %% tags=["hide-input"]
def pm(values: list[float]) -> str:
    return number(mean_and_standard_error(values))


COLUMNS = {
    "gap, ρ = 0.1": lambda r: r["gap"][rhos[0]],
    "gap, ρ = 1": lambda r: r["gap"][rhos[-1]],
    "modularity, ρ = 0.1": lambda r: r["modularity"][rhos[0]],
    "modularity, ρ = 1": lambda r: r["modularity"][rhos[-1]],
    "strongest-dot share": lambda r: r["share"],
}


def score_table(results: dict) -> str:
    rows = [
        [method, *(pm(of(r)) for of in COLUMNS.values())]
        for method, r in results.items()
    ]
    return markdown_table(["method", *COLUMNS], rows)


# %% tags=["hide-input"]
def paired(of: Callable, ours: dict, base: dict) -> Mean:
    """Mean over seeds of the difference between two methods, seed by seed."""
    return mean_and_standard_error(
        [a - b for a, b in zip(of(ours), of(base), strict=True)]
    )


def difference_table(results: dict, pairs: list[tuple[str, str]]) -> str:
    rows = [
        [
            f"{a} − {b}",
            *(
                number(paired(of, results[a], results[b]), sign=True)
                for of in COLUMNS.values()
            ),
        ]
        for a, b in pairs
        if a in results and b in results
    ]
    return markdown_table(["difference, seed by seed", *COLUMNS], rows)


tell(
    score_table(lanes)
    + f"\n\nDots in lanes: mean ± standard error over {s.seeds} seeds; "
    f"{steps_taken:,} steps of {s.batch_size} images of {size} × {size} pixels.\n\n"
    + difference_table(
        lanes,
        [
            ("JL1, ε = 0.1", "β-VAE"),
            ("JL1, ε = 0.1", "JL1, exact"),
            ("JL1, ε = 0.1", "JL1, ε = 0.001"),
            ("JL1, Softplus, exact", "β-VAE, Softplus"),
        ],
    )
)

# %% [markdown]
# How much of the gradient is missing in such a network? Take a trained model and 1,000 fixed draws of $z$, move the decoder's weights a little along the exact derivative's gradient, to and fro, and see how much the penalty really changes. And split the draws into batches of 64: do two batches agree on the direction?

# %% tags=["hide-input"]
def penalty_gradient(
    model: VAE, z: torch.Tensor, step: float | None
) -> torch.Tensor:
    """Of the mean penalty, in all of the decoder's weights, by autograd: [W]."""
    weights = list(model.decoder.parameters())
    value = jacobian_l1(model, z, differences=step).mean()
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(w).flatten() if g is None else g.flatten()
            for g, w in zip(found, weights, strict=True)
        ]
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return nn.functional.cosine_similarity(a, b, dim=0).item()


# %% tags=["hide-input"]
def slopes(model: VAE, x: torch.Tensor, reach: float) -> dict:
    """Of the mean penalty, in the decoder's weights, for one draw of z an image."""
    model = deepcopy(model).double()
    gradient = partial(penalty_gradient, model)
    with torch.no_grad():
        z = model.posterior(x.double()).rsample().detach()
    weights = list(model.decoder.parameters())
    start = nn.utils.parameters_to_vector(weights).detach().clone()
    g = {step: gradient(z, step) for step in (None, 0.1, 0.001)}
    along = g[None] / g[None].norm()
    moved = []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(start + sign * reach * along, weights)
        with torch.no_grad():
            moved.append(jacobian_l1(model, z).mean().item())
    nn.utils.vector_to_parameters(start, weights)
    batches = z.split(64)[: len(z) // 64 // 2 * 2]
    agree = {
        step: np.mean(
            [
                cosine(gradient(a, step), gradient(b, step))
                for a, b in zip(batches[::2], batches[1::2], strict=True)
            ]
        ).item()
        for step in g
    }
    return {
        "numerically": (moved[0] - moved[1]) / (2 * reach),
        "autograd": g[None].norm().item(),
        "differences": {step: (g[step] @ along).item() for step in (0.1, 0.001)},
        "cosine": cosine(g[None], g[0.1]),
        "agree": {str(step): value for step, value in agree.items()},
    }


# %% tags=["hide-input"]
slope = {
    name: stored(
        f"slopes, {name}",
        slopes,
        in_lanes[name][0],
        images_of["lanes"][:1024],
        0.02,
    )
    for name in ("β-VAE", "JL1, ε = 0.1", "β-VAE, Softplus")
}
# %% tags=["hide-input"]
tell(
    markdown_table(
        ["slope of the penalty", *slope],
        [
            ["numerically", *(number(v["numerically"]) for v in slope.values())],
            [
                "exact derivative, by autograd",
                *(number(v["autograd"]) for v in slope.values()),
            ],
            *(
                [
                    f"differences, ε = {e:g}",
                    *(number(v["differences"][e]) for v in slope.values()),
                ]
                for e in (0.1, 0.001)
            ),
            [
                "cosine, exact and ε = 0.1",
                *(f"{v['cosine']:.3f}" for v in slope.values()),
            ],
            *(
                [
                    f"cosine of two batches, {how}",
                    *(f"{v['agree'][e]:.2f}" for v in slope.values()),
                ]
                for e, how in (
                    ("None", "exact"),
                    ("0.1", "ε = 0.1"),
                    ("0.001", "ε = 0.001"),
                )
            ),
        ],
    )
)

# %% [markdown]
# In the stored run (`night`, three seeds) every penalised model is ahead of its plain VAE in the local gap and in the share, and clearly so. The missing term is real: along its own gradient the exact derivative claims a slope 7 % too large for these ReLU decoders, while the differences with $\varepsilon = 0.1$ agree with what happens, and with Softplus all agree. Yet for training it hardly matters in so small a network, where the two directions have a cosine of 0.98: the exact derivative and $\varepsilon = 0.1$ differ by about one standard error in most columns.
# Noise matters more. Two batches with $\varepsilon = 0.001$ point in almost unrelated directions, that model's share is lower than with $\varepsilon = 0.1$ by three standard errors of the paired difference, and in units of the posterior's width (below) its penalty is not lowered at all. The smooth network does best by the gap.
#
# So `JacobianL1` differentiates exactly unless it is told otherwise: there is no step to choose and no noise to average, and nothing was lost here. It is not a proof for larger networks, where the missing term grows with the number of units that switch; there, compare the slopes as above, and take `differences=0.1` or a smooth activation if they disagree. The other models of this chapter use $\varepsilon = 0.1$.
#
# Now look at the columns yourself. Here are the first seed of the plain VAE and of the penalised model, with all their weights.
#
# **Try it.** Drag one dot along its lane: which of the small pictures answer, under either model? Then drag a dot out of its lane, where no training image had one. What do the columns do there?

# %% tags=["hide-input"]
live.columns(
    {
        name: VAE(model.encoder, model.decoder, latent_dim=latent_dim).cpu()
        for name in ("β-VAE", "JL1, ε = 0.1")
        for model in [in_lanes[name][0]]
    },
    size=size,
    start=(10, 18, 32, 44, 53, 24),
    bits=12,
)

# %% [markdown]
# ### Dots anywhere: the rivals
#
# Each rival changes the ELBO $\mathbb E_q \log p_\theta(x \mid z) - \mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z))$ in its own way. With $q(z)$ the mean of $q_\phi(z \mid x)$ over images, $\mathrm{TC}(z) = \mathrm{KL}(q(z) \,\|\, \prod_i q(z_i))$ its total correlation, and the weight that is tuned in brackets:
#
# - **β-VAE** ($\beta$): $\mathbb E_q \log p_\theta(x \mid z) - \beta\, \mathrm{KL}$ ([Higgins et al., 2017](https://openreview.net/forum?id=Sy2fzU9gl)).
# - **JL1**, **JL2** ($\gamma$): the ELBO less $\gamma\, \|J\|_1$, or less $\gamma\, \|J\|_2^2$ ([Rhodes & Lee, 2021](https://arxiv.org/abs/2106.02923)).
# - **β-TCVAE** ($\beta$): the ELBO less $(\beta - 1)\, \mathrm{TC}(z)$, with $q(z)$ from the batch ([Chen et al., 2018](https://arxiv.org/abs/1802.04942)).
# - **FactorVAE** ($\gamma$): the ELBO less $\gamma\, \mathrm{TC}(z)$, with the density ratio from a discriminator ([Kim & Mnih, 2018](https://arxiv.org/abs/1802.05983)).
# - **DIP-VAE-I**, **-II** ($\lambda$): the ELBO less $\lambda \sum_{i \ne j} C_{ij}^2 + \lambda_\text{d} \sum_i (C_{ii} - 1)^2$ with $C$ the covariance of the means $\mu_\phi(x)$ (I, where $\lambda_\text{d} = 10\lambda$), or of $q(z)$ (II, $\lambda_\text{d} = \lambda$) ([Kumar et al., 2018](https://arxiv.org/abs/1711.00848)).
# - **Annealed capacity** ($C$): $\mathbb E_q \log p_\theta(x \mid z) - 1000\, \lvert \mathrm{KL} - C \rvert$, while $C$ rises from 0 ([Burgess et al., 2018](https://arxiv.org/abs/1804.03599)).
#
# A method that was tuned beats one that was not, whatever its worth. So all get the same: equally many settings around the literature's, on seeds that are used for nothing else, and the one with the largest local gap at $\rho = 0.1$ goes on to fresh seeds. (This looks at the factors, which a user would not have; all methods are helped alike.) One thing was not alike: JL1's and JL2's range of $\gamma$ was set lower after that first look at the dots in lanes.

# %% tags=["hide-input"]
# in the order in which they are tried; the first `budget` of them
CANDIDATES = {
    "β-VAE": (1.0, 2.0, 0.5, 4.0),  # times the table's β
    "JL1": (0.05, 0.02, 0.1, 0.2),
    "JL2": (0.05, 0.02, 0.1, 0.2),
    "β-TCVAE": (2.0, 4.0, 1.5, 8.0),
    "FactorVAE": (10.0, 30.0, 3.0, 100.0),
    "DIP-VAE-I": (5.0, 20.0, 1.0, 50.0),
    "DIP-VAE-II": (5.0, 20.0, 1.0, 50.0),
    "annealed": (25.0, 35.0, 15.0, 45.0),
}
candidates = {m: CANDIDATES[m][: s.budget] for m in s.methods}


# %% tags=["hide-input"]
def method_of(name: str, value: float, count: int) -> tuple[object, dict]:
    """A method's objective (for `count` seeds) and what rises during training."""
    match name:
        case "β-VAE":
            return elbo, {"beta": rising(value * s.beta)}
        case "JL1" | "JL2":
            return penalised(value, norm=int(name[-1]))
        case "β-TCVAE":
            objective = partial(beta_tcvae, dataset_size=s.images)
            return objective, {"beta": rising(value)}
        case "FactorVAE":
            width = s.hidden
            with seeded(200):  # the discriminators begin at random
                return [
                    FactorVAE(
                        latent_dim, weight=value, hidden=width, layers=s.layers
                    )
                    for _ in range(count)
                ], {}
        case "annealed":
            return partial(annealed_capacity, weight=1000.0), {
                "capacity": rising(value)
            }
    kind, share = ("i", 10) if name == "DIP-VAE-I" else ("ii", 1)
    return partial(
        dip_vae, off_diagonal=value, diagonal=share * value, kind=kind
    ), {}


# %% tags=["hide-input"]
tuning = range(500, 500 + s.tuning_seeds)
tried, chosen, finalists, anywhere = {}, {}, {}, {}
for m, values in candidates.items():
    for value in values:
        name, method = f"{m}, {value:g}", method_of(m, value, len(tuning))
        found = stored(
            f"anywhere: tuning of {name}",
            scores,
            train(name, "anywhere", method, tuning),
            "anywhere",
            rhos[:1],
            s.points,
            s.centres,
        )
        tried[m, value] = np.mean(found["gap"][rhos[0]]).item()
    chosen[m] = max(values, key=lambda value: tried[m, value])
    name, method = f"{m}, {chosen[m]:g}", method_of(m, chosen[m], len(finals))
    finalists[m] = train(name, "anywhere", method, finals)
    anywhere[m] = judge(name, "anywhere", finalists[m])

# %% tags=["hide-input"]
fig, axes = plt.subplots(
    1, len(s.methods), figsize=(7.6, 2.7), sharey=True, layout="constrained",
    squeeze=False,
)
for ax, m in zip(axes[0], s.methods, strict=True):
    values = sorted(candidates[m])
    ax.plot(range(len(values)), [tried[m, v] for v in values], "o-", color="0.6")
    best = values.index(chosen[m])
    ax.plot(best, tried[m, chosen[m]], "o", color=COLOURS[1], ms=8)
    ax.set_xticks(range(len(values)), [f"{v:g}" for v in values], fontsize=9)
    ax.set_xlim(-0.5, len(values) - 0.5)
    ax.set_title(m, fontsize=9)
axes[0, 0].set_ylabel(f"local gap, ρ = {rhos[0]:g}")
axes[0, 0].set_ylim(0, 1.1 * max(tried.values()))
fig.supxlabel("weight that is tuned", fontsize=10)
show(
    fig,
    caption="The same number of settings for every method, on seeds of their own "
    f"(here {s.tuning_seeds}); the orange one goes on. The panels of JL1 and JL2 "
    "are also the sweep over γ.",
    alt="One small panel a method: local gap against the tuned weight, the largest "
    "marked in orange.",
)

# %% [markdown]
# ### Near and far
#
# The chosen settings, on fresh seeds, at every radius. Bands are two standard errors wide to either side of the mean over seeds. The black dashed line is the mean of the random mixtures of section 6; markers are the paper's medians.

# %% tags=["hide-input"]
PAPER = {  # medians of ten seeds, read off the paper's figures, ± .002
    "JL1": {
        "gap": dict(
            zip(
                (0.1, 0.2, 0.3, 0.6, 1.0),
                (0.123, 0.072, 0.049, 0.017, 0.005),
                strict=True,
            )
        ),
        "modularity": dict(
            zip(
                (0.1, 0.2, 0.3, 0.6, 1.0),
                (0.942, 0.912, 0.894, 0.794, 0.458),
                strict=True,
            )
        ),
    },
    "β-VAE": {
        "gap": dict(
            zip(
                (0.1, 0.2, 0.3, 0.6, 1.0),
                (0.054, 0.034, 0.022, 0.010, 0.004),
                strict=True,
            )
        ),
        "modularity": dict(
            zip(
                (0.1, 0.2, 0.3, 0.6, 1.0),
                (0.890, 0.865, 0.826, 0.715, 0.439),
                strict=True,
            )
        ),
    },
}
# %% tags=["hide-input"]
drawn_curves = [
    m for m in ("β-VAE", "JL1", "JL2", "FactorVAE", "DIP-VAE-I") if m in anywhere
]


def draw_curves(ax: plt.Axes, results: dict, kind: str, names: list[str]) -> None:
    for name, colour, dash in zip(
        names, COLOURS, ("-", "--", "-.", ":", (0, (5, 1))), strict=False
    ):
        points = [mean_and_standard_error(results[name][kind][r]) for r in rhos]
        mean = np.array([p.mean for p in points])
        half = 2 * np.array([p.standard_error for p in points])
        ax.plot(rhos, mean, color=colour, ls=dash, label=name)
        ax.fill_between(
            rhos, mean - half, mean + half, color=colour, alpha=0.15, lw=0
        )
    random = [
        references["ten random mixtures"][r][kind].mean().item() for r in rhos
    ]
    ax.plot(
        rhos, random, color="black", lw=1, ls=(0, (2, 2)), label="random mixtures"
    )
    ax.set(xlabel="radius ρ", ylabel=kind)


# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.6), layout="constrained")
for ax, kind in zip(axes, ("gap", "modularity"), strict=True):
    draw_curves(ax, anywhere, kind, drawn_curves)
    for name, marker, colour in (
        ("β-VAE", "v", COLOURS[0]),
        ("JL1", "^", COLOURS[1]),
    ):
        ax.plot(
            *zip(*PAPER[name][kind].items(), strict=True),
            marker,
            color=colour,
            mfc="none",
            label=f"{name}, paper",
        )
fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=4,
    fontsize=9,
)
show(
    fig,
    caption="Dots anywhere: local gap (left) and local modularity (right) against "
    "the radius, means over seeds with bands of two standard errors; open "
    "triangles are the paper's medians at 64 × 64 pixels and 300,000 steps.",
    alt="Two line charts with bands, one curve a method, falling from left to "
    "right; the paper's markers for JL1 lie above those for the β-VAE.",
)
tell(
    score_table(anywhere)
    + f"\n\nDots anywhere: mean ± standard error over {s.seeds} seeds.\n\n"
    + difference_table(anywhere, [("JL1", m) for m in s.methods if m != "JL1"])
)

# %% [markdown]
# In this run (`night`, three seeds) the penalty leads in what it acts upon and not in the score. The strongest-dot share is higher than that of every rival by several standard errors of the paired difference. The local gap is not: level with the β-VAE, ahead of JL2 alone, and all methods lie *below* the random mixtures. In modularity it is behind the β-VAE at every radius, at $\rho = 1$ by about three standard errors. So "far away the methods do not differ" holds for the gap and fails for modularity.
#
# This is not the paper's result, and the reason need not be the method. After 6,250 steps, a fiftieth of the paper's, many dots are still blurs, and the choice of settings rests on one seed: the settings in the panels above differ little more than seeds do, and all four choices lie at the edge of what was tried. A former version of this chapter, with networks twice as wide, 8,138 steps of 64 images and one setting for each rival, had a gap of 0.077 ± 0.004 (γ = 0.05) against 0.045 ± 0.004 for the β-VAE. Whether that lead survives tuned rivals is open: the `gpu` profile, with 50,000 steps at 32 × 32 pixels, five seeds and all eight methods, is set up to decide it.

# %% [markdown]
# ### What it takes away
#
# The same models by the measures of chapter 1, and by the penalty in both units.

# %% tags=["hide-input"]
COSTS = {
    "ELBO": "elbo",
    "NLL": "nll",
    "reconstruction": "reconstruction",
    "KL": "kl",
}
UNITS = {"‖J‖₁": "l1", "Σ σ ‖J‖₁": "l1_in_widths"}
for columns_ in (COSTS, UNITS):
    for where, results in (("anywhere", anywhere), ("in lanes", lanes)):
        tell(
            markdown_table(
                [f"dots {where}", *columns_],
                [
                    [m, *(pm(r[key]) for key in columns_.values())]
                    for m, r in results.items()
                ],
            )
        )
tell(
    f"Nats of the full size, or pixel units; {s.judged} test images, mean ± "
    f"standard error over {s.seeds} seeds; NLL by {s.weights} importance weights."
)

# %% [markdown]
# It takes much away. With dots anywhere the penalised model loses about 150 nats of ELBO to the β-VAE, whose tuned $\beta$ of 0.5 helps it, and 100 to JL2 (`night`, three seeds); its KL term is half the β-VAE's. It leaves dots out. In lanes, where $\gamma$ is half as large, the loss is about 80 to 110 nats, and 40 with Softplus. A gap that is read without this column compares models of different pictures.
#
# And part of the penalty's fall is stretching. With dots anywhere $\|J\|_1$ falls to a quarter of the β-VAE's, in widths only to 60 %. With $\varepsilon = 0.001$ in lanes, $\|J\|_1$ falls by 40 % and in widths not at all. Exercise 4.4 penalises the second kind from the start.

# %% [markdown]
# ### Why the columns mix the dots
#
# With dots anywhere two things stand in the way. Dots are **exchangeable**: carry dot 1 to the place of dot 2 and back around, and the code must return to where it was with the names of the dots exchanged; so the latents cannot keep to their dots over the whole world, and somewhere between two places where they fit, they have to change over. And dots **overlap**: two that touch change the same pixels, and for those L1 has no reason to keep them apart (section 2). The second can be seen by itself: if overlap were all, pictures with dots far apart would have unmixed columns.

# %% tags=["hide-input"]
@torch.no_grad()
def by_distance(models: list[VAE], n: int, edges: tuple) -> list[list[float]]:
    """Strongest-dot share of each model in each class of pictures, by the smallest
    distance between two dots, in dot radii.
    """
    factors = factors_of(n, seed=2)
    place = positions("anywhere", factors)
    centres = place.view(-1, 3, 2)
    apart = torch.stack(
        [
            (centres[:, i] - centres[:, j]).norm(dim=-1)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
    ).amin(0) / (0.08 * 63)
    x, group = (
        drawn("anywhere", factors).to(device),
        torch.bucketize(apart, torch.tensor(edges)),
    )
    found = []
    for model in models:
        sums = dot_shares(decoder_jacobian(model, model.posterior(x).mean), place)
        found.append(
            [
                (sums[group == k, 0].sum() / sums[group == k, 1].sum()).item()
                for k in range(len(edges) + 1)
            ]
        )
    return found


# %% tags=["hide-input"]
edges = (1.0, 2.0, 3.0, 4.0, 5.0)
middles = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
distances = {
    m: stored(
        f"anywhere: share by distance, {m}",
        by_distance,
        finalists[m],
        10 * s.judged,
        edges,
    )
    for m in ("β-VAE", "JL1")
}
# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.4, 3.2))
for (m, found), colour, mark in zip(distances.items(), COLOURS, "os", strict=False):
    points = [mean_and_standard_error(v) for v in zip(*found, strict=True)]
    ax.errorbar(
        middles,
        [p.mean for p in points],
        [2 * p.standard_error for p in points],
        marker=mark,
        capsize=3,
        color=colour,
        label=m,
    )
ax.axvline(2, color="0.5", lw=1, ls=":")
ax.annotate(
    "dots touch",
    (2.05, 0.04),
    xycoords=("data", "axes fraction"),
    fontsize=9,
    color="0.4",
)
ax.set(
    xlabel="smallest distance between two dots, in radii",
    ylabel="strongest-dot share",
)
ax.legend()
show(
    fig,
    caption="Strongest-dot share by how close the two nearest dots are; bars are "
    "two standard errors over seeds. Left of the dotted line dots overlap.",
    alt="Two lines with error bars of the share against the smallest distance of "
    "two dots, one for the β-VAE and one for JL1.",
)

# %% tags=["hide-input"]
def strongest_columns(
    model: VAE, world: str, factors: torch.Tensor
) -> torch.Tensor:
    """The six columns [6, 1, H, W] of largest L1 norm at one picture."""
    with torch.no_grad():
        x = drawn(world, factors).to(device)
        columns = decoder_jacobian(model, model.posterior(x).mean)[0].cpu()
    return columns[columns.flatten(1).abs().sum(1).argsort(descending=True)[:6]]


apart_and_near = {
    "apart": torch.tensor([[10, 12, 50, 22, 26, 52]]),
    "overlapping": torch.tensor([[26, 22, 33, 25, 26, 52]]),
}
fig, axes = plt.subplots(4, 7, figsize=(7.6, 4.6), layout="constrained")
for k, (where, factors) in enumerate(apart_and_near.items()):
    for j, m in enumerate(("β-VAE", "JL1")):
        line = axes[2 * k + j]
        line[0].imshow(1 - drawn("anywhere", factors)[0, 0], vmin=0, vmax=1)
        line[0].set_title(f"{m}, {where}", fontsize=9, loc="left")
        columns = strongest_columns(finalists[m][0], "anywhere", factors)
        for ax, column_image in zip(line[1:], columns, strict=True):
            limit = columns.abs().max()
            ax.imshow(column_image[0], cmap="PuOr", vmin=-limit, vmax=limit)
for ax in axes.flat:
    ax.set_axis_off()
show(
    fig,
    caption="Dots anywhere: a picture (left) and the six strongest columns at its "
    "code, first seed. Above, dots apart; below, two of them overlapping.",
    alt="Four rows: three dots and six difference images each, for two models and "
    "two pictures.",
)

# %% [markdown]
# The line of the penalised model is as good as flat: with dots far apart it mixes them as much as with dots that touch. So overlap is not what holds it back here. Exchange remains, and the training's end: in the pictures the columns of the plain VAE are rings through all three dots, and those of the penalised model, fewer and weaker, still touch more than one. In lanes, where there is neither overlap nor exchange, the same penalty at half the weight and after as many steps reaches a share of 0.70 against 0.59 here (`night`, three seeds), which speaks for exchange.
#
# ## 8. What it does not do
#
# ### A cause that is everywhere
#
# L1 separates causes that change *different* pixels. To see what it does to one that changes all of them, hang a lamp over the dots in lanes: a seventh number dims the whole picture, from full light down to 30 %. All seven causes have a global code. For each, fit a straight line from every latent's mean to the cause, and take the lead of the best latent's $R^2$ over the second best (the **SAP score** of [Kumar et al., 2018](https://arxiv.org/abs/1711.00848)): 1 if one latent knows it all, 0 if two know as much.

# %% [markdown]
# **Predict, then run.** Will the penalised model give the lamp a latent of its own? And how do the dots fare, now that every column that holds the lamp is full?

# %% tags=["hide-input"]
@torch.no_grad()
def leads(models: list[VAE], n: int, count: int) -> list[list[float]]:
    """SAP scores of each model: dots sideways, up and down, the lamp (if there)."""
    factors = factors_of(n, seed=1, count=count).double()
    x = drawn("lanes", factors).float().to(device)
    found = []
    for model in models:
        codes = model.posterior(x).mean.cpu().double()
        r2 = torch.corrcoef(torch.cat([codes, factors], 1).T)[
            :latent_dim, latent_dim:
        ]
        top = r2.nan_to_num().square().topk(2, dim=0).values  # [2, 7]
        lead = top[0] - top[1]
        dots = [lead[0:6:2].mean().item(), lead[1:6:2].mean().item()]
        found.append(dots + lead[6:].tolist())
    return found


# %% tags=["hide-input"]
under_a_lamp = {
    name: train(name, "lamp", variants[name], finals)
    for name in ("β-VAE", "JL1, ε = 0.1")
}
lamp = {
    name: stored(f"lamp: leads of {name}", leads, models, 10 * s.judged, 7)
    for name, models in under_a_lamp.items()
}
without = {
    name: stored(f"lanes: leads of {name}", leads, in_lanes[name], 10 * s.judged, 6)
    for name in under_a_lamp
}
tell(
    markdown_table(
        ["SAP score", "dots, sideways", "dots, up and down", "lamp"],
        [
            [
                f"{name}, {where}",
                *(pm(v) for v in zip(*found, strict=True)),
                *missing,
            ]
            for where, table, missing in (
                ("no lamp", without, ["–"]),
                ("under a lamp", lamp, []),
            )
            for name, found in table.items()
        ],
    )
    + f"\n\nMean ± standard error over {s.seeds} seeds."
)

# %% [markdown]
# The lamp gets a latent of its own under the penalty, and only there (`night`, three seeds). If you expected the opposite, look at a pixel far from all dots: its row of the Jacobian has one entry that is not zero as long as one latent holds the lamp, and two or more as soon as the lamp is shared. So L1 does tell a cause that acts everywhere from causes that act somewhere. What it cannot tell apart is two causes of which *each* acts everywhere, since then no choice of axes makes a zero.
# The dots fare badly under the lamp with either objective: most of the picture is now explained by one number, and after as many steps no latent follows a dot by itself.

# %% tags=["hide-input", "remove-output"]
def summary(values: list[float]) -> dict:
    return mean_and_standard_error(values)._asdict()


def summed_up(results: dict) -> dict:
    return {
        m: {
            f"{kind}_rho_{rho:g}": summary(r[kind][rho])
            for kind in ("gap", "modularity")
            for rho in rhos
        }
        | {
            key: summary(v)
            for key, v in r.items()
            if key not in ("gap", "modularity")
        }
        for m, r in results.items()
    }


known_scores = {
            name: {
                f"{kind}_rho_{rho:g}": v[rho][kind].mean().item()
                for kind in ("gap", "modularity")
                for rho in rhos
            }
            for name, v in references.items()
        }

# %% tags=["hide-input"]
save_results(
    "04_jacobian_l1",
    {
        "settings": vars(s) | {"steps": steps_taken},
        "references": known_scores,
        "photographs": columns_of_crops,
        "lanes": summed_up(lanes),
        "slopes": slope,
        "tuning": {
            m: {
                "tried": {f"{v:g}": tried[m, v] for v in candidates[m]},
                "chosen": chosen[m],
            }
            for m in candidates
        },
        "anywhere": summed_up(anywhere),
        "share_by_distance": {
            m: [summary(v) for v in zip(*found, strict=True)]
            for m, found in distances.items()
        },
        "lamp_under_none": {
            name: [summary(v) for v in zip(*found, strict=True)]
            for name, found in without.items()
        },
        "lamp": {
            name: dict(
                zip(
                    ("sideways", "up_and_down", "lamp"),
                    (summary(v) for v in zip(*found, strict=True)),
                    strict=True,
                )
            )
            for name, found in lamp.items()
        },
    },
)

# %% [markdown]
# ### The rest of the list
#
# - **It cannot orient a round thing.** By the dashed curve of section 2, right and up are no better than any other perpendicular pair. In lanes, the ELBO helps out, since the room to move differs between the two directions; with dots anywhere nothing does.
# - **The global scores do not tell methods apart** where no global code exists. The paper reports no significant difference at $\rho = 1$ ($p = 0.54$ and $0.38$ for its two scores). That is its point: ask locally.
# - **The weight is not portable.** The penalty is a sum over pixels and depends on the scale of the latents. Only the prior keeps the latents from stretching.
# - **Too much of it stops the learning.** Drawing a sharp dot that can move takes a large Jacobian. Under a strong penalty from the start the best decoder draws no dots at all; hence the slow rise of $\gamma$.
# - **Latents that carry nothing count.** Such a latent still gets a modularity, made of nothing but estimation noise, and it counts in the mean. A factor that never varies has entropy 0 and must be left out of the gap; `local_scores` does.
# - **It takes time.** All columns take several decodings a step; one or two sampled columns take a fraction of that and leave the expected objective as it is.

# %% [markdown]
# ## 9. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# [The same chapter without them](https://colab.research.google.com/github/vaekit/vaekit/blob/student/04_jacobian_l1.ipynb) opens in Colab.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a second or two.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("4.1")

# %% [markdown]
# ### Exercise 4.1 · What a rotation does to the L1 norm (10 minutes)
#
# Two columns of a Jacobian change disjoint sets of pixels and have L1 norms $a$ and $b$. What is the L1 norm of the pair after a rotation by $\varphi$? Write it as a function of $a$, $b$ and $\varphi$.

# %% tags=["exercise"]
def rotated_l1(
    a: torch.Tensor, b: torch.Tensor, angle: torch.Tensor
) -> torch.Tensor:
    """L1 norm of both columns after the rotation; all are 0-dimensional tensors."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("4.1", rotated_l1)
# hint("4.1")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_4_1(
    a: torch.Tensor, b: torch.Tensor, angle: torch.Tensor
) -> torch.Tensor:
    # new columns: cos J_1 + sin J_2 and -sin J_1 + cos J_2, on disjoint pixels
    return (a + b) * (angle.cos().abs() + angle.sin().abs())


# %% [markdown]
# ### Exercise 4.2 · Forward mode by hand (20 minutes)
#
# A decoder has one hidden layer, $g(z) = \operatorname{sigmoid}\big(W_2 \tanh(W_1 z + b_1) + b_2\big)$. Push all tangents through it, layer by layer, without `torch.func` or `backward`, and return the Jacobian at one $z$.

# %% tags=["exercise"]
def jacobian_by_hand(
    W1: torch.Tensor,
    b1: torch.Tensor,
    W2: torch.Tensor,
    b2: torch.Tensor,
    z: torch.Tensor,
) -> torch.Tensor:
    """J [P, D] of the decoder at z [D]; W1 [H, D], b1 [H], W2 [P, H], b2 [P]."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("4.2", jacobian_by_hand)
# hint("4.2")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_4_2(
    W1: torch.Tensor,
    b1: torch.Tensor,
    W2: torch.Tensor,
    b2: torch.Tensor,
    z: torch.Tensor,
) -> torch.Tensor:
    h = torch.tanh(W1 @ z + b1)  # [H]
    tangents = (1 - h**2)[:, None] * W1  # [H, D]
    p = torch.sigmoid(W2 @ h + b2)  # [P]
    return (p * (1 - p))[:, None] * (W2 @ tangents)


# %% [markdown]
# ### Exercise 4.3 · The angle that L1 likes best (25 minutes)
#
# Section 2 found that the ELBO turns two columns until they are orthogonal, and says nothing where they are so at every angle. What does the L1 norm ask for? Let $J \in \mathbb R^{P \times 2}$ and
# $f(\varphi) = \|J R_\varphi\|_1$ with $R_\varphi = \begin{pmatrix} \cos\varphi & -\sin\varphi \\ \sin\varphi & \cos\varphi \end{pmatrix}$. (a) Show that $f$ is concave between its kinks, the angles at which some entry of $J R_\varphi$ is zero, so that its minimum is *at* a kink:
# **the best rotation makes at least one pixel of one column exactly zero.** (b) Show that $f(\varphi + \tfrac\pi2) = f(\varphi)$, and conclude that $P$ angles are enough. (c) Write the least L1 norm as a function, without a search over a grid.
#
# <details><summary>Solution</summary>
#
# (a) An entry of the rotated pair is $J_{p1}\cos\varphi + J_{p2}\sin\varphi$ or $-J_{p1}\sin\varphi + J_{p2}\cos\varphi$, in either case $r_p \cos(\varphi - \psi)$ for some phase. Its absolute value has, away from its zeros, the second derivative $-r_p\,|\cos(\varphi - \psi)| < 0$. A sum of functions that are concave on an interval is concave there, and a concave function takes its least value at an end of the interval.
# (b) A rotation by a further right angle turns the pair of columns $(u, v)$ into $(v, -u)$, whose absolute values are the same. The first column's entry $p$ is zero at $\varphi = \operatorname{atan2}(-J_{p1}, J_{p2})$, up to multiples of $\pi$; the second column's zeros lie a right angle away, where $f$ is the same. So one angle for each pixel is enough.
#
# This is the mechanism of the chapter in small: an L1 norm makes *zeros*, the L2 norm of the ELBO's argument does not. In the lasso the corners of the L1 ball do it, here the kinks of $f$.
#
# Your derivation is complete if it
#
# - says why each term is concave, and why the sum then is;
# - concludes "minimum at a kink" and translates a kink into a zero entry;
# - uses (b) to halve the number of angles.
#
# </details>

# %% tags=["exercise"]
def least_l1(J: torch.Tensor) -> torch.Tensor:
    """The least L1 norm of the pair of columns J [P, 2] over all rotations.

    A 0-dimensional tensor.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("4.3", least_l1)
# hint("4.3")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_4_3(J: torch.Tensor) -> torch.Tensor:
    angles = torch.atan2(-J[:, 0], J[:, 1])[:, None]  # [P, 1]
    first = angles.cos() * J[:, 0] + angles.sin() * J[:, 1]  # [P, P]
    second = -angles.sin() * J[:, 0] + angles.cos() * J[:, 1]
    return (first.abs() + second.abs()).sum(1).min()


# %% [markdown]
# ### Exercise 4.4 · A penalty without a unit (research, an evening on Colab)
#
# Stretch a latent by 2 and its column halves: the penalty can be lowered without changing a single picture. A remedy is to measure each column in steps of the posterior's width, $\sigma_{\phi,i}(x)\, J_i$: what the image does when latent $i$ moves by as much as its posterior leaves open.
# Write the objective $\mathcal L(x) - \gamma \sum_i \sigma_{\phi,i}(x)\, \|J_i(z)\|_1$ with all columns and with $\sigma$ and $z$ detached. The check compares values and gradients, in expectation.

# %% tags=["exercise"]
def width_penalised(
    model: VAE, x: torch.Tensor, weight: float = 0.1
) -> torch.Tensor:
    """The ELBO less a penalty: [B].

    The penalty is `weight` times the sum of the columns' L1 norms, each times its
    posterior standard deviation, at one draw of z for each image.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("4.4", width_penalised)
# hint("4.4")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_4_4(
    model: VAE, x: torch.Tensor, weight: float = 0.1
) -> torch.Tensor:
    with torch.no_grad():
        q_z = model.posterior(x)
        z, sigma = q_z.rsample(), q_z.stddev  # [B, D]
    columns = decoder_jacobian(model, z).flatten(2).abs().sum(-1)  # [B, D]
    return elbo(model, x) - weight * (sigma * columns).sum(-1)


# %% [markdown]
# Then train it beside `JacobianL1` on dots in lanes, with several weights $\gamma$ for each (the right ones differ). Does the lead over the plain ELBO remain? Does the new penalty tempt the model to stretch its latents, or to narrow its posteriors?
#
# <details><summary>Solution</summary>
#
# Stretching no longer helps: if $z_i \to 2 z_i$ in both networks, $\sigma_i$ doubles and $J_i$ halves, and the product stays. Only the KL term has a say about the scale then, as it should. Since $\sigma$ is detached, the penalty cannot narrow the posterior *directly*; but it changes the decoder, and the best width follows the decoder: by section 2 it is
# $\sigma_i^2 = (1 + \|J_i\|^2/s^2)^{-1}$. For a latent that moves the image a lot, $\sigma_i \|J_i\|_2$ is then nearly $s$ whatever the column, so that what is left to penalise is the *ratio* $\|J_i\|_1 / \|J_i\|_2$, a measure of how many pixels change: the penalty has become blind to size and looks at sparsity alone.
# With $\sigma$ attached (a mistake that the check names) the encoder would answer with narrower posteriors, which the KL term resists. Expect a wider range of weights that work, and a lead over the plain ELBO of about the same size; whether it is larger is for your seeds to say.
#
# Your report is complete if it
#
# - has a curve over $\gamma$ for both penalties, not one weight each;
# - reports $\sigma_i$ and $\|J_i\|$ of the trained models, beside the scores;
# - names the number of seeds, and standard errors of the differences.
#
# </details>

# %% [markdown]
# ## 10. Further reading
#
# - [Rhodes & Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization*, 2021](https://arxiv.org/abs/2106.02923), the paper of this chapter, and its [code](https://github.com/travers-rhodes/jlonevae).
# - [Rolínek, Zietlow & Martius, *Variational Autoencoders Pursue PCA Directions (by Accident)*, 2019](https://arxiv.org/abs/1812.06775): where the axes of a VAE come from.
# - [Locatello et al., *Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations*, 2019](https://arxiv.org/abs/1811.12359): why nothing works without a bias of some kind.
# - [Olshausen & Field, *Emergence of simple-cell receptive field properties by learning a sparse code for natural images*, 1996](https://doi.org/10.1038/381607a0): the sparse basis of pictures.
# - [Chen et al., 2018](https://arxiv.org/abs/1802.04942), [Kim & Mnih, 2018](https://arxiv.org/abs/1802.05983), [Kumar et al., 2018](https://arxiv.org/abs/1711.00848), [Burgess et al., 2018](https://arxiv.org/abs/1804.03599): the methods compared here.
