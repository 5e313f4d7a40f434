"""`cbs instances`, from making a library to taking in a claim."""

import json
import shutil
import signal

import numpy as np
import pytest

from cbs.cli import main
from solvers import solve
from solvers.instances import Library, digest, load, read_problem, read_solu


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lib")
    recipe = folder / "r.toml"
    recipe.write_text(
        'name = "r"\n[[networks]]\nnetwork = "wine"\nrows = 1\nsparsities = [0.5]\n'
        'budgets = ["per_row", "columns", "network"]\nlayers = ["0", "2"]\n'
    )
    assert main(["instances", "make", str(recipe), "-o", str(folder / "lib"), "--quiet"]) == 0
    return folder / "lib"


def run(capsys, *argv):
    status = main(["instances", *map(str, argv)])
    out, err = capsys.readouterr()
    return status, out, err


def test_listing_filters_and_names_what_is_open(made, capsys):
    status, out, _ = run(capsys, "list", made, "--json")
    assert status == 0
    assert len(json.loads(out)["instances"]) == 10
    status, out, _ = run(
        capsys, "list", made, "--open", "--variant", "joint", "--budget", "per_row", "--json"
    )
    assert {item["n"] for item in json.loads(out)["instances"]} == {13, 32}
    status, out, _ = run(capsys, "list", made, "--wide", "--least", 20, "--name", "wine-2-*")
    assert out.splitlines()[0].split() == ["instance", "m", "n", "value", "bound", "gap", "status"]
    assert len(out.splitlines()) == 5
    status, out, _ = run(capsys, "list", made, "--summary", "--json")
    lines = json.loads(out)["summary"]
    assert sum(line["instances"] for line in lines) == 10
    assert {line["budget"] for line in lines} == {"per_row", "columns", "network"}
    status, _, err = run(capsys, "list", made, "--variant", "join")
    assert (status, err) == (2, "cbs: unknown variant 'join'; did you mean 'joint'?\n")
    status, _, err = run(capsys, "list", made, "--open", "--proven")
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = run(capsys, "list", made.parent)
    assert (status, err.count("\n")) == (2, 1)
    assert "has no index.json; make one with" in err


def test_making_again_keeps_everything(made, capsys):
    recipe = made.parent / "r.toml"
    status, out, _ = run(capsys, "make", recipe, "-o", made, "--json")
    assert (status, json.loads(out)) == (0, {"instances": [], "kept": 10, "data": [], "differing": []})


@pytest.mark.parametrize("format", ["npz", "mps", "lp", "qplib"])
def test_exported_files_are_the_instances(made, tmp_path, capsys, format):
    status, out, _ = run(
        capsys, "export", made, "--format", format, "-o", tmp_path / "x", "--family", "wine/0"
    )
    assert status == 0
    assert "4 files of 4 instances" in out
    for item in Library(made).items(family="wine/0"):
        path = tmp_path / "x" / f"{item.name}.{format}"
        problem = load(path) if format == "npz" else read_problem(path)
        assert digest(problem) == item.digest
    assert set(read_solu(tmp_path / "x" / "index.solu")) == {
        i.name for i in Library(made).items(family="wine/0")
    }
    status, _, err = run(capsys, "export", made, "--format", "nl", "-o", tmp_path / "y")
    assert (status, err) == (2, "cbs: --format must be one of npz, mps, lp, qplib, got 'nl'\n")
    assert not (tmp_path / "y").exists()


