"""Draw README's animation: `python -m tools.ring` writes book/pictures/ring.gif.

Four hundred draws of a Gaussian are carried to a ring-shaped posterior by tempered leapfrog steps (chapter 2): the
momentum starts large and shrinks at each step, so that the particles spread first and settle later.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

from vaekit.hamiltonian.dynamics import Phase, leapfrog
from vaekit.notebook.figures import COLOURS

TARGET = Path(__file__).resolve().parent.parent / "book" / "pictures" / "ring.gif"
STEPS, BETWEEN, START = 14, 3, 0.5  # leapfrog steps, pictures a step, square root of the first inverse temperature


def potential(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """U(z) = |z|²/2 + (1.5 - |z|)² / (2 · 0.3²), the chapter's ring, and its gradient."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        radius = (z.square().sum(-1) + 0.01).sqrt()
        energy = z.square().sum(-1) / 2 + ((radius - 1.5) / 0.3).square() / 2
        return energy.detach(), torch.autograd.grad(energy.sum(), z)[0]


def path() -> list[torch.Tensor]:
    """Where the particles are, picture by picture: [400, 2] each."""
    generator = torch.Generator().manual_seed(0)
    z, rho = 0.5 * torch.randn(400, 2, generator=generator), torch.randn(400, 2, generator=generator) / START
    state, places = Phase(z, rho, *potential(z)), [z]
    for _ in range(STEPS * BETWEEN):
        state = leapfrog(potential, state, 0.14 / BETWEEN)
        cooled = START ** (1 / (STEPS * BETWEEN))
        state = state._replace(rho=state.rho * cooled)
        places.append(state.z)
    return places


def main() -> None:
    """Draw, and write the animation with few colours, which keeps it small."""
    axis = torch.linspace(-2.6, 2.6, 201)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    density = (-potential(grid)[0]).exp()
    pictures = []
    for z in path():
        fig, ax = plt.subplots(figsize=(3.2, 3.2), dpi=100)
        ax.contourf(axis, axis, density, levels=6, cmap="Blues")
        ax.scatter(z[:, 0], z[:, 1], s=5, color=COLOURS[1])
        ax.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
        ax.set_axis_off()
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0)
        plt.close(fig)
        pictures.append(Image.open(buffer).convert("RGB").quantize(32))
    durations = [900, *[70] * (len(pictures) - 2), 1800]
    pictures[0].save(TARGET, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


if __name__ == "__main__":
    main()
