"""Instances as mixed-integer programmes in MPS and LP files, for any solver that reads them.

No library that this package needs writes quadratic constraints, and those that do write numbers in
15 digits or fewer. Here every number is written so that it reads back bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from solvers.foreign.mixed_integer import root
from solvers.foreign.models import joint_model, selection_model
from solvers.foreign.programme import Programme, programme
from solvers.form.blocks import Part
from solvers.form.reduction import reduce
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.instances.carried import carried
from solvers.problem import SubsetProblem
from solvers.runtime.writing import check_place, replacing

CONSTANT = "constant"
"""Name of a variable fixed to 1, since not every reader takes a constant in the objective."""


def export(path: str | os.PathLike[str], problem: SubsetProblem, *, split: bool = False) -> float:
    """Write a problem as a mixed-integer programme whose optimum is that of the problem.

    The joint variant has binary `z_r_i` (1 = kept), weights `v_r_i` within bounds that hold for every
    mask no worse than that of a local search, and with a split the squares `s_r_i` with
    `v^2 <= s z` (see `solvers.foreign.models`); selection has binary `x_r_i` (1 = pruned). Rows r share
    decisions of row 0 where the budget is of columns; i counts the columns that may be pruned. The instance
    itself stands in comments, from which `solvers.instances.read_problem` reads it back bit for bit.

    Args:
        path: where to, a name that ends in `.mps` or `.lp`; an existing file is replaced. Quadratic
            objectives are in section QMATRIX, cones in QCMATRIX.
        problem: what to write.
        split: whether to write the strengthened model of the best split, or the plain one.

    Returns:
        The cost of one unit of the file's objective, which its first line says, too.

    Raises:
        ValueError: for a name with another ending, or a place that can't be written.
        OSError: if the disk is full.
    """
    path = Path(path)
    if path.suffix not in (".mps", ".lp"):
        raise ValueError(f"model file {str(path)!r} must end in .mps or .lp")
    check_place("model file", path)
    reduction = reduce(problem)
    smaller = reduction.problem
    mask, _, _ = LocalSearch().improve(smaller, greedy_mask(smaller))
    part = Part(smaller, slice(0, smaller.m), mask, smaller.value(mask), -np.inf)
    d = root(smaller).d if split else None
    model = joint_model(part, d) if smaller.refit else selection_model(part, d)
    matrices = programme(model, smaller, mask)
    matrices = replace(matrices, constant=matrices.constant + reduction.offset / model.unit)
    sign = "*" if path.suffix == ".mps" else "\\"
    said = f"{sign} cost = {model.unit!r} times the objective"
    lines = [said, *(_mps(matrices) if path.suffix == ".mps" else _lp(matrices))]
    with replacing(path) as file:
        for some in (lines[:1], carried(problem, lines, sign), lines[1:]):
            file.writelines(f"{line}\n".encode("ascii") for line in some)
    return model.unit


def _mps(p: Programme) -> Iterator[str]:
    """The lines of a free MPS file."""
    names = (*p.names, CONSTANT)
    rows = [f"r{k}" for k in range(len(p.b))]
    cones = [f"cone{k}" for k in range(len(p.cones))]
    yield "NAME subset_selection"
    yield from ("ROWS", " N cost")
    yield from (f" {'E' if k < p.equalities else 'L'} {row}" for k, row in enumerate(rows))
    yield from (f" L {cone}" for cone in cones)
    yield "COLUMNS"
    columns = sp.csc_array(p.A)
    yield " M1 'MARKER' 'INTORG'"
    for j, name in enumerate(p.names):
        if j == p.decisions.size:
            yield " M2 'MARKER' 'INTEND'"
        yield f" {name} cost {_number(p.c[j])}"
        for k in range(*columns.indptr[j : j + 2]):
            yield f" {name} {rows[columns.indices[k]]} {_number(columns.data[k])}"
    if len(p.names) == p.decisions.size:
        yield " M2 'MARKER' 'INTEND'"
    yield f" {CONSTANT} cost {_number(p.constant)}"
    yield "RHS"
    yield from (f" RHS {row} {_number(b)}" for row, b in zip(rows, p.b, strict=True) if b)
    yield "BOUNDS"
    for j, name in enumerate(p.names):
        yield f" LO BND {name} {_number(p.lower[j])}"
        yield f" UP BND {name} {_number(p.upper[j])}"
    yield f" FX BND {CONSTANT} 1"
    Q = sp.coo_array(p.Q)
    yield "QMATRIX"
    for i, j, q in zip(Q.row, Q.col, Q.data, strict=True):
        yield f" {names[i]} {names[j]} {_number(q)}"
    for cone, (v, s, z) in zip(cones, p.cones, strict=True):
        yield f"QCMATRIX {cone}"
        yield f" {names[v]} {names[v]} 1"
        yield f" {names[s]} {names[z]} -0.5"
        yield f" {names[z]} {names[s]} -0.5"
    yield "ENDATA"


def _lp(p: Programme) -> Iterator[str]:
    """The lines of a CPLEX LP file, a term each, since readers limit their length."""
    names = p.names
    yield from ("Minimize", " cost:")
    yield from (f"  {_signed(c)} {name}" for c, name in zip(p.c, names, strict=True))
    yield f"  {_signed(p.constant)} {CONSTANT}"
    yield "  + ["
    Q = sp.coo_array(sp.triu(p.Q))
    for i, j, q in zip(Q.row, Q.col, Q.data, strict=True):
        yield f"  {_signed(q)} {names[i]} ^2" if i == j else f"  {_signed(2.0 * q)} {names[i]} * {names[j]}"
    yield "  ] / 2"
    yield "Subject To"
    for k, b in enumerate(p.b):
        yield f" r{k}:"
        for j in range(*p.A.indptr[k : k + 2]):
            yield f"  {_signed(p.A.data[j])} {names[p.A.indices[j]]}"
        yield f"  {'=' if k < p.equalities else '<='} {_number(b)}"
    for k, (v, s, z) in enumerate(p.cones):
        yield f" cone{k}: [ {names[v]} ^2 - {names[s]} * {names[z]} ] <= 0"
    yield "Bounds"
    for name, lower, upper in zip(names, p.lower, p.upper, strict=True):
        yield f" {_number(lower)} <= {name} <= {_number(upper)}"
    yield f" {CONSTANT} = 1"
    yield "Generals"
    yield from (f" {name}" for name in names[: p.decisions.size])
    yield "End"


def _number(x: float) -> str:
    return repr(float(x))


def _signed(x: float) -> str:
    return f"{'-' if x < 0 else '+'} {_number(abs(x))}"
