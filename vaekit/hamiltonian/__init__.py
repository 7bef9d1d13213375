r"""Chapter 2: a posterior that follows the model's own gradient (HVAE; Caterini, Doucet & Sejdinovic, 2018).

The encoder proposes a latent code; K leapfrog steps of Hamiltonian dynamics in the model's log density then carry it
towards the true posterior, and since each step keeps volume the bound stays exact, unbiased and differentiable.

Read first: `dynamics` (the integrator and its tempering), then `bound` (`HamiltonianBound`, the paper's algorithm 1).
`planar` is the flow it is compared with; `shared_gaussian` and `shared_posteriors` are the paper's section 4.1, a model
whose evidence is known. The paper: https://arxiv.org/abs/1805.11328
"""

from vaekit.hamiltonian import shared_gaussian, shared_posteriors
from vaekit.hamiltonian.bound import HamiltonianBound
from vaekit.hamiltonian.dynamics import (
    Phase,
    Potential,
    energy_errors,
    leapfrog,
    potential_of,
    tempered_flow,
    total_energy,
)
from vaekit.hamiltonian.planar import PlanarBound, planar

__all__ = [
    "HamiltonianBound",
    "Phase",
    "PlanarBound",
    "Potential",
    "energy_errors",
    "leapfrog",
    "planar",
    "potential_of",
    "shared_gaussian",
    "shared_posteriors",
    "tempered_flow",
    "total_energy",
]
