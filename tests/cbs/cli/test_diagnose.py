import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import cbs
from cbs.cli import main
from cbs.network.surgery import clone
from tests.cbs.cli.test_prune import MODULE


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "well_used.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("well_used", None)


MINE = ("diagnose", "well_used:Net", "--data", "well_used:train", "--test", "well_used:held_out", "-s", "0.5")


def run_json(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_prints_what_python_says(capsys, here):
    printed = run_json(
        capsys, *MINE, "--what", "damage,trace,audit,sensitivity,stability", "--resamples", "2"
    )
    net = sys.modules["well_used"]
    model, data, test = net.Net(), net.train(), net.held_out
    result = cbs.prune(model, data, sparsity=0.5, method="magnitude", test=test, certify=False)
    expected = {
        "damage": cbs.damage(result, test),
        "trace": cbs.trace(result, test),
        "audit": cbs.audit(result, data=test),
        "sensitivity": cbs.sensitivity(model, data, test=test),
        "stability": cbs.stability(model, data, sparsity=0.5, method="magnitude", resamples=2),
    }
    assert list(printed) == ["model", *expected]
    for name, part in expected.items():
        assert printed[name] == json.loads(json.dumps(part.to_dict())), name


def test_tables_and_figures(capsys, here):
    assert main([*MINE, "--what", "damage,sensitivity", "-o", "told/here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Loss layer by layer: alone, all but it, all up to it"
    assert all(len(line) <= 80 for line in lines if not line.startswith("loss "))
    assert any("rank" in line or "costs most" in line for line in lines)
    record = json.loads((here / "told/here/diagnosis.json").read_text())
    assert list(record) == ["model", "damage", "sensitivity"]
    for name in ("damage", "sensitivity"):
        assert (here / "told/here" / f"{name}.png").stat().st_size > 5000


def test_a_pruned_network_of_a_run_folder_is_diagnosed(capsys, here):
    assert main(["prune", *MINE[1:], "-m", "magnitude", "--solver", "greedy", "-o", "out"]) == 0
    capsys.readouterr()
    printed = run_json(capsys, *MINE, "--pruned", "out/magnitude-0.5.safetensors")
    assert printed["damage"]["total"] == run_json(capsys, *MINE)["damage"]["total"]
    assert printed["audit"]["loose"] == 22
    audited = run_json(
        capsys, "audit", "out/magnitude-0.5.safetensors", "--masks", "out/magnitude-0.5.masks.safetensors"
    )
    assert (audited["loose"], audited["came_back"]) == (22, 0)
    state = load_file(here / "out/magnitude-0.5.safetensors")
    back = {key: values + 0.1 for key, values in state.items()}
    save_file(back, here / "tuned.safetensors")
    masks = ("--masks", "out/magnitude-0.5.masks.safetensors")
    audited = run_json(capsys, "audit", "tuned.safetensors", *masks)
    assert (audited["zeros"], audited["came_back"]) == (0, 22)
    by_model = run_json(capsys, "audit", "well_used:Net", "--weights", "tuned.safetensors", *masks)
    assert by_model == audited
    assert main(["audit", "tuned.safetensors", *masks]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["parameter", "shape", "zeros"]
    assert "22 pruned weights came back" in lines[-1]


def test_an_audit_with_data_looks_at_inputs(capsys, here):
    printed = run_json(capsys, "audit", "well_used:ready", "--data", "well_used:train")
    assert printed == json.loads(
        json.dumps(cbs.audit(sys.modules["well_used"].ready, data=sys.modules["well_used"].train()).to_dict())
    )
    assert printed["samples"] == 30


def test_a_limit_on_the_loss_goes_through_the_command_line(capsys, here):
    asked = ("prune", *MINE[1:-2], "-m", "magnitude,random", "--max-loss-increase", "0.2", "--no-certify")
    assert main([*asked, "-o", "out", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    net = sys.modules["well_used"]
    for record in printed["results"]:
        expected = cbs.prune(
            net.Net(), net.train(), test=net.held_out, method=record["method"], max_loss_increase=0.2,
            certify=False,
        )  # fmt: skip
        assert record["asked"] == expected.asked
        assert record["search"]["status"] == expected.search.status
        assert len(record["search"]["trials"]) == len(expected.search.trials)
    assert main([*asked, "-o", "out", "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [r["seconds"] for r in again["results"]] == [r["seconds"] for r in printed["results"]]
    assert main([*asked, "-o", "again", "-s", "0.5"]) == 2
    assert "sparsity 0.5 says how much to prune" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((*MINE, "--what", "damages"), "unknown part 'damages'; did you mean 'damage'?"),
        ((*MINE, "--pruned", "none.safetensors"), "weights 'none.safetensors' is not a file"),
        ((*MINE, "-s", "1.5"), "sparsity must lie in [0, 1), got 1.5"),
        ((*MINE, "-o", "well_used.py"), "output 'well_used.py' is a file; give a folder"),
        ((*MINE, "-m", "magnitud"), "unknown method 'magnitud'"),
        (("audit", "none.pt"), "weights 'none.pt' is not a file"),
        (("audit", "tuned.safetensors", "--data", "well_used:train"), "data go with a model"),
        (("audit", "well_used:Nets"), "has no 'Nets'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, here, argv, message):
    assert main([*argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_the_networks_are_left_as_they_are(capsys, here):
    assert main(["audit", "well_used:ready"]) == 0
    ready = sys.modules["well_used"].ready
    before = clone(ready).state_dict()
    save_file({key: values * 0 + 1 for key, values in before.items()}, here / "ones.safetensors")
    more = ("well_used:ready", *MINE[2:6], "--pruned", "ones.safetensors")
    assert main(["diagnose", *more, "--what", "trace"]) == 0
    assert all(torch.equal(values, before[key]) for key, values in ready.state_dict().items())
