"""Weights kept beside the book, for readers who want to see a chapter's figures without training its models.

They are those of the best profile that has been run, in half precision, as safetensors (which hold numbers and no
code), each with its digest in `weights.json`. In a clone they lie in `book/weights`; elsewhere, as on Colab, they are
downloaded once from the repository and checked.
"""

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaekit.notebook import store
from vaekit.notebook.experiments import profile
from vaekit.training import History

INDEX = Path(__file__).with_suffix(".json")
FOLDER = Path(__file__).parents[2] / "book" / "weights"

_retrain: bool | None = None


def retrain(choice: bool | None) -> None:
    """Train (True), take kept weights where there are some (False), or leave it to the environment (None)."""
    global _retrain
    _retrain = choice


def wanted() -> bool:
    """Whether kept weights are taken in place of a training.

    `VAEKIT_TRAIN` decides, 1 to train and 0 not to; else the switch in a chapter's settings; else whoever names a
    profile wants it computed. The `smoke` profile never takes them.
    """
    if profile() == "smoke":
        return False
    if asked := os.environ.get("VAEKIT_TRAIN"):
        return asked == "0"
    return not _retrain if _retrain is not None else "VAEKIT_PROFILE" not in os.environ


def index() -> dict[str, Any]:
    """The digest and size of every kept file, by `<chapter>/<name>`."""
    return json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.is_file() else {}


def instead(name: str, keep: str, model: nn.Module, objective: Any, device: torch.device) -> History | None:
    """Kept weights put into a model in place of a training, if there are some that fit and nobody asked to train.

    Args:
        name: What would be trained, in words.
        keep: `<chapter>/<name>` of the weights.
        model: Left with these weights, on `device`, in evaluation mode.
        objective: The same, where it is a module.
        device: Where `fit` would leave the model.

    Returns:
        The history of the training that the weights are from, without checkpoints; None where there is none.
    """
    if not wanted() or keep not in index():
        return None
    from safetensors import SafetensorError, safe_open

    modules = {"model": model} | ({"objective": objective} if isinstance(objective, nn.Module) else {})
    try:
        with safe_open(find(keep), "pt") as file:
            about = json.loads(file.metadata()["vaekit"])
            for part, module in modules.items():
                names = [key for key in file.keys() if key.startswith(f"{part}.")]  # noqa: SIM118
                state = {key.removeprefix(f"{part}."): file.get_tensor(key) for key in names}
                _check_fit(module, state)
                module.load_state_dict(state)  # which brings them to the module's own precision
                module.to(device).eval()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        store.say(f"{name}: is trained, since kept weights are not to be used ({error})")
        return None
    store.say(
        f"{name}: kept weights, trained in the profile {about['profile']} in "
        f"{store.duration(about['history']['seconds'])} on {about['device']}, {about['date']}; "
        "to train it here, set VAEKIT_TRAIN=1 or retrain=True in the settings"
    )
    return History(**about["history"], checkpoints=[])


def find(keep: str) -> Path:
    """The path of a kept file, in the clone or downloaded, with the digest that it must have.

    Raises:
        ValueError: It has another digest.
        OSError: It is neither here nor to be had.
    """
    digest = index()[keep]["sha256"]
    path = FOLDER / f"{keep}.safetensors"
    if not path.is_file():
        import pooch

        folder = store.folder().parent / "weights" / Path(keep).parent
        address = f"{_address()}/book/weights/{keep}.safetensors"
        return Path(pooch.retrieve(address, f"sha256:{digest}", f"{digest[:12]}-{path.name}", folder))
    if (came := hashlib.sha256(path.read_bytes()).hexdigest()) != digest:
        raise ValueError(f"{path.name}: expected the digest {digest[:12]}, got {came[:12]}")
    return path


def _address() -> str:
    """Where the repository's files are to be had, by what the installed package says of itself."""
    for line in importlib.metadata.metadata("vaekit").get_all("Project-URL") or []:
        label, _, url = line.partition(", ")
        if label == "Repository":
            return url.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main"
    raise OSError("the package does not say where its repository is")


def _check_fit(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Say whether weights fit, before any of them is put in."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    came = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != came:
        other = sorted(n for n in shapes.keys() | came.keys() if shapes.get(n) != came.get(n))[0]
        raise ValueError(f"they are of another network: {other} has {came.get(other)}, expected {shapes.get(other)}")
