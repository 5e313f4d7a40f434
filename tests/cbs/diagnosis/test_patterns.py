import itertools

import pytest
import torch

from cbs.diagnosis.patterns import conforming, most, pattern


def zeros(text, columns):
    return torch.tensor([c == "0" for c in text.replace(" ", "")]).reshape(-1, columns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1010 0011", "2:4"),
        ("1010 0101", "1:2"),
        ("1000 0001", "1:4"),
        ("1000 0000", "1:8"),
        ("1110 0111", "3:4"),
        ("1111 0000", "4:8"),
        ("1111 0100", ""),
        ("1100 0000", "2:8"),
        ("0000 0000", ""),
        ("1111 1111", ""),
    ],
)
def test_the_tightest_pattern_is_found(text, expected):
    found = pattern(zeros(text, 8))
    assert found == expected
    if found:
        keep, of = map(int, found.split(":"))
        assert conforming(zeros(text, 8), keep, of) == 1.0
        for n, m in itertools.product(range(1, 8), (2, 4, 8)):
            if n / m < keep / of and 2 * n <= m:
                assert conforming(zeros(text, 8), n, m) < 1.0


def test_a_size_that_does_not_divide_says_nothing():
    assert most(zeros("101010", 6), 4) is None
    assert conforming(zeros("101010", 6), 2, 4) is None
    assert pattern(zeros("101010", 6)) == "1:2"
    assert conforming(zeros("1010 1110 0000 0001", 4), 2, 4) == 0.75
