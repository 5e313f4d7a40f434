"""Methods that score every weight by itself and leave the survivors alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbs.formulation import masked, smallest
from cbs.network.network import Network
from cbs.plan import LayerPlan, Plan
from cbs.request import Request
from cbs.watch import Watch
from solvers.hessian import Array
from solvers.problem import Mask


def magnitude(network: Network, request: Request, watch: Watch) -> Plan:
    """Least `|w|` first; columns by their Euclidean norm."""
    return _without_compensation(network, request, [dense.W**2 for dense in network.dense], "magnitude")


def obd(network: Network, request: Request, watch: Watch) -> Plan:
    """Saliency `1/2 h w^2`, h the diagonal of the Gauss-Newton matrix (LeCun et al. 1990)."""
    scores = [0.5 * h * dense.W**2 for h, dense in zip(network.diagonal, network.dense, strict=True)]
    plan = _without_compensation(network, request, scores, "obd")
    damage = sum(float(s[step.answer.mask].sum()) for s, step in zip(scores, plan.layers, strict=True))
    return Plan(plan.layers, damage, "1/2 sum_P h w^2, h the Gauss-Newton diagonal")


def random(network: Network, request: Request, watch: Watch) -> Plan:
    """Uniformly at random within every pool of the budget."""
    rng = np.random.default_rng(request.seed)
    return _without_compensation(network, request, [rng.random(d.W.shape) for d in network.dense], "random")


def select(network: Network, request: Request, scores: Sequence[Array]) -> list[Mask]:
    """Masks of the smallest scores, under the budget asked; weights pruned before have the least."""
    scores = [np.where(mask, -np.inf, s) for mask, s in zip(network.earlier, scores, strict=True)]
    if request.pooled:
        return smallest(scores, request.network_count(network.layers))
    return smallest(scores, [request.layer_budget(layer) for layer in network.layers])


def _without_compensation(network: Network, request: Request, scores: Sequence[Array], name: str) -> Plan:
    masks = select(network, request, scores)
    answers = [masked(dense, mask) for dense, mask in zip(network.dense, masks, strict=True)]
    return Plan([LayerPlan(answer, name) for answer in answers])
