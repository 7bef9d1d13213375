"""Chapter 6: who carried the probability, exactly; and a search for strangers."""

from random import Random

import torch

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · Who carried the probability?

A histogram with $B$ bins and *smoothing* @a@ gives bin $b$ the probability $\hat p(b) = (n_b + @a@) / (N + @a@ B)$, where $n_b$ of the $N$ training points lie in bin $b$. Bins are numbered from 0; `counts` is the list of the $n_b$. Write, in nats, positive for a proponent,

- `influence(counts, i, b)`, the exact leave-one-out influence of a training point in bin $i$ on a test point in bin $b$: $\log \hat p(b) - \log \hat p_{-i}(b)$;
- `strongest_on_itself(counts)`, the bin whose points have the largest self-influence (among bins that are not empty);

and for the one-parameter objective $o(x; \theta) = -\tfrac12 (x - \theta)^2$, to be maximised,

- `tracin(x, z, thetas, rates)`, the TracIn score of the training point $x$ on the test point $z$, with a list of checkpoints and of their learning rates.
"""

ANSWER = '''
def influence(counts: list[int], i: int, b: int) -> float:
    """log p(b) minus log p(b) without a point in bin i, in nats."""
    ### BEGIN SOLUTION
    total, bins = sum(counts), len(counts)
    with_it = (counts[b] + @a@) / (total + @a@ * bins)
    without = (counts[b] - (i == b) + @a@) / (total - 1 + @a@ * bins)
    return math.log(with_it) - math.log(without)
    ### END SOLUTION


def strongest_on_itself(counts: list[int]) -> int:
    """The bin whose points influence themselves most."""
    ### BEGIN SOLUTION
    occupied = [b for b, count in enumerate(counts) if count > 0]
    return max(occupied, key=lambda b: influence(counts, b, b))
    ### END SOLUTION


def tracin(x: float, z: float, thetas: list[float], rates: list[float]) -> float:
    """The sum over checkpoints of rate times the product of both gradients."""
    ### BEGIN SOLUTION
    return sum(rate * (x - theta) * (z - theta) for theta, rate in zip(thetas, rates, strict=True))
    ### END SOLUTION
'''

SLIPS = {
    "the sign is turned round": ("math.log(with_it) - math.log(without)", "math.log(without) - math.log(with_it)"),
    "N stays what it was": ("(total - 1 + @a@ * bins)", "(total + @a@ * bins)"),
    "the smoothing is forgotten without the point": ("(counts[b] - (i == b) + @a@)", "(counts[b] - (i == b) + 1)"),
    "an empty bin is allowed": ("if count > 0", "if count >= 0"),
    "the fullest bin": ("return max(occupied", "return min(occupied"),
    "the learning rates are left out": ("sum(rate * (x - theta)", "sum((x - theta)"),
}

EXPERIMENT = """
## Task 2 · A search for strangers

