"""Every public function, called with every kind of bad value for each argument: it must raise, and name the argument.

`CALLS` holds one good call of each function. What kinds of value an argument takes follows from its name in `KINDS`;
what is bad for each kind stands in `BAD`. A function of the library that is missing here fails the last test.
"""

import warnings

import pytest
import torch
from torch import nn

import vaekit
from vaekit import consistency, datasets, hamiltonian, influence, jacobian, metrics, regret, training
from vaekit.bounds import elbo
from vaekit.likelihoods import gaussian
from vaekit.model import VAE
from vaekit.networks import mlp
from vaekit.training.seeding import seeded

NAN, INF = float("nan"), float("inf")

with seeded(0):
    MODEL = VAE(*mlp((1, 4, 4), latent_dim=2, hidden=(5,)), latent_dim=2)
    IMAGES = torch.rand(6, 1, 4, 4)
    Z = torch.randn(3, 2)
    POINTS = torch.randn(12, 3, dtype=torch.float64)
    FACTORS = torch.randint(3, (40, 2))
    CODES = torch.randn(40, 2)
CHECKPOINTS = [{"model": MODEL.state_dict(), "lr": 0.1}]
INFORMATION = torch.rand(4, 2, dtype=torch.float64)

BAD = {
    "count": [0, -1, 1.5, NAN, INF, "3", None, [1]],
    "optional count": [0, -1, 1.5, NAN, "3", [1]],
    "count from 0": [-1, 1.5, NAN, "3", None, [1]],
    "not negative": [-1.0, NAN, INF, "a", None, [1.0]],
    "positive": [0.0, -1.0, NAN, INF, "a", None],
    "optional positive": [0.0, -1.0, NAN, INF, "a"],
    "share": [0.0, -0.1, 1.5, NAN, "a", None],
    "number": [NAN, INF, "a", None],
    "images": [
        [1, 2, 3],
        None,
        IMAGES[:0],
        IMAGES * NAN,
        IMAGES * INF,
        IMAGES.double(),
        (IMAGES * 255).byte(),
        IMAGES * 255,
        IMAGES - 1,
        IMAGES[..., :3],
        IMAGES[0, 0, 0],
    ],
    "any images": [[1, 2, 3], None, IMAGES[:0], IMAGES * NAN, (IMAGES * 255).byte(), IMAGES[0, 0, 0, 0]],
    "latents": [[1, 2], None, torch.zeros(3, 5), Z.long()],
    "model": [None, 3, "vae"],
    "function": [None, 3, "elbo"],
    "optional function": [3, "elbo"],
    "choice": ["unknown", 3, None],
    "shape": [(), (1, 0, 4), (1, -4, 4), 5, None, "28", (1.5, 4, 4)],
    "images' shape": [(1, 4, 4), (1, 0, 32), 5, None],
    "widths": [(0,), (-1,), 5, None, (2.5,)],
    "two counts": [(0, 1), (1, -1), (1,), (1, 2, 3), 3, None, (1.5, 2)],
    "two scales": [(0.0, 1.0), (2.0, 1.0), (NAN, 1.0), (1.0, INF), 1.0, None],
    "checkpoints": [[], None, 3, "a.pt", [{}], [{"model": {}}], [{**CHECKPOINTS[0], "lr": -1.0}], [3]],
    "points": [None, [1, 2], POINTS[:0], POINTS * NAN, POINTS[0], POINTS.long()],
    "scores": [[], [NAN], [[1.0, 2.0]], "ab", None, ["a"]],
    "factors": [None, [1, 2], FACTORS[:0], FACTORS[0], FACTORS * 1.5 + 0.25],
    "drawn factors": [None, torch.zeros(3, 4), torch.zeros(0, 6), torch.full((2, 6), 99), torch.full((2, 6), NAN)],
    "factors of rooms": [None, torch.zeros(3, 6), torch.zeros(0, 16), torch.full((2, 8), 99), torch.full((2, 4), NAN)],
    "codes": [None, [1, 2], CODES[:0], CODES * NAN, CODES[:3], CODES[:, 0]],
    "information": [None, [1.0], INFORMATION * NAN, INFORMATION[0]],
    "sizes": [(), None, 5, (1, 0), (2.5, 3)],
    "logits": [None, torch.zeros(3, 5)],
    "device": ["abacus", 3.5],
    "angle": [NAN, INF, "a", None],
    "shear": [90.0, -95.0, NAN, "a"],
    "brightness": [0.0, -1.0, NAN, INF, "a", None],
}

