"""A pruning's searches on an executor: what becomes of the network is the same."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import cbs
import cbs.zoo
from solvers import executor


@pytest.fixture(scope="module")
def pool():
    with executor("processes:1") as made:
        yield made


def same(a, b):
    """Whether two results are the same to the last bit, weights included."""
    states = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return (
        all(torch.equal(x, y) for x, y in states)
        and (a.value, a.bound, a.status) == (b.value, b.bound, b.status)
        and [(layer.value, layer.bound) for layer in a.layers]
        == [(layer.value, layer.bound) for layer in b.layers]
    )


def small(seed=0):
    """A network whose layers are searched in moments, and its data."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    inputs = torch.tensor(rng.normal(size=(80, 12)), dtype=torch.float32)
    return model, (inputs, model(inputs).argmax(1))


def test_a_small_network_is_the_same_on_workers(pool):
    model, data = small()
    here = cbs.prune(model, data, sparsity=0.5)
    there = cbs.prune(model, data, sparsity=0.5, executor=pool)
    assert same(here, there)
    assert there.request.executor == "processes:1"
    assert there.to_dict()["request"]["executor"] == "processes:1"


def test_an_executor_of_another_kind_does_and_is_told_by_its_class():
    model, data = small()
    with ThreadPoolExecutor(1) as threads:
        result = cbs.prune(model, data, sparsity=0.5, executor=threads)
    assert result.request.executor == "given:ThreadPoolExecutor"
    assert cbs.Request(**result.to_dict()["request"]) == result.request
    assert same(cbs.prune(model, data, sparsity=0.5), result)


def test_an_executor_that_is_none_is_refused_before_any_work():
    model, data = small()
    for given in ("proceses", 3):
        with pytest.raises(ValueError, match="executor"):
            cbs.prune(model, data, sparsity=0.5, executor=given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"scope": "row"},
        {"scope": "layer", "sparsity": 0.95},
        {"scope": "network", "sparsity": 0.97},
        {"scope": "row", "pipeline": "sequential"},
        {"method": "obd"},
        {"method": "cbs-s"},
        {"method": "obc"},
        {"solver": "local-search"},
        {"scope": "layer", "stages": 2, "solver": "greedy"},
    ],
    ids=str,
)
def test_the_digits_network_is_the_same_on_workers(pool, asked):
    model, split = cbs.zoo.trained_digits_mlp()
    asked = {"sparsity": 0.9, "patience": None, **asked}
    assert same(cbs.prune(model, split.train, **asked), cbs.prune(model, split.train, executor=pool, **asked))
