import io
import zipfile

import numpy as np
import pytest

from cbs.study.arrays import mask_arrays, mask_of, packed, trace_arrays, unpacked
from solvers import Bounds, Progress


def test_arrays_survive_as_an_archive_without_pickles():
    arrays = {"a": np.arange(5.0), "b": np.array([[1, 2], [3, 4]], dtype=np.int64)}
    data = packed(arrays)
    back = unpacked(data)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            assert archive.read(name).startswith(b"\x93NUMPY")


def test_nothing_is_no_bytes():
    assert packed({}) == b""
    assert unpacked(None) == unpacked(b"") == {}


def test_objects_are_refused():
    with pytest.raises(ValueError, match="'a' holds objects"):
        packed({"a": np.array([{}], dtype=object)})


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 16), (5, 0)])
def test_masks_come_back(shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    arrays = mask_arrays(mask)
    assert arrays["mask"].nbytes <= mask.size // 8 + 1
    assert np.array_equal(mask_of(unpacked(packed(arrays))), mask)


def test_traces_keep_every_step():
    trace = [Progress(0.5, Bounds(1.0, 3.0), 4), Progress(1.0, Bounds(2.0, 2.5), 9)]
    arrays = trace_arrays(trace)
    assert arrays["trace_seconds"].tolist() == [0.5, 1.0]
    assert arrays["trace_value"].tolist() == [3.0, 2.5]
    assert arrays["trace_bound"].tolist() == [1.0, 2.0]
    assert arrays["trace_nodes"].tolist() == [4, 9]
    assert trace_arrays([]) == {}
