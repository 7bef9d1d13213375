"""The authors' networks: names and shapes as in the weights that they published, and what is computed from them."""

import pytest
import torch
import torch.nn.functional as F

from vaekit import VAE, categorical256, elbo
from vaekit.regret import authors_dcgan


def normalised(name, n):
    parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (n,)) | {"num_batches_tracked": ()}
    return {f"{name}.{part}": shape for part, shape in parts.items()}


ENCODER = {  # netE_pixel.pth, as the authors' `Encoder(isize=32, nz=100, nc=1, ngf=32)` saves it
    "main.input-conv.weight": (32, 1, 4, 4),
    **normalised("main.input-BN", 32),
    "main.pyramid:32-64:conv.weight": (64, 32, 4, 4),
    **normalised("main.pyramid:64:batchnorm", 64),
    "main.pyramid:64-128:conv.weight": (128, 64, 4, 4),
    **normalised("main.pyramid:128:batchnorm", 128),
    "conv1.weight": (100, 128, 4, 4),
    "conv1.bias": (100,),
    "conv2.weight": (100, 128, 4, 4),
    "conv2.bias": (100,),
}
DECODER = {  # netG_pixel.pth, as `DCGAN_G(isize=32, nz=100, nc=1, ngf=32)` saves it
    "main.initial:100-128:convt.weight": (100, 128, 4, 4),
    **normalised("main.initial:128:batchnorm", 128),
    "main.pyramid:128-64:convt.weight": (128, 64, 4, 4),
    **normalised("main.pyramid:64:batchnorm", 64),
    "main.pyramid:64-32:convt.weight": (64, 32, 4, 4),
    **normalised("main.pyramid:32:batchnorm", 32),
    "main.final:32-1:convt.weight": (32, 256, 4, 4),
}


def random_state(shapes, seed):
    g = torch.Generator().manual_seed(seed)
    return {
        name: torch.tensor(3) if name.endswith("tracked") else 0.05 * torch.rand(shape, generator=g) + 0.01
        for name, shape in shapes.items()
    }


def test_the_published_weights_fit():
    for net, shapes in zip(authors_dcgan(), (ENCODER, DECODER), strict=True):
        assert {name: tuple(value.shape) for name, value in net.net.state_dict().items()} == shapes
        net.net.load_state_dict(random_state(shapes, 0))


def normalise(y, state, name):
    shift, scale = state[f"{name}.running_mean"], (state[f"{name}.running_var"] + 1e-5).sqrt()
    gain, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return (y - shift[:, None, None]) / scale[:, None, None] * gain[:, None, None] + bias[:, None, None]


def test_what_is_computed_from_them():
    """Written out from the description: convolution, normalisation, ReLU; a mean and a log variance."""
    encoder, decoder = authors_dcgan()
    e, d = random_state(ENCODER, 1), random_state(DECODER, 2)
    encoder.net.load_state_dict(e)
    decoder.net.load_state_dict(d)
    model = VAE(encoder, decoder, latent_dim=100, likelihood=categorical256).eval()
    x = torch.rand(2, 1, 32, 32)
    y = F.relu(normalise(F.conv2d(x, e["main.input-conv.weight"], stride=2, padding=1), e, "main.input-BN"))
    for n in (32, 64):
        y = F.conv2d(y, e[f"main.pyramid:{n}-{2 * n}:conv.weight"], stride=2, padding=1)
        y = F.relu(normalise(y, e, f"main.pyramid:{2 * n}:batchnorm"))
    mean, log_variance = (F.conv2d(y, e[f"{h}.weight"], e[f"{h}.bias"]).flatten(1) for h in ("conv1", "conv2"))
    q_z = model.posterior(x)
    torch.testing.assert_close(q_z.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q_z.variance, log_variance.exp(), rtol=1e-4, atol=1e-5)

    z = torch.randn(2, 100)
    y = F.conv_transpose2d(z[..., None, None], d["main.initial:100-128:convt.weight"])
    y = F.relu(normalise(y, d, "main.initial:128:batchnorm"))
    for n in (128, 64):
        y = F.conv_transpose2d(y, d[f"main.pyramid:{n}-{n // 2}:convt.weight"], stride=2, padding=1)
        y = F.relu(normalise(y, d, f"main.pyramid:{n // 2}:batchnorm"))
    logits = F.conv_transpose2d(y, d["main.final:32-1:convt.weight"], stride=2, padding=1)  # [2, 256, 32, 32]
    target = (x[:, 0] * 255).round().long()
    expected = -F.cross_entropy(logits, target, reduction="none").sum((1, 2))
    torch.testing.assert_close(model.log_likelihood(x, z), expected, rtol=1e-4, atol=1e-2)


def test_other_sizes():
    encoder, decoder = authors_dcgan((3, 32, 32), latent_dim=7, width=2, outputs=1)
    assert encoder(torch.rand(2, 5, 3, 32, 32)).shape == (2, 5, 14)
    assert decoder(torch.rand(4, 7)).shape == (4, 3, 32, 32)
    assert elbo(VAE(encoder, decoder, latent_dim=7), torch.rand(3, 3, 32, 32)).shape == (3,)
    for options in ({"shape": (1, 28, 28)}, {"latent_dim": 0}, {"width": 0}, {"outputs": 0}, {"shape": (32, 32)}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
            authors_dcgan(**options)
