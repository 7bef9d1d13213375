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
# # Variational auto-encoders from first principles
#
# Everything in this book rests on one idea: explain an image by a few numbers that nobody observed. This chapter builds that idea
# from probability alone, checks each step against a model that can be solved exactly, and ends with a variational
# auto-encoder trained on handwritten digits. The five chapters after it each take up one thing that this plain model leaves open, and a last one puts them together.
#
# **You need:** expectations, Gaussians, Bayes' rule, and enough PyTorch to read a training loop.
# **You will be able to:** derive the evidence lower bound in two ways, say which of its gaps comes from where, estimate a
# likelihood that has no closed form, and recognise a posterior that has collapsed.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaekit import (
    VAE, elbo, fit, gaussian, hvae_conv, importance_bound, log_evidence,
    log_weight, mlp,
)
from vaekit.datasets import binarise, load
from vaekit.metrics import active_units, mean_and_standard_error, mutual_information
from vaekit.notebook import (
    COLOURS, check, frames, hint, image_grid, image_rows, live, markdown_table,
    number, save_results, settings, show, stored, tell, trained, use_style,
)
from vaekit.training import default_device, load_checkpoint, seeded

use_style()
device = default_device()

# %% [markdown]
# ## Before any theory: one, in ten lines
#
# Here are 1,500 handwritten digits of 8 × 8 pixels, a model with eight hidden numbers for each, and a few seconds of training. `fit` maximises the mean of an **objective**, a function that says of each image, in nats, how well the model explains it; `elbo` is the one that this chapter derives. The last row is not in the data: it is what the model draws when we hand it random numbers.

# %%
digits = load("digits").images  # [1500, 1, 8, 8], grey levels from 0 to 1
with seeded(0):
    first = VAE(*mlp((1, 8, 8), latent_dim=8, hidden=(128,)), latent_dim=8)
    before = first.sample(20)
fit(first, elbo, digits, epochs=40, lr=3e-3, binarise=True, progress=False)
with seeded(1, device):
    after = first.sample(20)
show(
    image_rows({"data": digits[:20], "before": before, "after": after}),
    caption="Digits from the data, what the model draws before it is trained, and "
    "what it draws after forty passes over the data.",
    alt="Three rows of twenty small images: handwritten digits, grey noise, and "
    "new images that look like blurred handwritten digits.",
)

# %% [markdown]
# Change something and run the cell again: two latent variables instead of eight, or four passes instead of forty. Then come back, for there are questions to ask. What did `fit` maximise? Why does it need a second network, the encoder, that is not even used to draw? And how would we know that a model is good, other than by looking?
#
# In the pages to come, `show` and `tell` put a figure with its caption, or a sentence with numbers in it, below a cell; `frames` puts a slider under a series of pictures. Everything that decides how long the chapter runs is in the table below; the column in force is that of the **profile** ([set-up](../book/setup.md)). What takes minutes is kept on disk by `trained` and `stored`, and found there when the chapter is run again.

# %% tags=["settings", "hide-input"]
s = settings(
    # columns: smoke, cpu, night, gpu, paper
    linear=(  # (learning rate, epochs) of the linear VAE
        ((5e-3, 30), (5e-4, 10)),
        *[((5e-3, 1_000), (5e-4, 500), (5e-5, 300))] * 4,
    ),
    data=("digits", "mnist", "mnist", "mnist", "mnist"),
    images=(600, 50_000, 50_000, 50_000, 50_000),
    seeds=(2, 3, 3, 5, 5),  # of the smaller models
    hidden=((32,), (400,), (400,), (400,), (400,)),
    few_latents=(4, 20, 20, 20, 20),
    epochs=(4, 12, 20, 100, 500),
    network=("mlp 32", "mlp 200 200", "hvae_conv", "hvae_conv", "hvae_conv"),
    latent=(4, 32, 64, 64, 64),
    base=(  # (learning rate, epochs) of the larger model
        ((1e-3, 3), (3e-4, 1)),
        ((1e-3, 60), (3e-4, 15)),
        ((1e-3, 110), (3e-4, 30)),
        ((1e-3, 150), (3e-4, 40)),
        ((1e-3, 1500), (3e-4, 500)),
    ),
    tested=(100, 10_000, 10_000, 10_000, 10_000),  # test images for its NLL
    test_samples=(50, 500, 500, 1_000, 1_000),  # weights for each of these
    plane_epochs=(4, 20, 40, 60, 200),  # two latent variables
    refits=(20, 200, 200, 300, 500),  # steps on the posterior of each image
    betas=((0.3, 1.0, 30.0), *[(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)] * 4),
    beta_epochs=(4, 6, 20, 30, 100),
)

# %% [markdown]
# ## 1. Where do images come from?
#
# Take a grid of pixels and colour each one black or white by the toss of a coin. You could go on for longer than the universe is old
# and never meet a handwritten 7. Images that mean something fill a vanishingly small part of the space of all images, and
# within that part one can *move*: a stroke leans a little more, a loop opens, a 4 turns into a 9.

# %% tags=["hide-input"]
noise = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()
fig = image_rows({"coin tosses": noise, "digits": digits[:10]})
show(
    fig,
    caption="Ten images whose pixels are independent coin tosses, above ten "
    "handwritten digits of the same size (8 × 8). Almost every image "
    "looks like the upper row; the ones we care about are rare and "
    "resemble each other.",
    alt="Two rows of small images: random black and white pixels above, legible "
    "handwritten digits below.",
)

# %% [markdown]
# This suggests a story about how an image $x$ came to be. First, somebody chose a few numbers $z \in \mathbb R^D$ that nobody
# wrote down: which digit, how slanted, how thick a pen. Then the image was drawn from them, with some noise. In symbols,
#
# $$z \sim p(z) = \mathcal N(0, I_D), \qquad x \mid z \sim p_\theta(x \mid z).$$
#
# The numbers $z$ are **latent variables**, $p(z)$ is the **prior**, and $p_\theta(x \mid z)$ is the **likelihood**. The
# likelihood's parameters come out of a neural network with weights $\theta$, the **decoder**. That the prior is so plain is no loss: a flexible
# enough decoder can turn a Gaussian cloud into any shape.
#
# **Ask yourself.** Turn the latent space by some rotation, and let the decoder turn it back before it draws. Which of $p(z)$, $p_\theta(x \mid z)$ and $p_\theta(x)$ has changed?
#
# <details><summary>One answer</summary>
#
# Only $p_\theta(x \mid z)$, as a function of $z$. The prior is round, and the same images come out equally often. So no data can tell the two models apart: the axes of the latent space mean nothing yet.
#
# </details>
#
# ## 2. The integral that we cannot do
#
# How well does such a story explain an image? By the probability it gives to the image when all the ways of having drawn
# it are added up, the **evidence** (or marginal likelihood):
#
# $$p_\theta(x) = \int p_\theta(x \mid z)\, p(z)\, dz = \mathbb E_{p(z)}\big[p_\theta(x \mid z)\big]. \tag{1.1}$$
#
# Training means choosing $\theta$ so that $\log p_\theta(x)$ is large on average over the data. The second form looks like
# an invitation: draw $z_1, \dots, z_S$ from the prior and average. It is unbiased. It is also useless as soon as $D$ is more
# than a handful, because almost no $z$ from the prior could have drawn this particular image.
#
# We can watch it fail. If the decoder is linear and the noise Gaussian,
# $p(x \mid z) = \mathcal N(Wz + b, s^2 I)$, then $x$ is a sum of Gaussians, and the evidence is known exactly:
#
# $$p(x) = \mathcal N\big(x;\; b,\; WW^\top + s^2 I\big).$$
#
# This model will be our touchstone throughout the chapter. Below we compare the naive average with the truth.


# %% [markdown]
# **Predict, then run.** The average over draws from the prior is unbiased. Will its logarithm err upwards, downwards, or to both sides? And how many more draws do you expect to need for each further latent variable? Write both guesses down before you look.

# %%
def linear_model(
    pixels: int, latent_dim: int, scale: float, seed: int = 0
) -> tuple[VAE, torch.Tensor]:
    """A VAE whose encoder and decoder are one linear layer each, and eight images
    [8, 1, 1, pixels] drawn from it.
    """
    with seeded(seed):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * latent_dim))
        decoder = nn.Sequential(
            nn.Linear(latent_dim, pixels), nn.Unflatten(-1, (1, 1, pixels))
        )
        nn.init.normal_(decoder[0].weight)
        model = VAE(
            encoder, decoder, latent_dim=latent_dim, likelihood=gaussian(scale)
        ).double()
        return model, model.likelihood(model.prior.rsample((8,))).sample().detach()


