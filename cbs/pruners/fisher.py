"""Methods on the empirical Fisher that score weights one by one: OBS and WoodFisher."""

from __future__ import annotations

import time

import numpy as np

from cbs.formulation import Pruned, Weights
from cbs.network.network import Network
from cbs.plan import LayerPlan, Plan
from cbs.pruners.blocks import Block, block_problem, blocks, keep_out_of_block, layer_blocks
from cbs.pruners.separable import select
from cbs.request import Request
from cbs.watch import Watch
from solvers.heuristics.magnitude import Magnitude

OBS_LIMIT = 8_192
"""Most weights that OBS takes at once: it holds their dense inverse."""

FALLBACK = Magnitude()
"""What finishes the layers that an interrupted pruning had not come to."""


def obs(network: Network, request: Request, watch: Watch) -> Plan:
    """One weight at a time, the one of least `w_q^2 / (2 [H^-1]_qq)`; all survivors move.

    Hassibi & Stork 1992, on the full empirical Fisher of a layer, or of the network when all layers
    share one budget.

    Raises:
        ValueError: if that are too many weights.
    """
    sizes = [layer.size for layer in network.layers]
    largest = sum(sizes) if request.pooled else max(sizes)
    if largest > OBS_LIMIT:
        raise ValueError(
            f"method 'obs' needs the inverse Hessian of {largest} weights, its limit is {OBS_LIMIT}; "
            "take method 'woodfisher' or 'cbs', or name smaller `layers`"
        )
    found = blocks(network, request)
    steps = []
    for block in found:
        problem, lift = block_problem(network, request, block, refit=True)
        name = None if request.pooled else network.layers[block.index[0]].name
        solution = watch.solve(
            problem,
            FALLBACK if watch.interrupted else "obs",
            stage="select",
            layer=name,
            index=block.index[0],
        )
        mask = keep_out_of_block(problem, block, solution.mask)
        masks, moved = lift(mask), block.split(problem.weights(mask))
        for i, part, W in zip(block.index, masks, moved, strict=True):
            answer = Pruned(part, Weights(W, network.dense[i].bias))
            steps.append(LayerPlan.solved(answer, solution, watch, 1 / len(masks)))
    return fisher_plan(network, found, steps)


def woodfisher(network: Network, request: Request, watch: Watch) -> Plan:
    """Saliency `w_q^2 / (2 [H^-1]_qq)` on a layer's block of the Fisher, all single updates added up.

    Singh & Alistarh 2020: `D = -sum_{q in P} w_q / [H^-1]_qq H^-1 e_q`; the pruned are then set to zero.
    """
    found = layer_blocks(network)
    inverses = [block.hessian.inverse_diagonal(0, np.arange(len(block.w))) for block in found]
    scores = [block.split(0.5 * block.w**2 / c)[0] for block, c in zip(found, inverses, strict=True)]
    steps = []
    for block, c, mask in zip(found, inverses, select(network, request, scores), strict=True):
        start = time.perf_counter()
        pull = np.where(mask.ravel(), block.w / c, 0.0)
        D = -block.hessian.solve(0, np.arange(len(pull)), pull)
        W = np.where(mask, 0.0, (block.w + D).reshape(mask.shape))
        answer = Pruned(mask, Weights(W, network.dense[block.index[0]].bias))
        steps.append(LayerPlan(answer, "woodfisher", seconds=time.perf_counter() - start))
    return fisher_plan(network, found, steps)


def fisher_plan(network: Network, found: list[Block], steps: list[LayerPlan]) -> Plan:
    """The plan with the loss increase that the undamped Fisher of its blocks predicts."""
    damage = sum(block.damage([steps[i].answer.weights for i in block.index]) for block in found)
    kind = "empirical Fisher of the network" if len(found[0].index) > 1 else "empirical Fisher of each layer"
    return Plan(steps, damage, f"1/2 D' F D, F the {kind}", {"gradient_samples": network.fisher.N})
