"""The loop behind the scores: queries in pieces, checkpoints, training images in pieces; it can stop and go on."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.influence.asked import (
    Checkpoint,
    Objective,
    check_objective,
    noise_seeds,
    parameters_that_count,
    read_checkpoints,
)
from vaekit.influence.factors import Gradients, cross, own
from vaekit.influence.gradients import PerImage
from vaekit.influence.paths import Paths
from vaekit.influence.scored import Scored, directional
from vaekit.training.checkpoints import ensure_writable, load_checkpoint, save_checkpoint
from vaekit.training.description import digest
from vaekit.training.seeding import seeded

BUDGET = 2**26  # numbers that the gradients of one piece may take: 256 MB in single precision
AT_MOST = 256  # images in a piece, so that it stays in the processor's cache
SAVE_EVERY = 30.0  # seconds

Halves = list[dict[str, Gradients]]  # gradients averaged over each half of the draws (or over all: one entry)


class Run:
    """Scores of all training images for test images, or, where there are none, for themselves; see `tracin`."""

    def __init__(
        self, model: nn.Module, objective: Objective, checkpoints: Sequence[Checkpoint], train: Tensor,
        test: Tensor | None, *, samples: int = 16, unbiased: bool = True, layers: Sequence[str] | None = None,
        path: str = "auto", chunk: int | None = None, seed: int = 0, progress: bool = False,
        resume: Path | str | None = None,
    ) -> None:  # fmt: skip
        """Check everything, choose the path and the size of the pieces."""
        checks.module(model, "model")
        checks.function(objective, "objective")
        checks.images(train, name="train")
        ask = getattr(model, "check_images", checks.images)
        ask(train, name="train")
        if test is not None:
            checks.images(test, name="test", shape=tuple(train.shape[1:]), dtype=train.dtype)
            ask(test, name="test")
        checks.count(samples, 1, "samples")
        checks.count(seed, 0, "seed")
        if chunk is not None:
            checks.count(chunk, 1, "chunk")
        if unbiased and samples < 2:
            raise ValueError(
                "samples: an unbiased score needs at least 2 draws of the noise, got 1; pass unbiased=False for an "
                "objective without noise, or for the score of this one draw"
            )
        self.checkpoints = read_checkpoints(checkpoints)
        self.train, self.test, self.progress, self.resume = train, test, progress, resume
        self.device = next(model.parameters()).device
        self.scored = Scored(model, objective)
        self.names = parameters_that_count(self.scored, layers)
        self.seeds = noise_seeds(seed, len(self.checkpoints), samples, unbiased=unbiased)
        self.load(0)
        some = torch.stack([train[0], train[len(train) // 2]]).to(self.device)
        check_objective(self.scored, self.names, some)
        with checks.trusted():
            paths = Paths(self.scored, self.names, some, self.load, len(self.checkpoints))
            way, self.forward = paths.choose(path, queries=None if test is None else len(test))
            self.load(0)
            flat = [s for of_checkpoint in self.seeds for half in of_checkpoint for s in half]
            self.gradient = PerImage(self.scored, self.names, way, some[:1], len(self.seeds[0][0]), seeds=flat[:64])
        self.chunk = chunk or min(AT_MOST, max(1, BUDGET // (len(self.seeds[0]) * self.gradient.numbers)))

    def load(self, index: int) -> None:
        """Put a checkpoint's weights in place."""
        state = self.checkpoints[index]
        try:
            self.scored.model.load_state_dict(state["model"])
            if self.scored.objective is not None:
                self.scored.objective.load_state_dict(state["objective"])
        except RuntimeError as error:
            raise ValueError(f"checkpoints: number {index} is not of this model and objective: {error}") from error

    def gradients(self, x: Tensor, index: int) -> Halves:
        """Gradients of images at a checkpoint that is in place."""
        return [self.gradient(x.to(self.device), seeds) for seeds in self.seeds[index]]

    def scores(self, x: Tensor, queries: Halves, index: int) -> Tensor:
        """Inner products of images' gradients with those of queries, `[m, n]`; without any, with their own, `[m]`."""
        if self.forward:
            return self._forward_scores(x, queries, index)
        halves = self.gradients(x, index)
        if self.test is None:
            return torch.stack([own(g, halves[-1][name]) for name, g in halves[0].items()]).sum(0)
        opposite = zip(halves, reversed(queries), strict=True)  # one half for x, the other for z
        return torch.stack([cross(g, z[name]) for h, z in opposite for name, g in h.items()]).sum(0) / len(halves)

    def _forward_scores(self, x: Tensor, queries: Halves, index: int) -> Tensor:
        shapes, x = {name: p.shape for name, p in self.scored.named_parameters()}, x.to(self.device)
        halves = []
        for seeds, gradients in zip(self.seeds[index], reversed(queries), strict=True):
            formed = {name: g if isinstance(g, Tensor) else g.form() for name, g in gradients.items()}
            columns = []
            for query in zip(*formed.values(), strict=True):
                direction = {name: g.view(shapes[name]) for name, g in zip(formed, query, strict=True)}
                columns.append(torch.stack([directional(self.scored, x, direction, s) for s in seeds]).mean(0))
            halves.append(torch.stack(columns, dim=1))
        return torch.stack(halves).mean(0)

    def blocks(self, kind: str, finish: Callable[[Tensor], Any]) -> list[Any]:
        """For each piece of the queries, what `finish` makes of its scores `[M, n]` (of `[M]` for self-influence).

        Args:
            kind: What `finish` does, in words; a file of another kind is not resumed.
            finish: See above.
        """
        self.kind = kind
        queries = [slice(0)] if self.test is None else _pieces(len(self.test), self.chunk)
        steps = list(product(queries, range(len(self.checkpoints)), _pieces(len(self.train), self.chunk)))
        asked = {} if self.resume is None else self._asked()
        done, results, block = self._resumed(asked)
        if self.resume is not None and done < len(steps):
            ensure_writable(Path(self.resume).parent)  # know it now, not when the first scores are saved
        begun, saved = None, time.monotonic()
        with tqdm(total=len(steps), initial=done, unit="piece", disable=not self.progress) as bar, checks.trusted():
            for piece, index, rows in steps[done:]:
                if begun != (piece, index):  # other queries, or another checkpoint
                    self.load(index)
                    gradients = [] if self.test is None else self.gradients(self.test[piece], index)
                    begun = (piece, index)
                scores = self.checkpoints[index]["lr"] * self.scores(self.train[rows], gradients, index)
                if not scores.isfinite().all():
                    raise FloatingPointError(f"checkpoints: the gradients at number {index} are NaN or infinite")
                if index == rows.start == 0:
                    block = scores.new_zeros(len(self.train), *scores.shape[1:])
                block[rows] += scores
                if index == len(self.checkpoints) - 1 and rows.stop == len(self.train):
                    results.append(finish(block))
                done += 1
                bar.update()
                if self.resume is not None and (done == len(steps) or time.monotonic() - saved > SAVE_EVERY):
                    save_checkpoint(self.resume, {"done": done, "results": results, "block": block, **asked})
                    saved = time.monotonic()
        return results

    def _resumed(self, now: dict[str, Any]) -> tuple[int, list[Any], Tensor]:
        """How many pieces a run that was stopped had done, their results, and the block that it was at."""
        if self.resume is None or not Path(self.resume).exists():
            return 0, [], torch.empty(0)
        before = load_checkpoint(self.resume)
        tolerance = 1e-9 if self.train.dtype == torch.float64 else 1e-5  # another machine rounds otherwise
        if (
            before.get("asked") != now["asked"]
            or len(before.get("nats", [])) != len(now["nats"])
            or not all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(before["nats"], now["nats"], strict=True))
        ):
            raise ValueError(
                f"resume: {self.resume} holds scores of other images, weights or settings, of another objective or of "
                "another kind; take another file"
            )
        return before["done"], before["results"], before["block"].to(self.device)

    def _asked(self) -> dict[str, Any]:
        """What must be the same for a run to go on: all that it was given, and the objective's values at a few images.

        The values would tell what no description of the objective can see.
        """
        settings = (self.kind, self.names, self.seeds, self.chunk, [state["lr"] for state in self.checkpoints])
        configuration = [digest(part, weights=False) for part in (self.scored.model, self.scored.copied)]
        asked = hashlib.blake2b(repr((settings, configuration)).encode())
        weights = [(k, w) for s in self.checkpoints for group in ("model", "objective") for k, w in s[group].items()]
        for name, tensor in (("train", self.train), ("test", self.test), *weights):
            if tensor is not None:
                asked.update(repr((name, tensor.shape, tensor.dtype)).encode())
                asked.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        nats = []
        for index in range(len(self.checkpoints)):
            self.load(index)
            for image in self.train[:4].to(self.device).split(1):
                with torch.no_grad(), seeded(index, self.device):
                    nats.append(self.scored(image).item())
        return {"asked": asked.hexdigest(), "nats": nats}


def _pieces(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
