import zipfile

import numpy as np
import pytest

from cbs.report.page.cells import prepared
from cbs.report.page.details import gather, masks_of
from tests.cbs.report.page.cells_for_tests import frame, prune, solve, study


def test_masks_come_back():
    rng = np.random.default_rng(0)
    one, two = rng.random((3, 7)) < 0.5, rng.random((2, 3, 3, 3)) < 0.5
    found = masks_of(
        {
            "mask": np.packbits(one), "mask_shape": np.array(one.shape), "trace_seconds": np.ones(2),
            "mask:conv": np.packbits(two), "mask:conv_shape": np.array(two.shape), "mask:plain": one,
        }
    )  # fmt: skip
    assert set(found) == {"", "conv", "plain"}
    assert np.array_equal(found[""], one)
    assert np.array_equal(found["plain"], one)
    assert np.array_equal(found["conv"], two.reshape(2, 27))
    with pytest.raises(ValueError, match=r"'mask' has 8 bits, its shape .* needs 12"):
        masks_of({"mask": np.zeros(1, np.uint8), "mask_shape": np.array([3, 4])})


def test_the_best_mask_of_every_problem_is_kept():
    table, arrays = study()
    cells = prepared(table)
    found = gather(cells, arrays.__getitem__)
    assert len(found.traces) == len(cells)
    assert set(found.masks) == set(cells["problem"])
    for problem, (row, masks) in found.masks.items():
        assert cells.loc[row, "value"] == cells.loc[cells["problem"] == problem, "value"].min()
        assert np.array_equal(np.packbits(masks[""]), arrays[cells.loc[row, "key"]]["mask"])


def test_the_most_accurate_network_of_every_sparsity():
    cells = prepared(frame(prune("a", 0.5, 0.8), prune("b", 0.5, 0.9), prune("a", 0.9, 0.7)))
    found = gather(cells, lambda key: {"mask:0": np.eye(2, dtype=bool)})
    assert {page: row for page, (row, _) in found.masks.items()} == {"d-net@0.5": 1, "d-net@0.9": 2}


@pytest.mark.parametrize("error", [ValueError, zipfile.BadZipFile, OSError])
def test_arrays_that_cannot_be_read_are_told(error):
    def broken(key):
        raise error("no archive")

    found = gather(prepared(frame(solve("p", "a"))), broken)
    assert found.unreadable == {0: f"{error.__name__}: no archive"}
    assert gather(prepared(frame(solve("p", "a"))), None).traces == {}
