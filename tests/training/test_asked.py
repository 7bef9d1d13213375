"""Images are looked at once, before the first step, for what the model's likelihood asks of them."""

import pytest
import torch
from torch import nn

from vaekit import VAE, Consistency, categorical256, conv, dcgan, elbo, fit, fit_ensemble, gaussian, mlp
from vaekit.training.seeding import seeded

SHAPE = (1, 4, 4)


def images(n: int = 30) -> torch.Tensor:
    with seeded(1):
        return torch.rand(n, *SHAPE)


def new_model(**options) -> VAE:
    with seeded(0):
        outputs = 256 if options.get("likelihood") is categorical256 else 1
        return VAE(*mlp(SHAPE, latent_dim=2, hidden=(6,), outputs=outputs), latent_dim=2, **options)


def one_bad_pixel() -> torch.Tensor:
    x = images()
    x[-1, 0, 3, 3] = 1.5
    return x


BAD = {
    "grey levels to 255": (images() * 255, r"pixels in \[0, 1\], got values from .* divide by 255"),
    "from -1 to 1": (2 * images() - 1, r"pixels in \[0, 1\]"),
    "one pixel of the last image": (one_bad_pixel(), r"pixels in \[0, 1\], got values from .* to 1.5"),
    "another size": (torch.rand(30, 1, 5, 5), r"images of shape \(1, 4, 4\), got a tensor of shape \(30, 1, 5, 5\)"),
    "another type": (images().double(), "expected dtype torch.float32"),
}


def untouched(model: nn.Module) -> bool:
    return all(torch.equal(v, new_model().state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical256"])
def test_fit_refuses_images_before_the_first_step(what, likelihood):
    bad, message = BAD[what]
    model = new_model(**({} if likelihood == "bernoulli" else {"likelihood": categorical256}))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"^x: .*{message}"):
        fit(model, elbo, bad, epochs=1, batch_size=7, device="cpu", progress=False)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("what", ["grey levels to 255", "from -1 to 1", "one pixel of the last image"])
def test_fit_refuses_validation_images(what):
    bad, message = BAD[what]
    model = new_model()
    with pytest.raises(ValueError, match=f"^validation: .*{message}"):
        fit(model, elbo, images(), validation=bad, epochs=1, device="cpu", progress=False)
    assert untouched(model)


@pytest.mark.parametrize("what", BAD)
def test_an_ensemble_refuses_them_too(what):
    bad, message = BAD[what]
    models = [new_model(), new_model()]
    with pytest.raises(ValueError, match=f"^x: .*{message}"):
        fit_ensemble(models, elbo, bad, epochs=1, device="cpu", progress=False)
    assert all(untouched(model) for model in models)


def test_a_normal_likelihood_takes_any_pixel():
    for model in (new_model(likelihood=gaussian(1.0)), new_model(likelihood=gaussian(1.0)).double()):
        x = (10 * images() - 5).to(model._zero.dtype)
        assert len(fit(model, elbo, x, epochs=1, device="cpu", progress=False).train) == 1


@pytest.mark.parametrize("factor", [-1.0, 3.0, float("nan")])
def test_a_transform_that_leaves_the_range_is_noticed_in_the_first_step(factor):
    model = new_model()
    with pytest.raises(ValueError, match="pixels"):
        fit(model, Consistency(elbo, lambda x: factor * x, weight=1.0), images(), epochs=1, batch_size=7, device="cpu",
            progress=False)  # fmt: skip
    assert untouched(model)


NETWORKS = {
    "mlp": mlp((1, 28, 28), 2),
    "conv": conv((1, 32, 32), 2),
    "dcgan": dcgan((1, 32, 32), 2, width=2, outputs=1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_a_size_that_the_networks_are_not_made_for_are_named(name):
    model = VAE(*NETWORKS[name], latent_dim=2)
    with pytest.raises(ValueError, match=r"^x: expected (images|inputs) of shape \(1, (28, 28|32, 32)\)"):
        fit(model, elbo, torch.rand(6, 1, 20, 20), epochs=1, device="cpu", progress=False)
    with pytest.raises(ValueError, match=r"^x: expected (images|inputs) of shape \(1, (28, 28|32, 32)\)"):
        elbo(model, torch.rand(6, 1, 20, 20))


def test_the_look_at_the_decoder_leaves_no_trace():
    """Neither in the running statistics of batch normalisation, nor in the modes of the layers, nor in the noise."""
    model = VAE(*dcgan((1, 32, 32), 2, width=2, outputs=1), latent_dim=2).train()
    model.encoder.eval()
    before, x = {k: v.clone() for k, v in model.state_dict().items()}, torch.rand(6, 1, 32, 32)
    noise = torch.get_rng_state()
    model.check_images(x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and model.decoder.training and not model.encoder.training
    assert not model.encoder.net[0].training and torch.equal(noise, torch.get_rng_state())


def test_an_objective_that_is_no_function_is_named():
    with pytest.raises(ValueError, match="objective: expected a function, got 3"):
        fit(new_model(), 3, images(), epochs=1, device="cpu", progress=False)


def test_a_model_with_nothing_to_train_is_named():
    with pytest.raises(ValueError, match="model: expected parameters to train"):
        fit(new_model().requires_grad_(False), elbo, images(), epochs=1, device="cpu", progress=False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 1.5}, "epochs: expected a whole number, at least 1, got 1.5"),
        ({"epochs": "3"}, "epochs: expected a whole number, at least 1, got '3'"),
        ({"batch_size": None}, "batch_size: expected a whole number"),
        ({"seed": 0.5}, "seed: expected a whole number"),
        ({"lr": "fast"}, "lr: expected a positive finite number, got 'fast'"),
        ({"patience": 2.5, "validation": images()}, "patience: expected a whole number"),
        ({"schedules": [1]}, "schedules: expected a dictionary"),
        ({"schedules": {"beta": 1.0}}, r"schedules\['beta'\]: expected a function, got 1.0"),
        ({"amp": torch.float64}, "amp: expected torch.float16, torch.bfloat16 or None"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        fit(new_model(), elbo, images(), **{"epochs": 1, "device": "cpu", "progress": False} | change)


class Level(nn.Module):
    """A model that asks nothing of its images."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))


def fits(model, x):
    return -(x - model.level).square().flatten(1).sum(1)


@pytest.mark.parametrize(
    ("validation", "binarise", "message"),
    [
        (images() * torch.nan, False, "found NaN"),
        (images()[..., :3], False, r"expected images of shape \(1, 4, 4\), got"),
        (images()[:, 0], False, r"expected images of shape \(1, 4, 4\), got"),
        (1.5 + images(), True, r"expected pixels in \[0, 1\]"),
    ],
)
def test_validation_images_are_looked_at_whatever_the_model(validation, binarise, message):
    options = {"epochs": 1, "device": "cpu", "progress": False, "binarise": binarise}
    with pytest.raises(ValueError, match=f"^validation: {message}"):
        fit(Level(), fits, images(), validation=validation, **options)
    history = fit(Level(), fits, images(), validation=images()[:2], **options)
    assert len(history.validation) == 1
