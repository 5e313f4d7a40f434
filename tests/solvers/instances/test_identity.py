"""Digests tell problems apart, and are those of certificates."""

import numpy as np

from solvers import Budget, SubsetProblem, checker, solve
from solvers.instances import digest, load, random_problem, save
from solvers.instances.identity import digest_together


def test_a_digest_is_that_of_the_file_and_of_the_certificate(tmp_path):
    problem = random_problem(2, 5, Budget.per_row(2), seed=0)
    save(tmp_path / "p.npz", problem)
    assert digest(load(tmp_path / "p.npz")) == digest(problem)
    assert checker.problem.read_problem(tmp_path / "p.npz").digest == digest(problem)
    assert solve(problem, certify=True).certificate.parts[0].digest == digest(problem)


def test_whatever_makes_another_problem_makes_another_digest():
    W, H = np.ones((2, 4)), np.eye(4)
    bumped = W.copy()
    bumped[1, 3] = np.nextafter(1.0, 2.0)
    problems = [
        SubsetProblem(W, H, Budget.per_row(2)),
        SubsetProblem(W, H, Budget.per_row(1)),
        SubsetProblem(W, H, Budget.per_layer(4)),
        SubsetProblem(W, H, Budget.n_of_m(2, 4)),
        SubsetProblem(W, H, Budget.columns(2)),
        SubsetProblem(W, H, Budget.columns(1, width=2)),
        SubsetProblem(W, H, Budget.columns(2, width=2)),
        SubsetProblem(W, H, Budget.per_row(2), refit=False),
        SubsetProblem(W, H, Budget.per_row(2), gradient=np.zeros((2, 4))),
        SubsetProblem(W, H, Budget.per_row(2), movable=[0]),
        SubsetProblem(bumped, H, Budget.per_row(2)),
        SubsetProblem(W, 2 * H, Budget.per_row(2)),
    ]
    found = [digest(problem) for problem in problems]
    assert len(set(found)) == len(found)
    assert all(len(word) == 64 for word in found)
    assert digest(SubsetProblem(W, H, Budget.per_row(2))) == found[0]


def test_problems_together_have_a_digest_of_their_order():
    one, two = (random_problem(2, 4, Budget.per_layer(2), seed=seed) for seed in (0, 1))
    assert digest_together([one]) == digest(one)
    assert len({digest_together([one, two]), digest_together([two, one]), digest(one), digest(two)}) == 4
