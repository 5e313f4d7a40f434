import itertools
import zipfile

import numpy as np
import pytest

from solvers import Budget, DenseHessian, FactorHessian, Hessian, SubsetProblem, solve
from solvers.certificate.original import stored
from solvers.checker.problem import read_problem
from solvers.instances import load, planted, random_problem, save

BUDGETS = {
    "per_row": Budget.per_row(4),
    "per_row each": Budget.per_row([1, 5]),
    "per_layer": Budget.per_layer(3),
    "n_of_m": Budget.n_of_m(2, 4),
    "columns": Budget.columns(3),
}


def fields(**changes):
    base = {
        "weights": np.arange(1.0, 9.0).reshape(2, 4),
        "hessian": np.diag([1.0, 2.0, 3.0, 4.0]),
        "budget": "per_row",
        "prune": 2,
    }
    return {k: v for k, v in (base | changes).items() if v is not None}


def write(path, **changes):
    np.savez(path, **fields(**changes))
    return path


class Wrapped(Hessian):
    """A curvature of a kind that the file format does not know."""

    def __init__(self, inner):
        self.inner, self.n, self.rows = inner, inner.n, inner.rows

    def dense(self, row):
        return self.inner.dense(row)

    def diagonal(self):
        return self.inner.diagonal()

    def matmul(self, D):
        return self.inner.matmul(D)

    def select(self, columns):
        return Wrapped(self.inner.select(columns))


@pytest.mark.parametrize(
    "budget",
    [
        *BUDGETS.values(),
        Budget.groups((3, 1, 4), (1, 0, 4)),
        Budget.pools([2, 0, 1, 1, 0, 2, 2, 2], [1, 2, 0]),
        Budget.groups((3, 5), (1, 4), shared=True),
        Budget.pools([2, 0, 1, 1, 0, 2, 2, 2], 1, shared=True),
    ],
    ids=[*BUDGETS, "groups", "pools", "shared groups", "shared pools"],
)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("per_row", [True, False])
def test_round_trip_is_exact(tmp_path, budget, refit, per_row):
    problem = random_problem(2, 8, budget, seed=3, refit=refit, per_row=per_row)
    save(tmp_path / "a.npz", problem)
    again = load(tmp_path / "a.npz")
    assert np.array_equal(again.W, problem.W)
    assert again.hessian.rows == problem.hessian.rows
    for r in range(2):
        assert np.array_equal(again.hessian.dense(r), problem.hessian.dense(r))
    assert again.budget == problem.budget
    assert again.refit == problem.refit
    assert again.G is None
    assert again.movable.size == 0


def test_round_trip_of_factor_gradient_and_movable(tmp_path, rng):
    problem = SubsetProblem(
        rng.standard_normal((3, 5)), FactorHessian(rng.standard_normal((4, 5)), 0.25), Budget.per_layer(6),
        refit=False, gradient=rng.standard_normal((3, 5)), movable=[1, 4],
    )  # fmt: skip
    save(tmp_path / "f.npz", problem)
    again = load(tmp_path / "f.npz")
    assert isinstance(again.hessian, FactorHessian)
    assert np.array_equal(again.hessian.X, problem.hessian.X)
    assert again.hessian.damping == 0.25
    assert np.array_equal(again.G, problem.G)
    assert np.array_equal(again.movable, [1, 4])
    assert not again.refit


def test_a_factor_in_single_precision_stays_so(tmp_path, rng):
    X = rng.standard_normal((4, 5)).astype(np.float32)
    problem = SubsetProblem(np.ones((1, 5)), FactorHessian(X, 0.25), Budget.per_layer(2))
    save(tmp_path / "f.npz", problem)
    again = load(tmp_path / "f.npz")
    assert again.hessian.X.dtype == np.float32
    assert np.array_equal(again.hessian.X, X)
    assert stored(again).digest == read_problem(tmp_path / "f.npz").digest


def test_a_hessian_of_another_kind_is_stored_dense(tmp_path):
    inner = random_problem(2, 4, Budget.per_row(1), seed=0).hessian
    save(tmp_path / "w.npz", SubsetProblem(np.ones((2, 4)), Wrapped(inner), Budget.per_row(1)))
    again = load(tmp_path / "w.npz")
    assert isinstance(again.hessian, DenseHessian)
    assert np.array_equal(again.hessian.H, inner.dense(0))


