import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import cbs
from cbs.cli import main
from cbs.cli.ticker import Ticker
from cbs.report import COLUMNS

MODULE = """
import torch
from torch import nn
from cbs import Samples, Split

class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))

def samples(seed, count):
    g = torch.Generator().manual_seed(seed)
    return Samples(torch.randn(count, 8, generator=g), torch.randint(3, (count,), generator=g))

def train():
    return samples(1, 30)

held_out = samples(2, 12)

class Loaders:
    both = Split(samples(1, 30), held_out)

ready = Net()
"""


WIDE = """
import torch
from torch import nn
from cbs import Samples

torch.manual_seed(0)
data = Samples(torch.randn(300, 160), torch.randint(4, (300,)))

def net():
    widths = [160, 60, 160, 4]
    layers = [m for a, b in zip(widths, widths[1:]) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a user's module in it, which the command is run in."""
    (tmp_path / "well_used.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("well_used", None)


MINE = ("prune", "well_used:Net", "--data", "well_used:train", "--test", "well_used:held_out")
FAST = ("--method", "magnitude,random", "--solver", "brute-force", "--output", "out")


def run_json(capsys, *argv, status=0):
    assert main([str(a) for a in argv] + ["--json"]) == status
    return json.loads(capsys.readouterr().out)


def run_json_with_lines(capsys, *argv):
    assert main([str(a) for a in argv] + ["--json"]) == 0
    captured = capsys.readouterr()
    return {**json.loads(captured.out), "lines": captured.err.splitlines()}


def test_report_is_what_compare_says(capsys, here):
    printed = run_json(capsys, *MINE, *FAST, "--sparsity", "0.5,0.75")
    assert json.loads((here / "out" / "report.json").read_text()) == printed
    well_used = sys.modules["well_used"]
    expected = cbs.compare(
        well_used.Net(), well_used.train(), sparsities=[0.5, 0.75], methods=["magnitude", "random"],
        solver="brute-force", test=well_used.held_out,
    )  # fmt: skip
    assert [(r["method"], r["asked"]) for r in printed["results"]] == [(r.method, r.asked) for r in expected]
    for got, want in zip(printed["results"], expected, strict=True):
        assert got["value"] == want.value
        assert got["bound"] == want.bound
        assert got["measured"]["test_after"]["accuracy"] == want.test_after.accuracy
    assert printed["settings"]["methods"] == ["magnitude", "random"]
    assert printed["settings"]["output"] == "out"


def test_table_has_a_line_a_method_and_sparsity(capsys, here):
    assert main([*MINE, *FAST, "-s", "0.5", "-s", "0.75"]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.strip()]
    for name in COLUMNS:
        assert name in lines[0]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["50.0%", "magnitude"], ["50.0%", "random"], ["75.0%", "magnitude"], ["75.0%", "random"],
    ]  # fmt: skip
    assert lines[5].startswith("dense accuracy ")
    assert lines[5].endswith("written to out: begin with report.html")
    assert "magnitude at 50%: " in captured.err
    assert "random at 75%: " in captured.err


def test_weights_are_pruned_and_load_again(capsys, here):
    run_json(capsys, *MINE, *FAST, "--sparsity", "0.75", "--scope", "row")
    state = load_file(here / "out" / "magnitude-0.75.safetensors")
    assert int((state["0.weight"] == 0).sum()) == 4 * 6
    assert (state["0.weight"] == 0).sum(dim=1).tolist() == [6] * 4
    again = run_json(
        capsys, *MINE, *FAST[:-1], "again", "--weights", here / "out" / "magnitude-0.75.safetensors",
        "--sparsity", "0.75", "--scope", "row",
    )  # fmt: skip
    assert again["results"][0]["value"] == pytest.approx(0.0, abs=1e-12)


