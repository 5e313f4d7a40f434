"""Stages on MLPNet: how many, how the sparsity grows, whether weights return; with and without a refit.

    CBS_DATA=/path/to/data python experiments/accuracy/stages/run.py

Rows that `results/rows.csv` has are not computed again; `results/tables.md` is made of it.
"""

import argparse
import csv
import os
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import torch

import cbs
from cbs.data import gather
from cbs.network.evaluate import evaluate
from cbs.network.network import Network, Reference
from cbs.network.surgery import revive
from cbs.prune import _run
from cbs.references import References
from cbs.refit.network import matching
from cbs.schedule.growth import as_schedule

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
FIELDS = (
    "kind", "sparsity", "stages", "seed", "pruned", "accuracy", "divergence", "seconds", "refit_seconds",
    "cpu",
)  # fmt: skip


class Rows:
    """The raw rows, on disk as soon as they are there."""

    def __init__(self, path: Path, most: int | None) -> None:
        self.path, self.rows, self.new, self.most = path, [], 0, most
        if path.exists():
            with path.open() as file:
                self.rows = list(csv.DictReader(file))

    def missing(self, **key) -> bool:
        return not any(all(row[name] == str(value) for name, value in key.items()) for row in self.rows)

    def add(self, **row) -> None:
        self.new += 1
        self.rows.append({name: str(row.get(name, "")) for name in FIELDS})
        self.path.parent.mkdir(exist_ok=True, parents=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        print(*self.rows[-1].values(), flush=True)

    def of(self, kind):
        return [row for row in self.rows if row["kind"] == kind]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="MNIST and mlpnet_93.97.npz")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--rows", type=int, help="end after so many new rows; the next run goes on")
    options = parser.parse_args()
    if options.data_dir is None:
        parser.error("give --data-dir or CBS_DATA")
    config = tomllib.loads((HERE / "config.toml").read_text())
    rows = Rows(options.output / "rows.csv", options.rows)
    folder = Path(options.data_dir)
    split, model = cbs.mnist(folder), cbs.mlpnet(folder / "mlpnet_93.97.npz")
    train, test = gather(split.train), gather(split.test)

    def prune(kind, sparsity, stages, seed, data=train, refit=None):
        key = {"kind": kind, "sparsity": sparsity, "stages": stages, "seed": seed}
        if not rows.missing(**key) or rows.new == rows.most:
            return
        began = time.process_time()
        result = cbs.prune(
            model, data, sparsity=sparsity, stages=as_schedule(stages), refit=refit, reselect=False,
            solver="greedy",
            samples=config["images"], certify=False, test=test, seed=seed,
        )  # fmt: skip
        last = result.history[-1]
        rows.add(
            **key, pruned=f"{last.test_pruned.accuracy:.4f}", accuracy=f"{result.test_after.accuracy:.4f}",
            divergence="" if last.refitted_divergence is None else f"{last.refitted_divergence:.5f}",
            seconds=f"{result.seconds:.1f}", cpu=f"{time.process_time() - began:.1f}",
            refit_seconds=f"{sum(stage.refit_seconds for stage in result.history):.1f}",
        )  # fmt: skip

    for seed in config["scales"]["seeds"]:
        drawn = replace(train, targets=labels_of(model, train, seed))
        for sparsity in config["scales"]["sparsities"]:
            prune("scales: true labels", sparsity, "1", seed)
            prune("scales: drawn labels", sparsity, "1", seed, drawn)
    for seed in config["seeds"]:
        for kind, refit in (("with refit", "network"), ("without refit", None)):
            for stages in config[kind.replace(" ", "_")]:
                for sparsity in config["sparsities"]:
                    prune(kind, sparsity, stages, seed, refit=refit)
    for seed in config["against"]["seeds"]:
        for refit in (None, "network"):
            against(rows, config, model, train, test, seed, refit)
    write(options.output, rows, config)


