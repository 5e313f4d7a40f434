"""How many rows are worked on at once."""

import os
import threading

import pytest

from solvers.runtime.parallel import THREADS, side_by_side, workers


@pytest.mark.parametrize(
    ("told", "most"), [("1", 1), ("100000", None), ("0", None), ("many", None), ("", None)]
)
def test_it_is_the_cores_or_fewer_if_told(monkeypatch, told, most):
    monkeypatch.delenv(THREADS, raising=False)
    cores = workers()
    assert cores == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    monkeypatch.setenv(THREADS, told)
    assert workers() == (most or cores)
    assert side_by_side(abs, [-1, -2, 3]) == [1, 2, 3]


def test_what_is_alone_is_done_in_the_caller_s_thread(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    here = threading.get_ident()
    assert side_by_side(lambda _: threading.get_ident(), [0]) == [here]
    assert side_by_side(lambda _: threading.get_ident(), iter(range(3)), 1) == [here] * 3
    if workers() > 1:
        assert here not in side_by_side(lambda _: threading.get_ident(), [0, 1])
