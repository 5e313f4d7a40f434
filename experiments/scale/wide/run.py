"""Masks of a layer of thousands of inputs: error, seconds, memory. See README.md."""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from solvers import Budget, SubsetProblem, solve
from solvers.runtime.parallel import workers

HERE = Path(__file__).parent
FIELDS = ("rows", "inputs", "budget", "solver", "limit", "seconds", "value", "peak_mib", "device", "cores")


def layer(settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights, and the damped Gram matrix of rectified activations with a decaying spectrum."""
    rng, n = np.random.default_rng(settings["seed"]), settings["inputs"]
    mix = rng.standard_normal((n, n), np.float32)
    mix *= np.arange(1, n + 1, dtype=np.float32)[:, None] ** -settings["decay"]
    H = np.zeros((n, n), np.float32)
    for _ in range(settings["tokens"] // 1024):
        X = rng.standard_normal((1024, n), np.float32) @ mix
        X = np.maximum(X - 0.3 * X.std(axis=0), 0.0)
        H += X.T @ X / settings["tokens"]
    H = 0.5 * (H + H.T)
    H[np.diag_indices(n)] *= 1.0 + settings["damping"]
    return rng.standard_normal((settings["rows"], n)) / np.sqrt(n), H


def budgets(settings: dict[str, Any]) -> dict[str, Budget]:
    """Budgets by name."""
    rows = {f"{s:.0%}": Budget.per_row(round(s * settings["inputs"])) for s in settings["sparsities"]}
    return rows | {f"{keep}:{of}": Budget.n_of_m(keep, of) for keep, of in settings["patterns"]}


def run_case(settings: dict[str, Any], folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """One solver on one budget, in this process."""
    path = folder / f"{settings['rows']}x{settings['inputs']}.npz"
    with np.load(path) as stored:
        problem = SubsetProblem(stored["W"], stored["H"], budgets(settings)[case["budget"]])
    few = SubsetProblem(problem.W[:2, :256], np.eye(256), Budget.per_row(128))
    solve(few, case["solver"], time_limit=1.0, device=case["device"])  # compile and load
    found = solve(
        problem, case["solver"], time_limit=case["limit"], seed=settings["seed"], device=case["device"]
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{case}: {found.value:.6g} in {found.seconds:.1f} s, {peak:.0f} MiB, {dict(found.stats)}",
        file=sys.stderr,
    )
    return {
        "rows": problem.m, "inputs": problem.n, **case, "limit": case["limit"] or "",
        "seconds": found.seconds, "value": found.value, "peak_mib": peak, "cores": workers(),
    }  # fmt: skip


class Results:
    """Rows of `results/runs.csv`, one for every size, budget, solver and device."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            with path.open() as file:
                self.rows = list(csv.DictReader(file))

    def find(self, **wanted: Any) -> dict[str, str] | None:
        """The row of a case, or None."""
        return next((r for r in self.rows if all(r[k] == str(v) for k, v in wanted.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append({name: str(row[name]) for name in FIELDS})
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def table(self, ours: str) -> str:
        """A line for every row; values over ours of the same size, budget and device."""
        lines = [
            "| size | pruned | device | solver | error over ours | seconds | peak MiB |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            same = {name: row[name] for name in ("rows", "inputs", "budget", "device")}
            best = self.find(**same, solver=ours)
            ratio = f"{float(row['value']) / float(best['value']):.4f}" if best else ""
            lines.append(
                f"| {row['rows']} x {row['inputs']} | {row['budget']} | {row['device']} | {row['solver']} "
                f"| {ratio} | {float(row['seconds']):.1f} | {float(row['peak_mib']):.0f} |"
            )
        return "\n".join(lines) + "\n"


def main() -> None:
    settings = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=settings["rows"])
    parser.add_argument("--inputs", type=int, default=settings["inputs"])
    parser.add_argument("--device", default="cpu", help="torch device of the searches")
    parser.add_argument("--folder", type=Path, default=HERE / "runs", help="where the layer is kept")
    parser.add_argument("--only", default="", help="cases whose name, such as '2:4 alps', contains this")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    settings |= {"rows": asked.rows, "inputs": asked.inputs}
    if asked.case is not None:
        print(json.dumps(run_case(settings, asked.folder, asked.case)))
        return
    path = asked.folder / f"{asked.rows}x{asked.inputs}.npz"
    if not path.exists():
        asked.folder.mkdir(parents=True, exist_ok=True)
        W, H = layer(settings)
        np.savez(path, W=W, H=H)
    done = Results(HERE / "results" / "runs.csv")
    size = {"rows": asked.rows, "inputs": asked.inputs, "device": asked.device}
    for budget in budgets(settings):
        for solver in (*settings["solvers"], settings["ours"]):
            if asked.only not in f"{budget} {solver}" or done.find(**size, budget=budget, solver=solver):
                continue
            timed = done.find(**size, budget=budget, solver=settings["timed_by"])
            limit = float(timed["seconds"]) if timed and solver == settings["ours"] else None
            case = {"budget": budget, "solver": solver, "limit": limit, "device": asked.device}
            command = [sys.executable, __file__, "--rows", str(asked.rows), "--inputs", str(asked.inputs),
                       "--folder", str(asked.folder), "--case", json.dumps(case)]  # fmt: skip
            done.add(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    (HERE / "results" / "table.md").write_text(done.table(settings["ours"]))
    print(done.table(settings["ours"]))


if __name__ == "__main__":
    main()
