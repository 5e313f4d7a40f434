import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, Status, SubsetProblem, available, get_solver, solve
from solvers.exact.brute_force import BruteForce
from solvers.heuristics.published.saliency import Magnitude
from solvers.runtime.plugins import PluginWarning
from solvers.solve import _check_listed, check_support, registry
from solvers.solver import Outcome, Solver
from tests.solvers.distributions import distribution
from tests.solvers.oracles import BUDGETS, make_problem, optimum

QUICK = settings(derandomize=True, max_examples=40, deadline=None)


@dataclasses.dataclass(frozen=True)
class Fixed(Solver):
    """Hands back whatever outcome the test wants."""

    outcome: Outcome = None
    variants = ("joint",)
    budgets = ("per_row",)
    name = "fixed"
    summary = "for tests"

    def run(self, problem, control):
        return self.outcome


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brute-forse", "unknown solver 'brute-forse'; did you mean 'brute-force'?"),
        ("LOCAL-SEARCH", "unknown solver 'LOCAL-SEARCH'; known: auto, "),
        (7, "unknown solver 7; known: auto, "),
    ],
)
def test_unknown_solvers_are_refused(name, message, rng):
    with pytest.raises(ValueError) as error:
        solve(make_problem(rng, Budget.per_row(2)), name)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_missing_dependency_says_what_to_install(monkeypatch, rng):
    monkeypatch.setattr(Magnitude, "requires", ("no_such_module",))
    monkeypatch.setattr(Magnitude, "wheel", "no-such-module>=1")
    assert available()["magnitude"]["installed"] is False
    assert available()["magnitude"]["install"] == "pip install 'no-such-module>=1'"
    with pytest.raises(ValueError) as error:
        solve(make_problem(rng, Budget.per_row(2)), "magnitude")
    assert str(error.value) == ("solver 'magnitude' needs no_such_module: pip install 'no-such-module>=1'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_limit": 0}, "time_limit must be positive seconds or None, got 0"),
        ({"time_limit": -1.0}, "time_limit must be positive seconds or None, got -1.0"),
        ({"time_limit": float("nan")}, "time_limit must be positive seconds or None, got nan"),
        ({"gap": -1e-9}, "gap must be a finite number >= 0, got -1e-09"),
        ({"gap": float("nan")}, "gap must be a finite number >= 0, got nan"),
        ({"gap": float("inf")}, "gap must be a finite number >= 0, got inf"),
        ({"warm_start": np.zeros((2, 5))}, "mask has shape (2, 5), the weights (2, 6)"),
        (
            {"warm_start": np.zeros((2, 6))},
            "mask does not meet the budget: pool 0 prunes 0 of 6 entries, not 2",
        ),
    ],
)
def test_bad_limits_and_warm_starts_are_refused(arguments, message, rng):
    with pytest.raises(ValueError) as error:
        solve(make_problem(rng, Budget.per_row(2)), "greedy", **arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        (Fixed(), {"refit": False}, "solver 'fixed' does not do the selection variant, only joint"),
        (
            Fixed(),
            {"budget": Budget.columns(1)},
            "solver 'fixed' does not do the budget 'columns', only per_row",
        ),
        (
            BruteForce(limit=29),
            {},
            "solver 'brute-force' can't take this problem: it has 30 masks, more than the limit of 29",
        ),
    ],
)
def test_unsupported_problems_are_refused(solver, options, message, rng):
    problem = make_problem(rng, **{"budget": Budget.per_row(2), **options})
    for ask in (lambda: check_support(solver, problem), lambda: solve(problem, solver)):
        with pytest.raises(ValueError) as error:
            ask()
        assert str(error.value) == message


def test_solvers_by_name_and_by_instance(rng):
    assert get_solver("brute-force") == BruteForce()
    own = BruteForce(limit=30)
    assert get_solver(own) is own
    problem = make_problem(rng, Budget.per_row(2))
    assert solve(problem, own).value == solve(problem, "brute-force").value


