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
# # Influence: which training images made the model see this?
#
# A trained model draws an 8 that is open at the top. Where did it get that from? Every weight is a sum of small pushes, and each push came from
# a batch of training images; so the question has an answer, at least in principle. This chapter makes it precise, answers it exactly where that can be done,
# and then follows [Kong & Chaudhuri (2021)](https://arxiv.org/abs/2105.14203), who answer it approximately for variational auto-encoders: **VAE-TracIn**.
#
# **You need:** [chapter 1](01_vae.ipynb) (the ELBO), gradients, a little linear algebra.
# **You will be able to:** say what "influence" means and what it does not, compute it exactly for classical density models, derive TracIn, keep the noise of
# a VAE's loss from spoiling it, and judge what it is good for on real images.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import math
import tempfile
import time

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.distributions import kl_divergence

from vaekit import VAE, elbo, fit, gaussian, mlp, self_influence, strongest, tracin
from vaekit.datasets import load
from vaekit.influence import (
    gaussian_influence, kde_influence, knn_influence, mixture_influence,
    ppca_influence,
)
from vaekit.metrics import auroc, mean_and_standard_error
from vaekit.notebook import (
    COLOURS, check, frames, hint, image_grid, live, markdown_table, pick,
    save_results, show, tell, use_style,
)
from vaekit.training import default_device, seeded

use_style()
device = default_device()

# %% [markdown]
# ## 1. A counter-factual
#
# Let $\ell(z) = -\log \hat p(z)$ be the loss of a density $\hat p$ that was fitted to training points $x_1, \dots, x_N$. The question "did $x_i$ help the model with $z$?" is a
# question about a world in which $x_i$ was never there:
#
# $$\begin{aligned}
# \operatorname{IF}(x_i, z) &= \ell\big(z;\ \text{fitted without } x_i\big) - \ell\big(z;\ \text{fitted with it}\big) \\
# &= \log \frac{\hat p(z)}{\hat p_{-i}(z)}, \qquad \text{in nats.}
# \end{aligned} \tag{6.1}$$
#
# If $z$ fares worse without $x_i$, the influence is positive and $x_i$ is a **proponent** of $z$. If $z$ fares better, it is negative and $x_i$ is an **opponent**: a training point that took probability away.
#
# Some models can be re-fitted on paper. In a **kernel density estimate** $\hat p(z) = \frac1N \sum_i K_i(z)$ with Gaussian kernels of width $h$, leaving out $x_i$ removes one term and changes $N$ to $N - 1$:
#
# $$\begin{aligned}
# \hat p_{-i}(z) &= \frac{N \hat p(z) - K_i(z)}{N - 1} \quad\Rightarrow \\
# \operatorname{IF}(x_i, z) &= \log\frac{N-1}{N} - \log\Big(1 - \frac{K_i(z)}{\sum_j K_j(z)}\Big).
# \end{aligned} \tag{6.2}$$
#
# The first term is the same for everybody, and slightly negative: each point makes room for the others by leaving. The second is the share of $z$'s density that $x_i$ had provided. In the
# **k-nearest-neighbour** density $\hat p(z) = k / (N V_d R_k(z)^d)$, with $R_k(z)$ the distance to the $k$-th neighbour and $V_d$ the volume of the unit ball, only a neighbour matters; without it the next one, at $R_{k+1}$, moves up:
#
# $$\operatorname{IF}(x_i, z) = \log\frac{N-1}{N} + d\,\log\frac{R_{k+1}(z)}{R_k(z)}\;\big[x_i \text{ is one of the } k \text{ nearest}\big].$$
#
# Move the test point below and watch who becomes responsible.

# %% [markdown]
# **Predict, then run.** The test point moves from one cluster of training points to another. Halfway, which points are its proponents, and can a training point far away from it be an opponent? Can the influences of all points add up to zero?

# %%
g = torch.Generator().manual_seed(0)
centres = torch.tensor([[-1.5, 0.0], [1.5, 0.4]], dtype=torch.float64)
points = torch.cat(
    [
        c + 0.55 * torch.randn(20, 2, generator=g, dtype=torch.float64)
        for c in centres
    ]
)
# [41, 2]; the last is an outlier
points = torch.cat([points, torch.tensor([[0.2, 2.6]], dtype=torch.float64)])
N, bandwidth, k = len(points), 0.5, 5
path = torch.stack(
    [torch.linspace(-2.4, 2.4, 13), 0.9 * torch.linspace(-1, 1, 13).cos() ** 3],
    dim=1,
).double()
# [41, 13] each
by_knn, by_kde = (
    knn_influence(points, path, k=k),
    kde_influence(points, path, bandwidth=bandwidth),
)


# %% tags=["hide-input"]
def influence_map(step: int) -> plt.Figure:
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.3), sharey=True)
    for ax, values, name in zip(
        axes, (by_knn, by_kde), (f"{k}-NN", "KDE"), strict=True
    ):
        dots = ax.scatter(
            *points.T,
            c=values[:, step],
            cmap="coolwarm",
            vmin=-0.5,
            vmax=0.5,
            s=40,
            edgecolors="black",
            linewidths=0.4,
        )
        ax.plot(*path[step], "k*", ms=14)
        ax.set(
            title=f"{name}: strongest {values[:, step].max().item():+.2f} nats",
            xlim=(-3.2, 3.2),
            ylim=(-1.7, 3.1),
            xticks=[],
            yticks=[],
        )
        ax.grid(False)
    fig.colorbar(dots, ax=axes, label="influence, nats")
    return fig


frames(
    [influence_map(step) for step in range(len(path))],
    [f"{float(p[0]):+.1f}" for p in path],
    description="test point, horizontally",
    start=2,
    caption="Influence of each training point (circle) on the test point (star). "
    "Red: proponents, blue: opponents. In the k-NN density five points "
    "share all the credit equally and the rest are faintly opposed; in "
    "the KDE credit fades with distance. In the gap between the clusters "
    "few points carry the density, so each counts for more.",
    alt="Forty-one points in two clusters and one outlier, coloured by their "
    "influence on a star-shaped test point",
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3))
distance = torch.cdist(points, path)
ax.scatter(distance, by_kde, s=8, label="KDE")
ax.scatter(distance, by_knn, s=8, marker="s", label=f"{k}-NN")
ax.axhline(0, color="black", lw=1)
ax.set(xlabel="distance between training and test point", ylabel="influence, nats")
ax.legend()
show(
    fig,
    caption="All 41 × 13 influences of the pictures above against distance. "
    "Proponents are near; whoever is far is a weak opponent, by log((N − "
    "1)/N) nats.",
    alt="Scatter plot: influence is large only at small distances and settles "
    "slightly below zero.",
)

# %% [markdown]
# Three more models can be re-fitted exactly. For a **Gaussian** with maximum-likelihood mean $\mu$ and covariance $\Sigma$, let $e_i = x_i - \mu$. Then
#
# $$\mu_{-i} = \mu - \frac{e_i}{N-1}, \qquad \Sigma_{-i} = \frac{N}{N-1}\Big(\Sigma - \frac{e_i e_i^\top}{N-1}\Big).$$
#
# **Probabilistic PCA**, which is a linear VAE with the best encoder (chapter 1), follows from the eigenvectors of $\Sigma_{-i}$. And a **Gaussian mixture** is re-fitted by EM from the old optimum, for all $i$ side by side.
# Do the formulas do what they say? We leave every point out for real and compare.


# %%
def really_leave_out(
    log_density, train: torch.Tensor, test: torch.Tensor
) -> torch.Tensor:
    """Fit N + 1 times; log_density(train, test) -> [M]. Returns [N, M]."""
    whole = log_density(train, test)
    return torch.stack(
        [
            whole - log_density(torch.cat([train[:i], train[i + 1 :]]), test)
            for i in range(len(train))
        ]
    )