Hide @hidden@ strangers among 1,000 training digits (8 × 8): other digits with black and white exchanged in the left half. Train a VAE by plain stochastic gradient ascent (`optimizer=torch.optim.SGD`), keep five checkpoints or more, and rank the training images by `self_influence`, by loss (minus the ELBO), and by pixel distance to the tenth-nearest image.
Report mean recall or ROC AUC of each score, over three seeds or more. Does influence find what the simpler scores do not? A result that goes either way earns full marks.
"""

KEY = (
    (2, "Trained without momentum, with checkpoints over the whole training; says at which learning rate and why it is stable."),
    (2, "All three scores on the same images; the name of the measure (mean recall or ROC AUC) is right, and its value by chance or at best is given."),
    (2, "Three seeds or more, with standard errors; the strangers are drawn anew in each."),
    (2, "Compares with the loss *and* the distance, and says plainly which is best and at what cost."),
    (2, "Looks at some of the images that are ranked high and are no strangers, and says what a high self-influence means."),
)  # fmt: skip

MODEL = """
epochs, seeds, hidden = 40, 3, @hidden@
digits, areas = load("digits").images, {}
for seed in range(seeds):
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    images = digits[order[: 1000 + hidden]].clone()
    images[1000:, ..., :4] = 1 - images[1000:, ..., :4]
    strange = torch.arange(len(images)) >= 1000
    with seeded(seed):
        model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
    with TemporaryDirectory() as folder:
        history = fit(model, elbo, images, epochs=epochs, lr=5e-3, optimizer=torch.optim.SGD, seed=seed,
                      checkpoints=folder, checkpoint_every=epochs // 5 or 1, progress=False)
        scores = {"self-influence": self_influence(model, elbo, history.checkpoints, images, samples=4, seed=seed, progress=False)}
    with seeded(seed), torch.no_grad():
        scores["loss"] = -elbo(model, images, samples=20)
    scores["distance"] = torch.cdist(images.flatten(1), images.flatten(1)).kthvalue(11).values
    for name, score in scores.items():
        areas.setdefault(name, []).append(auroc(score[~strange], score[strange]).value)
for name, values in areas.items():
    print(f"{name}: ROC AUC {mean_and_standard_error(values).mean:.3f} ± {mean_and_standard_error(values).standard_error:.3f}")
"""

EXPECT = "Half-inverted digits are far from every other image, so that the plain distance finds nearly all; the loss does well; self-influence is behind."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by really leaving a point out, and by automatic differentiation."""
    a = r.choice([0.25, 0.5, 0.75, 1.5])

    def fitted(points: list[int], bins: int) -> list[float]:
        return [(points.count(b) + a) / (len(points) + a * bins) for b in range(bins)]

    def left_out(counts: list[int], i: int, b: int) -> float:
        points = [k for k, n in enumerate(counts) for _ in range(n)]
        without = list(points)
        without.remove(i)
        ratio = fitted(points, len(counts))[b] / fitted(without, len(counts))[b]
        return torch.tensor(ratio, dtype=torch.float64).log().item()

    lonely = r.randint(0, 4)
    counts = [r.sample(range(3, 12), 5), r.sample(range(4, 15), 6)]
    counts[0][lonely] = 1
    counts[1][0] = 0
    asked = [(row, *r.sample([k for k, n in enumerate(row) if n], 2)) for row in counts]
    pairs = [(row, i, b) for row, i, b in asked] + [(row, i, i) for row, i, _ in asked]
    best = [max((k for k, n in enumerate(row) if n), key=lambda k, row=row: left_out(row, k, k)) for row in counts]

    def traced(x: float, z: float, thetas: list[float], rates: list[float]) -> float:
        total = 0.0
        for theta, rate in zip(thetas, rates, strict=True):
            t = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
            (g,) = torch.autograd.grad(-0.5 * (x - t) ** 2, t)
            (h,) = torch.autograd.grad(-0.5 * (z - t) ** 2, t)
            total += rate * (g * h).item()
        return total

    runs = [(round(r.uniform(-2, 2), 1), round(r.uniform(-2, 2), 1), [round(r.uniform(-1, 1), 2) for _ in range(3)],
             [r.choice([0.1, 0.05, 0.02]) for _ in range(3)]) for _ in range(2)]  # fmt: skip
    return {"a": a, "hidden": r.choice([20, 30, 40])}, [
        Part("influence", "four influences, two of a point on itself", 4,
             [Test(f"influence({row}, {i}, {b})", left_out(row, i, b)) for row, i, b in pairs]),
        Part("loneliest", "the loneliest bin of two histograms", 2,
             [Test(f"strongest_on_itself({row})", k) for row, k in zip(counts, best, strict=True)]),
        Part("tracin", "two TracIn scores", 2,
             [Test(f"tracin({x}, {z}, {t}, {e})", traced(x, z, t, e)) for x, z, t, e in runs]),
    ]  # fmt: skip
