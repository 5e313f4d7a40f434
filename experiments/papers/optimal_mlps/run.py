"""What a proven optimum buys over heuristics on the digits MLP: see README.md."""

import argparse
import copy
import csv
import time
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from table import summarize

import cbs
from cbs.network.evaluate import evaluate
from cbs.network.losses import named_loss

HERE = Path(__file__).parent
ROWS = HERE / "results" / "rows.csv"
FIELDS = (
    "seed", "sparsity", "method", "value", "status", "loss", "accuracy", "test_loss", "test_accuracy",
    "tuned_loss", "tuned_test_loss", "tuned_test_accuracy", "seconds",
)  # fmt: skip


def refitted(rule: str) -> cbs.Method:
    """A rule's mask with the survivors refitted, as those of all the others are."""
    return cbs.Method(cbs.Gram(), cbs.Scores(rule), cbs.Survivors(), name=f"{rule}, refitted")


METHODS: dict[str, str | cbs.Method] = {
    "optimum": cbs.Method(cbs.Gram(), cbs.Solve("branch-and-bound"), cbs.Survivors(), name="optimum"),
    "local-search": cbs.Method(cbs.Gram(), cbs.Solve("local-search"), cbs.Survivors(), name="local-search"),
    "obc": "obc",
    "alps": "alps",
    "sparsegpt": "sparsegpt",
    "wanda": refitted("wanda"),
    "magnitude": refitted("magnitude"),
    "random": refitted("random"),
    "cbs": "cbs",
    "obs": "obs",
}


def main() -> None:
    """Run what is not in the table of rows yet, and write the summary and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="networks")
    options = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    known = {(row["seed"], row["sparsity"], row["method"]) for row in read()}
    for seed in range(options.seeds or config["seeds"]):
        missing = [
            (sparsity, name)
            for sparsity in config["sparsities"]
            for name in METHODS
            if (seed, sparsity, name) not in known
        ]
        if missing:
            model, split = cbs.trained_digits_mlp(seed)
            for sparsity, name in missing:
                add(row(model, split, seed, sparsity, name, config))
    summarize(read(), config["confidence"], HERE / "results")


def row(
    model: Any, split: cbs.Split, seed: int, sparsity: float, name: str, config: dict[str, Any]
) -> dict[str, Any]:
    """One pruning, measured before and after fine-tuning."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cbs.prune(
            model, split.train, sparsity=sparsity, method=METHODS[name], test=split.test, certify=False,
            scope=config["scope"], damping=config["damping"], gap=config["gap"], seed=seed,
            time_limit=config["time_limit"],
        )  # fmt: skip
    seconds = time.process_time() - began
    if name == "optimum":
        assert all(layer.status == "optimal" for layer in result.layers)
    tuned = copy.deepcopy(result.model)
    cbs.train(tuned, split.train, epochs=config["epochs"], learning_rate=config["learning_rate"], seed=seed)
    train, test = (evaluate(tuned, part, named_loss("cross_entropy")) for part in (split.train, split.test))
    after, held_out = result.measured.after, result.measured.test_after
    assert held_out is not None
    return {
        "seed": seed, "sparsity": sparsity, "method": name, "value": result.value,
        "status": result.layers[0].status, "loss": after.loss, "accuracy": 100 * after.accuracy,
        "test_loss": held_out.loss, "test_accuracy": 100 * held_out.accuracy, "tuned_loss": train.loss,
        "tuned_test_loss": test.loss, "tuned_test_accuracy": 100 * test.accuracy, "seconds": seconds,
    }  # fmt: skip


def read() -> list[dict[str, Any]]:
    """What is there already, numbers as numbers."""
    if not ROWS.exists():
        return []
    with ROWS.open(newline="") as file:
        return [
            {
                key: value if key in ("method", "status") else int(value) if key == "seed" else float(value)
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def add(found: dict[str, Any]) -> None:
    """Append a row to the table, and say so."""
    ROWS.parent.mkdir(exist_ok=True)
    new = not ROWS.exists()
    with ROWS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(
            {k: f"{v:.8g}" if isinstance(v, float | np.floating) else v for k, v in found.items()}
        )
    print(*(found[key] for key in ("seed", "sparsity", "method", "value", "test_accuracy")), flush=True)


if __name__ == "__main__":
    main()
