"""Jobs of Slurm: the script that is handed in, and a real queue where there is one."""

import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("dask_jobqueue")

from solvers.executors import TimeLimitExceeded, executor
from solvers.executors.on_slurm import make_cluster, settings

from .test_processes import burn


def answers():
    """Whether a Slurm controller answers here."""
    asked = ["timeout", "5", "sinfo"]
    return shutil.which("sinfo") is not None and subprocess.run(asked, capture_output=True).returncode == 0


def test_the_job_asks_for_what_the_setting_says(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a folder")
    told = "night?cores=8&walltime=02:00:00&account=maths&job_extra_directives=--exclusive"
    cluster = make_cluster(settings(f"slurm:{told}", told, 2, 1000, {"interface": "lo"}), 2)
    try:
        lines = cluster.job_script().splitlines()
    finally:
        cluster.close()
    for line in ("-p night", "-A maths", "--cpus-per-task=8", "-t 02:00:00", "--exclusive", "--mem=6G"):
        assert f"#SBATCH {line}" in lines
    assert "export PYTHONPATH='/a folder'" in lines
    start = next(line for line in lines if "dask" in line and sys.executable in line)
    assert "--nthreads=4" in start  # calls of two threads each
    assert start.index("--nthreads 8") < start.index("--nthreads=4")  # the last one counts


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("q?waltime=1", "unknown option 'waltime'; did you mean 'walltime'?"),
        ("q?cores=1", "cores must be a whole number, at least the 2 threads of a call, got '1'"),
        ("q?cores=x", "cores must be a whole number, at least the 2 threads of a call, got 'x'"),
    ],
)
def test_bad_options_are_refused(rest, message):
    with pytest.raises(ValueError) as caught:
        executor(f"slurm:{rest}", threads=2)
    assert message in str(caught.value)


def test_without_slurm_it_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"executor 'slurm:q': there is no sbatch here"):
        executor("slurm:q")


@pytest.mark.slow
def test_calls_run_in_jobs(tmp_path):
    if not answers():
        pytest.skip("no Slurm controller answers here")
    told = f"slurm:?interface=lo&memory=1GiB&walltime=00:05:00&log_directory={tmp_path}"
    with executor(told) as workers:
        assert workers.submit(os.getenv, "SLURM_JOB_ID").result(60).isdecimal()
        with pytest.raises(TimeLimitExceeded):
            workers.call(burn, seconds=0.3).result()