def test_foreign_solvers_run_in_any_order_and_print_nothing():
    """CVXPY, OR-Tools and highspy bring a HiGHS each; a fresh process must be able to use them all."""
    names = [name for name in ("highs", "cvxpy-sdp", "cp-sat") if available()[name]["installed"]]
    code = f"""
import sys
import numpy as np
from solvers import Budget, SubsetProblem, solve
problem = SubsetProblem(np.ones((1, 4)), np.eye(4) + 0.1, Budget.per_row(2), refit=False)
for name in {names}:
    assert solve(problem, name).value > 0
assert "highspy" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_listing_agrees_with_the_classes():
    for name, facts in available().items():
        cls = registry()[name]
        assert facts["budgets"] == list(cls.budgets)
        assert facts["variants"] == list(cls.variants)
        assert facts["proves"] in ("optimality", "a bound", "nothing")
        assert facts["installed"] == cls.installed()
        assert facts["install"] == cls.install_hint()


def test_a_solver_that_claims_too_high_a_bound_is_refused(rng):
    problem = make_problem(rng, Budget.per_row(2))
    mask = problem.pools.smallest(problem.W**2)
    with pytest.raises(ArithmeticError, match=r"^fixed: bound .* lies above the value"):
        solve(problem, Fixed(Outcome(mask, bound=1.01 * problem.value(mask))))


def test_a_solver_that_misses_the_budget_is_refused(rng):
    problem = make_problem(rng, Budget.per_row(2))
    with pytest.raises(ValueError, match=r"^solver 'fixed': mask does not meet the budget"):
        solve(problem, Fixed(Outcome(np.zeros((2, 6), dtype=bool))))


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (None, "solver 'fixed': run must return a solvers.Outcome, got NoneType"),
        (np.zeros((2, 6), dtype=bool), "solver 'fixed': run must return a solvers.Outcome, got ndarray"),
        (Outcome(np.zeros((2, 5), dtype=bool)), "solver 'fixed': mask has shape (2, 5), the weights (2, 6)"),
        (Outcome(None), "solver 'fixed': mask has shape (), the weights (2, 6)"),
        (Outcome(None, bound="3"), "solver 'fixed': bound must be a number"),
        (Outcome(None, bound=None), "solver 'fixed': bound must be a number"),
        (Outcome(None, reason="optimal"), "solver 'fixed': reason must be a solvers.Status, got 'optimal'"),
    ],
)
@pytest.mark.parametrize("movable", [(), (6,)])
def test_what_is_no_answer_is_refused_in_one_line_that_names_the_solver(outcome, message, movable, rng):
    problem = make_problem(rng, Budget.per_row(2))
    if movable:
        H = np.eye(7)
        problem = SubsetProblem(np.ones((2, 7)), H, Budget.per_row(2), movable=movable)
    with pytest.raises(ValueError) as error:
        solve(problem, Fixed(outcome))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_class_that_does_not_say_what_it_is_is_refused(rng):
    class Nameless(Fixed):
        name = None

    class Letters(Fixed):
        budgets = "per_row"

    problem = make_problem(rng, Budget.per_row(2))
    for solver, message in (
        (Fixed, "solver is the class Fixed; call it: Fixed()"),
        (Nameless(), "solver Nameless has no name; give its class one"),
        (Letters(), "solver Letters: budgets must be a tuple of per_row"),
    ):
        with pytest.raises(ValueError, match=r"^solver") as error:
            solve(problem, solver)
        assert str(error.value).startswith(message)


def test_a_claim_of_optimality_without_a_bound_is_not_believed(rng):
    problem = make_problem(rng, Budget.per_row(2))
    mask = problem.pools.smallest(problem.W**2)
    assert solve(problem, Fixed(Outcome(mask, reason=Status.OPTIMAL))).status is Status.FEASIBLE


@pytest.mark.parametrize("extras", [{}, {"gradient": True, "movable": [2]}], ids=["plain", "reduced"])
def test_a_better_warm_start_is_kept(extras, rng):
    problem = make_problem(rng, Budget.per_row(3), n=7, **extras)
    best = solve(problem, "brute-force")
    assert solve(problem, "magnitude").value > best.value
    warmed = solve(problem, "magnitude", warm_start=best.mask.astype(int))
    assert warmed.value == best.value
    np.testing.assert_array_equal(warmed.mask, best.mask)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("solver", ["branch-and-bound", "relaxation", "auto"])
def test_progress_is_told_in_terms_of_the_problem_asked(solver, refit, rng):
    problem = make_problem(rng, Budget.per_row(3), n=8, refit=refit, gradient=True, movable=[0, 7])
    best, seen = optimum(problem), []
    solution = solve(problem, solver, callback=seen.append)
    assert solution.bound <= best + 1e-12 * problem.scale
    for step in seen:
        assert step.bounds.lower <= best + 1e-9 * problem.scale
        assert step.bounds.upper >= best - 1e-9 * problem.scale
        if step.mask is not None:
            assert problem.value(step.mask) == pytest.approx(step.bounds.upper, abs=1e-9 * problem.scale)
    assert [step.bounds for step in seen] == [step.bounds for step in solution.trace]
    assert seen[-1].bounds.upper == pytest.approx(solution.value, abs=1e-9 * problem.scale)


@QUICK
@given(
    seed=st.integers(0, 10**6),
    refit=st.booleans(),
    budget=st.sampled_from(["per_row", "columns", "per_layer"]),
    solver=st.sampled_from(["brute-force", "branch-and-bound", "greedy", "local-search", "relaxation"]),
)
def test_permuting_the_inputs_permutes_the_answer(seed, refit, budget, solver):
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, BUDGETS[budget], refit=refit)
    order = rng.permutation(problem.n)
    H = problem.hessian.dense(0)[np.ix_(order, order)]
    permuted = SubsetProblem(problem.W[:, order], H, problem.budget, refit=refit)
    first, second = (solve(p, solver, gap=1e-9) for p in (problem, permuted))
    assert second.value == pytest.approx(first.value, rel=1e-8)
    if np.isfinite(first.bound):
        assert second.bound == pytest.approx(first.bound, rel=1e-3)
    np.testing.assert_array_equal(second.mask, first.mask[:, order])


@QUICK
@given(
    seed=st.integers(0, 10**6),
    refit=st.booleans(),
    budget=st.sampled_from(["per_row", "columns", "per_layer", "n_of_m"]),
    solver=st.sampled_from(["brute-force", "branch-and-bound", "greedy", "local-search", "relaxation"]),
    scale=st.sampled_from([1e-8, 0.5, 1e8]),
)
def test_scaling_the_curvature_scales_value_and_bound(seed, refit, budget, solver, scale):
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, BUDGETS[budget], refit=refit)
    scaled = SubsetProblem(problem.W, scale * problem.hessian.dense(0), problem.budget, refit=refit)
    first, second = (solve(p, solver, gap=1e-9) for p in (problem, scaled))
    assert second.value == pytest.approx(scale * first.value, rel=1e-8)
    if np.isfinite(first.bound):
        assert second.bound == pytest.approx(scale * first.bound, rel=1e-3)
    np.testing.assert_array_equal(second.mask, first.mask)


@pytest.mark.parametrize("name", ["branch-and-bound", "relaxation"])
def test_bounds_of_rows_are_those_of_the_problem_asked(name, rng):
    """A gradient and movable columns take constants out of every row's value; they are put back."""
    plain = make_problem(rng, Budget.per_row(2), m=3)
    gradient = rng.standard_normal(plain.W.shape)
    problem = SubsetProblem(plain.W, plain.hessian, plain.budget, gradient=gradient, movable=[1])
    found = solve(problem, name)
    best = problem.row_values(solve(problem, "brute-force").mask)
    assert (found.rows.bound <= best + 1e-9 * problem.scale).all()
    assert found.rows.bound.sum() == pytest.approx(found.bound, rel=1e-9)
    if name == "branch-and-bound":
        assert found.rows.proven.all()
        np.testing.assert_allclose(found.rows.bound, best, rtol=1e-3, atol=1e-6 * problem.scale)