def exact_log_evidence(model: VAE, x: torch.Tensor, scale: float) -> torch.Tensor:
    r"""log N(x; b, W W' + s² I), [B]."""
    W, b = model.decoder[0].weight, model.decoder[0].bias  # [P, D], [P]
    covariance = W @ W.T + scale**2 * torch.eye(len(W), dtype=W.dtype)
    return MultivariateNormal(b, covariance).log_prob(x.flatten(1)).detach()


# %%
@torch.no_grad()
def naive_log_evidence(model: VAE, x: torch.Tensor, samples: int) -> torch.Tensor:
    """log of the mean of p(x|z) over draws of z from the prior, [B]."""
    z = model.prior.rsample((samples, len(x)))  # [S, B, D]
    return model.log_likelihood(x, z).logsumexp(0) - math.log(samples)


sizes = [10, 100, 1_000, 10_000]
fig, ax = plt.subplots(figsize=(6, 3.4))
for latent_dim, colour in zip((1, 3, 10, 30), COLOURS, strict=False):
    model, x = linear_model(40, latent_dim, scale=0.5)
    truth = exact_log_evidence(model, x, scale=0.5)
    with seeded(1):
        errors = [
            (naive_log_evidence(model, x, s) - truth).mean().item() for s in sizes
        ]
    ax.plot(sizes, errors, "o-", color=colour, label=f"D = {latent_dim}")
ax.axhline(0, color="black", lw=1)
ax.set(
    xscale="log",
    xlabel="draws from the prior, S",
    ylabel="estimate − exact log p(x), nats",
)
ax.set_yscale("symlog", linthresh=1)
ax.legend()
show(
    fig,
    caption="Error of the naive estimate of log p(x), averaged over eight images "
    "from a linear model with D latent variables. With D = 1 a thousand "
    "draws do. With D = 10 even ten thousand are wrong by a hundred nats, "
    "with D = 30 by a thousand, always downwards.",
    alt="Line chart: the error of the naive estimate approaches zero for one "
    "latent variable but stays about a thousand nats below zero for thirty.",
)

# %% [markdown]
# The estimate is far too *low*, and that is no accident. The average of $p(x \mid z)$ is carried by rare draws of $z$ that happen to
# fit; as long as none has turned up, the average misses nearly everything.
#
# The remedy is to look for $z$ where it matters. Given the image, the latent variables that could have made it follow the
# **posterior** $p_\theta(z \mid x) = p_\theta(x \mid z)\,p(z) / p_\theta(x)$. Its denominator is the very integral that we
# cannot do. But we can *learn* something close to it.

# %% [markdown]
# ## 3. The evidence lower bound, twice
#
# Let $q(z)$ be any density over the latent variables that is positive wherever $p_\theta(x, z)$ is, to be thought of as our guess of where $z$ lies for this image. Rewrite the
# evidence as an expectation under the guess, which is importance sampling:
#
# $$p_\theta(x) = \int q(z)\, \frac{p_\theta(x, z)}{q(z)}\, dz = \mathbb E_{q(z)}\left[\frac{p_\theta(x, z)}{q(z)}\right].$$
#
# **First derivation: Jensen's inequality.** The logarithm is concave, so the logarithm of a mean is at least the mean of the logarithms:
#
# $$\begin{aligned}
# \log p_\theta(x) &= \log \mathbb E_q\left[\frac{p_\theta(x, z)}{q(z)}\right] \\
# &\ge \mathbb E_q\left[\log \frac{p_\theta(x, z)}{q(z)}\right] =: \mathcal L(x).
# \end{aligned} \tag{1.2}$$
#
# The right-hand side is the **evidence lower bound**, or ELBO. It needs no integral over the prior, only averages over draws from $q$ of quantities that we can evaluate.
#
# **Second derivation: an identity.** Jensen does not say how much is lost. Bayes' rule does. Insert
# $p_\theta(x, z) = p_\theta(z \mid x)\, p_\theta(x)$ into $\mathcal L$:
#
# $$\begin{aligned}
# \mathcal L(x) &= \mathbb E_q\left[\log \frac{p_\theta(z \mid x)\, p_\theta(x)}{q(z)}\right] \\
# &= \log p_\theta(x) - \mathbb E_q\left[\log\frac{q(z)}{p_\theta(z \mid x)}\right] \\
# &= \log p_\theta(x) - \mathrm{KL}\big(q(z) \,\|\, p_\theta(z \mid x)\big).
# \end{aligned} \tag{1.3}$$
#
# The gap is exactly the Kullback–Leibler divergence from the guess to the true posterior. It is never negative, and it is
# zero only if the guess is right. So raising $\mathcal L$ raises the evidence, or pulls $q$ towards the posterior, or both. Which of the two it does is not ours to choose: with $\theta$ fixed it can only be the second, and with both free it may even give up some evidence for a posterior that is easier to guess. Section 10 comes back to that.
#
# **A third way to write it** is the one that gets computed. Split $p_\theta(x, z) = p_\theta(x \mid z)\, p(z)$:
#
# $$\begin{aligned}
# \mathcal L(x) = {} & \underbrace{\mathbb E_{q}\big[\log p_\theta(x \mid z)\big]}_{\text{how well the image is reconstructed}} \\
# & - \underbrace{\mathrm{KL}\big(q(z) \,\|\, p(z)\big)}_{\text{how much the guess says beyond the prior}}.
# \end{aligned} \tag{1.4}$$
#
# The two terms pull against each other: a narrow guess at just the right place reconstructs well, but its KL term is large, because it departs from the prior. All quantities are in **nats**, units of natural logarithm.

# %% [markdown]
# **Ask yourself.** Let $q$ be zero on some part of the latent space where the posterior is not. Which still holds: the rewriting of $p_\theta(x)$ as an expectation under $q$, the bound (1.2), the identity (1.3)?
#
# <details><summary>One answer</summary>
#
# The expectation comes out too small, since what lies on that part is never seen. A value that is too small is still a lower bound, and the divergence in (1.3) averages only where $q$ is: bound and identity hold. That is why an ELBO can look healthy while $q$ leaves out half of the posterior.
#
# </details>

# %% [markdown]
# ## 4. Two gradients, one of them quiet
#
# To raise $\mathcal L$ by gradient ascent we need its gradient with respect to the parameters of $q$, and these parameters sit *inside* the
# distribution that we average over. Let $q = \mathcal N(\mu, \operatorname{diag}\sigma^2)$ and $f(z) = \log p_\theta(x, z) - \log q(z)$. There are two ways out.
#
# The **score-function** estimator (REINFORCE) differentiates the density, $\nabla_\mu q = q\, \nabla_\mu \log q$:
#
# $$\nabla_\mu \mathcal L = \mathbb E_q\big[f(z)\, \nabla_\mu \log q(z)\big], \qquad \nabla_\mu \log q(z) = \frac{z - \mu}{\sigma^2}.$$
#
# ($f$ contains $\log q$ and so depends on $\mu$ as well, but $\mathbb E_q[\nabla_\mu \log q] = 0$, so that nothing is left of it.)
#
# The **reparameterisation** estimator moves the randomness out of the way. Draw $\varepsilon \sim \mathcal N(0, I)$ and set
# $z = \mu + \sigma\,\varepsilon$. Now the distribution of $\varepsilon$ has no parameters, and the gradient walks in through $z$:
#
# $$\nabla_\mu \mathcal L = \mathbb E_\varepsilon\big[\nabla_z \log p_\theta(x, z)\big|_{z = \mu + \sigma\varepsilon}\big].$$
#
# (The term $-\log q(z)$ is the constant $\tfrac12|\varepsilon|^2$ plus terms in $\sigma$, so $\mu$ gets no gradient from it.) Both are unbiased. The first knows only *how good* a draw was, the
# second knows *in which direction* it would have been better. We measure what that is worth in the linear model, where
# $\log p(x, z)$ is quadratic and the exact gradient at $\mu$ is $\nabla_z \log p(x, z)|_{z=\mu}$.


# %% [markdown]
# **Predict, then run.** One latent variable, then twenty. For which of the two estimators does it matter how many there are, and why?