def write(output, rows, config):
    """The tables, in a file of their own and in the README."""
    text = tables(rows, config)
    (output / "tables.md").write_text(text)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def against(rows, config, model, train, test, seed, refit):
    """One more stage from one network, its layers drawn to its own outputs or to the dense ones."""
    middle, sparsity = config["against"]["middle"], config["against"]["sparsity"]
    common = {"solver": "greedy", "samples": config["images"], "certify": False, "seed": seed}
    kind = f"against, {'refitted' if refit else 'as pruned'}"
    todo = [
        variant
        for variant in ("itself", "dense", "dense, return")
        if rows.missing(kind=kind, sparsity=sparsity, stages=variant, seed=seed)
    ]
    if not todo or rows.new == rows.most:
        return
    start = cbs.prune(model, train, sparsity=middle, refit=refit, reselect=False, **common)
    dense = Network(model, train, samples=config["images"], seed=seed)
    dense.hold_out(test)
    divergence = matching(dense.model, dense.samples, dense.loss)
    for variant in todo:
        began = time.process_time()
        given = start.permanent() if variant.endswith("return") else revive(model, start.state, start.masks)
        network = Network(
            given, dense.samples, seed=seed,
            reference=None if variant == "itself" else Reference(dense, divergence),
        )  # fmt: skip
        network.hold_out(test)
        result = _run(network, cbs.Request(sparsity, **common), References(network), None).result
        found = cbs.refit_network(result.model, dense.model, dense.samples, seed=seed)
        rows.add(
            kind=kind, sparsity=sparsity, stages=variant, seed=seed, divergence=f"{found.after:.5f}",
            pruned=f"{result.test_after.accuracy:.4f}", cpu=f"{time.process_time() - began:.1f}",
            accuracy=f"{evaluate(result.model, test, dense.loss).accuracy:.4f}",
        )  # fmt: skip


@torch.no_grad()
def labels_of(model, samples, seed):
    """A label for every sample, drawn from the network's own probabilities."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.cat([model(x) for x, _ in samples.batches()]).softmax(dim=1)
    return torch.multinomial(p, 1, generator=generator)[:, 0]


def tables(rows, config):
    """`tables.md`, of the raw rows."""
    text = []
    for kind in ("without refit", "with refit"):
        if not rows.of(kind):
            continue
        text += [
            f"### Stages {kind}", "",
            "| stages | " + " | ".join(f"{s:.2f} | divergence | CPU s" for s in config["sparsities"]) + " |",
            "| --- |" + " ---: |" * 3 * len(config["sparsities"]),
        ]  # fmt: skip
        for stages in config[kind.replace(" ", "_")]:
            cells = [f"`{stages}`"]
            for sparsity in config["sparsities"]:
                found = [r for r in rows.of(kind) if (r["stages"], r["sparsity"]) == (stages, str(sparsity))]
                cells += [mean(found, "accuracy"), mean(found, "divergence", 1, "{:.4f}")]
                cells.append(mean(found, "cpu", 1, "{:.0f}"))
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    text += [
        "### What layers are drawn to", "",
        "| one more stage, drawn to | as pruned | then refitted | refitted before it | then refitted again |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for variant in ("itself", "dense", "dense, return"):
        cells = [
            mean([r for r in rows.of(f"against, {kind}") if r["stages"] == variant], field)
            for kind in ("as pruned", "refitted")
            for field in ("pruned", "accuracy")
        ]
        text.append(f"| {variant} | {' | '.join(cells)} |")
    text.append("")
    scales = config["scales"]
    text += [
        "### Row scales", "", "| labels | " + " | ".join(f"{s:.2f}" for s in scales["sparsities"]) + " |",
        "| --- |" + " ---: |" * len(scales["sparsities"]),
    ]  # fmt: skip
    for kind in ("scales: true labels", "scales: drawn labels"):
        cells = [
            mean([r for r in rows.of(kind) if r["sparsity"] == str(s)], "accuracy")
            for s in scales["sparsities"]
        ]
        text.append(f"| {kind.removeprefix('scales: ')} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def mean(rows, field, scale=100, form="{:.2f}"):
    """The mean over seeds, or a dash."""
    values = [scale * float(row[field]) for row in rows if row[field]]
    return form.format(sum(values) / len(values)) if values else "-"


if __name__ == "__main__":
    main()
