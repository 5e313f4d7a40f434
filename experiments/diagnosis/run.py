"""Where ResNet20 loses what pruning costs it, and what its masks depend on: see README.md."""

import argparse
import json
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "accuracy"))

from cases import case  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import cbs  # noqa: E402

RESULTS = HERE / "results"
PARTS = ("damage", "sensitivity", "stability", "limit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder of the network and its images; by default CBS_DATA")
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--method", nargs="*", help="of those in config.toml only these")
    asked = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    found = case("resnet20", asked.data_dir, config["seed"])
    for settings in (config, *(config[part] for part in PARTS if part in config)):
        settings["methods"] = [m for m in settings["methods"] if m in (asked.method or settings["methods"])]
    for part in asked.part:
        began = time.process_time()
        {"damage": damage, "sensitivity": sensitivity, "stability": stability, "limit": limit}[part](
            found, config
        )
        print(f"{part}: {time.process_time() - began:.0f} seconds of processor time", flush=True)


def damage(found, config) -> None:
    """Where two prunings of one sparsity lose it."""
    test = found.test.few(config["tested"])
    for method in config["methods"]:
        result = cbs.prune(
            found.model, found.calibration(config["calibration"]), sparsity=config["sparsity"], method=method,
            layers=found.layers, certify=False, solver="greedy", test=test,
        )  # fmt: skip
        lost, error = cbs.damage(result, test), cbs.trace(result, test)
        keep(f"damage_{method}", lost)
        keep(f"trace_{method}", error)


def sensitivity(found, config) -> None:
    """What every layer alone costs."""
    settings = config["sensitivity"]
    for method in settings["methods"]:
        curves = cbs.sensitivity(
            found.model, found.calibration(config["calibration"]), sparsities=settings["sparsities"],
            method=method, layers=found.layers, test=found.test.few(config["tested"]),
        )  # fmt: skip
        keep(f"sensitivity_{method}", curves)


def stability(found, config) -> None:
    """Which part of the masks depends on the images, and how that falls with their number."""
    settings = config["stability"]
    asking = {
        "sparsity": config["sparsity"], "layers": found.layers, "resamples": settings["resamples"],
        "sizes": settings["sizes"], "seed": config["seed"],
    }  # fmt: skip
    data = found.calibration(settings["sizes"][-1])
    for method in settings["methods"]:
        stable = cbs.stability(found.model, data, method=method, **asking)
        keep(f"stability_{method}", stable)
        (RESULTS / f"stability_{method}.json").write_text(json.dumps(stable.to_dict(), indent=1) + "\n")
        print(stable.verdict, flush=True)
    figure = Figure(figsize=(6, 4.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for path in sorted(RESULTS.glob("stability_*.json")):
        record = json.loads(path.read_text())
        points = [(point["samples"], 100 * point["changed"]) for point in record["sizes"]]
        if any(changed for _, changed in points):
            axes.loglog(*zip(*points, strict=True), marker="o", label=record["method"])
    axes.set_xlabel("calibration images")
    axes.set_ylabel("% of entries that differ between two draws")
    axes.legend(frameon=False)
    figure.savefig(RESULTS / "sizes.png")


def limit(found, config) -> None:
    """The largest sparsity within a limit on the loss of the test images."""
    settings = config["limit"]
    for method in settings["methods"]:
        result = cbs.prune(
            found.model, found.calibration(config["calibration"]), method=method, layers=found.layers,
            certify=False, test=found.test.few(2_000), max_loss_increase=settings["max_loss_increase"],
        )  # fmt: skip
        print(result, flush=True)
        record = [vars(trial) for trial in result.search.trials]
        (RESULTS / f"limit_{method}.json").write_text(json.dumps(record, indent=1) + "\n")


def keep(name, found) -> None:
    """A record without what is long, a table and a figure."""
    RESULTS.mkdir(exist_ok=True)
    found.draw().savefig(RESULTS / f"{name}.png")
    (RESULTS / f"{name}.txt").write_text(f"{found!r}\n")


if __name__ == "__main__":
    main()
