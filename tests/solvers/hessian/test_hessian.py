import numpy as np
import pytest

from solvers import BlockDiagonalHessian, FactorHessian
from solvers.hessian import DenseHessian, StackedHessian, as_hessian, base, cholesky_solve, factor
from tests.solvers.oracles import gram

M, N, SAMPLES, DAMPING = 3, 6, 4, 0.3


def build(kind, rng):
    """A Hessian and its matrices, one a row."""
    if kind == "dense":
        H = gram(rng, N)
        return DenseHessian(H), [H] * M
    if kind == "stacked":
        H = np.stack([gram(rng, N) for _ in range(M)])
        return StackedHessian(H), list(H)
    if kind == "blocks":
        parts = [build("wide factor", rng), build("dense", rng)]
        parts = [(hessian.select(cut), H[0][np.ix_(cut, cut)]) for hessian, H in parts for cut in [CUT]]
        H = np.zeros((N, N))
        H[:3, :3], H[3:, 3:] = parts[0][1], parts[1][1]
        return BlockDiagonalHessian([hessian for hessian, _ in parts]), [H] * M
    samples = 3 * N if kind == "tall factor" else 1 if kind == "one sample" else SAMPLES
    X = rng.standard_normal((samples, N))
    if kind == "float32 factor":
        X = X.astype(np.float32)
    Y = X.astype(np.float64)
    H = np.array([[Y[:, i] @ Y[:, j] / samples + DAMPING * (i == j) for j in range(N)] for i in range(N)])
    return FactorHessian(X, DAMPING), [H] * M


CUT = np.array([0, 2, 5])
FACTORS = ["wide factor", "tall factor", "one sample", "float32 factor"]
KINDS = ["dense", "stacked", "blocks", *FACTORS]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_agrees_with_its_matrices(kind, rng):
    hessian, H = build(kind, rng)
    D = rng.standard_normal((M, N))
    columns, index = np.array([2, 1, 4]), np.array([0, 3, 4, 5, 1])
    rhs = rng.standard_normal((5, 2))
    assert hessian.shared == (kind != "stacked")
    assert hessian.rows == (M if kind == "stacked" else None)
    selected = hessian.select(columns)
    assert selected.n == 3
    expected = np.stack([A @ x for A, x in zip(H, D, strict=True)])
    np.testing.assert_allclose(hessian.matmul(D), expected, atol=1e-12)
    for r in range(M):
        np.testing.assert_allclose(hessian.dense(r), H[r], atol=1e-14)
        np.testing.assert_allclose(np.broadcast_to(hessian.diagonal(), (M, N))[r], np.diag(H[r]), atol=1e-14)
        np.testing.assert_allclose(hessian.block(r, index), H[r][np.ix_(index, index)], atol=1e-14)
        np.testing.assert_allclose(selected.dense(r), H[r][np.ix_(columns, columns)], atol=1e-14)
        for b in (rhs, rhs[:, 0]):
            x = hessian.solve(r, index, b)
            assert x.shape == b.shape
            np.testing.assert_allclose(H[r][np.ix_(index, index)] @ x, b, atol=1e-11)
        inverse = np.linalg.inv(H[r][np.ix_(index, index)])
        np.testing.assert_allclose(hessian.inverse_diagonal(r, index), np.diag(inverse), rtol=1e-11)