OWN = """
from dataclasses import dataclass
from solvers import Outcome, Solver

@dataclass(frozen=True)
class Last(Solver):
    name = "last"
    summary = "prunes what it is told to start from"

    def run(self, problem, control):
        return Outcome(control.warm_start)

class Shadow(Last):
    name = "greedy"

class Silent(Last):
    name = "silent"
    summary = property(lambda self: 1 / 0)
"""


@pytest.fixture
def others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda *entries: distribution(tmp_path, "others", "\n".join(["[cbs.solvers]", *entries]), OWN)
    registry.cache_clear()


def test_an_installed_package_adds_its_solvers(others, rng):
    registry.cache_clear()
    others("last = others:Last")
    assert list(available())[-1] == "last"
    assert available()["last"]["summary"] == "prunes what it is told to start from"
    problem = make_problem(rng, Budget.per_row(2))
    mask = problem.pools.smallest(-(problem.W**2))
    for solver in ("last", get_solver("last")):
        found = solve(problem, solver, warm_start=mask)
        assert found.solver == "last"
        assert (found.mask == mask).all()
        assert found.value == problem.value(mask)


def test_a_broken_package_takes_nothing_away(others, rng):
    registry.cache_clear()
    before = list(registry())
    registry.cache_clear()
    others("greedy = others:Shadow", "silent = others:Silent", "gone = others:Gone", "last = others:Last")
    with pytest.warns(PluginWarning) as told:
        assert list(available()) == [*before, "last"]
    assert len(told) == 3
    assert type(get_solver("greedy")).__module__ == "solvers.heuristics.greedy"


def test_what_is_listed_has_a_line_of_text():
    class Numbered(Fixed):
        summary = 3

    with pytest.raises(ValueError, match="solver 'fixed': summary must be a line of text, got 3"):
        _check_listed(Numbered())


def test_names_of_this_package_load_no_plug_in(others, rng):
    registry.cache_clear()
    others("gone = others:Gone")
    assert get_solver("greedy").name == "greedy"  # a warning would fail the test
    with (
        pytest.warns(PluginWarning),
        pytest.raises(ValueError, match=r"unknown solver 'gone'; known: auto, "),
    ):
        get_solver("gone")