# %%
def gradient_draws(latent_dim: int, draws: int = 20_000) -> dict[str, torch.Tensor]:
    """Draws of the estimators of the gradient with respect to mu, [draws, D], and
    the exact gradient, [D].
    """
    model, x = linear_model(40, latent_dim, scale=0.5)
    x, mu, sigma = (
        x[:1],
        torch.zeros(latent_dim, dtype=torch.float64, requires_grad=True),
        0.1,
    )
    exact = torch.autograd.grad(model.log_joint(x, mu[None]).sum(), mu)[0]
    with seeded(2):
        z = (
            (mu + sigma * torch.randn(draws, latent_dim, dtype=torch.float64))
            .detach()
            .requires_grad_()
        )
    log_p = model.log_joint(x.expand(draws, -1, -1, -1), z)  # [draws]
    reparameterised = torch.autograd.grad(log_p.sum(), z)[0]
    f = log_p.detach() - Normal(mu, sigma).log_prob(z).sum(-1).detach()
    score = (z - mu).detach() / sigma**2  # of log q, [draws, D]
    baseline = (f.sum() - f) / (draws - 1)  # the mean over all other draws
    return {
        "score function": f[:, None] * score,
        "score function, baseline": (f - baseline)[:, None] * score,
        "reparameterisation": reparameterised,
        "exact": exact,
    }


# %%
dims = (1, 2, 5, 10, 20)
spread: dict[str, list[float]] = {
    "score function": [],
    "score function, baseline": [],
    "reparameterisation": [],
}
# how far each mean is from the exact gradient, in its own standard errors
standard_errors_off = []
for latent_dim in dims:
    found = gradient_draws(latent_dim)
    for name, values in spread.items():
        values.append(found[name].std(0).mean().item())
        error = (found[name].mean(0) - found["exact"]) / (
            found[name].std(0) / len(found[name]) ** 0.5
        )
        standard_errors_off.append(error.abs().max().item())

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3.2))
for (name, values), marker in zip(spread.items(), "o^s", strict=True):
    ax.plot(dims, values, f"{marker}-", label=name)
ax.set(
    xlabel="latent variables, D",
    ylabel="standard deviation of one draw",
    yscale="log",
    xticks=dims,
)
ax.legend()
show(
    fig,
    caption="Standard deviation of a single-draw gradient estimate (mean over "
    "coordinates of μ) in the linear model, 20,000 draws. Subtracting a baseline "
    "takes away most of the score function's noise, but not what grows with D.",
    alt="Three curves against the number of latent variables on a logarithmic "
    "axis: the score function far above, with a baseline between, "
    "reparameterisation below.",
)
quiet = spread["reparameterisation"][-1]
ratio = spread["score function"][-1] / quiet
ratio_with_baseline = spread["score function, baseline"][-1] / quiet
tell(
    f"At D = {dims[-1]} the score-function estimate is {ratio:.0f} times noisier "
    "than the reparameterised one; with a baseline it is "
    f"**{ratio_with_baseline:.0f} times** noisier, and would need "
    f"{ratio_with_baseline**2:,.0f} times as many draws for the same precision. "
    "All are unbiased: over all the runs above no mean strayed further than "
    f"{max(standard_errors_off):.1f} of its standard errors from the exact "
    "gradient."
)

# %% [markdown]
# **Warm-up 1.a · Reparameterise.** Fill in the blank: turn standard Gaussian noise into a draw of $q = \mathcal N(\mu, \operatorname{diag}\sigma^2)$, given $\mu$ and $\log\sigma$.

# %% tags=["warm-up", "nbval-check-output"]
def draw(
    mean: torch.Tensor, log_std: torch.Tensor, epsilon: torch.Tensor
) -> torch.Tensor:
    """z ~ N(mean, exp(log_std)²) from epsilon ~ N(0, I); all are [B, D]."""
    return ...  # fill in


check("1.a", draw)

# %% [markdown]
# ## 5. One network for all posteriors
#
# So far $q$ belonged to one image. With sixty thousand images we would need sixty thousand means and variances, and a new
# optimisation for each new image. **Amortised** inference learns a function instead: a network with weights $\phi$, the **encoder**,
# maps an image to the mean and the standard deviation of its guess,
#
# $$q_\phi(z \mid x) = \mathcal N\big(\mu_\phi(x), \operatorname{diag} \sigma_\phi(x)^2\big).$$
#
# Encoder, decoder and the bound that trains both are the **variational auto-encoder**
# ([Kingma & Welling, 2014](https://arxiv.org/abs/1312.6114); [Rezende et al., 2014](https://arxiv.org/abs/1401.4082)). Its
# gap, the divergence in equation (1.3), has two parts, and it helps to tell them apart:
#
# $$\begin{aligned}
# \log p_\theta(x) - \mathcal L(x) = {} & \underbrace{\log p_\theta(x) - \max_{q \text{ Gaussian}} \mathcal L}_{\text{approximation gap}} \\
# & + \underbrace{\max_{q \text{ Gaussian}} \mathcal L - \mathcal L(x)}_{\text{amortisation gap}}.
# \end{aligned} \tag{1.5}$$
#
# The first is there because the true posterior need not be a diagonal Gaussian; the second because one network serves all
# images ([Cremer et al., 2018](https://arxiv.org/abs/1801.03558)). We shall measure the second below.
#
# In code there is little to it. The library's `elbo` is equation (1.4) with one draw of $z$, plus a check of its arguments:


# %%
def my_elbo(model: VAE, x: torch.Tensor) -> torch.Tensor:
    q_z = model.posterior(x)  # q(z|x), batch shape [B]
    z = q_z.rsample()  # mu + sigma * epsilon, [B, D]
    log_p_x_z = model.log_likelihood(x, z)  # [B]
    return log_p_x_z - kl_divergence(q_z, model.prior)  # [B], in nats


model, x = linear_model(40, 3, scale=0.5)
with seeded(0):
    mine = my_elbo(model, x)
with seeded(0):
    theirs = elbo(model, x)
tell(
    "Largest difference between the two: "
    f"{(mine - theirs).abs().max().item():.1e} nats."
)

# %% [markdown]
# An **objective** in this book is always such a function: a model and a batch of images in, one number per image out, in nats, to be
# maximised. `fit` takes any of them.
#
# **Ask yourself.** You drop the encoder and optimise mean and variances for each image by themselves. Which of the two gaps closes? And which closes if the encoder is made ten times as large?
#
# <details><summary>One answer</summary>
#
# Each image gets its best Gaussian, so the amortisation gap is gone; the approximation gap stays, because the family is the same. A larger encoder can come nearer to that on the training images, no further.
#
# </details>
#
# ## 6. A VAE that can be solved with pencil and paper
#
# With linear networks and Gaussian noise of variance $s^2$, maximising the evidence is **probabilistic principal component analysis**. The maximum has
# a closed form ([Tipping & Bishop, 1999](https://doi.org/10.1111/1467-9868.00196)): with $\lambda_1 \ge \lambda_2 \ge \dots$ and $u_1, u_2, \dots$ the eigenvalues and eigenvectors
# of the data's covariance,
#
# $$W = U_D \operatorname{diag}(\lambda_1 - s^2, \dots, \lambda_D - s^2)^{1/2} R, \qquad
# s^2 = \frac1{P - D}\sum_{j > D} \lambda_j, \tag{1.6}$$
#
# where $U_D$ has $u_1, \dots, u_D$ for its columns, $b$ is the mean of the data, and $R$ is any orthogonal matrix. The posterior is Gaussian too, with precision $\Lambda = I + W^\top W / s^2$. It is *diagonal* when the columns of $W$
# are orthogonal, which one choice of $R$ achieves (only one, up to order and sign, where the eigenvalues differ). So a linear VAE can close its gap entirely: its best ELBO equals the maximum of the evidence. Does it?

# %%
latent_dim, data = 4, load("digits").images.double()  # [1500, 1, 8, 8]
pixels = data.flatten(1)
eigenvalues, eigenvectors = torch.linalg.eigh(torch.cov(pixels.T, correction=0))
scale = eigenvalues[:-latent_dim].mean().sqrt().item()
# [P, D]
W = eigenvectors[:, -latent_dim:] * (eigenvalues[-latent_dim:] - scale**2).sqrt()
best = (
    MultivariateNormal(pixels.mean(0), W @ W.T + scale**2 * torch.eye(64))
    .log_prob(pixels)
    .mean()
    .item()
)

with seeded(0):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * latent_dim))
    decoder = nn.Sequential(nn.Linear(latent_dim, 64), nn.Unflatten(-1, (1, 8, 8)))
    linear_vae = VAE(
        encoder, decoder, latent_dim=latent_dim, likelihood=gaussian(scale)
    ).double()
