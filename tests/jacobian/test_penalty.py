from functools import partial

import pytest
import torch
from torch import nn

from tests.helpers import Decoder, Encoder, linear_gaussian
from vaekit import VAE, conv, dcgan, elbo, mlp
from vaekit.jacobian.penalty import JacobianL1, decoder_jacobian, jacobian_l1, jacobian_l2
from vaekit.likelihoods import categorical256
from vaekit.training.seeding import seeded


def small_vae(outputs=1, **options):
    with seeded(3):
        pair = mlp((1, 3, 4), latent_dim=3, hidden=(7,), outputs=outputs, activation=nn.Tanh)
        return VAE(*pair, latent_dim=3, **options).double()


def latents(n=4, d=3):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def central_differences(model, z, step=1e-6):
    columns = []
    for i in range(z.shape[1]):
        shift = torch.zeros_like(z)
        shift[:, i] = step
        columns.append((model.likelihood(z + shift).mean - model.likelihood(z - shift).mean) / (2 * step))
    return torch.stack(columns, 1)


def test_a_linear_decoder_has_its_matrix_as_jacobian_wherever_z_is():
    exact = linear_gaussian(latent=3, pixels=5)
    jacobian = decoder_jacobian(exact.model, latents(6))
    torch.testing.assert_close(jacobian, exact.weight.T[None, :, None, None, :].expand(6, 3, 1, 1, 5))
    torch.testing.assert_close(jacobian_l1(exact.model, latents(6)), exact.weight.abs().sum().expand(6))
    torch.testing.assert_close(jacobian_l2(exact.model, latents(6)), exact.weight.square().sum().expand(6))


def test_a_linear_decoder_before_a_sigmoid():
    exact = linear_gaussian(latent=2, pixels=4)
    model = VAE(exact.model.encoder, Decoder(exact.weight, exact.bias), latent_dim=2).double()
    z = latents(5, 2)
    p = torch.sigmoid(z @ exact.weight.T + exact.bias)  # [B, P]
    expected = (p * (1 - p))[:, None] * exact.weight.T  # J = diag(p (1 - p)) W, transposed
    torch.testing.assert_close(decoder_jacobian(model, z)[:, :, 0, 0], expected)


@pytest.mark.parametrize(
    "model",
    [
        small_vae(),
        small_vae(outputs=256, likelihood=categorical256),
        VAE(*conv((1, 32, 32), 3), latent_dim=3).double(),
        VAE(*dcgan(latent_dim=3, width=2, outputs=1), latent_dim=3).double().eval(),
    ],
    ids=["mlp", "categorical", "conv", "batch norm in evaluation"],
)
def test_central_differences(model):
    z = latents()
    torch.testing.assert_close(decoder_jacobian(model, z), central_differences(model, z), rtol=1e-5, atol=1e-8)


def test_gradient_agrees_with_double_backward():
    model, z = small_vae(), latents()
    parameters = list(model.decoder.parameters())
    one_by_one = torch.stack(
        [torch.func.jacrev(lambda z: model.likelihood(z).mean)(z_b) for z_b in z]
    )  # [B, *image, D], reverse mode
    expected = torch.autograd.grad(one_by_one.abs().sum(), parameters, allow_unused=True)
    for ours, theirs in zip(
        torch.autograd.grad(jacobian_l1(model, z).sum(), parameters, allow_unused=True), expected, strict=True
    ):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs)
            assert ours.abs().sum() > 0


@pytest.mark.parametrize("norm", [jacobian_l1, jacobian_l2])
@pytest.mark.parametrize("columns", [1, 2])
def test_sampled_columns_are_unbiased(norm, columns):
    model, z = small_vae(), latents(1)
    exact = norm(model, z).item()
    with seeded(0):
        estimates = norm(model, z.expand(4000, -1), columns=columns)
    assert estimates.unique().numel() == 3  # 3 choices of 1, and of 2, columns out of 3
    error = estimates.std().item() / 4000**0.5
    assert error < 0.05 * exact
    assert abs(estimates.mean().item() - exact) < 4 * error


def test_all_columns_drawn_is_the_exact_norm():
    model, z = small_vae(), latents()
    torch.testing.assert_close(jacobian_l1(model, z, columns=3), jacobian_l1(model, z))


