"""Settings of executors: what they make, and what is refused in one line."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import solvers
from solvers.executors import door
from solvers.executors.door import borrowed, check_kind, executor, spec_of


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("proceses:4", {}, "unknown executor 'proceses:4'; did you mean 'processes'?"),
        ("http://host", {}, "unknown executor 'http://host'; write one of processes, processes:4, dask:tcp"),
        ("", {}, "executor must be a text such as processes, processes:4"),
        (3, {}, "executor must be a text such as processes, processes:4"),
        ("processes:", {}, "executor 'processes:': write a whole number of processes, such as processes:4"),
        ("processes:0", {}, "executor 'processes:0': write a whole number of processes"),
        ("processes:-1", {}, "executor 'processes:-1': write a whole number of processes"),
        ("processes:1000000", {}, "1000000 processes are too many for this machine; at most "),
        (
            "processes:2",
            {"workers": 3},
            "executor 'processes:2' has 2 processes, and workers=3 says otherwise",
        ),
        ("processes", {"workers": 0}, "executor 'processes': workers must be a whole number from 1, got 0"),
        (
            "processes",
            {"threads": 1.5},
            "executor 'processes': threads must be a whole number from 1, got 1.5",
        ),
        ("processes", {"memory": -1}, "executor 'processes': memory must be MiB, a positive number, got -1"),
        ("processes", {"queue": "a"}, "executor 'processes' takes no option 'queue'; only slurm has options"),
        (
            "processes?cores=2",
            {},
            "executor 'processes?cores=2': unknown option 'cores'; write threads or memory",
        ),
        ("processes:2?threads=x", {}, "threads must be a whole number, got 'x'"),
        ("processes:2?threads=0", {}, "threads must be a whole number from 1, got 0"),
        ("tcp://host:1", {"workers": 2}, "has as many workers as its cluster; leave workers=2 out"),
    ],
)
def test_bad_settings_are_refused_in_one_line(spec, options, told):
    with pytest.raises(ValueError) as caught:
        executor(spec, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("spec", "extra"), [("ray", "ray"), ("tcp://host:1", "dask"), ("slurm", "slurm")])
def test_a_missing_package_is_told_with_its_extra(spec, extra, monkeypatch):
    monkeypatch.setattr(door, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install 'combinatorial-brain-surgeon\[{extra}\]'"):
        executor(spec)


@pytest.mark.parametrize(
    "limit", [{"seconds": 0}, {"seconds": "1"}, {"memory": -2}, {"grace": -1}, {"key": ""}]
)
def test_bad_limits_of_a_call_are_refused(limit):
    (name,) = limit
    with executor("processes:1") as workers, pytest.raises(ValueError, match=f"{name} must be"):
        workers.call(abs, 1, **limit)


def test_it_is_exported_and_counts_as_told():
    assert solvers.executor is executor
    with executor("processes", workers=3, threads=2, memory=100) as workers:
        assert (workers.workers, workers.threads, workers.memory) == (3, 2, 100)
        assert spec_of(workers) == "processes"
        assert "3 at once, 2 threads each" in repr(workers)


def test_a_setting_is_checked_without_starting_anything():
    for known in (None, "processes:4", "tcp://nowhere:1", "given:ThreadPoolExecutor"):
        check_kind(known)
    with pytest.raises(ValueError, match="did you mean 'dask'"):
        check_kind("dsk:tcp://nowhere:1")


def test_threads_and_memory_may_be_in_the_setting():
    for spec in ("processes:1?threads=2&memory=500", "processes?memory=500&threads=2"):
        with executor(spec) as workers:
            assert (workers.threads, workers.memory) == (2, 500)
            assert workers.submit(os.getenv, "OMP_NUM_THREADS").result() == "2"


def test_an_executor_that_was_lent_stays_open():
    with ThreadPoolExecutor(1) as pool:
        with borrowed(pool) as lent:
            assert lent is pool
        assert pool.submit(abs, -1).result() == 1
        assert spec_of(pool) == "given:ThreadPoolExecutor"
    with borrowed(None) as none:
        assert none is None
    with borrowed("processes:1") as made:
        assert made.submit(abs, -1).result() == 1
    with pytest.raises(RuntimeError):
        made.submit(abs, -1)
    with pytest.raises(ValueError, match=r"or a concurrent.futures.Executor, got 5"), borrowed(5):
        pass
