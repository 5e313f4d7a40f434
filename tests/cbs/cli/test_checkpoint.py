"""`cbs solve` with a checkpoint and with limits of the branch and bound."""

import json

import numpy as np
import pytest

from cbs.cli import main
from solvers import Budget, SubsetProblem
from solvers.instances import save


@pytest.fixture
def instance(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 24)) @ rng.standard_normal((24, 24))
    H = X.T @ X / 60 + 0.1 * np.eye(24)
    save(tmp_path / "layer.npz", SubsetProblem(rng.standard_normal((2, 24)), H, Budget.per_row(15)))
    return str(tmp_path / "layer.npz")


def run(capsys, *argv, status=0):
    assert main([str(a) for a in argv]) == status
    captured = capsys.readouterr()
    return captured.err if status else json.loads(captured.out)


def test_a_search_goes_on_from_its_checkpoint(capsys, instance, tmp_path):
    whole = run(capsys, "solve", instance, "--json")
    file = tmp_path / "layer.search"
    first = run(capsys, "solve", instance, "--json", "--checkpoint", file, "--node-limit", 5)
    assert first["status"] == "node_limit"
    assert file.exists()
    for _ in range(2):
        again = run(capsys, "solve", instance, "--json", "--checkpoint", file)
        assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer.npz", "layer.search"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gap", "0.01"], "belongs to another gap (0.0001, not 0.01)"),
        (["--certificate", "out"], "belongs to another certify (False, not True)"),
        (["--solver", "greedy"], "solver 'greedy' keeps no checkpoint, only auto, branch-and-bound"),
    ],
)
def test_a_checkpoint_of_something_else_is_bad_input(capsys, instance, tmp_path, argv, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(capsys, "solve", instance, "--json", "--checkpoint", "search", "--node-limit", 5)
    before = (tmp_path / "search").read_bytes()
    error = run(capsys, "solve", instance, "--checkpoint", "search", *argv, status=2)
    assert message in error
    assert error.count("\n") == 1
    assert (tmp_path / "search").read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_bad_input(capsys, instance, tmp_path):
    file = tmp_path / "search"
    run(capsys, "solve", instance, "--json", "--checkpoint", file, "--node-limit", 5)
    file.write_bytes(file.read_bytes()[:1000])
    assert "search' is damaged" in run(capsys, "solve", instance, "--checkpoint", file, status=2)
    assert "is not a folder" in run(
        capsys, "solve", instance, "--checkpoint", tmp_path / "no" / "file", status=2
    )


def test_limits_of_the_branch_and_bound(capsys, instance):
    for solver in ("auto", "branch-and-bound"):
        found = run(capsys, "solve", instance, "--json", "--node-limit", 0, "--solver", solver)
        assert found["status"] == "node_limit"
        assert found["nodes"] == 0
        assert 0 < found["bound"] < found["value"]
    tight = run(capsys, "solve", instance, "--json", "--memory-limit", "60K")
    assert tight["status"] == "optimal"


def test_a_proof_without_memory(capsys, instance, tmp_path):
    out = tmp_path / "out.cert"
    found = run(
        capsys, "solve", instance, "--json", "--memory-limit", "1K", "--certificate", out, "--gap", 1e-9
    )
    assert found["status"] == "memory_limit"
    assert 0 < found["bound"] < found["value"]
    assert main(["verify", str(out), instance]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--memory-limit", "much"], "--memory-limit must be a size such as 500M or 16G, got 'much'"),
        (["--memory-limit", "0"], "--memory-limit must be a size"),
        (["--memory-limit", "9" * 400 + "G"], "--memory-limit must be a size"),
        (["--memory-limit", "0.5"], "--memory-limit must be a size"),
        (["--node-limit", "-1"], "--node-limit must be at least 0, got -1"),
        (
            ["--node-limit", "5", "--solver", "greedy"],
            "--node-limit is for the solvers auto and branch-and-bound",
        ),
        (["--memory-limit", "1G", "--solver", "scip"], "--memory-limit is for the solvers auto"),
    ],
)
def test_limits_that_can_not_be(capsys, instance, argv, message):
    error = run(capsys, "solve", instance, *argv, status=2)
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("size", "value"), [("1000", 1000), ("1.5k", 1536), ("2M", 2 << 20), ("4GiB", 4 << 30), ("1 tb", 1 << 40)]
)
def test_sizes(size, value):
    from cbs.cli.solve import _bytes

    assert _bytes(size) == value
