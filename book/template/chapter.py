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
# # @title@
#
# Say in three sentences what the plain model leaves open, whose idea the remedy is, with a link, and what the reader will have measured at the end. (This template treats a small but real idea, **antithetic draws**: use each draw of noise twice, once with its sign turned. Replace everything; keep the order.)
#
# **You need:** [chapter 1](01_vae.ipynb) (the ELBO, reparameterisation).
# **You will be able to:** say when a second draw is worth more than an independent one, and measure it.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch

from vaekit import VAE, elbo, fit, mlp
from vaekit.datasets import load
from vaekit.metrics import mean_and_standard_error
from vaekit.notebook import (
    COLOURS, check, markdown_table, pick, save_results, show, tell, use_style,
)
from vaekit.training import default_device, seeded

use_style()
device = default_device()

# %% [markdown]
# ## 1. The question, with a picture
#
# One draw $\varepsilon \sim \mathcal N(0, I)$ gives one noisy value $f(\mu + \sigma\varepsilon)$. Two independent draws halve the variance. Could two draws do better if they were chosen to disagree?

# %% tags=["hide-input"]
z = torch.linspace(-2.5, 2.5, 101)
curve = 0.8 * z - 0.25 * z**2
fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(z, curve, color="black", lw=1, label="f(μ + σε)")
for (name, pair), marker, colour in zip({"independent": (0.7, 1.6), "antithetic": (1.3, -1.3)}.items(), "os", COLOURS, strict=False):
    points = torch.tensor(pair)
    ax.plot(points, 0.8 * points - 0.25 * points**2, marker, color=colour, label=f"{name} pair")
ax.set(xlabel="ε", ylabel="f")
ax.legend()
show(
    fig,
    caption="A function of the noise. Of two independent draws both may fall on one side; the antithetic pair lies on both sides by construction, so that the slope cancels from its mean.",
    alt="A curve with two pairs of points: one pair both to the right, the other symmetric about the middle.",
)

# %% [markdown]
# ## 2. The derivation
#
# Define every symbol before it is used, and leave out no step. Split $f$ into an even and an odd part, $f(\varepsilon) = e(\varepsilon) + o(\varepsilon)$ with $e(-\varepsilon) = e(\varepsilon)$ and $o(-\varepsilon) = -o(\varepsilon)$. The mean over the pair $(\varepsilon, -\varepsilon)$ is $e(\varepsilon)$ alone. Both have the same expectation, since $\mathbb E[o] = 0$; and
#
# $$\operatorname{Var}\big[\tfrac12(f(\varepsilon) + f(-\varepsilon))\big] = \operatorname{Var}[e], \qquad \operatorname{Var}\big[\tfrac12(f(\varepsilon) + f(\varepsilon'))\big] = \tfrac12\operatorname{Var}[e] + \tfrac12\operatorname{Var}[o]$$
#
# for an independent $\varepsilon'$ ($e$ and $o$ are uncorrelated). So the pair wins where the odd part has the larger variance.
#
# ## 3. The method, in code
#
# An objective is a callable `(model, x) -> [B]`, in nats, to be maximised. Shapes stand beside the lines.