climb = []
for rate, epochs in s.linear:
    history = trained(
        f"linear VAE, {epochs} epochs at {rate:g}",
        *(linear_vae, elbo, data),
        **{"epochs": epochs, "lr": rate, "device": "cpu", "progress": False},
    )
    climb += history.train
learnt = exact_log_evidence(linear_vae, data, scale).mean().item()
with seeded(0):
    draws = [elbo(linear_vae, data, samples=200).mean() for _ in range(20)]
    bound = torch.stack(draws).mean().item()
learnt_W = linear_vae.decoder[0].weight.detach()
precision = torch.eye(latent_dim) + learnt_W.T @ learnt_W / scale**2
mixing = 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.3, 1))
left.plot(climb, label="ELBO of the linear VAE")
left.axhline(
    best,
    color="black",
    ls="--",
    lw=1,
    label="maximum of the evidence (closed form)",
)
left.set(xlabel="epoch", ylabel="nats per image", ylim=(best - 30, best + 3))
left.legend(loc="lower right")
learnt_columns = linear_vae.decoder[0].weight.detach().T  # [D, P]
order = learnt_columns.norm(dim=1).argsort(descending=True)
overlap = (
    nn.functional.normalize(learnt_columns[order], dim=1)
    @ eigenvectors[:, -latent_dim:].flip(1)
).abs()
image = right.imshow(overlap, vmin=0, vmax=1, cmap="viridis")
right.set(
    xlabel="principal component",
    ylabel="decoder column",
    xticks=range(latent_dim),
    yticks=range(latent_dim),
)
right.set_title("|cosine| between the two")
right.grid(False)
fig.colorbar(image, ax=right)
show(
    fig,
    caption="Left: the ELBO of a linear VAE on 8 × 8 digits climbs to the "
    "closed-form maximum of the evidence. Right: its decoder's columns "
    "against the principal components (absolute cosine; both sorted by "
    "size). A bright diagonal cell is a latent variable that has found "
    "its own component; two cells of middling brightness in a row are two "
    "components that are still mixed.",
    alt="Left, a rising curve that reaches a dashed line. Right, a four by four "
    "grid of cosines, brightest along the diagonal.",
)
tell(
    "Per image, in nats:\n\n"
    + markdown_table(
        ["quantity", "nats"],
        [
            ["maximum of the evidence, closed form", f"{best:.3f}"],
            ["evidence of the trained linear VAE, exact", f"{learnt:.3f}"],
            ["its ELBO (4,000 draws)", f"{bound:.3f}"],
            ["lost: the weights are not the best yet", f"{best - learnt:.4f}"],
            ["lost: mixed components, exactly", f"{mixing:.4f}"],
            [
                "lost: the rest, the encoder's and noise",
                f"{learnt - mixing - bound:.4f}",
            ],
        ],
    )
)

# %% [markdown]
# Notice what the ELBO did that the evidence alone could not. Every rotation $R$ gives the same evidence, but only one makes the
# posterior diagonal, and the ELBO prefers it. This is why latent variables of a VAE tend to line up with principal
# directions ([Rolínek et al., 2019](https://arxiv.org/abs/1812.06775)), and it is where the
# chapter on the Jacobian penalty begins. The preference is weak, though: where two eigenvalues are close, mixing the two components hardly lowers the ELBO, and the last of the alignment comes slowly. A rotation leaves the *evidence* as it is, so what is missing there is unfinished training; what the mixing takes from the ELBO is known exactly, the gap $\tfrac12\big(\sum_d \log \Lambda_{dd} - \log|\Lambda|\big)$ of Exercise 1.3, and the table shows how little that is.
#
# ## 7. Tighter bounds, and an honest likelihood
#
# The importance weight $w = p_\theta(x, z) / q_\phi(z \mid x)$ with $z \sim q_\phi$ is an unbiased estimate of the evidence: that was the
# first line of the derivation. The ELBO takes its logarithm at once. Average first and take the logarithm afterwards, and less is lost:
#
# $$\begin{gathered}
# \mathcal L_S(x) = \mathbb E\left[\log \frac1S \sum_{s=1}^S w_s\right], \\
# \mathcal L = \mathcal L_1 \le \mathcal L_2 \le \dots \le \log p_\theta(x).
# \end{gathered} \tag{1.7}$$
#
# This is the **importance-weighted bound** ([Burda et al., 2016](https://arxiv.org/abs/1509.00519)). It can be maximised in place of the ELBO, and with a
# thousand samples or more it is the usual estimate of a model's likelihood. In our touchstone the whole staircase is
# visible. To make the gap worth seeing we take an *untrained* posterior, one that is too wide and off centre.

# %% [markdown]
# **Warm-up 1.b · From weights to a bound.** Given the logarithms of $S$ weights for each of $B$ images, fill in the bound. (The plain route through `exp` overflows for real images; which function of torch does not?)

# %% tags=["warm-up", "nbval-check-output"]
def log_mean_weight(log_w: torch.Tensor) -> torch.Tensor:
    """The importance-weighted bound in nats, from log w [S, B]: [B]."""
    return ...  # fill in


check("1.b", log_mean_weight)

# %% [markdown]
# **Predict, then run.** The curve below starts at $S = 1$. On which of the two horizontal lines does it start, and towards which does it go? Could it cross the second one?

# %%
model, x = linear_model(12, 3, scale=0.7, seed=3)
W = model.decoder[0].weight.detach()
precision = torch.eye(3) + W.T @ W / 0.7**2  # of the exact posterior
# the exact posterior mean, plus 0.2, with standard deviations 1.6 times too wide
with torch.no_grad():
    model.encoder[1].weight[:3] = torch.linalg.solve(precision, W.T / 0.7**2)
    model.encoder[1].bias[:3] = (
        -model.encoder[1].weight[:3] @ model.decoder[0].bias + 0.2
    )
    model.encoder[1].weight[3:] = 0
    model.encoder[1].bias[3:] = (1.6 * precision.diagonal() ** -0.5).log()
truth = exact_log_evidence(model, x, scale=0.7).mean().item()
counts = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
with seeded(0), torch.no_grad():
    staircase = [
        importance_bound(model, x.repeat(200, 1, 1, 1), samples=s).mean().item()
        for s in counts
    ]
    direct = elbo(model, x, samples=2000).mean().item()
    weights = log_weight(model, x, samples=100_000)  # [S, B]
    estimate = log_evidence(model, x, samples=100_000).mean().item()
# should be 1 for each image
w_ratio = (weights - exact_log_evidence(model, x, scale=0.7)).exp().mean(0)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.plot(counts, staircase, "o-", label="importance-weighted bound")
ax.axhline(truth, color="black", ls="--", lw=1, label="exact log p(x)")
ax.axhline(direct, color=COLOURS[1], lw=1, label="ELBO")
ax.set(xscale="log", xlabel="samples, S", ylabel="nats per image")
ax.legend()
show(
    fig,
    caption="The importance-weighted bound climbs from the ELBO (S = 1) to the "
    "exact evidence of the linear model; mean over eight images and 200 "
    "repetitions.",
    alt="A curve that rises from the horizontal line of the ELBO to the dashed "
    "line of the exact log evidence.",
)
tell(
    f"With 100,000 samples `log_evidence` gives {estimate:.3f} nats; the exact "
    f"value is {truth:.3f}. The mean weight is {w_ratio.mean().item():.3f} times "
    "p(x), so the weights are unbiased, as they should be."
)

# %% [markdown]
# A bound tells only half of what one wants to know, namely that the truth is no worse. Keep that in mind whenever a table reports a
# "negative log-likelihood" of a VAE: it is an estimate from one side, and its quality depends on the proposal.
#
# ## 8. Handwritten digits
#
# Now the real thing. The pixels of MNIST are grey levels; following a long custom we read each as the probability of a black-and-white pixel and draw the image anew in each epoch
# (**dynamic binarisation**), so that a Bernoulli likelihood is right. Two sizes: some *smaller* models with different random starts, which say how much a result depends on the start, and one *larger* model that is trained for long.

# %% tags=["hide-input"]
data, held_out = load(s.data), load(s.data, "test")
shape, D = tuple(data.images.shape[1:]), s.latent
train, validation = data.images[: s.images], data.images[s.images :][:10_000]
test = binarise(held_out.images, torch.Generator().manual_seed(0))
test_images = test[:1_000].to(device)
going_on = {"binarise": True, "progress": False}


