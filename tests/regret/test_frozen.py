"""The frozen decoder against the network that it was made of."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from vaekit import conv, dcgan, mlp
from vaekit.networks import Leading
from vaekit.regret import authors_dcgan
from vaekit.regret.frozen import frozen
from vaekit.training import seeded


def trained_a_little(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """With statistics, scales and shifts of batch normalisation that are not the initial ones."""
    net = net.double().train()
    for _ in range(3):
        net(x)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return net


def hooked(kind: str, hook) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    getattr(net[0], f"register_forward_{kind}")(hook)
    return net


class Skipping(nn.Module):
    """Has a chain, but takes its convolution's output from the middle of it."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    def forward(self, x):
        return self.chain[0](x)


def chain(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), *between, nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))


IMAGES, CODES = (3, 1, 8, 8), (3, 4)
NETS = {
    "dcgan": (lambda: dcgan((1, 32, 32), 4, width=2, outputs=1)[1], CODES, 3),
    "dcgan, 256 levels": (lambda: dcgan((1, 32, 32), 4, width=2)[1], CODES, 3),
    "the authors'": (lambda: authors_dcgan((1, 32, 32), 4, width=2, outputs=1)[1], CODES, 0),
    "without normalisation": (lambda: conv((1, 32, 32), 4)[1], CODES, 0),
    "perceptron": (lambda: mlp((1, 8, 8), 4)[1], CODES, 0),
    "convolutions": (lambda: chain(nn.BatchNorm2d(4)), IMAGES, 2),
    "no scale": (lambda: chain(nn.BatchNorm2d(4, affine=False)), IMAGES, 2),
    "a chain in a chain": (lambda: nn.Sequential(nn.Identity(), Leading(chain(nn.BatchNorm2d(4)), 3)), IMAGES, 2),
    "no statistics kept": (lambda: chain(nn.BatchNorm2d(4, track_running_stats=False)), IMAGES, 1),
    "groups": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 3, groups=2),
                                     nn.BatchNorm2d(4)), IMAGES, 0),
    "something in between": (lambda: chain(nn.ReLU(), nn.BatchNorm2d(4)), IMAGES, 1),
    "weights made in a hook": (lambda: nn.Sequential(weight_norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2)), IMAGES, 0),
    "a hook on the output": (lambda: hooked("hook", lambda module, args, y: y**2), IMAGES, 0),
    "a hook on the input": (lambda: hooked("pre_hook", lambda module, args: (args[0] ** 2,)), IMAGES, 0),
    "calls parts of a chain": (Skipping, IMAGES, 0),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "folded"), NETS.values(), ids=NETS)
def test_it_is_the_same_function_and_what_can_be_folded_is(make, shape, folded):
    with seeded(0):
        x = torch.randn(shape, dtype=torch.float64)
        net = trained_a_little(make(), x)
    before = copy.deepcopy(net.state_dict())
    quick = frozen(net)
    torch.testing.assert_close(quick(x), net.eval()(x), rtol=1e-12, atol=1e-12)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (net, quick)]
    assert norms[0] - norms[1] == folded
    assert not any(m.training for m in quick.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_convolution_that_is_called_twice_is_folded_only_where_a_normalisation_follows():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    with seeded(0):
        x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
        net = trained_a_little(nn.Sequential(shared, nn.BatchNorm2d(2), nn.ReLU(), shared), x)
    torch.testing.assert_close(frozen(net)(x), net.eval()(x), rtol=1e-12, atol=1e-12)
