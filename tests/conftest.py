"""Fixtures that every test module may use."""

import copy
import functools
import os
import time

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  for the BLAS that it loads
import torch
from threadpoolctl import threadpool_limits

import cbs.zoo

os.environ["SOLVERS_COMPILE_BEHIND"] = "0"  # every test is of compiled code, also the first
torch.set_num_threads(1)  # the tests share few cores
threadpool_limits(1, "blas")
_trained = functools.cache(cbs.zoo.trained_digits_mlp)


@pytest.fixture(scope="session", autouse=True)
def digits_trained_once():
    """The digits network is trained once: it is the same whenever it is, and every test gets its own copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cbs.zoo, "trained_digits_mlp", lambda seed=0: copy.deepcopy(_trained(seed)))
        yield


class Clock:
    """A clock that a test turns: it stands still but for `advance`, and goes on by `tick` at a glance."""

    def __init__(self):
        self.start = self.now = time.perf_counter()
        self.tick = 0.0

    def __call__(self):
        self.now += self.tick
        return self.now

    def advance(self, seconds):
        self.now += seconds

    @property
    def passed(self):
        return self.now - self.start


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The clock by which everything goes that asks for `time.perf_counter()` during a test."""
    turned = Clock()
    monkeypatch.setattr(time, "perf_counter", turned)
    return turned


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
