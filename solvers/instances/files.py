"""Instance files: one `SubsetProblem` in one NumPy archive (`.npz`), never pickled.

Fields, all of them arrays:

| field | shape | meaning |
|---|---|---|
| `weights` | `[m, n]` | weights before pruning |
| `hessian` | `[n, n]` or `[m, n, n]` | curvature, shared by all rows or one a row |
| `factor`, `damping` | `[N, n]`, scalar | in place of `hessian`: `X'X / N + damping I`; damping 0 if absent |
| `gradient` | `[m, n]` | optional |
| `refit` | bool | optional, true if absent: whether survivors move (the joint variant) |
| `movable` | `[b]` | optional: columns that may move but are never pruned |
| `budget` | string | `per_row`, `per_layer`, `n_of_m`, `columns`, `units` (grouped), `groups`, `pools` |
| `prune` | int, or `[m]` for `per_row` | number to prune in a row, in the layer, of columns, of units |
| `prune` | `[pools]` | for `groups` and `pools`: number to prune of each in every row |
| `sizes` | `[pools]` | for `groups`: the inputs of each, which are neighbours |
| `labels` | `[n]` | for `pools`: the group of every input that is not movable, from 0 |
| `shared` | bool | optional, for `groups` and `pools`: whether all rows have one mask; false if absent |
| `keep`, `of` | int | for `n_of_m`, in place of `prune`; `of` for `units`: the columns of each |
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.budget import GROUPS, KINDS, POOLS, UNITS, Budget
from solvers.checker.archive import Shaped, read_archive
from solvers.checker.problem import check_declared, exact_floats, exact_integers
from solvers.hessian import FactorHessian, Hessian
from solvers.problem import SubsetProblem
from solvers.runtime.writing import replacing

Fields = Mapping[str, NDArray[Any]]

REQUIRED = ("weights", "budget")
OPTIONAL = (
    "hessian", "factor", "damping", "gradient", "refit", "movable",
    "prune", "keep", "of", "sizes", "labels", "shared",
)  # fmt: skip


def load(path: str | os.PathLike[str]) -> SubsetProblem:
    """Read a problem from an instance file.

    Args:
        path: the `.npz` file; the module's text lists its fields.

    Returns:
        The problem, validated.

    Raises:
        ValueError: one line that names the file, the field that is wrong, and what would be right.
    """
    fields = read_archive(path, "instance file", _expected)
    try:
        return _problem(fields)
    except ValueError as error:
        raise ValueError(f"instance file {os.fspath(path)!r}: {error}") from None


def save(path: str | os.PathLike[str], problem: SubsetProblem) -> None:
    """Write a problem to an instance file, whole or not at all.

    Args:
        path: where to; an existing file is replaced.
        problem: what to write; `load` gives an equal problem back, bit for bit.

    Raises:
        OSError: if the folder can't be written.
    """
    with replacing(path) as file:
        np.savez(file, **problem.describe())


def _expected(declared: Mapping[str, Shaped]) -> None:
    """See that a file has the fields of an instance and no others, with shapes that fit each other."""
    known = (*REQUIRED, *OPTIONAL)
    for name in declared:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown field {name!r:.40}; {hint}")
    if "weights" in declared and ("hessian" in declared) == ("factor" in declared):
        found = "has both" if "hessian" in declared else "has neither"
        raise ValueError(f"{found} 'hessian' [n, n] and 'factor' [N, n]; give one of them")
    if "damping" in declared and "hessian" in declared:
        raise ValueError("field 'damping' goes with 'factor'; add it to the diagonal of 'hessian' instead")
    check_declared(declared)


def _problem(fields: Fields) -> SubsetProblem:
    movable = exact_integers(fields["movable"], "movable") if "movable" in fields else np.zeros(0, np.int64)
    return SubsetProblem(
        exact_floats(fields["weights"], "weights"),
        _hessian(fields),
        _budget(fields),
        refit=_flag(fields, "refit", default=True),
        gradient=exact_floats(fields["gradient"], "gradient") if "gradient" in fields else None,
        movable=movable.ravel(),
    )


def _hessian(fields: Fields) -> NDArray[np.float64] | Hessian:
    if "hessian" in fields:
        return exact_floats(fields["hessian"], "hessian")
    X = fields["factor"]
    if X.dtype != np.float32:
        X = exact_floats(fields["factor"], "factor")
    damping = exact_floats(fields["damping"], "damping") if "damping" in fields else np.zeros(())
    if damping.ndim:
        raise ValueError(f"field 'damping' has shape {damping.shape}; it must be one number")
    return FactorHessian(X, float(damping.item()))


def _budget(fields: Fields) -> Budget:
    given = fields["budget"]
    kind = str(given)
    known = (*KINDS, GROUPS, POOLS, UNITS)
    if given.ndim or given.dtype.kind != "U" or kind not in known:
        raise ValueError(f"field 'budget' is {_shown(given)}; it must be one of {', '.join(known)}")
    wants = {
        "n_of_m": ("keep", "of"), UNITS: ("prune", "of"),
        GROUPS: ("sizes", "prune"), POOLS: ("labels", "prune"),
    }.get(kind, ("prune",))  # fmt: skip
    if "shared" in fields and kind not in (GROUPS, POOLS):
        raise ValueError(f"field 'shared' does not go with budget {kind!r}")
    for name in ("prune", "keep", "of", "sizes", "labels"):
        if (name in fields) != (name in wants):
            state = "does not go with" if name in fields else "is missing for"
            raise ValueError(f"field {name!r} {state} budget {kind!r}, which takes {' and '.join(wants)}")
    counts = [exact_integers(fields[name], name) for name in wants]
    for name, count in zip(wants, counts, strict=True):
        if count.ndim > (kind in ("per_row", GROUPS, POOLS)):
            raise ValueError(f"field {name!r} has shape {count.shape}; it must be one whole number")
    shared = _flag(fields, "shared", default=False)
    if kind == POOLS:
        return _pools(counts[0], counts[1], shared)
    if kind == GROUPS:
        return Budget.groups(counts[0].tolist(), counts[1].tolist(), shared=shared)
    make: Callable[..., Budget] = Budget.columns if kind == UNITS else getattr(Budget, kind)
    return make(*(count.tolist() for count in counts))


def _pools(labels: NDArray[np.int64], prune: NDArray[np.int64], shared: bool) -> Budget:
    if (labels < 0).any() or set(labels.tolist()) != set(range(len(prune))):
        raise ValueError(
            f"field 'labels' must hold every number from 0 to {len(prune) - 1}, one for each 'prune'"
        )
    keep = np.bincount(labels) - prune
    if (keep < 0).any() or (prune < 0).any():
        raise ValueError("field 'prune' must lie between 0 and the size of its group of 'labels'")
    return Budget.pools(labels, keep, shared=shared)


def _flag(fields: Fields, name: str, *, default: bool) -> bool:
    if name not in fields:
        return default
    if fields[name].ndim or fields[name].dtype.kind != "b":
        raise ValueError(f"field {name!r} is {_shown(fields[name])}; it must be true or false (a bool)")
    return bool(fields[name])


def _shown(array: NDArray[Any]) -> str:
    return repr(array.item()) if array.ndim == 0 else f"an array of shape {array.shape}"
