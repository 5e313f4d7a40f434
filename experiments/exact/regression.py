"""Peers for sparse ridge regression, in virtual environments of their own.

The joint problem of a row is `min (b - w)' H (b - w) / 2` over b with `keep` entries, which is k-sparse ridge
regression with `X'X + lambda I = H` and `X'y = H w`. OKRidge states it as it is; L0BnB puts a price on every
entry, which is set so that `keep` entries are the best choice where the row's curve is convex there.
"""

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from solvers import Budget, Solution, SubsetProblem, solve
from solvers.form.reduction import reduce
from solvers.heuristics.greedy import greedy_mask

HERE = Path(__file__).parent


def environment(name: str, requirements: list[str]) -> Path:
    """The interpreter of a peer's environment, made on first use."""
    folder = HERE / "environments" / name
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"making an environment for {name}: {' '.join(requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        (folder / "installed").touch()
    return python


def run_peer(
    name: str, python: Path, problem: SubsetProblem, best: Solution, cap: float, gap: float
) -> dict[str, Any]:
    """One row by one peer: seconds, status, value, bound, gap and the entries it kept.

    Args:
        name: `okridge` or `l0bnb`.
        python: of its environment.
        problem: one row, joint.
        best: our answer; its value tells the peers, which know only relative gaps of other objectives,
            when they are done.
        cap: seconds.
        gap: relative gap of the cost.
    """
    reduction = reduce(problem)
    row = reduction.problem
    H, w = row.hessian.dense(0), row.W[0]
    keep = int(row.pools.keep[0])
    value = max(best.value - reduction.offset, np.finfo(float).tiny)
    reach = np.abs(w) + np.sqrt(2.0 * value * np.diagonal(np.linalg.inv(H)))
    archive = io.BytesIO()
    np.savez(
        archive, H=H, w=w, keep=keep, value=value, cap=cap, gap=gap, price=price(row), reach=reach.max(),
        start=~greedy_mask(row)[0],
    )  # fmt: skip
    done = subprocess.run(
        [str(python), str(HERE / "peer.py"), name], input=archive.getvalue(), capture_output=True,
        timeout=10 * cap + 120,
    )  # fmt: skip
    if done.returncode:
        return {"status": "failed: " + done.stderr.decode().strip().splitlines()[-1][:80]}
    answer = json.loads(done.stdout.splitlines()[-1])
    kept = np.zeros(row.n, dtype=bool)
    kept[answer["support"]] = True
    same = int(kept.sum()) == keep
    found = row.value(~kept[None]) if same else math.nan
    bound = answer["bound"] if same else math.nan
    status = "other count" if not same else "optimal" if answer["done"] else "time_limit"
    return {
        "seconds": answer["seconds"],
        "status": status,
        "value": repr(float(found + reduction.offset)),
        "bound": repr(float(bound + reduction.offset)),
        "gap": (found - bound) / abs(found + reduction.offset),
        "kept": int(kept.sum()),
    }


def price(row: SubsetProblem) -> float:
    """What one more kept entry must cost for `keep` entries to be the best choice, by local search."""
    keep = int(row.pools.keep[0])
    costs = {
        count: solve(SubsetProblem(row.W, row.hessian, Budget.per_row(row.n - count)), "local-search").value
        for count in {max(keep - 1, 0), min(keep + 1, row.n)}
    }
    fewest, most = min(costs), max(costs)
    return (costs[fewest] - costs[most]) / max(most - fewest, 1)
