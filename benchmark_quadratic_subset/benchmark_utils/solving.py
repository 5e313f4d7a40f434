"""A solver of the package as benchopt asks it: sampled by its own callback, or run once."""

from benchopt import BaseSolver
from benchopt.stopping_criterion import NoCriterion

from solvers import available, get_solver, solve
from solvers.instances import random_problem
from solvers.solve import check_support


def needs(name):
    """Raise ImportError, which benchopt takes for "not installed", unless a solver of the package is."""
    facts = available()[name]
    if not facts["installed"]:
        raise ImportError(f"{name} is not installed: {facts['install']}")


class Ours(BaseSolver):
    """What both have in common; `name` is that of a solver in `solvers.available()`."""

    requirements = ["pip::combinatorial-brain-surgeon"]

    def chosen(self):
        """The solver: its name, or one with fields of its own."""
        return self.name

    def skip(self, problem, gap, time_limit):
        """A problem that the solver does not take is left out, with the reason."""
        try:
            check_support(get_solver(self.chosen()), problem)
        except ValueError as reason:
            return True, str(reason)
        return False, None

    def set_objective(self, problem, gap, time_limit):
        """Keep what is asked."""
        self.problem, self.options = problem, {"gap": gap, "time_limit": time_limit}
        self.mask, self.bound = None, float("-inf")

    def warm_up(self):
        """Import and compile on a tiny problem of the same kind, which no time is charged for."""
        kind = self.problem.budget.kind
        tiny = random_problem(2, 6, type(self.problem.budget).per_row(3), refit=self.problem.refit, seed=0)
        solver = get_solver(self.chosen())
        if kind in ("per_row", "per_layer") and solver.refuses(tiny) is None:
            solve(tiny, self.chosen(), time_limit=60)
        else:
            solver.prepare()

    def get_result(self):
        """The best mask so far, and what is proven of all others."""
        return {"mask": self.mask, "bound": self.bound}


class Once(Ours):
    """One point: the answer."""

    sampling_strategy = "run_once"

    def run(self, _):
        """Solve."""
        solution = solve(self.problem, self.chosen(), **self.options)
        self.mask, self.bound = solution.mask, solution.bound


class ByCallback(Ours):
    """A curve of incumbents and bounds, told by the search itself."""

    sampling_strategy = "callback"
    stopping_criterion = NoCriterion(strategy="callback")

    def run(self, callback):
        """Solve, and tell every incumbent and bound; the search stops where benchopt has enough."""

        def tell(progress):
            if progress.mask is not None:
                self.mask = progress.mask
            self.bound = max(self.bound, progress.bounds.lower)
            return self.mask is not None and not callback()

        solution = solve(self.problem, self.chosen(), callback=tell, **self.options)
        self.mask, self.bound = solution.mask, solution.bound
        callback()
