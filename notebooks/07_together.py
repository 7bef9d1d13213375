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
# # Together: one model, five questions
#
# Five chapters, five questions: how good is the posterior, was this image ever likely, do the axes mean something, does the code ignore what it should, and who taught the model that? They were asked of different models, on different data.
# Here we ask all of them of *one* model. Its objective is composed in one line from three of the methods; the other two then question the result. And since methods that were each tried alone need not get along, we switch them on and off in every combination and
# measure **what helps what and what fights what**.
#
# **You need:** chapters 1 to 6, or at least the sections in which they derive their objectives and scores.
# **You will be able to:** compose objectives and say what the composition bounds, read a factorial experiment with its interactions and its false alarms, and follow a strange image from its score back to the training images behind it.

# %% tags=["setup", "hide-input"]
import importlib.util

if importlib.util.find_spec("vaekit") is None:  # on Colab
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/vaekit/vaekit")  # noqa: F821

# %% tags=["hide-input"]
import itertools
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.distributions import kl_divergence

from vaekit import (
    VAE, Consistency, HamiltonianBound, JacobianL1, decoder_jacobian, elbo, fit,
    jacobian_l1, likelihood_regret, local_scores, log_evidence, log_weight, mlp,
    posterior_divergence, self_influence, tracin,
)
from vaekit.consistency import RandomBrightness, compose
from vaekit.datasets import binarise, load, render_three_dots
from vaekit.metrics import (
    active_units, auprc, auroc, mean_and_standard_error, mutual_information,
)
from vaekit.notebook import (
    COLOURS, check, frames, hint, image_grid, image_rows, markdown_table, pick, profile,
    save_results, show, tell, use_style,
)
from vaekit.training import default_device, seeded

use_style()
device = default_device()

# %% [markdown]
# ## 1. A night with three lights
#
# Somebody keeps watch over a bay. In each picture there are three lights: one in the left third, one in the middle, one on the right, each at a place of its own. Where they are is all that matters, six numbers. Some nights are hazy, and then a part of every light's pixels stays dark:
# that does not matter. And somebody has copied files carelessly, so that among the training images there are a few handwritten digits, one in fifty. We know which; the model does not.
#
# That is a data set on which each of the five questions has an answer that can be checked:
#
# | question | what makes it checkable |
# |:--|:--|
# | how good is the posterior? (chapter 2) | the evidence can be estimated, and the bound compared with it |
# | was this image ever likely? (3) | pictures with two lights, with four, and digits that were not among the training images |
# | do the axes mean something? (4) | the six numbers behind each picture |
# | does the code ignore what it should? (5) | a hazy copy of each picture |
# | who taught it that? (6) | the list of the strangers that slipped in |
#
# The lights are the three dots of chapter 4, in lanes and in negative, 16 × 16 pixels, black and white: a grey level is the probability of a white pixel, drawn once.

# %% tags=["hide-input"]
settings = pick(
    smoke=dict(
        train=500,
        test=100,
        hidden=(32,),
        latent=6,
        steps=2,
        epochs=3,
        seeds=2,
        samples=20,
        inside=40,
        outside=20,
        regret=10,
        draws=2,
        local=dict(points=200, centres=2),
    ),
    cpu=dict(
        train=4000,
        test=2000,
        hidden=(128,),
        latent=8,
        steps=3,
        epochs=24,
        seeds=5,
        samples=500,
        inside=200,
        outside=100,
        regret=50,
        draws=4,
        local=dict(points=2000, centres=10),
    ),
    gpu=dict(
        train=10_000,
        test=4000,
        hidden=(256,),
        latent=8,
        steps=3,
        epochs=12,
        seeds=4,
        samples=1000,
        inside=500,
        outside=250,
        regret=100,
        draws=8,
        local=dict(points=10_000, centres=20),
    ),
    paper=dict(
        train=50_000,
        test=10_000,
        hidden=(512, 512),
        latent=10,
        steps=5,
        epochs=60,
        seeds=10,
        samples=5000,
        inside=2000,
        outside=1000,
        regret=100,
        draws=16,
        local=dict(points=10_000, centres=20),
    ),
)
SIZE, SHAPE = 16, (1, 16, 16)


def in_lanes(factors: torch.Tensor) -> torch.Tensor:
    """Positions [N, 6] from factors [N, 6], both from 0 to 63: light k moves inside
    the k-th third of the picture.
    """
    x, y = factors[:, 0::2] / 63, factors[:, 1::2] / 63  # [N, 3] each
    return 63 * torch.stack(
        [(torch.arange(3) + 0.15 + 0.7 * x) / 3, 0.1 + 0.8 * y], -1
    ).flatten(1)


def factors_of(n: int, seed: int) -> torch.Tensor:
    return torch.randint(64, (n, 6), generator=torch.Generator().manual_seed(seed))


def lights(factors: torch.Tensor) -> torch.Tensor:
    """Grey pictures [N, 1, 16, 16]."""
    return 1 - render_three_dots(in_lanes(factors), SIZE)


