"""QPLIB files (`.qplib`): quadratic programmes as QPLIB has them (Furini et al. 2019, appendix B).

A file is a list of values in free format, one record a line; what follows on a line is a comment, and so are
lines that begin with `#`, `!` or `%`. In order:

    name; type; minimize or maximize; variables N; constraints M
    entries of the lower triangle of Q, and these: i j value      (the objective has 1/2 x'Qx)
    default of c, how many others, and these: i value;  the constant
    entries of the constraints' quadratic parts: row i j value    (half of them, too)
    entries of A: row i value
    the value that means infinity
    default and others of: lower and upper limits of rows, of variables, types of variables (0 continuous,
    1 integer, 2 binary), starting point, starting multipliers of rows and of variables
    how many names of variables, and these: i name; the same of rows

Indices count from 1. The type has three letters: of the objective (L linear, D diagonal and convex, C convex,
Q any), of the variables (C continuous, B binary, M continuous and binary, I integer, G mixed) and of the
constraints (N none, B limits of variables, L linear, D, C, Q as the objective's). Parts that the type rules
out are absent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from solvers.foreign.models import binary_quadratic, joint_model
from solvers.form.blocks import Part
from solvers.form.reduction import reduce
from solvers.hessian import Array
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.instances.carried import carried
from solvers.instances.mixed_programme import MixedProgramme
from solvers.problem import SubsetProblem
from solvers.runtime.writing import check_place, replacing

INFINITY = 1e30
"""What the files written here say is infinite."""
LARGEST = 10_000_000
"""Variables, rows or entries of a file that are believed."""


def write_qplib(
    path: str | os.PathLike[str],
    problem: SubsetProblem,
    name: str = "subset_selection",
    *,
    carry: bool = True,
) -> None:
    """Write a problem as a QPLIB file, whose objective is the loss increase itself.

    *Selection* (type CBL): binary `x` (1 = pruned), `1/2 x'Ax - c.x` with `A = diag(w) H diag(w)`,
    `c = g o w`, and a row `sum x = prune` for every pool. *Joint* (type CML): binary `z` (1 = kept), then the
    weights `v`, `1/2 (v - w)'H(v - w)`, a row `sum z = keep` for every pool, and `low z <= v <= high z` with
    ranges that hold for every mask no worse than that of a local search. Movable columns and a joint
    problem's gradient are eliminated. Types of binary variables are written as integers between 0 and 1,
    which every reader takes; variables have no names, which not every reader takes.

    The starting point is the dense network. The instance itself stands in comments at the end.

    Args:
        path: where to, a name that ends in `.qplib`; an existing file is replaced.
        problem: what to write.
        name: of the programme, without blanks.
        carry: whether the comments with the instance are written; some readers want no line after the last.

    Raises:
        ValueError: for a name with another ending or with blanks, or a place that can't be written.
        OSError: if the disk is full.
    """
    path = Path(path)
    if path.suffix != ".qplib":
        raise ValueError(f"model file {str(path)!r} must end in .qplib")
    if not name or any(letter.isspace() or letter in "#!%" for letter in name):
        raise ValueError(f"name {name!r} of a QPLIB file must be one word")
    check_place("model file", path)
    lines = list(_lines(problem, name))
    with replacing(path) as file:
        for part in (lines, carried(problem, lines, "#") if carry else ()):
            file.writelines(f"{line}\n".encode("ascii") for line in part)


def read_qplib(path: str | os.PathLike[str]) -> MixedProgramme:
    """Read any QPLIB file as a mixed-integer programme.

    Raises:
        ValueError: in one line, that names the file, the line and what is wrong there.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is not a text"
        raise ValueError(f"model file {os.fspath(path)!r} can't be read: {told}") from None
    return parse_qplib(text, f"model file {os.fspath(path)!r}")


