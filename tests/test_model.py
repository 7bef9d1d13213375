import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from tests.helpers import linear_gaussian
from vaekit import VAE, categorical256, gaussian, mlp
from vaekit.model import DiagonalNormal
from vaekit.training.seeding import seeded

D = torch.float64


def small(likelihood=None, outputs=1, dtype=D):
    options = {} if likelihood is None else {"likelihood": likelihood}
    with seeded(0):
        return VAE(*mlp((2, 3, 4), latent_dim=3, hidden=(5,), outputs=outputs), latent_dim=3, **options).to(dtype)


def images(n=6, dtype=D):
    return torch.rand(n, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_densities_against_full_covariance_normals():
    exact = linear_gaussian(latent=3, pixels=4)
    z = torch.randn(7, 5, 3, dtype=D, generator=torch.Generator().manual_seed(0))  # [S, B, D]
    p_z = MultivariateNormal(torch.zeros(3, dtype=D), torch.eye(3, dtype=D))
    p_x_z = MultivariateNormal(z @ exact.weight.T + exact.bias, 0.49 * torch.eye(4, dtype=D))
    log_p_x_z = p_x_z.log_prob(exact.x.flatten(1))  # [S, B]
    torch.testing.assert_close(exact.model.log_likelihood(exact.x, z), log_p_x_z)
    torch.testing.assert_close(exact.model.log_joint(exact.x, z), p_z.log_prob(z) + log_p_x_z)
    q_z = exact.model.posterior(exact.x)
    mean, log_std = exact.model.encoder(exact.x).chunk(2, -1)
    truth = MultivariateNormal(mean, (2 * log_std).exp().diag_embed())
    torch.testing.assert_close(q_z.log_prob(z), truth.log_prob(z))


def test_posterior_reads_mean_and_log_standard_deviation():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 2.0, math.log(3.0), math.log(4.0)], dtype=D).expand(len(x), 4)

    _, decoder = mlp((1, 2, 2), latent_dim=2)
    q_z = VAE(Fixed(), decoder, latent_dim=2).double().posterior(torch.zeros(5, 1, 2, 2, dtype=D))
    torch.testing.assert_close(q_z.mean, torch.tensor([1.0, 2.0], dtype=D).expand(5, 2))
    torch.testing.assert_close(q_z.stddev, torch.tensor([3.0, 4.0], dtype=D).expand(5, 2))


def test_draws_have_the_moments_and_the_gradients_of_reparameterisation():
    mean = torch.tensor([1.0, -2.0], dtype=D, requires_grad=True)
    std = torch.tensor([0.5, 3.0], dtype=D, requires_grad=True)
    with seeded(0):
        z = DiagonalNormal(mean, std).rsample((20_000,))
    torch.testing.assert_close(z.mean(0), mean, atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), std, rtol=0.03, atol=0)
    assert abs(torch.corrcoef(z.T)[0, 1]) < 0.03
    epsilon = ((z - mean) / std).detach()
    d_mean, d_std = torch.autograd.grad(z.sum(), (mean, std))
    torch.testing.assert_close(d_mean, torch.full((2,), 20_000.0, dtype=D))
    torch.testing.assert_close(d_std, epsilon.sum(0))


def test_draws_differ_between_images_with_and_without_vmap():
    mean, std = torch.zeros(4, 2, dtype=D), torch.ones(4, 2, dtype=D)
    assert len(DiagonalNormal(mean, std).rsample((3,)).flatten().unique()) == 24
    z = torch.func.vmap(lambda m, s: DiagonalNormal(m, s).rsample((3,)), randomness="different")(mean, std)
    assert z.shape == (4, 3, 2) and len(z.flatten().unique()) == 24


def test_prior_is_standard_and_follows_dtype():
    prior = small().prior
    assert prior.event_shape == (3,) and prior.batch_shape == ()
    assert (prior.mean == 0).all() and (prior.stddev == 1).all() and prior.mean.dtype == D
    assert small(dtype=torch.float32).prior.mean.dtype == torch.float32


@pytest.mark.parametrize("leading", [(), (5,), (4, 5)])
@pytest.mark.parametrize(("likelihood", "outputs"), [(None, 1), (gaussian(0.5), 1), (categorical256, 256)])
def test_shapes_for_any_leading_dimensions(likelihood, outputs, leading):
    model = small(likelihood, outputs)
    p_x_z = model.likelihood(torch.zeros(*leading, 3, dtype=D))
    assert (p_x_z.batch_shape, p_x_z.event_shape) == (leading, (2, 3, 4))
    assert model.log_likelihood(images(5), torch.zeros(*leading[:-1], 5, 3, dtype=D)).shape == (*leading[:-1], 5)


