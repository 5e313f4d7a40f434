"""Bytes: as many as bits make, the shortest mask, and back again."""

import math

import numpy as np
import pytest

from cbs.quantization.packing import PackedMask, pack, pack_mask, unpack, unpack_mask


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 65])
def test_codes_take_as_many_bits_as_they_have(bits, count):
    codes = np.random.default_rng(count).integers(2**bits, size=count).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == math.ceil(count * bits / 8)
    assert np.array_equal(unpack(packed, bits, count), codes)


def test_codes_lie_one_after_another_the_highest_bit_first():
    assert pack(np.array([5, 2, 7], dtype=np.uint8), 3).tolist() == [0b10101011, 0b10000000]


@pytest.mark.parametrize("shape", [(3, 5), (16, 16), (20, 40)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_a_mask_takes_the_shorter_of_its_forms(shape, share):
    size = math.prod(shape)
    pruned = np.zeros(size, dtype=bool)
    pruned[np.random.default_rng(0).permutation(size)[: round(share * size)]] = True
    pruned = pruned.reshape(shape)
    packed = pack_mask(pruned)
    width = 1 if size <= 256 else 2
    fewer = min(pruned.sum(), size - pruned.sum())
    assert len(packed.data) == (0 if not pruned.any() else min(math.ceil(size / 8), fewer * width))
    assert np.array_equal(unpack_mask(packed, shape), pruned)


def test_bytes_that_are_no_mask_are_refused():
    with pytest.raises(ValueError, match="a mask of 15 weights takes 2 bytes"):
        unpack_mask(PackedMask("bitmap", np.zeros(3, dtype=np.uint8)), (3, 5))
    with pytest.raises(ValueError, match="a mask of 15 weights has no place 15"):
        unpack_mask(PackedMask("kept", np.array([15], dtype=np.uint8)), (3, 5))
