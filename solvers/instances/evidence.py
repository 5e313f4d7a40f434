"""What is claimed of an instance, and what is not taken on trust: values are recomputed, proofs checked.

A mask is taken in if its value, recomputed from the numbers, is below the best known. A bound is taken in
only by a certificate that `solvers.checker` verifies for those numbers.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from solvers import checker
from solvers.instances.files import save
from solvers.instances.item import NETWORK, Item, Known
from solvers.instances.library import Library
from solvers.problem import Mask
from solvers.runtime.parallel import one_thread_each
from solvers.summary import number

SLACK = 1e-9
"""How far a value may be from that of another machine, relative to it."""
LARGEST = 1 << 28
"""Bytes of a file with masks."""


@dataclass(frozen=True)
class Taken:
    """What a claim has changed.

    Attributes:
        before: what was known.
        after: what is known now.
    """

    before: Known
    after: Known


def by_whom(who: str) -> str:
    """A name with today's date."""
    return f"{who or 'unnamed'}, {datetime.datetime.now(datetime.UTC).date().isoformat()}"


def value_of(item: Item, masks: Sequence[ArrayLike]) -> tuple[float, list[Mask]]:
    """The loss increase of masks, one a layer, recomputed from the instance's numbers.

    Raises:
        ValueError: in one line, if they do not meet the budget.
    """
    problems = item.problems()
    if len(masks) != len(problems):
        raise ValueError(f"instance {item.name!r} has {len(problems)} layers, {len(masks)} masks were given")
    if item.budget != NETWORK:
        mask = problems[0].check(masks[0])
        return problems[0].value(mask), [mask]
    checked = [np.asarray(mask).astype(bool) for mask in masks]
    total = sum(int(problem.pools.prune[0]) for problem in problems)
    for problem, mask in zip(problems, checked, strict=True):
        if mask.shape != problem.W.shape:
            raise ValueError(f"mask has shape {mask.shape}, the weights {problem.W.shape}")
    if (given := sum(int(mask.sum()) for mask in checked)) != total:
        raise ValueError(f"masks prune {given} weights, the budget {total}")
    counted = (
        problem.with_budget(type(problem.budget).per_layer(int(mask.sum()))).value(mask)
        for problem, mask in zip(problems, checked, strict=True)
    )
    return float(sum(counted)), checked


def read_masks(path: str | os.PathLike[str], item: Item) -> list[Mask]:
    """Masks of a file: what `cbs solve --json` prints, or an `.npz` or `.npy` file of booleans.

    JSON: `pruned` lists the pruned columns of every row, row by row; of several layers, layer by layer one
    after the other. `.npz`: `mask`, or for several layers `mask_0`, `mask_1`, ...

    Raises:
        ValueError: in one line, for a file that can't be read or holds something else.
    """
    path, shapes = Path(path), [problem.W.shape for problem in item.problems()]
    what = f"mask file {str(path)!r}"
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        if path.suffix in (".npz", ".npy"):
            found = np.load(path, allow_pickle=False)
            if isinstance(found, np.ndarray):
                arrays = {"mask": found}
            else:
                with found as file:
                    arrays = {key: file[key] for key in file}
            names = ["mask"] if len(shapes) == 1 else [f"mask_{i}" for i in range(len(shapes))]
            if missing := [name for name in names if name not in arrays]:
                raise ValueError(f"it has no array {missing[0]!r}")
            return [_bits(arrays[name], shape) for name, shape in zip(names, shapes, strict=True)]
        rows = json.loads(path.read_text(encoding="utf-8"))["pruned"]
        if len(shapes) > 1 and len(rows) == len(shapes) and not _flat(rows):
            rows = [row for layer in rows for row in layer]
        return _listed(rows, shapes)
    except OSError as error:
        raise ValueError(f"{what} can't be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, RecursionError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{what} does not hold a mask of {' and '.join(map(str, shapes))} ({str(error)[:80]}); give what "
            "`cbs solve --json` prints, or an .npz with `mask`, True where pruned"
        ) from None


def claim(
    library: Library,
    name: str,
    *,
    masks: Sequence[ArrayLike] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    by: str = "",
) -> Taken:
    """Check a claim about an instance, and take it in.

    Args:
        library: that has the instance.
        name: of the instance.
        masks: better ones, one a layer.
        certificate: file with a proof of a better bound; the mask in it is looked at, too.
        by: who claims it.

    Raises:
        ValueError: in one line: nothing is claimed, the mask misses the budget, the proof does not hold, or
            what is claimed is no better than what is known.
    """
    item = library[name]
    before = after = item.known
    taken: list[Mask] | None = None
    proof: bytes | None = None
    lost = before.value is not None and not _has_masks(item)
    if masks is None and certificate is None:
        raise ValueError("claim a mask, a certificate, or both; neither was given")
    complaints = []
    if masks is not None:
        value, bits = value_of(item, masks)
        _require_sound(item, value)
        if _less(value, before.value) or (lost and _as_good(value, before.value)):
            after, taken = replace(after, value=value, value_by=by_whom(by)), bits
        else:
            complaints.append(f"its value is {number(value)}, the best known {number(before.value or 0.0)}")
    if certificate is not None:
        verdict = verified(item, certificate)
        inside = _certified_masks(certificate, item)
        value, bits = value_of(item, inside)
        if _less(value, after.value) or (lost and taken is None and _as_good(value, after.value)):
            after, taken = replace(after, value=value, value_by=by_whom(by)), bits
        if after.value is not None and verdict.bound > after.value + SLACK * abs(after.value):
            raise ValueError(
                f"instance {name!r}: the certificate proves a bound of {number(verdict.bound)}, above the "
                f"value of a known mask, {number(after.value)}; one of the two is wrong, please report it"
            )
        known = -math.inf if before.bound is None else before.bound
        if verdict.bound > known or (before.certificate is None and verdict.bound >= known):
            after = certified(library, after, name, verdict.bound, by)
            proof = Path(certificate).read_bytes()
        else:
            complaints.append(f"its bound is {number(verdict.bound)}, the best known {number(known)}")
    if after == before and taken is None:
        raise ValueError(f"instance {name!r}: no better than what is known: {'; '.join(complaints)}")
    return Taken(before, library.record(name, after, taken, before=before, proof=proof))


