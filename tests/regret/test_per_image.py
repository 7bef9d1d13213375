import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from vaekit.regret.per_image import PerImage


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": (4, 2), "stride": (2, 1), "padding": (1, 2)},
        {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "bias": False},
        {"kernel_size": 3, "groups": 2},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    ],
)
def test_values_and_gradients_are_those_of_the_convolution(options):
    net = nn.Sequential(nn.Conv2d(4, 6, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.randn(5, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wrapped, expected = PerImage(net)(x), net(x)
    torch.testing.assert_close(wrapped, expected)
    for a, b in zip(
        torch.autograd.grad(wrapped.square().sum(), [*net.parameters()]),
        torch.autograd.grad(expected.square().sum(), [*net.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_each_image_has_weights_of_its_own():
    net = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Flatten()).double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 7, 7, dtype=torch.float64, generator=g)
    weights = {n: p + torch.randn(4, *p.shape, dtype=p.dtype, generator=g) for n, p in net.named_parameters()}

    def value(module, prefix, weights, image):
        return functional_call(module, {prefix + n: w for n, w in weights.items()}, (image[None],)).square().sum()

    together = vmap(grad(lambda w, image: value(PerImage(net), "net.", w, image)))(weights, x)
    for i in range(4):
        alone = grad(lambda w, image: value(net, "", w, image))({n: w[i] for n, w in weights.items()}, x[i])
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name][i], gradient)


class Plain(nn.Module):
    """Calls the convolution with nothing but an image and weights, on a batch or on a single image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 2, 3, dtype=torch.float64))

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


def test_a_convolution_by_its_defaults():
    net, x = Plain(), torch.randn(5, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(PerImage(net)(x), net(x))
    torch.testing.assert_close(PerImage(net)(x[0]), net(x[0]))


class Seen(TorchDispatchMode):
    """The operations that were done inside."""

    def __init__(self):
        super().__init__()
        self.operations = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.operations.add(operation)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("groups", "left"), [(1, False), (2, True)])
def test_a_plain_convolution_becomes_a_product(groups, left):
    net = PerImage(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups))
    with Seen() as seen:
        net(torch.rand(2, 4, 8, 8))
    assert (torch.ops.aten.convolution.default in seen.operations) is left
