"""`curve()`: what it costs to prune k weights of a row, for every row and every k, between proven bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.allocation import allocate
from solvers.bounds.split import WIDE
from solvers.budget import Budget
from solvers.certificate import Certificate, check_certifiable
from solvers.certificate import certify as make_certificate
from solvers.control import Callback, Control, check_limits, interruptible, share_limit
from solvers.exact.branch_and_bound import compile_kernels
from solvers.exact.curves.rows import close_curves, gap_of, start_curves
from solvers.exact.curves.search import CurveSearch
from solvers.exact.enumeration import least_at
from solvers.form.reduction import Reduction, reduce
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.caches import spare_full_disks
from solvers.runtime.tensors import load_torch, tensors_help
from solvers.solution import Status, check_bounds
from solvers.summary import percent, summary


@dataclass(frozen=True)
class Curve:
    """Every row's least cost at every count, enclosed: `lower <= f_r(k) <= values`.

    Attributes:
        values: `[m, n + 1]` loss increase of the best mask found with k entries pruned, n counting the
            columns that may be pruned.
        lower: `[m, n + 1]` no mask with k entries pruned has a smaller one; may be minus infinity.
        gap: that was asked for.
        noise: `[m, n + 1]` width that rounding alone may leave open; where it is wider than the gap, counts
            of few masks are decided by the costs of all, and others are not proven.
        status: why the search stopped; `OPTIMAL` exactly when everything asked for is `proven`.
        seconds: wall time.
        stats: counts and choices.
        certificate: proofs of `lower` that a checker can read, or None.
    """

    values: Array
    lower: Array
    gap: float
    noise: Array
    status: Status
    seconds: float
    stats: Mapping[str, Any] = field(default_factory=dict)
    certificate: Certificate | None = None
    _order: NDArray[np.int64] = field(kw_only=True, repr=False)
    _chosen: Mapping[tuple[int, int], Mask] = field(kw_only=True, repr=False)
    _prunable: NDArray[np.int64] = field(kw_only=True, repr=False)
    _columns: int = field(kw_only=True, repr=False)

    def __repr__(self) -> str:
        m, width = self.values.shape
        return summary(
            f"Curve of {m} rows, 0 to {width - 1} pruned of each: {self.status.value}, {self.status.remedy}",
            f"{int(self.proven.sum())} of {m * width} proven to {percent(self.gap)}, up to rounding",
            f"{self.seconds:.2f} s",
        )

    @property
    def proven(self) -> NDArray[np.bool_]:
        """`[m, n + 1]` where `values - lower <= gap |values|`; noise above the gap proves nothing."""
        return np.asarray(self.values - self.lower <= self.gap * np.abs(self.values))

    def masks(self, counts: ArrayLike) -> Mask:
        """`[m, columns]` the best masks found with `counts[r]` (or one number) entries of each row pruned.

        Raises:
            ValueError: for a count out of range.
        """
        m, n = self._order.shape
        wanted = np.broadcast_to(np.asarray(counts), (m,))
        if wanted.dtype.kind not in "iu" or (wanted < 0).any() or (wanted > n).any():
            raise ValueError(
                f"counts must be whole numbers between 0 and {n}, got {np.asarray(counts).tolist()}"
            )
        mask = np.zeros((m, self._columns), dtype=bool)
        for r, k in enumerate(wanted.tolist()):
            if (r, k) in self._chosen:
                mask[r, self._prunable] = self._chosen[r, k]
            else:
                mask[r, self._prunable[self._order[r, :k]]] = True
        return mask


def curve(
    problem: SubsetProblem,
    *,
    gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    certify: bool = False,
    counts: Iterable[int] | None = None,
    device: str = "cpu",
) -> Curve:
    """Value and bound of every row for every number of pruned weights.

    Joint and selection, with gradient, a Hessian a row, and movable columns. The budget's numbers do not
    matter, but rows must be free of each other but for what they share: `per_row` or `per_layer`. Rows of
    more than 160 inputs are not searched: they get the greedy curve and the relaxation's bounds.

    Neighbouring counts share their work: the split of a count starts Newton's method at the next one, masks
    are a move apart, branching learns from before, a bound at k holds for more than k in the joint variant,
    and the point of a root relaxation bounds all counts.

    Args:
        problem: whose rows.
        gap: stop at a count once `(value - bound) / |value|` is proven to be at most this.
        time_limit: seconds of wall time; None for no limit. Compiling is not counted.
        seed: of every random choice.
        callback: called now and then with a `Progress` of the values and bounds summed over all rows and
            counts; return True to stop.
        certify: also give a `Certificate` of every bound, which needs a `per_layer` budget; its mask is the
            best that the curves give for that. The search gets four fifths
            of a time limit, and what is left to certify the rest; Ctrl-C leaves it out. None, and the
            reason in `stats["certificate"]`, if the curvature is too close to singular for rigorous
            arithmetic.
        counts: at which counts to search; all by default. The others get what follows for them.
        device: torch device for batched array work.

    Returns:
        A `Curve`. After a time limit or Ctrl-C, what was found: bounds are valid all the same.

    Raises:
        ValueError: a bad limit or count, or a budget of another kind.
    """
    check_limits(time_limit, gap, seed)
    if problem.budget.kind not in ("per_row", "per_layer"):
        raise ValueError(
            f"curves are of rows that stand alone: budget {problem.budget.kind!r} ties entries together"
        )
    if certify and problem.budget.kind != "per_layer":
        raise ValueError(
            "certify needs a per_layer budget: only there a file can say how many each row prunes"
        )
    if certify:
        check_certifiable(problem)
    n = len(problem.prunable)
    wanted = _counts(counts, n)
    if tensors_help(problem, device):
        load_torch()
    spare_full_disks()
    compile_kernels(problem)
    start = time.perf_counter()
    reduction = reduce(problem)
    offsets = reduction.offsets
    deadline, late = share_limit(start, time_limit, certify)
    control = Control(
        gap=gap, seed=seed, device=device, callback=callback, started=start, deadline=deadline,
        offset=float(offsets.sum()) * (n + 1), margin=reduction.margin * (n + 1),
        noise=reduction.problem.rounding * (n + 1), floor=problem.floor, certify=certify,
    )  # fmt: skip
    with interruptible(control):
        rows = start_curves(reduction.problem, control)
        own = {id(row): float(offset) for row, offset in zip(rows, offsets, strict=True)}

        def progress() -> None:
            value, bound = (
                float(sum(getattr(row, end).sum() for row in rows)) for end in ("values", "lower")
            )
            if not control.trace or control.told(bound) > control.trace[-1].bounds.lower:
                control.report(value, bound, sum(row.nodes for row in rows))

        progress()
        reason = close_curves(
            rows, [wanted if n <= WIDE else []] * len(rows),
            lambda row, k: gap_of(row, k, gap, own[id(row)], reduction.margin), control.stopped, progress,
        )  # fmt: skip
        progress()
    return _judged(problem, reduction, rows, offsets, wanted, reason, control, late)


def _judged(
    problem: SubsetProblem,
    reduction: Reduction,
    rows: Sequence[CurveSearch],
    offsets: Array,
    wanted: Sequence[int],
    reason: Status,
    control: Control,
    late: Callable[[], object],
) -> Curve:
    """The curve in the original's terms, its values recomputed from it where rows were searched."""
    n, margin = rows[0].n, reduction.margin
    draft = Curve(
        np.stack([row.values for row in rows]) + offsets[:, None],
        np.stack([row.lower for row in rows]) + offsets[:, None] - margin,
        control.gap, np.stack([np.maximum(row.left, 2.0 * row.noise) for row in rows]) + 2.0 * margin,
        reason, 0.0,
        _order=np.stack([row.order for row in rows]),
        _chosen={(r, k): mask for r, row in enumerate(rows) for k, mask in row.chosen.items()},
        _prunable=problem.prunable, _columns=problem.n,
    )  # fmt: skip
    values = draft.values
    if n <= WIDE:
        values = np.stack([_row_values(problem, draft.masks(k)) for k in range(n + 1)], axis=1)
    seconds = control.seconds
    stats: dict[str, Any] = {
        "nodes": sum(row.nodes for row in rows),
        "trees": sum(row.trees for row in rows),
        "search_seconds": sum(row.seconds for row in rows),
    }
    certificate = None
    if control.certify:
        counts = allocate(list(values), int(problem.pools.prune[0]))
        proofs = [proof for row in rows for proof in row.proofs()]
        try:
            certificate = make_certificate(
                problem, draft.masks(counts), proofs, device=control.device, stopped=late
            )
        except KeyboardInterrupt:  # the curve is there; only its proofs are not
            certificate = None
        except ValueError as error:
            stats["certificate"] = str(error)
    check_bounds(draft.lower, values, problem.scale)
    found = replace(
        draft, values=values, lower=np.minimum(np.maximum(draft.lower, problem.floor), values),
        seconds=seconds, stats=stats, certificate=certificate,
    )  # fmt: skip
    if reason is Status.OPTIMAL:
        found = _decided(problem, found, wanted, control)
    done = bool(found.proven[:, wanted].all())
    if done or reason is Status.OPTIMAL:
        reason = Status.OPTIMAL if done else Status.FEASIBLE
    return replace(found, status=reason)


