"""Schedules on MNIST: one shot or stages, what becomes of deleted weights, from scratch, and fewer bits.

    CBS_DATA=/path/to/data python experiments/papers/schedules/run.py

Rows that `results/rows.csv` has are not computed again; `results/tables.md` is made of it.
"""

import argparse
import csv
import os
import tomllib
import warnings
from pathlib import Path

import numpy as np

import cbs
from cbs.quantization.stored import pruned_bytes

HERE = Path(__file__).parent
FIELDS = ("kind", "sparsity", "method", "how", "seed", "accuracy", "loss", "bytes", "seconds")
SCHEDULES = {
    "one shot": lambda epochs: {},
    "one shot, tuned": lambda epochs: {"finetune": epochs},
    "3 stages, tuned": lambda epochs: {"finetune": epochs // 3, "stages": 3},
    "3 stages, shrink": lambda epochs: {
        "finetune": epochs // 3,
        "stages": cbs.Schedule(3, deleted="shrink"),
    },
    "3 stages, adapt": lambda epochs: {"finetune": epochs // 3, "stages": cbs.Schedule(3, deleted="adapt")},
}


class Rows:
    """The raw rows, on disk as soon as they are there."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []
        if path.exists():
            with path.open() as file:
                self.rows = list(csv.DictReader(file))

    def missing(self, **key) -> bool:
        return not any(all(row[name] == str(value) for name, value in key.items()) for row in self.rows)

    def add(self, **row) -> None:
        self.rows.append({name: str(row.get(name, "")) for name in FIELDS})
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        print(*self.rows[-1].values(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="MNIST and mlpnet_93.97.npz")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if options.data_dir is None:
        parser.error("give --data-dir or set CBS_DATA")
    config = tomllib.loads((HERE / "config.toml").read_text())
    warnings.simplefilter("ignore")
    split = cbs.mnist(options.data_dir)
    training = split.train.choose(config["images"])
    model = cbs.mlpnet(Path(options.data_dir) / "mlpnet_93.97.npz")
    options.output.mkdir(exist_ok=True, parents=True)
    rows = Rows(options.output / "rows.csv")
    for seed in config["seeds"]:
        for sparsity in config["sparsities"]:
            for method in config["methods"]:
                if method in config["once"] and seed != config["seeds"][0]:
                    continue
                compare_schedules(rows, config, model, training, split.test, method, sparsity, seed)
    quantize_all(rows, config, model, training, split.test)
    (options.output / "tables.md").write_text(tables(rows.rows, config))
    draw(rows.rows, options.output / "bytes.png")


def compare_schedules(rows, config, model, training, test, method, sparsity, seed) -> None:
    asked = {
        "sparsity": sparsity, "method": method, "solver": "greedy", "samples": config["samples"],
        "seed": seed, "certify": False, "test": test,
    }  # fmt: skip
    for how, options in SCHEDULES.items():
        key = {"kind": "schedule", "sparsity": sparsity, "method": method, "how": how, "seed": seed}
        scratch = {**key, "how": "from scratch"}
        again = how == "one shot" and rows.missing(**scratch)
        if not (again or rows.missing(**key)):
            continue
        result = cbs.prune(model, training, **asked, **options(config["epochs"]))
        if rows.missing(**key):
            rows.add(
                **key, accuracy=result.test_after.accuracy, loss=result.test_after.loss,
                bytes=pruned_bytes(result.model), seconds=round(result.seconds, 2),
            )  # fmt: skip
        if again:
            fresh = cbs.from_scratch(result, seed=seed)
            cbs.train(fresh, training, epochs=config["scratch_epochs"], seed=seed)
            accuracy, loss = measured(fresh, test)
            rows.add(**scratch, accuracy=accuracy, loss=loss, bytes=pruned_bytes(fresh))


def quantize_all(rows, config, model, training, test) -> None:
    """The dense network in few bits, and pruned ones, fine-tuned and then quantized."""
    networks = {0.0: lambda: model}
    for sparsity in config["sparsities"]:
        networks[sparsity] = lambda sparsity=sparsity: cbs.prune(
            model, training, sparsity=sparsity, method="joint", solver="greedy", samples=config["samples"],
            finetune=config["epochs"], certify=False,
        ).model  # fmt: skip
    for sparsity, make in networks.items():
        asked = [(bits, how) for bits in config["bits"] for how in ("nearest", "feedback")]
        keys = {
            pair: {
                "kind": "bits", "sparsity": sparsity, "method": f"{pair[0]} bits", "how": pair[1], "seed": 0,
            }
            for pair in asked
        }  # fmt: skip
        plain = {"kind": "bits", "sparsity": sparsity, "method": "32 bits", "how": "-", "seed": 0}
        if not any(rows.missing(**key) for key in (*keys.values(), plain)):
            continue
        network = make()
        if rows.missing(**plain):
            accuracy, loss = measured(network, test)
            rows.add(**plain, accuracy=accuracy, loss=loss, bytes=pruned_bytes(network))
        for (bits, how), key in keys.items():
            if rows.missing(**key):
                result = cbs.quantize(
                    network, training, bits=bits, rounding=how, samples=config["samples"], test=test
                )
                found = result.test_after
                rows.add(
                    **key, accuracy=found.accuracy, loss=found.loss, bytes=result.bytes,
                    seconds=round(result.seconds, 2),
                )  # fmt: skip


def measured(model, test) -> tuple[float, float]:
    from cbs.network.evaluate import evaluate
    from cbs.network.losses import named_loss

    found = evaluate(model, test, named_loss("cross_entropy"))
    return found.accuracy, found.loss


def tables(rows, config) -> str:
    """Means over seeds with half the range of a 95% interval (t, n - 1 degrees), test accuracy in %."""
    from scipy.stats import t

    text = []
    for sparsity in config["sparsities"]:
        text += [f"Sparsity {sparsity}", "", "| schedule | " + " | ".join(config["methods"]) + " |"]
        text += ["| --- |" + " ---: |" * len(config["methods"])]
        for how in (*SCHEDULES, "from scratch"):
            cells = []
            for method in config["methods"]:
                found = [
                    100 * float(row["accuracy"])
                    for row in rows
                    if (row["kind"], row["sparsity"], row["method"], row["how"])
                    == ("schedule", str(sparsity), method, how)
                ]
                if len(found) < 2:
                    cells.append(f"{found[0]:.2f}" if found else "-")
                    continue
                half = t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / len(found) ** 0.5
                cells.append(f"{np.mean(found):.2f} ± {half:.2f}")
            text.append(f"| {how} | {' | '.join(cells)} |")
        text.append("")
    text += ["| pruned | bits | rounding | bytes | accuracy |", "| ---: | ---: | --- | ---: | ---: |"]
    text += [
        f"| {float(row['sparsity']):.0%} | {row['method'].split()[0]} | {row['how']} "
        f"| {int(row['bytes']):,} | {100 * float(row['accuracy']):.2f} |"
        for row in rows
        if row["kind"] == "bits"
    ]
    return "\n".join(text) + "\n"


def draw(rows, path: Path) -> None:
    """Test accuracy against bytes, a line a sparsity: from 32 bits a weight to 2, with error feedback."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    found = [row for row in rows if row["kind"] == "bits" and row["how"] != "nearest"]
    for sparsity in dict.fromkeys(row["sparsity"] for row in found):
        line = [row for row in found if row["sparsity"] == sparsity]
        at = [int(row["bytes"]) for row in line], [100 * float(row["accuracy"]) for row in line]
        axes.plot(*at, "o-", label=f"{float(sparsity):.0%} pruned")
        for row, x, y in zip(line, *at, strict=True):
            axes.annotate(row["method"].split()[0], (x, y), textcoords="offset points", xytext=(4, -10))
    axes.set(
        xscale="log", xlabel="bytes", ylabel="test accuracy, %", title="Bits a weight, with error feedback"
    )
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