def test_models_are_solved_as_their_instances(made, tmp_path, capsys):
    name = "wine-0-joint-columns-50"
    run(capsys, "export", made, "--format", "qplib", "-o", tmp_path, "--name", name)
    assert main(["solve", str(tmp_path / f"{name}.qplib"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)["value"]
    assert value == solve(Library(made)[name].problem()).value
    certificate = tmp_path / "c.cert"
    assert main(["solve", str(tmp_path / f"{name}.qplib"), "--certificate", str(certificate), "--json"]) == 0
    capsys.readouterr()
    assert main(["verify", str(certificate), str(tmp_path / f"{name}.qplib"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bound"] <= value
    run(capsys, "export", made, "-o", tmp_path, "--name", name)
    assert main(["export", str(tmp_path / f"{name}.npz"), str(tmp_path / "again.qplib")]) == 0
    assert digest(read_problem(tmp_path / "again.qplib")) == Library(made)[name].digest
    capsys.readouterr()
    assert main(["export", str(tmp_path / f"{name}.npz"), str(tmp_path / "x.qplib"), "--split"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["bound", str(tmp_path / f"{name}.qplib"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bound"] <= value


def test_solving_checking_and_claiming(made, tmp_path, capsys):
    name = next(item.name for item in Library(made).items(budget="per_row", variant="joint", n=13))
    problem = Library(made)[name].problem()
    weak = np.zeros(problem.W.shape, bool)
    weak[0, np.argsort(-np.abs(problem.W[0]))[: problem.pools.prune[0]]] = True
    np.savez(tmp_path / "weak.npz", mask=weak)
    status, out, _ = run(capsys, "claim", made, name, "--mask", tmp_path / "weak.npz", "--by", "me", "--json")
    assert status == 0
    assert json.loads(out)["value"] == pytest.approx(problem.value(weak), rel=1e-12)
    status, _, err = run(capsys, "claim", made, name, "--mask", tmp_path / "weak.npz")
    assert status == 2
    assert "no better than what is known" in err
    status, out, _ = run(capsys, "solve", made, "--name", name, "--time-limit", 20, "--json")
    assert status == 0
    (change,) = json.loads(out)["instances"]
    assert (change["status"], change["better"]) == ("proven", True)
    assert change["certificate"] == f"{name}.npz"
    status, out, _ = run(capsys, "check", made)
    assert (status, out) == (0, "10 instances checked, 10 hold\n")
    status, out, _ = run(capsys, "solve", made, "--new", "--name", name)
    assert out.startswith("0 instances")
    path = Library(made).certificate_path(name)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    status, _, err = run(capsys, "check", made, "--quiet")
    path.write_bytes(raw)
    assert status == 1
    assert err.startswith(f"cbs: instance {name!r}: certificate ")
    assert err.count("\n") == 1
    solutions = made / "index.solu"
    text = solutions.read_text()
    solutions.write_text(text.replace("=opt= ", "=best="))
    status, _, err = run(capsys, "check", made, "--quiet", "--no-proofs")
    solutions.write_text(text)
    assert status == 1
    assert err.endswith("index.solu says other values than index.json\n")


def test_instances_whose_data_is_elsewhere_are_left_out(made, tmp_path, capsys):
    shutil.copytree(made, tmp_path / "lib")
    (tmp_path / "lib" / "data" / "wine-2.npz").unlink()
    for argv in (["check"], ["export", "-o", tmp_path / "x"], ["solve", "--name", "wine-2*"]):
        status, out, err = run(capsys, argv[0], tmp_path / "lib", *argv[1:])
        assert status == 0
        assert "left out, as data wine-2 is not there; `cbs instances make RECIPE" in err
        assert not out.startswith("10 ")


def test_bad_input_is_one_line(made, capsys):
    for argv, message in (
        (["solve", made, "--solver", "nobody"], "unknown solver 'nobody'"),
        (["solve", made, "--time-limit", "-1"], "time_limit"),
        (["claim", made, "wine-0-r1"], "has no instance 'wine-0-r1'"),
        (["claim", made, "wine-0-joint-columns-50"], "claim a mask, a certificate, or both"),
        (["make", "digit"], "did you mean 'digits'?"),
    ):
        status, _, err = run(capsys, *argv)
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err


def test_ctrl_c_at_the_end_of_a_search_ends_the_command_too(made, capsys, monkeypatch):
    from solvers.instances import improve as module

    real = module.improve

    def and_then(*args, **options):
        found = real(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(module, "improve", and_then)
    status, out, err = run(capsys, "solve", made, "--family", "wine/0", "--time-limit", 20, "--json")
    assert status == 130
    (change,) = json.loads(out)["instances"]
    assert Library(made)[change["name"]].value == change["value"]
    assert err.splitlines()[-1] == "cbs: interrupted; what is done is kept"
