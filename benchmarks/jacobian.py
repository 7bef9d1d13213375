"""The Jacobian's L1 penalty and its gradient: exact columns by forward mode beside the ways that are usual elsewhere.

Forward differences are how the authors of JL1-VAE compute it: one decoder pass over (D + 1) B shifted latents. A
backward pass per pixel is what `torch.autograd` offers first. Run as `python -m benchmarks.jacobian`.
"""

import torch
from torch import Tensor

from benchmarks.timing import interleaved, report
from vaekit import VAE, conv, jacobian_l1, mlp

BATCH, LATENT, ROWS = 64, 10, 8


def forward_differences(model: VAE, z: Tensor, step: float = 1e-3) -> Tensor:
    """[B], by one pass over the latents and their D shifts."""
    shifts = torch.cat([z.new_zeros(1, LATENT), step * torch.eye(LATENT)])  # [D + 1, D]
    images = model.likelihood((z + shifts[:, None]).flatten(0, 1)).mean.unflatten(0, (LATENT + 1, -1))
    return ((images[1:] - images[:1]) / step).abs().flatten(2).sum((0, 2))


def row_by_row(model: VAE, z: Tensor) -> Tensor:
    """[B], the first ROWS pixels only, each by a backward pass of its own."""
    z = z.detach().requires_grad_()
    pixels = model.likelihood(z).mean.flatten(1)
    rows = [torch.autograd.grad(pixels[:, p].sum(), z, create_graph=True)[0] for p in range(ROWS)]
    return torch.stack(rows).abs().sum((0, 2))


def with_gradient(model: VAE, penalty: Tensor) -> None:
    model.zero_grad()
    penalty.mean().backward()


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    networks = {"MLP 784-400": ((1, 28, 28), mlp), "convolutions, 32 x 32": ((1, 32, 32), conv)}
    rows: list[list[object]] = []
    for name, (shape, network) in networks.items():
        model = VAE(*network(shape, LATENT), latent_dim=LATENT)
        z = torch.randn(BATCH, LATENT)
        with torch.no_grad():
            torch.testing.assert_close(jacobian_l1(model, z), forward_differences(model, z), rtol=0.03, atol=0.03)
        calls = {
            "differences": lambda m=model, z=z: with_gradient(m, forward_differences(m, z)),
            "all": lambda m=model, z=z: with_gradient(m, jacobian_l1(m, z)),
            "two": lambda m=model, z=z: with_gradient(m, jacobian_l1(m, z, columns=2)),
            "rows": lambda m=model, z=z: with_gradient(m, row_by_row(m, z)),
        }
        seconds = interleaved(calls, repeats=9)
        seconds["rows"] *= shape[1] * shape[2] / ROWS
        base = seconds["differences"]
        ratios = (seconds[key] / base for key in ("all", "two", "rows"))
        rows.append([name, f"{1e3 * base:.0f} ms", *(f"{r:.2f}" if r < 10 else f"{r:.0f}" for r in ratios)])
    report(
        "jacobian",
        ["decoder", "forward differences", "exact, 10 columns", "exact, 2 of 10 columns", "backward, row by row"],
        rows,
        f"Penalty and gradient, batches of {BATCH}, {LATENT} latents. The others are multiples of its time; "
        f"the last is timed on {ROWS} of the pixels and scaled to all.",
    )


if __name__ == "__main__":
    main()