@pytest.mark.parametrize("chunk", [1, 40, 100, 1 << 20])
@pytest.mark.parametrize("kind", FACTORS)
def test_a_factors_products_do_not_depend_on_the_chunks(kind, chunk, rng, monkeypatch):
    hessian, H = build(kind, rng)
    monkeypatch.setattr(factor, "CHUNK_BYTES", chunk)
    X = hessian.X.astype(np.float64)
    D, Y = rng.standard_normal((2, N)), rng.standard_normal((2, hessian.N))
    sparse = np.where(np.arange(N) == 4, D, 0.0)
    root = np.sqrt(hessian.N)
    index, all_of_them = np.array([4, 1, 5, 2, 0]), np.arange(N)
    np.testing.assert_allclose(hessian.image(D), D @ X.T / root, atol=1e-14)
    np.testing.assert_allclose(hessian.image(sparse), sparse @ X.T / root, atol=1e-14)
    np.testing.assert_allclose(hessian.pull_back(Y), Y @ X / root, atol=1e-14)
    np.testing.assert_allclose(hessian.gram(index), X[:, index] @ X[:, index].T, atol=1e-13)
    np.testing.assert_allclose(hessian.gram(), X @ X.T, atol=1e-13)
    np.testing.assert_allclose(hessian.diagonal(), np.diag(H[0]), atol=1e-14)
    np.testing.assert_allclose(H[0] @ hessian.solve(0, all_of_them, D[0]), D[0], atol=1e-11)
    inverse = np.linalg.inv(H[0])
    np.testing.assert_allclose(hessian.inverse_diagonal(0, all_of_them), np.diag(inverse), rtol=1e-11)
    np.testing.assert_allclose(hessian.ridge, DAMPING)


def test_a_factor_stays_in_the_precision_it_came_in(rng):
    single, double = rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal((3, 5))
    assert np.may_share_memory(FactorHessian(single).X, single)
    assert np.may_share_memory(FactorHessian(double).X, double)
    assert FactorHessian(np.arange(6).reshape(2, 3)).X.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        FactorHessian(single).X[0, 0] = 1.0


def test_a_factor_too_large_is_not_formed(rng, monkeypatch):
    monkeypatch.setattr(base, "FORM_BYTES", 8 * N * N - 1)
    wide, tall = build("wide factor", rng)[0], build("tall factor", rng)[0]
    message = "^hessian: a factor of 6 inputs is never formed, its matrix would take 0.0 GB; take a solver"
    with pytest.raises(ValueError, match=message):
        wide.dense(0)
    assert tall.dense(0).shape == (N, N)
    with pytest.raises(ValueError, match=r"^hessian: a block-diagonal curvature of 6 inputs is never formed"):
        build("blocks", rng)[0].dense(0)


def test_wide_is_a_factor_of_many_inputs_and_fewer_samples(rng, monkeypatch):
    monkeypatch.setattr(factor, "WIDE", N - 1)
    assert [build(kind, rng)[0].implicit for kind in KINDS] == [False, False, False, True, False, True, True]
    single = build("one sample", rng)[0]
    assert BlockDiagonalHessian([build("dense", rng)[0], single]).implicit
    monkeypatch.setattr(factor, "WIDE", N)
    assert not single.implicit
    assert BlockDiagonalHessian([single, single]).implicit


def test_blocks_of_factors_have_images(rng):
    hessian = BlockDiagonalHessian([build(kind, rng)[0] for kind in ("wide factor", "one sample")])
    assert hessian.factored
    assert not build("blocks", rng)[0].factored
    D = rng.standard_normal((2, 2 * N))
    squares = hessian.pull_back(hessian.image(D)) + hessian.ridge * D
    np.testing.assert_allclose(squares, D @ hessian.dense(0), atol=1e-12)


def test_blocks_must_be_shared_and_columns_grouped_by_them(rng):
    with pytest.raises(ValueError, match=r"^hessian: a block-diagonal curvature needs at least one block$"):
        BlockDiagonalHessian([])
    with pytest.raises(ValueError, match=r"^hessian: block 1 has a matrix a row"):
        BlockDiagonalHessian([build("dense", rng)[0], build("stacked", rng)[0]])
    with pytest.raises(ValueError, match="must be grouped by block"):
        build("blocks", rng)[0].select(np.array([0, 4, 1]))


def test_blocks_are_checked_one_by_one(rng):
    good, bad = build("wide factor", rng)[0], FactorHessian(np.ones((2, 3)), 0.0)
    assert (
        as_hessian(BlockDiagonalHessian([good, DenseHessian(gram(rng, 2))]), M, N + 2, definite=True).n == 8
    )
    with pytest.raises(ValueError, match=r"^hessian: factor with damping 0.0 is not positive definite"):
        as_hessian(BlockDiagonalHessian([good, bad]), M, N + 3, definite=True)
    with pytest.raises(ValueError, match=r"^hessian is indefinite"):
        as_hessian(BlockDiagonalHessian([good, DenseHessian(-np.eye(2))]), M, N + 2, definite=False)
    with pytest.raises(ValueError, match=r"^hessian has 6 columns, but the weights have 7 inputs$"):
        as_hessian(BlockDiagonalHessian([good]), M, N + 1, definite=True)


