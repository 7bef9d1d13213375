"""Per-image gradients of an objective, many images in one pass, through layers' factors where these are exact."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from vaekit.influence.factors import Factors, Gradients, bias_gradient, has_factors, pairs_are_cheaper, weight_factors
from vaekit.influence.scored import Scored, one_by_one
from vaekit.training.functional import functional_call
from vaekit.training.seeding import seeded

PATHS = ("layers", "general", "loop")

Captured = dict[tuple[str, int], tuple[Tensor, Tensor]]  # (layer, call) -> its inputs, and the gradient of its outputs


class PerImage:
    """Gradients with respect to chosen parameters of `scored`, one for each image, by one of three paths.

    - `layers`: factors for the weights of linear and convolutional layers, `torch.func` for every other parameter;
    - `general`: `torch.func` for every parameter;
    - `loop`: automatic differentiation, one image after the other: slow, and what the others are checked against.

    The noise of a pass is drawn as for a batch of one image and shared by all images, so that an image's gradient does
    not depend on those beside it.

    Args:
        scored: Model and objective.
        names: The parameters that count, by their names in `scored`.
        path: One of `PATHS`.
        image: One image `[1, *image]`, to see what the layers are given.
        draws: Passes that a call will average over.
        seeds: Of noise with which to see how often each layer is called. One that the noise calls now and then, such as
            a layer that is skipped at random, is left to `torch.func`.
    """

    def __init__(
        self, scored: Scored, names: Sequence[str], path: str, image: Tensor, draws: int = 1,
        seeds: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """See the class."""
        self.scored, self.names, self.path = scored, names, path
        self.layers = _layers(scored, names) if path == "layers" else {}
        captured = [self._sizes(image, seed) for seed in dict.fromkeys((0, 1, *seeds))]
        first, second = captured[:2]
        calls = {name: {sum(site[0] == name for site in sites) for sites in captured} for name in self.layers}
        steady = {name for name in self.layers if len(calls[name]) == 1 and (name, 0) in first}
        self.layers = {name: layer for name, layer in self.layers.items() if name in steady}
        first = {site: sizes for site, sizes in first.items() if site[0] in self.layers}
        by_factors = {f"{name}.{own}" for name, layer in self.layers.items() for own, _ in layer.named_parameters()}
        self.rest = [name for name in names if name not in by_factors]
        parameters: dict[str, Tensor] = dict(scored.named_parameters())
        self.numbers = sum(parameters[name].numel() for name in names if name not in by_factors)  # kept for an image
        self.probes = {site: g.new_zeros(g.shape[1:]) for site, (_, g) in first.items()}
        self.paired = {}
        for name, layer in self.layers.items():
            sites = [site for site in first if site[0] == name]
            sizes = [weight_factors(layer, *first[site]) for site in sites]
            same = all(torch.equal(first[site][0], second[site][0]) for site in sites)
            positions = sum(size.left.shape[1] for size in sizes) * (1 if same else draws)
            p, q = sizes[0].left.shape[2], sizes[0].right.shape[2]
            self.paired[name] = pairs_are_cheaper(positions, p, q)
            self.numbers += positions * (p + q) + 4 * sum(side.numel() for site in sites for side in first[site])
            self.numbers += 0 if self.paired[name] else p * q

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> dict[str, Gradients]:
        """The mean of the gradients at images `[B, *image]` over the noise of these seeds, by parameter."""
        total = _Total({}, {})
        held: Captured = {}
        for seed in seeds:
            captured, rest = self._pass(x, seed)
            for name, gradient in rest.items():
                total.add(name, gradient.reshape(len(x), -1))
            for site, (inputs, g) in captured.items():
                if site in held and torch.equal(held[site][0], inputs):  # no noise before this layer
                    held[site] = (inputs, held[site][1] + g)
                else:
                    self._release(held, site, total)
                    held[site] = (inputs, g)
        for site in list(held):
            self._release(held, site, total)
        share = 1 / len(seeds)
        mean: dict[str, Gradients] = {name: g if share == 1 else g * share for name, g in total.formed.items()}
        for name, parts in total.factors.items():
            left, right = (torch.cat(side, dim=1) for side in zip(*parts, strict=True))  # [B, T, p], [B, T, q]
            mean[name] = Factors(left * share, right)
        return mean

    def _release(self, held: Captured, site: tuple[str, int], total: "_Total") -> None:
        """Add what a layer has captured to the gradients of its parameters."""
        if site not in held:
            return
        (name, _), (inputs, g) = site, held.pop(site)
        layer = self.layers[name]
        if (weight := f"{name}.weight") in self.names:
            factors = weight_factors(layer, inputs, g)
            if self.paired[name]:
                total.factors.setdefault(weight, []).append(factors)
            else:
                total.add(weight, factors.form())
        if (bias := f"{name}.bias") in self.names:
            total.add(bias, bias_gradient(layer, g))

    def _pass(self, x: Tensor, seed: int) -> tuple[Captured, dict[str, Tensor]]:
        """One draw of the noise: what the layers captured, and the gradients of the other parameters `[B, *shape]`."""
        parameters: dict[str, Tensor] = {n: p for n, p in self.scored.named_parameters() if n in self.rest}
        if self.path == "loop":
            return {}, one_by_one(self.scored, parameters, x, seed)

        def nats(
            probes: dict[tuple[str, int], Tensor], parameters: dict[str, Tensor], image: Tensor
        ) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
            run = lambda: functional_call(self.scored, parameters, (image[None],)).sum()  # noqa: E731
            return self._captured(run, probes)

        every = vmap(grad(nats, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0), randomness="same")
        with seeded(seed, x.device):
            (g, rest), inputs = every(self.probes, parameters, x)
        return {site: (inputs[site], g[site]) for site in inputs}, rest

    def _captured(
        self, run: Callable[[], Tensor], probes: dict[tuple[str, int], Tensor] | None = None
    ) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
        """What `run` returns, and the layers' inputs; to each layer's outputs its probe is added.

        A probe is zero and changes nothing, but the gradient with respect to it is the one with respect to the outputs.
        """
        inputs: dict[tuple[str, int], Tensor] = {}
        calls = dict.fromkeys(self.layers, 0)

        def hook_for(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
            def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                site = (name, calls[name])
                calls[name] += 1
                if probes is not None and site not in probes:
                    raise ValueError(
                        f"path: 'layers' expects that {name} is called as often with any noise, got one call more; "
                        "take path='general'"
                    )
                inputs[site] = args[0]
                return output if probes is None else output + probes[site]

            return hook

        with ExitStack() as stack:
            for name, layer in self.layers.items():
                stack.callback(layer.register_forward_hook(hook_for(name)).remove)
            return run(), inputs

    def _sizes(self, image: Tensor, seed: int) -> Captured:
        """For one image, what the layers are given, and zeros of the shape of what they return."""
        if not self.layers:
            return {}
        with torch.no_grad(), seeded(seed, image.device):
            _, inputs = self._captured(lambda: self.scored(image))
            return {
                site: (a[None], torch.zeros_like(self.layers[site[0]](a))[None]) for site, a in inputs.items()
            }


def _layers(scored: Scored, names: Sequence[str]) -> dict[str, nn.Module]:
    """The layers that have factors, a parameter among `names`, and no parameter that another module has too."""
    uses: dict[int, int] = {}
    for module in scored.modules():
        for p in module.parameters(recurse=False):
            uses[id(p)] = uses.get(id(p), 0) + 1
    return {
        name: module
        for name, module in scored.named_modules()
        if has_factors(module)
        and all(uses[id(p)] == 1 for p in module.parameters())
        and any(f"{name}.{own}" in names for own, _ in module.named_parameters())
    }


class _Total(NamedTuple):
    """Sums over draws: formed gradients, and factors side by side."""

    formed: dict[str, Tensor]
    factors: dict[str, list[Factors]]

    def add(self, name: str, gradient: Tensor) -> None:
        """Add to a formed gradient; the first is kept as it is."""
        self.formed[name] = self.formed[name] + gradient if name in self.formed else gradient