def black_and_white(grey: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return binarise(grey, torch.Generator().manual_seed(seed))


# %% [markdown]
# The strangers are the 8 × 8 digits in the middle of a black picture; they have about as many white pixels as three lights. Two more kinds of picture are never trained on: a light is **out**, or there is **one too many**. They are built from the same parts as the training images, which is what
# makes them hard, and a model that thinks in likelihoods has a reason to *like* the first kind: it is simpler.

# %% tags=["hide-input"]
slipped = settings["train"] // 50
digits, new_digits = (
    load("digits", split, size=SIZE, progress=False).images
    for split in ("train", "test")
)
train = black_and_white(
    torch.cat(
        [lights(factors_of(settings["train"] - slipped, 0)), digits[:slipped]]
    )
).to(device)
stranger = torch.arange(settings["train"]) >= settings["train"] - slipped
test_factors = factors_of(settings["test"], 1)
test = black_and_white(lights(test_factors)).to(device)


def changed_lights(n: int, seed: int, more: bool) -> torch.Tensor:
    """Pictures with a fourth light, or with a light missing."""
    rows, lane = torch.arange(n), torch.arange(n) % 3
    place, other = (
        in_lanes(factors_of(n, s)).view(n, 3, 2) for s in (seed, seed + 1)
    )
    if more:
        fourth = 1 - render_three_dots(other[rows, lane].repeat(1, 3), SIZE)
        return torch.maximum(1 - render_three_dots(place.flatten(1), SIZE), fourth)
    # two lights in one place look like one
    place[rows, lane] = place[rows, (lane + 1) % 3]
    return 1 - render_three_dots(place.flatten(1), SIZE)


outside = {
    "a light out": black_and_white(
        changed_lights(settings["outside"], 10, more=False)
    ).to(device),
    "one too many": black_and_white(
        changed_lights(settings["outside"], 20, more=True)
    ).to(device),
    "new digits": black_and_white(new_digits[: settings["outside"]]).to(device),
}
hazy = compose(RandomBrightness(0.5, 1.0), torch.bernoulli)


def night(images: torch.Tensor) -> torch.Tensor:
    """For figures, which draw ink dark: a white pixel becomes a light in the dark.
    """
    return 1 - images.detach().cpu()


# %% tags=["hide-input"]
with seeded(0, device):
    rows = {
        "three lights": test[:10],
        "the same, hazy": hazy(test[:10]),
        "slipped in": train[stranger][:10],
    } | {k: v[:10] for k, v in outside.items()}
show(
    image_rows({name: night(images) for name, images in rows.items()}),
    caption="The world of this chapter. The first row is what the model is to "
    "learn, the second what it should take for the same; the third has "
    "slipped into the training set. The last three are for questioning "
    "the trained model.",
    alt="Six rows of ten small pictures: three dots each; the same with pixels "
    "missing; handwritten digits; two dots; four dots; other digits.",
)
ink = {
    name: images.flatten(1).sum(1).mean().item() for name, images in rows.items()
}
tell(
    "White pixels in a picture, on average over the row: "
    + ", ".join(f"{name} {value:.0f}" for name, value in ink.items())
    + "."
)

# %% [markdown]
# Chapter 5 turned and shifted its images. Here a shift would be a mistake: it moves the lights, and where they are is the meaning. **Which transformations preserve the meaning is knowledge about the data** that no method can supply. Haze is one that does: each white pixel survives with a probability that is drawn
# for the whole picture, between one half and one.
#
# ## 2. One objective
#
# Write $\mathcal L_K(x)$ for the Hamiltonian bound of chapter 2, with $K$ leapfrog steps of the density $p_\theta(x, z)$ behind the encoder's guess $q_\phi(z \mid x)$. Put it in the place of the ELBO in chapter 5, and let chapter 4's penalty act on the result:
#
# $$\begin{aligned}
# \mathcal O(x) = {} & \underbrace{\mathcal L_K(x) + \mathcal L_K(\tilde x)}_{\text{two Hamiltonian bounds}}
# - \lambda\, \underbrace{\mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big)}_{\text{consistency}} \\
# & - \gamma\, \underbrace{\big\| \partial g_\theta(z) / \partial z \big\|_1}_{\text{Jacobian}},
# \qquad \tilde x \sim t(\tilde x \mid x), \quad z \sim q_\phi(z \mid x).
# \end{aligned} \tag{7.1}$$
#
# Here $g_\theta(z) = \mathbb E[x \mid z]$ is the decoder's mean picture, $t$ draws a hazy copy, and $\lambda, \gamma \ge 0$ are the prices of a nat of disagreement and of a unit of change.
#
# **What is it a bound of?** Both costs are at least 0, and we subtract them, so in expectation
#
# $$\mathbb E\,\mathcal O(x) \;\le\; \log p_\theta(x) + \mathbb E_t \log p_\theta(\tilde x). \tag{7.2}$$
#
# It is a lower bound still: of the evidence of *two* pictures, one of which was never taken. Its slack has four parts:
#
# $$\begin{aligned}
# \log p_\theta(x) + \mathbb E_t \log p_\theta(\tilde x) - \mathbb E\,\mathcal O(x)
# = {} & G_K(x) + \mathbb E_t G_K(\tilde x) \\
# & + \lambda\,\mathbb E_t\, \mathrm{KL}\big(q_\phi(z \mid \tilde x) \,\|\, q_\phi(z \mid x)\big) + \gamma\,\mathbb E \big\| \partial g_\theta(z) / \partial z \big\|_1,
# \end{aligned} \tag{7.3}$$
#
# with the gap $G_K = \log p_\theta - \mathcal L_K \ge 0$ what the Hamiltonian bound itself falls short by.
#
# So its value alone says nothing about fit: raising $\lambda$ or $\gamma$ lowers it, simply because more is subtracted. To compare models we need a number with one meaning for all: the evidence of an unseen picture of three lights, estimated with the unbiased weights of the bound *inside*, without the costs.
#
# **Who sees which copy?** Four places where the parts do not meet, though the formula looks as if they did:
#
# - The consistency cost compares the encoder's *guesses* $q_\phi$, the start of the flow. Where the flow carries them afterwards is each copy's own affair: it follows $\nabla_z \log p_\theta(x, z)$ for one and $\nabla_z \log p_\theta(\tilde x, z)$ for the other. An encoder can agree with itself and leave the disagreement to the flow.
# - The Jacobian is taken at $z \sim q_\phi(z \mid x)$ too, of the original, not at the end of the flow; and $z$ is *detached*: this cost teaches the decoder only.
# - It is subtracted once, and the bounds are two. For the same balance between bound and penalty as without the copy we double $\gamma$.
# - Regret asks how far $q_\phi(z \mid x)$ is from the best Gaussian for $x$. Training with the flow gives the encoder less reason to be there by itself.
#
# From this list one can guess who will fight whom. Write your guesses down; section 5 tests five of ours, and not all came true.
#
# ## 3. The method, in code
#
# An objective is a callable `(model, x) -> [B]`, in nats. Each wrapper takes one and is one; equation (7.1) is three of them, one in another.

# %% [markdown]
# **Warm-up 7.a · From terms to an objective.** Fill in the blank: (7.1), from its four terms.

# %% tags=["warm-up", "nbval-check-output"]
def from_terms(
    bound_x: torch.Tensor,
    bound_tx: torch.Tensor,
    divergence: torch.Tensor,
    jacobian: torch.Tensor,
    lambda_: float,
    gamma: float,
) -> torch.Tensor:
    """The objective of each picture: two bounds and two costs, all [B]: [B]."""
    return ...  # fill in


check("7.a", from_terms)

# %%
LAMBDA, GAMMA, COLUMNS = 1.0, 0.1, 2


def compose_objective(
    hamiltonian: bool, lambda_: float | None, jacobian: bool
) -> tuple:
    """The objective, and the bound inside it; a lambda of None: no copies at all.
    """
    bound = (
        HamiltonianBound(
            settings["latent"],
            steps=settings["steps"],
            step_size=0.1,
            max_step_size=0.25,
        )
        if hamiltonian
        else elbo
    )
    objective = (
        bound if lambda_ is None else Consistency(bound, hazy, weight=lambda_)
    )
    if jacobian:
        copies = 1 if lambda_ is None else 2
        objective = JacobianL1(objective, weight=GAMMA * copies, columns=COLUMNS)
    return objective, bound


def new_vae(seed: int) -> VAE:
    with seeded(seed):
        return VAE(
            *mlp(SHAPE, settings["latent"], hidden=settings["hidden"]),
            latent_dim=settings["latent"],
        )


# JacobianL1(Consistency(HamiltonianBound(...), hazy, weight=1), weight=0.2)
everything, inner = compose_objective(True, LAMBDA, True)
with torch.no_grad(), seeded(0, device):
    fresh, value = new_vae(0).to(device), None
    value = everything.to(device)(fresh, test[:5])
tell(
    "An objective of three methods, at five pictures, before training: "
    f"{', '.join(f'{v:.0f}' for v in value.tolist())} nats."
)

# %% [markdown]
# The order matters. `Consistency(JacobianL1(bound, ...), hazy, ...)` would take the penalty at both copies, in one batch, for twice the price. The order above takes it at the originals. And one trap: both wrappers have a keyword `weight`. A schedule `{"weight": ...}` given to
# `fit` reaches the *outermost* one alone. We keep both weights constant; $\gamma = 0.1$ was settled in two short trials of one seed each, by the strongest-light share of section 5, and $\lambda = 1$ is chapter 5's first choice.
#
# ## 4. Does it add up?
#
# Take the costs away, $\lambda = \gamma = 0$, and the flow as well: no tempering, step sizes towards 0. What must remain is $\log w(x) + \log w(\tilde x)$ with the plain importance weights, draw for draw.

# %%
tiny = VAE(
    *mlp((1, 4, 4), 2, hidden=(6,), activation=nn.Tanh), latent_dim=2
).double()
with seeded(1):
    for p in tiny.parameters():
        nn.init.normal_(p, std=0.5)
    tiny_x = torch.rand(5, 1, 4, 4).double().round()
still = HamiltonianBound(
    2, steps=3, tempering="none", step_size=1e-9, max_step_size=1e-8
).double()
mirror = partial(torch.flip, dims=(-1,))
with torch.no_grad():
    with seeded(2):
        composed = JacobianL1(Consistency(still, mirror, weight=0.0), weight=0.0)(
            tiny, tiny_x
        )
    with seeded(2):
        by_hand = (
            log_weight(tiny, torch.cat([tiny_x, mirror(tiny_x)]), samples=1)[0]
            .view(2, -1)
            .sum(0)
        )
identity = (composed - by_hand).abs().max().item()

# %% [markdown]
# Next, the gradients. With all noise pinned the objective is a function of the weights; we move them along a random direction and compare central differences with `backward()`. Four times: the decoder's weights, the flow's own parameters, and the encoder's, without and with the Jacobian cost.

# %% tags=["hide-input"]
flow = HamiltonianBound(2, steps=3).double()


def slopes(
    gamma: float, moved: list[nn.Parameter], step: float = 1e-5
) -> tuple[float, float]:
    """The derivative of the composed objective's mean along a random direction: by
    autograd and by central differences.
    """
    objective = JacobianL1(Consistency(flow, mirror, weight=0.7), weight=gamma)
    directions = [
        torch.randn(
            p.shape, generator=torch.Generator().manual_seed(3), dtype=p.dtype
        )
        for p in moved
    ]

    def mean_value(shift: float) -> torch.Tensor:
        with torch.no_grad():
            for p, d in zip(moved, directions, strict=True):
                p.add_(shift * d)
        with seeded(4):
            return objective(tiny, tiny_x).mean()

    gradients = torch.autograd.grad(mean_value(0.0), moved)
    above, below = mean_value(step).item(), mean_value(-2 * step).item()
    mean_value(step)
    return sum(
        (g * d).sum().item() for g, d in zip(gradients, directions, strict=True)
    ), (above - below) / (2 * step)


asked = {
    "the decoder": (0.3, list(tiny.decoder.parameters())),
    "the flow (step sizes, temperatures)": (0.3, list(flow.parameters())),
    "the encoder, γ = 0": (0.0, list(tiny.encoder.parameters())),
    "the encoder, γ = 0.3": (0.3, list(tiny.encoder.parameters())),
}
derivatives = {name: slopes(*case) for name, case in asked.items()}
gaps = {
    name: abs(a - b) / (abs(a) + abs(b)) for name, (a, b) in derivatives.items()
}
tell(
    "Without costs and without motion, the composition is the sum of two plain "
    f"log-weights: largest difference {identity:.0e} nats.\n\n"
    + markdown_table(
        ["what is moved", "backward()", "differences", "relative gap"],
        [
            [name, f"{a:.6f}", f"{b:.6f}", f"{gaps[name]:.0e}"]
            for name, (a, b) in derivatives.items()
        ],
    )
)

# %% [markdown]
# The last row is meant to disagree. Moving the encoder moves $z$, and with it the Jacobian's norm; the differences see that, the gradient does not, because $z$ is detached. The composed objective is not, strictly, the thing that is climbed: the encoder climbs it with the last cost held fixed.

# %% [markdown]
# ## 5. Every combination
#
# Three switches, each on or off: the **H**amiltonian bound or the ELBO; the **C**onsistency cost with its copies, or neither; the **J**acobian cost or not. Eight objectives, each trained from the same initial weights, on the same images in the same order, for the same number of steps; then again from other seeds. Chapter 5 taught us to
# distrust a gain that may be the augmentation's, so a ninth row is its control: copies without a cost, $\lambda = 0$.

# %% [markdown]
# **Predict, then run.** From the list at the end of section 2, write down for each pair of switches whether they help each other, fight, or mind their own business; and for each of evidence, axes and regret which single switch moves it most. You will be able to count how many came true. (So did we: five guesses follow below.)

# %% tags=["hide-input"]
class Run(NamedTuple):
    model: VAE
    objective: object
    bound: object
    checkpoints: list[dict]
    seconds: float


def train_one(switches: tuple, seed: int, images: torch.Tensor = train) -> Run:
    model, (objective, bound) = new_vae(seed), compose_objective(*switches)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            model,
            objective,
            images,
            epochs=settings["epochs"],
            batch_size=50,
            lr=2e-3,
            seed=seed,
            device=device,
            checkpoints=Path(folder),
            checkpoint_every=settings["epochs"] // 3,
            progress=profile() in ("gpu", "paper"),
        )
        states = [
            torch.load(file, map_location=device, weights_only=True)
            for file in history.checkpoints
        ]
    kept = [
        {key: state[key] for key in ("model", "objective", "lr") if key in state}
        for state in states
    ]
    return Run(model, objective, bound, kept, history.seconds)


