import itertools
import sys
from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, checker, solve
from solvers.bounds.split import split_blocks
from solvers.certificate import certify, root_proof, together
from solvers.form.blocks import blocks
from solvers.instances import save
from tests.solvers.exactly import exact_optimum, exact_row_values
from tests.solvers.oracles import BUDGETS, all_masks, best_mask, gram, make_problem
from tests.solvers.proof_trees import branch_and_split, chain, tree_proofs

CASES = list(
    itertools.product(BUDGETS, (True, False), ("shared", "stacked", "factor"), (False, True), ((), (2,)))
)


def verified(tmp_path, certificate, *problems):
    certificate.save(tmp_path / "certificate")
    paths = [tmp_path / f"{i}.npz" for i in range(len(problems))]
    for path, problem in zip(paths, problems, strict=True):
        save(path, problem)
    verdict = checker.verify(tmp_path / "certificate", *paths)
    assert verdict.bound == certificate.bound
    return verdict


@pytest.mark.parametrize(("budget", "refit", "kind", "gradient", "movable"), CASES[::5])
def test_root_certificates_of_every_kind_of_problem_hold(tmp_path, budget, refit, kind, gradient, movable):
    rng = np.random.default_rng(0)
    problem = make_problem(
        rng, BUDGETS[budget], n=6 + len(movable), refit=refit, kind=kind, gradient=gradient, movable=movable
    )
    mask = best_mask(problem)
    exact = sum(exact_row_values(problem, mask))
    verdict = verified(tmp_path, certify(problem, mask), problem)
    assert verdict.low <= exact <= verdict.high
    assert verdict.high - verdict.low < 1e-12 * problem.scale
    assert verdict.bound <= exact
    assert verdict.bound >= exact - 0.9 * abs(exact) - 0.5 * problem.scale


@pytest.mark.parametrize(("budget", "refit", "kind", "gradient", "movable"), CASES[1::17])
def test_full_trees_close_the_gap(tmp_path, budget, refit, kind, gradient, movable):
    rng = np.random.default_rng(1)
    problem = make_problem(
        rng, BUDGETS[budget], n=6 + len(movable), refit=refit, kind=kind, gradient=gradient, movable=movable
    )
    exact, mask = exact_optimum(problem)
    if budget == "per_layer":
        counts = range(7)
        proofs = [p for k in counts for p in tree_proofs(problem, 6, np.full(problem.m, k))]
    else:
        proofs = tree_proofs(problem, 6)
    verdict = verified(tmp_path, certify(problem, mask, proofs), problem)
    assert verdict.bound <= exact
    assert verdict.bound == pytest.approx(float(exact), abs=1e-9 * problem.scale)


def test_deeper_trees_prove_more_and_chains_hold(tmp_path):
    problem = make_problem(np.random.default_rng(5), Budget.per_row(4), m=1, n=8)
    exact, mask = exact_optimum(problem)
    bounds = [
        verified(tmp_path, certify(problem, mask, tree_proofs(problem, depth)), problem).bound
        for depth in (0, 2, 4)
    ]
    assert bounds[0] < bounds[1] < bounds[2] <= exact
    found = blocks(problem)
    linked = [chain(b, s, 4) for b, s in zip(found, split_blocks(found), strict=True)]
    root, link = certify(problem, mask), certify(problem, mask, linked)
    assert (1 - 1e-12) * root.bound <= verified(tmp_path, link, problem).bound <= exact