# %%
def antithetic_elbo(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """The ELBO from one draw of noise, used with both signs: [B], in nats."""
    q_z = model.posterior(x)
    difference = q_z.rsample() - q_z.mean  # sigma * epsilon, [B, D]
    z = torch.stack([q_z.mean + difference, q_z.mean - difference])  # [2, B, D]
    return model.log_likelihood(x, z).mean(0) - torch.distributions.kl_divergence(q_z, model.prior)


# %% [markdown]
# ## 4. A check against a closed form
#
# Every method is held against something that is known by another way. If $f$ is linear in the noise the pair has no variance at all; for $f = b\,\varepsilon + c\,\varepsilon^2$ it has $2c^2$, and two independent draws have $b^2/2 + c^2$.

# %%
b, c, draws = 0.8, -0.25, pick(smoke=50_000, cpu=500_000, gpu=500_000, paper=500_000)
with seeded(0):
    one, two = torch.randn(2, draws, dtype=torch.float64)
f = lambda e: b * e + c * e**2  # noqa: E731
variances = {"antithetic": ((f(one) + f(-one)) / 2).var().item(), "independent": ((f(one) + f(two)) / 2).var().item()}
exact = {"antithetic": 2 * c**2, "independent": b**2 / 2 + c**2}
tell(markdown_table(["pair", "measured variance", "closed form"], [[k, f"{variances[k]:.4f}", f"{exact[k]:.4f}"] for k in exact]))

# %% [markdown]
# ## 5. The experiment
#
# Real images, a control that has everything but the idea (here two *independent* draws), several seeds, means with standard errors, and the paper's number beside ours where there is one.

# %%
settings = pick(smoke=dict(epochs=2, seeds=2, draws=50), cpu=dict(epochs=20, seeds=3, draws=500), gpu=dict(epochs=40, seeds=5, draws=1000), paper=dict(epochs=100, seeds=10, draws=5000))
digits, test = load("digits", progress=False), load("digits", "test", progress=False)
noise: dict[str, list[float]] = {"antithetic": [], "independent": []}
for seed in range(settings["seeds"]):
    with seeded(seed):
        model = VAE(*mlp((1, 8, 8), latent_dim=8, hidden=(64,)), latent_dim=8)
    fit(model, antithetic_elbo, digits.images, epochs=settings["epochs"], batch_size=100, seed=seed, progress=False)
    x = test.images[:50].to(device)
    with torch.no_grad(), seeded(seed, device):
        for name, objective in {"antithetic": antithetic_elbo, "independent": lambda m, x: elbo(m, x, samples=2)}.items():
            values = torch.stack([objective(model, x) for _ in range(settings["draws"])])  # [draws, B]
            noise[name].append(values.std(0).mean().item())
summary = {name: mean_and_standard_error(values) for name, values in noise.items()}
tell(
    "Standard deviation of the bound of one image, in nats:\n\n"
    + markdown_table(["two draws", "mean ± standard error over seeds"], [[k, f"{v.mean:.3f} ± {v.standard_error:.3f}"] for k, v in summary.items()])
)

# %% tags=["hide-input"]
save_results("@name@", {"settings": settings, "noise": {k: v._asdict() for k, v in summary.items()}})

# %% [markdown]
# In prose, say what the stored run found, whether or not it is what you hoped for.
#
# ## 6. What it does not do
#
# - **Where $f$ is even it does harm.** Then the second draw repeats the first, and an independent one would have helped.
# - Say where the effect vanishes, what it costs, and what the usual metric hides.
#
# ## 7. Exercises
#
# Write your answer in place of the folded solution, then run the check below it: it tells you what is wrong.
#
# ### Exercise 1 · The variance of a pair (warm-up, 10 minutes)
#
# For $f = b\,\varepsilon + c\,\varepsilon^2$ return the variance of the antithetic pair's mean.

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def variance_of_the_pair(b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Var of (f(e) + f(-e)) / 2."""
    ### BEGIN SOLUTION
    return 2 * c**2 + 0 * b
    ### END SOLUTION


# %% tags=["check", "nbval-check-output"]
def moments_of_a_gaussian(b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """From E e^4 = 3 and E e^2 = 1."""
    return c**2 * (3 - 1) * torch.ones_like(b)


numbers = [(torch.tensor(0.8), torch.tensor(-0.25)), (torch.tensor(0.0), torch.tensor(2.0))]
check("Exercise 1", variance_of_the_pair, moments_of_a_gaussian, on=numbers, hints={"the variance of the square is 2, not 3": lambda b, c: 3 * c**2})

# %% [markdown]
# ### Exercise 2 · When is it worth it? (core, derivation, 15 minutes)
#
# Show that the pair beats two independent draws exactly where $|b| > \sqrt2\,|c|$.
#
# <details><summary>Solution</summary>
#
# By section 2 the pair has the variance of the even part, $\operatorname{Var}[c\,\varepsilon^2] = 2c^2$, and independent draws have half of both, $b^2/2 + c^2$. The first is smaller where $c^2 < b^2/2$, that is $|b| > \sqrt2\,|c|$. In words: where the slope matters more than the curvature.
#
# </details>
#
# Write the ratio of the two variances.

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def ratio(b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The antithetic pair's variance over that of two independent draws."""
    ### BEGIN SOLUTION
    return 2 * c**2 / (b**2 / 2 + c**2)
    ### END SOLUTION


# %% tags=["check", "nbval-check-output"]
def ratio_by_quadrature(b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    e = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = torch.distributions.Normal(0.0, 1.0).log_prob(e).exp() * (e[1] - e[0])
    even, odd = c * e**2, b * e
    spread = lambda v: (weight * v**2).sum() - (weight * v).sum() ** 2  # noqa: E731
    return spread(even) / (spread(even) / 2 + spread(odd) / 2)


check("Exercise 2", ratio, ratio_by_quadrature, on=numbers)

# %% [markdown]
# ### Exercise 3 · Four signs (core, 20 minutes)
#
# With two latent variables there are four sign patterns. Return the mean of $f$ over all of them, given a function of $[N, 2]$ and one draw $[2]$.

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def over_all_signs(f: object, e: torch.Tensor) -> torch.Tensor:
    """The mean of f over the four sign patterns of e [2]: a 0-dimensional tensor."""
    ### BEGIN SOLUTION
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=e.dtype)
    return f(signs * e).mean()
    ### END SOLUTION


# %% tags=["check", "nbval-check-output"]
def plane(e: torch.Tensor) -> torch.Tensor:
    return (e * torch.tensor([1.0, 2.0], dtype=e.dtype)).sum(-1) + e.prod(-1) + e.square().sum(-1)


check("Exercise 3", lambda e: over_all_signs(plane, e), lambda e: e.square().sum(), on=[torch.tensor([0.3, -1.2]), torch.tensor([2.0, 0.5])])

# %% [markdown]
# ### Exercise 4 · Does training notice? (research, an evening on Colab)
#
# Train with both objectives on MNIST for as long, with several seeds. Is there a difference in the test NLL beyond two standard errors? As a start, write the difference of two means with its standard error.

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """From two sets of results [n], [m] to [2]: the difference of their means, and its standard error."""
    ### BEGIN SOLUTION
    return torch.stack([a.mean() - b.mean(), (a.var() / len(a) + b.var() / len(b)).sqrt()])
    ### END SOLUTION


# %% tags=["check", "nbval-check-output"]
def difference_by_hand(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    square = lambda v: ((v - v.sum() / len(v)) ** 2).sum() / (len(v) * (len(v) - 1))  # noqa: E731
    return torch.stack([a.sum() / len(a) - b.sum() / len(b), (square(a) + square(b)) ** 0.5])


check("Exercise 4", difference, difference_by_hand, on=[(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.7, 0.2, 1.0]))])

# %% [markdown]
# ## 8. Further reading
#
# - [Author, *Title*, year](https://example.org): what it adds, in half a sentence.