cube = list(itertools.product((False, True), repeat=3))  # H, C, J
names = {
    on: " + ".join(letter for letter, s in zip("HCJ", on, strict=True) if s)
    or "ELBO"
    for on in cube
}
combinations = {
    names[h, c, j]: (h, LAMBDA if c else None, j) for h, c, j in cube
} | {"copies alone": (False, 0.0, False)}
runs = {name: [] for name in combinations}
for seed in range(settings["seeds"]):
    # the combinations take turns, so that their times can be compared
    for name, switches in combinations.items():
        runs[name].append(train_one(switches, seed))


# %% [markdown]
# Each trained model is then asked the five questions.
#
# *Posterior:* the negative log-likelihood (NLL) of unseen lights, by importance sampling with the bound's own unbiased weights, and the slack, how far the bound itself lies below that. *Code:* the rate $\mathrm{KL}(q_\phi \| p)$ and the mutual information of picture and code, which cannot exceed the logarithm of the number of test images;
# the divergence between a picture's and its hazy copy's posterior. *Axes:* the local mutual-information gap and modularity within $\rho = 0.1$ of a random centre, and the strongest-light share of chapter 4, 1 if each latent moves one light and 1/3 if it moves all alike.
#
# *Outliers:* the area under the ROC curve (AUROC) of the likelihood regret (of the ELBO, posterior alone, the cheap variant of chapter 3), beside that of the NLL. The yardstick is the same for all, also where another bound was trained. *Cleaning:* the average precision with which self-influence, again of the ELBO, finds the strangers, beside that of the plain loss; by chance it is their share.


# %% tags=["hide-input"]
@torch.no_grad()
def strongest_light_share(model: VAE, n: int = 200) -> float:
    """How much of what a latent changes belongs to the light it changes most,
    weighted by how much it changes.
    """
    # [B, D, H, W]
    columns = (
        decoder_jacobian(model, model.posterior(test[:n]).mean).abs().sum(2).cpu()
    )
    centres = in_lanes(test_factors[:n]).view(-1, 3, 1, 1, 2) * (SIZE / 63)
    pixel = torch.arange(SIZE) + 0.5
    # [B, 3, H, W]
    distance = (pixel - centres[..., 0]).square() + (
        pixel[:, None] - centres[..., 1]
    ).square()
    # each pixel belongs to the nearest light
    owner = nn.functional.one_hot(distance.argmin(1), 3).float()
    m = torch.einsum("bdhw,bhwk->bdk", columns, owner)
    return (m.amax(-1).sum() / m.sum()).item()


def ask(run: Run) -> dict[str, float]:
    model, images = (
        run.model,
        torch.cat([test[: settings["inside"]], *outside.values()]),
    )
    weights = getattr(run.bound, "log_weight", log_weight)
    with torch.no_grad(), seeded(0, device):
        nll = -log_evidence(
            model, images, samples=settings["samples"], log_weight=weights
        )
        slack = (
            (
                -run.bound(model, images[: settings["inside"]], samples=10)
                - nll[: settings["inside"]]
            )
            .mean()
            .item()
        )
        q_z, information = model.posterior(test), mutual_information(model, test)
        found = {
            "NLL": nll[: settings["inside"]].mean().item(),
            "slack": slack,
            "rate": kl_divergence(q_z, model.prior).mean().item(),
            "information": information.nats,
            "active units": active_units(model, test).count,
            "divergence of the copy": posterior_divergence(model, test, hazy(test))
            .mean()
            .item(),
        }
        loss = -elbo(model, train, samples=8).cpu()
    regret = likelihood_regret(
        model,
        images,
        adapt="posterior",
        steps=settings["regret"],
        samples=8,
        progress=False,
    )
    for score, values in (("regret", regret), ("NLL", nll)):
        own, *others = values.split(
            [settings["inside"], *map(len, outside.values())]
        )
        found |= {
            f"{score}: {kind}": auroc(own, other).value
            for kind, other in zip(outside, others, strict=True)
        }
    selfs = self_influence(
        model, elbo, run.checkpoints, train, samples=settings["draws"]
    ).cpu()
    found |= {
        f"cleaning: {n}": auprc(v[~stranger], v[stranger])
        for n, v in (("self-influence", selfs), ("loss", loss))
    }
    return found | {"share": strongest_light_share(model), "seconds": run.seconds}


def mean_codes(models: list[VAE], images: torch.Tensor) -> torch.Tensor:
    # [M, B, D]
    return torch.stack(
        [model.posterior(images.to(device)).mean for model in models]
    )


answers = {}
for name, trained in runs.items():
    local = local_scores(
        partial(mean_codes, [run.model for run in trained]),
        lights,
        [64] * 6,
        rho=0.1,
        **settings["local"],
    )
    answers[name] = [
        ask(run) | {"gap": g, "modularity": m}
        for run, g, m in zip(
            trained, local.gap.tolist(), local.modularity.tolist(), strict=True
        )
    ]