@pytest.mark.parametrize(
    ("budget", "refit", "kind", "gradient", "movable"),
    [case for case in CASES[2::11] if case[:3] != ("columns", True, "stacked")],
)
def test_subtrees_with_splits_of_their_own(tmp_path, budget, refit, kind, gradient, movable):
    rng = np.random.default_rng(12)
    n = 6 + len(movable)
    problem = make_problem(
        rng, BUDGETS[budget], n=n, refit=refit, kind=kind, gradient=gradient, movable=movable
    )
    exact, mask = exact_optimum(problem)
    counts = np.full(problem.m, 3) if budget == "per_layer" else None
    own = tree_proofs(problem, 2, counts, grow=branch_and_split)
    verdict = verified(tmp_path, certify(problem, mask, own), problem)
    shared = certify(problem, mask, tree_proofs(problem, 2, counts))
    assert shared.bound - 1e-6 * problem.scale <= verdict.bound <= exact
    resplit = sum(len(proof.splits) for proof in own) > len(own)
    assert resplit or budget in ("n_of_m", "row_counts")
    if resplit and budget != "per_layer" and shared.bound < float(exact) - 0.01 * problem.scale:
        assert verdict.bound > shared.bound


def test_rows_without_a_proof_get_one(tmp_path):
    problem = make_problem(np.random.default_rng(3), Budget.per_row(3), m=2, n=6)
    exact, mask = exact_optimum(problem)
    proofs = tree_proofs(problem, 6)
    verdict = verified(tmp_path, certify(problem, mask, proofs[1:2]), problem)
    root, whole = certify(problem, mask).bound, certify(problem, mask, proofs).bound
    assert verdict.proofs == 2
    assert root < verdict.bound < whole <= exact


@pytest.mark.parametrize("refit", [True, False])
def test_problems_that_share_a_budget(tmp_path, refit):
    rng = np.random.default_rng(0)
    first = make_problem(rng, Budget.per_layer(3), m=2, n=4, refit=refit)
    second = make_problem(rng, Budget.per_layer(4), m=1, n=5, refit=refit)

    def least(problem, k):
        return exact_optimum(SubsetProblem(problem.W, problem.hessian, Budget.per_layer(k), refit=refit))

    total = 7
    pairs = [(least(first, k), least(second, total - k)) for k in range(2, 8)]
    (value1, mask1), (value2, mask2) = min(pairs, key=lambda pair: pair[0][0] + pair[1][0])
    assert mask1.sum() != 3
    own1, own2 = exact_optimum(first)[0], exact_optimum(second)[0]
    parts = []
    for problem, mask in ((first, mask1), (second, mask2)):
        own = SubsetProblem(problem.W, problem.hessian, Budget.per_layer(int(mask.sum())), refit=refit)
        n = problem.n
        proofs = [p for k in range(n + 1) for p in tree_proofs(own, n, np.full(problem.m, k))]
        parts.append(certify(problem, mask, proofs, shared=True))
    verdict = verified(tmp_path, together(parts, shared=True), first, second)
    assert verdict.low <= value1 + value2 <= verdict.high
    assert verdict.bound <= value1 + value2 < own1 + own2
    assert verdict.bound == pytest.approx(float(value1 + value2), rel=1e-9)


def test_problems_of_their_own_budgets_add(tmp_path):
    rng = np.random.default_rng(5)
    problems = [make_problem(rng, BUDGETS[name], refit=name != "columns") for name in ("n_of_m", "columns")]
    optima = [exact_optimum(problem) for problem in problems]
    parts = [certify(p, mask, tree_proofs(p, 6)) for p, (_, mask) in zip(problems, optima, strict=True)]
    verdict = verified(tmp_path, together(parts), *problems)
    exact = sum(value for value, _ in optima)
    assert verdict.bound <= exact <= verdict.high
    assert verdict.bound == pytest.approx(float(exact), rel=1e-9)


def test_only_layers_share():
    problem = make_problem(np.random.default_rng(6), Budget.per_row(3))
    certificate = certify(problem, next(all_masks(problem)))
    with pytest.raises(ValueError, match="per_layer budgets can be shared, got 'per_row'"):
        together([certificate], shared=True)


def test_bounds_are_sums_rounded_down():
    problem = make_problem(np.random.default_rng(7), Budget.per_row(3), m=5)
    certificate = certify(problem, next(all_masks(problem)))
    exact = sum(Fraction(proof.bound) for proof in certificate.parts[0].proofs)
    assert certificate.bound <= exact < np.nextafter(certificate.bound, np.inf)


