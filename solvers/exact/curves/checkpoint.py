"""The search of a layer's shared budget to arrays and back: its rows' curves, proofs and unfinished trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.split import Split
from solvers.certificate import Proof
from solvers.exact.curves.row_search import RowCurve
from solvers.exact.tree.block_tree import BlockTree
from solvers.exact.tree.checkpoint import freeze, thaw
from solvers.form.blocks import blocks
from solvers.problem import SubsetProblem
from solvers.runtime.checkpoint import Arrays, Checkpoint, ragged, unragged

PARTS = tuple(field.name for field in fields(Proof) if field.name != "blocks")
"""Fields of a tree's proof; its splits are diagonal."""


def freeze_rows(rows: Sequence[RowCurve]) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """All that the rows' further course depends on, as `Checkpoint.save` takes it."""
    saved = [_facts(row) for row in rows]
    for name in saved[0]:
        yield from ragged(f"row {name}", [each[name] for each in saved])
    proofs = [(r, k, proof) for r, row in enumerate(rows) for k, proof in sorted(row.searches.items())]
    yield "proofs", [np.array([(r, k) for r, k, _ in proofs], np.int64).reshape(-1, 2)]
    for name in PARTS:
        given = [getattr(proof, name) for _, _, proof in proofs]
        yield f"proofs {name} given", [np.array([part is not None for part in given], bool)]
        yield from ragged(f"proofs {name}", [np.asarray(part) for part in given if part is not None])
    trees = [(r, row.unfinished) for r, row in enumerate(rows) if row.unfinished is not None]
    yield "unfinished", [np.array([(r, tree.block.keep[0]) for r, tree in trees], np.int64).reshape(-1, 2)]
    if trees:
        yield from freeze([tree for _, tree in trees])


def go_on(
    problem: SubsetProblem, arrays: Arrays, checkpoint: Checkpoint, *, probe: int, memory: int, record: bool
) -> list[RowCurve]:
    """The rows that `freeze_rows` was given.

    Args:
        problem: theirs.
        arrays: as `Checkpoint.load` gives them.
        checkpoint: where they are from, for complaints.
        probe: as of `RowCurve`.
        memory: as of `RowCurve`.
        record: as of `RowCurve`.

    Raises:
        ValueError: if the arrays don't fit.
    """
    try:
        names = [name[4:-6] for name in arrays if name.startswith("row ") and name.endswith(" shape")]
        parts = {name: unragged(f"row {name}", arrays) for name in names}
        proofs: list[dict[int, Proof]] = [{} for _ in parts["values"]]
        for (r, k), proof in zip(arrays["proofs"].tolist(), _proofs(arrays), strict=True):
            proofs[r][k] = proof
        rows = []
        for r, block in enumerate(blocks(problem, np.full(problem.m, problem.n // 2))):
            row = RowCurve(
                block, parts["order"][r], parts["values"][r], probe=probe, record=record, memory=memory
            )
            _restore(row, {name: parts[name][r] for name in names})
            row.searches = proofs[r]
            rows.append(row)
        unfinished = arrays["unfinished"].tolist()
        found = [rows[r].at(rows[r].n - keep) for r, keep in unfinished]
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise checkpoint.damaged(str(error)) from None
    if unfinished:
        make = partial(BlockTree.blank, probe=probe, memory=memory, record=record)
        trees = thaw(found, arrays, checkpoint, make)
        for (r, _), tree in zip(unfinished, trees, strict=True):
            rows[r].unfinished = tree
    return rows


def _facts(row: RowCurve) -> dict[str, NDArray[Any]]:
    n, counts = row.n, sorted(row.chosen)
    worth = {
        k: split for k, split in sorted(row.splits.items()) if split.steps or k in (0, n)
    }  # no hasty ones
    return {
        "order": row.order, "values": row.values, "lower": row.lower, "left": row.left, "gaps": row.gaps,
        "numbers": np.array([row.noise, row.nodes, row.trees, row.seconds]),
        "chosen at": np.array(counts, np.int64),
        "chosen": np.array([row.chosen[k] for k in counts], bool).reshape(-1, n),
        "splits": np.array([(k, split.steps) for k, split in worth.items()], np.int64).reshape(-1, 2),
        "d": np.array([split.d[0] for split in worth.values()]).reshape(-1, n),
        "z": np.array([split.z for split in worth.values()]).reshape(-1, n),
        "costs": np.empty((0, n)) if row.costs is None else row.costs,
    }  # fmt: skip


def _restore(row: RowCurve, saved: Mapping[str, NDArray[Any]]) -> None:
    n = row.n
    if not np.array_equal(np.sort(saved["order"]), np.arange(n)):
        raise ValueError("an order of entries is none")
    for name in ("values", "lower", "left", "gaps"):
        getattr(row, name)[:] = saved[name]
    row.noise, nodes, trees, row.seconds = saved["numbers"].tolist()
    row.nodes, row.trees = int(nodes), int(trees)
    row.chosen = dict(zip(saved["chosen at"].tolist(), saved["chosen"].reshape(-1, n), strict=True))
    if any(mask.sum() != k for k, mask in row.chosen.items()):
        raise ValueError("masks have other counts")
    d, z = saved["d"].reshape(-1, 1, n), saved["z"].reshape(-1, n)
    splits = saved["splits"].reshape(-1, 2).tolist()
    row.splits = {k: Split(d[i], z[i], steps) for i, (k, steps) in enumerate(splits)}
    row.costs = saved["costs"].reshape(4, n) if len(saved["costs"]) else None


def _proofs(arrays: Arrays) -> list[Proof]:
    columns: dict[str, list[Any]] = {}
    for name in PARTS:
        parts = iter(unragged(f"proofs {name}", arrays))
        columns[name] = [next(parts) if given else None for given in arrays[f"proofs {name} given"]]
    return [Proof(**dict(zip(PARTS, values, strict=True))) for values in zip(*columns.values(), strict=True)]
