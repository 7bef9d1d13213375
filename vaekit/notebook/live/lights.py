"""The live figure of the last chapter: lights in a bay, haze, strangers, and models that differ by three switches."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vaekit import checks
from vaekit.datasets import render_three_dots
from vaekit.model import VAE
from vaekit.notebook.figures import image_grid
from vaekit.notebook.live import arrays, export, form
from vaekit.training import seeded

SWITCHES = (("H", "Hamiltonian flow"), ("C", "consistency"), ("J", "Jacobian cost"))


def lights(
    models: Mapping[tuple[bool, ...], VAE],
    *,
    size: int = 16,
    switches: Sequence[tuple[str, str]] = SWITCHES,
    strangers: Tensor | None = None,
    start: Sequence[tuple[float, float]] = ((12, 20), (31, 44), (50, 16), (40, 54)),
    steps: int = 100,
    lr: float = 2e-2,
    samples: int = 16,
    nll_samples: int = 64,
    shown: int = 4,
    seed: int = 0,
    bits: export.Bits = (4, 5),
    trained: str = "",
    caption: str | None = None,
    alt: str = "Three lights in the dark; the live figure shows what models with and without the methods make of them.",
) -> None:
    r"""Place lights, add haze, and switch three methods on and off; what each of the models says of the picture.

    NLL by importance sampling with the encoder's guess, regret with the ELBO as
    `likelihood_regret(model, x, adapt="posterior", steps=steps, lr=lr, samples=samples)`; all pictures see one noise.

    Args:
        models: By which switches were on, such as `(False, True, False)`; all combinations of them. Images are white
            lights on black, `[1, size, size]`, black and white.
        size: Pixels on a side.
        switches: A letter and a name for each.
        strangers: Pictures `[N, 1, size, size]` of another kind, to be shown instead of lights.
        start: Where four lights are, x and y from 0 to 63; the fourth is out at the beginning.
        steps: Of Adam, for the regret.
        lr: Their learning rate.
        samples: Draws of the bound before and after.
        nll_samples: Draws of the likelihood.
        shown: How many columns of the Jacobian, strongest first.
        seed: Of the noise, of the pixels' coins and of the haze.
        bits: Of a weight of the encoders and of the decoders; see `arrays.array`.
        trained: How the models were trained, for the caption.
        caption: Says what there is to do; by default also which precision the weights have.
        alt: Text alternative of the still picture.

    Raises:
        ValueError: A combination is missing, bad numbers, or a model that the page does not know.
    """
    if len(models) != 2 ** len(switches) or any(len(on) != len(switches) for on in models):
        raise ValueError(f"models: expected one for each of {2 ** len(switches)} combinations, got {[*models]}")
    if len(start) != 4 or not all(0 <= v <= 63 for place in start for v in place):
        raise ValueError(f"start: expected four places from 0 to 63, got {start}")
    fewest = min(model.latent_dim for model in models.values())
    if not 1 <= shown <= fewest:
        raise ValueError(f"shown: expected from 1 to {fewest} (the latents of each model), got {shown}")
    if strangers is not None:
        checks.images(strangers, name="strangers", shape=(1, size, size), unit_range=True)
    shape, latents = (1, size, size), {model.latent_dim for model in models.values()}
    if len(latents) != 1:
        raise ValueError(f"models: expected one number of latent variables, got {sorted(latents)}")
    (d,) = latents
    with seeded(seed):
        score = torch.randn(samples, 1, d)
    with seeded(seed + 1):
        climb = torch.cat([torch.randn(1, 1, d) for _ in range(steps)])
    with seeded(seed + 2):
        nll, coin, survival = torch.randn(nll_samples, d), torch.rand(shape), torch.rand(shape)
    data = {
        "models": [
            {"on": [bool(v) for v in on], "model": export.model(m, shape, bits)} for on, m in models.items()
        ],
        "switches": [list(pair) for pair in switches], "size": size, "start": [list(place) for place in start],
        "thresholds": [arrays.array(coin, 16), arrays.array(survival, 16)], "lr": lr, "shown": shown,
        "noise": {name: arrays.array(v, 16) for name, v in (("score", score), ("climb", climb), ("nll", nll))},
        "digits": [] if strangers is None else [arrays.array(x, 16) for x in strangers],
    }  # fmt: skip
    three = torch.tensor([[v for place in start[:3] for v in place]], dtype=torch.float64)
    picture = (coin.double() < 1 - render_three_dots(three, size)[0]).float()[None]
    lost = max(export.nats_lost(model, picture, bits) for model in models.values())
    words = (
        "Drag the lights, put one out or light a fourth, draw the haze over them, and switch the methods on and off: "
        f"the {len(models)} models were trained on the same pictures{trained and f' ({trained})'}. Weights in "
        f"{export.in_words(bits)}, which changes the ELBO of the first picture by at most {lost:.2g} nats."
    )
    form.show("lights", data, image_grid(picture, columns=1).figure, caption=caption or words, alt=alt)  # type: ignore[arg-type]