def test_solve_hands_the_certificate_through(tmp_path):
    problem = make_problem(np.random.default_rng(8), Budget.per_row(3), n=7, gradient=True, movable=(1,))
    assert solve(problem, "greedy").certificate is None
    solution = solve(problem, "greedy", certify=True)
    verdict = verified(tmp_path, solution.certificate, problem)
    assert solution.bound == verdict.bound <= exact_optimum(problem)[0]
    assert (solution.certificate.parts[0].mask == solution.mask).all()


@pytest.mark.parametrize(("budget", "refit"), list(itertools.product(BUDGETS, (True, False))))
def test_what_branch_and_bound_proves_can_be_verified(tmp_path, budget, refit):
    problem = make_problem(np.random.default_rng(13), BUDGETS[budget], m=2, n=6, refit=refit)
    solution = solve(problem, "branch-and-bound", certify=True)
    verdict = verified(tmp_path, solution.certificate, problem)
    assert verdict.bound <= solution.bound <= exact_optimum(problem)[0] * (1 + Fraction(1, 10**12))
    assert verdict.gap <= 2e-4


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tiny_and_huge_numbers(tmp_path, scale):
    rng = np.random.default_rng(9)
    problem = SubsetProblem(scale * rng.standard_normal((2, 6)), gram(rng, 6) / scale, Budget.per_row(3))
    exact, mask = exact_optimum(problem)
    verdict = verified(tmp_path, certify(problem, mask, tree_proofs(problem, 6)), problem)
    assert verdict.bound <= exact
    assert verdict.bound == pytest.approx(float(exact), rel=1e-9)


def test_dead_inputs_and_zero_weights(tmp_path):
    rng = np.random.default_rng(10)
    H = gram(rng, 6)
    H[1], H[:, 1] = 0.0, 0.0
    W = rng.standard_normal((2, 6))
    W[1], W[0, 3] = 0.0, 0.0
    for budget in (Budget.per_row(3), Budget.columns(3), Budget.per_layer(5), Budget.per_row(0)):
        problem = SubsetProblem(W, H, budget, refit=False)
        exact, mask = min(
            ((sum(exact_row_values(problem, m)), m) for m in all_masks(problem)), key=lambda x: x[0]
        )
        verdict = verified(tmp_path, certify(problem, mask), problem)
        assert verdict.bound <= exact <= verdict.high


def test_a_row_of_nothing_is_proven(tmp_path):
    problem = SubsetProblem(np.zeros((1, 4)), np.eye(4), Budget.per_row(2), refit=False)
    verdict = verified(tmp_path, certify(problem, next(all_masks(problem))), problem)
    assert verdict.bound == 0.0
    assert verdict.gap <= 0.0 or verdict.high < 1e-300


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    problem = make_problem(np.random.default_rng(11), Budget.per_row(3))
    certificate = certify(problem, next(all_masks(problem)))
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError):
        certificate.save(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    found = blocks(problem)
    root = root_proof(found[0], split_blocks(found)[0])
    assert root.bound == pytest.approx(certificate.parts[0].proofs[0].bound, rel=1e-9)


@pytest.mark.parametrize(("budget", "refit"), list(itertools.product(BUDGETS, (True, False))))
def test_what_the_relaxation_proves_is_not_computed_again(tmp_path, monkeypatch, budget, refit):
    problem = make_problem(np.random.default_rng(14), BUDGETS[budget], m=2, n=6, refit=refit)
    if budget != "per_layer":
        module = sys.modules["solvers.certificate.certify"]
        monkeypatch.setattr(module, "split_blocks", lambda *_, **__: pytest.fail("again"))
    solution = solve(problem, "relaxation", certify=True)
    verdict = verified(tmp_path, solution.certificate, problem)
    assert verdict.bound == pytest.approx(solution.bound, abs=1e-7 * problem.scale)
    assert verdict.bound <= exact_optimum(problem)[0]
