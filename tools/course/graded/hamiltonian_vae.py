"""Chapter 2: a flow by hand in one dimension; and nats against seconds."""

from random import Random

import torch

from tools.course.assignment import Part, Test

TASK = r"""
## Task 1 · A flow, by hand

A single latent variable has the potential $U(z) = \tfrac12 z^2 + \tfrac{@c@}{4} z^4$. Write three functions of ordinary numbers:

- `flow(z, rho, epsilon, alphas)`, which carries position and momentum through as many leapfrog steps of size $\epsilon$ as there are numbers in the list `alphas`, and after step $k$ multiplies the momentum by $\alpha_k$; it returns the pair $(z, \rho)$;
- `log_det(alphas, dim)`, the log absolute determinant of such a flow with `dim` latent variables;
- `largest_step(widths)`, the step size up to which leapfrog is stable for a Gaussian posterior whose standard deviations along its axes are the list `widths`.
"""

ANSWER = '''
def flow(z: float, rho: float, epsilon: float, alphas: list[float]) -> tuple[float, float]:
    """Position and momentum after len(alphas) damped leapfrog steps."""
    ### BEGIN SOLUTION
    for alpha in alphas:
        rho = rho - epsilon / 2 * (z + @c@ * z**3)
        z = z + epsilon * rho
        rho = alpha * (rho - epsilon / 2 * (z + @c@ * z ** 3))
    return z, rho
    ### END SOLUTION


def log_det(alphas: list[float], dim: int) -> float:
    """The log absolute determinant of the whole flow."""
    ### BEGIN SOLUTION
    return dim * math.fsum(math.log(alpha) for alpha in alphas)
    ### END SOLUTION


def largest_step(widths: list[float]) -> float:
    """The step size at which the motion turns unstable."""
    ### BEGIN SOLUTION
    return 2 * min(widths)
    ### END SOLUTION
'''

SLIPS = {
    "whole kicks in place of half ones": (
        "rho = rho - epsilon / 2 * (z + @c@ * z**3)", "rho = rho - epsilon * (z + @c@ * z**3)",
    ),
    "the force has the wrong sign": (
        "rho = rho - epsilon / 2 * (z + @c@ * z**3)", "rho = rho + epsilon / 2 * (z + @c@ * z**3)",
    ),
    "the position is damped, too": ("z = z + epsilon * rho", "z = alpha * (z + epsilon * rho)"),
    "the dimension is forgotten": ("dim * math.fsum", "math.fsum"),
    "the widest axis instead of the narrowest": ("2 * min(widths)", "2 * max(widths)"),
}  # fmt: skip

EXPERIMENT = """
## Task 2 · Nats against seconds

On the 8 × 8 digits, train a VAE with `HamiltonianBound(8, steps=@K@)`, and VAEs with `elbo` and with `importance_bound`, the last with as many samples as take about the same time per epoch. Three seeds or more. Estimate each model's test NLL with its own *unbiased* weights.
Which of them would you choose at equal epochs, and which at equal time? A result that goes either way, or nowhere, earns full marks.
"""

KEY = (
    (2, "NLL of the Hamiltonian model by `log_evidence(..., log_weight=bound.log_weight)`; not by equation 12, and not by the ELBO's weights without saying so."),
    (2, "Time was measured, not guessed; the number of samples S was chosen by it, and both times are reported."),
    (2, "Three seeds or more, differences within a seed, standard errors."),
    (2, "Answers both questions, at equal epochs and at equal time, from the numbers that are shown."),
    (1, "Says on which machine, and that one small network on one data set was tried."),
    (1, "Says when the flow could be worth more: a posterior far from a Gaussian, longer training, a larger K."),
)  # fmt: skip

