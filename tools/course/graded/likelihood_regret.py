"""Chapter 3: a threshold with consequences; and how many steps a regret needs."""

from random import Random

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · A threshold with consequences

A guard raises the alarm for an image whose score is *above* a threshold. Of all images that come by, a share of @prevalence@ is from outside. A missed outside image costs @miss@, an alarm for an inside image costs @alarm@. Given scores of inside and of outside images (two lists of numbers), write

- `expected_cost(inside, outside, threshold)`, the expected cost of one image that comes by; the lists stand for how the scores of either kind are distributed, *not* for how often each kind comes by;
- `best_threshold(inside, outside)`, the score (from either list) that as a threshold has the least expected cost; the smallest such score if there are several;
- `false_alarms(inside, outside, share)`, the share of inside images above the *highest* threshold, among the scores, at which at least the given share of the outside images raises the alarm; 1 if there is no such threshold.
"""

ANSWER = '''
def expected_cost(inside: list[float], outside: list[float], threshold: float) -> float:
    """The expected cost of one image that comes by."""
    ### BEGIN SOLUTION
    missed = sum(score <= threshold for score in outside) / len(outside)
    accused = sum(score > threshold for score in inside) / len(inside)
    return @prevalence@ * @miss@ * missed + (1 - @prevalence@) * @alarm@ * accused
    ### END SOLUTION


def best_threshold(inside: list[float], outside: list[float]) -> float:
    """The score with the least expected cost as a threshold."""
    ### BEGIN SOLUTION
    return min(sorted(inside + outside), key=lambda threshold: expected_cost(inside, outside, threshold))
    ### END SOLUTION


def false_alarms(inside: list[float], outside: list[float], share: float) -> float:
    """The share of inside images accused when at least `share` of the outside images are caught."""
    ### BEGIN SOLUTION
    for threshold in sorted(inside + outside, reverse=True):
        if sum(score > threshold for score in outside) >= share * len(outside):
            return sum(score > threshold for score in inside) / len(inside)
    return 1.0
    ### END SOLUTION
'''

SLIPS = {
    "the two kinds come by equally often": (
        "(1 - @prevalence@) * @alarm@ * accused",
        "@prevalence@ * @alarm@ * accused",
    ),
    "the costs are exchanged": ("@prevalence@ * @miss@ * missed", "@prevalence@ * @alarm@ * missed"),
    "counts in place of shares": ("for score in outside) / len(outside)", "for score in outside)"),
    "the first threshold instead of the highest": (", reverse=True", ""),
}

EXPERIMENT = """
## Task 2 · How long should a model regret?

Train a VAE on the 8 × 8 digits. The outside images are test digits turned by 90 degrees (`torch.rot90`). Compute the AUROC of the NLL and of `likelihood_regret(..., adapt="posterior")` with @few@ and with @many@ steps, for three seeds of training or more, each with its standard error.
How does the number of steps change the score, and by which images would you be *allowed* to choose it? A result that goes either way earns full marks.
"""

KEY = (
    (2, "Inside and outside images are both unseen test images; the model was trained on digits that stand upright alone."),
    (2, "AUROC of NLL and of both regrets with standard errors; higher scores mean outside throughout."),
    (2, "Three trainings or more; says which standard error is over images and which over trainings."),
    (2, "Steps are read as part of the score: few steps count the gaps that close quickly. The comparison of @few@ with @many@ is stated with its uncertainty."),
    (2, "Choosing the steps by these outside images would make the score a classifier for turned digits; a choice needs other outliers, or none."),
)  # fmt: skip

MODEL = """
epochs, seeds, count = 40, 3, 200
train, inside = load("digits").images, load("digits", "test").images[:count]
outside = torch.rot90(inside, dims=(2, 3))
both, kind = torch.cat([inside, outside]), torch.arange(2 * count) >= count
for seed in range(seeds):
    with seeded(seed):
        model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
    fit(model, elbo, train, epochs=epochs, seed=seed, progress=False)
    with seeded(seed):
        scores = {"NLL": -log_evidence(model, both, samples=200).detach()}
        for steps in (@few@, @many@):
            scores[f"regret, {steps} steps"] = likelihood_regret(model, both, adapt="posterior", steps=steps, progress=False)
    for name, score in scores.items():
        area = auroc(score[~kind], score[kind])
        print(f"seed {seed}, {name}: {area.value:.3f} ± {area.standard_error:.3f}")
"""

EXPECT = "Turned digits are less likely, so that the NLL is a good score here, often the better one; the regret needs tens of steps to come near. That the NLL wins is a finding, not a mistake."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by going through every pair of an image and a threshold."""
    prevalence, miss, alarm = r.choice([0.02, 0.05, 0.1]), r.choice([20, 30, 50]), r.choice([1, 2, 3])

    def cost(inside: list[float], outside: list[float], threshold: float) -> float:
        chance = [(prevalence / len(outside), miss if s <= threshold else 0) for s in outside]
        chance += [((1 - prevalence) / len(inside), alarm if s > threshold else 0) for s in inside]
        return sum(p * c for p, c in chance)

    def two_best(inside: list[float], outside: list[float]) -> list[tuple[float, float]]:
        return sorted((cost(inside, outside, t), t) for t in set(inside + outside))[:2]

    def scores(n: int) -> tuple[list[float], list[float]]:
        while True:  # until one threshold is clearly the best, so that rounding cannot make another so
            inside = [round(r.gauss(0, 1), 1) for _ in range(12)]
            outside = [round(r.gauss(1.2, 1.2), 1) for _ in range(n)]
            (first, _), (second, _) = two_best(inside, outside)
            if second - first > 1e-6:
                return inside, outside

    def accused(inside: list[float], outside: list[float], share: float) -> float:
        caught = [t for t in inside + outside if sum(s > t for s in outside) / len(outside) >= share - 1e-12]
        return sum(s > max(caught) for s in inside) / len(inside) if caught else 1.0

    sets = [scores(7), scores(9)]
    places = [round(r.uniform(-0.5, 1.5), 2) for _ in sets]
    share = r.choice([0.5, 0.6, 0.7])
    return {
        "prevalence": prevalence, "miss": miss, "alarm": alarm, "few": r.choice([5, 10]), "many": r.choice([100, 200]),

    }, [
        Part("cost", "the cost at two thresholds", 3,
             [Test(f"expected_cost({i}, {o}, {t})", cost(i, o, t)) for (i, o), t in zip(sets, places, strict=True)]),
        Part("best", "the best threshold for two sets of scores", 2,
             [Test(f"best_threshold({i}, {o})", two_best(i, o)[0][1]) for i, o in sets]),
        Part("alarms", "the false alarms at two shares", 3,
             [Test(f"false_alarms({i}, {o}, {p})", accused(i, o, p)) for i, o in sets for p in (share, 1.0)]),
    ]  # fmt: skip
