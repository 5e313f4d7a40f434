"""Table 1 of the Combinatorial Brain Surgeon, and what stands beside it: see README.md."""

import argparse
import csv
import os
import time
import tomllib
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import cbs
from cbs.data import mnist
from cbs.methods import get_method
from cbs.selection import Choice, Selection
from cbs.zoo import mlpnet

HERE = Path(__file__).parent
RAW = HERE / "results" / "runs.csv"
FIELDS = (
    "method", "gradients", "sparsity", "kept", "seed", "accuracy", "train_loss", "prediction", "step",
    "steps", "swaps", "cpu_seconds",
)  # fmt: skip
ORDER = ("MP", "WF-S", "RMP", "CBS-S", "WF", "CBS", "CBS scaled", "CBS 1e-3", "CBS 1e-3 scaled")


@dataclass(frozen=True)
class Once(Selection):
    """A selection whose choice is made once for a budget and taken by every method after that.

    The methods of one mask (it stays, moves, moves as far as pays, by one damping or another, of which the
    search has none) need one search.
    """

    inner: Selection
    made: dict[Any, list[Choice]] = field(default_factory=dict, compare=False)

    searches: ClassVar[bool] = True

    @property
    def words(self) -> str:
        return self.inner.words

    def share(self, job: Any) -> Any:
        return self.inner.share(job)

    def choose(self, job: Any, quadratics: Any, budgets: Any, starts: Any) -> list[Choice]:
        key = (id(job.network), tuple(budgets))
        if key not in self.made:
            self.made.clear()
            self.made[key] = self.inner.choose(job, quadratics, budgets, starts)
        return [
            replace(made, quadratic=model) for made, model in zip(self.made[key], quadratics, strict=True)
        ]


def published(damping: float, more: float) -> dict[str, cbs.Method]:
    """The columns of the table; dampings are relative to the mean of the Fisher's diagonal."""
    fisher, search, obs = cbs.Fisher(damping=damping), Once(get_method("cbs").selection), cbs.Scores("obs")
    points = {
        "MP": (cbs.Identity(), cbs.Scores("magnitude"), cbs.Nothing()),
        "WF-S": (fisher, obs, cbs.Nothing()),
        "RMP": (fisher, get_method("rmp").selection, cbs.Nothing()),
        "CBS-S": (fisher, search, cbs.Nothing()),
        "WF": (fisher, obs, cbs.Singles()),
        "CBS": (fisher, search, cbs.Survivors()),
        "CBS scaled": (fisher, search, cbs.Scaled()),
        "CBS 1e-3": (cbs.Fisher(damping=more), search, cbs.Survivors()),
        "CBS 1e-3 scaled": (cbs.Fisher(damping=more), search, cbs.Scaled()),
    }
    return {name: cbs.Method(*parts, name=name) for name, parts in points.items()}


class Rows:
    """The raw rows: read at the start, written one by one."""

    def __init__(self) -> None:
        RAW.parent.mkdir(exist_ok=True)
        self.rows = []
        if RAW.exists():
            with RAW.open(newline="") as file:
                self.rows = list(csv.DictReader(file))
        self.done = {self.key(row) for row in self.rows}

    @staticmethod
    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in ("method", "gradients", "sparsity", "kept", "seed"))

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append({name: str(row.get(name, "")) for name in FIELDS})
        self.done.add(self.key(row))
        new = not RAW.exists()
        with RAW.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(self.rows[-1])


def row_of(
    result: cbs.PruneResult, method: str, gradients: int, sparsity: float, seed: int
) -> dict[str, Any]:
    """A raw row of a result."""
    stats, found = result.history[0].stats, result.layers[0].stats
    assert result.test_after is not None
    return {
        "method": method, "gradients": gradients, "sparsity": sparsity, "seed": seed,
        "kept": sum(layer.kept for layer in result.layers),
        "accuracy": f"{100 * result.test_after.accuracy:.2f}", "train_loss": f"{result.after.loss:.5f}",
        "prediction": "" if result.measured.prediction is None else f"{result.measured.prediction:.5g}",
        "step": stats.get("step", ""), "steps": found.get("steps", ""), "swaps": found.get("swaps", ""),
    }  # fmt: skip


def fill(
    rows: Rows,
    model: Any,
    data: Any,
    test: Any,
    counts: dict[float, int],
    methods: list[cbs.Method],
    gradients: int,
    seed: int,
    **options: Any,
) -> None:
    """The rows of a seed that are not there yet, from one network, whose gradients are computed once.

    Args:
        rows: what is there, and is added to.
        model: the dense network.
        data: calibration data.
        test: test data.
        counts: for every sparsity of the table the number of weights that are kept.
        methods: what is run.
        gradients: samples for gradients, for the rows.
        seed: of all draws.
        **options: of `cbs.compare`.
    """
    total = sum(values.numel() for values in model.parameters())
    asked = {1 - kept / total: s for s, kept in counts.items()}

    def missing(s: float, method: cbs.Method) -> bool:
        row = {"method": method.name, "gradients": gradients, "sparsity": s, "kept": counts[s], "seed": seed}
        return Rows.key(row) not in rows.done

    todo = [f for f, s in asked.items() if any(missing(s, method) for method in methods)]
    methods = [method for method in methods if any(missing(s, method) for s in asked.values())]
    if not todo:
        return
    began = time.process_time()

    def keep(result: cbs.PruneResult) -> None:
        nonlocal began
        row = row_of(result, result.method, gradients, asked[result.asked], seed)
        if Rows.key(row) not in rows.done:
            rows.add(row | {"cpu_seconds": f"{time.process_time() - began:.1f}"})
            print(*rows.rows[-1].values(), flush=True)
        began = time.process_time()

    cbs.compare(
        model, data, sparsities=todo, methods=methods, test=test, certify=False, seed=seed, on_result=keep,
        **options,
    )  # fmt: skip


