"""TracIn beside captum's TracInCP, kronfluence's identity strategy and the plain loop.

Run as `python -m benchmarks.influence`. All are given the ELBO at the posterior's mean, which has no noise, so that
all must give the same numbers: they are compared before they are timed. Peers that are not installed are left out.
"""

import contextlib
import logging
import tempfile
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from benchmarks.timing import interleaved, report
from vaekit import VAE, conv, elbo, mlp, tracin

ONCE = {"samples": 1, "unbiased": False}


def noiseless(model: VAE, x: Tensor) -> Tensor:
    q_z = model.posterior(x)
    return model.log_likelihood(x, q_z.mean) - kl_divergence(q_z, model.prior)


class Nats(nn.Module):
    """What the peers take: a module from images to numbers."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return noiseless(self.model, x)


class Sum(nn.Module):
    reduction = "sum"

    def forward(self, nats: Tensor, _: Tensor) -> Tensor:
        return nats.sum()


def by_captum(model: VAE, states: list[dict], x: Tensor, z: Tensor) -> Callable[[], Tensor]:
    from captum.influence import TracInCP

    def load(net: Nats, state: dict) -> float:
        net.model.load_state_dict(state["model"])
        return state["lr"]

    peer = TracInCP(
        Nats(model), torch.utils.data.TensorDataset(x, torch.zeros(len(x))), states, checkpoints_load_func=load,
        loss_fn=Sum(), batch_size=256, sample_wise_grads_per_batch=True,
    )  # fmt: skip
    return lambda: peer.influence((z, torch.zeros(len(z)))).T


def by_kronfluence(model: VAE, states: list[dict], x: Tensor, z: Tensor) -> Callable[[], Tensor]:
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task

    class Nothing(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return model(batch[0]).sum()

        def compute_measurement(self, batch, model):
            return model(batch[0]).sum()

    folder = tempfile.mkdtemp()
    sets = [torch.utils.data.TensorDataset(side) for side in (x, z)]
    net = prepare_model(Nats(model), Nothing())
    analyzer = Analyzer("b", net, Nothing(), cpu=True, disable_tqdm=True, output_dir=folder, log_level=logging.ERROR)
    analyzer.fit_all_factors("f", sets[0], per_device_batch_size=256, factor_args=FactorArguments(strategy="identity"))

    def call() -> Tensor:
        total = torch.zeros(len(x), len(z))
        for state in states:
            tracked = {name.replace(".original_module", ""): p for name, p in net.named_parameters()}
            with torch.no_grad():
                for name, value in state["model"].items():
                    tracked[f"model.{name}"].copy_(value)
            analyzer.compute_pairwise_scores(
                "s", "f", sets[1], sets[0], per_device_query_batch_size=len(z), per_device_train_batch_size=256,
                overwrite_output_dir=True,
            )  # fmt: skip
            total += state["lr"] * analyzer.load_pairwise_scores("s")["all_modules"].T
        return total

    return call


def by_loop(model: VAE, states: list[dict], x: Tensor, z: Tensor) -> Callable[[], Tensor]:
    """Automatic differentiation of one image after the other, and one matrix product."""

    def gradients(images: Tensor) -> Tensor:
        parameters = list(model.parameters())
        rows = (torch.autograd.grad(noiseless(model, image).sum(), parameters) for image in images.split(1))
        return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])

    def call() -> Tensor:
        total = torch.zeros(len(x), len(z))
        for state in states:
            model.load_state_dict(state["model"])
            total += state["lr"] * gradients(x) @ gradients(z).T
        return total

    return call


def compare(
    name: str, make: Callable[[], VAE], shape: tuple[int, ...], sizes: tuple[int, int, int], peers: dict[str, Callable],
    *, repeats: int,
) -> list[object]:  # fmt: skip
    """One line: seconds of `tracin`, passes of plain training in that time, how many times longer each peer takes."""
    m, n, checkpoints = sizes
    models = [make() for _ in range(checkpoints)]
    states = [{"model": {k: v.clone() for k, v in v.state_dict().items()}, "lr": 0.5**i} for i, v in enumerate(models)]
    x, z = torch.rand(m, *shape), torch.rand(n, *shape)
    calls = {"tracin": lambda: tracin(models[0], noiseless, states, x, z, **ONCE)}
    truth = calls["tracin"]()
    for peer, build in peers.items():
        try:
            call = build(make(), states, x, z)
        except ImportError:
            print(f"{peer} is not installed: left out")
            continue
        error = ((call() - truth).abs().max() / truth.abs().max()).item()
        print(f"{name}, {peer}: largest difference {error:.1e} of the largest score")
        assert error < 1e-5, (name, peer, error)
        calls[peer] = call
    calls["a pass"] = plain_pass(models, torch.cat([x, z]))
    seconds = interleaved(calls, repeats=repeats, warm_up=1 if repeats < 3 else 2)
    others = ("captum", "kronfluence", "loop")
    ratios = (f"{seconds[peer] / seconds['tracin']:.0f}" if peer in seconds else "–" for peer in others)
    passes = f"{seconds['tracin'] / seconds['a pass']:.1f}"
    return [name, f"{m:,} × {n} × {checkpoints}", f"{seconds['tracin']:.3f} s", passes, *ratios]


def plain_pass(models: list[VAE], images: Tensor, batch: int = 256) -> Callable[[], None]:
    """The gradient of each batch as a whole, with each model: no scores could be had with less arithmetic."""

    def call() -> None:
        for model in models:
            for part in images.split(batch):
                torch.autograd.grad(noiseless(model, part).sum(), list(model.parameters()))

    return call


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    fully, small = ("MLP 784-400-20", lambda: VAE(*mlp((1, 28, 28), 20), latent_dim=20), (1, 28, 28)), (256, 32, 3)
    convolutional = ("convolutions, 32 × 32", lambda: VAE(*conv((1, 32, 32), 10), latent_dim=10), (1, 32, 32))
    peers = {"captum": by_captum, "kronfluence": by_kronfluence}
    rows = [
        compare(*fully, small, {**peers, "loop": by_loop}, repeats=5),
        compare(*fully, (10_000, 100, 1), peers, repeats=2),
        compare(*convolutional, (256, 32, 1), {"loop": by_loop}, repeats=3),
    ]
    model = fully[1]()
    began = time.perf_counter()
    last = {"model": model.state_dict(), "lr": 1.0}
    tracin(model, elbo, [last], torch.rand(60_000, 1, 28, 28), torch.rand(100, 1, 28, 28), **ONCE)
    rows.append(
        ["MLP 784-400-20, ELBO", "60,000 × 100 × 1", f"{time.perf_counter() - began:.1f} s", "–", "–", "–", "–"]
    )
    report(
        "influence",
        [
            "model",
            "images × queries × checkpoints",
            "tracin",
            "= passes",
            "captum, times",
            "kronfluence, times",
            "loop, times",
        ],
        rows,
        "Seconds of `vaekit.tracin`, and how many times as long its peers take for the same scores (equal to 1e-5 of "
        "the largest): captum's TracInCP with sample-wise gradients, kronfluence's identity strategy, automatic "
        "differentiation image by image. captum's sample-wise gradients leave out transposed convolutions. A pass is "
        "the gradient of the same images batch by batch, as training takes it, without any score.",
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
