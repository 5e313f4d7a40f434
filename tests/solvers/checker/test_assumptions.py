"""What theorems assume is checked: certificates made by hand about what is no problem, or not such."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.checker import Refuted, verify
from solvers.checker.problem import parse_problem
from tests.solvers.oracles import fractions

ROW = {
    "weights": np.ones((1, 3)),
    "refit": np.array(False),
    "budget": np.array("per_row"),
    "prune": np.array(1),
}
INTEGERS = [
    "problem",
    "row",
    "prune",
    "nodes",
    "vectors",
    "splits",
    "pairs",
    "entry",
    "pruned",
    "kept",
    "vector",
    "root",
    "split",
    "pair",
]


def write(folder, fields, claims, mask, value, bound):
    """An instance and a certificate with a digest that is right if there is one."""
    fields = {name: np.asarray(field) for name, field in fields.items()}
    try:
        digest = parse_problem(fields).digest
    except ValueError:
        digest = "0" * 64
    base = {
        "format": np.array("cbs certificate 1"), "shared": np.array(False), "digest": np.array([digest]),
        "mask": np.asarray(mask, dtype=bool).ravel(), "value": np.array([float(value)]),
        "bound": np.array(float(bound)),
        **{name: np.zeros(0, np.int64) for name in INTEGERS},
        **{name: np.zeros(0) for name in ("d", "u", "claim", "cross", "price")},
    }  # fmt: skip
    np.savez(folder / "i.npz", **fields)
    np.savez(folder / "c.npz", **(base | claims))
    return folder / "c.npz", folder / "i.npz"


def image(v, claim):
    return {
        "image_problem": np.array([0]),
        "image": np.asarray(v, float).ravel(),
        "image_claim": np.array([claim]),
    }


def leaf(d, u, claim, prune=-1, row=0):
    """One proof, without branching."""
    one, none = np.array([1]), np.array([-1])
    return {
        "problem": np.array([0]), "row": np.array([row]), "prune": np.array([prune]), "nodes": one,
        "vectors": one, "splits": one, "pairs": np.array([0]), "entry": none, "pruned": none, "kept": none,
        "vector": np.array([0]), "split": np.array([0]), "root": np.zeros(np.size(d), np.int64),
        "d": np.asarray(d, float).ravel(), "u": np.asarray(u, float).ravel(),
        "claim": np.array([float(claim)]),
    }  # fmt: skip


def refuted(files, words=None):
    with pytest.raises((Refuted, ValueError), match=words) as caught:
        verify(*files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damping", [-1.0, -5e-324, np.nan, np.inf, -np.inf])
def test_a_damping_is_finite_and_not_negative(tmp_path, damping):
    fields = ROW | {"factor": [[0.0, 2, 0]], "damping": damping}
    refuted(write(tmp_path, fields, image([0.0], 0.0), [0, 1, 0], 1.5, 0.0), "damping")


def test_a_damping_of_minus_zero_is_zero(tmp_path):
    fields = ROW | {"factor": [[0.0, 2, 0]], "damping": -0.0}
    assert verify(*write(tmp_path, fields, image([0.0], 0.0), [1, 0, 0], 0.0, 0.0)).bound == 0.0


def test_entries_that_move_need_a_damping(tmp_path):
    for extra in ({"refit": np.array(True)}, {"movable": np.array([2])}):
        fields = ROW | {"factor": [[0.0, 2, 0]], "damping": 0.0} | extra
        refuted(write(tmp_path, fields, image([0.0], 0.0), [1, 0, 0], 0.0, 0.0), "claims 0.0, but -inf")


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("d", [[1e-300] * 3, [1.0] * 3, [0.0] * 3, [-1.0] * 3, [np.nan] * 3, [np.inf] * 3])
def test_an_indefinite_curvature_has_no_bound_of_nothing(tmp_path, refit, d):
    H = np.diag([1.0, -1.0, 1.0])
    fields = ROW | {"hessian": H, "refit": np.array(refit)}
    refuted(write(tmp_path, fields, leaf(d, np.zeros(3), 0.0), [1, 0, 0], 0.5, 0.0))


def test_movable_columns_have_a_positive_definite_curvature(tmp_path):
    for corner in (-1.0, 0.0):
        fields = ROW | {"hessian": np.diag([1.0, 1.0, corner]), "movable": [2]}
        refuted(
            write(tmp_path, fields, leaf([0.5, 0.5], np.zeros(2), 0.0), [1, 0, 0], 0.5, 0.0),
            "not positive definite",
        )


BAD = {
    "a matrix far from symmetric": {"hessian": np.eye(3) + np.diag([1.0, 0], 1)},
    "numbers too large to average": {"hessian": np.full((3, 3), 1.7e308)},
    "numbers that float64 can't hold": {"hessian": np.eye(3, dtype=np.int64) * (2**60 + 1)},
    "an infinity": {"weights": np.array([[1.0, np.inf, 1.0]])},
    "a long double": {"weights": np.ones((1, 3), np.longdouble) / 3},
    "booleans": {"weights": np.ones((1, 3), bool)},
    "complex numbers": {"hessian": np.eye(3, dtype=complex)},
    "a flag that is a number": {"refit": np.array(1)},
    "two flags": {"refit": np.array([True, False])},
    "a budget in a list": {"budget": np.array(["per_row"])},
    "a count too many": {"prune": np.array([1, 1])},
    "a count for the layer in a list": {"budget": np.array("per_layer"), "prune": np.array([1])},
    "a count that wraps": {"prune": np.array(2**64 - 1, np.uint64)},
    "counts of another budget": {"keep": np.array(1)},
    "no counts": {"budget": np.array("n_of_m")},
    "pools that do not fit": {"budget": np.array("n_of_m"), "keep": np.array(1), "of": np.array(2)},
    "pools of nothing": {"budget": np.array("n_of_m"), "keep": np.array(0), "of": np.array(0)},
    "columns in a table": {"movable": np.array([[0]])},
    "more columns than there are": {"movable": np.arange(4)},
    "no rows": {"weights": np.zeros((0, 3))},
    "no columns": {"weights": np.zeros((1, 0))},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_what_is_no_problem_is_not_certified(tmp_path, change):
    fields = {"hessian": np.eye(3)} | ROW | change
    with pytest.raises(ValueError, match=r"instance file .*i\.npz'") as caught:
        verify(*write(tmp_path, fields, leaf([0.5] * 3, np.zeros(3), 0.0), [1, 0, 0], 0.5, 0.0))
    assert "\n" not in str(caught.value)


def test_what_the_factor_is_of_is_not_formed_beyond_reason(tmp_path):
    fields = ROW | {"weights": np.ones((1, 40_000)), "factor": np.ones((1, 40_000)), "damping": 1.0}
    claims = leaf(np.ones(40_000), np.zeros(40_000), 0.0)
    refuted(write(tmp_path, fields, claims, np.eye(1, 40_000), 1.0, 0.0), "only have bounds in its image")


def optimum(fields):
    """Of a selection of a row, in rational arithmetic, whether or not its curvature is semidefinite."""
    w = fractions(fields["weights"])[0]
    if "factor" in fields:
        X = fractions(fields["factor"])
        H = X.T @ X / Fraction(len(X)) + Fraction(float(fields["damping"])) * fractions(np.eye(len(w)))
    else:
        H = fractions(fields["hessian"])
    g = fractions(fields.get("gradient", np.zeros((1, len(w)))))[0]
    sets = itertools.combinations(range(len(w)), int(fields["prune"]))
    costs = {
        P: sum(w[i] * H[i, j] * w[j] for i in P for j in P) / 2 - sum(g[i] * w[i] for i in P) for P in sets
    }
    return min(costs.items(), key=lambda item: item[1])


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans())
def test_no_selection_has_a_verified_bound_above_its_optimum(
    tmp_path_factory, seed, factored, gradient, exact
):
    """Whole numbers of any sign, points and splits of any kind, claims at the optimum and above."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    fields = ROW | {
        "weights": rng.integers(-2, 3, (1, n)).astype(float),
        "prune": np.array(rng.integers(0, n + 1)),
    }
    X = rng.integers(-2, 3, (int(rng.integers(1, 4)), n)).astype(float)
    shift = float(rng.choice([-1.0, -1e-12, 0.0, 1e-12, 0.5]))
    if factored:
        fields |= {"factor": X, "damping": np.array(shift)}
    else:
        fields |= {"hessian": X.T @ X + shift * np.eye(n)}
    if gradient:
        fields["gradient"] = rng.integers(-2, 3, (1, n)).astype(float)
    P, best = optimum(fields)
    mask = np.isin(np.arange(n), P)
    claim = float(best) + (
        0.0 if exact else float(rng.choice([1e-13, 1e-6, 0.5]) * max(1.0, abs(float(best))))
    )
    claim = 0.0 if rng.random() < 0.2 else claim
    if factored and rng.random() < 0.7:
        D = np.where(mask, -fields["weights"][0], 0.0)
        v = X @ D / len(X) if rng.random() < 0.7 else rng.standard_normal(len(X))
        claims = image(v, claim)
    else:
        d = rng.choice([1e-3, 0.5, -1.0, -10.0, 1e-300], n)
        claims = leaf(d, mask.astype(float) if rng.random() < 0.7 else rng.random(n), claim)
    folder = tmp_path_factory.mktemp("attack")
    try:
        verdict = verify(*write(folder, fields, claims, mask, float(best), claim))
    except (Refuted, ValueError):
        return
    assert verdict.bound <= best <= verdict.high