def measure(folder: Path, config: dict[str, Any], rows: Rows, only: int | None) -> None:
    """Everything that the configuration asks for and that is not there yet."""
    split, model = mnist(folder), mlpnet(folder / config["weights"])
    train = cbs.Samples(split.train.inputs[: config["images"]], split.train.targets[: config["images"]])
    total = sum(values.numel() for values in model.parameters())
    named = {s: round((1 - s) * total) for s in config["sparsities"]}
    own = config["ours"]
    images = cbs.Samples(split.train.inputs[: own["images"]], split.train.targets[: own["images"]])
    shared = {"damping": own["damping"], "solver": own["solver"]}
    joint = cbs.Method(cbs.Gram(), cbs.Solve(), cbs.Survivors(), name="joint")
    again = cbs.Method(cbs.Gram(), cbs.Solve(), cbs.Survivors(), name="joint, recalibrated")
    fill(rows, model, images, split.test, named, [joint], 0, 0, **shared)
    fill(rows, model, images, split.test, named, [again], 0, 0, refit="layer", **shared)
    for run in config["runs"] if only is None else [config["runs"][only - 1]]:
        kept = {float(s): count for s, count in config["kept"].items()}
        floors = {s: int((1 - s) * total) for s in named}
        every = {"named": named, "kept": kept, "floor": floors}[run["counts"]]
        counts = {s: every[s] for s in run["sparsities"]}
        for seed in config["seeds"][: run["seeds"]]:
            columns = published(config["damping"], config["more_damping"])
            methods = [columns[name] for name in run["methods"] if name != "MP" or seed == 0]
            drawn = {} if run["gradients"] == 1000 else {"samples": run["gradients"]}
            data = split.train if drawn else train
            fill(rows, model, data, split.test, counts, methods, run["gradients"], seed, **drawn)


def tables(config: dict[str, Any], rows: Rows) -> str:
    """The tables of the README, from the raw rows."""
    found: dict[tuple[str, str, float, int], list[float]] = {}
    for row in rows.rows:
        key = row["method"], row["gradients"], float(row["sparsity"]), int(row["kept"])
        found.setdefault(key, []).append(float(row["accuracy"]))
    named = {s: round((1 - s) * 32_360) for s in config["sparsities"]}
    kept = {float(s): count for s, count in config["kept"].items()}
    parts = []
    for title, counts, gradients in (
        ("At the counts that the table names, 1,000 gradients", named, "1000"),
        ("At the counts that the table names, 10,000 gradients", named, "10000"),
        ("At the counts that the released code keeps, 1,000 gradients", kept, "1000"),
        ("At the counts that the released code keeps, 10,000 gradients", kept, "10000"),
    ):
        lines = [f"{title}: test accuracy % (published, ours less published)", ""]
        names = [n for n in ORDER if any((n, gradients, s, k) in found for s, k in counts.items())]
        if not names:
            continue
        lines += ["| sparsity | kept | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
        for i, (s, k) in enumerate(counts.items()):
            if not any((name, gradients, s, k) in found for name in names):
                continue
            cells = []
            for name in names:
                exact = (name, gradients, s, int((1 - s) * 32_360))
                values = found.get(exact if counts is named and exact in found else (name, gradients, s, k))
                if values is None:
                    cells.append("")
                    continue
                mean, spread = np.mean(values), f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
                against = ""
                if (like := name.removesuffix(" 1e-3")) in config["published"]:
                    known = config["published"][like][i]
                    against = f" ({known:.2f}, {mean - known:+.2f})"
                cells.append(f"{mean:.2f}{spread}{against}")
            lines.append(f"| {s:.2f} | {k:,} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    lines = ["The project's own rows, 10,000 images, at the counts that the table names", ""]
    names = ["joint", "joint, recalibrated"]
    lines += ["| sparsity | " + " | ".join(names) + " | CBS published |", "|---" * (2 + len(names)) + "|"]
    for i, (s, k) in enumerate(named.items()):
        cells = [
            f"{np.mean(found[name, '0', s, k]):.2f}" if (name, "0", s, k) in found else "" for name in names
        ]
        lines.append(f"| {s:.2f} | " + " | ".join(cells) + f" | {config['published']['CBS'][i]:.2f} |")
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    parser.add_argument("--run", type=int, choices=range(1, 6), help="only this of the configuration's runs")
    parser.add_argument("--table", action="store_true", help="only write the table again, from the raw rows")
    arguments = parser.parse_args()
    config, rows = tomllib.loads((HERE / "config.toml").read_text()), Rows()
    if not arguments.table:
        if arguments.data_dir is None:
            parser.error("name the data folder with --data-dir or CBS_DATA")
        warnings.simplefilter("ignore", cbs.ScopeIgnored)
        measure(Path(arguments.data_dir), config, rows, arguments.run)
    text = tables(config, rows)
    (HERE / "results" / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
