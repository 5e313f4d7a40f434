import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import BrokenExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from cbs.study import driver
from cbs.study.database import Away, Full
from cbs.study.driver import run
from cbs.study.planning import planned
from cbs.study.schema import DONE, FAILED, PLANNED, RUNNING
from cbs.study.store import Store
from cbs.study.studyfile import Study

WORK = Path(__file__).with_name("work_for_tests.py")


def study(folder, text, name="s"):
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\n{textwrap.dedent(text)}')
    return path


def calls(function, grid):
    return f"""
        [[calls]]
        function = "{WORK}:{function}"
        grid = {{{grid}}}
        """


def test_every_cell_is_run_once_and_then_no_more(tmp_path):
    path = study(tmp_path, "seeds = [0, 1]" + calls("double", "a = [1, 2, 3]"))
    heard = []
    standing = run(path, workers=2, shown=lambda s: heard.append((s.done, s.total)))
    assert (standing.total, standing.done, standing.fresh, standing.failed) == (6, 6, 6, 0)
    assert heard[-1] == (6, 6)
    with Store.open(tmp_path / "s.sqlite") as store:
        frame = store.frame(store.members("s"))
        assert frame["value"].tolist() == [2, 2, 4, 4, 6, 6]
        assert frame["seed"].tolist() == [0, 1] * 3
        assert [result["text"] for result in frame["result"]] == ["x0", "x1"] * 3
        assert store.arrays(frame["key"].iloc[5])["squares"].tolist() == [0, 1, 4]
        assert (frame["memory"] > 1).all()
        assert (frame["cpu_seconds"] >= 0).all()
        assert frame["host"].notna().all()
    assert run(path, workers=1).fresh == 0
    path = study(tmp_path, "seeds = [0, 1]" + calls("double", "a = [2, 3, 4]"))
    assert planned(Study.load(path))["solvers"] == {"double": (6, 2)}
    assert run(path, workers=1).fresh == 2


