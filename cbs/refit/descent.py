"""Levenberg and Marquardt: Gauss-Newton steps under a damping that the steps' success decides.

A step solves `(G + lambda D) delta = -g`, `D` the diagonal of `G`, by a factor of the matrix where it is
written out, else by conjugate gradients. It is taken if the divergence itself, on all samples of the fit,
falls. What is returned is the best by the samples that were held back from the fit, so that it can't overfit
in silence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cbs.data import Samples
from cbs.refit import conjugate_gradients
from cbs.refit.normal_equations import FLOOR, Structure, normal_matrix
from cbs.refit.passes import Halted, Passes
from cbs.refit.preconditioner import factors

STEPS = 10
"""Most steps."""
DAMPING, LEAST = 1e-2, 1e-8
"""Lambda at first, and the least there is."""
RAISE, LOWER = 4.0, 3.0
"""By what lambda is multiplied after a failure, and divided by after a step that did what was foreseen."""
FORESEEN, POOR = 0.5, 0.25
"""Shares of the foreseen decrease: above the one lambda falls, below the other it rises."""
TRIES = 6
"""Dampings that are tried in one step."""
PATIENCE = 2
"""Steps without a gain on the samples held back after which it ends."""
GAIN = 1e-2
"""A gain is a relative decrease of at least this much over `PATIENCE` steps."""
PRODUCTS, FEWEST = 30, 10
"""Most products with the matrix in a step, and what may always be taken."""
BALANCE = 2.0
"""Passes of products over samples, for each over the fit's, which gradient and divergence take."""
SPENT = 0.2
"""Share of the time left that the products of one step may take, before the last of them."""


@dataclass(frozen=True)
class RefitStep:
    """A step that was taken.

    Attributes:
        index: of the step, from 1.
        fit: what it lowers, after it, mean over the samples of the fit: the divergence, or that of features.
        held: the divergence of the samples held back; None where there are none.
        damping: lambda of the step.
        ratio: the decrease of the fit's divergence, relative to what the quadratic model foresaw.
        tries: solutions that were tried.
        products: with the matrix; 0 where it was written out.
        samples: that the matrix is from.
        seconds: wall time.
    """

    index: int
    fit: float
    held: float | None
    damping: float
    ratio: float
    tries: int
    products: int
    samples: int
    seconds: float


@dataclass
class Descent:
    """How far a descent came.

    Attributes:
        best: the vector that is returned.
        fit: divergence of the fit's samples at first.
        held: the same of those held back, or None.
        after: divergence of the best on the samples that decide: those held back, else the fit's.
        steps: that were taken.
        chosen: index of the step that is returned; 0 for none.
        why: it ended.
        interrupted: whether Ctrl-C did that.
        ended: whether nothing more is to be done: it was stopped, or its time was up.
        features: how many were matched, if any.
    """

    best: Tensor
    fit: float = math.nan
    held: float | None = None
    after: float = math.nan
    steps: list[RefitStep] = field(default_factory=list)
    chosen: int = 0
    why: str = "as many steps as allowed"
    interrupted: bool = False
    ended: bool = False
    features: int = 0

    def then(self, second: Descent) -> Descent:
        """This one, and another that went on from its best and by the same samples."""
        better = second if second.chosen else self
        return replace(
            second, best=better.best, held=self.held, after=better.after,
            steps=[*self.steps, *second.steps], chosen=better.chosen,
        )  # fmt: skip

    @property
    def before(self) -> float:
        """Divergence at first, of the samples that decide."""
        return self.fit if self.held is None else self.held


class Model(Protocol):
    """A quadratic model of the divergence about a point.

    Attributes:
        products: that were taken with its matrix.
        shares: of a step that are tried one after the other before there is another: what costs less.
    """

    products: int
    shares: tuple[float, ...]

    def step(self, damping: float) -> tuple[Tensor, float]:
        """The step under a damping, and the decrease that the model without damping foresees, negative."""


class Written:
    """A model whose matrix is written out."""

    products = 0
    shares = (1.0,)

    def __init__(self, G: Tensor, g: Tensor) -> None:
        d = G.diagonal()
        floor = FLOOR * float(d.mean())
        self.G, self.g, self.D = G, g, d + (floor if floor > 0 else 1.0)

    def step(self, damping: float) -> tuple[Tensor, float]:
        """See `Model`."""
        A = self.G + torch.diag(damping * self.D)
        L, info = torch.linalg.cholesky_ex(A)
        if int(info):
            return torch.full_like(self.g, math.nan), math.nan
        step = -torch.cholesky_solve(self.g[:, None], L)[:, 0]
        return step, float(self.g @ step + 0.5 * step @ (self.G @ step))