def parse_qplib(text: str, what: str) -> MixedProgramme:
    """The programme of a QPLIB file's text; see `read_qplib`."""
    read = _Reader(text.splitlines(), what)
    name = read.word("the name")
    kind = read.word("the type").upper()
    if len(kind) != 3 or kind[0] not in "LDCQ" or kind[1] not in "CBMIG" or kind[2] not in "NBLDCQ":
        raise read.error(f"the type is {kind!r:.20}; it must be three letters, such as CBL or QML")
    sense = read.word("the sense").lower()
    if sense not in ("minimize", "maximize"):
        raise read.error(f"the sense is {sense!r:.20}; it must be minimize or maximize")
    N = read.count("the number of variables")
    if not N:
        raise read.error("there are no variables")
    M = 0 if kind[2] in "NB" else read.count("the number of constraints")
    Q = sp.csr_array((N, N)) if kind[0] == "L" else _symmetric(read.entries("Q", (N, N)), N)
    c = read.vector("c", N)
    constant = read.number("the constant")
    quadratic: dict[int, sp.csr_array] = {}
    if kind[2] in "DCQ":
        index, values = read.entries("the quadratic constraints", (M, N, N))
        for row in np.unique(index[:, 0]).tolist():
            here = index[:, 0] == row
            quadratic[row] = _symmetric((index[here, 1:], values[here]), N)
    A = sp.csr_array((M, N))
    if M or kind[2] not in "NB":
        index, values = read.entries("A", (M, N))
        A = sp.csr_array(sp.coo_array((values, (index[:, 0], index[:, 1])), shape=(M, N)))
    infinity = read.number("the value of infinity")
    unlimited = np.full(M, np.inf)
    row_lower, row_upper = -unlimited, unlimited
    if kind[2] not in "NB":
        row_lower, row_upper = (read.vector(f"{end} limits of rows", M) for end in ("lower", "upper"))
    lower, upper = np.zeros(N), np.ones(N)
    if kind[1] != "B":
        lower, upper = (read.vector(f"{end} limits of variables", N) for end in ("lower", "upper"))
    types = np.full(N, {"C": 0, "B": 2, "I": 1}.get(kind[1], 0))
    if kind[1] in "MG":
        given = read.vector("types of variables", N)
        if not np.isin(given, (0, 1, 2)).all():
            raise read.error("types of variables must be 0, 1 or 2")
        types = given.astype(np.int64)
    binary = types == 2
    lower, upper = np.where(binary, 0.0, lower), np.where(binary, 1.0, upper)
    start = read.vector("the starting point", N)
    if kind[2] not in "NB":
        read.vector("starting multipliers of rows", M)
    read.vector("starting multipliers of variables", N)
    names = read.names("variables", "x", N)
    read.names("rows", "c", M)
    read.end()
    for limits in (row_lower, row_upper, lower, upper):
        limits[limits >= infinity], limits[limits <= -infinity] = np.inf, -np.inf
    return MixedProgramme(
        name, Q, c, constant, A, row_lower, row_upper, lower, upper, types > 0, sense == "maximize",
        quadratic, start, names,
    )  # fmt: skip


def _lines(problem: SubsetProblem, name: str) -> Iterator[str]:
    """The records of a problem's file."""
    reduction = reduce(problem)
    smaller = reduction.problem
    make = _joint if smaller.refit else _selection
    programme = make(smaller)
    N, M = len(programme.c), len(programme.b)
    yield f"{name} # {problem.m} x {problem.n} weights"
    yield "CML # convex objective, continuous and binary variables, linear rows" if smaller.refit else "CBL"
    yield "minimize"
    yield f"{N} # variables"
    yield f"{M} # constraints"
    Q = sp.coo_array(sp.tril(programme.Q))
    yield f"{Q.nnz} # entries of the lower triangle of Q"
    yield from (f"{i + 1} {j + 1} {_text(q)}" for i, j, q in zip(Q.row, Q.col, Q.data, strict=True))
    yield from _vector(programme.c, "c")
    yield f"{_text(programme.constant + reduction.offset)} # constant"
    A = sp.coo_array(programme.A)
    yield f"{A.nnz} # entries of A"
    yield from (f"{i + 1} {j + 1} {_text(a)}" for i, j, a in zip(A.row, A.col, A.data, strict=True))
    yield f"{_text(INFINITY)} # infinity"
    equal = np.arange(M) < programme.equalities
    yield from _vector(np.where(equal, programme.b, -INFINITY), "lower limits of rows")
    yield from _vector(programme.b, "upper limits of rows")
    if smaller.refit:
        yield from _vector(programme.lower, "lower limits of variables")
        yield from _vector(programme.upper, "upper limits of variables")
        yield from _vector(programme.whole, "types: 0 continuous, 1 integer", str)
    yield from _vector(programme.start, "starting point: the dense network")
    yield from _vector(np.zeros(M), "starting multipliers of rows")
    yield from _vector(np.zeros(N), "starting multipliers of variables")
    yield "0 # names of variables"
    yield "0 # names of constraints"