def test_problems_are_solved_and_networks_pruned(tmp_path):
    path = study(
        tmp_path,
        """
        [[instances]]
        random = true
        n = 6
        variants = ["joint", "selection"]

        [[solvers]]
        name = "branch-and-bound"
        certify = true

        [[solvers]]
        name = "brute-force"

        [[models]]
        name = "digits"
        samples = 100

        [[methods]]
        name = "magnitude"
        sparsities = [0.5]
        options = {certify = false}
        """,
    )
    assert run(path, workers=1).failed == 0
    with Store.open(tmp_path / "s.sqlite") as store:
        frame = store.frame(store.members("s"))
        solved = frame[frame["kind"] == "solve"]
        assert len(solved) == 4
        assert set(solved["status"]) == {"optimal"}
        for _, of in solved.groupby("digest"):
            assert of["value"].max() == pytest.approx(of["value"].min(), rel=1e-4)
            assert of["bound"].max() <= of["value"].min() * (1 + 1e-9)
        ours = solved[solved["solver"] == "branch-and-bound"]
        assert ours["certified"].astype(bool).all()
        assert solved[solved["solver"] == "brute-force"]["certified"].isna().all()
        arrays = store.arrays(ours["key"].iloc[0])
        assert arrays["mask_shape"].tolist() == [1, 6]
        assert np.isclose(arrays["trace_value"][-1], ours["value"].iloc[0])
        (pruned,) = frame[frame["kind"] == "prune"].to_dict("records")
        assert 0.3 < pruned["accuracy"] < pruned["result"]["dense_accuracy"] < 1
        assert pruned["result"]["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)
        assert {name for name in store.arrays(pruned["key"]) if not name.endswith("_shape")} == {
            "mask:0", "mask:2", "mask:4",
        }  # fmt: skip


def test_results_of_elsewhere_are_taken_and_not_computed_again(tmp_path):
    from cbs.study.export import export

    path = study(tmp_path, calls("double", "a = [1, 2, 3]"))
    assert run(path, workers=1, only="a=2").done == 1
    with Store.open(tmp_path / "s.sqlite") as store:
        export(store, tmp_path / "known.csv", keys=store.members("s"))
        before = store.frame(store.members("s")).iloc[0]
    (tmp_path / "s.sqlite").unlink()
    standing = run(path, workers=1, known=tmp_path / "known.csv")
    assert (standing.done, standing.fresh) == (3, 2)
    with Store.open(tmp_path / "s.sqlite") as store:
        after = store.frame([before["key"]]).iloc[0]
    for name in (
        "value",
        "status",
        "cpu_seconds",
        "memory",
        "host",
        "started",
        "finished",
        "result",
        "revision",
    ):
        assert after[name] == before[name]


def test_what_fails_says_why_and_is_run_again_when_asked(tmp_path):
    path = study(tmp_path, calls("fails", "number = [0, 1, 2]") + calls("wrong", ""))
    standing = run(path, workers=1)
    assert (standing.done, standing.failed) == (4, 2)
    with Store.open(tmp_path / "s.sqlite") as store:
        frame = store.frame(store.members("s"))
        assert frame["state"].tolist() == [DONE, FAILED, DONE, FAILED]
        assert frame["error"].iloc[1] == "RuntimeError: number 1 is odd"
        assert "must give a mapping" in frame["error"].iloc[3]
    assert run(path, workers=1).fresh == 0
    assert run(path, workers=1, retry=True, only="number=1").fresh == 1


def test_a_cluster_that_is_lost_ends_the_run_in_a_line_and_fails_no_cell(tmp_path, monkeypatch):
    from solvers.executors.processes import Processes

    def lost(self, function, kind, payload, **limits):
        if payload["parameters"]["a"] == 1:
            raise TypeError("can't be sent to another process")
        raise BrokenExecutor("executor 'dask:x': its scheduler is gone")

    monkeypatch.setattr(Processes, "call", lost)
    path = study(tmp_path, calls("double", "a = [1, 2, 3]"))
    with pytest.raises(ConnectionError, match="its scheduler is gone; what is finished is in the store"):
        run(path, workers=1)
    monkeypatch.undo()
    standing = run(path, workers=1)
    assert (standing.done, standing.failed, standing.fresh) == (3, 0, 3)


def test_an_answer_that_the_table_can_t_hold_is_a_failed_cell_and_no_more(tmp_path):
    path = study(
        tmp_path,
        "attempts = 1"
        + calls("odd", 'kind = ["objects", "nodes", "value", "halves", "ctrl-c", "fork", "held"]'),
    )
    assert run(path, workers=1).failed == 5
    with Store.open(tmp_path / "s.sqlite") as store:
        frame = store.frame(store.members("s"))
        arrays = store.arrays(frame["key"].iloc[6])
    errors = frame["error"].tolist()
    assert errors[0] == "array 'a' holds objects; give numbers"
    assert errors[1].startswith("nodes must be a whole number below 9223372036854775808, got 1180591620717")
    assert errors[2].startswith("value must be a number below 1e308, got 1148130695274")
    assert errors[3].startswith("RuntimeError: half of a character \\ud800, \\x00, and xxx")
    assert len(errors[3]) < 3000
    assert errors[4] == "the call was interrupted, by itself or by another program, 1 times"
    assert frame["value"].tolist()[5:] == [1.0, 1.0]
    assert frame["status"].iloc[6] == "\\ud800\\x00"
    assert frame["result"].iloc[6] == {"name": "\\udcff"}
    assert arrays["file"].tolist() == [1.0, 1.0]


def test_limits_are_kept_from_outside_and_a_dead_worker_is_tried_again(tmp_path):
    path = study(
        tmp_path,
        "grace = 0.5"
        + calls("dies", f'folder = "{tmp_path}"')
        + calls("stubborn", "")
        + "time_limit = 0.5\n"
        + calls("greedy", "mebibytes = 2000"),
    )
    text = path.read_text().replace("grace =", "memory = 1000\ngrace =")
    path.write_text(text)
    standing = run(path, workers=1)
    with Store.open(tmp_path / "s.sqlite") as store:
        frame = store.frame(store.members("s")).set_index("solver")
    assert frame["state"].to_dict() == {"dies": DONE, "stubborn": FAILED, "greedy": FAILED}
    assert frame["attempts"].to_dict() == {"dies": 2, "stubborn": 1, "greedy": 1}
    assert standing.lost == 1
    assert "1.25" in frame["error"]["stubborn"]
    assert "1000" in frame["error"]["greedy"]


def driving(path, *, start_new_session=True):
    code = f"from cbs.study import run; run({str(path)!r}, workers=2)"
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path.cwd(), start_new_session=start_new_session)


