"""Chapter 5: what a divergence is made of; and the control that decides."""

from random import Random

import torch
from torch.distributions import Normal, kl_divergence

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · What the divergence is made of

An image has the posterior $\mathcal N(\mu, \sigma^2)$ in one latent variable, and its copies have $\mathcal N(\tilde\mu_k, \tilde\sigma_k^2)$. Write, in nats, with standard deviations (not variances) as arguments,

- `moved(mean, std, copy_means, copy_stds)`, the part of $\mathrm{KL}(\text{copy} \,\|\, \text{original})$, averaged over the copies, that would vanish if all means agreed;
- `widened(mean, std, copy_means, copy_stds)`, the part that would vanish if all widths agreed;
- `best_width(mean, copy_means, copy_stds)`, the standard deviation of the original that makes the sum of both least, its mean being held;
- `retrieved(codes, copies)`, the share of images whose copy's code is nearer to its own image's code than to any other's; image $k$ has the number `codes[k]` and its copy `copies[k]`.
"""

ANSWER = '''
def moved(mean: float, std: float, copy_means: list[float], copy_stds: list[float]) -> float:
    """The average share of the divergence that moved means make, in nats."""
    ### BEGIN SOLUTION
    return sum((m - mean) ** 2 for m in copy_means) / (2 * std**2 * len(copy_means))
    ### END SOLUTION


def widened(mean: float, std: float, copy_means: list[float], copy_stds: list[float]) -> float:
    """The average share of the divergence that other widths make, in nats."""
    ### BEGIN SOLUTION
    ratios = [s**2 / std**2 for s in copy_stds]
    return sum(0.5 * (t - 1 - math.log(t)) for t in ratios) / len(ratios)
    ### END SOLUTION


def best_width(mean: float, copy_means: list[float], copy_stds: list[float]) -> float:
    """The standard deviation of the original with the least average divergence."""
    ### BEGIN SOLUTION
    squares = [s**2 + (m - mean) ** 2 for m, s in zip(copy_means, copy_stds, strict=True)]
    return math.sqrt(sum(squares) / len(squares))
    ### END SOLUTION


def retrieved(codes: list[float], copies: list[float]) -> float:
    """The share of copies whose nearest code is that of their own image."""
    ### BEGIN SOLUTION
    nearest = [min(range(len(codes)), key=lambda j: abs(codes[j] - copy)) for copy in copies]
    return sum(k == j for k, j in enumerate(nearest)) / len(copies)
    ### END SOLUTION
'''

SLIPS = {
    "distance in units of the copy's width": ("sum((m - mean) ** 2 for m in copy_means) / (2 * std**2 * len(copy_means))",
        "sum((m - mean) ** 2 / s**2 for m, s in zip(copy_means, copy_stds)) / (2 * len(copy_means))"),
    "a factor of two": ("(2 * std**2 * len(copy_means))", "(std**2 * len(copy_means))"),
    "the divergence the other way round": ("ratios = [s**2 / std**2 for s in copy_stds]", "ratios = [std**2 / s**2 for s in copy_stds]"),
    "standard deviations in place of variances": ("ratios = [s**2 / std**2", "ratios = [s / std"),
    "the spread of the means is forgotten": ("s**2 + (m - mean) ** 2 for", "s**2 for"),
    "asked from the image's side": ("abs(codes[j] - copy)) for copy in copies", "abs(copies[j] - copy)) for copy in codes"),
}  # fmt: skip

EXPERIMENT = """
## Task 2 · The control that decides

