"""Certificates of factors that are never formed, written and verified."""

import numpy as np
import pytest

from solvers import BlockDiagonalHessian, Budget, FactorHessian, SubsetProblem, solve
from solvers.certificate import together
from solvers.checker import Refuted, verify
from solvers.hessian import factor
from solvers.instances import save
from tests.solvers.oracles import optimum

BUDGETS = {
    "per_row": Budget.per_row(3),
    "n_of_m": Budget.n_of_m(1, 3),
    "per_layer": Budget.per_layer(7),
}


@pytest.fixture(autouse=True)
def never_formed(monkeypatch):
    monkeypatch.setattr(factor, "WIDE", 2)


def make(rng, budget, *, refit, gradient=False, movable=()):
    n = 6 + len(movable)
    return SubsetProblem(
        rng.standard_normal((2, n)),
        FactorHessian(rng.standard_normal((3, n)).astype(np.float32), 0.25),
        budget,
        refit=refit,
        gradient=0.3 * rng.standard_normal((2, n)) if gradient else None,
        movable=movable,
    )


def written(tmp_path, problem, found):
    paths = tmp_path / "proof.cert", tmp_path / "problem.npz"
    found.certificate.save(paths[0])
    save(paths[1], problem)
    return paths


@pytest.mark.parametrize("extras", [{}, {"gradient": True}, {"gradient": True, "movable": (0, 5)}], ids=str)
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_searched_factor_is_certified(budget, refit, extras, rng, tmp_path):
    problem = make(rng, BUDGETS[budget], refit=refit, **extras)
    best = optimum(problem)
    found = solve(problem, "factor-search", certify=True)
    verdict = verify(*written(tmp_path, problem, found))
    assert verdict.bound <= best <= found.value + 1e-12
    assert verdict.low <= found.value * (1 + 1e-12) + 1e-12
    assert verdict.bound == pytest.approx(found.bound, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("solver", ["chita", "magnitude"])
def test_what_proves_nothing_gets_the_relaxation(solver, rng, tmp_path):
    problem = make(rng, Budget.per_row(3), refit=True)
    found = solve(problem, solver, certify=True)
    assert found.bound > 0.0
    assert verify(*written(tmp_path, problem, found)).bound == found.bound


def test_a_false_claim_is_refuted(rng, tmp_path):
    problem = make(rng, Budget.per_row(3), refit=True)
    found = solve(problem, "factor-search", certify=True)
    certificate, file = written(tmp_path, problem, found)
    fields = dict(np.load(certificate))
    assert fields["image"].shape == (6,)
    for change in (
        {"image_claim": fields["image_claim"] * (1 + 1e-9)},
        {"image": fields["image"] * 0.5},
        {"bound": fields["bound"] * (1 + 1e-9)},
        {"value": fields["value"] * (1 + 1e-6)},
    ):
        np.savez(tmp_path / "false.npz", **{**fields, **change})
        with pytest.raises(Refuted):
            verify(tmp_path / "false.npz", file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_problem": np.array([1])}, "a problem that is not there"),
        ({"image": np.ones(5)}, "field 'image' has 5 entries, not 6"),
        ({"image": np.ones(6, np.int64)}, "must hold whole numbers"),
        ({"image_problem": np.array([0, 0])}, "need one claim"),
        ({"image_claim": None}, "go together"),
    ],
)
def test_damaged_fields_are_named(change, message, rng, tmp_path):
    problem = make(rng, Budget.per_row(3), refit=True)
    found = solve(problem, "factor-search", certify=True)
    certificate, file = written(tmp_path, problem, found)
    fields = {**np.load(certificate), **change}
    np.savez(tmp_path / "odd.npz", **{name: x for name, x in fields.items() if x is not None})
    with pytest.raises(ValueError, match=message):
        verify(tmp_path / "odd.npz", file)


def test_problems_in_images_add_but_share_no_budget(rng, tmp_path):
    problems = [make(rng, Budget.per_layer(5), refit=False) for _ in range(2)]
    found = [solve(problem, "factor-search", certify=True) for problem in problems]
    files = [tmp_path / f"{i}.npz" for i in range(2)]
    for file, problem in zip(files, problems, strict=True):
        save(file, problem)
    together([one.certificate for one in found]).save(tmp_path / "sum.cert")
    bound = verify(tmp_path / "sum.cert", *files).bound
    assert bound == pytest.approx(sum(one.certificate.bound for one in found), rel=1e-12)
    fields = {**np.load(tmp_path / "sum.cert"), "shared": np.array(True)}
    np.savez(tmp_path / "shared.npz", **fields)
    with pytest.raises(Refuted, match="need curves"):
        verify(tmp_path / "shared.npz", *files)
    with pytest.raises(ValueError, match="has no curves"):
        together([one.certificate for one in found], shared=True)


def test_blocks_have_no_file(rng):
    blocks = BlockDiagonalHessian([FactorHessian(rng.standard_normal((2, 3)), 0.1) for _ in range(2)])
    problem = SubsetProblem(rng.standard_normal((1, 6)), blocks, Budget.per_row(3))
    with pytest.raises(ValueError, match="not blocks of them"):
        solve(problem, "factor-search", certify=True)