class Multiplied:
    """A model whose matrix is known by its products."""

    shares = (1.0, 0.5, 0.25)

    def __init__(
        self, passes: Passes, vector: Tensor, g: Tensor, samples: Samples, seed: int, most: int
    ) -> None:
        self.passes, self.vector, self.g, self.samples = passes, vector, g, samples
        self.factors = factors(passes, vector, samples, seed)
        self.products, self.most = 0, most

    def step(self, damping: float) -> tuple[Tensor, float]:
        """See `Model`."""
        D = damping * self.factors.damped
        now = time.perf_counter()
        enough = now + SPENT * (self.passes.until - now)
        found = conjugate_gradients.minimise(
            lambda v: self.passes.product(self.vector, v, self.samples) + D * v,
            self.g, self.factors.inverse(damping), self.most, lambda: time.perf_counter() >= enough,
        )  # fmt: skip
        self.products += found.products
        return found.x, found.value - 0.5 * float(found.x @ (D * found.x))


def descend(
    passes: Passes,
    vector: Tensor,
    fit: Samples,
    held: Samples | None,
    *,
    judge: Passes | None = None,
    curvature: int,
    structure: Structure | None,
    steps: int = STEPS,
    taken: int = 0,
    damping: float = DAMPING,
    seed: int = 0,
    told: Callable[[RefitStep, int], Any] | None = None,
) -> Descent:
    """Lower the divergence of the fit's samples, and return the best by those held back.

    Args:
        passes: of the network.
        vector: where it starts.
        fit: samples whose divergence falls.
        held: samples that decide which step is the best, and when to end; None for those of the fit.
        judge: by what divergence they decide, if not by the one that falls; a step must then not raise it.
        curvature: how many samples of the fit the matrix is taken from, others in every step.
        structure: of the network where the matrix is written out; None for products.
        steps: most of them.
        taken: steps that were taken before, from which theirs are counted on.
        damping: lambda at first.
        seed: of the draws of samples.
        told: told of every step, and how many there may be.
    """
    found, draws = Descent(vector), np.random.default_rng(seed)
    try:
        found.fit = passes.value(vector, fit)
        judge = judge or passes
        found.held = None if held is None else judge.value(vector, held)
        found.after = found.before
        if not (math.isfinite(found.fit) and math.isfinite(found.before)):
            found.why = "the divergence is not finite at first"
            return found
        gains = [found.before]
        for index in range(taken + 1, taken + steps + 1):
            began = time.perf_counter()
            value, g = passes.gradient(vector, fit)
            if not bool(torch.isfinite(g).all()):
                found.why = "the gradient is not finite"
                break
            if not bool(g.any()):
                found.why = "the gradient is zero"
                break
            some = fit.choose(curvature, int(draws.integers(2**31)))
            model: Written | Multiplied
            if structure is not None:
                model = Written(normal_matrix(passes, vector, some, structure), g)
            else:
                most = min(PRODUCTS, max(FEWEST, round(BALANCE * len(fit) / len(some))))
                model = Multiplied(passes, vector, g, some, int(draws.integers(2**31)), most)
            tries, shares = 0, list[float]()
            while tries < TRIES:
                tries += 1
                if not shares:
                    step, foreseen = model.step(damping)
                    shares = [*model.shares] if bool(torch.isfinite(step).all()) else [1.0]
                share = shares.pop(0)
                moved = vector + share * step
                now = passes.value(moved, fit) if bool(torch.isfinite(step).all()) else math.nan
                aside = None if held is None or not now < value else judge.value(moved, held)
                if now < value and (judge is passes or aside is None or aside < (1 + GAIN) * found.after):
                    break
                damping *= 1 if shares else RAISE
            else:
                found.why = "no step lowers the divergence"
                break
            slope = float(g @ step)
            foreseen = share * slope + share**2 * (foreseen - slope)
            ratio = (value - now) / -foreseen if foreseen < 0 else math.nan
            vector, used = moved, damping
            if ratio > FORESEEN and share == 1:
                damping = max(damping / LOWER, LEAST)
            elif ratio < POOR or share < 1:
                damping *= RAISE
            record = RefitStep(
                index, now, aside, used, ratio, tries, model.products, len(some), time.perf_counter() - began
            )
            found.steps.append(record)
            judged = now if aside is None else aside
            if judged < found.after:
                found.best, found.after, found.chosen = vector, judged, index
            gains.append(found.after)
            if told is not None and told(record, taken + steps):
                found.why, found.ended = "stopped by the callback", True
                break
            if len(gains) > PATIENCE and gains[-1] >= (1 - GAIN) * gains[-1 - PATIENCE]:
                found.why = (
                    "nothing more is gained on the samples held back" if held else "nothing more is gained"
                )
                break
    except Halted:
        found.why, found.ended = "stopped" if passes.stopped() else "time limit", True
    except KeyboardInterrupt:
        found.why, found.interrupted, found.ended = "interrupted", True, True
    return found