def gaussian_log_density(train, test):
    return torch.distributions.MultivariateNormal(
        train.mean(0), torch.cov(train.T, correction=0)
    ).log_prob(test)


def kde_log_density(train, test):
    kernels = torch.distributions.MultivariateNormal(
        train, bandwidth**2 * torch.eye(2, dtype=torch.float64)
    )
    return kernels.log_prob(test[:, None]).logsumexp(1) - math.log(len(train))


errors = [
    (ours - really_leave_out(log_density, points, path)).abs().max().item()
    for ours, log_density in (
        (gaussian_influence(points, path), gaussian_log_density),
        (by_kde, kde_log_density),
    )
]
tell(
    "Largest difference from really leaving a point out: Gaussian "
    f"{errors[0]:.0e} nats, KDE {errors[1]:.0e} nats."
)

# %% [markdown]
# What does the influence of a point *on itself* say? How much worse the model would do on $x_i$ had it never seen it: how far it has had to go out of its way for this one point. We added an outlier above; it should stand out.

# %%
selves = {
    "KDE": kde_influence(points, points, bandwidth=bandwidth).diagonal(),
    "Gaussian": gaussian_influence(points, points).diagonal(),
    "mixture of 2 Gaussians": mixture_influence(
        points, points, components=2
    ).diagonal(),
    f"{k}-NN": knn_influence(points, points, k=k).diagonal(),
}
tell(
    "Self-influence in nats:\n\n"
    + markdown_table(
        ["model", "median point", "the outlier", "rank of the outlier"],
        [
            [
                name,
                f"{v.median().item():.3f}",
                f"{v[-1].item():.2f}",
                f"{int((v > v[-1]).sum()) + 1} of {N}",
            ]
            for name, v in selves.items()
        ],
    )
)

# %% [markdown]
# In three of the four the outlier comes first: high self-influence marks a point that has no others to speak for it. The k-NN density is the exception, and its formula says why: it compares two radii, and both are large for an outlier.
#
# Images can be treated in the same way, as long as the model is one that can be solved. Here is PPCA with four latent variables on small digits, each of them really left out: 64 pixels, as many fits as images, and no network.

# %%
digits = load("digits").images.double()  # [1500, 1, 8, 8]
few = digits[: pick(smoke=300, cpu=1500, gpu=1500, paper=1500)]
# some pixels are always 0
pixels = few.flatten(1) + 0.05 * torch.randn(
    len(few), 64, generator=g, dtype=torch.float64
)
exact_selves = ppca_influence(pixels, pixels, latent_dim=4).diagonal()

# %% tags=["hide-input"]
order = exact_selves.argsort(descending=True)
fig, axes = plt.subplots(2, 1, figsize=(7, 1.5))
image_grid(few[order[:16]], columns=16, ax=axes[0], title="highest self-influence")
image_grid(few[order[-16:]], columns=16, ax=axes[1], title="lowest")
fig.tight_layout()
show(
    fig,
    caption="The digits with the highest and the lowest exact self-influence in "
    f"PPCA: from {exact_selves.max().item():.2f} to "
    f"{exact_selves.min().item():.3f} nats. Above, ink where others have none.",
    alt="Two rows of sixteen small digits; those above are oddly written, those "
    "below look alike.",
)

# %% [markdown]
# **Move the points yourself.** Each point in the figure is really left out, and the density fitted again without it. Drag the star between the clusters: under the nearest neighbours, who is still its teacher? Then choose the mixture and look for a point of the star's *own* cluster that speaks against it.

# %% tags=["standalone", "hide-input"]
live.influence_points()

# %% [markdown]
# ## 2. Why not simply retrain?
#
# For a network the counter-factual means training once more for each training image. The classical way out is the **influence function**
# ([Koh & Liang, 2017](https://arxiv.org/abs/1703.04730)): at an optimum $\hat\theta$ of the training loss, removing $x_i$ moves the weights, to first order, by $\frac1N H^{-1} \nabla \ell(x_i)$, where $H$ is the Hessian of the mean loss, so
#
# $$\operatorname{IF}(x_i, z) \approx \tfrac1N\, \nabla \ell(z)^\top H^{-1} \nabla \ell(x_i).$$
#
# It needs an optimum, which stochastic training does not reach, and the inverse of a matrix with as many rows as the network has weights.

# %%
net = VAE(*mlp((1, 28, 28), 20), latent_dim=20)
P = sum(p.numel() for p in net.parameters())
tell(
    f"The first chapter's network for MNIST has {P:,} weights. Its Hessian would "
    f"have {P**2:.1e} entries, {4 * P**2 / 1e12:.1f} terabytes in single "
    "precision. Retraining would take 60,000 trainings."
)

# %% [markdown]
# ## 3. TracIn: follow the pushes
#
# [Pruthi et al. (2020)](https://arxiv.org/abs/2002.08484) ask instead what *actually happened*. Let $o(x; \theta)$ be the objective for one image, in nats, to be maximised; for us the ELBO. One step of stochastic gradient ascent on the single
# image $x_t$ with learning rate $\eta$ moves the weights by $\eta \nabla o(x_t; \theta_t)$. What the step does to another image $z$ (here as in the paper the image that is asked about, not a latent variable) is, to first order,
#
# $$o(z; \theta_{t+1}) - o(z; \theta_t) = \eta\; \nabla o(x_t; \theta_t) \cdot \nabla o(z; \theta_t) + O(\eta^2). \tag{6.3}$$
#
# Sum over all $T$ steps. The left side telescopes:
#
# $$o(z; \theta_T) - o(z; \theta_0) = \sum_{t} \eta\; \nabla o(x_t; \theta_t) \cdot \nabla o(z; \theta_t) + O(\eta).$$
#
# The whole gain on $z$ has been divided among the images that were visited. Collect the terms that belong to the visits of $x_i$ and you have its influence. Keeping the weights of every step is too much, so the sum is taken
# over a few **checkpoints** $\theta_c$, each standing for the steps around it:
#
# $$\operatorname{TracIn}(x_i, z) = \sum_{c} \eta_c\; \nabla o(x_i; \theta_c) \cdot \nabla o(z; \theta_c). \tag{6.4}$$
#
# Note what has changed. Influence asked about a world without $x_i$. TracIn asks who pushed, in the world as it was. The two are cousins, and section 7 measures how close. (Each checkpoint stands for equally many visits of an image. That common factor, and the batch size, we leave out: the scores are proportional to nats, not nats.)
#
# ### Check: does the sum add up?
#
# We train a *linear* VAE on small digits, one image per step, and keep every step. In a linear VAE with Gaussian pixels of standard deviation $s$ the ELBO has a closed form, so there is no noise to hide behind: with decoder matrix $W$,
#
# $$\mathbb E_q \log p(x \mid z) = \log p(x \mid z = \mu_\phi(x)) - \frac{1}{2 s^2} \sum_{p, d} W_{pd}^2\, \sigma_d(x)^2.$$

# %%
scale = 0.3


def linear_vae(latent_dim: int = 4) -> VAE:
    with seeded(0):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * latent_dim))
        decoder = nn.Sequential(
            nn.Linear(latent_dim, 64), nn.Unflatten(-1, (1, 8, 8))
        )
        return VAE(
            encoder, decoder, latent_dim=latent_dim, likelihood=gaussian(scale)
        ).double()


