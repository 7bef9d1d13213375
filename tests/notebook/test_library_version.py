"""Stored results name the library by one number: when its objectives or scores give others, that number must rise.

`python -m tests.notebook.test_library_version` writes the numbers of today; do it together with a higher
`vaekit.notebook.store.LIBRARY`.
"""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from vaekit import (
    VAE,
    HamiltonianBound,
    elbo,
    fit,
    gaussian,
    importance_bound,
    log_evidence,
    mlp,
    self_influence,
    tracin,
)  # fmt: skip
from vaekit.consistency import Consistency, RandomAffine
from vaekit.hamiltonian import PlanarBound
from vaekit.jacobian import JacobianL1, jacobian_l1
from vaekit.metrics import active_units, mutual_information
from vaekit.notebook import store
from vaekit.regret import input_complexity, likelihood_ratio, likelihood_regret, negative_log_likelihood
from vaekit.training import fit_ensemble, seeded

FILE = Path(__file__).with_name("library_version.json")
X = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def vae(**change):
    with seeded(0):
        return VAE(*mlp((1, 4, 4), 2, hidden=(8,)), latent_dim=2, **change).double()


def flow(kind, **change):
    with seeded(1):
        return kind(2, **change).double()


def at(model):
    return [{"model": model.state_dict(), "lr": 0.1}]


OBJECTIVES = {
    "elbo": lambda: elbo,
    "importance": lambda: partial(importance_bound, samples=3),
    "hamiltonian": lambda: flow(HamiltonianBound, steps=2, step_size=0.1),
    "planar": lambda: flow(PlanarBound, steps=2),
    "jacobian": lambda: JacobianL1(elbo, weight=0.1),
    "consistency": lambda: Consistency(elbo, RandomAffine(translate=0.2), weight=1.0),
}
SCORES = {
    "log evidence": lambda m: log_evidence(m, X, samples=20),
    "regret": lambda m: likelihood_regret(m, X, steps=3, progress=False),
    "negative log-likelihood": lambda m: negative_log_likelihood(m, X, samples=20),
    "likelihood ratio": lambda m: likelihood_ratio(m, vae(), X),
    "complexity": lambda m: input_complexity(m, X),
    "jacobian": lambda m: jacobian_l1(m, torch.ones(3, 2, dtype=torch.float64)),
    "influence": lambda m: tracin(m, elbo, at(m), X[:4], X[:2], samples=2, progress=False),
    "self-influence": lambda m: self_influence(m, elbo, at(m), X[:4], samples=2, progress=False),
    "active units": lambda m: active_units(m, X).variance,
    "mutual information": lambda m: torch.tensor([mutual_information(m, X).nats]),
}


def trained_by(name):
    model = vae(likelihood=gaussian(0.5)) if name == "jacobian" else vae()
    history = fit(model, OBJECTIVES[name](), X, epochs=2, batch_size=5, progress=False, device="cpu")
    return [*history.train, *next(model.parameters()).detach().flatten()[:3].tolist()]


def scored_by(name):
    with seeded(3):
        return SCORES[name](vae().eval()).detach().double().flatten()[:6].tolist()


def ensemble():
    return fit_ensemble([vae(), vae()], elbo, X, epochs=2, progress=False, device="cpu").flatten().tolist()


CASES = {f"objective: {name}": partial(trained_by, name) for name in OBJECTIVES}
CASES |= {f"score: {name}": partial(scored_by, name) for name in SCORES} | {"ensemble": ensemble}


@pytest.mark.parametrize("name", CASES)
def test_the_librarys_numbers_are_those_of_its_version(name):
    stored = json.loads(FILE.read_text())
    assert stored["library"] == store.LIBRARY, "write the numbers anew: python -m tests.notebook.test_library_version"
    found = CASES[name]()
    assert found == pytest.approx(stored["numbers"][name], rel=1e-6, abs=1e-9), (
        "stored results are of other numbers: raise store.LIBRARY, then python -m tests.notebook.test_library_version"
    )


if __name__ == "__main__":
    numbers = {name: case() for name, case in CASES.items()}
    FILE.write_text(json.dumps({"library": store.LIBRARY, "numbers": numbers}, indent=1) + "\n")
