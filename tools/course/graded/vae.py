"""Chapter 1: a bound with numbers; and whether a tighter bound in training makes a better model."""

from random import Random

import torch
from torch.distributions import Normal

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · A bound, in numbers

Let $p(z) = \mathcal N(0, 1)$ and $p(x \mid z) = \mathcal N(@a@\,z,\; @s@^2)$: the decoder multiplies by @a@, and the noise has the standard deviation @s@. The guess is $q(z) = \mathcal N(m, v)$, where $v$ is a *variance*.
Write three functions of ordinary numbers, each in nats and in closed form:

- `elbo(x, m, v)`, the evidence lower bound of the guess;
- `best_guess(x)`, the pair $(m, v)$ for which it is largest;
- `gap(x, m, v)`, by how many nats the bound misses $\log p(x)$.
"""

ANSWER = '''
def elbo(x: float, m: float, v: float) -> float:
    """The ELBO of the guess N(m, v) at the observation x, in nats."""
    ### BEGIN SOLUTION
    expected_square = (x - @a@ * m) ** 2 + @a@**2 * v
    log_likelihood = -0.5 * math.log(2 * math.pi * @s@**2) - expected_square / (2 * @s@**2)
    divergence = 0.5 * (m**2 + v - 1 - math.log(v))
    return log_likelihood - divergence
    ### END SOLUTION


def best_guess(x: float) -> tuple[float, float]:
    """Mean and variance of the guess with the largest ELBO."""
    ### BEGIN SOLUTION
    precision = 1 + @a@**2 / @s@**2
    return @a@ * x / @s@**2 / precision, 1 / precision
    ### END SOLUTION


def gap(x: float, m: float, v: float) -> float:
    """log p(x) minus the ELBO, in nats."""
    ### BEGIN SOLUTION
    variance = @a@**2 + @s@**2
    return -0.5 * math.log(2 * math.pi * variance) - x**2 / (2 * variance) - elbo(x, m, v)
    ### END SOLUTION
'''

SLIPS = {
    "v is taken for a standard deviation": ("@a@**2 * v", "@a@**2 * v**2"),
    "the spread of q is forgotten in E log p(x|z)": (" + @a@**2 * v", ""),
    "the KL term is added": ("log_likelihood - divergence", "log_likelihood + divergence"),
    "the prior is left out of the posterior": ("precision = 1 + @a@", "precision = @a@"),
    "the evidence has the decoder's slope in place of its square": ("variance = @a@**2 +", "variance = @a@ +"),
}

EXPERIMENT = """
## Task 2 · Does a tighter bound train a better model?

On the 8 × 8 digits (`load("digits")`, binarised), train VAEs with `elbo` and with `importance_bound` at S = @S@, with the same networks, the same number of epochs and at least three seeds. For each model estimate on test images the NLL (`log_evidence`) and the ELBO.
Which of the two has the lower NLL, and which the higher ELBO? Say in a few sentences what this tells about decoder and encoder. Report differences seed by seed, with their standard error. A result that goes either way, or nowhere, earns full marks.
"""

KEY = (
    (2, "Both trained from the same initial weights, on the same images and for the same number of epochs; tested on images that were not trained on, binarised once."),
    (2, "NLL by importance sampling with many draws (a few hundred at least), the same for both; the ELBO estimated with more than one draw."),
    (2, "Three seeds or more; the difference is taken within a seed; mean and standard error of these differences."),
    (2, "Reads both: the weighted bound trains the decoder on a better estimate of the evidence, while it asks less of the guess itself, so that NLL and ELBO may disagree. Whoever only compares training values gets no point: these are two different bounds."),
    (1, "Says whether the difference exceeds two standard errors, and does not claim more."),
    (1, "Names one thing that was not controlled: time per epoch (@S@ draws cost more), the number of epochs, one data set."),
)  # fmt: skip

MODEL = """
epochs, seeds, draws = 40, 3, 500
train = load("digits").images
test = binarise(load("digits", "test").images, torch.Generator().manual_seed(0))
nll, bound = [], []
for seed in range(seeds):
    for objective in (elbo, partial(importance_bound, samples=@S@)):
        with seeded(seed):
            model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
        fit(model, objective, train, epochs=epochs, binarise=True, seed=seed, progress=False)
        with seeded(seed), torch.no_grad():
            nll.append(-log_evidence(model, test, samples=draws).mean().item())
            bound.append(elbo(model, test, samples=20).mean().item())
for name, values in (("NLL", nll), ("ELBO", bound)):
    difference = mean_and_standard_error([b - a for a, b in zip(values[::2], values[1::2])])
    print(f"{name}, weighted minus plain: {difference.mean:+.2f} ± {difference.standard_error:.2f} nats")
"""

EXPECT = "With forty epochs the weighted bound's NLL is usually lower by some tenths of a nat, and its ELBO is *lower* too: the guess is looser."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by quadrature."""
    a, s, S = r.choice([1.2, 1.4, 1.6, 1.8]), r.choice([0.5, 0.6, 0.7, 0.8]), r.choice([3, 5, 8])
    points = [tuple(round(r.uniform(*u), 2) for u in ((-2, 2), (-1, 1), (0.1, 0.9))) for _ in range(4)]
    values = [(*p, *by_quadrature(a, s, *p)) for p in points]
    bounds = [Test(f"elbo({x}, {m}, {v})", bound) for x, m, v, bound, *_ in values[:3]]
    gaps = [Test(f"gap({x}, {m}, {v})", evidence - bound) for x, m, v, bound, evidence, *_ in values[1:]]
    best = [Test(f"best_guess({x})[{k}]", row[5 + k]) for row in values for x in row[:1] for k in (0, 1)]
    return {"a": a, "s": s, "S": S}, [
        Part("bound", "the ELBO at three places", 3, bounds),
        Part("guess", "the best guess at four observations", 2, best),
        Part("gap", "the gap at three places", 3, gaps),
    ]


def by_quadrature(a: float, s: float, x: float, m: float, v: float) -> tuple[float, float, float, float]:
    """ELBO, log-evidence, posterior mean and variance, by adding up over a fine grid."""
    z = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    joint = Normal(0.0, 1.0).log_prob(z) + Normal(a * z, s).log_prob(torch.tensor(x, dtype=torch.float64))
    q = Normal(m, v**0.5).log_prob(z)
    evidence = torch.trapezoid(joint.exp(), z)
    posterior = joint.exp() / evidence
    mean = torch.trapezoid(posterior * z, z)
    variance = torch.trapezoid(posterior * (z - mean) ** 2, z)
    return torch.trapezoid(q.exp() * (joint - q), z).item(), evidence.log().item(), mean.item(), variance.item()