def exact_elbo(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """The ELBO of a linear VAE in closed form, [B]."""
    q_z = model.posterior(x)
    # [B]
    spread = (q_z.stddev[:, None, :] * model.decoder[0].weight).square().sum((1, 2))
    return (
        model.log_likelihood(x, q_z.mean)
        - spread / (2 * scale**2)
        - kl_divergence(q_z, model.prior)
    )


# %%
def train_and_trace(eta: float, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What `steps` steps, one image each, did to 20 other images, and what TracIn
    says they did: [20], [20].
    """
    model, visited, others = linear_vae(), digits[:32], digits[1000:1020]
    before, total = (
        exact_elbo(model, others).detach(),
        torch.zeros(20, dtype=torch.float64),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, maximize=True)
    for step in range(steps):
        x = visited[step % 32 : step % 32 + 1]
        here = {"model": model.state_dict(), "lr": eta}
        total += tracin(
            model, exact_elbo, [here], x, others, samples=1, unbiased=False
        )[0]
        optimizer.zero_grad()
        exact_elbo(model, x).sum().backward()
        optimizer.step()
    return exact_elbo(model, others).detach() - before, total


rates = (1e-4, 5e-5, 2.5e-5)
traced = [train_and_trace(eta, steps=round(0.0032 / eta)) for eta in rates]

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 4))
ends = (
    min(t[0].min().item() for t in traced),
    max(t[0].max().item() for t in traced),
)
ax.plot(ends, ends, color="black", lw=1)
for eta, (actual, total), marker in zip(rates, traced, "o^s", strict=True):
    ax.scatter(actual, total, s=18, marker=marker, label=f"η = {eta:g}")
ax.set(
    xlabel="what training did to the image, nats",
    ylabel="sum of TracIn over all steps, nats",
)
ax.legend()
show(
    fig,
    caption="Twenty images that were not trained on: the actual change of their "
    "ELBO against the sum of TracIn scores over all steps. Halve the "
    "learning rate and take twice as many steps, and the distance from "
    "the diagonal halves.",
    alt="Scatter plot along a diagonal; the points come closer to it as the "
    "learning rate falls.",
)
gaps = [(total - actual).abs().mean().item() for actual, total in traced]
moved = traced[-1][0].abs().mean().item()
tell(
    f"The images moved by {moved:.1f} nats on average. Mean distance from the "
    "diagonal: "
    + ", ".join(
        f"{gap:.2f} nats at η = {eta:g}"
        for eta, gap in zip(rates, gaps, strict=True)
    )
    + "."
)

# %% [markdown]
# **Warm-up 6.a · Who pushed whom.** Fill in the blank: (6.4) from the gradients at every checkpoint.

# %% tags=["warm-up", "nbval-check-output"]
def pushes(
    g: list[torch.Tensor], h: list[torch.Tensor], rates: torch.Tensor
) -> torch.Tensor:
    """TracIn scores [M, N]; at checkpoint c gradients of the training images are
    g[c] [M, P], those of the test images h[c] [N, P], and the rate is rates[c].
    """
    return ...  # fill in


check("6.a", pushes)

# %% [markdown]
# **Warm-up 6.b · The telescope.** Fill in the blank: divide the whole gain on a test image among the training images, from the objective before and after every step.

# %% tags=["warm-up", "nbval-check-output"]
def credit(
    before: torch.Tensor, after: torch.Tensor, visits: torch.Tensor, n: int
) -> torch.Tensor:
    """Nats gained by visits to each of n images: [n].

    Step t visits image visits[t]; before[t], after[t]: the test image's objective.
    """
    return ...  # fill in


check("6.b", credit)

# %% [markdown]
# ## 4. A loss that rolls dice
#
# In general a VAE's objective is itself random: it draws $\varepsilon \sim \mathcal N(0, I)$ and puts $\mu + \sigma\varepsilon$ into the decoder. What we want is the gradient of its expectation, $\nabla \bar o(x) = \mathbb E_\varepsilon \nabla o(x, \varepsilon)$, and what we have is
# an average over $S$ draws, $\hat g(x) = \frac1S\sum_s \nabla o(x, \varepsilon_s)$. The average is unbiased. Its *square* is not:
#
# $$\mathbb E\,\lVert \hat g(x) \rVert^2 = \lVert \nabla \bar o(x) \rVert^2 + \frac{1}{S} \operatorname{tr} \operatorname{Cov}_\varepsilon \nabla o(x, \varepsilon). \tag{6.5}$$
#
# The self-influence comes out too large, and more so for images whose gradient is noisy: a ranking by it is partly a ranking by noise. The cure is cheap. Split the draws into two independent halves with averages $\hat g_1, \hat g_2$. Then
#
# $$\mathbb E\,\big[\hat g_1(x) \cdot \hat g_2(z)\big] = \nabla \bar o(x) \cdot \nabla \bar o(z), \qquad \text{also where } x = z,$$
#
# and the mean of $\hat g_1(x) \cdot \hat g_2(z)$ and $\hat g_2(x) \cdot \hat g_1(z)$ is symmetric as well. That is what `tracin` and `self_influence` compute: equation (6.4) without the surplus of (6.5). The linear VAE can tell us how much it matters, since there the truth is known.

# %% [markdown]
# **Predict, then run.** The ratio of the estimated self-influence to the true one, against the number of draws $S$: where does the naive estimate start, where does it go, and how fast? Use (6.5).

# %%
model = linear_vae()
fit(
    model,
    elbo,
    digits,
    epochs=pick(smoke=3, cpu=20, gpu=20, paper=20),
    lr=5e-3,
    progress=False,
    device="cpu",
)
state, some = {"model": model.state_dict(), "lr": 1.0}, digits[:100]
# [100]
truth = self_influence(model, exact_elbo, [state], some, samples=1, unbiased=False)
# draws in all, for each S
counts, budget = (2, 4, 8, 16, 32), pick(smoke=64, cpu=640, gpu=640, paper=640)
found = {unbiased: [] for unbiased in (True, False)}
for unbiased, values in found.items():
    for S in counts:
        repeats = [
            self_influence(
                model, elbo, [state], some, samples=S, unbiased=unbiased, seed=s
            )
            for s in range(budget // S)
        ]
        values.append(
            mean_and_standard_error(torch.stack(repeats).mean(1) / truth.mean())
        )

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3))
for (unbiased, values), colour in zip(found.items(), COLOURS, strict=False):
    ax.errorbar(
        counts,
        [v.mean for v in values],
        [v.standard_error for v in values],
        fmt="o-",
        color=colour,
        capsize=3,
        label="two halves" if unbiased else "plain average",
    )
ax.axhline(1, color="black", lw=1)
ax.set(
    xscale="log",
    xlabel="draws of the noise, S",
    ylabel="mean self-influence / exact",
    xticks=counts,
    xticklabels=counts,
)
ax.minorticks_off()
ax.legend()
show(
    fig,
    caption="Self-influence of 100 digits in a linear VAE, relative to its exact "
    f"value; mean and standard error over repetitions with {budget} draws in "
    "all at each S. The plain average is too large, by a term that falls as "
    "1/S; two independent halves are right at any S.",
    alt="The curve of the plain average descends towards one from above; that of "
    "the halves stays at one.",
)
plain, halves = found[False][0], found[True][0]
tell(
    f"With two draws the plain average is {plain.mean:.2f} ± "
    f"{plain.standard_error:.2f} times the truth; the halves give "
    f"{halves.mean:.2f} ± {halves.standard_error:.2f} times."
)

# %% [markdown]
# ## 5. The code: gradients that are never formed
#
# Written down naively, TracIn needs the gradient of every image separately: 60,000 vectors of 653,000 numbers. But a linear layer $y = W a$ has, for one image, the gradient $g a^\top$ with $g = \partial o / \partial y$: an outer product of two vectors. And the inner product of two such matrices is a product of two numbers,
#
# $$\big\langle g\, a^\top,\; h\, b^\top \big\rangle = \operatorname{tr}\big(a\, g^\top h\, b^\top\big) = (g \cdot h)\,(a \cdot b). \tag{6.6}$$
#
# One forward and one backward pass over a batch give all $a$ and $g$; two small matrix products give all pairs. Where a weight acts at several positions $t$ (a convolution, or several draws of the noise), the gradient is $\sum_t g_t a_t^\top$ and the inner product a double sum over positions; where that would cost more
# than forming the gradient, the library forms it. This is all that the library does:


# %%
def inner_products(g, a, h, b):
    """⟨Σ_t g_t a_tᵀ, Σ_u h_u b_uᵀ⟩ for all pairs: g [M, T, p], a [M, T, q], h [N,
    U, p], b [N, U, q] -> [M, N].
    """
    pairs_g = torch.einsum("mtp,nup->mtnu", g, h)
    pairs_a = torch.einsum("mtq,nuq->mtnu", a, b)
    return (pairs_g * pairs_a).sum((1, 3))


g_, a_, h_, b_ = (
    torch.randn(n, 3, d, dtype=torch.float64)
    for n, d in ((5, 7), (5, 11), (4, 7), (4, 11))
)
formed = (g_.mT @ a_).flatten(1) @ (h_.mT @ b_).flatten(1).T
difference = (inner_products(g_, a_, h_, b_) - formed).abs().max().item()
x, z = torch.rand(64, 1, 28, 28), torch.rand(16, 1, 28, 28)
net_state, seconds, scores = {"model": net.state_dict(), "lr": 1.0}, {}, {}
for way in ("layers", "loop"):
    tracin(net, elbo, [net_state], x[:2], z[:2], samples=2, path=way)  # warm up
    began = time.perf_counter()
    scores[way] = tracin(net, elbo, [net_state], x, z, samples=2, path=way)
    seconds[way] = time.perf_counter() - began
agreement = (
    (scores["layers"] - scores["loop"]).abs().max() / scores["loop"].abs().max()
).item()
tell(
    f"Largest difference of the identity: {difference:.0e}. On {len(x)} × "
    f"{len(z)} images the factors took {seconds['layers']:.3f} s and one image at "
    f"a time {seconds['loop']:.2f} s, **{seconds['loop'] / seconds['layers']:.0f} "
    f"times** as long; the scores agree to {agreement:.0e}."
)

# %% [markdown]
# Two details decide whether such code can be trusted. First, the *noise*: all images of a pass see the same $\varepsilon$, so a score depends neither on the other images of its batch nor on how the work was split. Second, *completeness*: a shortcut that knows linear layers will silently skip what it does not know.
# `tracin` compares its fast path, parameter by parameter, with plain automatic differentiation on one image at every call, and takes a slower path where they differ: for batch normalisation, for tied weights, for objectives that contain derivatives of the network, such as those of the chapters on the Hamiltonian VAE and on the Jacobian penalty.
#
# ## 6. Real images
#
# We train a VAE by plain stochastic gradient ascent, without momentum (the setting that TracIn's derivation assumes), keep checkpoints along the way, and hide strangers among the first data set's images, one for every sixty: handwritten letters among MNIST's digits (drawn shapes in the `smoke` profile, which downloads nothing). The learning rates are about the highest at which training stays stable: at the rate of the digits, training on Fashion-MNIST, whose images have more ink and steeper gradients, does not converge.

# %% [markdown]
# **Predict, then run.** Strangers are hidden among the training images. Which of these finds them best: the self-influence, the gradient's length at the end of training, or simply the loss? Rank them before you look.

# %% tags=["hide-input"]
learning_rates = {"mnist": 1e-2, "fashion-mnist": 5e-3}
settings = pick(
    smoke=dict(
        sets=("digits",),
        strangers="shapes",
        train=300,
        hidden=(32,),
        latent=4,
        lr={"digits": 2e-2},
        epochs=10,
        every=5,
        seeds=2,
        queries=40,
        samples=2,
    ),
    cpu=dict(
        sets=("mnist", "fashion-mnist"),
        strangers="emnist-letters",
        train=6000,
        hidden=(400,),
        latent=20,
        lr=learning_rates,
        epochs=40,
        every=8,
        seeds=3,
        queries=300,
        samples=4,
    ),
    gpu=dict(
        sets=("mnist", "fashion-mnist"),
        strangers="emnist-letters",
        train=60_000,
        hidden=(400,),
        latent=20,
        lr=learning_rates,
        epochs=60,
        every=10,
        seeds=3,
        queries=2000,
        samples=8,
    ),
    paper=dict(
        sets=("mnist", "fashion-mnist"),
        strangers="emnist-letters",
        train=60_000,
        hidden=(1024, 512, 256),
        latent=128,
        lr=learning_rates,
        epochs=1600,
        every=53,
        seeds=3,
        queries=10_000,
        samples=16,
    ),
)
train_sets = {
    name: load(name, progress=False)[: settings["train"]]
    for name in settings["sets"]
}
test_sets = {name: load(name, "test", progress=False) for name in settings["sets"]}
first = settings["sets"][0]
shape = tuple(train_sets[first].images.shape[1:])
strangers = load(
    settings["strangers"],
    "test",
    size=shape[-1] if shape[-1] < 28 else None,
    progress=False,
).images
hidden_count = round(settings["train"] / 60)
tell(
    f"{settings['train']:,} images of each of {', '.join(settings['sets'])}; "
    f"{hidden_count} strangers from {settings['strangers']} hidden among the "
    "first."
)


# %% tags=["hide-input"]
class Trained:
    """A VAE trained on one data set with one seed, and what it was trained on."""

    def __init__(
        self,
        name: str,
        seed: int,
        lr: float | None = None,
        optimizer=torch.optim.SGD,
    ) -> None:
        data, chosen = (
            train_sets[name],
            torch.randperm(
                len(strangers), generator=torch.Generator().manual_seed(seed)
            ),
        )
        count = hidden_count if name == first else 0
        self.images = torch.cat([data.images, strangers[chosen[:count]]])
        self.labels = torch.cat([data.labels, torch.full((count,), -1)])
        self.stranger = self.labels == -1
        with seeded(seed):
            self.model = VAE(
                *mlp(shape, settings["latent"], hidden=settings["hidden"]),
                latent_dim=settings["latent"],
            )
        self.folder = tempfile.TemporaryDirectory()  # goes when this object goes
        self.history = fit(
            self.model,
            elbo,
            self.images,
            epochs=settings["epochs"],
            batch_size=64,
            lr=lr or settings["lr"][name],
            seed=seed,
            optimizer=optimizer,
            checkpoints=self.folder.name,
            checkpoint_every=settings["every"],
            progress=False,
        )


runs = {
    name: [Trained(name, seed) for seed in range(settings["seeds"])]
    for name in settings["sets"]
}

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3))
for (name, trained), colour in zip(runs.items(), COLOURS, strict=False):
    for seed, run in enumerate(trained):
        ax.plot(
            range(1, settings["epochs"] + 1),
            run.history.train,
            color=colour,
            alpha=0.7,
            label=name if seed == 0 else None,
        )
kept = range(settings["every"], settings["epochs"] + 1, settings["every"])
for epoch in kept:
    ax.axvline(epoch, color="black", lw=0.8, ls=":")
last = min(run.history.train[-1] for trained in runs.values() for run in trained)
ax.set(xlabel="epoch", ylabel="ELBO, nats per image", ylim=(1.6 * last, None))
ax.legend()
show(
    fig,
    caption=f"Training by plain stochastic gradient ascent, {settings['seeds']} "
    f"seeds each. Dotted: the {len(kept)} checkpoints that TracIn will "
    "use.",
    alt="ELBO against epoch; the curves rise steeply and then slowly. Vertical "
    "dotted lines mark the checkpoints.",
)

# %% [markdown]
# ### A sanity check: is an image its own strongest proponent?
#
# Nothing pushed the model towards an image harder than the image itself, one should think. The paper proposes this as a first test, and reports that it holds for over 99 % of MNIST's training images. With halves of independent draws the test is a fair one: a score is not large merely because image and query share their noise.

# %% tags=["hide-input"]
own_share: dict[str, list[float]] = {name: [] for name in runs}
for name, trained in runs.items():
    for seed, run in enumerate(trained):
        queries = torch.randperm(
            len(run.images), generator=torch.Generator().manual_seed(seed)
        )[: settings["queries"]]
        ends = strongest(
            run.model,
            elbo,
            run.history.checkpoints,
            run.images,
            run.images[queries],
            k=1,
            samples=settings["samples"],
        )
        own_share[name].append(
            (ends.proponents[:, 0].cpu() == queries).double().mean().item()
        )
own_summary = {
    name: mean_and_standard_error(values) for name, values in own_share.items()
}
tell(
    markdown_table(
        ["data", "images that are their own strongest proponent"],
        [
            [name, f"{100 * s.mean:.2f} ± {100 * s.standard_error:.2f} %"]
            for name, s in own_summary.items()
        ],
    )
    + f"\n\n{settings['queries']} training images a seed, each against all "
    f"{settings['train']:,}; mean ± standard error over {settings['seeds']} "
    "seeds."
)

# %% [markdown]
# In the stored run nearly all of MNIST's images are, and about two thirds of Fashion-MNIST's: there another image with a longer gradient often wins (section 8 says when it can).
#
# ### Proponents and opponents of images that were never trained on
#
# Choose a test image with the slider: who made the model see it so, and who pulled the other way?

# %% tags=["hide-input"]
galleries = {
    name: [
        strongest(
            run.model,
            elbo,
            run.history.checkpoints,
            run.images,
            test_sets[name].images[: settings["queries"]],
            k=6,
            samples=settings["samples"],
        )
        for run in trained
    ]
    for name, trained in runs.items()
}


# %% tags=["hide-input"]
def gallery(name: str, j: int) -> plt.Figure:
    run, ends = runs[name][0], galleries[name][0]
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 1.5), width_ratios=(1, 6, 6))
    image_grid(
        test_sets[name].images[j : j + 1], columns=1, ax=axes[0], title="test image"
    )
    for ax, indices, values, title in (
        (
            axes[1],
            ends.proponents[j],
            ends.proponent_scores[j],
            "strongest proponents",
        ),
        (
            axes[2],
            ends.opponents[j],
            ends.opponent_scores[j],
            "strongest opponents",
        ),
    ):
        image_grid(run.images[indices.cpu()], columns=6, ax=ax, title=title)
        ax.text(
            0.5,
            -0.08,
            f"{values[0].item():.3g} … {values[-1].item():.3g}",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=8,
        )
    return fig


for name in runs:
    shown = range(pick(smoke=4, cpu=20, gpu=20, paper=20))
    frames(
        [gallery(name, j) for j in shown],
        [str(j + 1) for j in shown],
        description=f"{name}: test image",
        caption="Left, a test image; then the six training images with the largest "
        "and with the smallest scores (strongest first; below, the range of "
        "their scores).",
        alt="A test image, six proponents and six opponents",
    )

# %% tags=["hide-input"]
for name in runs:
    run, ends, test = runs[name][0], galleries[name][0], test_sets[name].images
    rows = [
        torch.cat(
            [
                test[j : j + 1],
                run.images[ends.proponents[j].cpu()],
                run.images[ends.opponents[j].cpu()],
            ]
        )
        for j in range(5)
    ]
    ax = image_grid(torch.cat(rows), columns=13)
    for column, title in ((0.5, "test"), (4, "proponents"), (10, "opponents")):
        ax.text(
            column / 13,
            1.02,
            title,
            transform=ax.transAxes,
            ha="center",
            va="bottom",
        )
    show(
        ax.get_figure(),
        caption=f"The first five test images of {name}; beside each, its six "
        "strongest proponents and its six strongest opponents among the "
        "training images (first seed).",
        alt="Five rows: a test image, six proponents, six opponents.",
    )

# %% [markdown]
# The pictures invite stories, so let us count instead. How often does the strongest proponent, and the strongest opponent, carry the same label as the test image? The model never saw a label. The paper finds about 80 % and 40 % on MNIST. A control belongs beside it: the nearest training image in plain *pixel* distance needs no model at all.

# %% tags=["hide-input"]
label_rows: dict[str, dict[str, list[float]]] = {}
for name, trained in runs.items():
    test = test_sets[name]
    queries, labels = (
        test.images[: settings["queries"]],
        test.labels[: settings["queries"]],
    )
    rows: dict[str, list[float]] = {
        "strongest proponent": [],
        "strongest opponent": [],
        "nearest in pixels": [],
        "chance": [],
    }
    for run, ends in zip(trained, galleries[name], strict=True):
        nearest = (
            torch.cdist(
                queries.flatten(1).to(device), run.images.flatten(1).to(device)
            )
            .argmin(1)
            .cpu()
        )
        for row, indices in zip(
            rows,
            (ends.proponents[:, 0].cpu(), ends.opponents[:, 0].cpu(), nearest),
            strict=False,
        ):
            rows[row].append((run.labels[indices] == labels).double().mean().item())
        rows["chance"].append(
            (run.labels[:, None] == labels).double().mean().item()
        )
    label_rows[name] = rows
label_summary = {
    name: {row: mean_and_standard_error(v) for row, v in rows.items()}
    for name, rows in label_rows.items()
}
tell(
    "Share with the test image's label, in per cent:\n\n"
    + markdown_table(
        ["", *label_summary],
        [
            [
                row,
                *(
                    f"{100 * s[row].mean:.1f} ± {100 * s[row].standard_error:.1f}"
                    for s in label_summary.values()
                ),
            ]
            for row in rows
        ],
    )
)

# %% [markdown]
# In the stored run the control is at least as good: on MNIST it equals the strongest proponent, on Fashion-MNIST it is clearly better. That proponents share the label says that like images push alike, which one sees without gradients.
#
# ### What makes an image influence itself?
#
# In section 1 the self-influence of a point told how lonely it was. Here we set it beside three other numbers for each training image: its loss (minus the ELBO), the length of its code $\lVert\mu_\phi(x)\rVert$, and its **atypicality**, the distance in pixels to its tenth-nearest neighbour. Strangers are left out for now.


# %% tags=["hide-input"]
def ranks(values: torch.Tensor) -> torch.Tensor:
    return values.argsort().argsort().double()


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's correlation of two sets of scores."""
    return torch.corrcoef(
        torch.stack([ranks(a.flatten().cpu()), ranks(b.flatten().cpu())])
    )[0, 1].item()


@torch.no_grad()
def scores_of(run: Trained) -> dict[str, torch.Tensor]:
    """Numbers that describe each training image, [M] each."""
    found = {
        "self-influence": self_influence(
            run.model,
            elbo,
            run.history.checkpoints,
            run.images,
            samples=settings["samples"],
        ).cpu()
    }
    found["self-influence, decoder"] = self_influence(
        run.model,
        elbo,
        run.history.checkpoints,
        run.images,
        samples=settings["samples"],
        layers=["decoder"],
    ).cpu()
    with seeded(1, device):
        parts = run.images.split(500)
        found["loss"] = torch.cat(
            [-elbo(run.model, part.to(device), samples=8).cpu() for part in parts]
        )
    found["length of the code"] = torch.cat(
        [
            run.model.posterior(part.to(device)).mean.norm(dim=1).cpu()
            for part in parts
        ]
    )
    pixels = run.images.flatten(1).to(device)
    found["atypicality"] = torch.cat(
        [
            torch.cdist(part.flatten(1).to(device), pixels)
            .topk(11, largest=False)
            .values[:, -1]
            .cpu()
            for part in parts
        ]
    )
    return found


described = {
    name: [scores_of(run) for run in trained] for name, trained in runs.items()
}
correlations = {
    name: {
        other: mean_and_standard_error(
            [
                rank_correlation(
                    d["self-influence"][~r.stranger], d[other][~r.stranger]
                )
                for d, r in zip(described[name], runs[name], strict=True)
            ]
        )
        for other in ("loss", "length of the code", "atypicality")
    }
    for name in runs
}

# %% tags=["hide-input"]
native = ~runs[first][0].stranger
fig, axes = plt.subplots(1, 3, figsize=(9.4, 2.8), sharey=True)
for ax, other in zip(
    axes, ("loss", "length of the code", "atypicality"), strict=True
):
    values = described[first][0]
    ax.scatter(
        values[other][native],
        values["self-influence"][native].clamp_min(1e-3),
        s=2,
        alpha=0.3,
    )
    ax.set(
        xlabel=other + {"loss": ", nats", "atypicality": ", pixels"}.get(other, ""),
        yscale="log",
    )
axes[0].set_ylabel("self-influence")
show(
    fig,
    caption=f"Self-influence of each training image of {first} (logarithmic) "
    "against its loss, the length of its code and its atypicality; first "
    "seed.",
    alt="Three scatter plots of self-influence against loss, code length and "
    "atypicality.",
)
tell(
    "Spearman's rank correlation with self-influence:\n\n"
    + markdown_table(
        ["", *correlations],
        [
            [
                o,
                *(
                    f"{c[o].mean:+.2f} ± {c[o].standard_error:.2f}"
                    for c in correlations.values()
                ),
            ]
            for o in correlations[first]
        ],
    )
)

# %% tags=["hide-input"]
for name in runs:
    order = described[name][0]["self-influence"].argsort(descending=True)
    fig, axes = plt.subplots(2, 1, figsize=(8, 1.5))
    image_grid(
        runs[name][0].images[order[:16]],
        columns=16,
        ax=axes[0],
        title=f"{name}: highest self-influence",
    )
    image_grid(
        runs[name][0].images[order[-16:]], columns=16, ax=axes[1], title="lowest"
    )
    fig.tight_layout()
    show(
        fig,
        caption=f"The sixteen training images of {name} with the highest and with "
        "the lowest self-influence (first seed).",
        alt="Two rows of training images: unusual ones above, plain ones below.",
    )

# %% [markdown]
# Costly and atypical images influence themselves most. The length of the code says something too, and not the same on every set: compare its row with that of the loss.
#
# ### Cleaning: do the strangers give themselves away?
#
# If self-influence marks what does not belong, somebody who goes through the training set from the highest score down should meet the hidden letters early. Two numbers describe such a search, and they are easily confused. Let $\mathrm{recall}(j)$ be the share of the $m$ strangers among the first $j$ of $N$ images. The **mean recall** is
# $A = \frac1N \sum_{j=1}^N \mathrm{recall}(j)$; the **ROC AUC** is the probability that a stranger scores above a native. With $\bar r$ the mean rank of the strangers,
#
# $$A = \frac{N + 1 - \bar r}{N}, \qquad \mathrm{AUC} = 1 - \frac{\bar r - (m+1)/2}{N - m}.$$
#
# Even a perfect search has $A < 1$, because the strangers cannot all be first. The authors' code calls the mean recall an AUC; we report both. And we ask the obvious question: does it beat the plain *loss*, which costs one forward pass? One row takes the same network trained by Adam, which fits the training set more closely in as many epochs; its scores leave the derivation behind, but not the idea.


# %% tags=["hide-input"]
def mean_recall(scores: torch.Tensor, stranger: torch.Tensor) -> float:
    found_so_far = stranger[scores.argsort(descending=True)].double().cumsum(0)
    return (found_so_far / stranger.sum()).mean().item()


by_adam = [
    Trained(first, seed, lr=1e-3, optimizer=torch.optim.Adam)
    for seed in range(settings["seeds"])
]
for values, run in zip(described[first], by_adam, strict=True):
    values["self-influence, Adam"] = self_influence(
        run.model,
        elbo,
        run.history.checkpoints,
        run.images,
        samples=settings["samples"],
    ).cpu()
cleaning: dict[str, dict[str, list[float]]] = {}
for values, run in zip(described[first], runs[first], strict=True):
    for score in (
        "self-influence",
        "self-influence, decoder",
        "self-influence, Adam",
        "loss",
        "atypicality",
    ):
        row = cleaning.setdefault(score, {"mean recall": [], "ROC AUC": []})
        row["mean recall"].append(mean_recall(values[score], run.stranger))
        row["ROC AUC"].append(
            auroc(values[score][~run.stranger], values[score][run.stranger]).value
        )
cleaning_summary = {
    score: {row: mean_and_standard_error(v) for row, v in rows.items()}
    for score, rows in cleaning.items()
}
m_, n_ = int(runs[first][0].stranger.sum()), len(runs[first][0].images)
mean_rank = n_ + 1 - n_ * cleaning["loss"]["mean recall"][0]
identity = abs(
    1 - (mean_rank - (m_ + 1) / 2) / (n_ - m_) - cleaning["loss"]["ROC AUC"][0]
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3.4))
for score, colour in zip(cleaning, COLOURS, strict=False):
    for seed, (values, run) in enumerate(
        zip(described[first], runs[first], strict=True)
    ):
        recall = (
            run.stranger[values[score].argsort(descending=True)].double().cumsum(0)
            / run.stranger.sum()
        )
        ax.plot(
            torch.arange(1, len(recall) + 1) / len(recall),
            recall,
            color=colour,
            alpha=0.7,
            label=score if seed == 0 else None,
        )
ax.plot([0, 1], [0, 1], color="black", lw=1, ls=":", label="chance")
ax.set(
    xlabel="share of the training set looked through",
    ylabel="share of the strangers found",
)
ax.legend(loc="lower right")
show(
    fig,
    caption=f"Looking for {hidden_count} hidden strangers among "
    f"{settings['train']:,} images of {first}, from the highest score "
    "down; one curve per seed.",
    alt="Recall curves that rise above the diagonal, by score.",
)
tell(
    markdown_table(
        ["score", "mean recall", "ROC AUC"],
        [
            [
                score,
                *(f"{s.mean:.3f} ± {s.standard_error:.3f}" for s in rows.values()),
            ]
            for score, rows in cleaning_summary.items()
        ],
    )
    + "\n\nThe largest possible mean recall here is "
    f"{1 - (m_ - 1) / (2 * n_):.3f}. The two formulas above agree with what "
    f"was counted to {identity:.0e}. "
    + (
        "**The plain loss finds the strangers better than self-influence does.** "
        "A stranger is costly to encode, and that alone gives it away, at the "
        "price of one forward pass."
        if cleaning_summary["loss"]["ROC AUC"].mean
        > cleaning_summary["self-influence"]["ROC AUC"].mean
        else "Here self-influence finds the strangers better than the plain loss "
        "does."
    )
)

# %% [markdown]
# ### How many checkpoints, how many draws?
#
# Both cost time in proportion. We take the scores from all checkpoints and many draws as the reference and ask how well fewer of them keep the ranking of the training images (Spearman's correlation, mean over test images; the noise of reference and trial is independent).

# %% tags=["hide-input"]
run, few_train = (
    runs[first][0],
    runs[first][0].images[: pick(smoke=100, cpu=1000, gpu=5000, paper=5000)],
)
few_test, files = (
    test_sets[first].images[: pick(smoke=5, cpu=50, gpu=100, paper=100)],
    run.history.checkpoints,
)


def mean_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return (
        sum(rank_correlation(p, q) for p, q in zip(a.T, b.T, strict=True))
        / a.shape[1]
    )


reference = tracin(
    run.model,
    elbo,
    files,
    few_train,
    few_test,
    samples=pick(smoke=8, cpu=16, gpu=32, paper=64),
    seed=99,
)
draws = pick(
    smoke=(2, 4), cpu=(2, 4, 8, 16), gpu=(2, 4, 8, 16, 32), paper=(2, 4, 8, 16, 32)
)
by_draws = [
    mean_correlation(
        tracin(run.model, elbo, files, few_train, few_test, samples=S), reference
    )
    for S in draws
]
subsets = {
    "last alone": files[-1:],
    "first alone": files[:1],
    "last two": files[-2:],
    "every other": files[::-2],
    "all": files,
}
by_files = {
    name: mean_correlation(
        tracin(run.model, elbo, chosen, few_train, few_test, samples=draws[-1]),
        reference,
    )
    for name, chosen in subsets.items()
}
by_layers = {
    layer: mean_correlation(
        tracin(
            run.model,
            elbo,
            files,
            few_train,
            few_test,
            samples=draws[-1],
            layers=[layer],
        ),
        reference,
    )
    for layer in ("encoder", "decoder")
}

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(draws, by_draws, "o-")
left.set(
    xscale="log",
    xlabel="draws of the noise, S",
    ylabel="rank correlation with the reference",
    xticks=draws,
    xticklabels=draws,
    ylim=(0, 1.02),
)
left.minorticks_off()
bars = {**by_files, **{f"{layer}'s weights": v for layer, v in by_layers.items()}}
right.barh(
    list(bars)[::-1],
    list(bars.values())[::-1],
    color=[COLOURS[1]] * 2 + [COLOURS[0]] * len(by_files),
)
right.set(xlabel="rank correlation with the reference")
show(
    fig,
    caption="How well cheaper scores keep the ranking. Left: fewer draws, all "
    "checkpoints. Right: fewer checkpoints (blue), or the weights of one "
    "network only (orange), with the most draws.",
    alt="Left, a curve that rises with the number of draws. Right, bars for "
    "subsets of checkpoints and of layers.",
)

# %% [markdown]
# In the stored run the last checkpoint alone is the worst choice of those tried, and the first alone far better; two draws already keep most of the ranking, and the encoder's weights carry nearly all of it.
#
# ## 7. Is it the counter-factual?
#
# TracIn tells who pushed. Section 1 asked what would have been. To see whether the first predicts the second we do the expensive experiment where it is cheap: a small VAE on 8 × 8 digits. For some test images we remove the 30 strongest proponents from the training set, train again from the same start, and see what the test image lost; then the same for the 30 strongest opponents; and as controls for 30 images at random, and for the 30 nearest in pixels.

# %% [markdown]
# **Predict, then run.** Without its 30 strongest proponents, will a test image lose more than without 30 images at random? And without its 30 strongest *opponents*: will it gain?

# %% tags=["hide-input"]
small, small_test = load("digits"), load("digits", "test")
again = pick(
    smoke=dict(epochs=4, images=2, seeds=1),
    cpu=dict(epochs=30, images=8, seeds=3),
    gpu=dict(epochs=30, images=20, seeds=5),
    paper=dict(epochs=30, images=50, seeds=5),
)


def small_vae(images: torch.Tensor, seed: int, folder: str | None = None):
    with seeded(seed):
        model = VAE(*mlp((1, 8, 8), 4, hidden=(64,)), latent_dim=4)
    history = fit(
        model,
        elbo,
        images,
        epochs=again["epochs"],
        batch_size=64,
        lr=2e-2,
        optimizer=torch.optim.SGD,
        seed=seed,
        checkpoints=folder,
        checkpoint_every=max(1, again["epochs"] // 5),
        progress=False,
        device="cpu",
    )
    return model, history


@torch.no_grad()
def nats_of(model: VAE, z: torch.Tensor) -> float:
    with seeded(0):
        return elbo(model, z, samples=200).item()


# %% tags=["hide-input"]
losses: dict[str, list[float]] = {
    "proponents": [],
    "opponents": [],
    "nearest in pixels": [],
    "random": [],
}
for j in range(again["images"]):
    z, change = small_test.images[j : j + 1], dict.fromkeys(losses, 0.0)
    for seed in range(again["seeds"]):
        with tempfile.TemporaryDirectory() as folder:
            whole, history = small_vae(small.images, seed, folder)
            score = tracin(
                whole, elbo, history.checkpoints, small.images, z, samples=16
            )[:, 0]
        orders = {
            "proponents": score.argsort(descending=True),
            "opponents": score.argsort(),
            "nearest in pixels": (small.images - z)
            .flatten(1)
            .norm(dim=1)
            .argsort(),
            "random": torch.randperm(
                len(small), generator=torch.Generator().manual_seed(100 * j + seed)
            ),
        }
        for who, order in orders.items():
            without, _ = small_vae(small.images[order[30:].sort().values], seed)
            change[who] += (nats_of(whole, z) - nats_of(without, z)) / again[
                "seeds"
            ]
    for who, value in change.items():
        losses[who].append(value)
removal = {who: mean_and_standard_error(values) for who, values in losses.items()}
tell(
    f"What a test image loses when 30 of {len(small):,} training images are "
    "removed and the model is trained again, in nats (mean ± standard error over "
    f"{again['images']} test images, each over {again['seeds']} seeds):\n\n"
    + markdown_table(
        ["removed", "loss of the test image"],
        [
            [who, f"{r.mean:+.3f} ± {r.standard_error:.3f}"]
            for who, r in removal.items()
        ],
    )
)

# %% tags=["hide-input"]
save_results(
    "06_influence",
    {
        "settings": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in settings.items()
        },
        "hidden_strangers": hidden_count,
        "own_strongest_proponent": {
            name: s._asdict() for name, s in own_summary.items()
        },
        "same_label": {
            name: {row: s._asdict() for row, s in rows.items()}
            for name, rows in label_summary.items()
        },
        "rank_correlation_with_self_influence": {
            name: {o: s._asdict() for o, s in c.items()}
            for name, c in correlations.items()
        },
        "cleaning": {
            score: {row: s._asdict() for row, s in rows.items()}
            for score, rows in cleaning_summary.items()
        },
        "rank_correlation_with_reference": {
            "draws": dict(zip(map(str, draws), by_draws, strict=True)),
            "checkpoints": by_files,
            "layers": by_layers,
        },
        "removed_and_retrained": {who: s._asdict() for who, s in removal.items()},
        "telescoping_gap": dict(zip(map(str, rates), gaps, strict=True)),
        "self_influence_over_truth_at_2_draws": {
            "plain": plain._asdict(),
            "halves": halves._asdict(),
        },
    },
)

# %% [markdown]
# In the stored run the proponents are the real thing: without them the image loses many times what it loses without 30 random ones. But the 30 nearest in pixels, found without any model, cost it nearly as much. And the opponents are not what their name says: without them the image does not fare better, it loses what it loses with any 30. A push against an image was
# given, but others would have given it as well.
#
# ## 8. What it does not do
#
# - **It is not the counter-factual.** Section 7 shows it. TracIn is a first-order account of the pushes that were given. An image whose push would have been replaced by that of its twin gets full credit all the same; in the world without it, little would change.
# - **It needs the training run.** Checkpoints and learning rates must have been kept, and the derivation holds for plain stochastic gradient steps. With momentum or Adam the pushes are others, and the scores become a similarity of gradients: often useful, no longer an account.
# - **Large gradients dominate.** A hard image pushes everybody. If the same few training images turn up as proponents of everything, divide by the gradients' lengths; but that measures something else.
# - **Its validation is circular.** That an image is its own strongest proponent is half a theorem: by the Cauchy-Schwarz inequality another image can only win at a checkpoint if its gradient is the longer one. The sanity check is a test of the code more than of the idea.
# - **For finding strangers, try the loss first.** The table above has both.

# %% [markdown]
# ## 9. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a few seconds at most.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("6.1")

# %% [markdown]
# ### Exercise 6.1 · Leaving out two (15 minutes)
#
# Equation (6.2) leaves one point out of a kernel density estimate. Leave out *two*: from the kernels' values $K_i(z)$ at one test point, write $\log \hat p(z) - \log \hat p_{-ij}(z)$ for all pairs $i \ne j$, and on the diagonal the influence of the single point.
# Then compare with the sum of the two single influences: when is a pair worth more?

# %% tags=["exercise"]
def pair_influence(kernels: torch.Tensor) -> torch.Tensor:
    """log p(z) - log p_{-ij}(z) in nats; p(z) is the mean of the kernels' values.

    [N] -> [N, N], with N at least 3; the diagonal has log p(z) - log p_{-i}(z).
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("6.1", pair_influence)
# hint("6.1")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_6_1(kernels: torch.Tensor) -> torch.Tensor:
    n, total = len(kernels), kernels.sum()
    rest = (total - kernels[:, None] - kernels) / (n - 2)
    alone = (total - kernels) / (n - 1)
    without = rest - rest.diag().diag() + alone.diag()
    return (total / n).log() - without.log()


# %% [markdown]
# <details><summary>Solution</summary>
#
# With the shares $k_i = K_i / \sum_j K_j$ the pair is worth $-\log(1 - k_i - k_j)$ up to constants, the two single influences $-\log(1 - k_i) - \log(1 - k_j) = -\log\big(1 - k_i - k_j + k_i k_j\big)$. The first is larger, by about $k_i k_j$: **two points that explain the same test point stand in for each other**, and the loss shows only when both are gone. (The constants differ too: $\log\frac{N-2}{N}$ against $2\log\frac{N-1}{N}$, a difference of about $1/N^2$ the other way.)
# It is the same with images: remove one of two twins, and little happens. Scores of single images cannot see it, TracIn's among them.
#
# </details>
#
# ### Exercise 6.2 · Where the bias comes from (20 minutes)
#
# Let $\hat g = \frac1S \sum_s g_s$ with independent $g_s$ of mean $\bar g$ and covariance $C$. Show that $\mathbb E \lVert \hat g \rVert^2 = \lVert \bar g \rVert^2 + \frac1S \operatorname{tr} C$, and that using only the pairs $s \ne s'$ removes the bias. Which uses the draws better, those pairs or two halves? Then write the estimate from all pairs.
#
# <details><summary>Solution</summary>
#
# $\lVert \hat g \rVert^2 = \frac{1}{S^2} \sum_{s, s'} g_s \cdot g_{s'}$. For $s \neq s'$ independence gives $\mathbb E\, g_s \cdot g_{s'} = \lVert\bar g\rVert^2$; for $s = s'$, $\mathbb E \lVert g_s \rVert^2 = \lVert\bar g\rVert^2 + \operatorname{tr} C$. There are $S$ pairs of the second kind among $S^2$, hence
# $\lVert\bar g\rVert^2 + \frac{S}{S^2}\operatorname{tr} C$. Without the pairs $s = s'$ the mean over the remaining $S(S-1)$ is unbiased: the *U-statistic* $\frac{1}{S(S-1)} \sum_{s \ne s'} g_s \cdot g_{s'}$. Two halves use $S^2/4$ unordered pairs of the $S(S-1)/2$ that there are, so the U-statistic has the lower variance;
# where noise dominates, by a factor of about two. The halves need two averages in memory instead of $S$ gradients, and half as many products.
#
# Your derivation is complete if it
#
# - writes the square as a double sum and treats $s = s'$ apart;
# - uses independence for one kind of pair and $\mathbb E\lVert g_s\rVert^2 = \lVert\bar g\rVert^2 + \operatorname{tr} C$ for the other;
# - counts both kinds;
# - compares numbers of pairs, and says what each way has to keep in memory.
#
# </details>

# %% tags=["exercise"]
def squared_length(g: torch.Tensor) -> torch.Tensor:
    """An unbiased estimate of |E g|² from draws g [S, P], by all pairs of draws.

    A 0-dimensional tensor.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("6.2", squared_length)
# hint("6.2")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_6_2(g: torch.Tensor) -> torch.Tensor:
    S, total = len(g), g.sum(0)
    return (total @ total - g.square().sum()) / (S * (S - 1))


# %% [markdown]
# ### Exercise 6.3 · A bias counts too (15 minutes)
#
# The identity (6.6) was for a weight matrix. A layer $y_t = W a_t + c$ has the bias $c$ as well, and acts at positions $t = 1, \dots, T$. Write the inner products of the gradients with respect to $W$ *and* $c$ for all pairs of images.

# %% tags=["exercise"]
def layer_products(
    g: torch.Tensor, a: torch.Tensor, h: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """Inner products of the gradients in W and c of M and N images: [M, N].

    g [M, T, p] and h [N, T, p] are the gradients in a layer's outputs, a [M, T, q]
    and b [N, T, q] its inputs.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("6.3", layer_products)
# hint("6.3")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_6_3(
    g: torch.Tensor, a: torch.Tensor, h: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    pairs_g = torch.einsum("mtp,nup->mtnu", g, h)
    pairs_a = torch.einsum("mtq,nuq->mtnu", a, b)
    return (pairs_g * (pairs_a + 1)).sum((1, 3))


# %% [markdown]
# ### Exercise 6.4 · Directions instead of lengths (research, an hour on Colab)
#
# Some training images have long gradients and turn up as proponents of everything. Write the *cosine* between gradients instead of their inner product, from `tracin` and `self_influence` alone: at one checkpoint `state`, a dictionary with `model` and `lr`, and for objectives that draw nothing.

# %% tags=["exercise"]
def cosine_scores(
    model: VAE, objective, state: dict, train: torch.Tensor, test: torch.Tensor
) -> torch.Tensor:
    """Cosines between the gradients of M training and N test images: [M, N]."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("6.4", cosine_scores)
# hint("6.4")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_6_4(
    model: VAE, objective, state: dict, train: torch.Tensor, test: torch.Tensor
) -> torch.Tensor:
    once = {"samples": 1, "unbiased": False}
    products = tracin(model, objective, [state], train, test, **once)
    lengths = [
        self_influence(model, objective, [state], side, **once).sqrt()
        for side in (train, test)
    ]
    return products / torch.outer(*lengths)


# %% [markdown]
# Then try it on the galleries of section 6: do other images come up? Is an image still its own strongest proponent, and could it be otherwise? Retrain as in section 7 without the 30 training images of largest cosine: does the test image lose more by them than by its proponents?
#
# <details><summary>Solution</summary>
#
# Other images come up, and fewer of them in every gallery at once: dividing a *row* by one number changes its rank in every column, and the rows that fall are those with long gradients, the hard and untypical images. Dividing a *column* by one number changes no ranking.
# An image has cosine 1 with itself and at most 1 with any other, so it is its own strongest proponent *by construction*. The sanity check of section 6 has become a tautology: what it could still find was a proponent with a longer gradient, and that is now impossible.
# As for retraining, nothing in (6.3) speaks for the cosine. The gain on $z$ is the inner product, length included, so what was *pushed* is accounted for by TracIn. In a world without the image its twins would have pushed in its place, and similar directions are what twins have. Neither score was made for that question. Expect the 30 nearest in direction to look more alike to the eye; whether their loss hurts more is for your experiment, with the 30 images at random as a control.
#
# Your report is complete if it
#
# - shows galleries by both scores for the same test images, and how often the most frequent training image appears in each;
# - says why "its own strongest proponent" can no longer fail;
# - retrains from the same start, over several seeds, with random removals as the control and the standard error of the difference.
#
# </details>

# %% [markdown]
# ## 10. Further reading
#
# - [Kong & Chaudhuri, *Understanding Instance-based Interpretability of Variational Auto-Encoders*, 2021](https://arxiv.org/abs/2105.14203): the paper of this chapter, with the closed forms for k-NN, KDE and mixtures and the error bound for finitely many draws.
# - [Pruthi et al., *Estimating Training Data Influence by Tracing Gradient Descent*, 2020](https://arxiv.org/abs/2002.08484): TracIn for classifiers.
# - [Koh & Liang, *Understanding Black-box Predictions via Influence Functions*, 2017](https://arxiv.org/abs/1703.04730): the way through the Hessian, and why one would want it.
