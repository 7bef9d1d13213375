"""`fit`: the plain loop it claims to be, reproducible, resumable after a real kill, and equal over two processes."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers import linear_gaussian
from vaekit import VAE, elbo, fit, linear, load_checkpoint, mlp
from vaekit.training.checkpoints import save_checkpoint
from vaekit.training.ensemble import fit_ensemble
from vaekit.training.seeding import generator, mix

SHAPE = (1, 4, 4)


def small_model(seed: int = 0) -> VAE:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VAE(*mlp(SHAPE, latent_dim=2, hidden=(8,)), latent_dim=2)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(1)).round()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_is_the_loop_one_would_write_by_hand(x):
    ours, theirs = small_model(), small_model()
    history = fit(ours, elbo, x, epochs=3, batch_size=16, lr=0.01, seed=5, device="cpu", progress=False)
    optimizer, means = torch.optim.Adam(theirs.parameters(), lr=0.01), []
    for epoch in range(3):
        torch.manual_seed(mix(5, epoch, 1))
        total = 0.0
        for batch in torch.randperm(50, generator=generator(torch.device("cpu"), 5, epoch)).split(16):
            nats = elbo(theirs, x[batch])
            optimizer.zero_grad()
            (-nats.mean()).backward()
            optimizer.step()
            total += nats.sum().item()
        means.append(total / 50)
    assert same_weights(ours, theirs)
    assert history.train == pytest.approx(means, rel=1e-6)
    assert not ours.training


def test_reaches_the_maximum_likelihood_of_probabilistic_pca():
    """A linear VAE's best ELBO is the maximum of probabilistic PCA's likelihood (Tipping & Bishop 1999, eq. 7-8)."""
    truth = linear_gaussian(latent=1, pixels=3, batch=2000, scale=0.5, seed=3)
    start = linear_gaussian(latent=1, pixels=3, scale=0.5, seed=4).model
    start.decoder.bias.data = truth.x.mean(0).flatten()
    fit(start, elbo, truth.x, epochs=150, batch_size=500, lr=0.02, device="cpu", progress=False)
    s2 = 0.25  # the model's noise is fixed, so W W' + s2 I has eigenvalues max(l_i, s2) on the leading direction
    covariance = torch.cov(truth.x.flatten(1).T, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    best = (values[-1] - s2) * torch.outer(vectors[:, -1], vectors[:, -1])
    learnt = start.decoder.weight @ start.decoder.weight.T
    assert torch.allclose(learnt, best, atol=0.02), (learnt - best).abs().max()


def test_global_random_state_is_left_alone(x):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    fit(small_model(), elbo, x, epochs=1, device="cpu", progress=False, binarise=True, validation=x)
    assert torch.equal(before, torch.get_rng_state())


def test_each_process_takes_its_share_with_noise_of_its_own(x, monkeypatch):
    """The second of two processes, whose messages to the other one are left out."""
    monkeypatch.setattr("vaekit.training.distributed.join", lambda device: (1, 2))
    ours, theirs = small_model(), small_model()
    history = fit(ours, elbo, x, epochs=2, batch_size=16, lr=0.01, seed=5, device="cpu", progress=False)
    optimizer, means = torch.optim.Adam(theirs.parameters(), lr=0.01), []
    for epoch in range(2):
        torch.manual_seed(mix(5, epoch, 2))
        total = 0.0
        for batch in torch.randperm(50, generator=generator(torch.device("cpu"), 5, epoch)).split(16):
            nats = elbo(theirs, x[batch[1::2]])
            optimizer.zero_grad()
            (-nats.sum() / len(batch)).backward()
            optimizer.step()
            total += nats.sum().item()
        means.append(total / 50)
    assert same_weights(ours, theirs)
    assert history.train == pytest.approx(means, rel=1e-6)


def test_validation_repeats_its_noise_and_its_black_and_white_images(x):
    """Measured in evaluation mode, on images drawn once from the seed, in batches, as a mean over all of them."""
    grey, model, seen = x * 0.5, small_model(), []

    def objective(model, images):
        if not model.training:
            seen.append(images.clone())
            assert not torch.is_grad_enabled()
        return elbo(model, images)

    history = fit(model, objective, x, validation=grey, epochs=2, batch_size=16, seed=3, device="cpu", progress=False,
                  binarise=True)  # fmt: skip
    drawn = torch.bernoulli(grey, generator=generator(torch.device("cpu"), 3))
    assert [len(batch) for batch in seen] == [16, 16, 16, 2] * 2
    assert torch.equal(torch.cat(seen[:4]), drawn) and torch.equal(torch.cat(seen[4:]), drawn)
    torch.manual_seed(mix(3))
    with torch.no_grad():
        nats = torch.cat([elbo(model, batch) for batch in drawn.split(16)])
    assert history.validation[-1] == pytest.approx(nats.mean().item(), rel=1e-6)


def test_under_half_precision_nats_are_in_full_precision(x):
    def objective(model, images):
        nats = elbo(model, images)
        assert nats.dtype == torch.float32 and model.posterior(images).mean.dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
        return nats

    fit(small_model(), objective, x, epochs=1, device="cpu", progress=False, amp=torch.bfloat16)


def test_seed_decides(x):
    models = [small_model() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, elbo, x, epochs=1, seed=seed, device="cpu", progress=False)
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_an_objective_with_parameters_is_trained_and_saved(x, tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_beta = nn.Parameter(torch.zeros(()))

        def forward(self, model, x):
            return elbo(model, x) - (self.log_beta - 1) ** 2

    objective = Scaled()
    history = fit(small_model(), objective, x, epochs=60, lr=0.1, device="cpu", progress=False,
                  checkpoints=tmp_path, checkpoint_every=60)  # fmt: skip
    assert objective.log_beta.item() == pytest.approx(1, abs=0.05)
    assert load_checkpoint(history.checkpoints[-1])["objective"]["log_beta"].item() == objective.log_beta.item()


def test_schedules_reach_the_objective_step_by_step(x):
    seen = []

    def objective(model, x, *, beta):
        seen.append(beta)
        return elbo(model, x, beta=beta)

    fit(small_model(), objective, x, epochs=2, batch_size=25, device="cpu", progress=False,
        schedules={"beta": linear(0, 1, steps=2)})  # fmt: skip
    assert seen == [0, 0.5, 1, 1]


def test_binarised_images_are_drawn_anew_each_epoch_with_the_right_mean():
    grey, seen = torch.full((4000, *SHAPE), 0.3), []

    def objective(model, x):
        seen.append(x.clone())
        return elbo(model, x)

    fit(small_model(), objective, grey, epochs=2, batch_size=4000, device="cpu", progress=False, binarise=True)
    assert all(set(images.unique().tolist()) == {0.0, 1.0} for images in seen)
    assert [images.mean().item() for images in seen] == pytest.approx([0.3, 0.3], abs=0.01)
    assert not torch.equal(seen[0].sum(0), seen[1].sum(0))


def test_early_stopping_goes_back_to_the_best_weights(x):
    values, kept = iter([1.0, 3.0, 2.0, 2.0, 9.0]), []

    def objective(model, images):
        if model.training:
            return elbo(model, images)
        kept.append({k: v.clone() for k, v in model.state_dict().items()})
        return torch.full((len(images),), next(values))

    model = small_model()
    history = fit(model, objective, x, validation=x, patience=2, epochs=50, device="cpu", progress=False)
    assert (history.stopped, history.validation) == ("early", [1, 3, 2, 2])
    assert all(torch.equal(v, kept[1][k]) for k, v in model.state_dict().items())


def test_nan_stops_with_the_step_and_leaves_the_last_good_weights_and_checkpoint(x, tmp_path):
    steps = []

    def objective(model, images):
        steps.append(0)
        return elbo(model, images) * (float("nan") if len(steps) == 6 else 1)

    model = small_model()
    with pytest.raises(FloatingPointError, match=r"step 5 \(epoch 3\).*end of epoch 2.*smaller lr"):
        fit(model, objective, x, epochs=9, batch_size=25, device="cpu", progress=False, checkpoints=tmp_path)
    last = load_checkpoint(tmp_path / "last.pt")
    assert last["epoch"] == 2
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in last["model"].items())


def test_ctrl_c_returns_what_there_is(x, tmp_path):
    stop = tmp_path / "stop"
    stop.touch()

    def objective(model, images):
        if (tmp_path / "epoch-0002.pt").exists() and stop.exists():
            stop.unlink()
            raise KeyboardInterrupt
        return elbo(model, images)

    model, whole = small_model(), small_model()
    options = {"batch_size": 20, "device": "cpu", "progress": False}
    with pytest.warns(UserWarning, match="interrupted in epoch 3"):
        history = fit(model, objective, x, epochs=9, checkpoints=tmp_path, **options)
    assert history.stopped == "interrupted" and len(history.train) == 2
    fit(whole, elbo, x, epochs=4, **options)
    for resumed in (model, small_model()):  # as it was left, in mid-epoch, and made anew
        assert len(fit(resumed, objective, x, epochs=4, checkpoints=tmp_path, **options).train) == 4
        assert same_weights(resumed, whole)


SCRIPT = """
    import sys, torch
    from vaekit import VAE, elbo, fit, mlp
    torch.manual_seed(0)
    model = VAE(*mlp((1, 4, 4), latent_dim=2, hidden=(8,)), latent_dim=2)
    x = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    history = fit(model, elbo, x, epochs={epochs}, batch_size=10, device="cpu", progress=False, binarise=True,
                  validation=x, checkpoints=sys.argv[1])
    torch.save(model.state_dict(), sys.argv[1] + "/final")