def test_sources(capsys, here):
    first = run_json(capsys, *MINE, *FAST, "--sparsity", "0.5")["results"]
    split = ("prune", "well_used:ready", "--data", "well_used:Loaders.both", *FAST[:-1])
    again = run_json(capsys, *split, "split", "--sparsity", "0.5")["results"]
    assert [r["value"] for r in again] == [r["value"] for r in first]
    assert [r["measured"]["test_after"] for r in again] == [r["measured"]["test_after"] for r in first]
    save_file(sys.modules["well_used"].Net().state_dict(), here / "w.safetensors")
    torch.save(load_file(here / "w.safetensors"), here / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        filled = run_json(capsys, *MINE, *FAST[:-1], name + "-run", "-s", "0.5", "--weights", name)["results"]
        assert filled[0]["value"] == first[0]["value"]


def test_a_pattern_brings_its_own_sparsity(capsys, here):
    results = run_json(capsys, *MINE, *FAST, "--budget", "2:4")["results"]
    assert [r["sparsity"] for r in results] == [0.5, 0.5]


def test_a_scope_that_the_budget_ignores_is_told_if_it_was_given(capsys, here):
    argv = (*MINE, "--budget", "2:4", "-m", "magnitude", "--no-certify")
    told = run_json_with_lines(capsys, *argv, "--scope", "row", "-o", "a")["lines"]
    assert told.count("cbs: scope 'row' is ignored: budget '2:4' holds in every row") == 1
    assert not any("ignored" in line for line in run_json_with_lines(capsys, *argv, "-o", "b")["lines"])


def test_defaults_are_those_of_python_and_without_a_model_those_of_a_demonstration(here, monkeypatch):
    asked = []

    def stop(*args, **options):
        asked.append(options)
        raise ValueError("the work would begin here")

    monkeypatch.setattr("cbs.compare", stop)
    monkeypatch.setattr("cbs.cli.sources.trained_digits_mlp", lambda: (cbs.digits_mlp(), cbs.digits()))
    for argv in ((), ("--scope", "layer"), ("--budget", "2:4"), ("digits",), MINE[1:], ("--patience", "0")):
        assert main(["prune", *argv, "-o", "never"]) == 2
    plain, scoped, pattern, named, mine, patient = asked
    for given in asked:
        assert given["sparsities"] == ([None] if given is pattern else [0.5, 0.75, 0.9])
        known = [
            name
            for name, facts in cbs.methods().items()
            if given is not pattern or "weights" in facts["granularity"]
        ]
        assert given["methods"] == (["joint"] if id(given) in (id(named), id(mine)) else known)
        assert given.get("scope") == {
            id(plain): "row", id(scoped): "layer", id(named): "row", id(patient): "row",
        }.get(id(given))  # fmt: skip
        assert ("patience" in given) == (given is patient)
    assert patient["patience"] is None


def test_methods_that_nobody_named_and_that_can_not_do_it_are_left_out(capsys, here, monkeypatch):
    asked = []
    monkeypatch.setattr("cbs.compare", lambda *args, **options: asked.append(options) or ctrl_c())
    monkeypatch.setattr("cbs.cli.sources.trained_digits_mlp", lambda: (cbs.digits_mlp(), cbs.digits()))
    assert main(["prune", "--budget", "columns", "-s", "0.5", "-o", "out"]) == 130
    assert "obs" not in asked[0]["methods"]
    assert {"magnitude", "joint"} < set(asked[0]["methods"])
    assert capsys.readouterr().err.count("cbs: method 'obs' does not do budget 'columns'") == 1


def ctrl_c():
    raise KeyboardInterrupt


def test_layers_and_bounds_can_be_left_out(capsys, here):
    results = run_json(capsys, *MINE, *FAST, "-s", "0.5", "--layers", "2", "--no-certify")["results"]
    assert [[layer["name"] for layer in r["layers"]] for r in results] == [["2"], ["2"]]
    assert [r["bound"] for r in results] == [None, None]


def test_default_folder_is_named_after_the_time(capsys, here):
    settings = run_json(capsys, *MINE, *FAST[:-2], "-s", "0.5")["settings"]
    (folder,) = (here / "runs").iterdir()
    assert settings["output"] == f"runs/{folder.name}"
    assert (folder / "plot.png").stat().st_size > 0


def test_the_embedded_network_is_trained_and_pruned(capsys, here):
    argv = ("prune", "-m", "magnitude", "-s", "0.5", "--samples", "200", "--no-certify", "-o", "d")
    (result,) = run_json(capsys, *argv)["results"]
    assert [layer["shape"] for layer in result["layers"]] == [[32, 64], [16, 32], [10, 16]]
    assert result["measured"]["test_before"]["accuracy"] > 0.93
    assert result["measured"]["before"]["samples"] == 200


def test_progress_ends_with_incumbent_bound_and_gap_of_every_layer(capsys, here):
    argv = ("--method", "joint,magnitude", "--output", "out", "-s", "0.5,0.75", "--scope", "row")
    report = run_json_with_lines(capsys, *MINE, *argv)
    lines = report.pop("lines")
    assert len([line for line in lines if "magnitude" in line and "certify" not in line]) == 2
    for result in report["results"]:
        if result["method"] != "joint":
            continue
        for i, layer in enumerate(result["layers"]):
            head = f"joint at {100 * result['asked']:g}%: select layer {layer['name']} ({i + 1} of 2), "
            last = [line for line in lines if head in line][-1]
            told = dict(part.rsplit(" ", 1) for part in last.split(head)[1].split(", "))
            assert float(told["incumbent"]) == pytest.approx(layer["value"], rel=1e-5)
            assert float(told["bound"]) == pytest.approx(layer["bound"], rel=1e-5)
            assert float(told["gap"].rstrip("%")) / 100 <= 1e-4


def test_ctrl_c_while_a_layer_is_searched_keeps_all_layers(capsys, here, monkeypatch):
    (here / "well_used.py").write_text(WIDE)
    seen = []

    def watched(self, step):
        seen.append((step.stage, step.layer))
        bounds = None if step.progress is None else step.progress.bounds
        if seen[-1] == ("select", "0") and bounds is not None and bounds.lower > 0:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Ticker, "__call__", watched)
    argv = ("prune", "well_used:net", "--data", "well_used:data", "--method", "joint", "-s", "0.5")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run aside
    try:
        report = run_json(capsys, *argv, "--scope", "row", "--output", "out", status=130)
    finally:
        signal.signal(signal.SIGINT, before)
    (result,) = report["results"]
    assert report["interrupted"] is True
    assert result["status"] == "interrupted"
    first, _, last = result["layers"]
    assert first["solver"] == "auto"
    assert first["status"] in ("feasible", "interrupted")
    assert 0 < first["bound"] <= first["value"]
    assert (last["solver"], last["status"]) == ("magnitude", "interrupted")
    weights = load_file(here / "out" / "joint-0.5.safetensors")
    for layer in result["layers"]:
        kept = (weights[f"{layer['name']}.weight"] != 0).sum()
        assert kept == layer["kept"]