ceilings = {
    "gap": local.gap_ceiling,
    "modularity": local.modularity_ceiling,
    "information": math.log(len(test)),
}

# %% tags=["hide-input"]
DIGITS = {
    "gap": 3,
    "modularity": 3,
    "NLL": 2,
    "slack": 2,
    "rate": 1,
    "information": 2,
    "active units": 1,
    "seconds": 1,
}


def written(name: str, column: str) -> str:
    mean, error = mean_and_standard_error(
        [float(run[column]) for run in answers[name]]
    )
    digits = DIGITS.get(column, 2)
    if column == "seconds":
        return (
            f"{torch.tensor([run[column] for run in answers[name]]).median():.1f}"
        )
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def answer_table(columns: dict[str, str]) -> str:
    return markdown_table(
        ["objective", *columns],
        [
            [name, *(written(name, column) for column in columns.values())]
            for name in answers
        ],
    )


steps_taken = settings["epochs"] * math.ceil(len(train) / 50)
tell(
    "**The model, its code and its axes.**\n\n"
    + answer_table(
        {
            "NLL, nats": "NLL",
            "slack, nats": "slack",
            "rate, nats": "rate",
            "information, nats": "information",
            "active units": "active units",
            "divergence of the copy, nats": "divergence of the copy",
            "local gap": "gap",
            "modularity": "modularity",
            "strongest-light share": "share",
            "training, s": "seconds",
        }
    )
    + f"\n\nMean ± standard error over {settings['seeds']} seeds (the time: "
    f"median); {steps_taken:,} steps of 50 images each. The information "
    f"cannot exceed {ceilings['information']:.2f} nats; the six factors "
    f"themselves have a gap of {ceilings['gap']:.3f} and a modularity of "
    f"{ceilings['modularity']:.3f}."
)
tell(
    "**What one wants of it.** AUROC of three kinds of outlier by regret and by "
    "NLL, and average precision in finding the strangers.\n\n"
    + answer_table(
        {
            f"{score}: {kind}": f"{score}: {kind}"
            for score in ("regret", "NLL")
            for kind in outside
        }
        | {"self-influence": "cleaning: self-influence", "loss": "cleaning: loss"}
    )
    + f"\n\nChance is 0.5 for an AUROC and {slipped / len(train):.2f} for the "
    "average precision."
)

# %% [markdown]
# ### What helps, what fights
#
# Tables of nine rows hide what they contain. Read the eight combinations as the corners of a cube, and take differences along its edges. For a quantity $y_{hcj}$ of one seed, the **main effect** of H is the mean, over the four settings of the other two switches, of what H changes:
#
# $$\Delta_H = \tfrac14 \sum_{c, j} \big(y_{1cj} - y_{0cj}\big), \qquad
# \Delta_{H \times C} = \tfrac12 \sum_{j} \big[(y_{11j} - y_{01j}) - (y_{10j} - y_{00j})\big]. \tag{7.4}$$
#
# The second is the **interaction**: how much more H brings when C is on than when it is off. Zero means that the two mind their own business. Each is computed within a seed, where all eight share initial weights and data, and then averaged over seeds; its standard error is that of these paired differences.


# %% tags=["hide-input"]
def corners(column: str) -> torch.Tensor:
    """A quantity at the eight corners of the cube, [2, 2, 2, seeds]."""
    return torch.tensor(
        [[float(run[column]) for run in answers[names[on]]] for on in cube],
        dtype=torch.float64,
    ).view(2, 2, 2, -1)


def effects_of(column: str) -> dict[str, tuple[float, float]]:
    """Main effects and interactions of the switches on a quantity, each a mean over
    seeds and its standard error.
    """
    y, changes = corners(column), {}
    for axis, letter in enumerate("HCJ"):
        # [seeds]
        changes[letter] = (y.select(axis, 1) - y.select(axis, 0)).mean((0, 1))
    for a, b in itertools.combinations(range(3), 2):
        changes[f"{'HCJ'[a]} × {'HCJ'[b]}"] = (
            y.diff(dim=a).diff(dim=b).mean((0, 1, 2))
        )
    control = [
        float(with_copies[column]) - float(without[column])
        for with_copies, without in zip(
            answers["copies alone"], answers["ELBO"], strict=True
        )
    ]
    changes["copies alone"] = torch.tensor(control)
    return {
        name: tuple(mean_and_standard_error(values.tolist()))
        for name, values in changes.items()
    }


measured = {  # column: what it is called, and which sign is welcome (0: neither)
    "NLL": ("NLL", -1),
    "slack": ("slack", -1),
    "information": ("information", 0),
    "divergence of the copy": ("divergence\nof the copy", -1),
    "gap": ("local gap", 1),
    "share": ("light share", 1),
    "regret: a light out": ("regret:\na light out", 1),
    "regret: one too many": ("regret:\none too many", 1),
    "regret: new digits": ("regret:\nnew digits", 1),
    "NLL: a light out": ("NLL:\na light out", 1),
    "NLL: one too many": ("NLL:\none too many", 1),
    "cleaning: self-influence": ("cleaning:\nself-influence", 1),
    "cleaning: loss": ("cleaning:\nloss", 1),
}
effects = {column: effects_of(column) for column in measured}
# two-sided 5 % points of Student's t with n - 1 degrees of freedom
CLEAR = {
    2: 12.71,
    3: 4.30,
    4: 3.18,
    5: 2.78,
    6: 2.57,
    7: 2.45,
    8: 2.36,
    9: 2.31,
    10: 2.26,
}[settings["seeds"]]
terms = list(effects["NLL"])

# %% tags=["hide-input"]
ratio = torch.tensor(
    [
        [effects[c][t][0] / max(effects[c][t][1], 1e-12) for t in terms]
        for c in measured
    ]
)
wanted = torch.tensor([sign for _, sign in measured.values()])[:, None]
fig, ax = plt.subplots(figsize=(8.6, 7.4))
ax.imshow(
    (ratio * wanted).clamp(-8, 8), cmap="PuOr", vmin=-14, vmax=14, aspect="auto"
)
for (row, key), (column, term) in itertools.product(
    enumerate(measured), enumerate(terms)
):
    digits = DIGITS.get(key, 2)
    is_clear = abs(ratio[row, column]) > CLEAR
    words = "{:+.{d}f}\n± {:.{d}f}".format(*effects[key][term], d=digits)
    ax.text(
        column,
        row,
        words,
        ha="center",
        va="center",
        fontsize=8.5,
        weight="bold" if is_clear else "normal",
        color="black" if is_clear else "0.15",
    )
ax.set_yticks(
    range(len(measured)),
    [label.replace("\n", " ") for label, _ in measured.values()],
)
ax.xaxis.tick_top()
ax.set_xticks(range(len(terms)), terms)
ax.axvline(2.5, color="black", lw=1)
ax.axvline(5.5, color="black", lw=1)
ax.grid(False)
ax.tick_params(length=0)
show(
    fig,
    caption="What each switch changes (first three columns), how two switches "
    "act on each other (next three), and what copies without a cost do "
    "to the plain ELBO (last). Each cell: the effect ± its standard "
    f"error over {settings['seeds']} seeds. Purple: welcome, orange: "
    "unwelcome, the stronger the more standard errors from zero; the "
    "information has no colour, since more of it is neither good nor "
    "bad. Bold: beyond the 5 % point of Student's t.",
    alt="A table of thirteen rows of measures and seven columns (H, C, J, their "
    "three interactions, copies alone); each cell has an effect with its "
    "standard error, coloured by direction and strength.",
)

# %% tags=["hide-input"]
MEANING = {
    "H": "the Hamiltonian bound",
    "C": "consistency",
    "J": "the Jacobian cost",
}


def effect_sentence(column: str, term: str) -> str:
    value, error = effects[column][term]
    what, sign = measured[column][0].replace("\n", " "), measured[column][1]
    verdict = (
        "" if sign == 0 else " (welcome)" if value * sign > 0 else " (unwelcome)"
    )
    size = "{:+.{d}f} ± {:.{d}f}".format(value, error, d=DIGITS.get(column, 2))
    if "×" in term:
        a, b = term.split(" × ")
        return (
            f"- **{term}** on *{what}*: with {MEANING[b]} on, {MEANING[a]} brings "
            f"{size} more than with it off{verdict}."
        )
    return (
        f"- **{term}** on *{what}*: {MEANING[term]} changes it by {size}{verdict}."
    )


