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

from solvers.checker.archive import read_archive
from solvers.checker.problem import Problem
from solvers.checker.rounding import Array

FORMAT = "cbs certificate 1"
COUNTS = ("problem", "row", "prune", "nodes", "vectors", "splits", "pairs")
INTEGERS = (*COUNTS, "entry", "pruned", "kept", "vector", "root", "split", "pair")
NUMBERS = ("value", "bound", "d", "u", "claim", "cross", "price")
ARRAYS = ("d", "root", "entry", "pruned", "kept", "vector", "split", "u", "claim", "pair", "cross", "price")
"""Those that every proof has a piece of."""
IMAGES = ("image_problem", "image", "image_claim")
"""Those of bounds in the images of factors; a file may do without."""


@dataclass(frozen=True)
class Claim:
    """One proof of a file; docs/certificates.md says what its fields mean.

    Attributes:
        problem: index of the problem's file.
        row: the row of decisions.
        prune: pruned count of a row whose budget is shared; else -1.
        d: `[Q, g, n]`.
        root: `[Q, n]`.
        entry, pruned, kept, vector: `[T]`.
        split: `[V]`.
        u: `[V, g, n, c]`.
        claim: `[T]`.
        pair: `[E, 2]` places of entries of the split off its diagonal.
        cross: `[E]` these entries.
        price: `[pools]` of keeping an entry; empty without such entries.
    """

    problem: int
    row: int
    prune: int
    d: Array
    root: NDArray[np.int64]
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


def read_digests(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """A certificate file's arrays, and the digests of the problems that it is about.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    fields = read_archive(path, "certificate")
    name = f"certificate {os.fspath(path)!r}"
    for field in ("format", "shared", "digest", "mask", *INTEGERS, *NUMBERS):
        if field not in fields:
            raise ValueError(f"{name}: field {field!r} is missing")
        kind = (
            "iu"
            if field in INTEGERS
            else "f"
            if field in NUMBERS
            else "b"
            if field in ("shared", "mask")
            else "U"
        )
        if fields[field].dtype.kind not in kind:
            raise ValueError(f"{name}: field {field!r} holds {fields[field].dtype}")
    if str(fields["format"]) != FORMAT:
        raise ValueError(f"{name}: format is {str(fields['format'])!r}, not {FORMAT!r}")
    return fields, tuple(str(digest) for digest in fields["digest"].ravel())


def parse_certificate(fields: dict[str, NDArray[Any]], problems: Sequence[Problem]) -> Certificate:
    """A certificate about given problems, whose shapes say how its arrays are to be cut.

    Raises:
        ValueError: if the lengths do not fit.
    """
    whole: dict[str, NDArray[Any]] = {name: fields[name].astype(np.int64).ravel() for name in INTEGERS}
    whole |= {name: fields[name].astype(np.float64).ravel() for name in ("d", "claim", "cross", "price")}
    counts = [problem.weights.size for problem in problems]
    masks = [
        part.reshape(problem.weights.shape)
        for problem, part in zip(problems, _cut(fields["mask"], counts, "mask"), strict=True)
    ]
    proofs = len(whole["problem"])
    for name in COUNTS:
        if len(whole[name]) != proofs:
            raise ValueError(f"field {name!r} has {len(whole[name])} entries for {proofs} proofs")
    if fields["value"].shape != (len(problems),) or fields["bound"].shape != ():
        raise ValueError(f"need a bound, and {len(problems)} values")
    if ((whole["problem"] < 0) | (whole["problem"] >= len(problems))).any():
        raise ValueError("a proof is about a problem that is not there")
    if min(whole[name].min(initial=0) for name in COUNTS[3:]) < 0:
        raise ValueError("a proof has a negative number of nodes, vectors, splits or pairs")
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in ARRAYS}
    for i, p in enumerate(whole["problem"].tolist()):
        g, n, c = _shape(problems[p])
        T, V, Q, E = (int(whole[name][i]) for name in COUNTS[3:])
        parts = {
            "d": (Q, g, n), "root": (Q, n), "split": (V,), "u": (V, g, n, c), "pair": (E, 2), "cross": (E,),
            "price": (problems[p].pools()[0] if E else 0,),
        }  # fmt: skip
        for name in ARRAYS:
            shapes[name].append(parts.get(name, (T,)))
    cut = {
        name: [
            part.reshape(shape)
            for part, shape in zip(
                _cut(whole.get(name, fields[name]), [math.prod(s) for s in shapes[name]], name),
                shapes[name],
                strict=True,
            )
        ]
        for name in ARRAYS
    }
    return Certificate(
        bool(fields["shared"]), tuple(str(s) for s in fields["digest"].ravel()), tuple(masks),
        fields["value"].astype(np.float64), float(fields["bound"]),
        tuple(
            Claim(p, row, prune, *(cut[name][i] for name in ARRAYS))
            for i, (p, row, prune) in enumerate(
                zip(*(whole[name].tolist() for name in COUNTS[:3]), strict=True)
            )
        ),
        _images(fields, problems),
    )  # fmt: skip


def _images(fields: dict[str, NDArray[Any]], problems: Sequence[Problem]) -> tuple[ImageClaim, ...]:
    given = [name for name in IMAGES if name in fields]
    if not given:
        return ()
    if len(given) < len(IMAGES):
        raise ValueError(f"fields {', '.join(IMAGES)} go together, got {', '.join(given)}")
    which, claims = fields["image_problem"].ravel(), fields["image_claim"].ravel()
    if which.dtype.kind not in "iu" or claims.dtype.kind != "f" or fields["image"].dtype.kind != "f":
        raise ValueError("'image_problem' must hold whole numbers, 'image' and 'image_claim' float64")
    if len(claims) != len(which) or len(np.unique(which)) < len(which):
        raise ValueError("need one claim for every problem of 'image_problem', each there once")
    shapes = []
    for i in which.tolist():
        if not 0 <= i < len(problems) or problems[i].factor is None:
            raise ValueError("'image_problem' names a problem that is not there, or has no factor")
        factor = problems[i].factor
        assert factor is not None
        shapes.append((problems[i].m, len(factor)))
    parts = _cut(fields["image"].astype(np.float64), [m * N for m, N in shapes], "image")
    return tuple(
        ImageClaim(i, part.reshape(shape), claim)
        for i, part, shape, claim in zip(which.tolist(), parts, shapes, claims.tolist(), strict=True)
    )


def _shape(problem: Problem) -> tuple[int, int, int]:
    """Curvatures, decisions and right-hand sides of a piece of a problem."""
    stacked = problem.hessian is not None and problem.hessian.ndim == 3
    if problem.kind != "columns" or not problem.refit:
        return 1, problem.n, 1
    return (problem.m, problem.n, 1) if stacked else (1, problem.n, problem.m)


def _cut(array: NDArray[Any], lengths: Sequence[int], name: str) -> list[NDArray[Any]]:
    if array.size != sum(lengths):
        raise ValueError(f"field {name!r} has {array.size} entries, not {sum(lengths)}")
    ends = itertools.accumulate(lengths, initial=0)
    flat = array.ravel()
    return [flat[a:b] for a, b in itertools.pairwise(ends)]
