"""`trained`: `fit` with its checkpoints in the store of runs, so that a training goes on where it was stopped."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.notebook import store, weights
from vaekit.notebook.digest import digest
from vaekit.notebook.turns import turn
from vaekit.training import History, default_device, fit, fit_ensemble, load_checkpoint
from vaekit.training.objectives import modules_of

__all__ = ["trained"]

BEGAN = "began.json"  # seconds spent before, and when the present part began
NEVER = 10**9  # epochs between two files of their own, where none is asked for
APART = {"progress", "device"}  # what changes nothing in the result


class _Trained:
    def __call__(
        self, name: str, model: nn.Module, objective: Any, images: Tensor, *, keep: str | None = None, version: int = 0,
        **arguments: Any,
    ) -> History:  # fmt: skip
        """`fit(model, objective, images, **arguments)`, from the store if it is there, else trained and kept.

        A training that was stopped goes on after its last whole epoch, with the numbers that it would have had. It is
        kept under a digest of the initial weights, the objective, the images and all arguments.

        Args:
            name: What is trained, in words, such as `plain VAE, seed 0`.
            model: Trained in place; if the training is found, its weights are put in.
            objective: As for `fit`; where it is a module, it is trained and put in place too.
            images: Training images `[N, *image]`.
            keep: `<chapter>/<name>` of a model that figures show: its weights are kept beside the book, and a reader
                who does not ask for training gets these (see `weights`).
            version: To be raised when something changes that the digest does not see.
            **arguments: Of `fit`, without `checkpoints` and `resume`. Files for single epochs are kept only if
                `checkpoint_every` is given.

        Returns:
            The history; `seconds` is all the computing time that went into it, and `checkpoints` lie in the store.

        Raises:
            ValueError: As `fit`; an argument of which no digest can be taken.
            KeyboardInterrupt: The training was interrupted; what has been finished of it is kept.
            OSError: The store cannot be written.
        """
        for taken in {"checkpoints", "resume"} & set(arguments):
            raise ValueError(f"{taken}: expected none, since the store takes care of it; got {arguments[taken]!r}")
        key = _key(name, (model, objective, images), arguments, version)
        path = store.file(name, key)
        device = torch.device(arguments.get("device") or default_device())
        with turn(name, path):
            if (found := store.read(path, key)) is not None and _complete(name, found[0], path.parent):
                _put_in({"model": model, "objective": objective}, found[0], device)
                store.taken(name, found[1], path, keep=keep)
                return _history(found[0], path.parent)
            if keep is not None and (history := weights.instead(name, keep, model, objective, device)) is not None:
                return history
            files = store.folder() / f"{store.stem(name, key)}.training"
            spent, epoch = _so_far(name, files)
            store.say(
                f"{name}: goes on after epoch {epoch}" if epoch else "",
                event="start", name=name, files=str(files), epochs=arguments.get("epochs"), done=epoch,
            )  # fmt: skip
            began = time.perf_counter()
            asked = {"checkpoint_every": NEVER, "progress": store.shown()} | arguments
            history = fit(model, objective, images, **asked, checkpoints=files)
            if history.stopped == "interrupted":
                raise KeyboardInterrupt(f"{name}: interrupted; run it again and it goes on after the last whole epoch")
            store.ledger.seconds += spent
            spent += time.perf_counter() - began
            value = history._asdict() | {
                "checkpoints": [str(file.relative_to(path.parent)) for file in history.checkpoints], "seconds": spent,
                "model": model.state_dict(), "objective": _state(objective),
            }  # fmt: skip
            store.write(path, name, key, value, seconds=spent)
            for file in (files / "last.pt", files / BEGAN):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: files of single epochs were asked for
                files.rmdir()
            store.done(name, "trained", spent, path, keep=keep)
            return _history(value, path.parent)

    def ensemble(
        self, name: str, models: Sequence[nn.Module], objective: Any, images: Tensor, *, version: int = 0,
        **arguments: Any,
    ) -> Tensor:  # fmt: skip
        """`fit_ensemble(models, objective, images, **arguments)`, from the store or trained and kept, as a whole.

        Args:
            name: What is trained, in words.
            models: Trained in place, or their weights put in.
            objective: As for `fit_ensemble`; its modules, too, are trained in place.
            images: Training images `[N, *image]`.
            version: To be raised when something changes that the digest does not see.
            **arguments: Of `fit_ensemble`.

        Returns:
            `[M, epochs]`, the mean nats of each model in each epoch.
        """
        modules = [*models, *(objective if isinstance(objective, Sequence) else [])]
        key = _key(name, (list(models), objective, images), arguments, version)
        path = store.file(name, key)
        with turn(name, path):
            if (found := store.read(path, key)) is not None:
                device = torch.device(arguments.get("device") or default_device())
                for module, state in zip(modules, found[0]["modules"], strict=True):
                    _put_in({"module": module}, {"module": state}, device)
                for module in modules_of(objective).values():
                    module.to(device).eval()
                store.taken(name, found[1], path)
                return found[0]["nats"]
            store.say("", event="start", name=name)
            began = time.perf_counter()
            nats = fit_ensemble(models, objective, images, **({"progress": store.shown()} | arguments))
            spent = time.perf_counter() - began
            states = [module.state_dict() for module in modules]
            store.write(path, name, key, {"nats": nats, "modules": states}, seconds=spent)
            store.done(name, "trained", spent, path)
            return nats


trained = _Trained()


def _key(name: str, subjects: tuple, arguments: dict[str, Any], version: int) -> str:
    asked = {k: v for k, v in arguments.items() if k not in APART}
    try:
        return digest(
            name=name, model=subjects[0], objective=subjects[1], images=subjects[2], arguments=asked, version=version,
            library=store.LIBRARY, dtype=torch.get_default_dtype(),
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _state(objective: Any) -> dict[str, Tensor]:
    return objective.state_dict() if isinstance(objective, nn.Module) else {}


def _put_in(modules: dict[str, Any], states: dict[str, Any], device: torch.device) -> None:
    """Leave modules as `fit` leaves them: with these weights, on `device`, in evaluation mode."""
    for name, module in modules.items():
        if isinstance(module, nn.Module):
            module.load_state_dict(states[name])
            module.to(device).eval()


def _history(value: dict[str, Any], folder: Path) -> History:
    named = {field: value[field] for field in History._fields}
    return History(**named | {"checkpoints": [folder / name for name in value["checkpoints"]]})


def _complete(name: str, value: dict[str, Any], folder: Path) -> bool:
    """Whether the files of single epochs, where they were asked for, are still there."""
    missing = [file for file in value["checkpoints"] if not (folder / file).is_file()]
    if missing:
        store.say(f"{name}: {len(missing)} of its checkpoints are missing; it is trained anew")
    return not missing


def _so_far(name: str, files: Path) -> tuple[float, int]:
    """Seconds and epochs that went into a training that was stopped; notes that another part of it begins now."""
    files.mkdir(parents=True, exist_ok=True)
    last, began = files / "last.pt", files / BEGAN
    spent, epoch = 0.0, 0
    if store.fresh():
        last.unlink(missing_ok=True)
    try:
        epoch = load_checkpoint(last)["epoch"]
        spent, at = json.loads(began.read_text(encoding="utf-8"))
        spent += max(0.0, last.stat().st_mtime - at)
    except FileNotFoundError:
        pass
    except ValueError as error:
        store.say(f"{name}: begins anew, since what was kept of it is not to be used ({error})")
        last.unlink(missing_ok=True)
        spent, epoch = 0.0, 0
    began.write_text(json.dumps([spent, time.time()]), encoding="utf-8")
    return spent, epoch