found = [
    (abs(effects[c][t][0] / max(effects[c][t][1], 1e-12)), c, t)
    for c in measured
    for t in terms[:6]
]
clear = sorted((item for item in found if item[0] > CLEAR), reverse=True)
main, crossed = (
    [item for item in clear if ("×" in item[2]) == flag] for flag in (False, True)
)
tell(
    f"**Main effects beyond the 5 % point**, the clearest first ({len(main)} of "
    f"{3 * len(measured)}):\n\n"
    + ("\n".join(effect_sentence(c, t) for _, c, t in main) or "None.")
    + f"\n\n**Interactions beyond it** ({len(crossed)} of {3 * len(measured)}):\n\n"
    + ("\n".join(effect_sentence(c, t) for _, c, t in crossed) or "None.")
    + f"\n\nThese are {len(found)} tests. If no switch did anything, about "
    f"{0.05 * len(found):.0f} of them would still come out beyond the 5 % "
    "point, so the faintest in the lists deserve no trust by themselves."
)

# %% [markdown]
# What does an interaction look like? Here is the clearest one, whichever it is, with the third switch averaged out. If the two did not act on each other, the lines would be parallel.

# %% tags=["hide-input"]
_, key, term = max(item for item in found if "×" in item[2])
a, b = ("HCJ".index(letter) for letter in term.split(" × "))
y = corners(key).mean(({0, 1, 2} - {a, b}).pop())  # [2, 2, seeds]: a, b
name_a, name_b, what = "HCJ"[a], "HCJ"[b], measured[key][0].replace("\n", " ")
fig, ax = plt.subplots(figsize=(5, 3.2))
for on, style, marker, colour in (
    (0, "--", "o", COLOURS[0]),
    (1, "-", "s", COLOURS[1]),
):
    ax.plot(
        [0, 1],
        y[:, on].mean(-1),
        style,
        marker=marker,
        color=colour,
        label=f"{name_b} {'on' if on else 'off'}",
    )
    for x_place in (0, 1):
        ax.scatter(
            [x_place + 0.03] * y.shape[-1],
            y[x_place, on],
            s=8,
            color=colour,
            alpha=0.5,
        )
ax.set(
    xticks=[0, 1],
    xticklabels=[f"{name_a} off", f"{name_a} on"],
    ylabel=what,
    xlim=(-0.2, 1.25),
)
ax.legend()
show(
    fig,
    caption=f"The clearest interaction: {term} on {what}. Lines join the means; "
    "the small dots are the seeds.",
    alt=f"Two lines of {what} against {name_a} off and on, one with {name_b} off "
    f"and one with {name_b} on.",
)
alone, beside = (
    mean_and_standard_error((y[1, on] - y[0, on]).tolist()) for on in (0, 1)
)
tell(
    f"With {name_b} off, {name_a} changes the {what} by {alone.mean:+.2f} ± "
    f"{alone.standard_error:.2f}; with {name_b} on, by {beside.mean:+.2f} ± "
    f"{beside.standard_error:.2f}."
)

# %% [markdown]
# And the guesses of section 2? Five of them can be written as the sign of one number:

# %% tags=["hide-input"]
guesses = [  # what was guessed, quantity, term, sign
    (
        "consistency brings a copy's posterior nearer",
        "divergence of the copy",
        "C",
        -1,
    ),
    ("and pays for it in likelihood", "NLL", "C", 1),
    ("with a flow that price is lower", "NLL", "H × C", -1),
    ("the Jacobian cost parts the lights", "share", "J", 1),
    (
        "a flow makes the encoder's regret less telling",
        "regret: one too many",
        "H",
        -1,
    ),
]


def borne_out(column: str, term: str, sign: int) -> str:
    value, error = effects[column][term]
    clearly = abs(value) > CLEAR * error
    return (
        ("borne out" if value * sign > 0 else "contradicted")
        if clearly
        else (
            "undecided, as guessed"
            if value * sign > 0
            else "undecided, against the guess"
        )
    )


tell(
    markdown_table(
        ["guess", "number", "measured", "verdict"],
        [
            [
                text,
                f"{term} on {column}",
                "{:+.2f} ± {:.2f}".format(*effects[column][term]),
                borne_out(column, term, sign),
            ]
            for text, column, term, sign in guesses
        ],
    )
)

# %% [markdown]
# In the stored run the third guess is contradicted, by one of the fainter entries of the list, though the row *information* says the same. It is worth asking why, for Exercise 3 argues for it: with a *fixed decoder* a flow does lower the price of agreement. But the decoder is trained too, and nothing obliges it to use what the flow makes affordable. Read the row *information*: with H on, the code says less, not more, wherever a cost is on as well.
# A derivation that holds one network still is a guess about the pair.
#
# How much of C is the copies' own doing? The last column of the figure has what $\lambda = 0$ does to the plain ELBO; the difference between that and C there is what the *divergence* adds.

# %% tags=["hide-input"]
def paired(column: str, one: str, other: str) -> tuple[float, float]:
    return tuple(
        mean_and_standard_error(
            [
                float(a[column]) - float(b[column])
                for a, b in zip(answers[one], answers[other], strict=True)
            ]
        )
    )


split_columns = (
    "NLL",
    "rate",
    "divergence of the copy",
    "share",
    "regret: one too many",
    "cleaning: self-influence",
)
copies_split = {
    column: {
        "copies": paired(column, "copies alone", "ELBO"),
        "cost": paired(column, "C", "copies alone"),
    }
    for column in split_columns
}
tell(
    "Beside the plain ELBO, without H and J:\n\n"
    + markdown_table(
        ["", "what the copies bring", "what the divergence adds"],
        [
            [column, *(f"{m:+.2f} ± {e:.2f}" for m, e in parts.values())]
            for column, parts in copies_split.items()
        ],
    )
)

# %% [markdown]
# ### What to take from it
#
# Six things that the stored run (profile `cpu`) shows:
#
# - **Consistency and the Jacobian cost fight.** Each by itself takes some information out of the code. Together they take more than the sum of both, until fewer latents are active than there are numbers to be told (column *active units*: six are needed), and the likelihood pays. The balance of the costs was kept; their *sum* was too much for the code.
# - **A main effect can hide its opposite.** By itself the Hamiltonian bound improves the likelihood over the ELBO's. On average over the other switches it does not, because with the costs on it makes things worse. Whoever compares methods in one setting reads one edge of the cube.
# - **Slack is no virtue by itself.** The Jacobian cost makes the bound tighter. But the evidence fell, and further than the bound: a simpler decoder has an easier posterior, which is not the same as a better guess of it.
# - **What a code was taught to ignore, it no longer reports.** With consistency the regret finds a missing light less well, in these runs worse than by chance. Two explanations offer themselves. Haze takes pixels away, and so does a light that goes out: what the invariance hides from the code it may hide from the alarm. Or the posteriors have simply become vague, and a vague encoder has little to regret anywhere: the regret falls for pictures that haze does not imitate, too. This run cannot tell the two apart; an invariance to something else could.
# - **The axes cost likelihood, and some information.** The Jacobian cost raises the light share and the local gap whatever else is on: no interaction touches either beyond the noise. Beside the likelihood, what the code tells about the picture falls (the table of effects has both).
# - **No score is a watch by itself.** The NLL finds what adds light and is blind to what takes it away; the plain model's regret sees both, and neither well. New digits, whose like was in the training set, it hardly regrets.
#
# ## 6. From an outlier to its teachers
#
# Now take the model with everything switched on and follow one strange picture all the way.
#
# ### The posterior
#
# A Gaussian with independent axes cannot be correlated. Below are, for three pictures, draws from the encoder's $q_\phi$, the same draws after the flow, and a reference: 20,000 draws of $q_\phi$, resampled by their importance weights. Of the latents we look at the two that the reference finds most correlated.

# %% [markdown]
# **Warm-up 7.b · How many draws are left?** Fill in the blank: the effective number of draws $(\sum_s w_s)^2 / \sum_s w_s^2$ behind a resampled reference, from the logarithms of its weights. (They are of the order of minus a hundred or less, so mind `exp`.)