IMAGE_ARGUMENTS = {"x": "images", "tx": "images", "train": "images", "test": "images", "validation": "images"}
KINDS = IMAGE_ARGUMENTS | {
    "model": "model",
    "background": "model",
    "z": "latents",
    "objective": "function",
    "bound": "function",
    "log_weight": "function",
    "transform": "function",
    "encoder": "model",
    "decoder": "model",
    "upper_head": "model",
    "lower_head": "model",
    "prior_head": "model",
    "likelihood": "function",
    "activation": "function",
    "optimizer": "function",
    "encode": "function",
    "render": "function",
    "latent_dim": "count",
    "latent_dims": "two counts",
    "steps": "count",
    "samples": "count",
    "epochs": "count",
    "batch_size": "count",
    "chunk": "count",
    "bins": "count",
    "points": "count",
    "centres": "count",
    "hidden": "count",
    "layers": "count",
    "dataset_size": "count",
    "outputs": "count",
    "width": "count",
    "k": "count",
    "components": "count",
    "checkpoint_every": "count",
    "patience": "optional count",
    "columns": "optional count",
    "n": "optional count",
    "size": "count",
    "seed": "count from 0",
    "beta": "not negative",
    "weight": "not negative",
    "capacity": "not negative",
    "off_diagonal": "not negative",
    "diagonal": "not negative",
    "threshold": "not negative",
    "std": "not negative",
    "degrees": "not negative",
    "translate": "not negative",
    "lr": "positive",
    "scale": "positive",
    "bandwidth": "positive",
    "ridge": "positive",
    "tolerance": "positive",
    "step_size": "positive",
    "max_step_size": "positive",
    "max_energy_error": "positive",
    "beta_0": "optional positive",
    "rate": "share",
    "tpr": "share",
    "rho": "share",
    "start": "number",
    "end": "number",
    "adapt": "choice",
    "codec": "choice",
    "tempering": "choice",
    "estimator": "choice",
    "kind": "choice",
    "name": "choice",
    "split": "choice",
    "norm": "choice",
    "path": "choice",
    "shape": "shape",
    "checkpoints": "checkpoints",
    "scores_in": "scores",
    "scores_out": "scores",
    "values": "scores",
    "factors": "factors",
    "codes": "codes",
    "information": "information",
    "sizes": "sizes",
    "logits": "logits",
    "device": "device",
    "angle": "angle",
    "shear": "shear",
    "translation": "angle",
    "low": "brightness",
    "high": "brightness",
    "images": "any images",
}


def call(function, *, kinds=None, **good):
    return function, good, kinds or {}


def network(**kinds):
    return {"shape": "images' shape", **kinds}


VAES = {"model": MODEL, "x": IMAGES}
TRAINED = {**VAES, "objective": elbo, "epochs": 1, "device": "cpu", "progress": False}
TRACED = {
    "model": MODEL,
    "objective": elbo,
    "checkpoints": CHECKPOINTS,
    "train": IMAGES,
    "samples": 2,
    "progress": False,
}
HEADS = {"upper_head": nn.Linear(4, 2), "lower_head": nn.Linear(5, 4), "prior_head": nn.Linear(1, 4)}
LEAVE_ONE_OUT = {"train": POINTS, "test": POINTS[:3]}
POINTS_KINDS = {"train": "points", "test": "points"}
GREY = {"x": "any images"}  # whatever the range: affine maps and codecs of their own check it, if it matters