def test_a_file_written_by_hand_defaults_to_the_joint_variant(tmp_path):
    problem = load(write(tmp_path / "h.npz"))
    assert problem.refit
    assert problem.budget == Budget.per_row(2)


def test_save_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("old")
    save(path, load(write(tmp_path / "h.npz")))
    assert load(path).n == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "h.npz"]


def test_save_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    problem = random_problem(1, 3, Budget.per_row(1), seed=0)
    with pytest.raises(OSError, match="folder"):
        save(tmp_path / "folder", problem)
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "missing" / "a.npz", problem)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


BAD_FIELDS = {
    "no weights": ({"weights": None}, "field 'weights' is missing"),
    "no budget": ({"budget": None}, "field 'budget' is missing"),
    "no curvature": ({"hessian": None}, "neither 'hessian' .* nor|neither 'hessian'"),
    "two curvatures": ({"factor": np.ones((3, 4))}, "both 'hessian'"),
    "damping alone": ({"damping": 0.1}, "'damping' goes with 'factor'"),
    "damping vector": ({"hessian": None, "factor": np.eye(4), "damping": np.ones(4)}, "damping.*one number"),
    "damping negative": ({"hessian": None, "factor": np.eye(4), "damping": -1.0}, "damping"),
    "factor shape": ({"hessian": None, "factor": np.ones(4)}, r"'factor' has shape \(4,\)"),
    "factor columns": ({"hessian": None, "factor": np.ones((9, 3)), "damping": 1.0}, "3 columns"),
    "singular factor": ({"hessian": None, "factor": np.ones((2, 4))}, "damping > 0"),
    "misspelt": ({"gradeint": np.ones((2, 4))}, "unknown field 'gradeint'; did you mean 'gradient'"),
    "unknown": ({"zzz": 1}, "unknown field 'zzz'; known: weights"),
    "text weights": ({"weights": np.array([["a", "b"]])}, "'weights' holds <U1; .* real numbers"),
    "complex weights": ({"weights": np.ones((2, 4), complex)}, "'weights' holds complex128"),
    "pickled weights": ({"weights": np.array([[None, {}]], dtype=object)}, "'weights' is not a plain array"),
    "flat weights": ({"weights": np.ones(4)}, r"weights must be a matrix \[m, n\]"),
    "nan weights": ({"weights": np.array([[1.0, np.nan, 1, 1]])}, r"weights has nan at \[0, 1\]"),
    "inf hessian": ({"hessian": np.diag([1.0, np.inf, 1, 1])}, "hessian has inf at"),
    "hessian shape": ({"hessian": np.eye(3)}, r"hessian has shape \(3, 3\)"),
    "asymmetric": ({"hessian": np.eye(4) + np.eye(4, k=1) / 4}, "asymmetric by 0.25"),
    "indefinite": ({"hessian": np.diag([1.0, 1, 1, -1])}, "indefinite"),
    "singular": ({"hessian": np.diag([1.0, 1, 1, 0])}, "singular .* add damping"),
    "gradient shape": ({"gradient": np.ones((4, 2))}, r"gradient has shape \(4, 2\)"),
    "nan gradient": ({"gradient": np.full((2, 4), np.nan)}, "gradient has nan"),
    "movable fraction": ({"movable": np.array([0.5])}, "'movable' .* whole numbers"),
    "movable outside": ({"movable": np.array([4])}, "movable must list distinct columns between 0 and 3"),
    "refit number": ({"refit": 1}, "'refit' is 1; it must be true or false"),
    "budget kind": ({"budget": "per_col"}, "'budget' is 'per_col'; it must be one of per_row"),
    "budget bytes": ({"budget": np.bytes_(b"per_row")}, "'budget' is b'per_row'"),
    "budget list": ({"budget": np.array(["per_row"])}, r"'budget' is an array of shape \(1,\)"),
    "no prune": ({"prune": None}, "'prune' is missing for budget 'per_row'"),
    "keep too": ({"keep": 2}, "'keep' does not go with budget 'per_row', which takes prune"),
    "prune fraction": ({"prune": 0.5}, "'prune' holds float64; it must hold whole numbers"),
    "prune negative": ({"prune": -1}, "must not be negative, got -1"),
    "prune too many": ({"prune": 5}, "prunes 5 weights, but there are only 4 in a row"),
    "prune per layer list": ({"budget": "per_layer", "prune": [1, 2]}, r"'prune' has shape \(2,\)"),
    "prune rows": ({"prune": [1, 2, 3]}, r"'prune' has shape \(3,\): .* 2 row counts"),
    "of divides": ({"budget": "n_of_m", "prune": None, "keep": 1, "of": 3}, "`of` = 3 does not divide 4"),
    "keep above of": ({"budget": "n_of_m", "prune": None, "keep": 3, "of": 2}, "keeps 3 of 2"),
    "no of": ({"budget": "n_of_m", "prune": None, "keep": 1}, "'of' is missing for budget 'n_of_m'"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_field_is_one_line_that_names_it(tmp_path, changes, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **fields(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_bad_files(tmp_path):
    good = write(tmp_path / "good.npz").read_bytes()
    contents = {
        "empty": b"", "text": b"weights = 1\n", "half": good[: len(good) // 2],
        "flipped": good[:200] + bytes(b ^ 255 for b in good[200:260]) + good[260:],
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="instance file") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"not a \.npz archive"):
        load(tmp_path / "one.npy")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("weights", "no array")
        archive.writestr("budget.npy", b"\x93NUMPY\x01\x00\x00")
    with pytest.raises(ValueError, match="field 'budget' is not a plain array"):
        load(tmp_path / "other.zip")
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)


def test_random_instances_are_seeded_and_correlated():
    budget = Budget.per_row(10)
    a, b, c = (random_problem(2, 40, budget, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.W, b.W)
    assert np.array_equal(a.hessian.dense(0), b.hessian.dense(0))
    assert not np.array_equal(a.W, c.W)

    def mean_correlation(share):
        H = random_problem(1, 40, budget, seed=5, correlation=share).hessian.dense(0)
        s = np.sqrt(np.diag(H))
        return np.abs(H / np.outer(s, s))[np.triu_indices(40, 1)].mean()

    assert mean_correlation(0.9) > 2 * mean_correlation(0.0)


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_planted_optimum_is_the_optimum(budget, refit, margin):
    for seed, rank in itertools.product(range(2), (None, 8)):
        instance = planted(2, 8, budget, seed=seed, refit=refit, margin=margin, rank=rank)
        best = solve(instance.problem, "brute-force").value
        assert instance.value == pytest.approx(best, rel=1e-9)
        assert instance.value == instance.problem.value(instance.mask)


@pytest.mark.parametrize("refit", [True, False])
def test_planted_optimum_is_not_the_magnitude_mask(refit):
    worse = 0
    for seed in range(5):
        instance = planted(1, 40, Budget.per_row(20), seed=seed, refit=refit)
        worse += solve(instance.problem, "magnitude").value > 1.01 * instance.value
    assert worse >= 4


def test_planted_masks_are_unique_below_margin_one():
    for refit in (True, False):
        instance = planted(1, 9, Budget.per_row(4), seed=7, refit=refit, margin=0.6)
        assert np.array_equal(solve(instance.problem, "brute-force").mask, instance.mask)


def test_one_planted_row_of_a_selection_has_a_shared_curvature():
    assert planted(1, 6, Budget.per_row(3), seed=0, refit=False).problem.hessian.shared


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: random_problem(1, 4, b, seed=0, correlation=1.0), "correlation must be .* got 1.0"),
        (lambda b: random_problem(1, 4, b, seed=0, damping=0.0), "damping must be .* got 0.0"),
        (lambda b: planted(1, 4, b, seed=0, margin=0.0), "margin must be .* got 0.0"),
        (lambda b: planted(1, 4, b, seed=0, rank=5), "rank must be from 1 to 4, got 5"),
        (lambda b: planted(1, 1, b, seed=0), "prunes 2 weights, but there are only 1"),
    ],
)
def test_generators_refuse_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(Budget.per_row(2))
