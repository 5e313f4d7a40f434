"""Bounds of MLPNet's 784-input rows by diagonal splits and by splits in blocks: see README.md."""

from __future__ import annotations

import argparse
import csv
import os
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cbs.data import mnist
from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.groups.central_path import group_split
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.split import Split
from solvers.form.blocks import Block, blocks
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.relaxations.split import LoneRow
from solvers.runtime.parallel import side_by_side

HERE = Path(__file__).parent
FIELDS = ("pruned", "row", "split", "bound", "value", "seconds", "limit")


class Rows:
    """Finished bounds, on disk as they finish."""

    def __init__(self, path: Path) -> None:
        """Read what is at `path`."""
        self.path = path
        self.known: dict[tuple[str, ...], dict[str, str]] = {}
        if path.exists():
            with path.open(newline="") as file:
                self.known = {place(row): row for row in csv.DictReader(file)}

    def missing(self, pruned: float, row: int, split: str, limit: float) -> bool:
        """Whether a bound is missing, or stopped at less time than is given now."""
        found = self.known.get((str(pruned), str(row), split))
        return found is None or (split == "rounds" and float(found["limit"]) < limit)

    def add(self, **row: Any) -> None:
        """Keep a bound, and say so."""
        self.known[place(row)] = {name: str(row[name]) for name in FIELDS}
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.known.values())
        gap = 1.0 - row["bound"] / row["value"]
        print(
            f"{row['pruned']:.0%} row {row['row']} {row['split']}: {gap:.2%}, {row['seconds']:.1f} s",
            flush=True,
        )

    def table(self) -> str:
        """Mean gap and seconds of every split and sparsity, quickest first, to the best mask known."""
        best: dict[tuple[str, str], float] = {}
        for row in self.known.values():
            key = (row["pruned"], row["row"])
            best[key] = min(best.get(key, np.inf), float(row["value"]))
        cells: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for row in self.known.values():
            gap = 1.0 - float(row["bound"]) / best[row["pruned"], row["row"]]
            cells.setdefault((row["pruned"], row["split"]), []).append((gap, float(row["seconds"])))
        lines = [
            "| pruned | split | rows | mean gap % | largest gap % | seconds a row |",
            "|---|---|---|---|---|---|",
        ]
        for (pruned, split), found in sorted(cells.items(), key=lambda cell: (cell[0][0], cell[1][0][1])):
            gaps, seconds = np.array(found).T
            lines.append(
                f"| {float(pruned):.0%} | {split} | {len(found)} | {100 * gaps.mean():.2f} | "
                f"{100 * gaps.max():.2f} | {seconds.mean():.1f} |"
            )
        return "\n".join(lines) + "\n"


def place(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells a bound from others."""
    return tuple(str(row[name]) for name in FIELDS[:3])


def layer(folder: Path, config: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[40, 784]`, and the damped Gram matrix of the layer's inputs."""
    with np.load(folder / config["weights"]) as archive:
        W = archive[config["layer"]].astype(np.float64)
    X = (
        mnist(folder)
        .train.inputs[: config["images"]]
        .reshape(config["images"], -1)
        .numpy()
        .astype(np.float64)
    )
    H = X.T @ X / len(X)
    return W, H + config["damping"] * np.diagonal(H).mean() * np.eye(len(H))


def diagonal(block: Block, split: Split) -> float:
    """The bound of a diagonal split."""
    return lower_bound(block, split.d, relaxed_point(block, split.d, split.z))


def bounds(
    block: Block, shared: Split, pruned: np.ndarray, limit: float
) -> dict[str, Callable[[], tuple[float, float]]]:
    """How to get each split's bound of a row, and a value."""
    value = block.value(pruned)

    def rounds() -> tuple[float, float]:
        end = time.perf_counter() + limit
        row = LoneRow(block, shared, pruned, diagonal(block, shared))
        for size in (4, 8, 8):
            row.lift(size, lambda: time.perf_counter() >= end)
            row.polish(lambda: time.perf_counter() >= end)
        return row.bound, row.value

    def grouped(size: int) -> Callable[[], tuple[float, float]]:
        return lambda: (group_split(block, shared.d[0], shared.z, value, size=size)[1], value)

    return {
        "own": grouped(1),
        "blocks of 2": grouped(2),
        "blocks of 4": grouped(4),
        "blocks of 8": grouped(8),
        "rounds": rounds,
    }


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    parser.add_argument("--rows", type=int, default=config["rows"], help="how many rows")
    parser.add_argument("--seconds", type=float, default=config["seconds"], help="limit of a row's rounds")
    parser.add_argument("--sparsities", type=float, nargs="+", default=config["sparsities"])
    parser.add_argument("--splits", nargs="+", default=config["splits"], help="which ones")
    asked = parser.parse_args()
    if asked.data_dir is None:
        parser.error("name the data folder with --data-dir or CBS_DATA")
    W, H = layer(Path(asked.data_dir), config)
    done = Rows(HERE / "results" / "rows.csv")
    chosen = np.unique(np.linspace(0, len(W) - 1, asked.rows).round().astype(int)).tolist()
    for pruned in asked.sparsities:
        if not any(done.missing(pruned, r, split, asked.seconds) for r in chosen for split in asked.splits):
            continue
        problem = SubsetProblem(W, H, Budget.per_row(round(pruned * W.shape[1])))
        start = time.perf_counter()
        found = blocks(problem)
        rows = SharedRows.of(problem)
        shared = relaxation.choose(rows)
        _, z = relaxation.relax(rows, shared)
        splits = [Split(shared.d.numpy()[None], share, shared.steps) for share in z.numpy()]
        share = (time.perf_counter() - start) / len(W)
        few = SubsetProblem(W[chosen], H, problem.budget)
        masks, _, _ = LocalSearch().improve(few, greedy_mask(few))
        starts = {r: (found[r], splits[r], mask) for r, mask in zip(chosen, masks, strict=True)}
        for r, (block, split, mask) in starts.items():
            value = block.value(mask)
            done.add(
                pruned=pruned,
                row=r,
                split="shared",
                bound=diagonal(block, split),
                value=value,
                seconds=share,
                limit=0,
            )

        def work(r: int, pruned: float = pruned, starts: dict[int, Any] = starts) -> None:
            block, split, mask = starts[r]
            for name, bound in bounds(block, split, mask, asked.seconds).items():
                if name in asked.splits and done.missing(pruned, r, name, asked.seconds):
                    start = time.perf_counter()
                    low, value = bound()
                    seconds = time.perf_counter() - start
                    done.add(
                        pruned=pruned,
                        row=r,
                        split=name,
                        bound=low,
                        value=value,
                        seconds=seconds,
                        limit=asked.seconds,
                    )

        side_by_side(work, chosen)
    (HERE / "results" / "table.md").write_text(done.table())
    print(done.table())


if __name__ == "__main__":
    main()