def new_vae(
    seed: int, latent_dim: int, hidden: tuple[int, ...], **more: type
) -> VAE:
    with seeded(seed):
        pair = mlp(shape, latent_dim, hidden=hidden, **more)
        return VAE(*pair, latent_dim=latent_dim)


vaes, histories = [], []
for seed in range(s.seeds):
    model = new_vae(seed, s.few_latents, s.hidden)
    how = going_on | {"epochs": s.epochs, "seed": seed, "checkpoint_every": 1}
    histories.append(
        trained(f"smaller VAE, seed {seed}", model, elbo, train, **how)
    )
    vaes.append(model)

# %% tags=["hide-input"]
if s.network == "hvae_conv":
    with seeded(0):
        vae = VAE(*hvae_conv(D), latent_dim=D)
else:
    widths = tuple(map(int, s.network.split()[1:]))
    vae = new_vae(0, D, widths, activation=nn.Softplus)
for i, (rate, epochs) in enumerate(s.base):
    label, how = f"VAE, {epochs} epochs at {rate:g}", {"epochs": epochs, "lr": rate}
    keep = f"01_vae/vae-{i + 1}"
    trained(label, vae, elbo, train, keep=keep, **how | going_on)


def nll(images: torch.Tensor, model: VAE, samples: int) -> torch.Tensor:
    """-log p(x) by importance sampling from the model's own Gaussian, [N]."""
    with seeded(0, device):
        return -log_evidence(model, images.to(device), samples=samples)


base_nll = stored.chunks(
    "NLL of the VAE", nll, test[: s.tested], vae, s.test_samples, chunk=500
)

# %% [markdown]
# **Does it learn, or learn by heart?** `fit` reports the mean over an epoch, in which the weights improved all the time; to set that beside a measurement at the epoch's end would flatter the images that the model did not see. So we measure both sets with the weights of the same moment, on ten thousand images each, binarised alike.


# %% tags=["hide-input"]
@torch.no_grad()
def after_each_epoch(files: list, images: torch.Tensor) -> list[float]:
    """The mean ELBO over the images with the weights of each file."""
    model = new_vae(0, s.few_latents, s.hidden).to(device).eval()
    values = []
    for file in files:
        model.load_state_dict(load_checkpoint(file)["model"])
        with seeded(0, device):
            values.append(elbo(model, images.to(device)).mean().item())
    return values


sets = {
    "training images": binarise(
        train[:: max(1, len(train) // 10_000)], torch.Generator().manual_seed(1)
    ),
    "validation images": binarise(validation, torch.Generator().manual_seed(2)),
}
curves = {
    name: [after_each_epoch(history.checkpoints, images) for history in histories]
    for name, images in sets.items()
}
apart = [  # training above validation after each epoch, one row for each start
    [seen - unseen for seen, unseen in zip(*pair, strict=True)]
    for pair in zip(*curves.values(), strict=True)
]
at_first = mean_and_standard_error([run[0] for run in apart])
by_heart = mean_and_standard_error([run[-1] - run[0] for run in apart])
fig, ax = plt.subplots(figsize=(6, 3))
for (name, runs), colour, style in zip(
    curves.items(), COLOURS, ("-", "--"), strict=False
):
    for i, run in enumerate(runs):
        label = name if i == 0 else None
        ax.plot(
            range(1, len(run) + 1), run, style, color=colour, alpha=0.8, label=label
        )
highest = max(run[-1] for run in curves["training images"])
ax.set(
    xlabel="epoch",
    ylabel="ELBO, nats per image",
    ylim=(highest * 1.25, highest * 0.97),
)
ax.legend()
show(
    fig,
    caption="The ELBO of the smaller models at the end of each epoch, one pair of "
    "curves for each random start.",
    alt="Training and validation ELBO against the epoch, rising steeply and then "
    "slowly, close together.",
)
tell(
    "After the first epoch the ELBO of training images is "
    f"{number(at_first, sign=True)} nats above that of validation images (mean ± "
    f"standard error over {s.seeds} starts), and in the epochs after it the "
    f"distance changes by {number(by_heart, sign=True)} nats. The first number "
    "has little to do with learning: two sets of images are never equally easy. "
    "The second is what the model knows about its training images only."
)

# %% [markdown]
# Three looks at what was learnt. *Reconstructions* show what the code keeps: encode, take the posterior mean, decode. *Samples* show what the
# prior means: draw $z$ from it and decode. Both show the decoder's mean, not a draw of pixels, which is why they look soft.

# %% tags=["hide-input"]
with seeded(1, device):
    sampled = vae.sample(20)
fig = image_rows(
    {
        "test images": test_images[:20],
        "reconstructed": vae.reconstruct(test_images[:20]),
        "sampled": sampled,
    }
)
show(
    fig,
    caption="Test images (binarised), their reconstructions from the posterior "
    "mean, and images decoded from draws of the prior. Reconstructions "
    "keep the style of the stroke; some samples lie between digits, where "
    "the prior has mass and the data has none.",
    alt="Three rows of twenty digits: originals, softer reconstructions, and "
    "samples of which some are not quite digits.",
)

# %% [markdown]
# With two latent variables the whole latent space fits on a page. Left, where test images land; right, what the decoder
# draws at the quantiles of the prior, so that each tile stands for the same probability.

# %% tags=["hide-input"]
flat = new_vae(0, 2, (150, 75))
label = "VAE with two latent variables"
how = {"epochs": s.plane_epochs, "keep": "01_vae/plane"}
trained(label, flat, elbo, train, **how | going_on)
side = 15
quantiles = Normal(0, 1).icdf(torch.linspace(0.02, 0.98, side))
# [side², 2], top row first
z = torch.stack(
    torch.meshgrid(-quantiles, quantiles, indexing="ij")[::-1], -1
).reshape(-1, 2)
with torch.no_grad():
    manifold = flat.likelihood(z.to(device)).mean
    codes = flat.posterior(test[:2_000].to(device)).mean.cpu()

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.6))
for digit in range(10):
    chosen = codes[held_out.labels[:2_000] == digit]
    left.scatter(*chosen.T, s=4, color=plt.cm.tab10(digit), alpha=0.5)
    left.text(
        *chosen.median(0).values,
        str(digit),
        fontsize=13,
        weight="bold",
        ha="center",
        va="center",
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "alpha": 0.75, "lw": 0},
    )
