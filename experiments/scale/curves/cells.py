"""Row curves of MLPNet: see README.md."""

import time
from typing import Any

from cbs.curvature import Gram
from cbs.network.network import Network
from cbs.zoo import trained
from solvers import Budget
from solvers.form.reduction import reduce
from solvers.greedy.curves import row_curves
from solvers.runtime.parallel import workers

IMAGES, DAMPING = 10_000, 1e-2


def curves(layer: str) -> dict[str, Any]:
    """What greedy elimination pays for every number of pruned entries of every row of a layer."""
    found = trained("mlpnet")
    network = Network(found.model, found.train.choose(IMAGES), damping=DAMPING)
    layers = network(Gram())
    smallest = reduce(layers[-1].problem(Budget.per_layer(1))).problem
    row_curves(smallest.W, smallest.hessian)  # compile
    (objective,) = [one for one in layers if one.name == layer]
    problem = reduce(objective.problem(Budget.per_layer(1))).problem
    start = time.perf_counter()
    points = row_curves(problem.W, problem.hessian).values.size
    seconds = time.perf_counter() - start
    return {"m": problem.m, "n": problem.n, "points": points, "seconds": seconds, "rows_at_a_time": workers()}
