"""Answers to chapter 2: each is code, or a change (old, new) of the first right one; wrong ones with what is said of them."""

RIGHT = {
    "2.a": [
        "lambda z, rho, epsilon, force: (lambda half: (lambda new: (new, half - epsilon / 2 * force(new)))"
        "(z + epsilon * half))(rho - epsilon / 2 * force(z))",
        "lambda z, rho, e, f: tuple(end := leapfrog(lambda z: (0 * z[:, 0], f(z)), Phase(z, rho, 0 * z[:, 0], f(z)), e))[:2]",
        "lambda z, r, e, f: (z + e * r - e**2 / 2 * f(z), r - e / 2 * (f(z) + f(z + e * r - e**2 / 2 * f(z))))",
    ],
    "2.b": [
        "lambda p, q, gamma, rho: p - q + (gamma**2 - rho**2).sum(-1) / 2",
        "lambda p, q, g, r: p - q + 0.5 * (g.square().sum(1) - r.square().sum(1))",
        "lambda p, q, g, r: p - q + torch.distributions.Normal(0.0, 1.0).log_prob(r).sum(1)"
        " - torch.distributions.Normal(0.0, 1.0).log_prob(g).sum(1)",
    ],
    "2.1": [
        "solution_2_1",
        "lambda a: torch.stack([(a[k:] ** 2).prod() for k in range(len(a) + 1)])",
        "lambda a: torch.cat([a.prod()[None], a.prod() / a.cumprod(0)]) ** 2",
        "lambda a: [float((a[k:] ** 2).prod()) for k in range(len(a) + 1)]",
    ],
    "2.2": [
        "solution_2_2",
        "lambda c, e: torch.linalg.eigvals(torch.tensor([[1 - e**2 * c / 2, e], [-e * c * (1 - e**2 * c / 4), "
        "1 - e**2 * c / 2]]).double()).abs().max()",
        "lambda c, e: 1.0 if e * c**0.5 < 2 else math.exp(math.acosh(e**2 * c / 2 - 1))",
    ],
    "2.3": [
        "solution_2_3",
        "lambda A, B, E, F, c, u, o, s: 1 - u + math.log(s) + 0.5 * math.log(2 * math.pi) - (c * A**2 + E**2) * (o * o + s * s)"
        " / 2 - (c * B**2 + F**2) / 2",
        "lambda A, B, E, F, c, u, o, s: torch.tensor(0.5 - (E**2 * (o**2 + s**2) + F**2) / 2 - u - c / 2 * ((A * o) ** 2 + "
        "(A * s) ** 2 + B**2)) + torch.distributions.Normal(0.0, s).entropy().double()",
    ],
    "2.4": [
        "solution_2_4",
        # noise in another order, and detached forces instead of a fresh graph
        """(lambda run: run)(lambda model, x, epsilon, alpha: (lambda gamma, q, move: move(gamma, q, q.rsample()))(
            torch.randn(len(x), 2).double(), model.posterior(x), lambda gamma, q, z0: (lambda end: model.log_joint(x, end[0])
            - q.log_prob(z0) + (gamma**2 - end[1] ** 2).sum(1) / 2)(__import__("functools").reduce(
            lambda s, a: (lambda half: (lambda z: (z, a * (half - epsilon / 2 * torch.autograd.grad(
            -model.log_joint(x, z).sum(), z, create_graph=True)[0].detach())))(s[0] + epsilon * half))(s[1] - epsilon / 2 *
            torch.autograd.grad(-model.log_joint(x, s[0]).sum(), s[0], create_graph=True)[0].detach()),
            alpha, (z0, gamma / alpha.prod())))))""",
        # eq. 2.7 has the same mean and the same gradients
        ("gamma_0.square() - rho.square()).sum(-1) / 2", "2 * 0.5 - rho.square()).sum(-1) / 2"),
    ],
}
WRONG = {
    "2.a": [
        ("(lambda half: (lambda new: (new, half - epsilon / 2 * force(new)))(z + epsilon * half))(rho - epsilon / 2 * force(z))",
         "(z + epsilon * rho, rho - epsilon * force(z))", "Euler's step"),
        ("half - epsilon / 2 * force(new)", "half - epsilon / 2 * force(z)", "at the new place"),
        ("(new, half - epsilon / 2 * force(new))", "(new, half)", "result 2 of 2"),
        ("rho - epsilon / 2", "rho - epsilon", "the largest difference"),
        ("epsilon / 2", "epsilon", "half a step"),
        ("- epsilon / 2", "+ epsilon / 2", "go downhill"),
        ("z + epsilon", "z - epsilon", "the largest difference"),
        ("(new, half - epsilon / 2 * force(new))", "(half - epsilon / 2 * force(new), new)", "result 1 of 2"),
        ("(new, half - epsilon / 2 * force(new))", "new", "a tuple of 2"),
        ("force(new)", "force(new).sum(-1)", "raised RuntimeError"),
    ],
    "2.b": [
        ("gamma**2 - rho**2", "rho**2 - gamma**2", "are swapped"),
        (".sum(-1) / 2", ".sum(-1)", "1/2 missing at the momenta"),
        (".sum(-1)", ".mean(-1)", "do not average"),
        (" + (gamma**2 - rho**2).sum(-1) / 2", "", "the momenta are missing"),
        ("p - q", "p + q", "log q is subtracted"),
        ("(gamma**2 - rho**2).sum(-1)", "(gamma.norm(dim=-1) - rho.norm(dim=-1))", "squared length"),
        ("p - q", "q - p", "the largest difference"),
        ("gamma**2", "gamma", "the largest difference"),
        (".sum(-1)", ".sum()", "the largest difference"),
        (".sum(-1)", "", "raised RuntimeError"),
        ("p - q +", "p -", "the largest difference"),
    ],
    "2.1": [
        (".square()", "", "is a square missing"),
        ("ahead = alpha.flip(0).square().cumprod(0).flip(0)", "ahead = alpha.square().cumprod(0)", "the largest difference"),
        ("[ahead, alpha.new_ones(1)]", "[alpha.new_ones(1), alpha.square().cumprod(0)]", "β_0 is the smallest"),
        ("torch.cat([ahead, alpha.new_ones(1)])", "1 / torch.cat([ahead, alpha.new_ones(1)])", "these are temperatures"),
        ("torch.cat([ahead, alpha.new_ones(1)])", "ahead", "β_K = 1 is missing"),
        ("ahead, alpha.new_ones(1)", "ahead[1:], alpha.new_ones(1)", "β_0 is missing"),
        ("[ahead,", "[alpha.square(),", "multiply them up"),
        ("new_ones", "new_zeros", "the largest difference"),
        ("[ahead,", "[-ahead,", "the largest difference"),
        ("cumprod", "cumsum", "the largest difference"),
        ("return torch", "return 2 * torch", "times 2"),
    ],
    "2.2": [
        (".clamp_min(1)", "", "lie on the unit circle"),
        ("(half_trace.abs() + outside).clamp_min(1)", "half_trace.abs()", "half the trace"),
        ("(half_trace.abs() + outside).clamp_min(1)", "2 * half_trace", "this is the trace"),
        ("(half_trace.abs() + outside).clamp_min(1)", "torch.tensor(1 + epsilon**2 * curvature).sqrt()", "Euler's step"),
        ("half_trace.abs() + outside", "half_trace + outside", "the largest difference"),
        ("(half_trace.abs() + outside).clamp_min(1)", "1 / (half_trace.abs() + outside).clamp_min(1)", "the smaller of the two"),
        ("(half_trace.abs() + outside).clamp_min(1)", "(half_trace.abs() + outside).clamp_min(1) ** 2", "in two steps"),
        ("epsilon**2", "epsilon", "not 2 - ε c"),
        ("curvature / 2", "curvature", "half of it is"),
        (".clamp_min(0).sqrt()", ".sqrt()", "nan"),
        ("half_trace**2 - 1", "half_trace**2", "the largest difference"),
        (".clamp_min(1)", ".clamp_max(1)", "the largest difference"),
    ],
    "2.3": [
        ("0.5 - kinetic", "-kinetic", "a 1/2 is missing"),
        ("0.5 - kinetic - potential", "0.5 - potential", "momentum at the end is missing"),
        ("- kinetic", "+ kinetic", "momentum at the end is subtracted"),
        (" + entropy", "", "entropy is missing"),
        ("math.pi * math.e", "math.pi", "the e in the entropy"),
        ("u + c / 2", "c / 2", "valley's floor"),
        ("offset**2 + s**2", "s**2", "two terms"),
        ("c / 2", "c", "1/2 missing at the curvature"),
        ("- potential", "+ potential", "log p(x, z) = -U"),
        ("second_moment + B**2", "second_moment", "B counts"),
        ("math.log(s) + ", "", "the largest difference"),
        ("return torch", "return -torch", "wrong sign"),
        ("A**2", "A", "the largest difference"),
    ],
    "2.4": [
        ("sum(), z)[0]", "sum(), z, create_graph=True)[0]", "this is the full gradient"),
        ("q_z.rsample()", "q_z.sample().requires_grad_()", "draw it with `rsample`"),
        ("    q_z = model.posterior(x)", "    epsilon = epsilon.detach()\n    q_z = model.posterior(x)", "epsilon is detached"),
        ("    q_z = model.posterior(x)", "    alpha = alpha.detach()\n    q_z = model.posterior(x)", "alpha is detached"),
        ("gamma_0 / alpha.prod()", "gamma_0", "it starts hot"),
        ("rho = alpha_k * (rho - epsilon / 2 * grad_U)", "rho = rho - epsilon / 2 * grad_U", "damped by α_k"),
        ("gamma_0.square() - rho.square()", "-rho.square()", "|γ_0|² is missing"),
        ("gamma_0.square() - rho.square()", "gamma_0.square()", "|ρ_K|² is missing"),
        ("gamma_0.square() - rho.square()", "rho.square() - gamma_0.square()", "squares are swapped"),
        ("grad(-model", "grad(model", "push uphill"),
        ("epsilon / 2", "epsilon", "each kick is half a step"),
        ("q_z.log_prob(z_0)", "q_z.log_prob(z)", "at z_0"),
        ("model.log_joint(x, z) - q_z", "model.log_joint(x, z.detach()) - q_z", "gradient"),
        ("q_z.rsample()", "q_z.sample()", "raised RuntimeError"),
        ("+ kinetic", "+ kinetic + 1000", "too large by 1e+03"),
        ("return model.log_joint(x, z)", "return (0 * alpha).sum() + model.log_joint(x, z).detach()", "gradient"),
        (".sum(-1) / 2", ".sum() / 2", "its value"),
    ],
}  # fmt: skip