def test_interrupted_keeps_what_was_found(capsys, here, monkeypatch):
    shown = Ticker.__call__

    def stop_after_random(self, step):
        shown(self, step)
        return step.method == "random"

    monkeypatch.setattr(Ticker, "__call__", stop_after_random)
    report = run_json(capsys, *MINE, *FAST, "--sparsity", "0.5,0.75", status=130)
    assert [(r["method"], r["asked"]) for r in report["results"]] == [("magnitude", 0.5), ("random", 0.5)]
    assert report["interrupted"] is True
    assert (here / "out" / "random-0.5.safetensors").exists()
    assert not (here / "out" / "magnitude-0.75.safetensors").exists()


def test_interrupted_before_the_first_result_writes_nothing(capsys, here, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cbs.compare", interrupt)
    assert main([*MINE, *FAST]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "cbs: interrupted before there was a result"
    assert not (here / "out").exists()


def test_methods_lists_the_table(capsys):
    assert main(["methods", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == cbs.methods()
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for name in cbs.methods():
        assert name in listed


def test_a_loss_is_named_and_a_method_that_fails_is_left_out(capsys, here, monkeypatch):
    (here / "regression.py").write_text(
        "import torch\nfrom torch import nn\n"
        "torch.manual_seed(0)\nnet = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))\n"
        "data = torch.randn(40, 6), torch.randn(40, 1)\n"
        "class Loss(nn.MSELoss):\n    pass\n"
        "def loss(outputs, targets):\n    return nn.functional.mse_loss(outputs, targets)\n"
    )
    monkeypatch.setattr("cbs.curvature.gauss_newton.WIDEST", 0)
    argv = ("prune", "regression:net", "--data", "regression:data", "-s", "0.5", "--no-certify")
    found = []
    for i, loss in enumerate(("mse_loss", "regression:loss", "regression:Loss")):
        report = run_json_with_lines(capsys, *argv, "-m", "magnitude,obs", "--loss", loss, "-o", f"out{i}")
        assert [result["method"] for result in report["results"]] == ["magnitude"]
        assert report["settings"]["loss"] == loss
        found.append(report["results"][0]["measured"]["before"])
        assert "cbs: no --weights given: pruning the network as its module makes it" in report["lines"]
        assert sum("cbs: method 'obs' is left out: " in line for line in report["lines"]) == 1
    assert found[0] == found[1] == found[2]
    assert found[0]["loss"] > 0
    for given, told in (
        ((), "mse_loss"),
        (("--loss", "mse_los"), "unknown loss 'mse_los'; did you mean 'mse_loss'"),
    ):
        assert main([*argv, *given, "-o", "bad"]) == 2
        assert told in capsys.readouterr().err.strip().splitlines()[-1]
        assert not (here / "bad").exists()


def test_accuracy_without_test_data_says_so(capsys, here):
    argv = (
        "prune",
        "well_used:Net",
        "--data",
        "well_used:train",
        "-m",
        "magnitude",
        "-s",
        "0.5",
        "--no-certify",
    )
    assert main([*argv, "-o", "a"]) == 0
    out = capsys.readouterr().out
    assert "calib. accuracy" in out
    assert "dense accuracy on calibration data" in out
    assert main([*argv, "--test", "well_used:held_out", "-o", "b"]) == 0
    assert "calib" not in capsys.readouterr().out


def test_stages_and_fine_tuning_from_the_shell_are_those_of_python(capsys, here):
    argv = (
        "--method",
        "magnitude,joint",
        "-s",
        "0.75",
        "--stages",
        "2",
        "--finetune",
        "3",
        "--output",
        "out",
    )
    report = run_json_with_lines(capsys, *MINE, *argv)
    lines = report.pop("lines")
    assert any("joint at 75%, stage 2 of 2: " in line for line in lines)
    assert (Path("out") / "stages.png").stat().st_size > 10_000
    page = (Path("out") / "table.md").read_text()
    assert "## Stages" in page
    assert "| joint 75% | 2 | 7" in page
    assert "| `stages.png` |" in page
    import well_used

    results = cbs.compare(
        well_used.Net(), well_used.train(), sparsities=[0.75], methods=["magnitude", "joint"], stages=2,
        finetune=3, test=well_used.held_out,
    )  # fmt: skip
    for record, result in zip(report["results"], results, strict=True):
        assert [stage["epochs"] for stage in record["history"]] == [3, 3]
        assert record["history"][1]["tuned"] == record["measured"]["after"]
        assert record["value"] == pytest.approx(result.value)
        assert record["bound"] == pytest.approx(result.bound)
        assert record["measured"]["test_after"]["loss"] == pytest.approx(result.test_after.loss)
    again = run_json(capsys, *MINE, *argv, "--resume")
    assert again["results"] == report["results"]
    assert main([*MINE, *argv[:-4], "--finetune", "4", "--output", "out", "--resume"]) == 2
    assert "is of a run with finetune 3, not 4" in capsys.readouterr().err


def test_stages_are_typed_as_one_option_and_told_in_a_table(capsys, here):
    argv = ("--method", "magnitude", "-s", "0.8", "--no-certify", "--output", "out")
    assert main([*MINE, *argv, "--stages", "0.4,0.8:return"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = (i for i, line in enumerate(lines) if "prune s" in line)
    assert [line.split()[:3] for line in lines[head + 1 : head + 3]] == [
        ["magnitude", "80%", "1"],
        ["magnitude", "80%", "2"],
    ]
    asked = json.loads((Path("out") / "report.json").read_text())["settings"]["stages"]
    assert (asked["given"], asked["deleted"]) == ([0.4, 0.8], "return")
    assert main([*MINE, *argv, "--stages", "0.4,0.8:return", "--resume"]) == 0
    capsys.readouterr()
    assert main([*MINE, *argv[:-1], "other", "--stages", "0.4,0.9"]) == 2
    assert "stages are given to end with sparsity 0.9, but sparsity is 0.8" in capsys.readouterr().err
