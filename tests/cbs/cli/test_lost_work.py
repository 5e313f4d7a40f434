"""No answer is lost: not to a place that can't be written, a signal, a full disk, or a closed stream."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

import cbs.cli.watch
import cbs.watch
import solvers.instances
from cbs.cli import main
from cbs.report import RunFolder
from solvers import Budget
from solvers.certificate import Certificate
from solvers.instances import random_problem, save
from solvers.runtime.checkpoint import Checkpoint

POSIX = pytest.mark.skipif(os.name != "posix", reason="has other signals and devices")


@pytest.fixture
def here(tmp_path, monkeypatch):
    save(tmp_path / "layer.npz", random_problem(2, 8, Budget.per_layer(7), seed=0))
    (tmp_path / "lost_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("lost_net", None)


def run(capsys, *argv):
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def full_disk(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def ctrl_c(*args, **options):
    raise KeyboardInterrupt


OUTPUTS = [
    ("solve", "layer.npz", "--certificate"),
    ("solve", "layer.npz", "--checkpoint"),
    ("curve", "layer.npz", "--certificate"),
    ("curve", "layer.npz", "--csv"),
    ("export", "layer.npz"),
    ("prune", "-o"),
]


@pytest.mark.parametrize("argv", OUTPUTS, ids=" ".join)
def test_places_are_tried_before_any_work(capsys, here, monkeypatch, argv):
    for work in ("solvers.instances.load", "cbs.cli.sources.gather_job"):
        monkeypatch.setattr(work, lambda *args, **options: pytest.fail("work has begun"))
    (here / "file").write_text("kept")
    (here / "folder.lp").mkdir()
    (here / "dangling.lp").symlink_to(here / "no" / "folder.lp")
    if argv[0] != "prune":
        (here / "layer.lp").symlink_to(here / "layer.npz")
    before = sorted(here.iterdir())
    places = ["no/folder.lp", "file/below.lp", "folder.lp", "dangling.lp", "x" * 300 + ".lp"]
    for place in (*places, *(["layer.lp"] if argv[0] != "prune" else [])):
        if argv[0] == "prune" and place == "no/folder.lp":  # its parents are made
            continue
        status, out, err = run(capsys, *argv, place)
        assert (status, out, err.count("\n")) == (2, "", 1), place
        assert err.startswith("cbs: ")
    assert sorted(here.iterdir()) == before
    assert (here / "file").read_text() == "kept"


def test_no_output_takes_anothers_place(capsys, here):
    before = (here / "layer.npz").read_bytes()
    for argv in (
        ("solve", "layer.npz", "--certificate", "layer.npz"),
        ("solve", "layer.npz", "--certificate", "same", "--checkpoint", "./same"),
        ("curve", "layer.npz", "--csv", "same", "--certificate", here / "same"),
    ):
        status, _, err = run(capsys, *argv)
        assert status == 2
        assert "give each a name of its own" in err
    assert (here / "layer.npz").read_bytes() == before
    assert not (here / "same").exists()


@pytest.mark.parametrize("command", ["solve", "curve"])
def test_the_answer_is_shown_when_its_certificate_can_not_be_written(capsys, here, monkeypatch, command):
    monkeypatch.setattr(Certificate, "save", full_disk)
    status, out, err = run(capsys, command, "layer.npz", "--json", "--certificate", "proof")
    assert status == 2
    assert json.loads(out)["status"] == "optimal"
    assert err.splitlines()[-1] == "cbs: 'proof' could not be written (No space left on device)"


def test_a_full_disk_under_a_checkpoint_costs_the_file_alone(capsys, here, monkeypatch):
    status, sound, _ = run(capsys, "solve", "layer.npz", "--json")
    assert status == 0
    monkeypatch.setattr(Checkpoint, "save", full_disk)
    status, out, err = run(capsys, "solve", "layer.npz", "--json", "--checkpoint", "search")
    assert status == 2
    assert {**json.loads(out), "seconds": 0} == {**json.loads(sound), "seconds": 0}
    assert err.splitlines()[-1].startswith("cbs: checkpoint 'search' is not up to date")


def test_an_old_table_survives_a_full_disk(capsys, here, monkeypatch):
    (here / "curve.csv").write_text("old")
    monkeypatch.setattr("solvers.runtime.writing.os.fsync", full_disk)
    status, out, _ = run(capsys, "curve", "layer.npz", "--json", "--csv", "curve.csv")
    assert status == 2
    assert json.loads(out)["status"] == "optimal"
    assert (here / "curve.csv").read_text() == "old"
    assert not list(here.glob(".*"))


@pytest.mark.parametrize("command", ["solve", "curve"])
def test_ctrl_c_while_the_certificate_is_made(capsys, here, monkeypatch, command):
    monkeypatch.setattr(sys.modules[f"solvers.{command}"], "make_certificate", ctrl_c)
    extra = ("--csv", "curve.csv") if command == "curve" else ()
    status, out, err = run(capsys, command, "layer.npz", "--json", "--certificate", "proof", *extra)
    assert status == 130
    assert json.loads(out)["status"] == "optimal"
    assert err.splitlines()[-1] == ("cbs: interrupted before the certificate was complete; none is written")
    assert not (here / "proof").exists()
    assert (here / "curve.csv").exists() == (command == "curve")


@POSIX
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_signals_stop_a_search_politely(capsys, here, monkeypatch, name, status):
    number = getattr(signal, name)
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    monkeypatch.setattr(cbs.cli.watch.Watch, "__call__", lambda *_: signal.raise_signal(number))
    before = signal.signal(number, usual)  # ignored, where the tests run in the background
    try:
        found, out, _ = run(capsys, "curve", "layer.npz", "--json")
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    assert found == status
    assert json.loads(out)["status"] == "interrupted"


@POSIX
def test_signals_that_are_ignored_stay_so(capsys, here, monkeypatch):
    monkeypatch.setattr(cbs.cli.watch.Watch, "__call__", lambda *_: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(capsys, "curve", "layer.npz", "--json")[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@POSIX
@pytest.mark.parametrize(
    ("ending", "status", "answered"),
    [("2>&-", 0, True), ("2>/dev/full", 0, True), ("1>&-", 0, False), ("1>/dev/full", 2, False)],
)
def test_streams_that_can_not_be_written(here, ending, status, answered):
    saves = ending in ("2>&-", "1>/dev/full")  # one of each stream; a search takes its time to begin
    command = "solve layer.npz -s greedy --json --certificate proof" if saves else "methods --json"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        f"{sys.executable} -m cbs {command} {ending}", shell=True, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert bool(done.stdout) == answered
    assert "Traceback" not in done.stderr
    if saves:
        assert solvers.checker.verify(here / "proof", here / "layer.npz").bound > 0


@POSIX
def test_a_reader_that_leaves_early(here):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "cbs", "methods"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=env, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_fault_of_the_program_is_no_refutation(capsys, here, monkeypatch):
    def fault(*args, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("solvers.solve", fault)
    status, out, err = run(capsys, "solve", "layer.npz")
    assert (status, out) == (70, "")
    assert "ZeroDivisionError: a bug" in err
    for error in (MemoryError, RecursionError):
        monkeypatch.setattr(
            "solvers.solve", lambda *args, error=error, **options: (_ for _ in ()).throw(error)
        )
        status, _, err = run(capsys, "solve", "layer.npz")
        assert (status, err.count("\n")) == (2, 1)


MODULE = """
import torch
from torch import nn