# %% tags=["warm-up", "nbval-check-output"]
def effective_draws(log_w: torch.Tensor) -> torch.Tensor:
    """From log weights [S] to a number between 1 and S."""
    return ...  # fill in


check("7.b", effective_draws)

# %% tags=["hide-input"]
full_name = "H + C + J"
full = runs[full_name][0]
cases = {
    "three lights": test[:1],
    "one too many": outside["one too many"][:1],
    "a new digit": outside["new digits"][:1],
}


@torch.no_grad()
def posterior_draws(
    x: torch.Tensor, n: int = 400
) -> tuple[dict[str, torch.Tensor], float]:
    """Draws [n, D] of the guess, of the flow and of the reference; and the
    effective sample size of the reference.
    """
    with seeded(0, device):
        q_z = full.model.posterior(x)
        z = q_z.rsample((20_000,))  # [S, 1, D]
        log_w = (full.model.log_joint(x, z) - q_z.log_prob(z)).flatten().double()
        share = log_w.softmax(0)
        moved = full.bound.sample_posterior(full.model, x, samples=n)[:, 0]
        draws = {
            "guess": z[:n, 0],
            "after the flow": moved,
            "reference": z[torch.multinomial(share, n, replacement=True), 0],
        }
    return {
        name: d.cpu() for name, d in draws.items()
    }, 1 / share.square().sum().item()


# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6))
effective = {}
for ax, (name, x) in zip(axes, cases.items(), strict=True):
    draws, effective[name] = posterior_draws(x)
    off = torch.corrcoef(draws["reference"].T).nan_to_num().fill_diagonal_(0).abs()
    i, j = divmod(int(off.argmax()), len(off))
    for (kind, d), colour, marker in zip(
        draws.items(), ("0.6", COLOURS[0], COLOURS[1]), (".", "o", "x"), strict=True
    ):
        ax.scatter(
            d[:, i],
            d[:, j],
            s=10,
            color=colour,
            marker=marker,
            alpha=0.5,
            linewidths=0.7,
            label=kind,
        )
    ax.set(title=name, xlabel=f"latent {i + 1}", ylabel=f"latent {j + 1}")
fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc="upper center",
    ncols=3,
    markerscale=2,
    bbox_to_anchor=(0.5, 1.06),
)
fig.tight_layout()
show(
    fig,
    caption="Where the full model believes the code of a picture to be. Grey: the "
    "encoder's guess. Blue: the guess after the Hamiltonian flow. Orange "
    "crosses: the importance-sampled reference, worth "
    + ", ".join(
        f"{n:.0f} independent draws for {name}" for name, n in effective.items()
    )
    + ". Where that number is small the reference is a few points drawn again "
    "and again.",
    alt="Three scatter plots of two latents for three pictures, each with clouds "
    "of the guess, the flow and the reference.",
)

# %% tags=["hide-input"]
short = {}
for name, images in {"three lights": test[: settings["inside"]], **outside}.items():
    with torch.no_grad(), seeded(0, device):
        evidence = log_evidence(
            full.model,
            images,
            samples=settings["samples"],
            log_weight=full.bound.log_weight,
        )
        values = (
            elbo(full.model, images, samples=20),
            full.bound(full.model, images, samples=20),
        )
    short[name] = [(evidence - value).mean().item() for value in values]
tell(
    "By how much the two bounds fall short of the evidence in this model, in "
    "nats: the ELBO, which ends with the guess, and the Hamiltonian bound, which "
    "goes on from there.\n\n"
    + markdown_table(
        ["pictures", "ELBO", "Hamiltonian bound"],
        [[name, *(f"{v:.2f}" for v in pair)] for name, pair in short.items()],
    )
)

# %% [markdown]
# After training with costs that leave few latents active there is little left to bend, and in the figure the clouds nearly coincide; the flow recovers a part of the gap, the most where the picture is strange.
#
# ### The outlier
#
# A stream of pictures: mostly lights, a few of each kind of outlier. Which would a watch that ranks by regret call up first, and which one that ranks by NLL?

# %% tags=["hide-input"]
few = pick(smoke=5, cpu=10, gpu=10, paper=10)
stream = torch.cat(
    [test[: settings["inside"]], *(images[:few] for images in outside.values())]
)
kinds = ["three lights"] * settings["inside"] + [
    kind for kind in outside for _ in range(few)
]


def scores(run: Run, images: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = getattr(run.bound, "log_weight", log_weight)
    with torch.no_grad(), seeded(0, device):
        nll = -log_evidence(
            run.model, images, samples=settings["samples"], log_weight=weights
        ).cpu()
    regret = likelihood_regret(
        run.model,
        images,
        adapt="posterior",
        steps=settings["regret"],
        samples=8,
        progress=False,
    ).cpu()
    return {"regret": regret, "NLL": nll}


of_stream = {name: scores(runs[name][0], stream) for name in (full_name, "ELBO")}

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
for ax, (label, values) in zip(axes, of_stream[full_name].items(), strict=True):
    for row, (kind, colour) in enumerate(
        zip(("three lights", *outside), COLOURS, strict=False)
    ):
        v = torch.stack(
            [s for s, k in zip(values, kinds, strict=True) if k == kind]
        )
        height = row + 0.3 * (
            torch.rand(len(v), generator=torch.Generator().manual_seed(0)) - 0.5
        )
        ax.scatter(v, height, s=9, color=colour, alpha=0.6)
    ax.set(
        xlabel=f"{label}, nats",
        yticks=range(4),
        yticklabels=["three lights", *outside],
    )
axes[0].invert_yaxis()
fig.tight_layout()
show(
    fig,
    caption="Every picture of the stream by its regret (left) and by its NLL "
    "(right), in the full model, first seed. A detector draws one "
    "vertical line.",
    alt="Two strip charts with four rows each: three lights, a light out, one too "
    "many, new digits.",
)
first = 3 * few
called = {}
for name, by_score in of_stream.items():
    for score, values in by_score.items():
        top = [kinds[i] for i in values.argsort(descending=True)[:first]]
        called[f"{name}: {score}"] = {
            kind: top.count(kind) for kind in ("three lights", *outside)
        }
tell(
    f"The {first} pictures with the highest score, out of {len(stream)} with "
    f"{first} outliers among them, in the full model and, beside it, in the one "
    "trained with the plain ELBO (first seed):\n\n"
    + markdown_table(
        ["model and score", "three lights", *outside],
        [[score, *counts.values()] for score, counts in called.items()],
    )
)

# %% [markdown]
# In the stored run most of what either score calls up first are ordinary lights.
#
# ### Who taught it that?
#
# Take outliers of each kind and, for comparison, ordinary lights, and ask TracIn for their proponents: the training images whose gradients, at the checkpoints, pointed their way. Two functions can be traced. What moved the weights was the whole objective, with its copies, its costs and their noise; what we want to know about
# the picture is its bound. So we trace both: the *whole objective* at the last checkpoint, and the *ELBO* at all of them. The weights were moved by Adam, so that chapter 6's warning holds: a score is then a similarity of gradients, not an account.

# %% tags=["hide-input"]
each = pick(smoke=3, cpu=8, gpu=10, paper=10)
queries = torch.cat([test[:each], *(images[:each] for images in outside.values())])
query_kinds = ["three lights"] * each + [
    kind for kind in outside for _ in range(each)
]
top = 20
traces = {
    "whole objective": tracin(
        full.model,
        full.objective,
        full.checkpoints[-1:],
        train,
        queries,
        samples=settings["draws"],
    ).cpu(),
    "ELBO": tracin(
        full.model,
        elbo,
        full.checkpoints,
        train,
        queries,
        samples=2 * settings["draws"],
    ).cpu(),
}
# [Q, 20]
proponents = {
    traced: values.topk(top, dim=0).indices.T for traced, values in traces.items()
}
strangers_among = {
    traced: {
        kind: mean_and_standard_error(
            [
                stranger[row].double().mean().item()
                for row, k in zip(indices, query_kinds, strict=True)
                if k == kind
            ]
        )
        for kind in ("three lights", *outside)
    }
    for traced, indices in proponents.items()
}

# %% tags=["hide-input"]
of_query = scores(full, queries)
with torch.no_grad():
    reconstructed = full.model.reconstruct(queries).cpu()


def walk(q: int) -> plt.Figure:
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 1.5), width_ratios=(1, 1, 8))
    image_grid(night(queries[q : q + 1]), columns=1, ax=axes[0], title="picture")
    image_grid(
        night(reconstructed[q : q + 1]), columns=1, ax=axes[1], title="model sees"
    )
    image_grid(
        night(train[proponents["ELBO"][q][:8]]),
        columns=8,
        ax=axes[2],
        title="its strongest proponents",
    )
    words = (
        f"{query_kinds[q]}: NLL {of_query['NLL'][q]:.0f} nats, regret "
        f"{of_query['regret'][q]:.1f} nats, "
        f"{int(stranger[proponents['ELBO'][q]].sum())} strangers among the {top} "
        "strongest proponents"
    )
    fig.text(0.5, -0.06, words, ha="center", fontsize=9)
    return fig


