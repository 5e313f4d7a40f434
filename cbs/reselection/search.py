"""The moves of a re-selection: fewer weights, others in exchange, a refit of those there are."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.network.answers import answer
from cbs.network.layers import every_layer, visiting
from cbs.refit.descent import descend
from cbs.refit.normal_equations import find_structure, normal_matrix
from cbs.refit.passes import Passes
from cbs.reselection.elimination import DAMPING, Local, best_trial
from cbs.reselection.pool import choose_pool, diagonal, ranks
from cbs.reselection.space import Space
from solvers import Solver

EQUATIONS = 50
"""Equations, an output of a sample each, from which a matrix is taken for every entry of a pool."""
FEWEST, MOST = 200, 10_000
"""Samples that a matrix is from, at least and at most."""
PASSES = 12.0
"""Of how many passes forward a pass back of one sample by itself has the work."""
WORK = 1e11
"""Multiplications that a matrix may take, about."""


@dataclass(frozen=True)
class Point:
    """A network's weights and which of them are kept.

    Attributes:
        vector: `[count]` of a `Space`, zero where pruned.
        kept: `[count]`.
        fit: mean divergence of the samples of the fit.
        held: the same of those held back.
    """

    vector: Tensor
    kept: Tensor
    fit: float
    held: float


class Search:
    """The moves of a re-selection.

    Args:
        plain: the network without masks, in evaluation mode.
        passes: of it, with everything in the space moving.
        space: what is decided.
        fit: samples whose divergence is to fall.
        held: samples held back.
        largest: most entries of a pool.
        solver: of the joint problem of a pool.
        seed: of the draws of samples.
        each: multiplications that a sample takes of its own in a matrix, see `work_of_a_sample`.
    """

    def __init__(
        self, plain: nn.Module, passes: Passes, space: Space, fit: Samples, held: Samples, *, largest: int,
        solver: str | Solver, seed: int, each: float = 0.0,
    ) -> None:  # fmt: skip
        self.plain, self.passes, self.space, self.fit, self.held = plain, passes, space, fit, held
        self.largest, self.solver, self.seed, self.each = largest, solver, seed, each
        self._draws = np.random.default_rng(seed)
        self.damping, self.searched = DAMPING, dict[str, Any]()

    def at(self, vector: Tensor, kept: Tensor) -> Point:
        """A point, measured."""
        return Point(vector, kept, self.passes.value(vector, self.fit), self.passes.value(vector, self.held))

    def eliminate(self, point: Point, keep: Tensor, extra: int) -> Point:
        """The joint problem of a pool: down to so many of every label, while pruned weights may return.

        Args:
            point: where.
            keep: `[labels]` how many stay, never more than there are.
            extra: how many may return, at most.
        """
        space, began = self.space, time.perf_counter()
        _, g = self.passes.gradient(point.vector, self.fit)
        h = diagonal(self.passes, point.vector, self._some(int(point.kept.sum())), self._seed())
        leaving = (space.counts(point.kept) - keep).clamp(min=0)
        pool = choose_pool(space, point.kept, point.vector, g, h, self.largest, extra, leaving)
        if not bool(pool.any()):
            self.searched = {}
            return point  # none is there, and none gains anything by returning
        chosen = pool | ~space.prunable
        passes, vector = self._of(point.vector, chosen), point.vector[chosen]
        structure = find_structure(passes, vector, self.fit)
        rows = sum(len(rows) for _, rows in structure.layers)
        some = self._some(len(vector), rows)
        G = normal_matrix(passes, vector, some, structure)
        labels = space.labels[chosen]
        inside = torch.bincount(labels[labels >= 0], minlength=len(keep))
        prune = inside - keep + space.counts(point.kept & ~chosen)
        there = inside > 0
        local = Local(
            vector, G, g[chosen], labels < 0, (tuple(inside[there].tolist()), tuple(prune[there].tolist()))
        )
        trial = best_trial(
            local, lambda w: passes.value(w, some), self.damping, solver=self.solver, seed=self.seed
        )
        vector, kept = point.vector.clone(), point.kept.clone()
        if trial is None:
            return self.cheapest(point, keep)
        self.damping = trial.damping
        vector[chosen], kept[chosen] = trial.weights, ~torch.from_numpy(trial.mask).to(kept.device)
        found = self.at(vector, kept)
        self.searched = {
            "pool": int(pool.sum()), "fixed": int((point.kept & space.prunable & ~pool).sum()),
            "returned": int((kept & ~point.kept).sum()), "damping": trial.damping, "samples": len(some),
            "solver": trial.solver, "foreseen": finite(trial.foreseen),
            "bound_of_pool": finite(trial.bound),
            "divergence": finite(found.fit), "seconds": time.perf_counter() - began,
        }  # fmt: skip
        return found

    def refit(self, point: Point, steps: int) -> Point:
        """Gauss-Newton steps of everything that is kept; never worse on the samples held back."""
        passes, vector = self._of(point.vector, point.kept), point.vector[point.kept]
        structure = find_structure(passes, vector, self.fit)
        rows = sum(len(rows) for _, rows in structure.layers)
        written = len(vector) <= 2 * self.largest
        found = descend(
            passes, vector, self.fit, self.held, curvature=len(self._some(len(vector), rows)),
            structure=structure if written else None, steps=steps, seed=self._seed(),
        )  # fmt: skip
        if found.interrupted:
            raise KeyboardInterrupt
        if not found.chosen:
            return point
        moved = point.vector.clone()
        moved[point.kept] = found.best
        return Point(moved, point.kept, found.steps[found.chosen - 1].fit, found.after)

    def grow(self, point: Point, extra: int) -> Point:
        """The best weights to return come back, at zero."""
        space = self.space
        _, g = self.passes.gradient(point.vector, self.fit)
        h = diagonal(self.passes, point.vector, self._some(int(point.kept.sum())), self._seed())
        none = torch.zeros_like(space.keep)
        pool = choose_pool(space, point.kept, point.vector, g, h, len(point.kept), extra, none)
        return Point(point.vector, point.kept | pool, point.fit, point.held)

    def cheapest(self, point: Point, keep: Tensor) -> Point:
        """So many of every label, without a look at the network: the largest `h w^2`, `h` of few samples."""
        space, few = self.space, self.fit.choose(FEWEST, self.seed)
        unhurried = Passes(self.plain, space.movable, self.passes.divergence)
        h = diagonal(unhurried, point.vector, few, self.seed)
        h = torch.where(torch.isfinite(h), h, 1.0)
        cost = torch.where(point.kept & space.prunable, h * point.vector.square(), math.inf)
        rank = ranks(cost, space.labels)
        leaving = (space.counts(point.kept) - keep).clamp(min=0)
        gone = space.prunable & point.kept & (rank < leaving[space.labels.clamp(min=0)])
        vector = torch.where(gone, 0.0, point.vector)
        value = [unhurried.value(vector, samples) for samples in (self.fit, self.held)]
        return Point(vector, point.kept & ~gone, *value)

    def _of(self, vector: Tensor, chosen: Tensor) -> Passes:
        """Passes of a part of the space, everything else as a vector has it."""
        found = Passes(self.plain, self.space.at(vector, chosen), self.passes.divergence)
        found.until, found.stopped = self.passes.until, self.passes.stopped
        return found

    def _some(self, p: int, rows: int = 1) -> Samples:
        """Samples for a matrix of p entries, in so many rows of `Linear` layers."""
        _, known = next(self.fit.groups())
        numbers = isinstance(known, Tensor) and known.is_floating_point()
        outputs = max(1, known[0].numel() if numbers else 1)
        able = WORK / (0.5 * p * p + 3.0 * rows * p + self.each + 1.0)
        count = int(max(FEWEST, min(MOST, able, EQUATIONS * p / outputs)))
        return self.fit.choose(count, self._seed())

    def _seed(self) -> int:
        return int(self._draws.integers(2**31))


def finite(value: float) -> float | None:
    """A number as JSON has it: None for one that is not finite."""
    return value if math.isfinite(value) else None


@torch.no_grad()
def work_of_a_sample(model: nn.Module, samples: Samples) -> float:
    """Multiplications of the Jacobians of a sample, about, where layers have several positions.

    These take a pass back for every output; 0 without such layers.
    """
    total, apart = 0.0, False
    layers = every_layer(model)
    sizes = {layer.name: layer.shape for layer in layers}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        nonlocal total, apart
        total += y.numel() * sizes[name][1]
        apart = apart or y.numel() != sizes[name][0]

    with visiting(layers, visit):
        outputs = answer(model, samples.first(1))
    return PASSES * outputs.numel() * total if apart else 0.0