@dataclass(frozen=True, eq=False)
class _Natural:
    """A programme in the units of the problem; rows are equalities first, then `A x <= b`."""

    Q: Any
    c: Array
    constant: float
    A: Any
    b: Array
    equalities: int
    lower: Array
    upper: Array
    whole: NDArray[np.int64]
    start: Array


def _selection(problem: SubsetProblem) -> _Natural:
    quadratic = binary_quadratic(problem)
    b, n = quadratic.c.shape
    N = b * n
    Q = sp.csr_array(sp.block_diag([0.5 * (A + A.T) for A in quadratic.A]))
    return _Natural(
        Q, -quadratic.c.ravel(), 0.0, _sums(quadratic.labels, len(quadratic.prune), N),
        quadratic.prune.astype(np.float64), len(quadratic.prune), np.zeros(N), np.ones(N),
        np.ones(N, np.int64), np.zeros(N),
    )  # fmt: skip


def _joint(problem: SubsetProblem) -> _Natural:
    m, n = problem.W.shape
    mask, _, _ = LocalSearch().improve(problem, greedy_mask(problem))
    model = joint_model(Part(problem, slice(0, m), mask, problem.value(mask), -np.inf), None)
    labels = problem.pools.labels
    decisions, weights = labels.size, m * n
    N = decisions + weights
    z = np.broadcast_to(np.arange(decisions).reshape(labels.shape), (m, n)).ravel()
    v = decisions + np.arange(weights)
    blocks = [problem.hessian.dense(r) for r in range(m)]
    blocks = [0.5 * (H + H.T) for H in blocks]
    low, high = (side * model.scale for side in (model.low, model.high))
    pull = np.stack([H @ w for H, w in zip(blocks, problem.W, strict=True)])
    every = np.arange(weights)
    ranges = [
        sp.csr_array(
            (
                np.concatenate([np.full(weights, sign), slope.ravel()]),
                (np.tile(every, 2), np.concatenate([v, z])),
            ),
            shape=(weights, N),
        )
        for sign, slope in ((1.0, -high), (-1.0, low))
    ]
    return _Natural(
        Q=sp.csr_array(sp.block_diag([sp.csr_array((decisions, decisions)), *blocks])),
        c=np.concatenate([np.zeros(decisions), -pull.ravel()]),
        constant=0.5 * float((problem.W * pull).sum()),
        A=sp.csr_array(sp.vstack([_sums(labels, len(problem.pools.keep), N), *ranges])),
        b=np.concatenate([problem.pools.keep.astype(np.float64), np.zeros(2 * weights)]),
        equalities=len(problem.pools.keep),
        lower=np.concatenate([model.kept.ravel().astype(np.float64), np.minimum(low, 0.0).ravel()]),
        upper=np.concatenate([np.ones(decisions), np.maximum(high, 0.0).ravel()]),
        whole=(np.arange(N) < decisions).astype(np.int64),
        start=np.concatenate([np.ones(decisions), problem.W.ravel()]),
    )


def _sums(labels: NDArray[np.int64], pools: int, N: int) -> Any:
    return sp.csr_array((np.ones(labels.size), (labels.ravel(), np.arange(labels.size))), shape=(pools, N))


def _text(value: float) -> str:
    return repr(float(value))


def _vector(values: Any, what: str, text: Callable[[Any], str] = _text) -> Iterator[str]:
    """A default, and the entries that are others."""
    values = np.asarray(values)
    known, counts = np.unique(values, return_counts=True)
    usual = known[np.argmax(counts)] if len(known) else values.dtype.type(0)
    others = np.flatnonzero(values != usual)
    yield f"{text(usual)} # default of {what}"
    yield f"{len(others)} # others"
    yield from (f"{i + 1} {text(values[i])}" for i in others.tolist())