def test_wide_blocks_of_a_factor_are_solved_without_forming_them(rng, monkeypatch):
    hessian, H = build("wide factor", rng)
    monkeypatch.setattr(FactorHessian, "block", lambda *_: pytest.fail("formed a wide block"))
    index, b = np.arange(N), rng.standard_normal(N)
    np.testing.assert_allclose(hessian.solve(0, index, b), np.linalg.solve(H[0], b), atol=1e-12)
    assert hessian.inverse_diagonal(0, index).shape == (N,)


def test_products_and_diagonals_of_a_factor_do_not_form_it(rng, monkeypatch):
    hessian, _ = build("wide factor", rng)
    monkeypatch.setattr(FactorHessian, "dense", lambda *_: pytest.fail("formed the dense matrix"))
    assert hessian.matmul(np.ones((2, N))).shape == (2, N)
    assert hessian.diagonal().shape == (N,)


def test_a_block_is_a_copy_and_the_matrix_is_read_only(rng):
    H = gram(rng, N)
    hessian = as_hessian(H, M, N, definite=True)
    hessian.block(0, np.arange(2))[:] = 7.0
    with pytest.raises(ValueError, match="read-only"):
        hessian.dense(0)[0, 0] = 7.0
    H[0, 0] = 1e6
    assert hessian.dense(0)[0, 0] < 1e6


@pytest.mark.parametrize("shape", [(N, N), (M, N, N)])
def test_rounding_asymmetry_is_averaged_away(shape, rng):
    H = np.broadcast_to(gram(rng, N), shape).copy()
    H[..., 0, 1] += 1e-11 * H[..., 0, 0]
    dense = as_hessian(H, M, N, definite=True).dense(M - 1)
    np.testing.assert_array_equal(dense, dense.T)
    assert dense[0, 1] == pytest.approx((H[..., 0, 1].flat[0] + H[..., 1, 0].flat[0]) / 2, rel=1e-14)


def spoiled(rng, change):
    H = gram(rng, N)
    change(H)
    return H


def nan(H):
    H[2, 3] = np.nan


def infinite(H):
    H[2, 3] = -np.inf


def asymmetric(H):
    H[0, 1] += 1.0


def indefinite(H):
    H -= 2 * np.linalg.eigvalsh(H)[-1] * np.eye(N)


def singular(H):
    H[:, 0] = H[0, :] = 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, r"^hessian has nan at \[2, 3\]; every entry must be finite$"),
        (infinite, r"^hessian has -inf at \[2, 3\]; every entry must be finite$"),
        (asymmetric, r"^hessian is asymmetric by 1; give \(H \+ H.T\) / 2$"),
        (
            indefinite,
            r"^hessian is indefinite \(smallest eigenvalue -.*\); it must be positive definite; add",
        ),
        (
            singular,
            r"^hessian is singular \(smallest eigenvalue .*\); it must be positive definite; add damp",
        ),
    ],
)
def test_bad_matrices_are_refused(change, message, rng):
    H = spoiled(rng, change)
    with pytest.raises(ValueError, match=message):
        as_hessian(H, M, N, definite=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, r"^hessian has nan at \[1, 2, 3\]"),
        (asymmetric, r"^hessian of row 1 is asymmetric"),
        (indefinite, r"^hessian of row 1 is indefinite"),
        (singular, r"^hessian of row 1 is singular"),
    ],
)
def test_the_bad_row_is_named(change, message, rng):
    H = np.stack([gram(rng, N), spoiled(rng, change), gram(rng, N)])
    with pytest.raises(ValueError, match=message):
        as_hessian(H, M, N, definite=True)
    if change is not nan:
        with pytest.raises(ValueError, match=message):
            as_hessian(StackedHessian(H) if change is not asymmetric else H, M, N, definite=True)


