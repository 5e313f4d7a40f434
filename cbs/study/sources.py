"""The problems of a study, from files, libraries, generators and networks, each with its digest."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbs.study.calls import absolute, check_parameters, function, told
from cbs.study.schema import FACTS
from solvers import Budget, SubsetProblem
from solvers.instances import digest, load, planted, random_problem

if TYPE_CHECKING:
    from solvers.instances.item import Item


@dataclass(frozen=True)
class Instance:
    """A problem by name.

    Attributes:
        name: that is unique in a study.
        digest: of its numbers, budget and variant.
        facts: `family`, `m`, `n`, `variant`, `budget`, `sparsity`.
        problem: gives it; cheap, or remembered.
    """

    name: str
    digest: str
    facts: Mapping[str, Any]
    problem: Callable[[], SubsetProblem] = field(repr=False, compare=False)


def instances(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    """The problems of one `[[instances]]` table.

    Args:
        table: as `cbs.study.studyfile` has it.
        folder: to which paths are relative.
        data_dir: of data sets, or None.

    Raises:
        ValueError: in one line, for what can't be found, read or made.
    """
    try:
        yield from SOURCES[table["source"]](table, folder, data_dir)
    except ValueError as error:
        raise ValueError(f"{table['where']}: {error}") from None
    except Exception as error:
        if table["source"] != "made":
            raise
        raise ValueError(f"{table['where']}: made {table['made']!r} failed ({told(error)})") from None


def facts_of(problem: SubsetProblem, family: str) -> dict[str, Any]:
    """The columns that describe a problem."""
    prunable = problem.m * len(problem.prunable)
    pruned = int(problem.pools.prune.sum()) * (problem.m if problem.pools.coupled else 1)
    return {
        "family": family, "m": problem.m, "n": problem.n,
        "variant": "joint" if problem.refit else "selection", "budget": problem.budget.kind,
        "sparsity": round(pruned / prunable, 6) if prunable else 0.0,
    }  # fmt: skip


def budget(kind: str, m: int, n: int, sparsity: float) -> Budget:
    """A budget that prunes about a share of `m x n` weights.

    Args:
        kind: `per_row`, `per_layer`, `columns`, or `N:M`, which takes no share.
        m: rows.
        n: inputs.
        sparsity: share to prune.

    Raises:
        ValueError: for another kind.
    """
    if kind in ("per_row", "columns"):
        return getattr(Budget, kind)(round(sparsity * n))  # type: ignore[no-any-return]
    if kind == "per_layer":
        return Budget.per_layer(round(sparsity * m * n))
    keep, colon, of = kind.partition(":")
    if colon and keep.isdigit() and of.isdigit():
        return Budget.n_of_m(int(keep), int(of))
    raise ValueError(f"budgets must be per_row, per_layer, columns or N:M, got {kind!r}")


def _files(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    for pattern in table["files"]:
        found = sorted(glob.glob(os.path.join(folder, pattern), recursive=True))
        if not found:
            raise ValueError(f"files {pattern!r} names no file")
        for path in found:
            keep = lru_cache(maxsize=1)(lambda path=path: load(path))
            problem = keep()
            yield Instance(Path(path).stem, digest(problem), facts_of(problem, Path(path).parent.name), keep)


def _made(
    table: Mapping[str, Any], family: str, make: Callable[[int, int, Budget, int, bool], SubsetProblem]
) -> Iterator[Instance]:
    seeds = range(table["first"], table["first"] + table["count"])
    kinds = [
        (kind, sparsity)
        for kind in table["budgets"]
        for sparsity in (table["sparsities"][:1] if ":" in kind else table["sparsities"])
    ]
    for m, n, variant, (kind, sparsity), seed in product(
        table["m"], table["n"], table["variants"], kinds, seeds
    ):
        limits = budget(kind, m, n, sparsity)
        remade = lru_cache(maxsize=1)(
            lambda m=m, n=n, limits=limits, seed=seed, variant=variant: make(
                m, n, limits, seed, variant == "joint"
            )
        )
        share = kind if ":" in kind else f"{kind}-{100 * sparsity:g}%"
        problem = remade()
        name = f"{family}-{m}x{n}-{variant}-{share}-{seed}"
        yield Instance(name, digest(problem), facts_of(problem, family), remade)
        remade.cache_clear()


def _random(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    def make(m: int, n: int, limits: Budget, seed: int, refit: bool) -> SubsetProblem:
        return random_problem(
            m, n, limits, seed=seed, refit=refit, correlation=table["correlation"], damping=table["damping"],
            per_row=table["per_row"],
        )  # fmt: skip

    yield from _made(table, f"random-{table['correlation']:g}", make)


def _planted(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    def make(m: int, n: int, limits: Budget, seed: int, refit: bool) -> SubsetProblem:
        return planted(m, n, limits, seed=seed, refit=refit, margin=table["margin"]).problem

    yield from _made(table, f"planted-{table['margin']:g}", make)


def _library(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    from solvers.instances.library import Library

    wanted = {name: table[name] for name in ("names", "n", "family", "status") if table[name] is not None}
    there = Library(folder / table["library"]).items(**wanted)
    yield from _picked(there, table, f"library {table['library']!r}")


def _network(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    from cbs.instances import of_network

    asked = {
        name: table[name] for name in ("layers", "rows", "samples", "layer_rows") if table[name] is not None
    }
    there = of_network(
        table["network"], variants=table["variants"], sparsities=table["sparsities"],
        budgets=table["budgets"], damping=table["damping"], seed=table["seed"], data_dir=data_dir, **asked,
    )  # fmt: skip
    yield from _picked(there, table, f"network {table['network']!r}")


def _picked(items: Iterable[Item], table: Mapping[str, Any], who: str) -> Iterator[Instance]:
    """Of a library's or network's items those that a table wants, but for budgets of several layers."""
    low, high = table["n"] or (0, sys.maxsize)
    count = 0
    for item in items:
        kinds = (item.budget, item.name.rpartition("-")[2])
        if (
            len(item.layers) > 1
            or not low <= item.n <= high
            or (table["variants"] and item.variant not in table["variants"])
            or (table["source"] == "library" and table["budgets"] and not set(kinds) & set(table["budgets"]))
            or (
                table["source"] == "library"
                and table["sparsities"]
                and not any(
                    abs(item.sparsity - share) <= 0.5 / item.n + 1e-9 for share in table["sparsities"]
                )
            )
        ):
            continue
        count += 1
        facts = {name: getattr(item, name) for name in FACTS}
        if item.value is not None:
            facts["known"] = {"value": item.value, "bound": item.bound, "status": item.status}
        yield Instance(item.name, item.digest, facts, item.problem)
        if count == table.get("most"):
            return
    if not count:
        raise ValueError(f"{who} has no instance of these")


def _wanted(item: Item, table: Mapping[str, Any]) -> bool:
    """Whether a library's item has a variant, budget and sparsity asked for; a network's was made so."""
    if table["source"] == "network":
        return True
    shares = table["sparsities"]
    return (
        (not table["variants"] or item.variant in table["variants"])
        and (not table["budgets"] or item.budget in table["budgets"])
        and (not shares or any(abs(item.sparsity - share) <= 0.5 / item.n + 1e-9 for share in shares))
    )


def _own(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    place = absolute(table["made"], folder)
    if data_dir is not None:
        os.environ["CBS_DATA"] = str(data_dir)
    make = function(place)
    check_parameters(place, make, table["parameters"])
    for pair in make(**table["parameters"]):
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], SubsetProblem):
            raise ValueError(
                f"made {table['made']!r} must yield (name, SubsetProblem), got {type(pair).__name__}"
            )
        name, problem = pair
        family = str(name).rpartition("/")[0] or table["made"].rpartition(":")[2]
        yield Instance(str(name), digest(problem), facts_of(problem, family), partial(_same, problem))


def _same(problem: SubsetProblem) -> SubsetProblem:
    return problem


SOURCES: dict[str, Callable[[Mapping[str, Any], Path, Path | None], Iterator[Instance]]] = {
    "files": _files, "library": _library, "random": _random, "planted": _planted, "network": _network,
    "made": _own,
}  # fmt: skip
"""By the key that names them."""
