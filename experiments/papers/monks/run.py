"""How many weights of MONK's networks can go at unchanged accuracy: see README.md."""

import argparse
import csv
import os
import time
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from networks import Perceptron, accuracy, real, trained
from table import summarize

import cbs
from cbs.data import Samples
from cbs.network.network import Network

HERE = Path(__file__).parent
ROWS = HERE / "results"
"""Here lies `rows_1.csv` and so on, a table for every problem."""
PLACE = "problem", "decay", "seed", "damping", "variant"
FIELDS = (*PLACE, "kept", "train", "test", "increase", "predicted", "status", "seconds")
EXACT = cbs.Method(cbs.GaussNewton(), cbs.Solve(), cbs.Survivors(), name="exact")
ONCE: dict[str, str | cbs.Method] = {"magnitude": "magnitude", "obd": "obd", "obs": "obs", "exact": EXACT}
"""Methods whose curvature is computed once, on the trained network."""
ANEW: dict[str, tuple[str | cbs.Method, int]] = {"obd anew": ("obd", 1), "obs anew": ("obs", 1)}
"""Methods whose curvature is computed anew after so many deletions; exact ones are added by the stages."""


def main() -> None:
    """Run what is not in the table of rows yet, and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="folder with monks/")
    parser.add_argument("--seeds", type=int, help="networks of every problem and decay")
    parser.add_argument("--problems", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    if options.seeds is not None:
        config["seeds"] = dict.fromkeys(config["seeds"], options.seeds)
    variants = ONCE | ANEW | {f"exact anew, {step} at a time": (EXACT, step) for step in config["stages"]}
    known = {tuple(row[key] for key in PLACE) for row in read()}
    for problem in options.problems:
        for decay in config["weight_decay"][str(problem)]:
            for seed, model, train, test in networks(problem, decay, config, options.data_dir):
                for damping in config["damping"]:
                    for variant, how in variants.items():
                        place = dict(zip(PLACE, (problem, f"{decay:g}", seed, damping, variant), strict=True))
                        if tuple(map(str, place.values())) in known:
                            continue
                        relative = decay if damping == "decay" else float(damping)
                        once = not isinstance(how, tuple)
                        found = (whole if once else in_stages)(
                            model, train, test, how, relative, damping == "decay", config
                        )
                        add([{**place, **row} for row in found])
    summarize(read(), config, ROWS)


def networks(
    problem: int, decay: float, config: dict[str, Any], folder: str | None
) -> Iterator[tuple[int, Perceptron, Samples, Samples]]:
    """The first seeds whose networks have the published accuracies."""
    split = cbs.monks(problem, folder)
    train, test = real(split.train), real(split.test)
    least, found = config["published"][str(problem)][:2], 0
    for seed in range(config["tried"]):
        model = trained(problem, seed, train, weight_decay=decay, epochs=config["epochs"])
        reached = accuracy(model, train) > least[0] - 0.05, accuracy(model, test) > least[1] - 0.05
        if all(reached):
            found += 1
            yield seed, model, train, test
        if found == config["seeds"][str(problem)]:
            return
    raise SystemExit(f"problem {problem}: only {found} of {config['tried']} networks reach {least}")


def asked(
    model: Any, train: Samples, damping: float, absolute: bool, config: dict[str, Any]
) -> dict[str, Any]:
    """What every pruning is asked; an absolute damping relative to the mean diagonal on this network."""
    if absolute:
        (curvature,) = Network(model, train, loss=cbs.network.losses.named_loss("mse_loss"))(
            cbs.GaussNewton(damping=0.0)
        )
        damping /= float(curvature.diagonal.mean())
    return {
        "loss": "mse_loss", "certify": False, "damping": damping, "time_limit": config["seconds"],
        "scope": "network",
    }  # fmt: skip


def size(model: Perceptron) -> int:
    """Weights, biases among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def measured(
    result: cbs.PruneResult, dense: float, train: Samples, test: Samples, seconds: float
) -> dict[str, Any]:
    """A row of the table."""
    return {
        "kept": sum(layer.kept for layer in result.layers),
        "train": accuracy(result.model, train),
        "test": accuracy(result.model, test),
        "increase": result.measured.after.loss - dense,
        "predicted": result.measured.prediction,
        "status": result.layers[0].status,
        "seconds": seconds,
    }


def whole(
    model: Perceptron, train: Samples, test: Samples, method: Any, damping: float, absolute: bool, config: Any
) -> list[dict[str, Any]]:
    """All that go are chosen at once, at every number of weights left."""
    total = size(model)
    ask = asked(model, train, damping, absolute, config)
    rows: list[dict[str, Any]] = []
    for kept in range(min(total - 1, config["largest"]) if method is EXACT else total - 1, 0, -1):
        began = time.process_time()
        (result,) = quietly(model, train, kept / total, method, ask)
        seconds = time.process_time() - began
        rows.append(measured(result, result.measured.before.loss, train, test, seconds))
        assert rows[-1]["kept"] == kept
    return rows


def in_stages(
    model: Perceptron,
    train: Samples,
    test: Samples,
    how: tuple[Any, int],
    damping: float,
    absolute: bool,
    config: Any,
) -> list[dict[str, Any]]:
    """Some go at a time, and the curvature is that of the network that is left."""
    method, step = how
    total, present = size(model), model
    rows: list[dict[str, Any]] = []
    dense = None
    for kept in range(total - step, 0, -step):
        began = time.process_time()
        try:
            ask = asked(present, train, damping, absolute, config)
            (result,) = quietly(present, train, kept / total, method, ask)
        except ValueError as error:
            if "no derivative by any weight" in str(error):  # the network's output is constant
                return rows
            raise
        dense = result.measured.before.loss if dense is None else dense
        rows.append(measured(result, dense, train, test, time.process_time() - began))
        present = result.model
    return rows


def quietly(
    model: Any, train: Samples, left: float, method: Any, ask: dict[str, Any]
) -> list[cbs.PruneResult]:
    """Prune without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cbs.compare(model, train, methods=[method], sparsities=[1 - left], **ask)


def read() -> list[dict[str, str]]:
    """What is there already."""
    found: list[dict[str, str]] = []
    for path in sorted(ROWS.glob("rows_*.csv")):
        with path.open(newline="") as file:
            found += csv.DictReader(file)
    return found


def add(rows: list[dict[str, Any]]) -> None:
    """Append rows to the table, and say so."""
    ROWS.mkdir(exist_ok=True)
    path = ROWS / f"rows_{rows[0]['problem']}.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    seconds = sum(row["seconds"] for row in rows)
    print(*(rows[0][key] for key in PLACE), f"{seconds:.1f} s", sep="\t", flush=True)


if __name__ == "__main__":
    main()
