"""Statistics of batch norms before a network refit: recomputed where that brings the outputs nearer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from cbs.network.evaluate import evaluating, forward
from cbs.network.losses import wide
from cbs.network.norms import put_statistics, read_statistics, recompute_norms
from cbs.refit.network import matching

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.request import Request


def renormed(model: nn.Module, network: Network, request: Request, until: float = math.inf) -> list[str]:
    """Recompute statistics of batch norms, in place, and put them back if that was no good.

    It is no good where the network's outputs do not come nearer to the dense ones by it, on the calibration
    data, by the divergence that the refit takes. Layers that were refitted one after another to the dense
    outputs have these right already, and lose a little if norms are made to give the dense mean and variance.

    Args:
        model: the pruned network.
        network: the dense one.
        request: what is asked.
        until: when to end, by `time.perf_counter`; they are then as they were.

    Returns:
        Names of the norms that have new statistics, in running order.

    Raises:
        ValueError: in one line, for a loss that does not say what to match.
    """
    kept = read_statistics(model)
    if not kept:
        return []
    done: list[str] = []
    better = False
    try:
        before = _distance(model, network, request)
        if done := recompute_norms(model, network.samples, network.model, until=until):
            better = not before <= _distance(model, network, request)  # also where it was not a number
    finally:
        if not better:
            put_statistics(model, kept)
    return done if better else []


@torch.no_grad()
def _distance(model: nn.Module, network: Network, request: Request) -> float:
    """Mean divergence of a network's outputs from the dense ones, or its loss on labels."""
    divergence = matching(network.model, network.samples, network.loss, request.match, request.labels)
    total = 0.0
    with evaluating(model), evaluating(network.model):
        for x, known in network.samples.batches():
            if divergence.dense:
                known = wide(forward(network.model, x.clone()))
            total += float(divergence.values(wide(forward(model, x)), known).sum())
    return total / len(network.samples)
