"""Bad input on the command line: exit status 2, one line on standard error, nothing written."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cbs.cli import main
from cbs.zoo import digits_mlp
from solvers import Budget
from solvers.instances import random_problem, save


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder of its own; it must be refused, and leave the folder empty."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*argv):
        assert main([str(a) for a in argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("cbs: ")
        assert captured.err.endswith("\n")
        assert captured.err.count("\n") == 1
        assert list(here.iterdir()) == []
        return captured.err

    return run


@pytest.fixture
def instance(tmp_path):
    path = tmp_path / "layer.npz"
    save(path, random_problem(2, 8, Budget.per_row(4), seed=0))
    return path


def bad_instance(tmp_path, **changes):
    good = {"weights": np.ones((2, 4)), "hessian": np.eye(4), "budget": "per_row", "prune": 2}
    np.savez(tmp_path / "bad.npz", **(good | changes))
    return tmp_path / "bad.npz"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sovle"], "No such command 'sovle'. Did you mean 'solve'"),
        (["solve"], "Missing argument"),
        (["solve", "a.npz", "--gap", "small"], "--gap"),
        (["solve", "a.npz", "--colour"], "No such option"),
        (["solve", "a.npz", "b.npz"], "unexpected extra argument"),
        (["solve", "nowhere.npz", "--solver", "magnitude"], "'nowhere.npz' can't be read: it does not exist"),
        (["bound", "nowhere.npz"], "'nowhere.npz' can't be read: it does not exist"),
    ],
)
def test_usage(refused, argv, message):
    assert message in refused(*argv)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.full((2, 4), np.nan)}, "weights has nan at [0, 0]; every entry must be finite"),
        ({"weights": np.full((2, 4), np.inf)}, "weights has inf at [0, 0]"),
        ({"hessian": np.full((4, 4), np.nan)}, "hessian has nan at [0, 0]"),
        ({"hessian": np.full((4, 4), -np.inf)}, "hessian has -inf at [0, 0]"),
        ({"hessian": np.triu(np.ones((4, 4))) + np.eye(4)}, "asymmetric by 1; give (H + H.T) / 2"),
        ({"hessian": np.diag([1.0, -1, 1, 1])}, "hessian is indefinite (smallest eigenvalue "),
        ({"hessian": np.ones((4, 4))}, "singular"),
        ({"hessian": np.eye(5)}, "hessian has shape (5, 5), but weights [2, 4] need (4, 4) or (2, 4, 4)"),
        ({"gradient": np.ones((4, 2))}, "gradient has shape (4, 2), the weights (2, 4)"),
        ({"prune": 5}, "budget prunes 5 weights, but there are only 4 in a row"),
        ({"budget": "per_layer", "prune": 9}, "there are only 8 in the layer"),
        ({"budget": "rows"}, "'rows'; it must be one of per_row, per_layer, n_of_m, columns"),
    ],
)
def test_bad_instance(refused, tmp_path, changes, message):
    path = bad_instance(tmp_path, **changes)
    assert message in refused("solve", path, "--solver", "brute-force")
    assert message in refused("bound", path)


def test_group_that_does_not_divide_the_inputs(refused, tmp_path):
    np.savez(tmp_path / "bad.npz", weights=np.ones((2, 4)), hessian=np.eye(4), budget="n_of_m", keep=1, of=3)
    assert "`of` = 3 does not divide 4 inputs" in refused("bound", tmp_path / "bad.npz")


def test_solver(refused, instance, tmp_path, monkeypatch):
    assert "did you mean 'brute-force'?" in refused("solve", instance, "--solver", "brute-forse")
    big = tmp_path / "big.npz"
    save(big, random_problem(1, 40, Budget.per_row(20), seed=0))
    assert "more than the limit" in refused("solve", big, "--solver", "brute-force")
    assert "does not do the joint variant" in refused("solve", instance, "--solver", "cp-sat")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gurobipy" else found(name, *rest)
    )
    assert "pip install 'gurobipy>=11'" in refused("solve", instance, "-s", "gurobi")


def test_limits(refused, instance):
    solve = ("solve", instance, "--solver", "magnitude")
    assert "time_limit must be positive seconds" in refused(*solve, "--time-limit", "0")
    assert "time_limit must be positive seconds" in refused(*solve, "--time-limit", "nan")
    assert "gap must be a finite number >= 0, got -1.0" in refused(*solve, "--gap", "-1")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", "\xff", '{"pruned": 3}', '{"pruned": [["a"], [1]]}', '{"pruned": [[99], [1]]}'],
)
def test_warm_start_that_is_no_result(refused, instance, tmp_path, content):
    (tmp_path / "warm.json").write_text(content, encoding="latin-1")
    argv = ("solve", instance, "--solver", "magnitude", "--warm-start", tmp_path / "warm.json")
    assert "does not list the pruned columns of each of 2 rows" in refused(*argv)


def test_warm_start_off_the_budget(refused, instance, tmp_path):
    (tmp_path / "warm.json").write_text(json.dumps({"pruned": [[0], [1]]}))
    argv = ("solve", instance, "--solver", "magnitude", "--warm-start", tmp_path / "warm.json")
    assert "does not meet the budget: pool 0 prunes 1 of 8" in refused(*argv)
    assert "nowhere.json" in refused(*argv[:-1], "nowhere.json")


MODULE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))

def nan():
    broken = model()
    broken[0].weight.data[1, 2] = float("nan")
    return broken

bare = nn.ReLU()
word = "model"
def broken(): raise RuntimeError("no luck\\nat all")

X, y = torch.randn(20, 6), torch.randint(3, (20,))
data = (X, y)
wide = (torch.randn(20, 7), y)
endless = (X * float("inf"), y)
short = (X, y[:5])
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's module, on the path but outside the folder that must stay empty."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "badly_used.py").write_text(MODULE)
    (tmp_path / "lib" / "badly_written.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    yield "badly_used"
    for name in ("badly_used", "badly_written"):
        sys.modules.pop(name, None)


FAST = ("--method", "magnitude", "--solver", "magnitude")
OWN = ("badly_used:model", "--data", "badly_used:data")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--method", "magnitud"], "unknown method 'magnitud'; did you mean 'magnitude'?"),
        (["--method", "joint,magnitud"], "unknown method 'magnitud'"),
        (["--solver", "brute-forze"], "unknown solver 'brute-forze'; did you mean 'brute-force'?"),
        (["--sparsity", ","], "sparsity names nothing, got ','; leave it out for the default"),
        (["--layers", ", "], "layers names nothing, got ', '; leave it out for the default"),
        (["--sparsity", "half"], "sparsity must be numbers in [0, 1)"),
        (["--sparsity", "0.5,1"], "sparsity must lie in [0, 1), got 1.0"),
        (["--sparsity", "nan"], "sparsity must lie in [0, 1), got nan"),
        (["--scope", "rows"], "unknown scope 'rows'; did you mean 'row'?"),
        (["--budget", "colums"], "did you mean 'columns'?"),
        (["--budget", "5:4"], "budget '5:4'"),
        (["--granularity", "neuron"], "did you mean 'neurons'?"),
        (["--granularity", "neurons", "--budget", "columns"], "granularity 'neurons' takes 'unstructured'"),
        (
            ["--granularity", "neurons", "-m", "obc"],
            "method 'obc' prunes weights, not neurons; these do: magn",
        ),
        (["--budget", "2:4", "--sparsity", "0.9"], "disagrees with budget '2:4'"),
        (["--time-limit", "-1"], "time_limit must be positive seconds"),
        ([*OWN, "--damping", "-1"], "damping must be a finite number"),
        ([*OWN, "--loss", "mse_los"], "unknown loss 'mse_los'; did you mean 'mse_loss'?"),
        (["--time-limt", "3"], "No such option: --time-limt (Possible options: --time-limit)"),
        (["--damping", "-1"], "damping must be a finite number"),
        (["--samples", "0"], "samples must be at least 1"),
        ([*OWN, "--layers", "0,1"], "layers: '1' names no prunable layer; there are 0, 2"),
        ([*OWN, "--samples", "0"], "samples must be at least 1"),
        (["digit"], "unknown model 'digit'; did you mean 'digits'?"),
        (["resnet"], "unknown model 'resnet'; give digits, mlpnet, package.module:name"),
        (["nowhere_to_be_found:model"], "importing 'nowhere_to_be_found' failed (ModuleNotFoundError"),
        (["badly_written:model"], "importing 'badly_written' failed"),
        (["badly_used:mode"], "has no 'mode'; did you mean 'model'?"),
        (["badly_used:word"], "is str; it must be a torch.nn.Module or make one"),
        (["badly_used:broken"], "must work without arguments, but failed (RuntimeError: no luck)"),
        (["badly_used:model"], "data is missing for model 'badly_used:model'; give --data"),
        (["badly_used:model", "--data", "digits"], "data 'digits' must be given as package.module:name"),
        (["badly_used:model", "--data", "badly_used:dat"], "has no 'dat'; did you mean 'data'?"),
        (["badly_used:bare", "--data", "badly_used:data"], "prunable"),
        (["badly_used:nan", "--data", "badly_used:data"], "layer '0' has a NaN or infinite weight"),
        (["badly_used:model", "--data", "badly_used:wide"], "the model refuses inputs of shape"),
        (["badly_used:model", "--data", "badly_used:endless"], "NaN or infinite"),
        (["badly_used:model", "--data", "badly_used:short"], "inputs [20, 6] and targets [5]"),
        (
            ["badly_used:model", "--data", "badly_used:data", "--budget", "2:4"],
            "4 does not divide the 6 inputs",
        ),
        (["--weights", "nowhere.safetensors"], "weights 'nowhere.safetensors' is not a file"),
    ],
)
def test_prune(refused, mine, argv, message):
    assert message in refused("prune", *FAST, *argv)


def test_prune_missing_dependency(refused, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gurobipy" else found(name, *rest)
    )
    assert "pip install 'gurobipy>=11'" in refused("prune", "--solver", "gurobi")


def test_prune_weights_of_another_architecture(refused, tmp_path):
    good = digits_mlp().state_dict()
    cases = {
        "lack '0.bias'": {name: tensor for name, tensor in good.items() if name != "0.bias"},
        "'0.weight' has shape [8, 64], but the model needs [32, 64]": good | {"0.weight": torch.ones(8, 64)},
    }
    for message, state in cases.items():
        save_file(state, tmp_path / "w.safetensors")
        assert message in refused("prune", *FAST, "--weights", tmp_path / "w.safetensors")
        torch.save(state, tmp_path / "w.pt")
        assert message in refused("prune", *FAST, "--weights", tmp_path / "w.pt")


def test_prune_weights_that_are_no_state_dict(refused, tmp_path):
    (tmp_path / "w.safetensors").write_text("weights")
    (tmp_path / "w.pt").write_text("weights")
    for name in ("w.bin", "w.txt"):
        (tmp_path / name).write_text("weights")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    torch.save(digits_mlp(), tmp_path / "pickled.pt")
    for name, message in {
        "w.safetensors": "can't be read", "w.pt": "can't be read", "w.pth": "it holds no state dict",
        "pickled.pt": "can't be read", "w.bin": "can't be read",
        "w.txt": "must be a .safetensors or .pt file",
    }.items():  # fmt: skip
        assert message in refused("prune", *FAST, "--weights", tmp_path / name)
    (tmp_path / "w.npz").write_text("weights")
    np.savez(tmp_path / "half.npz", fc1=np.zeros((40, 784), np.float32))
    np.savez(tmp_path / "wide.npz", fc1=np.zeros((40, 785), np.float32))
    for name, message in {
        "w.npz": "is not an .npz file", "nowhere.npz": "is not an .npz file", "half.npz": "no array 'fc2'",
        "wide.npz": "fc1 has shape [40, 785], MLPNet needs [40, 784]",
    }.items():  # fmt: skip
        assert message in refused("prune", "mlpnet", *FAST, "--weights", tmp_path / name)


def test_prune_output_is_refused_before_the_work(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("cbs.cli.sources.gather_job", lambda *args: pytest.fail("work has begun"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "old").mkdir()
    assert "can't be written" in refused("prune", *FAST, "--output", tmp_path / "file" / "run")
    assert "exists; give a folder that does not" in refused("prune", *FAST, "--output", tmp_path / "old")
    assert (tmp_path / "file").read_text() == "kept"