def _symmetric(entries: tuple[NDArray[np.int64], Array], N: int) -> sp.csr_array:
    """A symmetric matrix of the entries of its lower (or upper) triangle."""
    index, values = entries
    off = index[:, 0] != index[:, 1]
    rows = np.concatenate([index[:, 0], index[off, 1]])
    columns = np.concatenate([index[:, 1], index[off, 0]])
    return sp.csr_array(sp.coo_array((np.concatenate([values, values[off]]), (rows, columns)), shape=(N, N)))


def _is_whole(word: str) -> bool:
    """Whether a word is a number of digits 0 to 9 alone, of which there are not too many."""
    return word.isascii() and word.isdigit() and len(word) < 20


class _Reader:
    """The records of a file, one after the other."""

    def __init__(self, lines: Sequence[str], what: str) -> None:
        self._lines, self._what, self._at = lines, what, 0

    def error(self, text: str) -> ValueError:
        """The complaint about the present line."""
        return ValueError(f"{self._what}, line {self._at}: {text}")

    def words(self, wanted: str, least: int = 1) -> list[str]:
        """The words of the next record."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            words = line.split("#")[0].split()
            if words and words[0][0] not in "!%":
                if len(words) < least:
                    raise self.error(f"{wanted} needs {least} values, {len(words)} are there")
                return words
        self._at = len(self._lines)
        raise ValueError(f"{self._what} ends before {wanted}")

    def end(self) -> None:
        """Complain of records after the last: a count before them was too small."""
        for at in range(self._at, len(self._lines)):
            words = self._lines[at].split("#")[0].split()
            if words and words[0][0] not in "!%":
                self._at = at + 1
                raise self.error(f"{' '.join(words)!r:.40} comes after the last record; a count is too small")

    def word(self, wanted: str) -> str:
        """The first word of the next record."""
        return self.words(wanted)[0]

    def count(self, wanted: str) -> int:
        """A whole number from 0."""
        word = self.word(wanted)
        if not _is_whole(word) or int(word) > LARGEST:
            raise self.error(f"{wanted} is {word!r:.30}; it must be a whole number up to {LARGEST}")
        return int(word)

    def number(self, wanted: str) -> float:
        """A number that is not NaN."""
        return self._number(self.word(wanted), wanted)

    def _number(self, word: str, wanted: str) -> float:
        try:
            value = float(word.replace("d", "e").replace("D", "e") if "inf" not in word.lower() else word)
        except ValueError:
            value = np.nan
        if np.isnan(value) or "_" in word or not word.isascii():
            raise self.error(f"{wanted} has {word!r:.30}, which is not a number")
        return value

    def _index(self, word: str, size: int, wanted: str) -> int:
        if not _is_whole(word) or not 1 <= int(word) <= size:
            raise self.error(f"{wanted} has index {word!r:.30}; it must be from 1 to {size}")
        return int(word) - 1

    def vector(self, wanted: str, size: int) -> Array:
        """A default, and the entries that are others."""
        values = np.full(size, self.number(f"the default of {wanted}"))
        for _ in range(self.count(f"the number of others of {wanted}")):
            place, word = self.words(wanted, 2)[:2]
            values[self._index(place, size, wanted)] = self._number(word, wanted)
        return values

    def entries(self, wanted: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], Array]:
        """Entries of a matrix: places `[K, axes]` and values `[K]`."""
        axes = len(shape)
        places, values = [], []
        for _ in range(self.count(f"the number of entries of {wanted}")):
            words = self.words(wanted, axes + 1)
            places.append([self._index(word, size, wanted) for word, size in zip(words, shape, strict=False)])
            value = self._number(words[axes], wanted)
            if not np.isfinite(value):
                raise self.error(f"{wanted} has {value}")
            values.append(value)
        return np.array(places, np.int64).reshape(-1, axes), np.array(values)

    def names(self, wanted: str, letter: str, size: int) -> tuple[str, ...]:
        """Names, of which those that are not given are a letter and the index."""
        names = [f"{letter}{i + 1}" for i in range(size)]
        for _ in range(self.count(f"the number of names of {wanted}")):
            place, name = self.words(f"names of {wanted}", 2)[:2]
            names[self._index(place, size, f"names of {wanted}")] = name
        return tuple(names)