steps_of_walk = [
    q
    for k in range(4)
    for q in range(k * each, k * each + pick(smoke=2, cpu=5, gpu=5, paper=5))
]
frames(
    [walk(q) for q in steps_of_walk],
    [f"{query_kinds[q]} {q % each + 1}" for q in steps_of_walk],
    description="picture",
    start=len(steps_of_walk) - 1,
    caption="Choose a picture. Left, the picture and what the model makes of it; "
    "right, the training images whose gradients speak for it most (traced "
    "through the ELBO).",
    alt="A picture, its reconstruction and eight training images",
)
chosen = [k * each for k in range(4)]
rows = {
    query_kinds[q]: night(
        torch.cat(
            [
                queries[q : q + 1].cpu(),
                reconstructed[q : q + 1],
                train[proponents["ELBO"][q][:8]].cpu(),
            ]
        )
    )
    for q in chosen
}
show(
    image_rows(rows, title="picture, what the model sees, and eight proponents"),
    caption="The first picture of each kind: itself, its reconstruction by the "
    "full model, and its eight strongest proponents.",
    alt="Four rows of ten small pictures.",
)
correlation = {}
for k, kind in enumerate(("three lights", *outside)):
    a, b = (
        values[:, k * each : (k + 1) * each].argsort(0).argsort(0).double()
        for values in traces.values()
    )
    correlation[kind] = mean_and_standard_error(
        [
            torch.corrcoef(torch.stack(pair))[0, 1].item()
            for pair in zip(a.T, b.T, strict=True)
        ]
    )
tell(
    f"Share of strangers among the {top} strongest proponents, in per cent (by "
    f"chance {100 * slipped / len(train):.0f}), and how well the two traces agree "
    "(Spearman's rank correlation over the training images):\n\n"
    + markdown_table(
        [
            "picture",
            *(f"traced: {traced}" for traced in strangers_among),
            "rank correlation",
        ],
        [
            [
                kind,
                *(
                    f"{100 * s[kind].mean:.0f} ± {100 * s[kind].standard_error:.0f}"
                    for s in strangers_among.values()
                ),
                f"{c.mean:.2f} ± {c.standard_error:.2f}",
            ]
            for kind, c in correlation.items()
        ],
    )
    + f"\n\nMean ± standard error over {each} pictures of each kind; one model."
)

# %% [markdown]
# In the stored run nearly all of a new digit's strongest proponents are strangers, where chance would give one in fifty. Compare that with the columns on cleaning in section 5, in which self-influence hardly finds the strangers at all. Asked *in general* who does not belong, the gradients have little to say: among so many
# lights some may well be as odd as a digit. Asked about *this* digit, they point at the digits. A good question to an influence score has a picture in it.
#
# ### Had they not been there
#
# TracIn accuses; it does not prove. But here the counter-factual is affordable: train the full model again without the strangers, from the same initial weights, for each seed, and look at what every kind of picture loses.

# %% tags=["hide-input"]
cleaned = [
    train_one(combinations[full_name], seed, train[~stranger.to(device)])
    for seed in range(settings["seeds"])
]
lost: dict[str, list[float]] = {kind: [] for kind in ("three lights", *outside)}
for before, after in zip(runs[full_name], cleaned, strict=True):
    for kind, images in {
        "three lights": test[: settings["outside"]],
        **outside,
    }.items():
        with torch.no_grad(), seeded(0, device):
            nats = [
                log_evidence(
                    run.model,
                    images,
                    samples=settings["samples"],
                    log_weight=run.bound.log_weight,
                )
                .mean()
                .item()
                for run in (before, after)
            ]
        lost[kind].append(nats[0] - nats[1])
removal = {kind: mean_and_standard_error(values) for kind, values in lost.items()}
tell(
    "What a picture loses when the strangers are left out of the training set, in "
    "nats of log-likelihood:\n\n"
    + markdown_table(
        ["picture", "loss"],
        [
            [kind, f"{r.mean:+.2f} ± {r.standard_error:.2f}"]
            for kind, r in removal.items()
        ],
    )
    + f"\n\nMean ± standard error over {settings['seeds']} seeds, "
    f"{settings['outside']} pictures of each kind."
)

# %% tags=["hide-input"]
def summary(pair: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("mean", "standard_error"), pair, strict=True))


save_results(
    "07_together",
    {
        "settings": {
            **{
                k: list(v) if isinstance(v, tuple) else v
                for k, v in settings.items()
            },
            "lambda": LAMBDA,
            "gamma": GAMMA,
            "columns": COLUMNS,
            "steps": steps_taken,
        },
        "ceilings": ceilings,
        "objectives": {
            name: {
                column: summary(
                    mean_and_standard_error(
                        [float(run[column]) for run in found_runs]
                    )
                )
                for column in found_runs[0]
            }
            for name, found_runs in answers.items()
        },
        "effects": {
            column: {term: summary(pair) for term, pair in by_term.items()}
            for column, by_term in effects.items()
        },
        "copies_and_cost": {
            column: {part: summary(pair) for part, pair in parts.items()}
            for column, parts in copies_split.items()
        },
        "bounds_fall_short_by": {
            name: dict(zip(("ELBO", "Hamiltonian bound"), pair, strict=True))
            for name, pair in short.items()
        },
        "called_up": called,
        "strangers_among_proponents": {
            traced: {kind: summary(s) for kind, s in shares.items()}
            for traced, shares in strangers_among.items()
        },
        "rank_correlation_of_the_traces": {
            kind: summary(c) for kind, c in correlation.items()
        },
        "without_the_strangers": {kind: summary(r) for kind, r in removal.items()},
        "checks": {"identity": identity, "gradient_gaps": gaps},
    },
)

# %% [markdown]
# In the stored run what goes with the strangers is what they had taught: the new digits lose many nats, and no other kind of picture moves by more than two standard errors. The accusation holds, for the strangers as a group.
#
# ## 7. What it does not do
#
# - **It is one world.** Three lights are easy to draw and have known factors; that is why they are here. Which methods help each other is a property of data, network and training time as much as of the methods, and an interaction found here is a hypothesis elsewhere.
# - **It is one weight each.** A switch is on at one value, $\lambda = 1$ and $\gamma = 0.1$. A cost that harms at one weight may help at a tenth of it, and the best $\lambda$ with the flow need not be the best without. A cube has two levels; a surface needs more.
# - **The yardsticks take sides.** Regret and self-influence were measured with the ELBO in all models, so that numbers compare. A model trained with the flow was never asked to make its ELBO tight. With its own bound as the yardstick its regret is another score.
# - **Equal steps are not equal time.** The composed objective costs several times as much a step (last column of the first table). At equal *time* the plain ELBO would have been trained longer.
# - **Few seeds, many cells.** The standard errors come from a handful of seeds; the list of clear effects has its share of false alarms, and a faint true one may be missing.
# - **A bound of two pictures is not a bound of one.** The training value of a consistent model cannot be compared with anything but itself.

# %% [markdown]
# ## 8. Exercises
#
# Fill in a stub, run it, and run the check below it: it says that the answer is right, or what is wrong with it. The solutions are folded.
# Every exercise runs after the first two code cells of this page alone, so you can begin here; a check takes a few seconds at most.
# Each call of `hint` says a little more: the idea, then the first line, then the shapes.

# %% tags=["standalone", "nbval-check-output"]
hint("7.1")

