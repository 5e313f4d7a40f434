"""Masks, weights and values of every method, as they were before methods became points of axes.

`regression.json` was written by the code of that time. Values and sums are compared to nine digits, which is
what other machines' linear algebra may differ by; masks are compared exactly.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cbs

RECORD = Path(__file__).with_name("regression.json")
METHODS = (
    "magnitude", "random", "obd", "obd-recursion", "obd-exact", "obd-sd-fisher", "obd-sd-spread", "obs",
    "woodfisher", "cbs-s", "cbs", "joint",
)  # fmt: skip
BUDGETS = (
    (0.5, "unstructured", "row"),
    (0.7, "unstructured", "layer"),
    (0.7, "unstructured", "network"),
    (0.5, "columns", "layer"),
    (None, "2:4", "layer"),
)
CASES = {
    " ".join(map(str, (net, *budget, method, solver, recalibrate))): (
        net,
        budget,
        method,
        solver,
        recalibrate,
    )
    for net in ("mlp", "cnn")
    for budget in BUDGETS
    for method in METHODS
    for solver in (("auto", "greedy") if method == "joint" else ("auto",))
    for recalibrate in ((False, True) if method == "joint" else (False,))
    if not (method == "obs" and budget[1] == "columns")
} | {
    " ".join(map(str, (net, *budget, method))): (net, budget, method, "auto", False)
    for net in ("mlp", "cnn")
    for budget in ((0.5, "neurons", "layer"), (0.25, "neurons", "network"))
    for method in ("magnitude", "obd", "wanda", "woodfisher")
}


def network(net):
    """A small network with weights of full precision, and data for it."""
    if net == "mlp":
        model, shape = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4)), (8,)
    else:
        model = nn.Sequential(
            nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
        )
        shape = (2, 3, 3)
    rng = np.random.default_rng(7)
    state = model.state_dict()
    for name, values in state.items():
        if values.is_floating_point():
            drawn = rng.standard_normal(values.shape) * (0.5 if "weight" in name else 0.2)
            state[name] = torch.from_numpy(np.abs(drawn) + 0.3 if "var" in name else drawn)
    model.double().load_state_dict(state)
    x = torch.from_numpy(rng.standard_normal((60, *shape)) @ np.diag(np.linspace(1.5, 0.3, shape[-1])))
    y = torch.from_numpy(rng.integers(0, 4, 60))
    return model.eval(), (x, y)


def run(net, budget, method, solver, recalibrate):
    """Masks as text, and sums of weights and values, of one pruning; nothing of it depends on the time."""
    model, data = network(net)
    sparsity, kind, scope = budget
    granularity = "neurons" if kind == "neurons" else "weights"
    kind = "unstructured" if kind == "neurons" else kind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cbs.prune(
            model, data, sparsity=sparsity, budget=kind, scope=scope, granularity=granularity, method=method,
            solver=solver, refit="layer" if recalibrate else None, seed=3, time_limit=None, along="kernel",
        )  # fmt: skip
    sums = []
    for values in result.state.values():
        flat = values.double().ravel().numpy()
        sums += [float(flat.sum()), float(flat @ np.cos(np.arange(flat.size)))]
    masks = {
        name: "".join("#" if pruned else "." for pruned in mask.ravel().tolist())
        for name, mask in result.masks.items()
    }
    return {"masks": masks, "sums": sums, "value": result.value, "layers": [v.value for v in result.layers]}


@pytest.fixture(scope="module")
def record():
    """What every case gave."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_before(name, record):
    found, known = run(*CASES[name]), record[name]
    assert found["masks"] == known["masks"]
    for key in ("sums", "value", "layers"):
        np.testing.assert_allclose(found[key], known[key], rtol=1e-9, atol=1e-12)