CALLS = {
    "VAE": call(VAE, encoder=MODEL.encoder, decoder=MODEL.decoder, latent_dim=2, likelihood=gaussian(1.0)),
    "VAE.sample": call(lambda n: MODEL.sample(n), n=2, kinds={"n": "count"}),
    "VAE.posterior": call(lambda x: MODEL.posterior(x), x=IMAGES, kinds=GREY),
    "VAE.reconstruct": call(lambda x: MODEL.reconstruct(x), x=IMAGES, kinds=GREY),
    "VAE.likelihood": call(lambda z: MODEL.likelihood(z), z=Z, kinds={"z": "latents"}),
    "VAE.log_joint": call(lambda x: MODEL.log_joint(x, torch.zeros(6, 2)), x=IMAGES),
    "elbo": call(elbo, **VAES, beta=1.0, samples=1),
    "log_weight": call(vaekit.log_weight, **VAES, samples=1),
    "importance_bound": call(vaekit.importance_bound, **VAES, samples=1),
    "log_evidence": call(vaekit.log_evidence, **VAES, samples=2, chunk=10, log_weight=vaekit.log_weight),
    "gaussian": call(gaussian, scale=1.0),
    "mlp": call(
        mlp, shape=(1, 4, 4), latent_dim=2, hidden=(3,), outputs=1, activation=nn.ReLU, kinds={"hidden": "widths"}
    ),
    "conv": call(vaekit.conv, shape=(1, 32, 32), latent_dim=2, outputs=1, kinds=network()),
    "dcgan": call(vaekit.dcgan, shape=(1, 32, 32), latent_dim=2, width=2, outputs=1, kinds=network()),
    "authors_dcgan": call(regret.authors_dcgan, shape=(1, 32, 32), latent_dim=2, width=2, outputs=1, kinds=network()),
    "hvae_conv": call(vaekit.hvae_conv, latent_dim=2),
    "Consistency": call(vaekit.Consistency, bound=elbo, transform=torch.bernoulli, weight=1.0),
    "Consistency.forward": call(
        lambda model, x, weight: vaekit.Consistency(elbo, torch.bernoulli, weight=1.0)(model, x, weight=weight),
        **VAES,
        weight=0.5,
        kinds={"weight": "weight or none", "x": "any images"},
    ),
    "posterior_divergence": call(
        vaekit.posterior_divergence, **VAES, tx=IMAGES, kinds={"x": "any images", "tx": "any images"}
    ),
    "RandomAffine": call(
        consistency.RandomAffine, degrees=1.0, translate=0.1, scale=(1.0, 1.0), shear=1.0, kinds={"scale": "two scales"}
    ),
    "RandomBrightness": call(consistency.RandomBrightness, low=0.5, high=2.0),
    "RandomNoise": call(consistency.RandomNoise, std=0.1),
    "affine": call(consistency.affine, x=IMAGES, angle=1.0, translation=0.0, scale=1.0, shear=1.0, kinds=GREY),
    "black_or_white": call(consistency.black_or_white, x=IMAGES, kinds=GREY),
    "compose": call(consistency.compose, kinds={}),
    "TwoLevelVAE": call(vaekit.TwoLevelVAE, encoder=MODEL.encoder, decoder=MODEL.decoder, **HEADS, latent_dims=(1, 2)),
    "two_level_mlp": call(
        vaekit.two_level_mlp, shape=(1, 4, 4), latent_dims=(1, 2), hidden=3, likelihood=gaussian(1.0)
    ),
    "HamiltonianBound": call(
        vaekit.HamiltonianBound,
        latent_dim=2,
        steps=2,
        tempering="free",
        step_size=0.2,
        max_step_size=0.5,
        beta_0=0.5,
        estimator="plain",
        max_energy_error=1e3,
        kinds={"max_energy_error": "positive but inf"},
    ),
    "HamiltonianBound.forward": call(lambda **k: vaekit.HamiltonianBound(2, steps=1)(**k), **VAES, samples=1),
    "PlanarBound": call(vaekit.PlanarBound, latent_dim=2, steps=2),
    "PlanarBound.forward": call(lambda **k: vaekit.PlanarBound(2, steps=1)(**k), **VAES, samples=1),
    "JacobianL1": call(vaekit.JacobianL1, bound=elbo, weight=1.0, columns=1, norm=1),
    "FactorVAE": call(vaekit.FactorVAE, latent_dim=2, weight=1.0, hidden=3, layers=1),
    "decoder_jacobian": call(vaekit.decoder_jacobian, model=MODEL, z=Z),
    "jacobian_l1": call(vaekit.jacobian_l1, model=MODEL, z=Z, columns=1),
    "jacobian_l2": call(vaekit.jacobian_l2, model=MODEL, z=Z, columns=1),
    "beta_tcvae": call(vaekit.beta_tcvae, **VAES, dataset_size=6, beta=1.0),
    "dip_vae": call(vaekit.dip_vae, **VAES, off_diagonal=1.0, diagonal=1.0, kind="i"),
    "annealed_capacity": call(vaekit.annealed_capacity, **VAES, capacity=1.0, weight=1.0),
    "factor_entropy": call(vaekit.factor_entropy, factors=FACTORS),
    "binned_mutual_information": call(vaekit.binned_mutual_information, codes=CODES, factors=FACTORS, bins=3),
    "modularity": call(vaekit.modularity, information=INFORMATION),
    "mutual_information_gap": call(vaekit.mutual_information_gap, information=INFORMATION, entropy=torch.ones(2)),
    "local_scores": call(
        vaekit.local_scores,
        encode=lambda x: x.flatten(1)[:, :2],
        render=lambda f: f[:, :, None, None].float() / 20,
        sizes=(20, 20),
        rho=0.5,
        points=30,
        centres=2,
        bins=3,
        seed=0,
        chunk=10,
    ),
    "likelihood_regret": call(
        vaekit.likelihood_regret,
        **VAES,
        bound=elbo,
        adapt="encoder",
        steps=1,
        lr=0.1,
        samples=2,
        seed=0,
        chunk=3,
        progress=False,
        kinds={"lr": "optional positive", "chunk": "optional count", "steps": "count from 0"},
    ),
    "negative_log_likelihood": call(
        vaekit.negative_log_likelihood, **VAES, samples=2, chunk=10, log_weight=vaekit.log_weight
    ),
    "likelihood_ratio": call(vaekit.likelihood_ratio, **VAES, background=MODEL, samples=2, chunk=10),
    "input_complexity": call(vaekit.input_complexity, **VAES, codec="png", samples=2, chunk=10),
    "code_length": call(regret.code_length, x=IMAGES, codec="png", kinds=GREY),
    "mutated": call(vaekit.mutated, bound=elbo, rate=0.1, kinds={"rate": "share from 0"}),
    "tracin": call(
        vaekit.tracin, **TRACED, test=IMAGES[:2], seed=0, chunk=3, path="auto", kinds={"chunk": "optional count"}
    ),
    "self_influence": call(vaekit.self_influence, **TRACED, seed=0),
    "strongest": call(vaekit.strongest, **TRACED, test=IMAGES[:2], k=2),
    "kde_influence": call(influence.kde_influence, **LEAVE_ONE_OUT, bandwidth=1.0, kinds=POINTS_KINDS),
    "knn_influence": call(influence.knn_influence, **LEAVE_ONE_OUT, k=2, kinds=POINTS_KINDS),
    "gaussian_influence": call(influence.gaussian_influence, **LEAVE_ONE_OUT, kinds=POINTS_KINDS),
    "ppca_influence": call(influence.ppca_influence, **LEAVE_ONE_OUT, latent_dim=1, kinds=POINTS_KINDS),
    "mixture_influence": call(
        influence.mixture_influence,
        **LEAVE_ONE_OUT,
        components=1,
        ridge=1e-3,
        tolerance=1e-3,
        steps=50,
        seed=0,
        kinds=POINTS_KINDS,
    ),
    "fit": call(
        vaekit.fit,
        **TRAINED,
        validation=IMAGES,
        batch_size=3,
        lr=0.1,
        optimizer=torch.optim.SGD,
        seed=0,
        patience=1,
        checkpoint_every=1,
        kinds={"validation": "validation"},
    ),
    "fit_ensemble": call(
        lambda model, **k: training.fit_ensemble([model, model], **k),
        **TRAINED,
        batch_size=3,
        lr=0.1,
        kinds=IMAGE_ARGUMENTS | {"model": "models", "objective": "function"},
    ),
    "linear": call(vaekit.linear, start=0.0, end=1.0, steps=3),
    "load_checkpoint": call(vaekit.load_checkpoint, path="no", kinds={"path": "file"}),
    "seeded": call(lambda seed: seeded(seed).__enter__(), seed=0, kinds={"seed": "torch seed"}),
    "load": call(datasets.load, name="digits", split="test", n=3, size=9, kinds={"size": "optional count"}),
    "load drawn": call(
        datasets.load,
        name="shapes",
        split="test",
        n=3,
        size=9,
        seed=0,
        kinds={"size": "optional count", "seed": "count from 0 or none"},
    ),
    "binarise": call(datasets.binarise, images=IMAGES),
    "render_three_dots": call(
        datasets.render_three_dots, factors=torch.zeros(2, 6), size=8, kinds={"factors": "drawn factors"}
    ),
    "render_shapes": call(
        datasets.render_shapes, factors=torch.zeros(2, 5), size=8, kinds={"factors": "drawn factors"}
    ),
    "render_rooms": call(
        datasets.render_rooms,
        factors=torch.zeros(2, 12),
        size=8,
        objects=2,
        kinds={"factors": "factors of rooms", "objects": "count from 0 or none"},
    ),
    "auroc": call(metrics.auroc, scores_in=[1.0, 2.0], scores_out=[1.0, 3.0]),
    "auprc": call(metrics.auprc, scores_in=[1.0, 2.0], scores_out=[1.0, 3.0]),
    "fpr_at_tpr": call(metrics.fpr_at_tpr, scores_in=[1.0, 2.0], scores_out=[1.0, 3.0], tpr=0.5),
    "mean_and_standard_error": call(metrics.mean_and_standard_error, values=[1.0, 2.0]),
    "active_units": call(metrics.active_units, **VAES, threshold=0.01, kinds=GREY),
    "mutual_information": call(metrics.mutual_information, **VAES, samples=1, chunk=10, kinds=GREY),
}

