"""A certificate file's fields: what is claimed, and of what."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checker.archive import Archive, Unreadable
from solvers.checker.problem import Problem, exact_integers
from solvers.checker.rounding import Array

FORMAT = "cbs certificate 1"
COUNTS = ("problem", "row", "prune", "nodes", "vectors", "splits", "pairs")
INTEGERS = (*COUNTS, "entry", "pruned", "kept", "vector", "root", "split", "pair")
NUMBERS = ("value", "bound", "d", "u", "claim", "cross", "price")
KINDS = {
    "format": "U", "shared": "b", "digest": "U", "mask": "b",
    **dict.fromkeys(INTEGERS, "iu"), **dict.fromkeys(NUMBERS, "f"),
}  # fmt: skip
"""Kinds of types of the fields that every file has."""
ARRAYS = ("d", "root", "entry", "pruned", "kept", "vector", "split", "u", "claim", "pair", "cross", "price")
"""Those that every proof has a piece of."""
IMAGES = ("image_problem", "image", "image_claim")
"""Those of bounds in the images of factors; a file may do without."""
CROSSING = "crossing"
"""Which splits off-diagonal entries are of; a file may do without, and they are of a proof's first."""
MOST = 8
"""Proofs about one row and pruned count, at most."""
INFLATION = 64
"""How many times its size a file may declare beside masks, whose sizes the problems say: nothing else of a
certificate repeats itself so often."""


@dataclass(frozen=True)
class Claim:
    """One proof of a file; docs/certificates.md says what its fields mean.

    Attributes:
        problem: index of the problem's file.
        row: the row of decisions.
        prune: pruned count of a row whose budget is shared; else -1.
        d: `[Q, g, n]`.
        root: `[Q, n]`, those that are no fixing as 2 or -2.
        entry, pruned, kept, vector: `[T]`.
        split: `[V]`.
        u: `[V, g, n, c]`.
        claim: `[T]`.
        pair: `[E, 2]` places of entries of splits off their diagonals, split by split.
        cross: `[E]` these entries.
        price: `[V, pools]` of keeping an entry; empty without such entries.
        crossing: `[Q]` how many of these entries a split has; they sum to E.
    """

    problem: int
    row: int
    prune: int
    d: Array
    root: NDArray[np.int8]
    entry: NDArray[np.int64]
    pruned: NDArray[np.int64]
    kept: NDArray[np.int64]
    vector: NDArray[np.int64]
    split: NDArray[np.int64]
    u: NDArray[np.floating]
    claim: Array
    pair: NDArray[np.int64]
    cross: Array
    price: Array
    crossing: NDArray[np.int64]


@dataclass(frozen=True)
class ImageClaim:
    """A bound on a whole problem by a point in the image of its factor.

    Attributes:
        problem: index of the problem's file.
        v: `[m, N]`.
        claim: the bound.
    """

    problem: int
    v: Array
    claim: float


@dataclass(frozen=True)
class Certificate:
    """A certificate file's fields, of the right types and lengths; whether they are true is another question.

    Attributes:
        shared: whether all problems share one budget, the sum of their own.
        digest: of every problem.
        mask: of every problem, `[m, n]`, True where pruned.
        value: of every mask.
        bound: on the sum of the values.
        proofs: in any order.
        images: at most one a problem, which then needs no other proof.
    """

    shared: bool
    digest: tuple[str, ...]
    mask: tuple[NDArray[np.bool_], ...]
    value: Array
    bound: float
    proofs: tuple[Claim, ...]
    images: tuple[ImageClaim, ...] = ()


