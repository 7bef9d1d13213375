"""Chapter 4: what a rotation costs; and how noisy a few columns are."""

from random import Random

import torch

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · What a rotation costs

A decoder with two latent variables has a Jacobian $J$ with one row $(a, b)$ for each pixel, given as a list of pairs. Turning the latent axes by $\theta$ degrees makes it $J R$ with $R = \begin{pmatrix} \cos\theta & -\sin\theta \\ \sin\theta & \cos\theta \end{pmatrix}$. Write

- `l1_norm(J, degrees)`, the sum of the absolute values of all entries of $J R$;
- `cheapest(J)`, the whole number of degrees from 0 to 89 at which it is least;
- `spread(J, degrees)`, the standard deviation of its estimate from *one* of the two columns, drawn with equal probability, its $L_1$ norm doubled.

In the lecturer's first test the Jacobian is `@J@`.
"""

ANSWER = '''
def column_norms(J: list[tuple[float, float]], degrees: float) -> tuple[float, float]:
    """The L1 norms of both columns of J R."""
    ### BEGIN SOLUTION
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return sum(abs(a * c + b * s) for a, b in J), sum(abs(b * c - a * s) for a, b in J)
    ### END SOLUTION


def l1_norm(J: list[tuple[float, float]], degrees: float) -> float:
    """The sum of absolute values of the entries of J R."""
    ### BEGIN SOLUTION
    return sum(column_norms(J, degrees))
    ### END SOLUTION


def cheapest(J: list[tuple[float, float]]) -> int:
    """The whole number of degrees, 0 to 89, with the least L1 norm."""
    ### BEGIN SOLUTION
    return min(range(90), key=lambda degrees: l1_norm(J, degrees))
    ### END SOLUTION


def spread(J: list[tuple[float, float]], degrees: float) -> float:
    """The standard deviation of the one-column estimate of the L1 norm."""
    ### BEGIN SOLUTION
    first, second = column_norms(J, degrees)
    return abs(first - second)
    ### END SOLUTION
'''

SLIPS = {
    "degrees are taken for radians": ("math.cos(math.radians(degrees)), math.sin(math.radians(degrees))", "math.cos(degrees), math.sin(degrees)"),
    "squares in place of absolute values": ("sum(abs(a * c + b * s) for a, b in J)", "sum((a * c + b * s) ** 2 for a, b in J)"),
    "the absolute value of the sum": ("sum(abs(b * c - a * s) for a, b in J)", "abs(sum(b * c - a * s for a, b in J))"),
    "the dearest angle": ("min(range(90)", "max(range(90)"),
    "the column's norm is not doubled": ("abs(first - second)", "abs(first - second) / 2"),
}  # fmt: skip

EXPERIMENT = """
## Task 2 · How many columns?

Train a VAE with 8 latent variables on the 8 × 8 digits by `JacobianL1(elbo, weight=@weight@)`. At 50 codes of test images compare `jacobian_l1(model, z)` with its estimate from `columns=k` for k = 1, 2, 4, drawn a few hundred times: mean, standard deviation, and time. Then train with k = @k@ columns and with all, three seeds each, and compare the final *full* norm and the ELBO.
How many columns would you use, and why? A result that goes either way earns full marks.
"""

KEY = (
    (2, "The mean of the estimates agrees with the full norm within its standard error, for every k; this is shown, not asserted."),
    (2, "Standard deviation for every k, and its fall with k; (without replacement it is exactly zero at k = 8)."),
    (1, "Times are measured with repetitions."),
    (2, "Trained models are compared by the *full* norm and by the ELBO on test images, over three seeds, with standard errors."),
    (2, "The recommendation follows from the numbers: noise of the penalty beside the noise that the gradient has anyway, against time."),
    (1, "Does not claim that axes became meaningful: the norm says nothing of that here."),
)  # fmt: skip

MODEL = """
epochs, seeds, repeats = 30, 3, 300
train, test = load("digits").images, load("digits", "test").images[:50]
final = {}
for seed in range(seeds):
    for columns in (@k@, None):
        with seeded(seed):
            model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
        fit(model, JacobianL1(elbo, weight=@weight@, columns=columns), train, epochs=epochs, seed=seed, progress=False)
        with seeded(0), torch.no_grad():
            z = model.posterior(test).mean
            final.setdefault(columns, []).append((jacobian_l1(model, z).mean().item(), elbo(model, test, samples=20).mean().item()))
print({"all" if k is None else k: rows for k, rows in final.items()})
with seeded(1), torch.no_grad():
    full = jacobian_l1(model, z).mean().item()
    for k in (1, 2, 4):
        draws = torch.stack([jacobian_l1(model, z, columns=k).mean() for _ in range(repeats)])
        print(f"k = {k}: {draws.mean():.2f} ± {draws.std() / repeats**0.5:.2f} against {full:.2f}; one draw ± {draws.std():.2f}")
"""

EXPECT = "The estimates are unbiased; their noise is far below that of the ELBO's own draw, so that training with @k@ columns ends at about the same norm."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by matrix products."""

    def rows(n: int) -> list[tuple[float, float]]:
        return [(round(r.uniform(-2, 2), 1), round(r.uniform(-2, 2), 1)) for _ in range(n)]

    def turned(J: list[tuple[float, float]], degrees: float) -> torch.Tensor:
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        R = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        return (torch.tensor(J, dtype=torch.float64) @ R).abs().sum(0)  # [2]

    matrices, angles = [rows(4), rows(6)], [r.randint(5, 85), r.randint(5, 85)]
    pairs = list(zip(matrices, angles, strict=True))
    norms = [Test(f"l1_norm({J}, {angle})", turned(J, angle).sum().item()) for J, angle in pairs]
    best = [
        Test(f"cheapest({J})", torch.stack([turned(J, k).sum() for k in range(90)]).argmin().item()) for J in matrices
    ]
    noise = [Test(f"spread({J}, {angle})", (2 * turned(J, angle)).std(correction=0).item()) for J, angle in pairs]
    return {"J": matrices[0], "weight": r.choice([0.03, 0.05, 0.1]), "k": r.choice([1, 2])}, [
        Part("norm", "the norm of two Jacobians", 3, norms),
        Part("angle", "the cheapest angle of both", 2, best),
        Part("noise", "the spread of the estimate for both", 3, noise),
    ]
