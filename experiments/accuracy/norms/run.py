"""Batch norms of ResNet20 after pruning: their statistics as they were, anew, or held to the dense network.

    CBS_DATA=/path/to/data python experiments/accuracy/norms/run.py

Rows that `results/rows.csv` has are not computed again; the table in README.md is made of it.
"""

import argparse
import copy
import os
import sys
import time
import tomllib
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from cases import Rows, put  # noqa: E402

import cbs  # noqa: E402
from cbs.data import Samples  # noqa: E402
from cbs.network.evaluate import evaluate  # noqa: E402
from cbs.network.norms import recompute_norms  # noqa: E402
from cbs.zoo import trained  # noqa: E402

KEYS = ("method", "images", "sparsity", "norms")
VALUES = ("divergence", "accuracy", "loss", "seconds")
METHODS = {
    "none": {},
    "magnitude": {"method": "magnitude"},
    "joint": {"method": "joint"},
    "joint, sequential": {"method": "joint", "pipeline": "sequential"},
}
NORMS = ("as they were", "of the inputs", "to the dense outputs")


def load(folder: Path, images: int, test: int) -> tuple[nn.Module, Samples, Samples]:
    found = trained("resnet20", folder)
    return found.model, found.train.few(images), found.test.few(test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="only some")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if options.data_dir is None:
        parser.error("give --data-dir or set CBS_DATA: a folder with resnet20_cifar10.npz and CIFAR-10")
    config = tomllib.loads((HERE / "config.toml").read_text())
    torch.set_num_threads(config["threads"])
    options.output.mkdir(exist_ok=True)
    rows = Rows(options.output / "rows.csv", KEYS, VALUES)
    for part in config["parts"]:
        model, data, test = load(Path(options.data_dir), part["images"], config["test"])
        layers = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name != "conv1"
        ]
        for method in (method for method in part["methods"] if method in options.methods):
            left = [
                sparsity
                for sparsity in (part["sparsities"] if METHODS[method] else [0.0])
                if not all(
                    rows.has(method=method, images=len(data), sparsity=sparsity, norms=n) for n in NORMS
                )
            ]
            for sparsity, pruned in networks(model, data, layers, method, left):
                measure(rows, model, data, test, pruned, method, sparsity)
    put(HERE / "README.md", "table", table(rows, config))


def networks(model: nn.Module, data: Samples, layers: list[str], method: str, sparsities: list[float]):
    """Pruned networks, norms as they were; what methods compute of the dense one is shared by sparsities."""
    if method == "none":
        yield from ((sparsity, model) for sparsity in sparsities)
    elif sparsities:
        asked = dict(METHODS[method])
        results = cbs.compare(
            model, data, sparsities=sparsities, methods=[asked.pop("method")], layers=layers, certify=False,
            norms=False, **asked,
        )  # fmt: skip
        yield from ((result.asked, result.model) for result in results)


def measure(rows, model, data, test, pruned, method, sparsity) -> None:
    for norms in NORMS:
        if rows.has(method=method, images=len(data), sparsity=sparsity, norms=norms):
            continue
        network, began = copy.deepcopy(pruned), time.process_time()
        if norms != "as they were":
            recompute_norms(network, data, model if norms == "to the dense outputs" else None)
        seconds = time.process_time() - began
        found = evaluate(network, test, F.cross_entropy)
        row = {"method": method, "images": len(data), "sparsity": sparsity, "norms": norms}
        rows.add({
            **row, "divergence": round(divergence(network, model, data), 6), "accuracy": found.accuracy,
            "loss": round(found.loss, 5), "seconds": round(seconds, 2),
        })  # fmt: skip


@torch.no_grad()
def divergence(network, model, data) -> float:
    """Mean KL divergence of the probabilities from the dense network's, on the calibration images."""
    total = 0.0
    for x, _ in data.batches():
        q, p = F.log_softmax(network.eval()(x), 1), F.log_softmax(model(x), 1)
        total += float(F.kl_div(q, p, log_target=True, reduction="sum"))
    return total / len(data)


def table(rows: Rows, config: dict) -> str:
    lines = [
        f"Accuracy in % on the first {config['test']} test images (Kullback-Leibler divergence from the "
        "dense network on the calibration images); CPU seconds of the recomputation.",
        "",
        f"| images | method | sparsity | {' | '.join(NORMS)} | seconds |",
        "|---|---|---|" + "---|" * (len(NORMS) + 1),
    ]
    trial = Rows(HERE / "results" / "trial.csv", KEYS, VALUES)
    own = {row["method"] for row in rows.rows}
    every = rows.rows + [row for row in trial.rows if row["method"] not in own]
    keys = dict.fromkeys((row["images"], row["method"], row["sparsity"]) for row in every)
    for images, method, sparsity in keys:
        found = {
            row["norms"]: row
            for row in every
            if (row["images"], row["method"], row["sparsity"]) == (images, method, sparsity)
        }
        cells = [
            f"{100 * float(row['accuracy']):.2f}"
            + (f" ({float(row['divergence']):.3f})" if row["divergence"] else "")
            for row in (found[norms] for norms in NORMS if norms in found)
        ]
        if len(cells) == len(NORMS):
            seconds = float(found[NORMS[-1]]["seconds"])
            lines.append(f"| {images} | {method} | {sparsity} | {' | '.join(cells)} | {seconds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