def test_sampled_latents_each_meet_their_own_image():
    model, x = small(), images(5).round()
    z = torch.randn(4, 5, 3, dtype=D)
    one_by_one = [[model.log_joint(x[b : b + 1], z[s, b : b + 1]).item() for b in range(5)] for s in range(4)]
    torch.testing.assert_close(model.log_joint(x, z), torch.tensor(one_by_one, dtype=D))


def test_reconstruction_and_samples_are_means():
    exact = linear_gaussian()
    mean, _ = exact.model.encoder(exact.x).chunk(2, -1)
    torch.testing.assert_close(exact.model.reconstruct(exact.x), exact.model.decoder(mean).detach())
    with seeded(0):
        x = exact.model.sample(20_000).flatten(1)
    assert not x.requires_grad
    covariance = exact.weight @ exact.weight.T  # of W z + b: without the pixels' noise
    torch.testing.assert_close(torch.cov(x.T), covariance, atol=0.1 * covariance.max().item(), rtol=0)
    torch.testing.assert_close(x.mean(0), exact.bias, atol=0.1, rtol=0)
    probabilities = small().reconstruct(images())
    assert probabilities.shape == (6, 2, 3, 4) and ((probabilities > 0) & (probabilities < 1)).all()


def test_weights_are_saved_and_loaded_without_more():
    model, other = small(), small()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert all(name.startswith(("encoder.", "decoder.")) for name in model.state_dict())
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.reconstruct(images()), model.reconstruct(images()))


def test_an_encoder_in_half_precision_gives_latents_in_the_images_precision():
    model = small(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q_z = model.posterior(images(dtype=torch.float32))
        p_x_z = model.likelihood(q_z.rsample())
    assert q_z.mean.dtype == p_x_z.mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images() * math.nan, "x: found NaN or infinite pixels"),
        (images() / 0, "x: found NaN or infinite pixels"),
        ((images() * 255).to(torch.uint8), "x: expected floating-point pixels, got dtype torch.uint8"),
        (images().float(), "x: expected dtype torch.float64 like the model's parameters, got torch.float32"),
        (images()[:0], "x: expected a non-empty batch"),
        ([0.0], "x: expected a torch.Tensor of images, got list"),
    ],
)
def test_bad_images(x, message):
    with pytest.raises(ValueError, match=message):
        small().posterior(x)


def test_pixels_out_of_range_where_the_likelihood_needs_it():
    z = torch.zeros(6, 3, dtype=D)
    for model in (small(), small(categorical256, 256)):
        for x in (images() + 0.5, images() - 0.5):
            with pytest.raises(ValueError, match=r"x: expected pixels in \[0, 1\], got values from"):
                model.log_likelihood(x, z)
    assert small(gaussian(1.0)).log_likelihood(images() + 5, z).isfinite().all()


def test_wrong_sizes_are_named():
    model = small()
    with pytest.raises(ValueError, match=r"x: expected images of shape \(2, 3, 4\), got .* \(6, 2, 3, 5\)"):
        model.log_likelihood(torch.zeros(6, 2, 3, 5, dtype=D), torch.zeros(6, 3, dtype=D))
    with pytest.raises(ValueError, match=r"z: expected .* a last dimension of 3, got .* of shape \(6, 4\)"):
        model.likelihood(torch.zeros(6, 4, dtype=D))
    with pytest.raises(ValueError, match="latent_dim: expected at least 1, got 0"):
        VAE(nn.Identity(), nn.Identity(), latent_dim=0)
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        model.sample(0)
    encoder, decoder = mlp((2, 3, 4), latent_dim=4)
    with pytest.raises(ValueError, match=r"encoder: expected output of shape \[B, 2 \* 3\] .* got \(6, 8\)"):
        VAE(encoder, decoder, latent_dim=3).double().posterior(images())


def test_one_of_everything_is_enough():
    with seeded(0):
        model = VAE(*mlp((1, 1, 2), latent_dim=1, hidden=(1,)), latent_dim=1)
    assert model.sample(1).shape == (1, 1, 1, 2)
    assert model.reconstruct(torch.zeros(1, 1, 1, 2)).shape == (1, 1, 1, 2)
    assert mlp((1, 2, 2), 1)[0].net[1].out_features == 400  # as on MNIST in much of the literature


def test_a_posterior_of_images_with_two_leading_dimensions():
    model, x = small(), images(6)
    flat, folded = model.posterior(x), model.posterior(x.view(3, 2, 2, 3, 4))
    torch.testing.assert_close(folded.mean, flat.mean.view(3, 2, 3))
    torch.testing.assert_close(folded.stddev, flat.stddev.view(3, 2, 3))
