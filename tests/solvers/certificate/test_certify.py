"""What is written verifies: certificates of random problems, on the edge of double precision too."""

import sys
import warnings

import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem, checker, curve, solve, solve_together
from solvers.certificate import certify
from solvers.checker.problem import parse_problem
from solvers.checker.reduced import reduce_problem
from solvers.instances import save
from tests.solvers.claims.problems import random_problem
from tests.solvers.exactly import exact_optimum
from tests.solvers.oracles import BUDGETS, POOLS, make_problem
from tests.solvers.proof_trees import branch, branch_and_split, chain, tree_proofs

GROWN = (branch, branch_and_split, chain)


def some_mask(problem, rng):
    """A mask of the budget."""
    pools = problem.pools
    flat = np.zeros(pools.labels.size, dtype=bool)
    for pool, k in enumerate(pools.prune.tolist()):
        flat[rng.permutation(np.flatnonzero(pools.labels.ravel() == pool))[:k]] = True
    mask = np.zeros(problem.W.shape, dtype=bool)
    mask[:, problem.prunable] = pools.expand(flat.reshape(pools.labels.shape), problem.m)
    return mask


def verdict_of(certificate, problems, folder):
    certificate.save(folder / "certificate")
    paths = [folder / f"{i}.npz" for i in range(len(problems))]
    for path, problem in zip(paths, problems, strict=True):
        save(path, problem)
    return checker.verify(folder / "certificate", *paths)


def verifies(seed, folder):
    """Whether there was such a problem, and proofs of it."""
    rng = np.random.default_rng([seed, 1])
    try:
        problem = random_problem(seed)
    except ValueError:
        return False
    counts = rng.integers(0, len(problem.prunable) + 1, problem.m)
    try:
        proofs = tree_proofs(
            problem, 2, counts if problem.budget.kind == "per_layer" else None, grow=GROWN[seed % len(GROWN)]
        )
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        proofs = []
    mask = some_mask(problem, rng)
    for these in (proofs, []):
        certificate = certify(problem, mask, these)
        verdict = verdict_of(certificate, [problem], folder)
        assert verdict.bound == certificate.bound
        assert verdict.low <= certificate.value <= verdict.high
    return True


def test_certificates_of_random_problems_verify(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(verifies(seed, tmp_path) for seed in range(60)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 6000, 500))
def test_certificates_of_thousands_of_random_problems_verify(tmp_path, first):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(verifies(seed, tmp_path) for seed in range(first, first + 500)) > 350


MATRIX = [[1.4428571519984563, 0.16026791711904365], [0.16026791711904365, 1.3250427286316768]]
SINGLE = FactorHessian([[0.0, 1, 1]], 1.0)
THREE = FactorHessian([[-1.0, -1, 0, 0], [1, 1, -1, 1], [1, 1, 2, 1]], 0.5)
WHOLE = {
    "nothing of a layer": ([[0.0, 0]], MATRIX, Budget.per_layer(0), True, 0.0),
    "zeros enough": ([[0.0, 0, 1], [0, 2, 0]], np.eye(3) + 0.1, Budget.per_layer(2), True, 0.0),
    "an input that stands alone": ([[0.0, 1, 0]], SINGLE, Budget.per_row(0), True, 0.0),
    "everything": ([[0.0, -1, 0, 0], [0, 0, -2, 0]], THREE, Budget.per_layer(8), False, 61 / 12),
}


@pytest.mark.parametrize(("W", "H", "budget", "refit", "optimum"), WHOLE.values(), ids=WHOLE)
def test_whole_numbers(tmp_path, W, H, budget, refit, optimum):
    problem = SubsetProblem(W, H, budget, refit=refit)
    mask = some_mask(problem, np.random.default_rng(0))
    verdict = verdict_of(certify(problem, mask), [problem], tmp_path)
    assert optimum - 1e-12 <= verdict.bound <= optimum
    assert verdict.bound == optimum or optimum > 0.0


