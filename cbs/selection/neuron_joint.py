"""Neurons by the joint problem: which columns go at least cost where neurons feed, as survivors move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cbs.curvature.base import Gram
from cbs.selection.base import Job, NeuronChoice, NeuronSelection

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.network.neurons import Neurons
    from cbs.quadratic import Quadratic
    from cbs.request import Request
    from solvers import Solution, Solver, SubsetProblem
    from solvers.hessian import Array
    from solvers.problem import Mask


@dataclass(frozen=True)
class NeuronSolve(NeuronSelection):
    """Prune the neurons whose columns a solver finds to cost least in the layers that they feed.

    The problem of a group is that of its consumers together: their layer Grams in blocks, their weights in
    blocks, and a unit for every neuron that holds its columns in all of them (see `Budget.columns`). Groups
    are solved from the last to the first; a row of a consumer whose own neuron is gone costs nothing. Where
    all groups share one budget, how many each gives is decided exactly from greedy curves, whose rows count
    by their `E[(dL/da_r)^2]`. Value, bound and gap of every group are in its choice's stats.

    Attributes:
        solver: a name of `solvers.available()`, or a `Solver`; `auto` is the request's, whose own `auto` is
            branch and bound up to 128 neurons that feed one column each, else OSSCAR's swaps and a bound.
    """

    solver: str | Solver = "auto"

    searches: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("inputs",)

    @property
    def words(self) -> str:
        """See `Selection.words`."""
        named = self.solver if isinstance(self.solver, str) else self.solver.settings()
        return f"columns of what they feed, by {'any solver' if named == 'auto' else named}"

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Selection.refuses`."""
        if isinstance(curvature, Gram):
            return None
        return f"NeuronSolve weighs columns of layers' inputs, which takes Gram(), not {curvature.words}"

    def searcher(self, request: Request) -> Solver:
        """See `Selection.searcher`."""
        from solvers import get_solver

        return get_solver(request.solver if self.solver == "auto" else self.solver)

    def able(self, curvature: Curvature, request: Request) -> str | None:
        """See `Selection.able`."""
        solver = self.searcher(request)
        if "joint" not in solver.variants or "columns" not in solver.budgets:
            return f"solver {solver.name!r} does not do columns in the joint variant; take 'auto' or 'osscar'"
        return None

    def choose_neurons(
        self, job: Job, groups: Sequence[Neurons], counts: Sequence[int] | int
    ) -> list[NeuronChoice]:
        """See `NeuronSelection.choose_neurons`."""
        models = {model.name or "": model for model in job.quadratics}
        each = self._shared(job, groups, counts, models) if isinstance(counts, int) else counts
        dead: dict[str, Mask] = {}
        found: dict[int, NeuronChoice] = {}
        for g in reversed(range(len(groups))):
            group = groups[g]
            problem = columns_problem(group, models, each[g], job.network.gone[g], dead)
            solution = self._solved(job, problem, group.name, g, 1.0 / (g + 1))
            removed = removed_of(problem, solution.mask, job.network.gone[g])
            for name, rows in group.rows.items():
                dead[name] = dead.get(name, np.zeros(len(models[name].W), dtype=bool))
                dead[name][rows[removed]] = True
            stats = {
                "value": solution.value,
                "bound": solution.bound if np.isfinite(solution.bound) else None,
                "gap": solution.gap if np.isfinite(solution.gap) else None,
                "status": solution.status.value,
            }
            found[g] = NeuronChoice(group, removed, solution.solver, solution, stats)
        job.stats["neurons"] = {groups[g].name: found[g].stats for g in range(len(groups))}
        return [found[g] for g in range(len(groups))]

    def _solved(self, job: Job, problem: SubsetProblem, name: str, index: int, share: float) -> Solution:
        """A group's columns, by the solver; by OSSCAR's swaps where that does not do units."""
        from solvers import get_solver
        from solvers.solve import check_support

        job.watch.tell("select", name, index)
        solver = self.solver if self.solver != "auto" else job.request.solver
        try:
            check_support(get_solver(solver), problem)
        except ValueError:
            solver = "osscar"
        if job.watch.interrupted:
            solver = "greedy"
        return job.watch.solve(problem, solver, stage="select", layer=name, index=index, share=share)

    def _shared(
        self, job: Job, groups: Sequence[Neurons], count: int, models: Mapping[str, Quadratic]
    ) -> list[int]:
        """How many neurons each group gives of one budget: an exact allocation of greedy curves."""
        from cbs.curvature.output import row_scales
        from solvers.allocation import allocate
        from solvers.form.reduction import reduce
        from solvers.heuristics.units import greedy_curve

        names = [layer.name for layer in job.network.layers]
        scales = dict(zip(names, row_scales(job.network), strict=True))
        curves = []
        for group, gone in zip(groups, job.network.gone, strict=True):
            job.watch.tell("curves", group.name)
            problem = columns_problem(group, models, int(gone.sum()), gone, {}, scales)
            whole = greedy_curve(reduce(problem).problem, keep=1, stopped=job.watch.control.stopped)
            curves.append(np.append(np.full(int(gone.sum()), np.inf), whole))
        return [int(k) for k in allocate(curves, count)]


