"""From PyTorch to the page: a model's layers and weights as plain data, and what is lost on the way."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaekit import likelihoods
from vaekit.bounds import elbo
from vaekit.model import VAE, evaluating
from vaekit.networks import Leading, SoftplusScale
from vaekit.notebook.live.arrays import Data, array, rounded
from vaekit.training import seeded

Bits = int | tuple[int, int]


def network(net: nn.Module, shape: tuple[int, ...], bits: int = 32) -> list[Data]:
    """The layers of a network, in evaluation mode.

    Args:
        net: Made of the layers that `vaekit.networks` uses: see `KNOWN`.
        shape: Of one input, without the batch: `(1, 28, 28)` or `(D,)`.
        bits: Of a weight; see `array`.

    Raises:
        ValueError: A layer that the page does not know.
    """
    layers: list[Data] = []
    x = torch.zeros(1, *shape, dtype=_dtype(net), device=_device(net))
    with torch.no_grad(), evaluating(net):
        for layer in _flat(net):
            y = layer(x)
            if type(layer) not in _SHAPING:
                layers.append(_known(layer)(layer, x, y, bits))
            x = y
    return layers


def model(vae: VAE, shape: tuple[int, ...], bits: Bits = 32, *, encoder: bool = True, decoder: bool = True) -> Data:
    """A VAE for the page: networks, number of latents, likelihood and image shape.

    Args:
        vae: The model.
        shape: Of an image.
        bits: See `array`; two numbers are for the encoder and for the decoder.
        encoder: Whether the figure needs the encoder.
        decoder: Whether it needs the decoder.

    Raises:
        ValueError: A layer or a likelihood that the page does not know.
    """
    data: Data = {"latents": vae.latent_dim, "shape": list(shape), "likelihood": likelihood(vae)}
    if encoder:
        data["encoder"] = network(vae.encoder, shape, _pair(bits)[0])
    data["decoder"] = network(vae.decoder, (vae.latent_dim,), _pair(bits)[1]) if decoder else []
    return data


def as_stored(vae: VAE, bits: Bits) -> VAE:
    """A copy of the model with the weights that the page has: what is lost to `bits` can be measured on it."""
    copied = copy.deepcopy(vae)
    with torch.no_grad():
        for net, of_this in zip((copied.encoder, copied.decoder), _pair(bits), strict=True):
            for layer in net.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    for values in (layer.weight, layer.bias):
                        if values is not None:
                            values.copy_(rounded(values, of_this))
    return copied


def nats_lost(vae: VAE, images: Tensor, bits: Bits, *, samples: int = 16) -> float:
    """By how much the ELBO of any of the images changes with the stored weights, at most and with the same noise."""
    bounds = []
    for each in (vae, as_stored(vae, bits)):
        with torch.no_grad(), seeded(0, _device(each)), evaluating(each):
            bounds.append(elbo(each, images.to(_device(each)), samples=samples))
    return (bounds[0] - bounds[1]).abs().max().item()


def in_words(bits: Bits) -> str:
    """As a caption says it: "8 bits", or "4 bits (encoder) and 5 (decoder)"."""
    encoder, decoder = _pair(bits)
    return f"{encoder} bits" if encoder == decoder else f"{encoder} bits (encoder) and {decoder} (decoder)"


def likelihood(vae: VAE) -> Data:
    """The name and the parameters of a model's likelihood.

    Raises:
        ValueError: It is neither `bernoulli` nor `gaussian(scale)`.
    """
    with torch.no_grad():
        pixels = vae.likelihood(vae.prior.rsample((1,))).base_dist
    if type(pixels) is likelihoods.Bernoulli:
        return {"name": "bernoulli"}
    if type(pixels) is torch.distributions.Normal and bool((pixels.scale == pixels.scale.flatten()[0]).all()):
        return {"name": "gaussian", "scale": pixels.scale.flatten()[0].item()}
    raise ValueError(
        f"model: the page knows the likelihoods bernoulli and gaussian(scale), not {type(pixels).__qualname__}"
    )


def _pair(bits: Bits) -> tuple[int, int]:
    return (bits, bits) if isinstance(bits, int) else bits


def _flat(net: nn.Module) -> list[nn.Module]:
    """The layers in the order in which they run."""
    if isinstance(net, Leading):
        return _flat(net.net)
    if isinstance(net, nn.Sequential):
        return [layer for part in net for layer in _flat(part)]
    return [net]


def _dtype(net: nn.Module) -> torch.dtype:
    return next((p.dtype for p in net.parameters()), torch.get_default_dtype())


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _bias(layer: Any, bits: int) -> Data:
    return {"bias": array(layer.bias, bits)} if layer.bias is not None else {}


def _linear(layer: nn.Linear, x: Tensor, y: Tensor, bits: int) -> Data:
    sizes = [layer.in_features, layer.out_features]
    return {"type": "linear", "sizes": sizes, "weight": array(layer.weight, bits), **_bias(layer, bits)}


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, y: Tensor, bits: int) -> Data:
    square = all(len(set(pair)) == 1 for pair in (layer.kernel_size, layer.stride, layer.padding))
    if not square or layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
        raise ValueError(f"layer: the page knows square kernels without groups or dilation, zeros around; not {layer}")
    return {
        "type": "convTransposed" if isinstance(layer, nn.ConvTranspose2d) else "conv",
        "channels": list(layer.weight.shape[:2]), "from": list(x.shape[2:]), "to": list(y.shape[2:]),
        "kernel": layer.kernel_size[0], "stride": layer.stride[0], "padding": int(layer.padding[0]),
        "weight": array(layer.weight, bits), **_bias(layer, bits),
    }  # fmt: skip


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, y: Tensor, bits: int) -> Data:
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(f"layer: the page knows batch normalisation with running statistics, not {layer}")
    mean, variance = layer.running_mean.double(), layer.running_var.double()
    factor = (variance + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight.double())
    shift = (0 if layer.bias is None else layer.bias.double()) - mean * factor
    return {"type": "affine", "factor": array(factor), "shift": array(shift), "area": y[0, 0].numel()}


_SHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)  # change nothing that the page stores
_LAYERS: dict[type, Callable[[Any, Tensor, Tensor, int], Data]] = {
    nn.Linear: _linear, nn.Conv2d: _convolution, nn.ConvTranspose2d: _convolution,
    nn.BatchNorm1d: _batch_norm, nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda layer, *_: {"type": "relu"}, nn.SiLU: lambda layer, *_: {"type": "silu"},
    nn.LeakyReLU: lambda layer, *_: {"type": "leakyRelu", "slope": layer.negative_slope},
    nn.ELU: lambda layer, *_: {"type": "elu", "alpha": layer.alpha},
    nn.Sigmoid: lambda layer, *_: {"type": "sigmoid"}, nn.Tanh: lambda layer, *_: {"type": "tanh"},
    SoftplusScale: lambda layer, x, y, bits: {"type": "softplusScale", "size": y.shape[-1]},
}  # fmt: skip
KNOWN = (*(layer.__name__ for layer in (*_LAYERS, nn.Softplus, *_SHAPING)), "Sequential", "Leading")


def _known(layer: nn.Module) -> Callable[[Any, Tensor, Tensor, int], Data]:
    if type(layer) is nn.Softplus and layer.beta == 1:
        return lambda *_: {"type": "softplus"}
    if type(layer) not in _LAYERS:
        raise ValueError(f"layer: the page does not know {layer}; it knows {', '.join(sorted(KNOWN))}")
    return _LAYERS[type(layer)]