def _decided(problem: SubsetProblem, found: Curve, wanted: Sequence[int], control: Control) -> Curve:
    """Counts that rounding left open, where their masks are few: by the costs of all of them."""
    values, lower, chosen = found.values.copy(), found.lower.copy(), dict(found._chosen)
    for r, k in np.argwhere(~found.proven).tolist():
        best = least_at(problem, r, k, control.stopped) if k in wanted else None
        if best is not None:
            values[r, k], chosen[r, k] = best.value, best.mask[0, problem.prunable]
            lower[r, k] = min(max(lower[r, k], best.bound), best.value)
    return replace(found, values=values, lower=lower, _chosen=chosen)


def _row_values(problem: SubsetProblem, mask: Mask) -> Array:
    """`[m]` values of a mask, whatever it prunes in each row."""
    return problem.with_budget(Budget.per_row(mask.sum(axis=1).tolist())).row_values(mask)


def _counts(counts: Iterable[int] | None, n: int) -> list[int]:
    wanted = list(range(n + 1)) if counts is None else sorted({int(k) for k in counts})
    if wanted and not 0 <= wanted[0] <= wanted[-1] <= n:
        raise ValueError(f"counts must lie between 0 and {n}, got {wanted[0]} to {wanted[-1]}")
    return wanted
