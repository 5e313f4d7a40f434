"""Time the first solves of a new installation: nothing compiled, every kind of problem. See README.md."""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.csv"
COLUMNS = ("state", "problem", "solve", "cpu", "wall", "status", "gap")
KINDS = {
    "8 x 64 joint, 50%": ("auto", "random_problem(8, 64, Budget.per_row(32), seed=0)"),
    "1 x 100 joint, 50%": ("auto", "random_problem(1, 100, Budget.per_row(50), seed=0)"),
    "8 x 64 joint, 2:4": ("auto", "random_problem(8, 64, Budget.n_of_m(2, 4), seed=0)"),
    "8 x 32 selection, 50%": ("auto", "random_problem(8, 32, Budget.per_row(16), seed=0, refit=False)"),
    "8 x 64 selection, 50%": ("auto", "random_problem(8, 64, Budget.per_row(32), seed=0, refit=False)"),
    "4 x 784 joint, relaxation": ("relaxation", "random_problem(4, 784, Budget.per_row(392), seed=0)"),
    "8 x 64 joint, local search": ("local-search", "random_problem(8, 64, Budget.per_row(32), seed=0)"),
}
"""Problems by name: solver, and what makes them."""
PROGRAM = """
import json, sys, time
from solvers import Budget, solve
from solvers.instances import random_problem
found = solve({problem}, {solver!r})
print(json.dumps([time.process_time(), found.status.value, found.gap]))
"""
Row = dict[str, str]


def main() -> None:
    """Measure, add rows to results.csv, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", nargs="?", help="label of the rows, as `after`; without it: print the table")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to measure")
    parser.add_argument("--kinds", nargs="*", default=[*KINDS], help="which; none for --apart alone")
    parser.add_argument("--next", action="store_true", help="and a second solve, when all is compiled")
    parser.add_argument("--apart", action="store_true", help="three at once, and read-only (as root)")
    asked = parser.parse_args()
    if asked.state is not None:
        for name in asked.kinds:
            with tempfile.TemporaryDirectory() as folder:
                add(asked.state, name, "first", ended(*begun(asked.root, name, folder)))
                wait_for_code(Path(folder))  # also lest it takes its processor from the next kind
                if asked.next:
                    add(asked.state, name, "next", ended(*begun(asked.root, name, folder)))
        if asked.apart:
            at_once(asked.state, asked.root, 3)
            read_only(asked.state, asked.root)
    print(table())


def begun(root: Path, name: str, cache: str, *before: str) -> tuple["subprocess.Popen[str]", float]:
    """A process that solves a problem, and when it began."""
    solver, problem = KINDS[name]
    environment = {
        **os.environ, "PYTHONPATH": str(root), "NUMBA_CACHE_DIR": cache, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    program = PROGRAM.format(problem=problem, solver=solver)
    start = time.perf_counter()
    process = subprocess.Popen(
        [*before, sys.executable, "-c", program], cwd="/", env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return process, start


def ended(process: "subprocess.Popen[str]", start: float) -> Row:
    """What it took, and how it ended."""
    printed, told = process.communicate()
    if process.returncode:
        raise SystemExit(told)
    cpu, status, gap = json.loads(printed)
    wall = time.perf_counter() - start
    return {"cpu": f"{cpu:.1f}", "wall": f"{wall:.1f}", "status": status, "gap": f"{gap:.1e}"}


def wait_for_code(cache: Path) -> None:
    """Until nobody compiles any more: the process beside a first solve holds a lock meanwhile."""
    for lock in cache.rglob("behind.lock"):
        subprocess.run(["flock", str(lock), "true"], check=True)


def at_once(state: str, root: Path, count: int) -> None:
    """The first solves of several processes that start together."""
    with tempfile.TemporaryDirectory() as folder:
        name = next(iter(KINDS))
        for each in [begun(root, name, folder) for _ in range(count)]:
            add(state, name, f"first, {count} at once", ended(*each))
        wait_for_code(Path(folder))


def read_only(state: str, root: Path) -> None:
    """A copy of the package and a home that can not be written to, even by root, who gives up that right."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        name, place = next(iter(KINDS)), Path(folder)
        for package in ("solvers", "cbs"):
            shutil.copytree(root / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a-w,a+rX", folder], check=True)
        plain = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "env", "-u", "XDG_CACHE_HOME")
        plain += (f"HOME={folder}", f"TMPDIR={other}")
        for solve in ("first, read-only", "next, read-only"):
            add(state, name, solve, ended(*begun(place, name, "", *plain)))
            wait_for_code(Path(other))


def add(state: str, problem: str, solve: str, found: Row) -> None:
    """A row to results.csv."""
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({"state": state, "problem": problem, "solve": solve, **found})


def table() -> str:
    """All rows in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    with RESULTS.open(newline="") as file:
        lines += [f"| {' | '.join(row[name] for name in COLUMNS)} |" for row in csv.DictReader(file)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