def verified(item: Item, certificate: str | os.PathLike[str]) -> checker.Verdict:
    """What a certificate proves of an instance, by the checker that shares no code with any search.

    Raises:
        ValueError: in one line, if it does not hold, or can't be read.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread_each():
        files = []
        for i, problem in enumerate(item.problems()):
            files.append(Path(folder) / f"{item.name}-{i}.npz")
            save(files[-1], problem)
        try:
            return checker.verify(certificate, *files)
        except checker.Refuted as error:
            told = str(error).replace(f"{folder}{os.sep}", "")
            raise ValueError(f"instance {item.name!r}: the certificate is refuted: {told}") from None


def certified(library: Library, known: Known, name: str, bound: float, by: str) -> Known:
    """What is known with a verified certificate in the place that the library has for it."""
    return replace(known, bound=bound, bound_by=by_whom(by), certificate=library.certificate_path(name).name)


def check(library: Library, item: Item, *, proofs: bool = True) -> list[str]:
    """What is wrong with an instance of a library, a line each; nothing if all holds.

    Its data must have its digest; its mask must meet the budget and cost what the index says; its bound must
    not lie above that; its certificate must prove the bound.

    Args:
        library: that has it.
        item: the instance.
        proofs: whether certificates are verified, which takes longest.
    """
    wrong = []
    try:
        if not item.intact():
            return ["its numbers have another digest"]
        wrong += _other_facts(item)
        masks = item.masks()
    except ValueError as error:
        return [*wrong, str(error)]
    known = item.known
    if known.value is not None and masks is None:
        wrong.append("it has a value without a mask")
    elif masks is not None and known.value is not None:
        try:
            cost, _ = value_of(item, masks)
            if abs(cost - known.value) > SLACK * abs(cost):
                wrong.append(f"its mask costs {cost!r}, not {known.value!r}")
        except ValueError as error:
            wrong.append(f"its mask: {error}")
    value, bound = known.value, known.bound
    if value is not None and bound is not None and bound > value + SLACK * abs(value):
        wrong.append(f"its bound {bound!r} lies above its value {value!r}")
    if known.certificate is not None and proofs:
        path = library.folder / "certificates" / known.certificate
        try:
            verdict = verified(item, path)
            if known.bound is None or verdict.bound < known.bound:
                wrong.append(f"its certificate proves {verdict.bound!r}, not {known.bound!r}")
        except ValueError as error:
            wrong.append(str(error))
    return wrong


def _other_facts(item: Item) -> list[str]:
    """What the index says of an instance's size that its numbers do not."""
    problems = item.problems()
    sizes = {"m": sum(problem.m for problem in problems), "n": max(problem.n for problem in problems)}
    return [
        f"its {field} is {size}, not {getattr(item, field)}"
        for field, size in sizes.items()
        if getattr(item, field) != size
    ]


def _require_sound(item: Item, value: float) -> None:
    """Refuse a value below a proven bound, which can't be."""
    bound = item.known.bound
    if bound is not None and value < bound - SLACK * abs(bound):
        raise ValueError(
            f"instance {item.name!r}: the mask costs {number(value)}, below the best bound known, "
            f"{number(bound)}; one of the two is wrong, please report it"
        )


def _less(value: float, known: float | None) -> bool:
    return known is None or value < known - 1e-12 * abs(known)


def _as_good(value: float, known: float | None) -> bool:
    return known is not None and value <= known + SLACK * abs(known)


def _has_masks(item: Item) -> bool:
    """Whether the masks of an instance are there, and meet its budget."""
    try:
        masks = item.masks()
        return masks is not None and math.isfinite(value_of(item, masks)[0])
    except ValueError:
        return False


def _certified_masks(path: str | os.PathLike[str], item: Item) -> list[Mask]:
    with np.load(path, allow_pickle=False) as file:
        flat = np.asarray(file["mask"], dtype=bool)
    shapes = [problem.W.shape for problem in item.problems()]
    ends = np.cumsum([m * n for m, n in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)]


def _bits(array: Any, shape: tuple[int, ...]) -> Mask:
    if array.shape != shape:
        raise ValueError(f"its shape is {array.shape}")
    if array.dtype.kind not in "bui" or not np.isin(array, (0, 1)).all():
        raise ValueError("it holds more than true and false")
    return np.asarray(array, dtype=bool)


def _flat(rows: Any) -> bool:
    """Whether rows list columns, not lists of columns."""
    return all(isinstance(column, int) for row in rows for column in row)


def _listed(rows: Any, shapes: Sequence[tuple[int, ...]]) -> list[Mask]:
    if not isinstance(rows, list) or len(rows) != sum(m for m, _ in shapes):
        raise ValueError("other rows")
    masks, start = [], 0
    for m, n in shapes:
        mask = np.zeros((m, n), dtype=bool)
        for r, columns in enumerate(rows[start : start + m]):
            if not all(type(column) is int and 0 <= column < n for column in columns):
                raise ValueError("other columns")
            mask[r, columns] = True
        masks.append(mask)
        start += m
    return masks