def test_a_rotation_of_the_latent_space_changes_l1_but_neither_l2_nor_the_evidence():
    weight = torch.eye(4, 2, dtype=torch.float64)  # each latent moves one pixel
    c = 0.5**0.5
    rotation = torch.tensor([[c, -c], [c, c]], dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    encoder = Encoder(weight.T, zero, torch.zeros(2, dtype=torch.float64))
    straight, turned = (VAE(encoder, Decoder(w, zero), latent_dim=2).double() for w in (weight, weight @ rotation))
    z = latents(3, 2)
    torch.testing.assert_close(turned.likelihood(z @ rotation).mean, straight.likelihood(z).mean)
    torch.testing.assert_close(jacobian_l2(turned, z @ rotation), jacobian_l2(straight, z))
    torch.testing.assert_close(jacobian_l1(turned, z @ rotation), 2**0.5 * jacobian_l1(straight, z))


def test_objective_is_bound_less_weighted_penalty():
    exact = linear_gaussian(exact=True, orthogonal=True)
    for norm, penalty in {1: exact.weight.abs().sum(), 2: exact.weight.square().sum()}.items():
        objective = JacobianL1(partial(elbo, beta=2.0), weight=0.3, norm=norm)
        with seeded(0):
            value = objective(exact.model, exact.x)
        with seeded(0):
            bound = elbo(exact.model, exact.x, beta=2.0)
        torch.testing.assert_close(value, bound - 0.3 * penalty)


def test_weight_and_options_of_the_bound_can_be_scheduled():
    exact = linear_gaussian()
    objective = JacobianL1(elbo, weight=5.0)
    with seeded(0):
        value = objective(exact.model, exact.x, weight=0.5, beta=3.0)
    with seeded(0):
        bound = elbo(exact.model, exact.x, beta=3.0)
    torch.testing.assert_close(value, bound - 0.5 * exact.weight.abs().sum())


def test_gradient_of_the_penalty_reaches_the_decoder_and_not_the_encoder():
    model, x = small_vae(), torch.rand(6, 1, 3, 4, dtype=torch.float64)

    def gradients(objective):
        with seeded(0):
            total = objective(model, x).sum()
        parts = (model.encoder, model.decoder)
        return [torch.autograd.grad(total, [*part.parameters()], retain_graph=True) for part in parts]

    encoder_plain, decoder_plain = gradients(elbo)
    encoder, decoder = gradients(JacobianL1(elbo, weight=0.1))
    assert all(torch.equal(a, b) for a, b in zip(encoder, encoder_plain, strict=True))
    assert not torch.allclose(decoder[0], decoder_plain[0])


def test_parameters_of_the_bound_are_the_objectives():
    bound = nn.Module()
    bound.scale = nn.Parameter(torch.ones(()))
    assert [*JacobianL1(bound, weight=0.1).parameters()] == [bound.scale]


def test_without_gradients():
    model, z = small_vae(), latents()
    with torch.no_grad():
        torch.testing.assert_close(decoder_jacobian(model, z), central_differences(model, z), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("columns", [0, 4])
def test_impossible_columns_are_refused(columns):
    with pytest.raises(ValueError, match="columns: expected"):
        jacobian_l1(small_vae(), latents(), columns=columns)
    with pytest.raises(ValueError, match="columns: expected"):
        JacobianL1(elbo, weight=1.0, columns=columns)(small_vae(), torch.rand(2, 1, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("weight", "norm", "message"), [(-1.0, 1, "weight"), (float("nan"), 1, "weight"), (1.0, 3, "norm")]
)
def test_bad_weights_and_norms_are_refused(weight, norm, message):
    with pytest.raises(ValueError, match=f"{message}: expected"):
        JacobianL1(elbo, weight=weight, norm=norm)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 2, 3)])
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"z: expected latents of shape \[B, 3\]"):
        decoder_jacobian(small_vae(), torch.zeros(shape, dtype=torch.float64))


def test_batch_normalisation_in_training_is_refused():
    model = VAE(*dcgan(latent_dim=3, width=2, outputs=1), latent_dim=3)
    with pytest.raises(ValueError, match="batch normalisation"):
        jacobian_l1(model, torch.zeros(2, 3))
