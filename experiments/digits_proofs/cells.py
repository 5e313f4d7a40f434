"""Prove the optimal pruning of every row of the digits MLP: see README.md."""

from functools import lru_cache
from typing import Any

import numpy as np

import cbs
from cbs.network.network import Network
from solvers import Budget, available, solve

GAP, DAMPING = 1e-4, 1e-2
PEERS = ("scip", "scip-plain")


def layer(layer: str, sparsity: float, peer_rows: int = 1, peer_seconds: float = 60.0) -> dict[str, Any]:
    """Every row of a layer by us, and its first rows by those peers that are installed."""
    objective = layers()[layer]
    m, n = objective.dense[0].W.shape
    problem = objective.problem(Budget.per_row(round(sparsity * n)))
    whole = solve(problem, "branch-and-bound", gap=GAP)
    assert whole.rows is not None
    found = []
    for peer in PEERS:
        if not available()[peer]["installed"]:
            continue
        proven, worst, ratios = 0, 0.0, []
        for row in range(min(peer_rows, m)):
            alone = problem.row(row)
            ours = solve(alone, "branch-and-bound", gap=GAP)
            theirs = solve(alone, peer, gap=GAP, time_limit=peer_seconds)
            proven += theirs.status.value == "optimal"
            worst = max(worst, abs(theirs.value - ours.value) / abs(ours.value))
            ratios.append(theirs.seconds / ours.seconds)
        found.append(
            {"peer": peer, "proven": proven, "rows": len(ratios), "difference": worst,
             "times_slower": float(np.exp(np.mean(np.log(ratios))))}
        )  # fmt: skip
    return {
        "m": m, "n": n, "status": whole.status.value, "value": whole.value, "bound": whole.bound,
        "gap": whole.gap, "seconds": whole.seconds, "proven": int(whole.rows.proven.sum()),
        "nodes_a_row": float(whole.rows.nodes.mean()), "seconds_a_row": whole.seconds / m, "peers": found,
    }  # fmt: skip


@lru_cache(maxsize=1)
def layers() -> dict[str, Any]:
    """Layer objectives by name."""
    model, split = cbs.trained_digits_mlp()
    return {one.name: one for one in Network(model, split.train, damping=DAMPING)(cbs.Gram())}
