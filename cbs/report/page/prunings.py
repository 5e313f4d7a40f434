"""What the result of a pruned network says beyond the table's columns: dense accuracy, layers, stages.

A result is the record of `PruneResult.to_dict`, whole or in part; what it lacks is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cbs.report.page.cells import pruned

if TYPE_CHECKING:
    import pandas as pd


def dense_accuracy(result: Mapping[str, Any]) -> float:
    """Of the network before it was pruned, on test data if there is any; NaN if the result does not say."""
    for name in ("dense_accuracy", "accuracy_before", "dense"):
        if _is_number(result.get(name)):
            return float(result[name])
    measured = result.get("measured")
    for name in ("test_before", "before"):
        part = measured.get(name) if isinstance(measured, Mapping) else result.get(name)
        if isinstance(part, Mapping) and _is_number(part.get("accuracy")):
            return float(part["accuracy"])
    return math.nan


def networks(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The pruned cells of every network, with `dense`, `pools` and `rank`.

    The first in rank has the best accuracy, and among equals the least loss.
    """
    mine = pruned(cells).copy()
    mine["pools"] = [pools(cell) for cell in mine.to_dict("records")]
    mine["dense"] = [dense_accuracy(result) for result in mine["result"]]
    found = {}
    for name, group in mine.groupby("instance", sort=False):
        order = group.sort_values(
            ["accuracy", "loss", "value"], ascending=[False, True, True], kind="stable", na_position="last"
        )
        found[str(name)] = group.assign(
            rank=group["cell"].map({cell: i for i, cell in enumerate(order["cell"])})
        )
    return found


def pools(cell: Mapping[str, Any]) -> str:
    """What a budget counts: bounds of one are none of another."""
    neurons = (
        bool(cell["result"].get("neurons"))
        or cell["options"].get("granularity") == "neurons"
        or str(cell["label"]).startswith("neuron-")
    )
    return "neurons" if neurons else cell["budget"] or "weights"


def best(cells: pd.DataFrame) -> pd.DataFrame:
    """The best cell of a network at every sparsity, the least sparsity first."""
    return cells.sort_values("rank").drop_duplicates("sparsity").sort_values("sparsity")


def layers(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, inputs, sparsity, value, bound and gap of every layer."""
    found = []
    listed = result.get("layers")
    for layer in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
        if not isinstance(layer, Mapping) or "name" not in layer:
            continue
        shape = layer.get("shape") or []
        size = math.prod(shape) if shape else 0
        kept = layer.get("kept")
        found.append(
            {
                "layer": str(layer["name"]) or "(the network)",
                "shape": "x".join(map(str, shape)),
                "weights": size,
                "kept": kept,
                "sparsity": 1 - float(kept) / size if size and kept is not None else layer.get("sparsity"),
                "value": layer.get("value"),
                "bound": layer.get("bound"),
                "gap": _gap(layer),
                "status": layer.get("status"),
            }
        )
    return found


def stages(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sparsity, accuracy and divergence after every stage; nothing of a result of one stage."""
    history = result.get("history")
    if not isinstance(history, Sequence) or isinstance(history, str) or len(history) < 2:
        return []
    found = []
    for number, stage in enumerate(history, 1):
        ends = [
            stage.get(name)
            for name in ("test_tuned", "test_refitted", "test_pruned", "tuned", "refitted", "pruned")
        ]
        accuracies = [
            end["accuracy"] for end in ends if isinstance(end, Mapping) and _is_number(end.get("accuracy"))
        ]
        found.append(
            {
                "stage": number,
                "sparsity": stage.get("sparsity"),
                "accuracy": accuracies[0] if accuracies else None,
                "divergence": stage.get("refitted_divergence"),
                "seconds": stage.get("seconds"),
            }
        )
    return found


def _gap(layer: Mapping[str, Any]) -> float | None:
    value, bound = layer.get("value"), layer.get("bound")
    if _is_number(layer.get("gap")) or not _is_number(value) or not _is_number(bound):
        return layer.get("gap")
    return 0.0 if value == bound else (value - bound) / abs(value) if value else None


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
