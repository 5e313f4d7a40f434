"""How many rows are worked on at once."""

import os
import threading

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from solvers.runtime.parallel import THREADS, one_thread_each, side_by_side, workers


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


def threads_of_blas():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_one_thread_each_ends_with_the_last_that_asked_for_it():
    with threadpool_limits(2, user_api="blas"):
        before = threads_of_blas()
        assert max(before) > 1
        first, second = one_thread_each(), one_thread_each()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert max(threads_of_blas()) == 1
        second.__exit__(None, None, None)
        assert threads_of_blas() == before