def test_selection_takes_a_singular_matrix_but_not_an_indefinite_one(rng):
    x = rng.standard_normal((2, N))
    assert as_hessian(x.T @ x, M, N, definite=False).shared
    assert as_hessian(np.zeros((N, N)), M, N, definite=False).shared
    with pytest.raises(ValueError, match=r"^hessian is indefinite .*; it must be positive semidefinite$"):
        as_hessian(x.T @ x - 0.01 * np.eye(N), M, N, definite=False)


def test_nearly_singular_is_singular_to_the_joint_variant(rng):
    x = rng.standard_normal((2, N))
    with pytest.raises(ValueError, match="singular"):
        as_hessian(x.T @ x + 1e-16 * np.eye(N), M, N, definite=True)
    assert as_hessian(x.T @ x + 1e-6 * np.eye(N), M, N, definite=True).shared


@pytest.mark.parametrize("shape", [(N,), (N, N + 1), (N + 1, N + 1), (M + 1, N, N), (1, M, N, N)])
def test_shapes_that_disagree(shape):
    with pytest.raises(ValueError) as error:
        as_hessian(np.ones(shape), M, N, definite=True)
    assert str(error.value) == f"hessian has shape {shape}, but weights [3, 6] need (6, 6) or (3, 6, 6)"


@pytest.mark.parametrize("H", ["text", [[1.0], [2.0, 3.0]], object()])
def test_things_that_are_no_matrix(H):
    with pytest.raises(ValueError, match=r"^hessian must be an array of numbers$"):
        as_hessian(H, M, N, definite=True)


def test_wrapped_hessians_must_fit(rng):
    with pytest.raises(ValueError, match=r"^hessian is for any rows of 6 inputs, the weights are \[3, 7\]$"):
        as_hessian(DenseHessian(gram(rng, N)), M, N + 1, definite=True)
    with pytest.raises(ValueError, match=r"^hessian is for 3 rows of 6 inputs, the weights are \[2, 6\]$"):
        as_hessian(build("stacked", rng)[0], 2, N, definite=True)
    with pytest.raises(ValueError, match=r"^factor has 6 columns, but the weights have 7 inputs$"):
        as_hessian(build("wide factor", rng)[0], M, N + 1, definite=True)


@pytest.mark.parametrize("damping", [0.0, -0.1, np.nan, np.inf])
def test_factors_need_a_damping_when_survivors_move(damping, rng):
    X = rng.standard_normal((SAMPLES, N))
    with pytest.raises(ValueError, match=rf"^hessian: factor with damping {damping} is not positive defini"):
        as_hessian(FactorHessian(X, damping), M, N, definite=True)
    if damping == 0:
        assert as_hessian(FactorHessian(X), M, N, definite=False).n == N


def test_tall_factors_without_damping_must_have_full_rank(rng):
    X = rng.standard_normal((3 * N, N))
    assert as_hessian(FactorHessian(X), M, N, definite=True).n == N
    X[:, 1] = X[:, 0]
    with pytest.raises(ValueError, match=r"^hessian is singular \(smallest eigenvalue"):
        as_hessian(FactorHessian(X), M, N, definite=True)


def test_factors_must_be_finite(rng):
    X = rng.standard_normal((SAMPLES, N))
    X[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^factor has nan at \[1, 2\]; every entry must be finite$"):
        as_hessian(FactorHessian(X, 1.0), M, N, definite=True)


@pytest.mark.parametrize("shape", [(N,), (2, SAMPLES, N), (0, N)])
def test_factors_are_matrices(shape):
    with pytest.raises(ValueError) as error:
        FactorHessian(np.ones(shape), 1.0)
    assert str(error.value) == f"factor must be a matrix [N, n] of at least one sample, got shape {shape}"


def test_singular_systems_are_refused():
    with pytest.raises(ValueError, match=r"^hessian is singular where weights move; add damping"):
        cholesky_solve(np.ones((2, 2)), np.ones(2))