"""


def run(folder: Path, epochs: int = 25, **options) -> subprocess.Popen:
    code = textwrap.dedent(SCRIPT).format(epochs=epochs)
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], **options)


def test_a_killed_run_started_again_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole).wait(120) == 0
    process, kills = run(killed), 0
    for epoch in (3, 11):  # two kills, each somewhere after this epoch
        while not (killed / f"epoch-{epoch:04d}.pt").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += not (killed / "final").exists()
        process = run(killed)
    assert process.wait(120) == 0 and kills == 2
    a, b = torch.load(whole / "final"), torch.load(killed / "final")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [p.name for p in sorted(killed.glob("epoch-*"))] == [p.name for p in sorted(whole.glob("epoch-*"))]


DISTRIBUTED = """
    import sys, torch
    from vaekit import VAE, fit, mlp
    from vaekit.bounds import kl_divergence
    torch.manual_seed(int(sys.argv[2]))  # each process starts elsewhere, the first one's weights count
    model = VAE(*mlp((1, 4, 4), latent_dim=2, hidden=(8,)), latent_dim=2).double()
    x = torch.rand(45, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()

    def objective(model, x):  # without noise, so that shares of a batch add up to the batch
        q_z = model.posterior(x)
        return model.log_likelihood(x, q_z.mean) - kl_divergence(q_z, model.prior)

    history = fit(model, objective, x, epochs=4, batch_size=11, device="cpu", progress=False, validation=x,
                  checkpoints=sys.argv[1])  # the last batch holds one image: one process has none
    torch.save({"weights": model.state_dict(), "train": history.train}, f"{sys.argv[1]}/final-{sys.argv[2]}")
"""


def test_two_processes_take_the_steps_of_one(tmp_path):
    code, one, two = textwrap.dedent(DISTRIBUTED), tmp_path / "one", tmp_path / "two"
    subprocess.run([sys.executable, "-c", code, str(one), "0"], check=True, timeout=120)
    env = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    processes = []
    for rank in ("0", "1"):
        own = env | {"RANK": rank, "LOCAL_RANK": rank}
        processes.append(subprocess.Popen([sys.executable, "-c", code, str(two), rank], env=own))
    assert [process.wait(120) for process in processes] == [0, 0]
    alone = torch.load(one / "final-0")
    for rank in (0, 1):
        together = torch.load(two / f"final-{rank}")
        assert together["train"] == pytest.approx(alone["train"], rel=1e-12)
        for k, v in alone["weights"].items():
            assert torch.allclose(v, together["weights"][k], rtol=1e-9, atol=1e-12)
    assert len(list(two.glob("epoch-*.pt"))) == 4


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_mixed_precision_trains(x):
    history = fit(small_model(), elbo, x, epochs=20, lr=0.01, device="cpu", progress=False, amp=torch.bfloat16)
    assert history.train[-1] > history.train[0]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"lr": -1.0}, "lr: expected a positive"),
        ({"lr": float("nan")}, "lr: expected a positive"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected at least 1"),
        ({"patience": 3}, "patience: expected validation images"),
        ({"validation": torch.rand(3, 1, 5, 5)}, r"validation: expected images of shape \(1, 4, 4\)"),
    ],
)
def test_bad_settings_are_named(x, change, message):
    with pytest.raises(ValueError, match=message):
        fit(small_model(), elbo, x, **{"epochs": 1, "device": "cpu", "progress": False} | change)


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.rand(0, *SHAPE), "non-empty"),
        (torch.full((3, *SHAPE), float("nan")), "NaN or infinite"),
        (torch.randint(0, 255, (3, *SHAPE), dtype=torch.uint8), "uint8"),
        (torch.rand(3, *SHAPE).double(), "float64"),
        (torch.rand(3, *SHAPE) * 255, r"pixels in \[0, 1\]"),
        ([1, 2, 3], "torch.Tensor"),
    ],
)
def test_bad_images_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        fit(small_model(), elbo, bad, epochs=1, device="cpu", progress=False, binarise=True)


def test_an_objective_of_the_wrong_shape_is_refused(x):
    with pytest.raises(ValueError, match=r"objective: expected shape \[50\], got \(\)"):
        fit(small_model(), lambda m, x: elbo(m, x).mean(), x, epochs=1, device="cpu", progress=False)


def test_a_folder_with_another_run_is_refused(x, tmp_path):
    options = {"epochs": 1, "device": "cpu", "progress": False, "checkpoints": tmp_path}
    fit(small_model(), elbo, x, **options)
    with pytest.raises(ValueError, match=r"another run \(seed 0 instead of 1\)"):
        fit(small_model(), elbo, x, **options, seed=1)
    with pytest.raises(ValueError, match="another model"):
        fit(VAE(*mlp(SHAPE, latent_dim=3), latent_dim=3), elbo, x, **options)
    anew = small_model()
    assert len(fit(anew, elbo, x, **options, seed=1, resume=False).train) == 1


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "half", "foreign"])
def test_a_truncated_or_foreign_checkpoint_is_refused(x, tmp_path, content):
    path = fit(small_model(), elbo, x, epochs=1, device="cpu", progress=False, checkpoints=tmp_path).checkpoints[0]
    if content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content == "foreign":
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected a (whole vaekit )?checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"format": "vaekit-1", "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="truncated, damaged or foreign"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_is_replaced_in_one_step(tmp_path):
    """A reader who has the old file open goes on reading the old file: it was never written into."""
    path = save_checkpoint(tmp_path / "c.pt", {"n": 1})
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_checkpoint(path, {"n": 2})
        assert reader.read() == before
    assert load_checkpoint(path)["n"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_folder_that_cannot_be_written_is_refused_before_training(x, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to this folder"):
        fit(small_model(), lambda m, x: 1 / 0, x, epochs=1, device="cpu", checkpoints=tmp_path / "file" / "folder")


def test_a_full_disk_leaves_the_last_checkpoint(x, tmp_path):
    """A real refusal by the kernel: files of this process may not grow past 1 kB."""
    options = {"device": "cpu", "progress": False, "checkpoints": tmp_path}
    fit(small_model(), elbo, x, epochs=1, **options)
    before = (tmp_path / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"could not write the checkpoint.*earlier one is untouched"):
            fit(small_model(), elbo, x, epochs=2, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0001.pt", "last.pt"]


def test_a_bar_counts_the_steps_of_all_epochs_unless_told_not_to(x, capsys):
    options = {"epochs": 2, "batch_size": 20, "device": "cpu"}  # 50 images: 3 steps an epoch
    for train in (partial(fit, small_model()), partial(fit_ensemble, [small_model(), small_model(1)])):
        train(elbo, x, **options)
        assert "6/6" in capsys.readouterr().err
        train(elbo, x, **options, progress=False)
        assert capsys.readouterr().err == ""