torch.manual_seed(0)
X, y = torch.randn(30, 8), torch.randint(3, (30,))
data, other = (X, y), (X + 1, y)

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))

def another():
    model = net()
    model[0].weight.data[0, 0] += 1
    return model
"""
PRUNE = ("prune", "lost_net:net", "--data", "lost_net:data", "--solver", "brute-force")
ALL = ("-m", "joint,magnitude,random", "-s", "0.5,0.75")


def without_seconds(report):
    """What two runs of the same settings have in common."""
    if isinstance(report, dict):
        return {
            key: without_seconds(value)
            for key, value in report.items()
            if key not in ("command", "output", "rows")
            and "seconds" not in key  # later bounds of rows are shared
        }
    return [without_seconds(part) for part in report] if isinstance(report, list) else report


def stop_after(monkeypatch, count, how):
    """Have the method that would give the next result after `count` do something else; counts all."""
    done = []
    inner = cbs_prune()._run

    def counted(*args):
        if len(done) == count:
            how()
        done.append(args[1].name)
        return inner(*args)

    monkeypatch.setattr(cbs_prune(), "_run", counted)
    return done


def cbs_prune():
    return sys.modules["cbs.prune"]


def test_what_is_finished_stays_and_the_rest_is_computed_later(capsys, here, monkeypatch):
    status, out, _ = run(capsys, *PRUNE, *ALL, "-o", "whole", "--json")
    assert status == 0
    whole = json.loads(out)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, ctrl_c)
        status, out, _ = run(capsys, *PRUNE, *ALL, "-o", "out", "--json")
    assert status == 130
    first = json.loads(out)
    assert first == json.loads((here / "out" / "report.json").read_text())
    assert first["interrupted"] is True
    assert [(r["method"], r["asked"]) for r in first["results"]] == [
        ("joint", 0.5), ("magnitude", 0.5), ("random", 0.5), ("joint", 0.75)
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        done = stop_after(patch, -1, None)
        status, out, _ = run(capsys, *PRUNE, *ALL, "-o", "out", "--json", "--resume")
    assert (status, done) == (0, ["magnitude", "random"])
    second = json.loads(out)
    assert second == json.loads((here / "out" / "report.json").read_text())
    assert without_seconds(second) == without_seconds(whole)
    assert sorted(p.name for p in (here / "out").iterdir()) == sorted(
        p.name for p in (here / "whole").iterdir()
    )
    for name in ("joint-0.5.safetensors", "random-0.75.masks.safetensors"):
        assert (here / "out" / name).read_bytes() == (here / "whole" / name).read_bytes()
    done = stop_after(monkeypatch, -1, None)
    status, out, _ = run(capsys, *PRUNE, *ALL, "-o", "out", "--resume")
    assert (status, done) == (0, [])
    assert "load_file('out/" in out


def test_bounds_that_were_not_computed_come_later(capsys, here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("cbs.references.References.certify", ctrl_c)
        argv = (*PRUNE[:-2], "-m", "magnitude", "-s", "0.5", "--json")
        status, out, _ = run(capsys, *argv, "-o", "out")
    assert status == 130
    assert json.loads(out)["results"][0]["bound"] is None
    status, out, _ = run(capsys, *argv, "-o", "out", "--resume")
    assert status == 0
    assert json.loads(out)["results"][0]["bound"] > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--gap", "0.5"), "gap 0.0001, not 0.5"),
        (("--seed", "1"), "seed 0, not 1"),
        (("-s", "0.25"), "sparsities"),
        (("-m", "random"), "methods"),
        (("--scope", "layer"), 'scope "network", not "layer"'),
        (("--data", "lost_net:other"), "data"),
        (("another",), "model"),
    ],
)
def test_runs_of_other_settings_are_not_gone_on_with(capsys, here, change, named):
    argv = ["prune", "lost_net:net", "--data", "lost_net:data", "-m", "magnitude", "-s", "0.5"]
    assert run(capsys, *argv, "-o", "out")[0] == 0
    before = (here / "out" / "report.json").read_bytes()
    if change == ("another",):  # the same name of another network
        module = (
            (here / "lost_net.py").read_text().replace("def net", "def old").replace("def another", "def net")
        )
        (here / "lost_net.py").write_text(module.replace("model = net()", "model = old()"))
        sys.modules.pop("lost_net")
        change = ()
    status, out, err = run(capsys, *argv, *change, "-o", "out", "--resume")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"is of a run with {named}" in err or f"of a run with another {named}" in err
    assert (here / "out" / "report.json").read_bytes() == before


def test_the_latest_run_of_the_same_settings_is_gone_on_with(capsys, here, monkeypatch):
    argv = ("prune", "lost_net:net", "--data", "lost_net:data", "-m", "magnitude", "--resume")
    assert run(capsys, *argv, "-s", "0.5")[0] == 0  # there is none: it starts afresh
    (first,) = (here / "runs").iterdir()
    first.rename(here / "runs" / "20200101-000000")
    assert run(capsys, *argv[:-1], "-s", "0.75")[0] == 0
    done = stop_after(monkeypatch, -1, None)
    status, out, _ = run(capsys, *argv, "-s", "0.5")
    assert (status, done) == (0, [])
    assert "runs/20200101-000000" in out
    status, _, err = run(capsys, *argv, "-s", "0.25")
    assert status == 2
    assert "no run to go on with: the latest, 'runs/" in err
    assert "sparsities [0.75], not [0.25]" in err
    for path in (here / "runs").iterdir():
        (path / "report.json").write_text('{"layout": 1, "settings": {}, "results": []}')
    err = run(capsys, *argv, "-s", "0.25")[2]
    assert "no run to go on with: the latest, output 'runs/" in err
    assert err.count("'runs/") == 1


def test_a_full_disk_under_the_run_folder_costs_files_alone(capsys, here, monkeypatch):
    monkeypatch.setattr(RunFolder, "keep", full_disk)
    status, out, err = run(capsys, *PRUNE, *ALL, "-o", "out")
    assert status == 2
    assert len([line for line in out.splitlines() if "%" in line]) == 7
    assert err.count("can't be written now (No space left on device)") == 1


def test_ctrl_c_while_a_result_is_written_comes_after_it(capsys, here, monkeypatch):
    keep = RunFolder.keep

    def slow(self, result):
        signal.raise_signal(signal.SIGINT)
        keep(self, result)

    monkeypatch.setattr(RunFolder, "keep", slow)
    status, out, _ = run(capsys, *PRUNE, *ALL, "-o", "out", "--json")
    assert status == 130
    assert len(json.loads(out)["results"]) == 1
    assert (here / "out" / "joint-0.5.safetensors").exists()


@POSIX
def test_a_killed_run_keeps_what_was_finished(here):
    """By SIGKILL, which nothing can handle, while the second method is at work."""
    code = (
        "import os, signal, sys, cbs; from cbs.cli import main\n"
        "cbs.compare; m = sys.modules['cbs.prune']; run = m._run\n"
        "def die(*args):\n"
        "    if args[1].name == 'random': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return run(*args)\n"
        "m._run = die; main(sys.argv[1:])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    argv = [*PRUNE, "-m", "magnitude,random", "-s", "0.5", "-o", "out"]
    done = subprocess.run([sys.executable, "-c", code, *argv], env=env, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(p.name for p in (here / "out").iterdir()) == [
        "config.toml", "magnitude-0.5.masks.safetensors", "magnitude-0.5.safetensors", "report.json"
    ]  # fmt: skip
    assert json.loads((here / "out" / "report.json").read_text())["interrupted"] is True
