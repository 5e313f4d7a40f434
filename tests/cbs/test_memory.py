"""A limit of memory, and what is left of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cbs
from cbs import memory

ROOT = Path(__file__).parents[2]
MEASURED = """
import json, resource, sys
import torch
import cbs

def held(name):
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith(name)]
    return int(line.split()[1]) / 2**20

torch.manual_seed(0)
parts = [part for _ in range(5) for part in (torch.nn.Linear(256, 256), torch.nn.ReLU())]
wide = torch.nn.Sequential(*parts, torch.nn.Linear(256, 4))
x = torch.randn(500, 64, 256)
data = x, torch.randn(500, 64, 4)
options = {"sparsity": 0.5, "loss": "mse_loss", "certify": False, **json.loads(sys.argv[1])}
cbs.prune(wide, (x[:4], data[1][:4]), **options)  # compiled, imported
before = held("VmRSS")
result = cbs.prune(wide, data, memory=float(sys.argv[2]), **options)
print(json.dumps([held("VmHWM") - before, result.history[0].stats["memory"], result.value]))
"""


def measured(gib, **options):
    """GiB that a pruning took at most beyond what was held, its account of it, and its value."""
    command = [sys.executable, "-c", MEASURED, json.dumps(options), str(gib)]
    told = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(told.stdout.splitlines()[-1])


def test_what_is_left_falls_by_what_is_taken():
    with memory.limited(0.5) as limit:
        before = limit.left
        taken = np.ones(2**24)
        assert 0.9 * taken.nbytes < before - limit.left < 1.5 * taken.nbytes
        assert memory.free_memory() == pytest.approx(limit.left, abs=2**22)
    assert memory.limit().bytes != limit.bytes


def test_the_outer_limit_holds():
    with memory.limited(0.25), memory.limited(4.0) as inner:
        assert inner.bytes == 2**28


def test_the_default_grows_with_the_network_but_not_past_half_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 64.0 * 2**30)
    with memory.limited(None) as limit:
        assert limit.bytes == memory.DEFAULT * 2**30
    with memory.limited(None, 10**8) as limit:
        assert limit.bytes == memory.WEIGHT_BYTES * 10**8
    monkeypatch.setattr(memory, "machine_memory", lambda: 3.0 * 2**30)
    with memory.limited(None, 10**8) as limit:
        assert limit.bytes == 1.5 * 2**30


@pytest.mark.parametrize("wrong", [0, -1, True, "4", float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^memory must be GiB, at least"):
        cbs.prune(None, None, sparsity=0.5, memory=wrong)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"method": "sparsegpt"}, {"method": "obd-sd-fisher"}])
def test_a_pruning_keeps_to_its_limit(options):
    taken, told, value = measured(0.25, **options)
    assert taken < 0.25
    assert told["limit"] == 0.25
    free, _, same = measured(2.0, **options)
    assert same == pytest.approx(value, rel=1e-9)
    assert free > 0.25  # which the limit changed