@pytest.mark.parametrize("refit", [True, False])
def test_curves_and_shared_budgets_verify(tmp_path, refit):
    rng = np.random.default_rng(4)
    problems = []
    for m, n in ((2, 5), (1, 6)):
        B = rng.integers(-2, 3, (n + 2, n)).astype(float)
        W = rng.integers(-2, 3, (m, n)) * 10.0 ** rng.integers(-6, 7, n)
        problems.append(SubsetProblem(W, B.T @ B + 0.5 * np.eye(n), Budget.per_layer(4), refit=refit))
    found = curve(problems[0], certify=True)
    assert verdict_of(found.certificate, problems[:1], tmp_path).bound == found.certificate.bound
    both = solve_together(problems, certify=True)
    assert verdict_of(both.certificate, problems, tmp_path).bound == both.certificate.bound <= both.bound


def test_a_selection_without_gradient_costs_at_least_nothing():
    """Where the curvature is shown to be semidefinite, or is a factor; not where it is not."""
    given = {"weights": np.ones((1, 3)), "refit": np.array(False), "budget": np.array("per_row"),
             "prune": np.array(1)}  # fmt: skip
    for curvature, positive in (
        ({"hessian": np.diag([1.0, 0.0, 2.0])}, True),
        ({"hessian": np.diag([1.0, -1e-9, 2.0])}, False),
        ({"hessian": np.ones((3, 3)) - 1e-12 * np.eye(3)}, False),
        ({"factor": np.ones((1, 3))}, True),
    ):
        problem = parse_problem(given | curvature)
        assert reduce_problem(problem).positive == positive


@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("budget", POOLS)
def test_pools_with_numbers_of_their_own_are_certified(tmp_path, budget, refit, kind):
    gradient, movable = kind == "stacked", [2] if kind == "factor" else []
    problem = make_problem(
        np.random.default_rng(2), POOLS[budget], n=6 + len(movable), refit=refit, kind=kind,
        gradient=gradient, movable=movable,
    )  # fmt: skip
    solution = solve(problem, certify=True)
    verdict = verdict_of(solution.certificate, [problem], tmp_path)
    optimum, _ = exact_optimum(problem)
    assert optimum - abs(optimum) / 5000 <= verdict.bound <= optimum
    assert verdict.low <= optimum <= verdict.high
    other = problem.with_budget(Budget.pools([0, 1, 1, 0, 1, 0], [2, 1]))
    save(tmp_path / "0.npz", other)
    with pytest.raises(checker.Refuted):
        checker.verify(tmp_path / "certificate", tmp_path / "0.npz")


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("budget", ["per_row", "per_layer", "n_of_m", "columns", "pools", "shared pools"])
def test_without_any_split_a_weaker_bound_is_proven(tmp_path, monkeypatch, budget, refit):
    def none(*_, **__):
        raise ValueError("hessian is too close to singular for a certified split")

    monkeypatch.setattr(sys.modules["solvers.certificate.certify"], "split_blocks", none)
    for gradient in (False, True):
        budgets = BUDGETS | POOLS
        problem = make_problem(np.random.default_rng(1), budgets[budget], refit=refit, gradient=gradient)
        optimum, mask = exact_optimum(problem)
        verdict = verdict_of(certify(problem, mask), [problem], tmp_path)
        assert verdict.bound <= optimum
        assert verdict.bound > 0.0 or gradient or not refit


def test_a_curvature_whose_least_eigenvalues_are_rounding(tmp_path):
    H = np.ones((5, 5)) + 2.0**-44 * np.eye(5)
    problem = SubsetProblem(np.arange(1.0, 6.0)[None], H, Budget.per_row(3))
    verdict = verdict_of(certify(problem, some_mask(problem, np.random.default_rng(0))), [problem], tmp_path)
    assert 0.0 <= verdict.bound <= exact_optimum(problem)[0]


@pytest.mark.parametrize("refit", [True, False])
def test_a_column_that_moves_and_hides_the_others(tmp_path, refit):
    """What is left of the others once it is eliminated is rounding of the matrix, but not of the factor."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4, 1)) * 1e5 + rng.standard_normal((4, 4))
    problem = SubsetProblem(
        rng.standard_normal((1, 4)), FactorHessian(X, 1e-3), Budget.per_row(1), refit=refit, movable=[0]
    )
    optimum, mask = exact_optimum(problem)
    verdict = verdict_of(certify(problem, mask), [problem], tmp_path)
    assert verdict.bound <= optimum <= verdict.high
    assert verdict.high - verdict.low <= 1e-6 * verdict.high
