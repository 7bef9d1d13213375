import re

import pytest
import torch
from torch import nn

from vaekit import VAE, conv, dcgan, elbo, hvae_conv, mlp
from vaekit.networks import Leading, PixelOutputs, SoftplusScale
from vaekit.training.seeding import seeded

with seeded(0):
    PAIRS = {
        "mlp": (mlp((1, 4, 6), latent_dim=3, hidden=(7, 5)), (1, 4, 6), 3, 1),
        "mlp, one dimension": (mlp((9,), latent_dim=2), (9,), 2, 1),
        "mlp, 256 outputs": (mlp((3, 2, 2), latent_dim=2, outputs=256), (3, 2, 2), 2, 256),
        "hvae_conv": (hvae_conv(8), (1, 28, 28), 8, 1),
        "dcgan": (dcgan((3, 32, 32), latent_dim=5, width=4), (3, 32, 32), 5, 256),
        "dcgan, one output": (dcgan((1, 32, 32), latent_dim=5, width=4, outputs=1), (1, 32, 32), 5, 1),
        "conv 64": (conv((1, 64, 64), latent_dim=4), (1, 64, 64), 4, 1),
        "conv 32": (conv((3, 32, 32), latent_dim=4, outputs=2), (3, 32, 32), 4, 2),
    }


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_with_any_leading_dimensions_and_each_example_by_itself(name):
    (encoder, decoder), shape, d, outputs = PAIRS[name]
    encoder.eval(), decoder.eval()
    pixels = shape if outputs == 1 else (*shape, outputs)
    with torch.no_grad():
        x, z = torch.rand(6, *shape), torch.randn(6, d)
        moments, images = encoder(x), decoder(z)
        assert moments.shape == (6, 2 * d) and images.shape == (6, *pixels)
        torch.testing.assert_close(encoder(x.view(3, 2, *shape)), moments.view(3, 2, -1))
        torch.testing.assert_close(decoder(z.view(1, 3, 2, d)), images.view(1, 3, 2, *pixels))
        torch.testing.assert_close(decoder(z[4]), images[4], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder(x[4:5]), moments[4:5], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_every_parameter_gets_a_gradient(name):
    (encoder, decoder), shape, d, _ = PAIRS[name]
    with seeded(0):
        x, z = torch.rand(8, *shape), 3 * torch.randn(8, d)  # enough that no ReLU unit is silent for all
    encoder(x).square().mean().backward()
    decoder(z).square().mean().backward()
    for module in (encoder, decoder):
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def count(module, kind):
    return [m for m in module.modules() if isinstance(m, kind)]


def test_the_default_mlp_is_the_usual_one_on_mnist():
    encoder, decoder = mlp((1, 28, 28), latent_dim=20)
    sizes = [[(m.in_features, m.out_features) for m in count(net, nn.Linear)] for net in (encoder, decoder)]
    assert sizes == [[(784, 400), (400, 40)], [(20, 400), (400, 784)]]
    assert len(count(encoder, nn.ReLU)) == len(count(decoder, nn.ReLU)) == 1  # none after the last layer


def test_the_decoder_mirrors_the_encoder_and_takes_the_activation():
    encoder, decoder = mlp((1, 2, 5), latent_dim=3, hidden=(7, 4), activation=nn.Tanh)
    sizes = [[(m.in_features, m.out_features) for m in count(net, nn.Linear)] for net in (encoder, decoder)]
    assert sizes == [[(10, 7), (7, 4), (4, 6)], [(3, 4), (4, 7), (7, 10)]]
    assert len(count(encoder, nn.Tanh)) == len(count(decoder, nn.Tanh)) == 2


def maps(module, kind):
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in count(module, kind)]


