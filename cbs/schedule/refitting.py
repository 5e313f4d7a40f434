"""The network refit of a stage: between its pruning and its fine-tuning."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from cbs.history import Stage
from cbs.network.evaluate import evaluate
from cbs.network.network import Network
from cbs.refit.descent import STEPS, RefitStep
from cbs.refit.network import refit_network
from cbs.refit.norms import renormed
from cbs.schedule.masks import refresh
from cbs.watch import Callback, Step, Watch

if TYPE_CHECKING:
    from cbs.request import Request


def refitted(
    model: nn.Module,
    stage: Stage,
    network: Network,
    request: Request,
    until: float,
    watch: Watch,
    callback: Callback | None,
    steps: int | None = None,
) -> Stage:
    """Refit a stage's network in place to the dense network's outputs: the stage with what that did.

    Statistics of batch norms are recomputed first, where that helps and the request leaves it open.

    Ctrl-C, a true answer of the callback and the end of the time keep the best step; the watch is interrupted
    by the first two.

    Args:
        model: with masks, as the stage's pruning left it.
        stage: what is known of it.
        network: the dense one, whatever a stage has pruned.
        request: what is asked.
        until: when to end, by `time.perf_counter`.
        watch: of the stage's pruning.
        callback: told of every step.
        steps: most of them; None for as many as a refit takes by itself.

    Raises:
        ValueError: in one line, for what the refit refuses.
    """
    began = time.perf_counter()
    if began >= until:
        return stage
    where = next(model.parameters()).device
    model.to(network.device)

    def told(step: RefitStep | None, most: int) -> bool:
        index = 0 if step is None else step.index
        if callback is not None and callback(Step(stage.method["name"], "refit", index=index, count=most)):
            watch.control.interrupted = True
        return watch.interrupted

    try:
        told(None, 0)
        if request.norms is None and (norms := renormed(model, network, request, until)):
            stage = replace(stage, norms=norms)
        found = refit_network(
            model, network.model, network.samples, loss=network.loss, match=request.match,
            labels=request.labels, layers=[*dict.fromkeys(layer.path for layer in network.layers)],
            seed=request.seed, until=until, stopped=lambda: watch.interrupted, told=told,
            steps=STEPS if steps is None else steps,
        )  # fmt: skip
        if found.interrupted:
            watch.control.interrupted = True
        spent = time.perf_counter() - began
        held_out = network.held_out
        return replace(
            stage, seconds=stage.seconds + spent, refit_seconds=spent, refit=dict(found.stats),
            divergence=_finite(found.before), refitted_divergence=_finite(found.after),
            refitted=evaluate(model, network.samples, network.loss),
            test_refitted=None if held_out is None else evaluate(model, held_out, network.loss),
        )  # fmt: skip
    finally:
        model.to(where)
        refresh(model)


def _finite(value: float) -> float | None:
    """A value, or None where the time was up before it was measured, or it is not finite."""
    return value if math.isfinite(value) else None
