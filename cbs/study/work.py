"""What a worker does with a cell: solve, prune or call, and put what came out in columns and arrays.

These functions run in processes of their own, perhaps on other machines; they take and give plain data.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbs.study.arrays import mask_arrays, trace_arrays
from cbs.study.cell import Answer, plain
from cbs.study.schema import FACTS, RESULTS, entry
from solvers.solution import CLAMP

if TYPE_CHECKING:
    from cbs.data import Samples
    from cbs.result import PruneResult
    from solvers import Solution, Solver, SubsetProblem


def work(kind: str, payload: Mapping[str, Any]) -> Answer:
    """Do a cell.

    Args:
        kind: `solve`, `prune` or `call`.
        payload: what the grid made for it.
    """
    if payload.get("data_dir"):
        os.environ["CBS_DATA"] = str(payload["data_dir"])
    return {"solve": _solve, "prune": _prune, "call": _call}[kind](payload)


def _solve(payload: Mapping[str, Any]) -> Answer:
    from solvers import solve

    problem, certify = payload["problem"], payload["certify"]
    _warm(payload["solver"], problem.refit)
    solution: Solution = solve(
        problem, payload["solver"], time_limit=payload["time_limit"], gap=payload["gap"],
        seed=payload["seed"], certify=certify,
    )  # fmt: skip
    columns = {
        "status": solution.status.value, "value": solution.value, "bound": solution.bound,
        "gap": solution.gap, "seconds": solution.seconds, "nodes": solution.stats.get("nodes"),
    }  # fmt: skip
    if certify:
        columns["certified"] = _verified(solution, problem)
    arrays = mask_arrays(solution.mask) | trace_arrays(solution.trace)
    if solution.rows is not None and problem.m > 1:
        arrays["row_bounds"] = solution.rows.bound
    return Answer(columns, {"stats": _shown(solution.stats)}, arrays)


_WARM: set[tuple[str, bool]] = set()


def _warm(solver: Solver, refit: bool) -> None:
    """Let the first solve of a process, which imports and compiles, be of a tiny problem."""
    from solvers import Budget, solve
    from solvers.instances import random_problem

    if (solver.name, refit) in _WARM:
        return
    _WARM.add((solver.name, refit))
    with suppress(ValueError, ArithmeticError):  # it does not take that one
        solve(random_problem(2, 6, Budget.per_row(3), refit=refit, seed=0), solver, time_limit=5.0)


def _verified(solution: Solution, problem: SubsetProblem) -> bool:
    """Whether the checker, given files, proves the solution's bound, but for rounding."""
    from solvers.checker import Refuted, verify
    from solvers.instances import save

    if solution.certificate is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        instance, certificate = Path(folder) / "instance.npz", Path(folder) / "certificate"
        save(instance, problem)
        solution.certificate.save(certificate)
        try:
            verdict = verify(certificate, instance)
        except Refuted:
            return False
    return verdict.bound >= solution.bound - CLAMP * abs(solution.bound)


def _prune(payload: Mapping[str, Any]) -> Answer:
    import cbs

    model, train, test, layers = _network(payload["model"], payload["model_seed"], payload["data_dir"])
    data = train.choose(payload["samples"], payload["model_seed"]) if payload["samples"] else train
    held_out = test if not payload["test"] or test is None else test.choose(payload["test"], 0)
    options = {"layers": layers, **payload["options"]} if layers else dict(payload["options"])
    result: PruneResult = cbs.prune(
        model, data, test=held_out, sparsity=payload["sparsity"], method=payload["method"],
        seed=payload["seed"], **options,
    )  # fmt: skip
    return pruned(result)


def pruned(result: PruneResult) -> Answer:
    """A pruning in columns: accuracy and loss are those of test data where there are some."""
    from cbs.quantization.stored import pruned_bytes

    last = result.history[-1]
    before, after = result.test_before or result.before, result.test_after or result.after
    columns = {
        "status": result.status, "value": result.value, "bound": result.bound, "gap": result.gap,
        "seconds": result.seconds, "accuracy": after.accuracy, "loss": after.loss,
    }  # fmt: skip
    facts = {
        "share": result.share, "dense_accuracy": before.accuracy, "dense_loss": before.loss,
        "achieved_sparsity": result.sparsity, "loss_increase": result.loss_increase,
        "bytes": pruned_bytes(result.model), "divergence": last.refitted_divergence,
        "pruned_accuracy": None if last.test_pruned is None else last.test_pruned.accuracy,
        "pruned_loss": None if last.test_pruned is None else last.test_pruned.loss,
        "refit_seconds": sum(stage.refit_seconds for stage in result.history),
        "measured_on": "test" if result.test_after else "calibration",
        "layers": [
            {"name": layer.name, "shape": list(layer.shape), "kept": layer.kept, "value": layer.value,
             "bound": layer.bound, "seconds": layer.seconds, "status": layer.status}
            for layer in result.layers
        ],
    }  # fmt: skip
    arrays: dict[str, Any] = {}
    for name, mask in result.masks.items():
        arrays |= mask_arrays(np.asarray(mask.cpu().numpy(), dtype=bool), f"mask:{name}")
    return Answer(columns, plain(facts), arrays)


@lru_cache(maxsize=2)
def _network(
    name: str, seed: int, data_dir: str | None
) -> tuple[Any, Samples, Samples | None, list[str] | None]:
    from cbs.study.models import network

    return network(name, seed, None if data_dir is None else Path(data_dir))


def _call(payload: Mapping[str, Any]) -> Answer:
    from cbs.study.calls import function

    found = function(payload["function"])(**payload["parameters"])
    return called(found)


def called(found: Any) -> Answer:
    """What a function gave: known columns, other facts, and arrays, told apart by name and kind.

    Raises:
        TypeError: if it is no mapping, holds what JSON does not have, or gives something else than a number
            under the name of a column of numbers.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"the function must give a mapping of names to values, got {type(found).__name__}")
    columns, result, arrays = {}, {}, {}
    for name, value in found.items():
        if name in (*RESULTS, *FACTS):
            columns[name] = entry(name, value.item() if isinstance(value, np.generic) else value)
        elif isinstance(value, np.ndarray):
            arrays[str(name)] = value
        else:
            result[str(name)] = plain(value)
    return Answer(columns, result, arrays)


def _shown(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and choices of a solver that are numbers or words; what is not finite is left out."""
    return {
        name: plain(value)
        for name, value in stats.items()
        if isinstance(value, str | bool | int | float | np.generic)
        and not (isinstance(value, float) and not math.isfinite(value))
    }