The transformation is a shift by at most one pixel of the 8 × 8 digits, `RandomAffine(translate=1 / 8)`. Train a plain VAE, one with augmentation (λ = 0) and one with λ = @weight@, three seeds or more from the same initial weights. Report test NLL, `posterior_divergence` and the share of shifted test images whose nearest code (posterior mean) is their own image's.
What did the divergence add to what augmentation had brought? A result that goes either way, or nowhere, earns full marks.
"""

KEY = (
    (2, "All three rows are there, with λ = 0 as the control; same initial weights, same images, same epochs within a seed."),
    (2, "Differences are taken within a seed; mean and standard error over three seeds or more."),
    (2, "NLL on *unshifted* test images by importance sampling; divergence and retrieval on the same draws of the transformation for all rows."),
    (2, "Reads retrieval beside divergence: a divergence that falls while retrieval does not rise is a vaguer code."),
    (1, "Separates what augmentation brought from what λ added."),
    (1, "Names a limit: one data set, one λ, a small network."),
)  # fmt: skip

MODEL = """
epochs, seeds = 30, 3
train = load("digits").images
test = binarise(load("digits", "test").images, torch.Generator().manual_seed(0))
shift = RandomAffine(translate=1 / 8)
rows = {"plain": elbo, "augmentation": Consistency(elbo, shift, weight=0.0), "CR": Consistency(elbo, shift, weight=@weight@)}
found = {name: [] for name in rows}
for seed in range(seeds):
    with seeded(seed):
        copies = shift(test).round()
    for name, objective in rows.items():
        with seeded(seed):
            model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
        fit(model, objective, train, epochs=epochs, binarise=True, seed=seed, progress=False)
        with seeded(seed), torch.no_grad():
            nearest = torch.cdist(model.posterior(copies).mean, model.posterior(test).mean).argmin(1)
            found[name].append((
                -log_evidence(model, test, samples=300).mean().item(),
                posterior_divergence(model, test, copies).mean().item(),
                (nearest == torch.arange(len(test))).float().mean().item(),
            ))
for name, before in (("augmentation", "plain"), ("CR", "augmentation")):
    for k, what in enumerate(("NLL", "divergence", "retrieval")):
        d = mean_and_standard_error([a[k] - b[k] for a, b in zip(found[name], found[before])])
        print(f"{name} minus {before}, {what}: {d.mean:+.3f} ± {d.standard_error:.3f}")
"""

EXPECT = "The divergence falls by a large factor with λ; retrieval changes far less, and the NLL rises a little."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by torch.distributions and by search."""

    def some() -> tuple[float, float, list[float], list[float]]:
        return (round(r.uniform(-1, 1), 1), r.choice([0.2, 0.3, 0.5]),
                [round(r.uniform(-1.5, 1.5), 1) for _ in range(3)], [r.choice([0.2, 0.4, 0.6, 0.9]) for _ in range(3)])  # fmt: skip

    def kl(mean: float, std: float, means: list[float], stds: list[float]) -> float:
        copies = Normal(torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64))
        return kl_divergence(copies, Normal(torch.tensor(mean, dtype=torch.float64), std)).mean().item()

    def narrowest(mean: float, means: list[float], stds: list[float]) -> float:
        low, high = 0.01, 10.0
        for _ in range(200):  # ternary search: the cost has one valley in the logarithm of the width
            a, b = low * (high / low) ** (1 / 3), low * (high / low) ** (2 / 3)
            low, high = (low, b) if kl(mean, a, means, stds) < kl(mean, b, means, stds) else (a, high)
        return (low * high) ** 0.5

    cases = [some(), some()]
    codes = [[round(r.uniform(-2, 2), 2) for _ in range(6)] for _ in range(2)]
    copies = [[round(code + r.gauss(0, 0.5), 2) for code in row] for row in codes]
    share = [
        sum(all(abs(x - c[k]) < abs(x - other) for j, other in enumerate(c) if j != k) for k, x in enumerate(t)) / 6
        for c, t in zip(codes, copies, strict=True)
    ]
    return {"weight": r.choice([0.5, 1.0, 2.0])}, [
        Part("moved", "the share of moved means, twice", 2,
             [Test(f"moved({m}, {s}, {M}, {S})", kl(m, s, M, [s] * 3)) for m, s, M, S in cases]),
        Part("widened", "the share of widths, twice", 2,
             [Test(f"widened({m}, {s}, {M}, {S})", kl(m, s, [m] * 3, S)) for m, s, M, S in cases]),
        Part("width", "the best width, twice", 2,
             [Test(f"best_width({m}, {M}, {S})", narrowest(m, M, S)) for m, s, M, S in cases]),
        Part("retrieval", "the share retrieved, twice", 2,
             [Test(f"retrieved({c}, {t})", p) for c, t, p in zip(codes, copies, share, strict=True)]),
    ]  # fmt: skip
