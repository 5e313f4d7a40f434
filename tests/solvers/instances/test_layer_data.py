"""Data of a layer: on the grid of single precision, read back bit for bit."""

import numpy as np
import pytest

from solvers.instances.layer_data import LayerData


def data(rng, n=5):
    A = rng.standard_normal((n, n))
    return LayerData.rounded(rng.standard_normal((3, n)), A @ A.T, [0, 2, 7])


def test_numbers_read_back_bit_for_bit(rng, tmp_path):
    one = data(rng)
    one.save(tmp_path / "d.npz")
    two = LayerData.load(tmp_path / "d.npz")
    for name in ("weights", "hessian", "rows"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert one.digest() == two.digest()
    assert np.array_equal(two.hessian, two.hessian.T)
    assert np.array_equal(one.hessian.astype(np.float32).astype(np.float64), one.hessian)


def test_the_digest_is_of_the_numbers(rng):
    one = data(rng)
    hessian = one.hessian.copy()
    hessian[3, 3] = np.nextafter(np.float32(hessian[3, 3]), np.float32(9e9))
    assert LayerData.rounded(one.weights, hessian, one.rows).digest() != one.digest()
    assert LayerData.rounded(one.weights, one.hessian, [0, 2, 8]).digest() != one.digest()
    assert LayerData.rounded(one.weights, one.hessian * (1 + 1e-12), one.rows).digest() == one.digest()


def test_what_is_no_data_is_refused(rng, tmp_path):
    path = tmp_path / "d.npz"
    with pytest.raises(ValueError, match="not finite in single precision"):
        LayerData.rounded([[1e300]], [[1.0]], [0])
    with pytest.raises(ValueError, match=r"hessian has shape \(2, 2\)"):
        LayerData.rounded(np.ones((1, 3)), np.eye(2), [0])
    fields = {"weights": np.ones((2, 3), np.float32), "hessian": np.ones(6, np.float32), "rows": np.arange(2)}
    for change, message in (
        ({"hessian": None}, "no array 'hessian'"),
        ({"hessian": np.ones(5, np.float32)}, "do not go with weights"),
        ({"rows": np.arange(3)}, "do not go with weights"),
        ({"weights": np.ones(3, np.float32)}, "array 'weights' has shape"),
        ({"weights": np.full((2, 3), np.nan, np.float32)}, "not finite"),
    ):
        np.savez(path, **{key: value for key, value in (fields | change).items() if value is not None})
        with pytest.raises(ValueError, match=message):
            LayerData.load(path)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"data file .* can't be read"):
        LayerData.load(path)