def test_the_networks_of_the_papers():
    encoder, decoder = hvae_conv()
    assert maps(encoder, nn.Conv2d) == [(1, 16, 5, 2), (16, 32, 5, 2), (32, 32, 5, 2)]
    assert maps(decoder, nn.ConvTranspose2d) == [(32, 32, 5, 2), (32, 16, 5, 2), (16, 1, 5, 2)]
    assert [m.out_features for m in count(encoder, nn.Linear)] == [450, 128]
    encoder, decoder = conv((1, 64, 64), latent_dim=10)
    assert maps(encoder, nn.Conv2d) == [(1, 32, 4, 2), (32, 32, 4, 2), (32, 64, 4, 2), (64, 64, 4, 2)]
    assert maps(decoder, nn.ConvTranspose2d) == [(64, 64, 4, 2), (64, 32, 4, 2), (32, 32, 4, 2), (32, 1, 4, 2)]
    assert [m.out_features for m in count(decoder, nn.Linear)] == [256, 1024]
    encoder, decoder = dcgan((3, 32, 32), latent_dim=100, width=32)
    assert [m[:2] for m in maps(encoder, nn.Conv2d)] == [(3, 32), (32, 64), (64, 128), (128, 200)]
    assert [m.negative_slope for m in count(encoder, nn.LeakyReLU)] == [0.2] * 3
    assert [m[:2] for m in maps(decoder, nn.ConvTranspose2d)] == [(100, 128), (128, 64), (64, 32), (32, 768)]


def test_pixel_outputs_belong_to_their_pixel_and_channel():
    x = torch.arange(2 * 6 * 2 * 2.0).view(2, 6, 2, 2)  # two channels of three outputs each
    y = PixelOutputs(3)(x)
    assert y.shape == (2, 2, 2, 2, 3)
    for channel in range(2):
        for k in range(3):
            assert torch.equal(y[:, channel, :, :, k], x[:, 3 * channel + k])


def test_softplus_scale_makes_the_softplus_the_standard_deviation():
    moments = torch.tensor([[5.0, -6.0, 0.7, -3.0]], dtype=torch.float64)
    mean, log_std = SoftplusScale()(moments).chunk(2, -1)
    torch.testing.assert_close(mean, moments[:, :2])
    torch.testing.assert_close(log_std.exp(), (1 + moments[:, 2:].exp()).log())
    assert SoftplusScale()(torch.tensor([[0.0, -1e4]])).isfinite().all()  # a standard deviation of zero has no log


def test_leading_dimensions_are_flattened_once_and_put_back():
    seen = []

    class Net(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x.sum((1, 2))

    x = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert torch.equal(Leading(Net(), 2)(x), x.sum((2, 3)))
    assert torch.equal(Leading(Net(), 2)(x[0]), x[0].sum((1, 2)))
    assert seen == [(6, 4, 5), (3, 4, 5)]


def test_an_objective_runs_through_every_pair():
    for (encoder, decoder), shape, d, outputs in PAIRS.values():
        if outputs == 1:
            value = elbo(VAE(encoder, decoder, latent_dim=d), torch.rand(3, *shape).round(), samples=2)
            assert value.shape == (3,) and value.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp((1, 0, 4), latent_dim=2), r"shape: expected positive image dimensions, got \(1, 0, 4\)"),
        (lambda: mlp((), latent_dim=2), "shape: expected positive image dimensions"),
        (lambda: mlp((4,), latent_dim=0), "latent_dim: expected at least 1, got 0"),
        (lambda: mlp((4,), latent_dim=1, outputs=0), "outputs: expected at least 1, got 0"),
        (lambda: hvae_conv(0), "latent_dim: expected at least 1"),
        (lambda: dcgan((1, 28, 28)), r"shape: expected \(C, 32, 32\), got \(1, 28, 28\)"),
        (lambda: conv((1, 28, 28)), r"shape: expected \(C, 64, 64\) or \(C, 32, 32\), got \(1, 28, 28\)"),
        (lambda: conv((64, 64)), r"shape: expected \(C, 64, 64\) or"),
    ],
)
def test_sizes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", PAIRS)
def test_an_image_of_another_size_is_told(name):
    (encoder, decoder), shape, d, _ = PAIRS[name]
    for wrong in ((*shape[:-1], shape[-1] + 4), (shape[0] + 1, *shape[1:])):
        message = rf"x: expected inputs of shape {re.escape(str(shape))}, got .*{wrong[-1]}\)"
        with pytest.raises(ValueError, match=message):
            elbo(VAE(encoder, decoder, latent_dim=d), torch.rand(2, *wrong))
    with pytest.raises(ValueError, match=rf"expected inputs of shape \({d},\), got"):
        decoder(torch.rand(2, d + 1))