def read_digests(path: str | os.PathLike[str]) -> tuple[Archive, tuple[str, ...]]:
    """A certificate file, and the digests of the problems that it is about.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    archive = Archive(path, "certificate")
    try:
        _check_declared(archive)
        form = str(archive.read("format"))
        if form != FORMAT:
            raise ValueError(f"format is {form!r:.60}, not {FORMAT!r}")
        return archive, tuple(archive.read("digest").tolist())
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(f"{archive.name}: {error}") from None


def parse_certificate(archive: Archive, problems: Sequence[Problem]) -> Certificate:
    """A certificate about given problems, whose shapes say how its arrays are to be cut.

    Every length is judged before what it is the length of is read.

    Raises:
        ValueError: one line that names the file, if the lengths do not fit.
    """
    try:
        return _parse(archive, problems)
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(f"{archive.name}: {error}") from None


def _check_declared(archive: Archive) -> None:
    declared = archive.declared
    for name in KINDS:
        if name not in declared:
            raise ValueError(f"field {name!r} is missing")
    for name, field in declared.items():
        if name not in KINDS and name not in IMAGES and name != CROSSING:
            raise ValueError(f"unknown field {name!r:.40}")
        if name in KINDS and field.dtype.kind not in KINDS[name]:
            raise ValueError(f"field {name!r} holds {field.dtype}")
        if name in ("format", "shared") and field.shape:
            raise ValueError(f"field {name!r} has shape {field.shape}, not one entry")
    if len(declared["digest"].shape) != 1:
        raise ValueError("field 'digest' must list one digest a problem")
    total = sum(field.size for name, field in declared.items() if name != "mask")
    if total > INFLATION * archive.size + (1 << 20):
        raise ValueError(f"it declares {total} bytes, in a file of {archive.size}")


def _parse(archive: Archive, problems: Sequence[Problem]) -> Certificate:
    declared = archive.declared
    if declared["value"].shape != (len(problems),) or declared["bound"].shape != ():
        raise ValueError(f"need a bound, and {len(problems)} values")
    sizes = [problem.weights.size for problem in problems]
    masks = [
        part.reshape(problem.weights.shape)
        for problem, part in zip(problems, _read(archive, "mask", sizes), strict=True)
    ]
    proofs = math.prod(declared["problem"].shape)
    for name in COUNTS:
        if declared[name].shape != (proofs,):
            raise ValueError(f"field {name!r} has shape {declared[name].shape} for {proofs} proofs")
    most = sum(MOST * problem.m * (problem.n + 1) for problem in problems)
    if proofs > most:
        raise ValueError(f"field 'problem' has {proofs} entries, more than {most}")
    counts = {name: exact_integers(archive.read(name), name) for name in COUNTS}
    if ((counts["problem"] < 0) | (counts["problem"] >= len(problems))).any():
        raise ValueError("a proof is about a problem that is not there")
    if min(counts[name].min(initial=0) for name in COUNTS[3:]) < 0:
        raise ValueError("a proof has a negative number of nodes, vectors, splits or pairs")
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in ARRAYS}
    for i, p in enumerate(counts["problem"].tolist()):
        g, n, c = shape_of(problems[p])
        T, V, Q, E = (int(counts[name][i]) for name in COUNTS[3:])
        parts = {
            "d": (Q, g, n), "root": (Q, n), "split": (V,), "u": (V, g, n, c), "pair": (E, 2), "cross": (E,),
            "price": (V, len(problems[p].pools()[0]) if E else 0),
        }  # fmt: skip
        for name in ARRAYS:
            shapes[name].append(parts.get(name, (T,)))
    cut = {
        name: [
            part.reshape(shape)
            for part, shape in zip(
                _read(archive, name, [math.prod(s) for s in shapes[name]]), shapes[name], strict=True
            )
        ]
        for name in ARRAYS
    }
    cut[CROSSING] = _crossing(archive, counts["splits"], counts["pairs"])
    return Certificate(
        bool(archive.read("shared")), tuple(archive.read("digest").tolist()), tuple(masks),
        archive.read("value").astype(np.float64), float(archive.read("bound")),
        tuple(
            Claim(p, row, prune, *(cut[name][i] for name in (*ARRAYS, CROSSING)))
            for i, (p, row, prune) in enumerate(
                zip(*(counts[name].tolist() for name in COUNTS[:3]), strict=True)
            )
        ),
        _images(archive, problems),
    )  # fmt: skip


def _crossing(
    archive: Archive, splits: NDArray[np.int64], pairs: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """How many off-diagonal entries every split of every proof has."""
    if CROSSING not in archive.declared:
        found = [np.zeros(Q, np.int64) for Q in splits.tolist()]
        for part, E in zip(found, pairs.tolist(), strict=True):
            part[:1] = E
        return found
    if archive.declared[CROSSING].dtype.kind not in "iu":
        raise ValueError(f"field {CROSSING!r} must hold whole numbers")
    found = _read(archive, CROSSING, splits.tolist())
    for part, E in zip(found, pairs.tolist(), strict=True):
        if ((part < 0) | (part > E)).any() or part.sum() != E:
            raise ValueError(
                f"field {CROSSING!r} does not say which splits the {E} entries of a proof are of"
            )
    return found


def _images(archive: Archive, problems: Sequence[Problem]) -> tuple[ImageClaim, ...]:
    declared = archive.declared
    given = [name for name in IMAGES if name in declared]
    if not given:
        return ()
    if len(given) < len(IMAGES):
        raise ValueError(f"fields {', '.join(IMAGES)} go together, got {', '.join(given)}")
    which, image, claim = (declared[name] for name in IMAGES)
    if which.dtype.kind not in "iu" or claim.dtype.kind != "f" or image.dtype.kind != "f":
        raise ValueError("'image_problem' must hold whole numbers, 'image' and 'image_claim' float64")
    if len(which.shape) != 1 or claim.shape != which.shape or which.shape[0] > len(problems):
        raise ValueError("need one claim for every problem of 'image_problem', each there once")
    index = exact_integers(archive.read("image_problem"), "image_problem").tolist()
    if len(set(index)) < len(index):
        raise ValueError("need one claim for every problem of 'image_problem', each there once")
    shapes = []
    for i in index:
        factor = problems[i].factor if 0 <= i < len(problems) else None
        if factor is None:
            raise ValueError("'image_problem' names a problem that is not there, or has no factor")
        shapes.append((problems[i].m, len(factor)))
    parts = _read(archive, "image", [m * N for m, N in shapes])
    return tuple(
        ImageClaim(i, part.reshape(shape).astype(np.float64), claim)
        for i, part, shape, claim in zip(
            index, parts, shapes, archive.read("image_claim").astype(np.float64).tolist(), strict=True
        )
    )


def shape_of(problem: Problem) -> tuple[int, int, int]:
    """Curvatures, decisions and right-hand sides of a piece of a problem."""
    stacked = problem.hessian is not None and problem.hessian.ndim == 3
    if not problem.shared or not problem.refit:
        return 1, problem.n, 1
    return (problem.m, problem.n, 1) if stacked else (1, problem.n, problem.m)


def _read(archive: Archive, name: str, lengths: Sequence[int]) -> list[NDArray[Any]]:
    """An array's pieces of given lengths, one after another; its length is judged first."""
    declared = math.prod(archive.declared[name].shape)
    if declared != sum(lengths):
        raise ValueError(f"field {name!r} has {declared} entries, not {sum(lengths)}")
    flat = archive.read(name).ravel()
    if name == "root":
        flat = np.clip(exact_integers(flat, name), -2, 2).astype(np.int8)
    elif name in INTEGERS or name == CROSSING:
        flat = exact_integers(flat, name)
    elif name in NUMBERS and name != "u":
        flat = flat.astype(np.float64)
    ends = itertools.accumulate(lengths, initial=0)
    return [flat[a:b] for a, b in itertools.pairwise(ends)]