def until(met, seconds=60):
    late = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < late, "it did not come to that"
        time.sleep(0.05)


def test_a_killed_driver_loses_the_cells_in_flight_and_no_others(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    path = study(
        tmp_path,
        calls("noted", f'folder = "{notes}", number = [{", ".join(map(str, range(8)))}], seconds = 0.3'),
    )
    first = driving(path)
    until(lambda: len(list(notes.glob("*.runs"))) >= 3)
    children = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    until(
        lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    )
    with Store.open(tmp_path / "s.sqlite") as store:
        counts = store.counts()
        done = set(store.frame().query("state == 'done'")["instance"])
    assert counts[DONE] >= 2
    assert 1 <= counts[RUNNING] <= 3
    for mark in notes.glob("*.running"):
        mark.unlink()
    standing = run(path, workers=2)
    assert standing.done == 8
    assert standing.fresh == 8 - len(done)
    for name in done:
        number = name.split("number=")[1].split()[0]
        assert len((notes / f"{number}.runs").read_text().split()) == 1


def test_two_drivers_share_a_store_and_no_cell_runs_twice(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    path = study(
        tmp_path,
        calls("noted", f'folder = "{notes}", number = [{", ".join(map(str, range(10)))}], seconds = 0.1'),
    )
    other = driving(path)
    standing = run(path, workers=1)
    assert other.wait(60) == 0
    assert standing.done == 10
    assert standing.failed == 0
    assert all(len(runs.read_text().split()) == 1 for runs in notes.glob("*.runs"))
    assert len(list(notes.glob("*.runs"))) == 10


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_and_then_its_driver_loses_nothing(tmp_path):
    pytest.importorskip("distributed")
    from tests.solvers.executors.test_on_dask import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    numbers = ", ".join(map(str, range(12)))
    path = study(tmp_path, calls("lasting", f'folder = "{notes}", number = [{numbers}], seconds = 0.5'))
    cluster = Cluster(3)
    try:
        cluster.connect(3).shutdown()
        code = f"from cbs.study import run; run({str(path)!r}, on='dask:{cluster.address}')"
        first = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        until(lambda: len(list(notes.glob("*.runs"))) >= 3)
        cluster.workers[0].kill()
        until(lambda: len(list(notes.glob("*.runs"))) >= 6)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with Store.open(tmp_path / "s.sqlite") as store:
            finished = set(store.frame().query("state == 'done'")["instance"])
        assert len(finished) >= 6 - 3  # a cell of each worker may have ended, and not been told
        standing = run(path, on=f"dask:{cluster.address}")
    finally:
        cluster.end()
    assert (standing.done, standing.failed, standing.fresh) == (12, 0, 12 - len(finished))
    for note in notes.glob("*.runs"):  # beginning and end of every run; of one number never two at once
        runs = sorted(tuple(map(float, line.split())) for line in note.read_text().splitlines())
        assert all(one[1] <= two[0] for one, two in pairwise(runs))


def test_ctrl_c_keeps_what_is_finished_and_plans_the_rest(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    path = study(tmp_path, calls("noted", f'folder = "{notes}", number = [0, 1, 2, 3], seconds = 1.0'))
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from cbs.cli.app import main; sys.exit(main(['study', 'run', {str(path)!r}, '--workers', '1']))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    until(lambda: len(list(notes.glob("*.runs"))) >= 1)
    first.send_signal(signal.SIGINT)
    last = first.communicate(timeout=60)[1].decode().splitlines()[-1]
    assert first.returncode == 130
    with Store.open(tmp_path / "s.sqlite") as store:
        counts = store.counts()
    assert counts[RUNNING] == 0
    assert counts[PLANNED] == 4 - counts[DONE]
    assert counts[DONE] < 4
    assert last.startswith("cbs: interrupted: ")
    assert last.endswith(f"of 4 cells are in {tmp_path / 's.sqlite'}; the same command goes on")


def test_what_is_finished_when_the_run_is_interrupted_is_kept(tmp_path, monkeypatch):
    path = study(tmp_path, calls("double", "a = [1, 2, 3]"))

    once = []

    def stop_before_writing(self, *, patient=True, write=driver.Driver._write):
        if patient and self.kept and not once:
            once.append(len(self.kept))
            raise KeyboardInterrupt
        write(self, patient=patient)

    monkeypatch.setattr(driver.Driver, "_write", stop_before_writing)
    with pytest.raises(KeyboardInterrupt):
        run(path, workers=1)
    with Store.open(tmp_path / "s.sqlite") as store:
        counts = store.counts()
    assert counts[DONE] >= once[0] >= 1
    assert counts[RUNNING] == 0


def test_a_silent_driver_of_another_machine_is_taken_for_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "SILENCE", 1.0)
    path = study(tmp_path, calls("double", "a = [1, 2]"))
    assert run(path, workers=1, only="a=1").done == 1
    with Store.open(tmp_path / "s.sqlite") as store:
        run(path, workers=1)
        store.retry(states=(DONE,))
        key = store.members("s")[0]
        assert store.claim(key, "elsewhere:1:0.00")
    assert run(path, workers=1).done == 2


def test_a_store_that_is_away_is_waited_for(tmp_path, monkeypatch):
    path = study(tmp_path, calls("double", "a = [1, 2, 3]"))
    seen, heard = [], []
    monkeypatch.setattr(driver, "POLL", 0.05)
    for name, usual in [(name, getattr(Store, name)) for name in ("claim", "finish", "states")]:

        def flaky(self, *args, name=name, usual=usual):
            seen.append(name)
            if seen.count(name) == 2:
                raise Full("the disk is full") if name == "finish" else Away("the server is gone")
            return usual(self, *args)

        monkeypatch.setattr(Store, name, flaky)
    standing = run(path, workers=1, shown=lambda s: heard.append(s.last))
    assert (standing.done, standing.failed) == (3, 0)
    assert {"the disk is full; waiting for room", "the server is gone; waiting for it"} <= set(heard)
    monkeypatch.setattr(driver, "ROOM", 0.0)
    monkeypatch.setattr(Store, "claim", lambda *_: (_ for _ in ()).throw(Away("the server is gone")))
    path = study(tmp_path, calls("double", "a = [4]"))
    with pytest.raises(
        ValueError, match="the server is gone; what is in it is whole; the same command goes on"
    ):
        run(path, workers=1)


def test_a_cell_that_was_claimed_and_never_begun_is_planned_again_at_once(tmp_path, monkeypatch):
    path = study(tmp_path, calls("double", "a = [1, 2]"))
    usual = Store.claim

    def claim(self, key, owner):
        usual(self, key, owner)
        monkeypatch.setattr(Store, "claim", usual)
        return False  # as after a connection that broke between the change and its answer

    monkeypatch.setattr(Store, "claim", claim)
    begun = time.monotonic()
    assert run(path, workers=1).done == 2
    assert time.monotonic() < begun + driver.SILENCE / 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('executor = "dask:tcp://127.0.0.1:9"', "127.0.0.1:9"),
        ('executor = "proceses:2"', "did you mean 'processes'"),
        ('store = "postgresql://127.0.0.1:9/x"', "can't be opened"),
    ],
)
def test_what_can_t_be_reached_is_told_before_any_work(tmp_path, text, told, monkeypatch):
    monkeypatch.setattr("solvers.executors.on_dask.CONNECT", 1.0)
    notes = tmp_path / "notes"
    notes.mkdir()
    path = study(tmp_path, text + calls("noted", f'folder = "{notes}", number = [1]'))
    with pytest.raises(ValueError, match=told) as raised:
        run(path)
    assert "\n" not in str(raised.value)
    assert not list(notes.iterdir())
