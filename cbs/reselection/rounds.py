"""Rounds of re-selection: which weights are kept, decided anew by the curvature of the network's own loss.

Layer objectives know nothing of the network's loss. Once the survivors are few enough for a matrix of all of
them, that of the divergence from the dense network's outputs (Gauss-Newton) is one joint problem over all
layers: it is solved for a pool of survivors and of pruned weights that would gain most by returning, about
the present network, and its answer is judged by the divergence itself.

1. *Down*: from more weights than asked for, a share at a time, with a Gauss-Newton step after each.
2. *Returns*: as many weights as before, among survivors and the best to return.
3. *Swings*: some weights come back, all survivors are refitted, and the same number goes in several steps:
   this finds exchanges that no quadratic model about one point foresees.

A round counts if it lowers the divergence of the samples fitted; what is given back is the best by samples
that were held back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.network.losses import LOW, Loss
from cbs.network.surgery import clone
from cbs.refit.movable import Movable, write_back
from cbs.refit.network import hold_back, matching, with_known
from cbs.refit.passes import Halted, Passes
from cbs.reselection.search import Point, Search, finite, work_of_a_sample
from cbs.reselection.space import find_space
from solvers import Solver

STEP = 0.85
"""Share of the survivors that one round leaves on the way to fewer."""
EXTRA, FEW = 0.5, 256
"""Pruned weights that may return in a round, for every survivor, and at least."""
SWING, LEAST = 0.5, 0.1
"""Pruned weights that come back in a swing, for every survivor, at first, and the least worth while."""
LEGS = 3
"""Rounds in which a swing goes down."""
REFITS = 2
"""Gauss-Newton steps after a round at the number of weights asked for."""
GAIN = 1e-2
"""A relative decrease of the divergence below which something else is tried."""
ROUNDS = 12
"""Most rounds at the number of weights asked for."""
PATIENCE = 3
"""Rounds without a gain on the samples held back after which it ends."""
LARGEST = 5_000
"""Most entries of a pool: a matrix of them is written out."""


@dataclass
class Reselected:
    """What a re-selection did.

    Attributes:
        before: divergence of the samples held back, of the network it was given.
        after: the same of the network given back.
        rounds: every round: what it was, how many weights it left, divergences, pools and seconds.
        why: it ended.
        interrupted: whether Ctrl-C ended it.
        changed: whether the masks did.
    """

    before: float = math.nan
    after: float = math.nan
    rounds: list[dict[str, Any]] = field(default_factory=list)
    why: str = "as many rounds as allowed"
    interrupted: bool = False
    changed: bool = False

    @property
    def stats(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "held_before": finite(self.before), "held_after": finite(self.after), "why": self.why,
            "rounds": self.rounds,
        }  # fmt: skip


@torch.inference_mode(False)
def reselect(
    model: nn.Module,
    dense: nn.Module,
    samples: Samples,
    *,
    layers: Sequence[str],
    pools: Mapping[str, Tensor],
    keep: Tensor,
    earlier: Mapping[str, Tensor] | None = None,
    loss: str | Loss = "cross_entropy",
    match: str | None = None,
    labels: bool = False,
    rounds: int = ROUNDS,
    largest: int = LARGEST,
    solver: str | Solver = "greedy",
    seed: int = 0,
    until: float = math.inf,
    stopped: Callable[[], bool] | None = None,
    told: Callable[[Mapping[str, Any]], Any] | None = None,
) -> Reselected:
    """Choose anew which weights a masked network keeps, and move them, in place.

    Args:
        model: with masks in `torch.nn.utils.prune` form on all `layers`, which keep at least as many weights
            of every pool as asked for; masks and parameters are changed in place.
        dense: the network whose outputs are matched.
        samples: calibration data, at least 96; targets matter with `labels` only.
        layers: names of the masked layers.
        pools: for every layer the pools of its weights, of its weight's shape: numbers that never fall from
            one entry, and one layer, to the next.
        keep: `[pools]` how many weights of every pool are kept.
        earlier: masks, True where pruned, of weights that never come back.
        loss: of the network, which says what its outputs are.
        match: `probabilities`, `outputs`, or None for what goes with the loss.
        labels: minimise the loss on the targets instead.
        rounds: most rounds at the number of weights asked for.
        largest: most entries of a pool.
        solver: of the joint problem of a pool.
        seed: of all draws of samples.
        until: when to end, by `time.perf_counter`; the masks are met all the same.
        stopped: asked between batches whether to end.
        told: told of every round; a true answer ends it.

    Raises:
        ValueError: in one line, before any work, for too few samples, a network that keeps too few weights,
            or what a network refit refuses.
    """
    divergence = matching(dense, samples, loss, match, labels)
    low = any(values.dtype in LOW for values in model.parameters())
    plain = clone(model).eval()
    plain = plain.float() if low else plain
    space, kept = find_space(model, plain, layers, earlier or {}, pools, keep)
    lacking = (space.counts(kept) < keep).nonzero()[:, 0]
    if len(lacking):
        i = int(lacking[0])
        there = int(space.counts(kept)[i])
        raise ValueError(f"keep asks for {int(keep[i])} weights of pool {i}, but the network has {there}")
    known = with_known(dense, samples.to(kept.device), divergence, low)
    fit, held = hold_back(known, seed)
    if held is None:
        raise ValueError(f"samples: {len(samples)} are too few to hold some back; give at least 96")
    passes = Passes(plain, space.movable, divergence, until, stopped or (lambda: False))
    vector = torch.where(kept, space.movable.vector(space.movable.base), 0.0)
    passes_now = Passes(plain, space.movable, divergence)
    passes_now.attempt(vector, fit)
    search = Search(
        plain, passes, space, fit, held, largest=largest, solver=solver, seed=seed,
        each=work_of_a_sample(plain, fit),
    )  # fmt: skip
    start = Point(vector, kept, passes_now.value(vector, fit), passes_now.value(vector, held))
    walk = _Walk(search, start, Reselected(start.held), told or (lambda record: False))
    found = walk.found
    try:
        walk.go(keep, rounds)
    except Halted:
        found.why = "stopped" if passes.stopped() else "time limit"
    except KeyboardInterrupt:
        found.why, found.interrupted = "interrupted", True
    best = walk.best
    if best is None:  # there was no time to get down
        best = search.cheapest(walk.point, keep)
    found.after, found.changed = best.held, bool((best.kept != kept).any())
    _write(model, space.movable, layers, best)
    return found


class _Walk:
    """The rounds, and the best point of as many weights as asked for."""

    def __init__(
        self, search: Search, start: Point, found: Reselected, told: Callable[[Mapping[str, Any]], Any]
    ) -> None:
        self.search, self.point, self.found, self._told = search, start, found, told
        self.best: Point | None = None

    def go(self, keep: Tensor, rounds: int) -> None:
        """Down, returns, and swings; ends by `Halted` where it is told to."""
        search, space = self.search, self.search.space
        if not math.isfinite(self.point.fit + self.point.held):
            self.found.why = "the divergence is not finite at first"
            return
        while bool((space.counts(self.point.kept) > keep).any()):
            began = time.perf_counter()
            self._note("down", began, self._down(self.point, keep, 1))
        self.best = self.point
        began = time.perf_counter()
        self._note("refit", began, search.refit(self.point, REFITS))
        amplitude, since = 0.0, 0
        for _ in range(rounds):
            began, was, best = time.perf_counter(), self.point, self.best.held
            if amplitude:
                moved, what = self._swing(was, keep, amplitude), "swing"
            else:
                extra = max(FEW, int(EXTRA * int(keep.sum())))
                moved, what = search.refit(search.eliminate(was, keep, extra), REFITS), "return"
            gain = (was.fit - moved.fit) / was.fit if was.fit > 0 else 0.0
            self._note(what, began, moved, gain > 0)
            since = 0 if self.best.held < best else since + 1
            if since >= PATIENCE:
                self.found.why = "nothing more is gained on the samples held back"
                return
            if not gain > GAIN:
                amplitude = amplitude / 2 if amplitude else SWING
                if amplitude < LEAST:
                    self.found.why = "nothing more is gained"
                    return

    def _down(self, point: Point, keep: Tensor, steps: int) -> Point:
        """A share of the survivors goes, and those left make a step."""
        now = self.search.space.counts(point.kept)
        aim = torch.maximum(keep, (now * STEP).floor().long())
        return self.search.refit(self.search.eliminate(point, aim, 0), steps)

    def _swing(self, point: Point, keep: Tensor, amplitude: float) -> Point:
        """Some come back, and as many go, in steps."""
        search = self.search
        grown = search.refit(search.grow(point, int(amplitude * int(keep.sum()))), REFITS)
        more = search.space.counts(grown.kept).double()
        for leg in range(1, LEGS + 1):
            share = leg / LEGS
            aim = (more ** (1 - share) * keep.double() ** share).round().long().maximum(keep)
            aim = aim.minimum(search.space.counts(grown.kept))
            grown = search.refit(search.eliminate(grown, aim, 0), REFITS if leg == LEGS else 1)
        return grown

    def _note(self, what: str, began: float, point: Point, taken: bool = True) -> None:
        if taken:
            self.point = point
            if what != "down" and (self.best is None or point.held < self.best.held):
                self.best = point
        record: dict[str, Any] = {
            "what": what,
            "kept": int((point.kept & self.search.space.prunable).sum()),
            "fit": finite(point.fit),
            "held": finite(point.held),
            "taken": taken,
            "seconds": time.perf_counter() - began,
        }
        if what in ("down", "return"):
            record |= {"search": self.search.searched}
        self.found.rounds.append(record)
        if self._told(record):
            raise Halted


@torch.no_grad()
def _write(model: nn.Module, movable: Movable, layers: Sequence[str], point: Point) -> None:
    """Put a point's masks and weights into the network, in place."""
    parts = {part.name: part for part in movable.parts}
    for name in layers:
        mask = model.get_submodule(name).get_buffer("weight_mask")
        part = parts.get(f"{name}.weight" if name else "weight")
        kept = torch.zeros(mask.numel(), dtype=torch.bool, device=point.kept.device)
        if part is not None:
            kept[part.index] = point.kept[part.place]
        mask.copy_(kept.reshape(mask.shape))
    write_back(model, movable, point.vector)
