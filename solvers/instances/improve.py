"""Improving what is known of a library's instances by our own solvers, for as long as one likes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from solvers.control import Callback
from solvers.instances.evidence import SLACK, by_whom, certified, value_of, verified
from solvers.instances.item import NETWORK, Item, Known
from solvers.instances.library import Library
from solvers.problem import Mask
from solvers.solution import Status
from solvers.solve import solve
from solvers.together import solve_together

CERTIFIED = 20_000
"""Weights up to which a certificate is asked for."""
LARGEST = 24_000
"""Bytes of a certificate that is kept, compressed; what a larger one proves stays a solver's word."""


@dataclass(frozen=True)
class Improved:
    """What a search did for an instance.

    Attributes:
        before: what was known.
        after: what is known now.
        status: why the search stopped.
    """

    before: Known
    after: Known
    status: Status


def improve(
    library: Library,
    item: Item,
    *,
    solver: str = "auto",
    time_limit: float | None = None,
    seed: int = 0,
    certify: bool = True,
    callback: Callback | None = None,
) -> Improved:
    """Search an instance from its best mask on, and write down what got better.

    Args:
        library: that has it.
        item: the instance.
        solver: name of the solver; a network's budget is for `solve_together` alone.
        time_limit: seconds of wall time.
        seed: of every random choice.
        certify: whether to ask for a certificate, of instances up to `CERTIFIED` weights. One that is small,
            and that the checker verifies, is kept.
        callback: called with the search's progress.

    Raises:
        ValueError: for a solver or limit that is none, or data that can't be read.
    """
    problems, known, masks = item.problems(), item.known, item.masks()
    certify = certify and sum(problem.W.size for problem in problems) <= CERTIFIED
    options: dict[str, Any] = {
        "time_limit": time_limit,
        "seed": seed,
        "callback": callback,
        "certify": certify,
    }
    found: Any
    if item.budget == NETWORK:
        found, name = solve_together(problems, **options), "solve_together"
        better: list[Mask] = list(found.masks)
    else:
        warm = None if masks is None else masks[0]
        found, name = solve(problems[0], solver, warm_start=warm, **options), solver
        name = found.solver if found.solver == solver else f"{solver}: {found.solver}"
        better = [found.mask]
    value, better = value_of(item, better)
    by = f"cbs {name}"
    after, taken = replace(known, seconds=round(known.seconds + found.seconds, 2)), None
    # a mask that was lost is replaced by one as good
    room = -1e-12 if masks is not None else SLACK
    if known.value is None or value < known.value + room * abs(known.value):
        after, taken = replace(after, value=value, value_by=by_whom(by)), better
    assert after.value is not None
    bound = min(float(found.bound), after.value)
    margin = 0.0 if known.certificate is None else 1e-7  # a proof is worth more than a last digit
    if bound > float("-inf") and (known.bound is None or bound > known.bound + margin * abs(known.bound)):
        after = replace(after, bound=bound, bound_by=by_whom(by), certificate=None)
    proof = None
    if found.certificate is not None and after.bound is not None:
        after, proof = _with_certificate(library, item, after, found.certificate, by)
    after = library.record(item.name, after, taken, before=known, proof=proof)
    return Improved(known, after, found.status)


def _with_certificate(
    library: Library, item: Item, known: Known, certificate: Any, by: str
) -> tuple[Known, bytes | None]:
    """What is known with a certificate, if it is small, proves about as much, and the checker agrees."""
    assert known.bound is not None
    lacks = known.bound - certificate.bound
    if lacks > 1e-6 * abs(known.bound) or (known.certificate is not None and lacks > 0):
        return known, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "certificate.npz"
        certificate.save(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        np.savez_compressed(path, allow_pickle=False, **arrays)
        if path.stat().st_size > LARGEST:
            return known, None
        verdict = verified(item, path)
        return certified(library, known, item.name, verdict.bound, by), path.read_bytes()
