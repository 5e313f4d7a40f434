"""Calls on a real Ray cluster of this machine, where Ray is installed."""

import os
import warnings

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from solvers.executors import ProcessDied, TimeLimitExceeded, executor

from .test_processes import burn


@pytest.mark.slow
def test_calls_are_held_to_limits_in_workers_of_ray():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        with executor("ray") as workers:
            assert [workers.submit(abs, -i).result() for i in range(3)] == [0, 1, 2]
            assert workers.call(abs, -3).result().host == os.uname().nodename
            with pytest.raises(TimeLimitExceeded):
                workers.call(burn, seconds=0.3).result()
            with pytest.raises(ProcessDied, match="left with status 3"):
                workers.submit(os._exit, 3).result()
            with pytest.raises(ZeroDivisionError):
                workers.submit(divmod, 1, 0).result()
        with pytest.raises(ValueError, match="no Ray cluster answers there"):
            executor("ray:127.0.0.1:1")
