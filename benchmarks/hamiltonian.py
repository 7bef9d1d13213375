"""One training step of the Hamiltonian VAE: 784-400-20, batches of 100, Adam, beside pythae's HVAE.

Run as `python -m benchmarks.hamiltonian`; pythae 0.1.2 (`pip install vaekit[bench]`) is left out where it is missing.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved, report
from vaekit import VAE, HamiltonianBound, elbo, mlp
from vaekit.checks import trusted
from vaekit.hamiltonian import potential_of
from vaekit.training import default_device

SHAPE, LATENT, BATCH = (1, 28, 28), 20, 100
Step = Callable[[], object]


def stepper(module: nn.Module, loss: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


class Doubled(HamiltonianBound):
    """The same flow with the gradient asked for twice in each step: 2K evaluations."""

    def trajectory(self, model: VAE, x: Tensor, z: Tensor, rho: Tensor) -> list:
        potential = potential_of(model, x)
        epsilon, alpha = self.step_size, self.alpha
        for k in range(self.steps):
            rho = rho - epsilon / 2 * potential(z)[1]
            z = z + epsilon * rho
            energy, gradient = potential(z)
            rho = alpha[k] * (rho - epsilon / 2 * gradient)
        return [End(rho, energy)]


class Truncated(HamiltonianBound):
    """The same flow with the gradients inside the steps taken for constants, as pythae takes them."""

    def trajectory(self, model: VAE, x: Tensor, z: Tensor, rho: Tensor) -> list:
        potential = potential_of(model, x)
        epsilon, alpha = self.step_size, self.alpha

        def constant(z: Tensor) -> Tensor:
            with torch.no_grad():
                return potential(z)[1]

        gradient = constant(z)
        for k in range(self.steps):
            rho = rho - epsilon / 2 * gradient
            z = z + epsilon * rho
            gradient = constant(z)
            rho = alpha[k] * (rho - epsilon / 2 * gradient)
        return [End(rho, -model.log_joint(x, z))]


class End:
    def __init__(self, rho: Tensor, energy: Tensor) -> None:
        self.rho, self.energy = rho, energy


def ours(x: Tensor, bound: Callable[..., Tensor], *, compiled: bool = False) -> Step:
    model = VAE(*mlp(SHAPE, LATENT), latent_dim=LATENT).to(x.device)
    both = nn.ModuleList([model, bound]) if isinstance(bound, nn.Module) else model
    objective = torch.compile(lambda x: bound(model, x)) if compiled else lambda x: bound(model, x)
    return stepper(both, lambda: -objective(x).mean())


def pythae(x: Tensor, steps: int) -> Step:
    from pythae.models import HVAE, HVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.latent_dim = mlp(SHAPE, LATENT)[0], LATENT

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.net(x).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(SHAPE, LATENT)[1]

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = HVAEConfig(
            input_dim=SHAPE, latent_dim=LATENT, n_lf=steps, eps_lf=0.01, beta_zero=0.44, learn_eps_lf=True,
            learn_beta_zero=True, reconstruction_loss="bce",
        )  # fmt: skip
        model = HVAE(config, Encoder(), Decoder()).to(x.device)
    return stepper(model, lambda: model({"data": x}).loss)


def main() -> None:
    device = default_device()
    x = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0)).round().to(device)
    rows: list[list[object]] = []
    for steps in (1, 3, 10):
        options = {"latent_dim": LATENT, "steps": steps, "tempering": "fixed", "step_size": 0.01}
        competitors = {
            "vaekit, full gradient, K + 1 evaluations": ours(x, HamiltonianBound(**options).to(device)),
            "the same with 2K evaluations": ours(x, Doubled(**options).to(device)),
            "the same, gradient truncated as in pythae": ours(x, Truncated(**options).to(device)),
            "plain VAE (`elbo`)": ours(x, elbo),
        }
        if device.type == "cuda":
            bound = HamiltonianBound(**options).to(device)
            competitors["vaekit, full gradient, compiled"] = ours(x, bound, compiled=True)
        try:
            competitors["pythae 0.1.2, truncated gradient, 2K evaluations"] = pythae(x, steps)
        except ImportError:
            print("pythae is not installed: left out")
        with trusted():  # as `fit` does: the images have been looked at
            seconds = interleaved(competitors, repeats=60, warm_up=5)
        base = seconds.get("pythae 0.1.2, truncated gradient, 2K evaluations")
        for name, time in seconds.items():
            rows.append([steps, name, f"{1e3 * time:.1f}", f"{time / base:.2f}" if base else "-"])
    note = (
        "One step: forward, backward, Adam; median of 60 in turns. pythae takes the gradients inside the leapfrog "
        "steps for constants, so that nothing is trained through them. Most of the time goes into products with the "
        "decoder's large matrix: the full gradient needs 6 (K + 1), for each evaluation one forward, one backward and "
        "four to differentiate those two; pythae's step needs 4 K + 4."
    )
    report("hamiltonian", ["K", "training step", "ms", "times pythae's"], rows, note)


if __name__ == "__main__":
    main()
