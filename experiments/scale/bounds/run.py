"""How far from optimal are the masks of whole layers, at most? See README.md."""

import argparse
import csv
import os
import resource
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solvers import Budget, SubsetProblem, solve
from solvers.runtime.parallel import workers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "layers"))
from run import networks  # noqa: E402

FIELDS = (
    "layer", "rows", "inputs", "variant", "budget", "value", "bound", "gap",
    "mask_seconds", "bound_seconds", "peak_mib", "cores",
)  # fmt: skip


def problems(
    config: dict[str, Any], W: np.ndarray, H: np.ndarray, *, few: bool
) -> Iterator[tuple[str, str, SubsetProblem]]:
    """Variant, budget and problem of everything that is asked about a layer; `few`, of the largest."""
    m, n = W.shape
    for sparsity in config["synthetic"]["sparsities"] if few else config["sparsities"]:
        yield "joint", f"{sparsity:.0%}", SubsetProblem(W, H, Budget.per_row(round(sparsity * n)))
    for keep, of in config["patterns"]:
        if n % of == 0:
            yield "joint", f"{keep}:{of}", SubsetProblem(W, H, Budget.n_of_m(keep, of))
    if few:
        return
    for sparsity in config["layer_sparsities"]:
        budget = Budget.per_layer(round(sparsity * m * n))
        yield "joint", f"{sparsity:.0%} of the layer", SubsetProblem(W, H, budget)
    for sparsity in config["selection"]:
        budget = Budget.per_row(round(sparsity * n))
        yield "selection", f"{sparsity:.0%}", SubsetProblem(W, H, budget, refit=False)


def synthetic(settings: dict[str, Any], rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights, and the damped Gram matrix of rectified activations with a decaying spectrum."""
    rng, n = np.random.default_rng(seed), settings["inputs"]
    mix = rng.standard_normal((n, n), np.float32)
    mix *= np.arange(1, n + 1, dtype=np.float32)[:, None] ** -settings["decay"]
    H = np.zeros((n, n), np.float32)
    for _ in range(settings["tokens"] // 1024):
        X = rng.standard_normal((1024, n), np.float32) @ mix
        X = np.maximum(X - 0.3 * X.std(axis=0), 0.0)
        H += X.T @ X / settings["tokens"]
    H = H.astype(np.float64)
    H = 0.5 * (H + H.T)
    H[np.diag_indices(n)] *= 1.0 + settings["damping"]
    return rng.standard_normal((rows, n)) / np.sqrt(n), H


class Results:
    """Rows of `results/runs.csv`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(exist_ok=True)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open() as file:
                self.rows = list(csv.DictReader(file))

    def has(self, **wanted: str) -> bool:
        return any(all(row[name] == value for name, value in wanted.items()) for row in self.rows)

    def add(self, **row: Any) -> None:
        self.rows.append({name: str(row[name]) for name in FIELDS})
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def table(self) -> str:
        lines = [
            "| layer | size | variant | pruned | gap % | mask s | bound s | peak MiB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            seconds = f"{float(row['mask_seconds']):.1f} | {float(row['bound_seconds']):.1f}"
            lines.append(
                f"| {row['layer']} | {row['rows']} x {row['inputs']} | {row['variant']} | {row['budget']} "
                f"| {100 * float(row['gap']):.1f} | {seconds} | {float(row['peak_mib']):.0f} |"
            )
        return "\n".join(lines) + "\n"


def run_layer(
    config: dict[str, Any], name: str, W: np.ndarray, H: np.ndarray, done: Results, *, few: bool = False
) -> None:
    m, n = W.shape
    for variant, budget, problem in problems(config, W, H, few=few):
        runs: list[tuple[str, float | None]] = [(budget, None)]
        if variant == "joint" and budget in config["longer"] and not few:
            runs.append((f"{budget}, in time", config["seconds"]))
        for label, limit in runs:
            if done.has(layer=name, rows=str(m), variant=variant, budget=label):
                continue
            mask = solve(problem, "portfolio", time_limit=config["mask_seconds"], seed=config["seed"])
            found = solve(problem, "relaxation", warm_start=mask.mask, time_limit=limit)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            done.add(
                layer=name, rows=m, inputs=n, variant=variant, budget=label, value=found.value,
                bound=found.bound, gap=found.gap, mask_seconds=mask.seconds, bound_seconds=found.seconds,
                peak_mib=peak, cores=workers(),
            )  # fmt: skip
            print(f"{name} {variant} {label}: gap {100 * found.gap:.1f}%, {found.seconds:.1f} s", flush=True)


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    layers = tomllib.loads((HERE.parent / "layers" / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    parser.add_argument("--wheel-dir", type=Path, default=HERE.parent / "layers" / "runs")
    parser.add_argument("--only", default="", help="layers whose name contains this")
    parser.add_argument(
        "--rows", type=int, default=config["synthetic"]["rows"], help="of the synthetic layer"
    )
    asked = parser.parse_args()
    done = Results(HERE / "results" / "runs.csv")
    if "synthetic".startswith(asked.only.split("/")[0]):
        W, H = synthetic(config["synthetic"], asked.rows, config["seed"])
        run_layer(config, "synthetic", W, H, done, few=True)
    if asked.only != "synthetic":
        if asked.data_dir is None:
            parser.error("name the data folder with --data-dir or CBS_DATA")
        for network, found in networks(layers, Path(asked.data_dir), asked.wheel_dir):
            if network.startswith(asked.only.split("/")[0]):
                for name, W, H in found():
                    if asked.only in f"{network}/{name}" and W.shape[1] > 160:
                        run_layer(config, f"{network}/{name}", W, H, done)
    (HERE / "results" / "table.md").write_text(done.table())
    print(done.table())


if __name__ == "__main__":
    main()
