"""Selection by a solver: every model is a selection problem, joint or not, for any solver there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cbs.curvature.base import Gram
from cbs.names import check_name
from cbs.selection.base import Choice, Job, WeightSelection

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.quadratic import Quadratic
    from cbs.request import Request
    from cbs.selection.turns import Turn
    from solvers import Budget, Solution, Solver, SubsetProblem
    from solvers.problem import Mask

STAY = {"joint": "", "selection": "survivors stay, ", "own-bias": "survivors stay and the bias moves, "}
"""What a problem says of those that are not pruned, in words."""
NARROW = 32
"""Inputs up to which `auto` tries to prove rows whose own bias moves; a curvature a row makes that slow."""
CURVES = 0.3
"""Of the time left for a network's layers: what is kept for the lower curves of all counts."""


@dataclass(frozen=True)
class Solve(WeightSelection):
    """Prune the mask that a solver finds to cost least.

    A model in which weights do not interact, as that of an Embedding, takes no solver: its best mask is a
    sort, see `cbs.selection.separable`.

    Where all layers share one budget, a Fisher is solved as a whole. Layers with models of their own get the
    counts of their rows from curves, see `cbs.selection.shares`, and are solved with these.

    Attributes:
        solver: a name of `solvers.available()`, or a `Solver`: one of these with fields of your choice, or
            of your own. `auto` is the solver that the request asks for; any other is run whatever that is. Of
            the problem `own-bias` the solver `auto` proves rows of up to 32 inputs and bounds others, or only
            searches, where a request is not to `certify`.
        problem: `joint`, in which survivors move to make up for what is pruned; `selection`: they stay; or
            `own-bias`: they stay, and every row's bias moves.
        judge: what masks are compared by: `model`, or `loss`, the network's on a sample with the layers
            before pruned already. That takes a solver with a field `score`; `auto` is then the swapping
            search of CBS-S, unless the request asks for a solver, which follows the model.
        wide: with solver `auto`, what solves models that are too wide to be solved exactly; `auto` itself
            if None, or where that solver does not take them. What a request asks for comes before it.
        damped: whether the selection problem has the curvature's damping. Where survivors stay nothing is
            inverted, and the damping only adds w^2 to the cost of a weight: CBS-S was published without.
    """

    solver: str | Solver = "auto"
    problem: str = "joint"
    judge: str = "model"
    wide: str | None = None
    damped: bool = True

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_name("problem", self.problem, ("joint", "selection", "own-bias"))
        check_name("judge", self.judge, ("model", "loss"))
        if self.problem != "selection" and not self.damped:
            raise ValueError("damped=False is for problem 'selection': what moves takes an inverse")

    @property
    def words(self) -> str:
        """See `Selection.words`."""
        named = self.solver if isinstance(self.solver, str) else self.solver.settings()
        by = "any solver" if named == "auto" else named
        if self.judge == "loss":
            by = f"{'swapping' if named == 'auto' else named} judged by the loss"
        return f"combinatorial, {STAY[self.problem]}by {by}"

    @property
    def open(self) -> bool:
        """See `Selection.open`."""
        return self.solver == "auto" and self.problem == "joint" and self.judge == "model"

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Selection.refuses`."""
        if self.problem == "own-bias" and not curvature.biased:
            return (
                f"Solve(problem='own-bias') needs the bias in its curvature, which {curvature.words} has "
                "not; take OutputGram() or Gram()"
            )
        if not curvature.coupled:
            return (
                f"Solve needs weights that interact, which {curvature.words} has not; take Gram() or "
                "Fisher(), or Scores('obd'), which is best where they do not"
            )
        return None

    def asked(self, request: Request) -> str | Solver:
        """The solver, by name where it is the request's."""
        found = request.solver if self.solver == "auto" else self.solver
        if found == "auto" and self.problem == "own-bias":
            if not request.certify:
                return "portfolio"
            from solvers.auto import Auto

            return Auto(exact_inputs=NARROW, patience=request.patience)
        return found

    def searcher(self, request: Request) -> Solver:
        """See `Selection.searcher`."""
        from solvers import get_solver

        if self.wide is not None:
            get_solver(self.wide)  # must be known
        asked = self.asked(request)
        return get_solver("swapping" if asked == "auto" and self.judge == "loss" else asked)

    def judged(self, request: Request) -> bool:
        """Whether masks are compared by the network's loss."""
        return self.judge == "loss" and not (self.solver == "auto" and request.solver != "auto")

    def able(self, curvature: Curvature, request: Request) -> str | None:
        """See `Selection.able`."""
        solver = self.searcher(request)
        variant = "joint" if self.problem == "joint" else "selection"
        if variant not in solver.variants:
            only = ", ".join(solver.variants)
            return f"solver {solver.name!r} does not do the {variant} variant, only {only}"
        if curvature.flat and request.budget == "columns" and self.problem == "joint":
            return "survivors of all rows would move together, which leaves no columns to choose"
        if curvature.flat and request.pooled and not curvature.whole:
            return f"{curvature.words} keeps layers apart, so that no solver can share out scope 'network'"
        kind = _kind(curvature, request)
        if kind not in solver.budgets:
            able = ", ".join(solver.budgets)
            return f"solver {solver.name!r} does not do the budget {kind!r}, only {able}"
        if self.judged(request) and not _has_score(solver):
            return f"solver {solver.name!r} has no field `score`, which judge 'loss' needs; take 'swapping'"
        return None

    def in_passing(self, request: Request) -> Request:
        """See `Selection.in_passing`: joint problems go to elimination where `auto` would prove them."""
        own = self.solver == "auto" and self.judge == "model" and self.wide is None
        if own and self.problem == "joint" and request.solver == "auto":
            return replace(request, solver="greedy")
        return request

    def proves(self, curvature: Curvature, request: Request) -> bool:
        """See `Selection.proves`."""
        own = isinstance(curvature, Gram) and curvature.damping is None and self.problem == "joint"
        return own and self.searcher(request).proves != "nothing"

    def share(self, job: Job) -> list[Mask]:
        """See `WeightSelection.share`."""
        from cbs.selection.shares import shares

        own_bias, solver = self.problem == "own-bias", self.searcher(job.request)
        return shares(
            job, solver, refit=self.problem == "joint", bias=self.problem != "selection",
            widest=NARROW if own_bias and solver.name == "auto" else None,
            proving=self._bounding(job, job.quadratics),
        )  # fmt: skip

    def _bounding(self, job: Job, quadratics: Sequence[Quadratic]) -> bool:
        """Whether what is proven of these models' problems bounds the layers' objectives."""
        objective = job.curvature == Gram().damped(job.network.damping) and self.problem == "joint"
        return objective and all(model.gradient is None for model in quadratics)

    def choose(
        self,
        job: Job,
        quadratics: Sequence[Quadratic],
        budgets: Sequence[Budget],
        starts: Sequence[Mask | None],
    ) -> list[Choice]:
        """See `WeightSelection.choose`; a solver of the method's own starts from nothing, as published."""
        from cbs.curvature.output import row_scales
        from cbs.quadratic import Diagonal
        from cbs.selection.separable import separable, separable_bound
        from cbs.selection.turns import Turn, in_turns

        request, watch, searcher = job.request, job.watch, self.searcher(job.request)
        scales = row_scales(job.network) if request.pooled and job.curvature.scaled else None
        bounding = self._bounding(job, quadratics)
        sorted_out: dict[int, Choice] = {}
        turns = []
        for at, (model, budget, start) in enumerate(zip(quadratics, budgets, starts, strict=True)):
            if isinstance(model.H, Diagonal):
                if self.judged(request):
                    raise ValueError(
                        f"layer {model.name!r}: judge 'loss' does not do an Embedding; leave it out "
                        "of `layers`"
                    )
                sorted_out[at] = separable(model if self.damped else model.undamped(), budget)
                if bounding:
                    job.references.recall(model.index[0], budget, separable_bound(model, budget))
                continue
            refit, bias = self.problem == "joint", self.problem != "selection"
            posed = model if self.damped else model.undamped()
            problem = posed.problem(budget, refit=refit, bias=bias)
            if not problem.hessian.shared and searcher.refuses(problem):
                problem = posed.problem(budget, refit=refit, bias=bias, own=False)
            warm = self.solver == "auto" or watch.interrupted
            turn = Turn(model.index[0], model.name, problem, self._taking(request, problem))
            if start is not None and warm:
                turn.start = model.join([start])[:, : problem.n]
            if scales is not None:
                turn.weight = float(scales[model.index[0]].mean())
            if self.judged(request):
                self._judge(job, model, turn)
            turns.append(turn)
        with watch.sparing(CURVES if bounding and request.pooled and request.certify else 0.0):
            in_turns(turns, request.gap, watch, job.references if bounding else None)
        answers = [turn.answer if bounding else _told(turn.answer) for turn in turns]
        coupled = [model for at, model in enumerate(quadratics) if at not in sorted_out]
        solved = iter(
            Choice(model, model.masks(turn.problem, answer.mask), answer.solver, turn.problem, answer)
            for model, turn, answer in zip(coupled, turns, answers, strict=True)
        )
        return [sorted_out[at] if at in sorted_out else next(solved) for at in range(len(quadratics))]

    def _taking(self, request: Request, problem: SubsetProblem) -> str | Solver:
        """The solver that takes a problem."""
        from solvers import get_solver
        from solvers.auto import Auto

        asked = self.asked(request)
        if asked != "auto" or self.wide is None or problem.n <= Auto.exact_inputs:
            return asked
        return asked if get_solver(self.wide).refuses(problem) else self.wide

    def _judge(self, job: Job, model: Quadratic, turn: Turn) -> None:
        """Have a turn's masks compared by the loss, and its last one left in place for those after it."""
        from cbs.selection.trial import Trial

        if "trial" not in job.kept:
            job.kept["trial"] = Trial(job.network, job.request.seed)
        trial, problem = job.kept["trial"], turn.problem
        turn.solver = replace(  # type: ignore[type-var]
            self.searcher(job.request), score=lambda mask: trial(model.index, model.lift(problem, mask))
        )
        turn.taken = lambda solution: trial(model.index, model.masks(problem, solution.mask))


def _told(solution: Solution) -> Solution:
    """A solution whose stats tell its own value, bound and gap; the layer's are of another objective."""
    own = {"value": solution.value, "bound": solution.bound, "gap": solution.gap}
    return replace(solution, stats={**solution.stats, "objective": own})


def _kind(curvature: Curvature, request: Request) -> str:
    """The kind of the budget that a model's problem has."""
    if request.pooled:
        return "per_layer" if curvature.whole else "per_row"
    if request.budget == "columns":
        return "columns"
    if request.pattern is not None:
        return "n_of_m"
    if request.scope == "row":
        return "n_of_m" if curvature.flat else "per_row"
    return "per_layer"


def _has_score(solver: Solver) -> bool:
    return is_dataclass(solver) and any(each.name == "score" for each in fields(solver))
