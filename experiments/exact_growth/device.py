"""The engine on tensors against the compiled engine, on the same instances: see README.md.

    python experiments/exact_growth/device.py --out device.json [--device cuda] [--seconds 300]

It takes less than 6 minutes. Where there is no CUDA, tensors stay on the CPU and the instances are small; the
first line says so. The last line is the verdict: the ratio of seconds on what both prove, of nodes a
second, and whether the engine stays.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CORES = 2
"""That the compiled engine has."""
ENOUGH = 3.0
"""Times as fast as the compiled engine on two cores, under which the engine on tensors is to be deleted."""
GAP = 1e-4
SEARCHES = {  # rows, inputs, share pruned: made-up rows of an even spectrum's fall
    "small": [(4, 24, 0.5), (4, 32, 0.75)],
    "full": [(32, 64, 0.5), (32, 64, 0.75), (16, 100, 0.5), (16, 100, 0.75), (8, 144, 0.5), (8, 144, 0.75)],
}
WIDE = {"small": [(8, 96)], "full": [(40, 784), (384, 384)]}
"""Rows and inputs of layers that are relaxed, half pruned."""


@contextmanager
def two_cores() -> Iterator[None]:
    """This thread, and those it starts, on `CORES` cores, where the system can be told."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def layer(m: int, n: int, pruned: float) -> Any:
    """A made-up layer with inputs of correlated neighbours, as a picture's, in the joint variant."""
    import numpy as np

    from solvers import Budget, SubsetProblem

    rng = np.random.default_rng((m, n))
    side = np.arange(n)
    X = (
        rng.normal(size=(4 * n, n))
        @ np.linalg.cholesky(0.8 ** np.abs(side[:, None] - side) + 1e-6 * np.eye(n)).T
    )
    X *= rng.uniform(0.3, 1.0, n)
    H = X.T @ X / len(X)
    H += 1e-2 * np.diagonal(H).mean() * np.eye(n)
    return SubsetProblem(rng.normal(size=(m, n)), H, Budget.per_row(round(pruned * n)))


def searched(problem: Any, engine: str, device: str, limit: float) -> dict[str, Any]:
    """A whole solve by an engine."""
    from solvers import solve
    from solvers.exact.branch_and_bound import BranchAndBound

    found = solve(problem, BranchAndBound(engine=engine), device=device, time_limit=limit, gap=GAP)
    nodes = int(found.stats.get("nodes", 0))
    return {
        "engine": engine, "device": device, "status": found.status.value, "seconds": found.seconds,
        "nodes": nodes, "nodes_a_second": nodes / found.seconds, "value": found.value,
        "bound": found.bound, "gap": found.gap,
    }  # fmt: skip


def relaxed(problem: Any, device: str, limit: float) -> dict[str, Any]:
    """A relaxation of all rows of a layer."""
    from solvers import solve

    found = solve(problem, "relaxation", device=device, time_limit=limit)
    return {
        "device": device,
        "seconds": found.seconds,
        "value": found.value,
        "bound": found.bound,
        "gap": found.gap,
    }


def geometric(values: list[float]) -> float | None:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def agree(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether no bound of one lies above the other's value."""
    slack = 1e-6 * max(abs(a["value"]), abs(b["value"]))
    return bool(a["bound"] <= b["value"] + slack and b["bound"] <= a["value"] + slack)


def judged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios over the searches, and what they say of the engine."""
    pairs = [(row["compiled"], row["batched"]) for row in rows]
    speed = geometric(
        [b["nodes_a_second"] / a["nodes_a_second"] for a, b in pairs if a["nodes"] and b["nodes"]]
    )
    whole = [a["seconds"] / b["seconds"] for a, b in pairs if max(a["gap"], b["gap"]) <= GAP]
    lost = sum(a["gap"] <= GAP < b["gap"] for a, b in pairs)
    won = sum(b["gap"] <= GAP < a["gap"] for a, b in pairs)
    ratio = geometric(whole)
    keep = ratio is not None and ratio >= ENOUGH
    return {
        "nodes_ratio": speed, "solve_ratio": ratio, "proven_by_both": len(whole), "only_compiled": lost,
        "only_batched": won, "agree": all(agree(a, b) for a, b in pairs), "keep": keep,
    }  # fmt: skip


def main() -> None:
    """All checks, a JSON file of them, and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("device.json"))
    parser.add_argument("--device", help="of PyTorch; CUDA by default, if there is one")
    parser.add_argument("--seconds", type=float, default=300.0, help="for everything after what is compiled")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(CORES))
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = asked.device or found
    size = "small" if device == "cpu" else "full"
    if size == "small":
        print("no CUDA device: tensors stay on the CPU, instances are small; this says nothing of a GPU")
    else:
        print(f"{device}: {torch.cuda.get_device_name(device)}")
    print(run(device, size, asked.seconds, asked.out)["verdict_line"])


def run(device: str, size: str, seconds: float, out: Path) -> dict[str, Any]:
    """The checks, each of which gets its share of the time; the file is written after every one."""
    begun = time.perf_counter()
    for engine, where in (("compiled", "cpu"), ("batched", device)):  # what is compiled is not timed
        searched(layer(2, 16, 0.5), engine, where, 60.0)
    compiled = time.perf_counter() - begun
    start, searches, wide = time.perf_counter(), SEARCHES[size], WIDE[size]
    share = seconds / (2 * len(searches) + 2 * len(wide))
    told: dict[str, Any] = {
        "device": device,
        "size": size,
        "compile_seconds": compiled,
        "searches": [],
        "wide": [],
    }
    for m, n, pruned in searches:
        problem, row = layer(m, n, pruned), {"m": m, "n": n, "pruned": pruned}
        with two_cores():
            row["compiled"] = searched(problem, "compiled", "cpu", share)
        row["batched"] = searched(problem, "batched", device, share)
        told["searches"].append(row)
        save(out, told, row)
    for m, n in wide:
        problem, row = layer(m, n, 0.5), {"m": m, "n": n}
        with two_cores():
            row["cpu"] = relaxed(problem, "cpu", share)
        if device != "cpu":
            row["device"] = relaxed(problem, device, share)
        told["wide"].append(row)
        save(out, told, row)
    told["seconds"] = time.perf_counter() - start
    told["verdict"] = verdict = judged(told["searches"])
    ratio, nodes = verdict["solve_ratio"], verdict["nodes_ratio"]
    told["verdict_line"] = (
        f"batched on {device} against compiled on {CORES} cores: "
        f"{'no solve proven by both' if ratio is None else f'{ratio:.2f} times as fast to the proof'}, "
        f"{'no nodes' if nodes is None else f'{nodes:.2f} times the nodes a second'}; "
        f"{'bounds agree' if verdict['agree'] else 'BOUNDS DISAGREE'}; "
        f"{'keep the engine' if verdict['keep'] else 'under ' + format(ENOUGH, 'g') + ': delete the engine'}"
        + ("" if device != "cpu" else ", were this a GPU")
    )
    save(out, told, {"seconds": told["seconds"]})
    return told


def save(out: Path, told: dict[str, Any], last: dict[str, Any]) -> None:
    out.write_text(json.dumps(told, indent=1))
    print(json.dumps(last), flush=True)


if __name__ == "__main__":
    main()