BAD |= {
    "positive but inf": [0.0, -1.0, NAN, "a", None],
    "validation": [*BAD["images"][:1], *BAD["images"][2:]],  # None is no validation
    "models": BAD["model"],
    "file": [None, 3, ["a.pt"]],
    "share from 0": [-0.1, 1.5, NAN, "a", None],
    "weight or none": [-1.0, NAN, INF, "a", [1.0]],
    "torch seed": ["a", None, 1.5],
    "count from 0 or none": [-1, 1.5, NAN, "3", [1]],
}

DATA_CLASSES = {  # what functions return, or what is built from checked parts alone
    "History",
    "LocalScores",
    "Strongest",
    "ActiveUnits",
    "Estimate",
    "Information",
    "Mean",
    "Dataset",
    "Phase",
    "Mixtures",
    "TwoLevelNormal",
    "Objective",
    "Schedule",
    "Transform",
    "Potential",
    "Codec",
}
ELSEWHERE = {  # inner parts whose arguments come from checked callers, or that have bad calls of their own tested
    "bernoulli",
    "categorical256",
    "leapfrog",
    "tempered_flow",
    "energy_errors",
    "total_energy",
    "potential_of",
    "planar",
    "level_divergences",
    "neighbourhood",
    "save_checkpoint",
    "ensure_writable",
    "default_device",
    "device_name",
}


