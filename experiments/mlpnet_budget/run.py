"""Prune MLPNet under one budget for the network, one shot: see README.md."""

import argparse
import os
import time
import tomllib
from pathlib import Path

import cbs
from cbs.data import mnist
from cbs.zoo import mlpnet

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    folder = parser.parse_args().data_dir
    if folder is None:
        parser.error("name the data folder with --data-dir or CBS_DATA")
    config = tomllib.loads((HERE / "config.toml").read_text())
    start = time.perf_counter()
    split = mnist(folder)
    model = mlpnet(Path(folder) / config["weights"])
    images = config["images"]
    data = (split.train.inputs[:images], split.train.targets[:images])
    results = cbs.compare(
        model, data, sparsities=config["sparsities"], methods=["joint"], test=split.test, **config["options"]
    )
    seconds = time.perf_counter() - start
    lines = [
        "| sparsity | weights kept | test accuracy % | CBS (published) | layer objective | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for asked, result in zip(config["sparsities"], results, strict=True):
        kept = sum(layer.kept for layer in result.layers)
        accuracy = 100 * result.test_after.accuracy
        published = config["published"][str(asked)]
        figures = f"{kept:,} | {accuracy:.2f} | {published:.2f} | {result.value:.4g} | {result.seconds:.1f}"
        lines.append(f"| {asked} | {figures} |")
    dense = 100 * results[0].test_before.accuracy
    text = f"Dense {dense:.2f}%. Whole run, data and all: {seconds:.0f} s.\n\n" + "\n".join(lines) + "\n"
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