MODEL = """
epochs, seeds, draws = 30, 3, 500
train = load("digits").images
test = binarise(load("digits", "test").images, torch.Generator().manual_seed(0))
found = {}
for seed in range(seeds):
    flow_bound = HamiltonianBound(8, steps=@K@, step_size=0.1)
    for name, objective in (("ELBO", elbo), ("weighted, S = @S@", partial(importance_bound, samples=@S@)), ("HVAE", flow_bound)):
        with seeded(seed):
            model = VAE(*mlp((1, 8, 8), 8, hidden=(64,)), latent_dim=8)
        history = fit(model, objective, train, epochs=epochs, binarise=True, seed=seed, progress=False)
        weigh = objective.log_weight if name == "HVAE" else log_weight
        with seeded(seed), torch.no_grad():
            nll = -log_evidence(model, test, samples=draws, log_weight=weigh).mean().item()
        found.setdefault(name, []).append((nll, history.seconds))
for name, rows in found.items():
    gain = mean_and_standard_error([a[0] - b[0] for a, b in zip(found["ELBO"], rows)])
    print(f"{name}: gain {gain.mean:.2f} ± {gain.standard_error:.2f} nats, {sum(t for _, t in rows) / seeds:.1f} s")
"""

EXPECT = "At this size the weighted bound tends to gain as much as the flow in less time; the flow's gain over the ELBO is about its own standard error."


def draw(r: Random) -> tuple[dict[str, object], list[Part]]:
    """Numbers, and tests by automatic differentiation."""
    c, K, S = r.choice([0.4, 0.6, 0.8, 1.2]), r.choice([2, 3, 4]), r.choice([5, 10])
    starts = [
        (round(r.uniform(-1.5, 1.5), 2), round(r.uniform(-1, 1), 2), r.choice([0.1, 0.15, 0.2])) for _ in range(2)
    ]
    lists = [[round(r.uniform(0.7, 0.98), 2) for _ in range(n)] for n in (2, 4)]
    ends = [Test(f"flow({z}, {rho}, {e}, {a})[{k}]", by_autograd(c, z, rho, e, a)[k])
            for (z, rho, e), a in zip(starts, lists, strict=True) for k in (0, 1)]  # fmt: skip
    volumes = [Test(f"log_det({a}, {dim})", dim * volume(c, *start, a))
               for (start, a), dim in zip(zip(starts, lists, strict=True), (1, r.randint(5, 30)), strict=True)]  # fmt: skip
    widths = [[round(r.uniform(0.02, 1.5), 2) for _ in range(n)] for n in (2, 5)]
    steps = [Test(f"largest_step({w})", 2 / max(1 / value**2 for value in w) ** 0.5) for w in widths]
    return {"c": c, "K": K, "S": S}, [
        Part("flow", "where two flows end", 4, ends),
        Part("volume", "the determinant of two flows", 2, volumes),
        Part("step", "the largest stable step for two posteriors", 2, steps),
    ]


def by_autograd(c: float, z: float, rho: float, epsilon: float, alphas: list[float]) -> torch.Tensor:
    """Where the flow ends, [2], its force differentiated from the potential."""
    start = torch.tensor([z, rho], dtype=torch.float64)
    return _flow(c, start, epsilon, alphas).detach()


def volume(c: float, z: float, rho: float, epsilon: float, alphas: list[float]) -> float:
    """The log-determinant of the flow's Jacobian, by automatic differentiation."""
    start = torch.tensor([z, rho], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda s: _flow(c, s, epsilon, alphas), start)
    return torch.linalg.slogdet(jacobian)[1].item()


def _flow(c: float, state: torch.Tensor, epsilon: float, alphas: list[float]) -> torch.Tensor:
    def force(z: torch.Tensor) -> torch.Tensor:
        return -torch.func.grad(lambda u: 0.5 * u**2 + c / 4 * u**4)(z)

    z, rho = state
    for alpha in alphas:
        rho = rho + epsilon / 2 * force(z)
        z = z + epsilon * rho
        rho = alpha * (rho + epsilon / 2 * force(z))
    return torch.stack([z, rho])