def table():
    for name, (function, good, kinds) in CALLS.items():
        for argument in good:
            kind = kinds.get(argument) or KINDS.get(argument)
            for bad in BAD.get(kind, ()):
                yield name, function, good, argument, bad


TABLE = list(table())


def verdict(function, good, argument, bad) -> str:
    """`clear`, or what is wrong with what happened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**{**good, argument: bad})
    except ValueError as error:
        return "clear" if argument in str(error) else f"obscure: ValueError: {error}"
    except Exception as error:
        return f"obscure: {type(error).__name__}: {error}"
    return "silent"


@pytest.mark.parametrize("name", CALLS)
def test_the_good_call_is_good(name):
    function, good, _ = CALLS[name]
    if name != "load_checkpoint":
        function(**good)


@pytest.mark.parametrize("name", CALLS)
def test_bad_calls_are_named(name):
    said = [
        f"{argument}={str(bad)[:60]!r}: {found[:150]}"
        for n, function, good, argument, bad in TABLE
        if n == name and (found := verdict(function, good, argument, bad)) != "clear"
    ]
    assert not said, "\n".join(said)


def test_there_are_enough_of_them():
    assert len(TABLE) > 400


def test_every_public_name_is_in_the_table():
    rooms = (vaekit, metrics, datasets, training, consistency, hamiltonian, regret, jacobian, influence)
    public = {name for room in rooms for name in room.__all__ if callable(getattr(room, name))}
    assert public - DATA_CLASSES - ELSEWHERE <= {name.partition(".")[0] for name in CALLS}
