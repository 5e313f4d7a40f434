"""The problems of a study, from files, libraries, generators and networks, each with its digest."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from solvers import Budget, SubsetProblem
from solvers.certificate.original import stored
from solvers.instances import load, planted, random_problem


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

    wanted = {
        name: table[name]
        for name in ("names", "family", "n", "m", "variants", "budgets", "sparsity", "status")
        if table[name] is not None
    }
    found = list(Library(folder / table["library"]).items(**wanted))[: table["most"]]
    if not found:
        raise ValueError(f"library {table['library']!r} has no instance of these")
    for item in found:
        yield Instance(item.name, item.digest, {name: getattr(item, name) for name in FACTS}, item.problem)


FACTS = ("family", "m", "n", "variant", "budget", "sparsity")


def _network(table: Mapping[str, Any], folder: Path, data_dir: Path | None) -> Iterator[Instance]:
    from cbs.instances import of_network

    asked = {name: table[name] for name in ("layers", "rows", "n", "samples") if table[name] is not None}
    found = False
    for item in of_network(
        table["network"], variants=table["variants"], sparsities=table["sparsities"],
        budgets=table["budgets"],
        damping=table["damping"], seed=table["seed"], data_dir=data_dir, **asked,
    ):  # fmt: skip
        found = True
        yield Instance(item.name, item.digest, {name: getattr(item, name) for name in FACTS}, item.problem)
    if not found:
        raise ValueError(f"network {table['network']!r} has no rows of these")


SOURCES: dict[str, Callable[[Mapping[str, Any], Path, Path | None], Iterator[Instance]]] = {
    "files": _files, "library": _library, "random": _random, "planted": _planted, "network": _network,
}  # fmt: skip
"""By the key that names them."""


def digest(problem: SubsetProblem) -> str:
    """Of a problem's numbers, budget and variant."""
    return stored(problem).digest
