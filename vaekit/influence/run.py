"""The loop behind the scores: queries in pieces, checkpoints, training images in pieces; it can stop and go on."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vaekit import checks
from vaekit.influence.asked import Checkpoint, Objective, noise_seeds, parameters_that_count, read_checkpoint
from vaekit.influence.factors import Gradients, cross, own
from vaekit.influence.gradients import PerImage
from vaekit.influence.paths import choose_path
from vaekit.influence.scored import Scored, directional
from vaekit.training.checkpoints import load_checkpoint, save_checkpoint
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
        checks.images(train, name="train")
        if test is not None:
            checks.images(test, name="test", shape=tuple(train.shape[1:]), dtype=train.dtype)
        checks.at_least(samples, 1, "samples")
        checks.at_least(seed, 0, "seed")
        if chunk is not None:
            checks.at_least(chunk, 1, "chunk")
        if unbiased and samples < 2:
            raise ValueError(
                "samples: an unbiased score needs at least 2 draws of the noise, got 1; pass unbiased=False for an "
                "objective without noise, or for the score of this one draw"
            )
        self.checkpoints = [read_checkpoint(checkpoint) for checkpoint in checkpoints]
        if not self.checkpoints:
            raise ValueError("checkpoints: expected at least one, got none")
        self.train, self.test, self.progress, self.resume = train, test, progress, resume
        self.device = next(model.parameters()).device
        self.names = parameters_that_count(model, objective, layers)
        self.seeds = noise_seeds(seed, len(self.checkpoints), samples, unbiased=unbiased)
        self.scored = Scored(model, objective)
        self.load(0)
        image, queries = train[:1].to(self.device), None if test is None else len(test)
        with torch.no_grad(), seeded(0, self.device):
            self.nats = self.scored(image).item()
        with checks.trusted():
            way, self.forward = choose_path(self.scored, self.names, image, path=path, queries=queries)
            self.gradient = PerImage(self.scored, self.names, way, image, draws=len(self.seeds[0][0]))
        self.chunk = chunk or min(AT_MOST, max(1, BUDGET // (len(self.seeds[0]) * self.gradient.numbers)))

    def load(self, index: int) -> None:
        """Put a checkpoint's weights in place."""
        state = self.checkpoints[index]
        try:
            self.scored.model.load_state_dict(state["model"])
            if isinstance(self.scored.objective, nn.Module):
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

    def blocks(self, finish: Callable[[Tensor], Any]) -> list[Any]:
        """For each piece of the queries, what `finish` makes of its scores `[M, n]` (of `[M]` for self-influence)."""
        queries = [slice(0)] if self.test is None else _pieces(len(self.test), self.chunk)
        steps = list(product(queries, range(len(self.checkpoints)), _pieces(len(self.train), self.chunk)))
        done, results, block = self._resumed()
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
                    save_checkpoint(self.resume, {"done": done, "results": results, "block": block, **self._asked})
                    saved = time.monotonic()
        return results

    def _resumed(self) -> tuple[int, list[Any], Tensor]:
        """How many pieces a run that was stopped had done, their results, and the block that it was at."""
        if self.resume is None or not Path(self.resume).exists():
            return 0, [], torch.empty(0)
        before, now = load_checkpoint(self.resume), self._asked
        if before.get("asked") != now["asked"] or not math.isclose(before["nats"], now["nats"], rel_tol=1e-3):
            raise ValueError(f"resume: {self.resume} holds scores of other images, weights or settings; take another")
        return before["done"], before["results"], before["block"].to(self.device)

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """What must be the same for a run to go on: all that it was given, the objective by its value at one image."""
        settings = (self.names, self.seeds, self.chunk, [state["lr"] for state in self.checkpoints])
        digest = hashlib.blake2b(repr(settings).encode())
        weights = [w for s in self.checkpoints for group in ("model", "objective") for w in s[group].values()]
        for tensor in (self.train, *([] if self.test is None else [self.test]), *weights):
            digest.update(repr(tensor.shape).encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return {"asked": digest.hexdigest(), "nats": self.nats}


def _pieces(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