left.set(xlabel="z₁", ylabel="z₂", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
image_grid(manifold, columns=side, ax=right)
show(
    fig,
    caption="A latent space of two dimensions. Left: posterior means of test "
    "images, with the median of each class. Right: decoded images on a "
    "grid of the prior's quantiles. Neighbours look alike; classes share "
    "borders where digits resemble each other.",
    alt="Left, a scatter plot of test images in two latent dimensions, one colour "
    "per digit. Right, a grid of digits that morph into one another.",
)

# %% [markdown]
# Walk through it yourself: drag the point, and the decoder draws what lies there.

# %% tags=["hide-input"]
live.plane(flat, test[:300], held_out.labels[:300])

# %% [markdown]
# And now the encoder's work, by hand. With two latent variables the exact posterior can be computed on a grid (the cloud). Drag a Gaussian over it and change its widths: the bars show $\log p(x)$, your ELBO and what lies between, the Kullback–Leibler divergence of section 3. Then compare with the encoder's own answer.

# %% tags=["hide-input"]
live.posterior(flat, test[:3])

# %% [markdown]
# ### How good is it? Four numbers
#
# - The **ELBO** on test images: a lower bound.
# - The **negative log-likelihood** (NLL), $-\log p_\theta(x)$ by importance sampling: nearer to the truth, from the same side.
# - **Active units**: how many latent variables the encoder uses at all, that is, how many have $\operatorname{Var}_x(\mathbb E_{q}[z_d]) > 0.01$ ([Burda et al., 2016](https://arxiv.org/abs/1509.00519)).
# - The **mutual information** $I_q(x; z) = \mathbb E_x\,\mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z)) - \mathrm{KL}(q_\phi(z) \,\|\, p(z))$ between an image and its code, where
#   $q_\phi(z)$ is the average of all posteriors ([Hoffman & Johnson, 2016](http://approximateinference.org/accepted/HoffmanJohnson2016.pdf)). Its estimate from $N$ images cannot exceed $\log N$.

# %% tags=["hide-input"]
@torch.no_grad()
def four_numbers(
    model: VAE, images: torch.Tensor, samples: int
) -> dict[str, float]:
    images = images.to(device)
    return {
        "ELBO": elbo(model, images, samples=20).mean().item(),
        "NLL": -log_evidence(model, images, samples=samples).mean().item(),
        "active units": active_units(model, images).count,
        "mutual information": mutual_information(model, images).nats,
    }


rows = [
    stored(
        f"four numbers, seed {i}", four_numbers, model, test_images, s.test_samples
    )
    for i, model in enumerate(vaes)
]
summary = {
    name: mean_and_standard_error([float(row[name]) for row in rows])
    for name in rows[0]
}
larger = stored("four numbers", four_numbers, vae, test_images, s.test_samples)
whole = mean_and_standard_error(base_nll.tolist())
bits = whole.mean / math.log(2) / math.prod(shape)

# %% tags=["hide-input"]
tell(
    markdown_table(
        ["", f"smaller, {s.seeds} starts", "larger"],
        [
            [name, number(value), number(float(larger[name]), digits=4)]
            for name, value in summary.items()
        ],
    )
    + f"\n\nFrom {len(test_images):,} test images, {s.test_samples:,} samples for "
    f"the NLL; the smaller model ({s.hidden[0]} hidden units, D = "
    f"{s.few_latents}) was trained for {s.epochs} epochs, the larger "
    f"({s.network}, D = {D}) for {sum(epochs for _, epochs in s.base)}; ± is a "
    "standard error over the starts."
)
tell(
    f"On {len(base_nll):,} test images the larger model has an NLL of "
    f"**{number(whole)} nats** (standard error over images), or {bits:.3f} bits "
    f"for each of the {math.prod(shape)} pixels: dividing by log 2 turns nats "
    "into bits, and dividing by the number of pixels makes images of different "
    "sizes comparable. A convolutional VAE with 64 latent variables, trained for "
    "up to 2,000 epochs on the same images, is reported at 83.20 nats ([Caterini "
    "et al., 2018](https://arxiv.org/abs/1805.11328), table 1)."
)

# %% [markdown]
# The active units of the larger model are a surprise: it leaves most of its latent variables unused. Section 9 looks at how that comes about. The mutual information, too, needs a closer look. Its estimate asks, for each image, which of the $N$ images a code belongs to; when the codes tell all of them apart, the answer is $\log N$, whatever the truth. So let $N$ grow, and see whether the estimate leaves its ceiling.

# %% tags=["hide-input"]
counts = [n for n in (30, 100, 300, 1_000, 3_000, 10_000) if n <= len(test)]


def information(model: VAE, images: torch.Tensor, counts: list[int]) -> list[float]:
    return [mutual_information(model, images[:n]).nats for n in counts]


growth = {
    name: stored(f"mutual information, {name}", information, model, test, counts)
    for name, model in [
        ("two latent variables", flat),
        (f"smaller model, D = {s.few_latents}", vaes[0]),
        (f"larger model, D = {D}", vae),
    ]
}
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.plot(counts, [math.log(n) for n in counts], "k:", label="log N, the ceiling")
for (name, values), marker in zip(growth.items(), "os^", strict=True):
    ax.plot(counts, values, f"{marker}-", label=name)
ax.set(xscale="log", xlabel="images, N", ylabel="mutual information, nats")
ax.legend()
show(
    fig,
    caption="The estimate of the mutual information against the number of images "
    "that it is made from, for models with two latent variables and with "
    "more.",
    alt="Curves that rise with the number of images; that of two latent variables "
    "bends away from the dotted ceiling, the others follow it.",
)
tell(
    f"From {counts[-1]:,} images, where the ceiling is {math.log(counts[-1]):.2f} "
    "nats, the estimates are "
    + ", ".join(f"{values[-1]:.2f} ({name})" for name, values in growth.items())
    + "."
)

# %% [markdown]
# With two latent variables the estimate has settled, and it is a finding: so many nats of the image does a code carry. With twenty or more it follows the ceiling, and says no more than that the codes tell ten thousand images apart. (An estimate that resolved 25 nats would need $e^{25}$ images.)

# %% [markdown]
# ### The amortisation gap, measured
#
# How much of the gap is the encoder's share, because one network serves all images? Hold the answer against the distance between the ELBO and minus the NLL in the table above, which is the whole gap as far as samples show it. Take some test images, start from the encoder's answer, and improve $\mu$ and $\log\sigma$ for each image on its own by gradient ascent on its own ELBO.

# %%
few = test_images[:100]
with torch.no_grad():
    q_z = vae.posterior(few)
mean = q_z.mean.clone().requires_grad_()
log_std = q_z.stddev.log().requires_grad_()
with seeded(0, device):
    # [S, 100, D], kept fixed
    epsilon = torch.randn(64, *mean.shape, device=device)


def elbo_at(
    mean: torch.Tensor, log_std: torch.Tensor, epsilon: torch.Tensor
) -> torch.Tensor:
    """The ELBO of each of the images at its own q = N(mean, exp(log_std)²), [B]."""
    z = mean + log_std.exp() * epsilon
    q = torch.distributions.Independent(Normal(mean, log_std.exp()), 1)
    return vae.log_likelihood(few, z).mean(0) - kl_divergence(q, vae.prior)


optimizer = torch.optim.Adam([mean, log_std], lr=0.02)
for _ in range(s.refits):
    optimizer.zero_grad()
    (-elbo_at(mean, log_std, epsilon).sum()).backward()
    optimizer.step()
with seeded(1, device), torch.no_grad():
    fresh = torch.randn_like(epsilon)  # not the noise that was optimised on
    gap = elbo_at(mean, log_std, fresh) - elbo_at(q_z.mean, q_z.stddev.log(), fresh)
gap_mean, gap_se = mean_and_standard_error(gap.tolist())
tell(
    f"Re-fitting the posterior to each of {len(few)} test images of the larger "
    f"model gains **{number(gap_mean, gap_se)} nats** on average, between "
    f"{gap.min().item():.2f} and {gap.max().item():.2f}. Remember this number: "
    "for images unlike the training data it is far larger, and the chapter on "
    "likelihood regret turns it into a detector."
)

# %% [markdown]
# ## 9. When the code falls silent
#
# Put a weight $\beta$ on the KL term ([Higgins et al., 2017](https://openreview.net/forum?id=Sy2fzU9gl)):
#
# $$\mathcal L_\beta(x) = \mathbb E_q\big[\log p_\theta(x \mid z)\big] - \beta\, \mathrm{KL}\big(q_\phi(z \mid x) \,\|\, p(z)\big). \tag{1.8}$$
#
# (For $\beta < 1$ it is no longer a lower bound of the evidence.) A latent variable raises $\mathcal L_\beta$ only if the nats that it adds to the reconstruction exceed $\beta$ times its nats of KL. As $\beta$ grows, one variable after another fails this test, and the encoder gives it up: its posterior becomes the prior, whatever the image. When all have gone,
# the decoder draws the same average image each time. This is **posterior collapse**.
#
# In the linear model the threshold is exact: a direction with eigenvalue $\lambda_j$ survives while $\lambda_j > \beta s^2$
# ([Lucas et al., 2019](https://arxiv.org/abs/1911.02469), for $\beta = 1$). Here we watch it happen on digits.

# %% [markdown]
# **Predict, then run.** As $\beta$ grows, do the latent variables fall silent one by one or all at once? And when the last one has gone, what does the decoder draw for a 3? (Warm-up for both: Exercise 1.2, which you can do now.)

# %% tags=["hide-input"]
def weighted(model: VAE, x: torch.Tensor, beta: float) -> torch.Tensor:
    return elbo(model, x, beta=beta)


@torch.no_grad()
def what_is_left(model: VAE, images: torch.Tensor) -> dict:
    """What a model uses its latent variables for, measured on `images`."""
    q_z = model.posterior(images)
    prior = Normal(torch.zeros_like(q_z.mean), 1)
    return {
        "kl": kl_divergence(q_z.base_dist, prior).mean(0).cpu(),  # [D], nats
        "reconstruction": elbo(model, images, beta=0, samples=5).mean().item(),
        "information": mutual_information(model, images).nats,
        "active": active_units(model, images).count,
    }


sweep = []  # (beta, model, what is left)
for beta in s.betas:
    model = new_vae(0, s.few_latents, s.hidden)
    objective = partial(weighted, beta=beta)
    how = going_on | {"epochs": s.beta_epochs}
    trained(f"β = {beta:g}", model, objective, train, **how)
    with seeded(0, device):
        sweep.append((beta, model, what_is_left(model, test_images)))

# %% tags=["hide-input"]
tallest = max(left["kl"].max().item() for _, _, left in sweep)


def at_beta(beta: float, model: VAE, left: dict) -> plt.Figure:
    """Pictures above, the nats of each latent variable below."""
    fig, (above, below) = plt.subplots(
        2, 1, figsize=(6.4, 4), height_ratios=(1.5, 1)
    )
    originals = test_images[:12]
    with seeded(1, device):
        rows = [originals, model.reconstruct(originals), model.sample(12)]
    title = f"β = {beta:g}: test images, reconstructions, samples"
    image_grid(torch.cat(rows), columns=12, ax=above, title=title)
    per_unit = left["kl"].sort(descending=True).values
    below.bar(range(1, len(per_unit) + 1), per_unit)
    below.set(
        xlabel="latent variable, sorted",
        ylabel="KL, nats",
        ylim=(0, 1.05 * tallest),
    )
    fig.tight_layout()
    return fig


frames(
    [at_beta(*step) for step in sweep],
    [f"{beta:g}" for beta in s.betas],
    description="β",
    caption="Move the slider: as β grows, the bars (nats that each latent "
    "variable carries) vanish one after another, reconstructions lose "
    "detail, and in the end every image is answered by the same average.",
    alt="Test digits, their reconstructions and samples, above a bar for each "
    "latent variable",
)

# %% tags=["hide-input"]
lefts = [left for _, _, left in sweep]
fig, (a, b) = plt.subplots(1, 2, figsize=(9.6, 3.2), layout="constrained")
a.plot(s.betas, [left["active"] for left in lefts], "o-", label="active units")
information = [left["information"] for left in lefts]
a.plot(s.betas, information, "s--", label="mutual information, nats")
ceiling = {"color": "black", "ls": ":", "lw": 1, "label": "log N, its ceiling"}
a.axhline(math.log(len(test_images)), **ceiling)
a.set(xscale="log", xlabel="β", ylim=(None, 1.5 * s.few_latents))
a.legend(loc="upper right")
reconstruction = [left["reconstruction"] for left in lefts]
b.plot(s.betas, reconstruction, "o-", label="reconstruction, E log p(x|z)")
b.plot(s.betas, [-left["kl"].sum().item() for left in lefts], "s--", label="−KL")
b.set(xscale="log", xlabel="β", ylabel="nats per image")
b.legend(loc="lower left")
show(
    fig,
    caption="Left: latent variables in use, and the information they carry (at "
    "its ceiling it says only “at least”). Right: the two terms of the "
    "ELBO. With more β the code says less and reconstructions are poorer, "
    "until nothing is left of it.",
    alt="Against beta on a logarithmic axis: active units and mutual information "
    "fall to zero; reconstruction falls while the KL term rises to zero.",
)

# %% tags=["hide-input"]
save_results(
    "01_vae",
    {
        "settings": vars(s),
        "linear": {
            "closed_form": best,
            "evidence": learnt,
            "elbo": bound,
            "lost_by_mixing": mixing,
        },
        "gradient_noise_ratio": {
            "latent_dim": dims[-1],
            "ratio": ratio,
            "ratio_with_baseline": ratio_with_baseline,
        },
        **{name.replace(" ", "_"): v._asdict() for name, v in summary.items()},
        "larger": larger,
        "larger_nll": {**whole._asdict(), "images": len(base_nll)},
        "bits_per_pixel": bits,
        "learnt_by_heart": by_heart._asdict(),
        "training_above_validation_at_first": at_first._asdict(),
        "mutual_information_from": {"images": counts, **growth},
        "amortisation_gap": {
            "mean": gap_mean,
            "standard_error": gap_se,
            "images": len(gap),
        },
        "beta_sweep": [
            {
                "beta": beta,
                "active_units": left["active"],
                "mutual_information": left["information"],
                "kl": left["kl"].sum().item(),
                "reconstruction": left["reconstruction"],
            }
            for beta, _, left in sweep
        ],
    },
)

# %% [markdown]
# ## 10. What the plain VAE leaves open
#
# What it does not do, in other words. Each limit below is the door to a chapter, and [chapter 7](07_together.ipynb) goes through all of them at once.
#
# - **The posterior is a diagonal Gaussian**, and training on its bound draws the decoder to models whose posteriors look like that. The [Hamiltonian VAE](02_hamiltonian_vae.ipynb) lets the model itself bend the guess.
# - **A high likelihood does not mean "like the training data".** A model of clothes can find digits *more* likely than clothes. [Likelihood regret](03_likelihood_regret.ipynb) asks a better question, and you have already measured it above.
# - **The latent axes mean nothing by themselves.** Rotate the latent space and the prior does not notice; only the diagonal posterior gives the axes a hold. The [Jacobian penalty](04_jacobian_l1.ipynb) gives them a better one.
# - **The encoder has no notion of sameness.** Shift an image by two pixels and its code may jump. [Consistency regularisation](05_consistency.ipynb) ties the two together.
# - **The model does not say from whom it learnt.** [VAE-TracIn](06_influence.ipynb) asks which training images made it see this image so.
#
# And two that remain in all of them: the likelihood of a pixel given $z$ knows nothing of its neighbours, so samples are soft; and every bound in this chapter is one-sided, so a good number may be a
# good model or a good guess, while a bad number may be a bad guess alone.

# %% [markdown]
# **Ask yourself.** Suppose that the encoder were perfect: every image, whatever it shows, gets its best diagonal Gaussian. Which of the limits above are gone?
#
# <details><summary>One answer</summary>
#
# None of them. The family is as narrow as before, and the other limits are those of the decoder or of the question. One *tool* is gone, though: chapter 3 recognises strangers by the encoder's mistakes, and there would be none.
#
# </details>

# %% [markdown]
# ## 11. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# [The same chapter without them](https://colab.research.google.com/github/vaekit/vaekit/blob/student/01_vae.ipynb) opens in Colab.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a second or two.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("1.1")

# %% [markdown]
# ### Exercise 1.1 · The KL term (10 minutes)
#
# For $q = \mathcal N(\mu, \operatorname{diag}\sigma^2)$ show on paper that
# $\mathrm{KL}(q \,\|\, \mathcal N(0, I)) = \tfrac12 \sum_d \big(\mu_d^2 + \sigma_d^2 - 1 - \log \sigma_d^2\big)$.
# Then write it as a function of the mean and the *log standard deviation*, one number for each row.
#
# <details><summary>Solution</summary>
#
# Both densities are products over $d$, so the logarithm of their ratio is a sum, and it is enough to treat one dimension:
# $$\log \frac{q(z)}{p(z)} = -\tfrac12 \log \sigma^2 - \frac{(z - \mu)^2}{2\sigma^2} + \frac{z^2}{2},$$
# in which the two $\tfrac12\log 2\pi$ have cancelled. Under $q$, $\mathbb E[(z - \mu)^2] = \sigma^2$ and $\mathbb E[z^2] = \mu^2 + \sigma^2$. So the mean is
# $-\tfrac12\log\sigma^2 - \tfrac12 + \tfrac12(\mu^2 + \sigma^2)$, and the sum over $d$ is as stated.
#
# Your derivation is complete if it
#
# - says why the divergence is a sum over $d$ (independence under both densities);
# - averages under $q$, not under $p$;
# - uses $\mathbb E_q[z^2] = \mu^2 + \sigma^2$ and says where the $-1$ comes from;
# - checks one case: at $\mu = 0$, $\sigma = 1$ the result is zero.
#
# </details>

# %% tags=["exercise"]
def kl_to_standard_normal(
    mean: torch.Tensor, log_std: torch.Tensor
) -> torch.Tensor:
    """KL(N(mean, exp(log_std)²) || N(0, I)) in nats: [B, D], [B, D] -> [B]."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("1.1", kl_to_standard_normal)
# hint("1.1")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_1_1(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    return 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1)


# %% [markdown]
# ### Exercise 1.2 · What the survivors carry (20 minutes)
#
# Section 9 says *which* directions survive in the linear VAE with noise variance $s^2$ and KL weight $\beta$: those with $\lambda_j > \beta s^2$. How much do they say? Show that at the optimum the KL term, averaged over the data, is
# $\tfrac12 \sum_j \log\big(\lambda_j / \beta s^2\big)$ over the surviving directions, and write it as a function. (Start from "dividing the objective by $\beta$ is like another noise variance" and the closed form of section 6; $s$ stays fixed.)
#
# <details><summary>Solution</summary>
#
# Divided by $\beta$, the reconstruction term is, up to constants, the log-likelihood under noise of variance $n = \beta s^2$. So the best decoder has $w_j^2 = \lambda_j - n$ in a surviving direction, and the best posterior has there
# the variance $\sigma_j^2 = 1 / (1 + w_j^2 / n) = n / \lambda_j$ and the mean $w_j\, u_j^\top (x - b) / \lambda_j$, whose mean square is $w_j^2 / \lambda_j = 1 - \sigma_j^2$. In the KL term $\mathbb E[\mu_j^2] + \sigma_j^2 - 1$ vanishes, and
# $-\tfrac12 \log \sigma_j^2 = \tfrac12 \log (\lambda_j / n)$ is left. A direction that is off costs nothing.
# This is *reverse water-filling*, the rate of a Gaussian source at the distortion $\beta s^2$: the ELBO has rediscovered a theorem of information theory.
#
# Your derivation is complete if it
#
# - replaces $s^2$ by $\beta s^2$ and says why;
# - finds both moments of the posterior, and averages $\mu_j^2$ over the *data*;
# - notices that three of the four terms cancel;
# - says what a direction below the threshold contributes.
#
# </details>

# %% tags=["exercise"]
def rate(eigenvalues: torch.Tensor, scale: float, beta: float) -> torch.Tensor:
    """Mean KL term in nats of the best linear beta-VAE: [P] -> a single number."""
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("1.2", rate)
# hint("1.2")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_1_2(
    eigenvalues: torch.Tensor, scale: float, beta: float
) -> torch.Tensor:
    return 0.5 * (eigenvalues / (beta * scale**2)).log().clamp_min(0).sum()


# %% [markdown]
# ### Exercise 1.3 · The best diagonal guess (20 minutes)
#
# The exact posterior of the linear model is $\mathcal N(m, \Lambda^{-1})$. Show that among all Gaussians $q = \mathcal N(\mu, \operatorname{diag}\sigma^2)$ the ELBO is largest at $\mu = m$ and
# $\sigma_d^2 = 1/\Lambda_{dd}$ (not the marginal variances $(\Lambda^{-1})_{dd}$!), and that the gap is then
# $\tfrac12\big(\sum_d \log \Lambda_{dd} - \log|\Lambda|\big)$, whatever the image. Is the guess too narrow or too wide? Then write the gap as a function of the decoder's weights.
#
# <details><summary>Solution</summary>
#
# The gap is $\mathrm{KL}(q \,\|\, \mathcal N(m, \Lambda^{-1})) = \tfrac12\big[\operatorname{tr}(\Lambda \operatorname{diag}\sigma^2) + (\mu - m)^\top \Lambda (\mu - m) - D - \log|\Lambda| - \sum_d \log \sigma_d^2\big]$.
# The only term with $\mu$ is a positive-definite form, so $\mu = m$. What is left of $\sigma_d^2$ is $\Lambda_{dd}\,\sigma_d^2 - \log \sigma_d^2$, smallest where
# $\Lambda_{dd} = 1/\sigma_d^2$. Insert both: the trace becomes $D$ and cancels, and the gap is $\tfrac12(\sum_d \log\Lambda_{dd} - \log|\Lambda|)$, which does not contain $x$. By Hadamard's inequality it is
# never negative, and it is zero exactly when $\Lambda$ is diagonal. Since $(\Lambda^{-1})_{dd} \ge 1/\Lambda_{dd}$, the guess is never wider than the true marginal: minimising
# $\mathrm{KL}(q\,\|\,p)$ makes for narrow guesses.
#
# Your derivation is complete if it
#
# - writes the gap as a divergence from $q$ to the exact posterior, in this order;
# - treats $\mu$ and $\sigma$ apart, and says why each optimum is a minimum;
# - shows that $x$ has dropped out;
# - answers "narrow", with an inequality.
#
# </details>

# %% tags=["exercise"]
def approximation_gap(W: torch.Tensor, scale: float) -> torch.Tensor:
    """log p(x) minus the best ELBO of a diagonal Gaussian, in nats.

    For a decoder W [P, D] and noise of standard deviation `scale`: a single number.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("1.3", approximation_gap)
# hint("1.3")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_1_3(W: torch.Tensor, scale: float) -> torch.Tensor:
    precision = torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / scale**2
    return 0.5 * (precision.diagonal().log().sum() - precision.logdet())


# %% [markdown]
# ### Exercise 1.4 · Free bits (research, an evening on Colab)
#
# A popular cure for collapse leaves the first nats of each latent variable uncounted
# ([Kingma et al., 2016](https://arxiv.org/abs/1606.04934)): with $k_d(x) = \mathrm{KL}(q_\phi(z_d \mid x) \,\|\, p(z_d))$,
# maximise $\mathbb E_q[\log p_\theta(x \mid z)] - \sum_d \max(k_d(x), \lambda)$. Write it as an objective of this library.
# (In the paper the maximum is taken over the *minibatch mean* of $k_d$; per image, as here, is simpler and a little stricter.)

# %% tags=["exercise"]
def free_bits(model: VAE, x: torch.Tensor, floor: float = 0.1) -> torch.Tensor:
    """E log p(x|z) with one draw of z, minus a sum over the latent variables: [B].

    A latent variable counts with its KL term or `floor`, whichever is larger.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("1.4", free_bits)
# hint("1.4")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_1_4(model: VAE, x: torch.Tensor, floor: float = 0.1) -> torch.Tensor:
    q_z = model.posterior(x)
    z = q_z.rsample()  # [B, D]
    k = kl_divergence(q_z.base_dist, Normal(torch.zeros_like(z), 1))  # [B, D]
    return model.log_likelihood(x, z) - k.clamp_min(floor).sum(-1)


# %% [markdown]
# Then train it, in a new cell, beside the plain ELBO and from the same start:
#
# ```python
# images = load("mnist").images  # or load("digits"), which is quick
# with seeded(0):
#     model = VAE(*mlp(images.shape[1:], 20, hidden=(400,)), latent_dim=20)
# fit(model, free_bits, images, binarise=True, epochs=20)
# ```
#
# Does a floor of $\lambda = 0.1$ nats keep more units active than plain training does? What becomes of the NLL? Run several seeds, and report standard errors.
#
# <details><summary>Solution</summary>
#
# Below the floor the KL term has no gradient, so nothing pulls a weak latent variable back to the prior, and it may keep what it has. Expect *at least as many* active units as with the ELBO, and more the larger $\lambda$ is.
# It is not a proof that they are useful. The objective no longer bounds the evidence tightly: at the same model it is below the ELBO by $\sum_d (\lambda - k_d)_+$, and what is maximised is another thing. So judge by the NLL, which knows nothing of $\lambda$:
# where the ELBO had thrown out units that would have helped, it falls; where they only carry noise, it stays or rises. At $\beta = 1$, with plenty of data and a perceptron for a decoder, the ELBO's choice is nearly right, and there is little to win; the floor matters with a decoder that can do without $z$, such as an autoregressive one.
#
# Your report is complete if it
#
# - compares NLLs from the same number of samples, over at least three seeds, with the standard error of the *difference*;
# - counts active units by the same threshold in both;
# - says what $\lambda D$ is beside the whole KL term, so that a reader sees how strong the floor is;
# - would have noticed an objective without gradient: do the active units change at all with $\lambda$?
#
# </details>

# %% [markdown]
# ## 12. Further reading
#
# - [Kingma & Welling, *An Introduction to Variational Autoencoders*, 2019](https://arxiv.org/abs/1906.02691): the authors' own book-length account.
# - [Burda, Grosse & Salakhutdinov, 2016](https://arxiv.org/abs/1509.00519): importance-weighted bounds, and active units.
# - [Hoffman & Johnson, *ELBO surgery*, 2016](http://approximateinference.org/accepted/HoffmanJohnson2016.pdf): what the KL term is made of.
# - [Lucas et al., *Don't Blame the ELBO!*, 2019](https://arxiv.org/abs/1911.02469): posterior collapse where it can be computed.
# - [Tipping & Bishop, *Probabilistic Principal Component Analysis*, 1999](https://doi.org/10.1111/1467-9868.00196): the linear model in full.
# - [Cremer, Li & Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018](https://arxiv.org/abs/1801.03558): the two gaps, measured.