# %% [markdown]
# ### Exercise 7.1 · Read a cube (10 minutes)
#
# Given a quantity at the eight corners, $y_{hcj}$, return the main effect of H and the interaction H × C, as defined in section 5.

# %% tags=["exercise"]
def effect_and_interaction(y: torch.Tensor) -> torch.Tensor:
    """The main effect of H and the interaction H × C: [2].

    y is [2, 2, 2], indexed by h, c, j; index 0 is off, 1 is on.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("7.1", effect_and_interaction)
# hint("7.1")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_7_1(y: torch.Tensor) -> torch.Tensor:
    change = y[1] - y[0]  # [2, 2], what H changes at each c, j
    return torch.stack([change.mean(), (change[1] - change[0]).mean()])


# %% [markdown]
# ### Exercise 7.2 · The composition by hand (20 minutes)
#
# Write $\mathcal O(x)$ of (7.1) with the ELBO as the bound, without the classes `Consistency` and `JacobianL1`: from `elbo`, `posterior_divergence` and `jacobian_l1` (all columns). Take care of what is detached; the check compares values and gradients, in expectation.

# %% tags=["exercise"]
def composed_by_hand(
    model: VAE, x: torch.Tensor, tx: torch.Tensor, lambda_: float, gamma: float
) -> torch.Tensor:
    """ELBO(x) + ELBO(tx) - lambda_ KL(q(z|tx) || q(z|x)) - gamma |J(z)|_1: [B].

    z is one draw from q(z|x), detached.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("7.2", composed_by_hand)
# hint("7.2")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_7_2(
    model: VAE, x: torch.Tensor, tx: torch.Tensor, lambda_: float, gamma: float
) -> torch.Tensor:
    with torch.no_grad():
        z = model.posterior(x).rsample()
    bounds = elbo(model, x) + elbo(model, tx)
    disagreement = posterior_divergence(model, x, tx)
    return bounds - lambda_ * disagreement - gamma * jacobian_l1(model, z)


# %% [markdown]
# ### Exercise 7.3 · What agreement takes from the bounds (25 minutes)
#
# Let $z$ be a single number and the decoder fixed. The true posteriors of a picture and of its copy are $\mathcal N(m, s^2)$ and $\mathcal N(\tilde m, s^2)$; the encoder answers $\mathcal N(\mu, s^2)$ and $\mathcal N(\tilde\mu, s^2)$, with $\mu$ and $\tilde\mu$ free. Show that the consistent ELBO is largest where
#
# $$\tilde\mu - \mu = \frac{\tilde m - m}{1 + 2\lambda}, \qquad \text{at a loss of} \qquad \frac{\lambda}{1 + 2\lambda}\, \frac{(\tilde m - m)^2}{2 s^2} \text{ nats}$$
#
# against $\lambda = 0$. How much of this loss is slack of the two bounds, and what becomes of that part as $\lambda \to \infty$? What could a Hamiltonian flow do about it? Write the loss and its slack as a function.
#
# <details><summary>Solution</summary>
#
# Each bound falls short of the evidence by $\mathrm{KL}(q \| p)$, and all four Gaussians have one width, so we minimise $\frac{1}{2s^2}\big[(\mu - m)^2 + (\tilde\mu - \tilde m)^2 + \lambda(\tilde\mu - \mu)^2\big]$. Its sum of gradients gives $\mu + \tilde\mu = m + \tilde m$: the means move towards each other by the same amount. With $d = \tilde m - m$ and
# $e = \tilde\mu - \mu$ each moves by $(d - e)/2$, and what remains is $\frac{1}{2s^2}\big[(d - e)^2/2 + \lambda e^2\big]$, least at $e = d/(1 + 2\lambda)$. There the first term, the slack, is $\frac{1}{2s^2} \frac{2\lambda^2 d^2}{(1 + 2\lambda)^2}$ and the second $\frac{1}{2s^2} \frac{\lambda d^2}{(1 + 2\lambda)^2}$; the sum is as stated.
# The slack is the share $2\lambda/(1 + 2\lambda)$ of the loss: almost all of it for a large $\lambda$, when it tends to $d^2 / 4s^2$. Slack is what a flow reduces: it starts at the shared guess and moves each copy's draws towards *its* posterior. So with a flow agreement takes less from the bounds, and for the same reason it means less: the guesses agree, the posteriors need not.
#
# Your derivation is complete if it
#
# - writes the loss as three squares, and says why the widths drop out;
# - uses the symmetry (or both derivatives) to find that each mean moves by the same amount;
# - splits the loss into slack and divergence, and takes the limit of each;
# - says what a flow can move, and what it leaves as it is.
#
# </details>

# %% tags=["exercise"]
def loss_of_agreement(
    distance: torch.Tensor, s: torch.Tensor, lambda_: torch.Tensor
) -> torch.Tensor:
    """The whole loss and the bounds' slack in it, in nats: [2].

    distance is d = m~ - m, s the common width; all are 0-dimensional tensors.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("7.3", loss_of_agreement)
# hint("7.3")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_7_3(
    distance: torch.Tensor, s: torch.Tensor, lambda_: torch.Tensor
) -> torch.Tensor:
    loss = lambda_ / (1 + 2 * lambda_) * distance**2 / (2 * s**2)
    return torch.stack([loss, loss * 2 * lambda_ / (1 + 2 * lambda_)])


# %% [markdown]
# ### Exercise 7.4 · A fourth switch in the same eight runs (research, an afternoon on Colab)
#
# Eight runs can carry a fourth switch D, if D is on exactly when an *odd* number of H, C and J is on: a **half fraction** of the sixteen. Write this design as a table of $\pm 1$.

# %% tags=["exercise"]
def half_fraction() -> torch.Tensor:
    """The columns H, C, J, D of the eight runs, -1 for off and +1 for on: [8, 4].

    The first row has H, C and J off; J changes fastest, H slowest.
    """
    raise NotImplementedError


# %% tags=["check", "nbval-check-output"]
check("7.4", half_fraction)
# hint("7.4")

# %% tags=["solution", "hide-input"]
# @title Solution { display-mode: "form" }
def solution_7_4() -> torch.Tensor:
    three = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    return torch.cat([three, three.prod(1, keepdim=True)], 1)  # D = H C J


# %% [markdown]
# Nothing is free: which effect can no longer be told from that of D, and which pairs of interactions become one? Then run it on Colab with the importance-weighted bound or with $\beta = 2$ as the fourth switch, and say what you had to assume.
#
# <details><summary>Solution</summary>
#
# In the table $D = HCJ$ row by row, so the column of D *is* the column of the interaction of all three: one number stands for both. Multiply both sides by two letters, and use that each column's square is 1: $HC = JD$, $HJ = CD$, $CJ = HD$. The six two-way interactions form three pairs, and an experiment of eight runs sees the sum of each pair. Main effects are confounded with three-way interactions only: $H = CJD$ and so on.
# What you have to assume, therefore: that three-way interactions are small against main effects, and, to name an interaction, that its partner is. In this chapter's cube both can be looked at for H, C and J before a fourth switch is added. If a pair turns out large, the other eight runs ($D = -HCJ$) tell its members apart.
#
# Your report is complete if it
#
# - lists the four main effects and the three pairs, each with its standard error over seeds;
# - names, for each number, what else it could be;
# - says which assumption the cube of section 5 supports, and which it does not.
#
# </details>

# %% [markdown]
# ## 9. Further reading
#
# - [Caterini, Doucet & Sejdinovic, 2018](https://arxiv.org/abs/1805.11328); [Xiao, Yan & Amit, 2020](https://arxiv.org/abs/2003.02977); [Rhodes & Lee, 2021](https://arxiv.org/abs/2106.02923); [Sinha & Dieng, 2021](https://arxiv.org/abs/2105.14859); [Kong & Chaudhuri, 2021](https://arxiv.org/abs/2105.14203): the five papers.
# - [Cremer, Li & Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018](https://arxiv.org/abs/1801.03558): what in a bound's slack is the family's fault, and what the encoder's.
# - Box, Hunter & Hunter, *Statistics for Experimenters* (Wiley, 2005): factorial designs, interactions, and half fractions.
# - [Locatello et al., 2019](https://arxiv.org/abs/1811.12359): a large experiment over objectives, weights and seeds, and how much of the spread is the seed's.
