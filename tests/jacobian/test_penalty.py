from functools import partial

import pytest
import torch
from torch import nn

from tests.helpers import Decoder, Encoder, linear_gaussian
from vaekit import VAE, conv, dcgan, elbo, gaussian, mlp
from vaekit.jacobian.baselines import FactorVAE
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


# --- what the gradient of exact derivatives leaves out ----------------------------------------------------------------


class OneUnit(nn.Module):
    """g(z) = max(0, w z + b), one pixel."""

    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (w, b))

    def forward(self, z):
        return torch.relu(self.w * z + self.b)[..., None, None]


def gradient_of(penalty, model):
    """With respect to all of the decoder's parameters, flattened."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(penalty, [*model.decoder.parameters()])])


@pytest.mark.parametrize("b", [-0.7, 0.0, 1.2])
def test_one_unit_by_hand(b):
    """P = w Phi(b / w); dP/dw = Phi(b / w) - (b / w) phi(b / w), dP/db = phi(b / w)."""
    w, normal = 1.5, torch.distributions.Normal(0.0, 1.0)
    model = VAE(nn.Identity(), OneUnit(w, b), latent_dim=1, likelihood=gaussian(1.0)).double()
    z = torch.special.ndtri((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000)[:, None]  # quantiles
    t = torch.tensor(b / w, dtype=torch.float64)
    below, density = normal.cdf(t), normal.log_prob(t).exp()
    torch.testing.assert_close(jacobian_l1(model, z).mean(), w * below, rtol=1e-4, atol=0)
    truth = torch.stack([below - t * density, density])
    exact = gradient_of(jacobian_l1(model, z).mean() + 0 * model.decoder.b, model)
    torch.testing.assert_close(exact, torch.stack([below, below * 0]), rtol=1e-4, atol=1e-9)  # the first term alone
    by_step = {}
    for step in (0.1, 0.01):
        found = gradient_of(jacobian_l1(model, z, differences=step).mean(), model)
        further = torch.tensor(b / w + step, dtype=torch.float64)
        expected = (normal.cdf(further) - below) / step
        torch.testing.assert_close(found[1], expected, rtol=1e-3, atol=0)
        by_step[step] = (found - truth).abs().max()
    assert by_step[0.1] < 0.06 and by_step[0.01] < 0.006 and (exact - truth).abs().max() > 0.15


@pytest.mark.parametrize("norm", [jacobian_l1, jacobian_l2])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Softplus])
def test_the_slope_of_the_expected_penalty(activation, norm):
    """Along a direction in the weights; a smooth decoder's exact gradient gives it, that of a ReLU decoder does not."""
    with seeded(5):
        pair = mlp((1, 2, 3), latent_dim=2, hidden=(8, 8), activation=activation)
        model = VAE(*pair, latent_dim=2).double()
        z = torch.randn(200_000, 2, dtype=torch.float64)
    for layer in model.decoder.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.0, generator=torch.Generator().manual_seed(layer.in_features))
    exact, by_differences = (gradient_of(norm(model, z, differences=d).mean(), model) for d in (None, 0.03))
    direction = by_differences / by_differences.norm()
    parameters = [*model.decoder.parameters()]
    start = nn.utils.parameters_to_vector(parameters).detach()

    def value(t):
        with torch.no_grad():
            nn.utils.vector_to_parameters(start + t * direction, parameters)
            return norm(model, z).mean()

    slope = (value(0.02) - value(-0.02)) / 0.04
    assert abs(by_differences @ direction / slope - 1) < 0.05
    off = abs(exact @ direction / slope - 1)
    assert off < 0.01 if activation is nn.Softplus else off > 0.1


def test_differences_are_differences():
    model, z, step = small_vae(), latents(), 0.3
    shifted = torch.stack([model.likelihood(z + step * e).mean for e in torch.eye(3, dtype=torch.float64)])
    change = (shifted - model.likelihood(z).mean) / step
    torch.testing.assert_close(jacobian_l1(model, z, differences=step), change.abs().flatten(2).sum((0, 2)))
    torch.testing.assert_close(jacobian_l2(model, z, differences=step), change.square().flatten(2).sum((0, 2)))
    torch.testing.assert_close(jacobian_l1(model, z, differences=1e-7), jacobian_l1(model, z), rtol=1e-5, atol=0)
    draws = [jacobian_l1(model, z, columns=2, differences=step) for _ in range(300)]
    torch.testing.assert_close(
        torch.stack(draws).mean(0), jacobian_l1(model, z, differences=step), rtol=0.1, atol=0
    )
    objective = JacobianL1(elbo, weight=0.5, differences=step)
    x = torch.rand(3, 1, 3, 4, dtype=torch.float64)
    with seeded(0):
        value = objective(model, x)
    with seeded(0):
        bound = elbo(model, x)
        penalty = jacobian_l1(model, model.posterior(x).rsample(), differences=step)
    torch.testing.assert_close(value, bound - 0.5 * penalty)


@pytest.mark.parametrize("step", [0, -0.1, float("nan"), float("inf"), "small"])
def test_bad_steps_of_differences_are_refused(step):
    for call in (
        lambda: JacobianL1(elbo, weight=0.1, differences=step),
        lambda: jacobian_l1(small_vae(), latents(), differences=step),
    ):
        with pytest.raises(ValueError, match="differences: expected a positive finite number, got"):
            call()


@pytest.mark.parametrize("objective", [JacobianL1(elbo, weight=1.0), FactorVAE(3, weight=1.0, hidden=4, layers=1)])
def test_a_scheduled_weight_is_looked_at_too(objective):
    for weight in (-1e-9, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match="weight: expected"):
            objective.double()(small_vae(), torch.rand(2, 1, 3, 4, dtype=torch.float64), weight=weight)
