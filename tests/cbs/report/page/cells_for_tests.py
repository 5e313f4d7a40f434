"""Cells by hand: enough of the columns of a study for what a test is about."""

import numpy as np
import pandas as pd


def solve(instance, solver, seconds=1.0, value=1.0, bound=None, status="optimal", **more):
    """One run of a solver; without a bound it is a heuristic's."""
    gap = None if bound is None or not value else (value - bound) / abs(value)
    return {
        "kind": "solve", "state": "done", "study": "hand", "instance": instance, "digest": f"d-{instance}",
        "family": "random", "n": 16, "m": 1, "solver": solver, "options": {}, "time_limit": 10.0,
        "gap_asked": 1e-4, "seed": 0, "status": status, "value": value, "bound": bound, "gap": gap,
        "seconds": seconds, "sparsity": 0.5, "key": f"{instance}-{solver}-{more.get('seed', 0)}", **more,
    }  # fmt: skip


def prune(method, sparsity, accuracy, value=1.0, bound=0.5, **more):
    """One pruning of a network."""
    return {
        "kind": "prune", "state": "done", "study": "hand", "instance": "net", "digest": "d-net",
        "family": "network", "solver": method, "options": {}, "seed": 0, "sparsity": sparsity,
        "accuracy": accuracy, "loss": None if accuracy is None else 1 - accuracy,
        "value": value, "bound": bound, "status": "feasible",
        "gap": (value - bound) / value, "seconds": 0.1, "budget": "unstructured",
        "key": f"{method}-{sparsity}",
        "result": {"dense_accuracy": 0.97, "layers": [
            {"name": "0", "shape": [4, 8], "kept": 16, "value": value / 2, "bound": bound / 2},
            {"name": "2", "shape": [2, 4], "kept": 4, "value": value / 2, "bound": bound / 4},
        ]}, **more,
    }  # fmt: skip


def frame(*rows):
    return pd.DataFrame(list(rows))


def study(seed=0):
    """Four solvers on twelve problems of four sizes: exact, slow and capped, a relaxation, a heuristic."""
    rng = np.random.default_rng(seed)
    rows, arrays = [], {}
    for i in range(12):
        n, name, optimum = (8, 16, 32, 64)[i % 4], f"p{i}", 1 + rng.random()
        facts = {"n": n, "family": "digits" if i % 3 else "random", "sparsity": (0.5, 0.75, 0.9)[i % 3]}
        quick, slow = 1e-3 * n**1.5 * (1 + rng.random()), 1e-4 * n**2.5 * (1 + rng.random())
        runs = [
            solve(name, "exact", quick, optimum, optimum * (1 - 1e-6), **facts),
            solve(name, "slow", min(slow, 2.0), optimum, optimum * (1 - 1e-6 if slow < 2 else 0.7),
                  "optimal" if slow < 2 else "time_limit", time_limit=2.0, **facts),
            solve(name, "relaxation", 0.002, optimum * 1.02, optimum * 0.8, "feasible", **facts),
            solve(name, "greedy", 0.001, optimum * (1 + rng.integers(0, 3) / 20), 0.0, "feasible", **facts),
        ]  # fmt: skip
        for run in runs:
            run["time_limit"] = 2.0
            steps = np.linspace(0.1, 1, 4)
            bounds = (
                np.array([-np.inf, 0.5, 0.8, 1.0]) * run["bound"] if run["bound"] else np.full(4, -np.inf)
            )
            arrays[run["key"]] = {
                "trace_seconds": steps * run["seconds"], "trace_bound": bounds,
                "trace_value": np.array([np.inf, 1.3, 1.1, 1.0]) * run["value"],
                "mask": np.packbits(rng.random((2, n)) < 0.5), "mask_shape": np.array([2, n]),
            }  # fmt: skip
        rows += runs
    return pd.DataFrame(rows), arrays


def call(function, parameters, result, **more):
    """One call of a function, as a study keeps it."""
    return {
        "kind": "call", "state": "done", "study": "hand", "instance": str(parameters), "solver": function,
        "seed": 0, "options": {}, "parameters": {"parameters": parameters, "revision": 0}, "result": result,
        "key": f"{function}-{parameters}", **more,
    }  # fmt: skip
