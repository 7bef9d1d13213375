"""Chapter 7: three switches and their noise; and a small factorial experiment."""

import itertools
import statistics
from random import Random

import torch

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · Three switches

`y[h][c][j]` is a quantity with the switches H, C and J off (0) or on (1), for one seed; `seeds` is a list of several such cubes. Write

- `effect_when(y)`, what H changes when C is on, averaged over J;
- `three_way(y)`, by how much the interaction H × C, that is $(y_{11j} - y_{01j}) - (y_{10j} - y_{00j})$, is larger with J on than with J off;
- `mean_and_error(seeds)`, the pair of the mean over seeds of `three_way` and its standard error (with $n - 1$ in the variance);
- `chance(n)`, of $n$ independent effects that are not there, tested at @level@ per cent, the probability that *at least one* is called clear.
"""

ANSWER = '''
def effect_when(y: list) -> float:
    """What H changes when C is on, averaged over J."""
    ### BEGIN SOLUTION
    return sum(y[1][1][j] - y[0][1][j] for j in (0, 1)) / 2
    ### END SOLUTION


def three_way(y: list) -> float:
    """The interaction H x C with J on minus that with J off."""
    ### BEGIN SOLUTION
    with_j, without_j = (y[1][1][j] - y[0][1][j] - y[1][0][j] + y[0][0][j] for j in (1, 0))
    return with_j - without_j
    ### END SOLUTION


def mean_and_error(seeds: list) -> tuple[float, float]:
    """Mean and standard error over seeds of the three-way interaction."""
    ### BEGIN SOLUTION
    values = [three_way(y) for y in seeds]
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
    ### END SOLUTION


def chance(n: int) -> float:
    """The probability of at least one false alarm among n."""
    ### BEGIN SOLUTION
    return 1 - (1 - @level@ / 100) ** n
    ### END SOLUTION
'''

SLIPS = {
    "the main effect in place of the conditional one": (
        "sum(y[1][1][j] - y[0][1][j] for j in (0, 1)) / 2", "sum(y[1][c][j] - y[0][c][j] for c in (0, 1) for j in (0, 1)) / 4"),
    "a sum in place of a mean": ("for j in (0, 1)) / 2", "for j in (0, 1))"),
    "the sign is turned round": ("with_j - without_j", "without_j - with_j"),
    "the standard deviation for the standard error": ("math.sqrt(variance / len(values))", "math.sqrt(variance)"),
    "n in place of n - 1": ("(len(values) - 1)", "len(values)"),
    "the expected number of false alarms": ("1 - (1 - @level@ / 100) ** n", "n * @level@ / 100"),
}  # fmt: skip

EXPERIMENT = """
## Task 2 · Two switches of your own

Cross two methods of this book on the 8 × 8 digits, each off or on: `Consistency` (shifts by at most one pixel, λ = @weight@) and `JacobianL1` (weight @gamma@). *Write down first* which sign you expect the interaction on the NLL to have, and why. Then train all four, three seeds or more from the same initial weights, and report both main effects and the interaction with standard errors.
Was the guess borne out? A wrong guess with a good reason earns full marks.
"""

KEY = (
    (2, "The guess and its mechanism stand before the results and were not changed afterwards."),
    (2, "All four combinations, same initial weights and images within a seed; NLL on test images by importance sampling."),
    (2, "Main effects and interaction are computed within a seed, then averaged, with standard errors; definitions as in the chapter."),
    (2, "The verdict follows from mean and standard error; 'not clear' is said where it is so."),
    (1, "The control for copies (λ = 0) is there, or its absence is named."),
    (1, "Says at which weights, for how long, and that another weight may bend the result."),
)  # fmt: skip

MODEL = """
epochs, seeds = 30, 3
train = load("digits").images
test = binarise(load("digits", "test").images, torch.Generator().manual_seed(0))
shift = RandomAffine(translate=1 / 8)
cells = {(0, 0): elbo, (1, 0): Consistency(elbo, shift, weight=@weight@), (0, 1): JacobianL1(elbo, weight=@gamma@, columns=2),
         (1, 1): JacobianL1(Consistency(elbo, shift, weight=@weight@), weight=@gamma@, columns=2)}
y = []
for seed in range(seeds):
    y.append({})
    for switches, objective in cells.items():
        with seeded(seed):
            model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
        fit(model, objective, train, epochs=epochs, binarise=True, seed=seed, progress=False)
        with seeded(seed), torch.no_grad():
            y[-1][switches] = -log_evidence(model, test, samples=300).mean().item()
effects = {
    "C": [(r[1, 0] - r[0, 0] + r[1, 1] - r[0, 1]) / 2 for r in y],
    "J": [(r[0, 1] - r[0, 0] + r[1, 1] - r[1, 0]) / 2 for r in y],
    "C x J": [(r[1, 1] - r[0, 1]) - (r[1, 0] - r[0, 0]) for r in y],
}
for name, values in effects.items():
    print(f"{name}: {mean_and_standard_error(values).mean:+.2f} ± {mean_and_standard_error(values).standard_error:.2f} nats")
"""

EXPECT = "Both costs raise the NLL; whether together they cost more than the sum of both depends on the weights, and the key asks for the reasoning, not for the sign."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by a table of signs, the statistics module, and enumeration."""
    level = r.choice([1, 2, 5, 10])

    def cube() -> list[list[list[float]]]:
        return [[[round(r.uniform(90, 110), 1) for _ in (0, 1)] for _ in (0, 1)] for _ in (0, 1)]

    def contrast(y: list, weight: list[float]) -> float:
        return (torch.tensor(y, dtype=torch.float64).flatten() * torch.tensor(weight, dtype=torch.float64)).sum().item()

    corners = list(itertools.product((-1, 1), repeat=3))
    three = [float(h * c * j) for h, c, j in corners]
    when = [h / 2 if c == 1 else 0.0 for h, c, j in corners]
    cubes = [cube(), cube()]
    several = [[cube() for _ in range(n)] for n in (3, 4)]
    values = [[contrast(y, three) for y in seeds] for seeds in several]
    summary = [(statistics.fmean(v), statistics.stdev(v) / len(v) ** 0.5) for v in values]
    counts = [r.randint(3, 9), r.randint(20, 60)]

    def at_least_one(n: int) -> float:
        none = 1.0
        for _ in range(n):
            none *= 1 - level / 100
        return 1 - none

    return {"level": level, "weight": r.choice([0.5, 1.0]), "gamma": r.choice([0.03, 0.05])}, [
        Part("conditional", "two conditional effects", 2, [Test(f"effect_when({y})", contrast(y, when)) for y in cubes]),
        Part("interaction", "two three-way interactions", 2, [Test(f"three_way({y})", contrast(y, three)) for y in cubes]),
        Part("error", "mean and standard error over three and over four seeds", 2,
             [Test(f"mean_and_error({s})[{k}]", m[k]) for s, m in zip(several, summary, strict=True) for k in (0, 1)]),
        Part("chance", "the probability for two numbers of effects", 2, [Test(f"chance({n})", at_least_one(n)) for n in counts]),
    ]  # fmt: skip