def columns_problem(
    group: Neurons,
    models: Mapping[str, Quadratic],
    count: int,
    gone: Mask,
    dead: Mapping[str, Mask],
    scales: Mapping[str, Array] | None = None,
) -> SubsetProblem:
    """The joint problem of a group's neurons, in all layers that they feed.

    Args:
        group: the neurons.
        models: of the layers by name, with their Grams.
        count: neurons to prune, with those that are gone.
        gone: `[count]`, True for neurons that are gone already: they have no columns in the problem.
        dead: `[m]` by layer, True for rows that cost nothing.
        scales: `[m]` by layer, factors of the rows; None for ones.

    Returns:
        Columns of the neurons that are left, `width` neighbours each; after them what else a consumer has:
        columns of other neurons, and its bias, which move and are never pruned. Single weights that were
        pruned before count as weights that may move.
    """
    from scipy.linalg import block_diag

    from solvers import Budget, SubsetProblem

    there = np.flatnonzero(~gone)
    width = sum(columns.shape[1] for columns in group.columns.values())
    size = len(there) * width
    weights, grams, own, at = [], [], [], 0
    for name, columns in group.columns.items():
        model, H = models[name], models[name].H
        assert isinstance(H, np.ndarray)
        live = ~dead[name] if name in dead else np.ones(len(model.W), dtype=bool)
        if not live.any():
            live[0] = True
        used = columns[there].ravel()
        others = np.setdiff1d(np.arange(model.W.shape[1]), columns.ravel())
        earlier = model.earlier[0][live].all(axis=0)
        others = others[~np.append(earlier, np.zeros(int(model.bias), dtype=bool))[others]]
        order = np.append(used, others)
        scale = np.ones(len(model.W)) if scales is None else scales[name]
        weights.append(np.sqrt(scale[live])[:, None] * model.W[live][:, order])
        grams.append(H[np.ix_(order, order)])
        part = columns.shape[1]
        own.append(
            (at + np.arange(len(used)).reshape(len(there), part), at + len(used) + np.arange(len(others)))
        )
        at += len(order)
    units = np.concatenate([mine for mine, _ in own], axis=1).ravel()
    rest = np.concatenate([others for _, others in own])
    order = np.append(units, rest)
    W = block_diag(*weights)[:, order]
    H = block_diag(*grams)[np.ix_(order, order)]
    budget = Budget.columns(count - int(gone.sum()), width=width)
    return SubsetProblem(W, H, budget, movable=range(size, len(order)))


def removed_of(problem: SubsetProblem, mask: Mask, gone: Mask) -> Mask:
    """`[count]` the neurons that an answer to `columns_problem` prunes, and those gone already."""
    removed = gone.copy()
    removed[~gone] = mask[0, problem.prunable].reshape(int((~gone).sum()), -1)[:, 0]
    return removed
