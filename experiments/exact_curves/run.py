"""Prove the curves of whole networks, and from them their budgets: see README.md."""

import argparse
import os
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import cbs
from cbs.curvature.output import row_scales
from cbs.data import mnist
from cbs.network.network import Network
from cbs.zoo import mlpnet
from solvers import Bounds, Budget, SubsetProblem, checker, curve, solve_together
from solvers.instances import save
from solvers.runtime.parallel import one_thread_each

HERE = Path(__file__).parent
WIDE = 160


def networks(config: dict, folder: str | None) -> Iterator[tuple[str, Network]]:
    model, split = cbs.trained_digits_mlp()
    yield "digits MLP", Network(model, split.train, damping=config["damping"])
    if folder is not None:
        images = mnist(folder).train.choose(config["images"])
        yield "MLPNet", Network(mlpnet(Path(folder) / config["weights"]), images, damping=config["damping"])


def posed(network: Network, layers: Sequence[int], sparsity: float) -> list[SubsetProblem]:
    """Some layers under one budget, every row scaled by its mean squared output gradient."""
    sizes = [network.layers[i].size for i in layers]
    ends = np.cumsum(sizes)
    parts = np.diff(round(sparsity * ends[-1]) * ends // ends[-1], prepend=0)
    return [
        network(cbs.Gram())[i].problem(Budget.per_layer(int(part)), scales=row_scales(network)[i])
        for i, part in zip(layers, parts, strict=True)
    ]


def verified(folder: Path, certificate, problems: Sequence[SubsetProblem]) -> tuple[checker.Verdict, float]:
    """What the checker says of a certificate that was written to a file, and the file's megabytes."""
    paths = [folder / f"{i}.npz" for i in range(len(problems))]
    for path, problem in zip(paths, problems, strict=True):
        save(path, problem)
    certificate.save(folder / "certificate")
    with one_thread_each():
        verdict = checker.verify(folder / "certificate", *paths)
    return verdict, (folder / "certificate").stat().st_size / 1e6


def prove_curves(name: str, network: Network, gap: float, folder: Path) -> Iterator[str]:
    for i, layer in enumerate(network.layers):
        m, n = layer.shape
        if n > WIDE:
            continue
        problem = posed(network, [i], 0.5)[0]
        found = curve(problem, gap=gap, certify=True)
        verdict, size = verified(folder, found.certificate, [problem])
        lower = verdict.curves[0]
        shown = found.values - lower
        settled = shown > found.noise
        worst = float((shown[settled] / np.abs(found.values[settled])).max(initial=0.0))
        yield (
            f"| {name} | {layer.name} | {m} x {n} | {found.values.size:,} | {int(found.proven.sum()):,} "
            f"| {worst:.2e} | {found.stats['nodes']:,} | {found.seconds:.1f} | {verdict.seconds:.1f} "
            f"| {verdict.proofs:,} | {verdict.leaves:,} | {size:.0f} |"
        )


def prove_budgets(
    name: str, network: Network, layers: Sequence[int], config: dict, folder: Path
) -> Iterator[str]:
    wide = any(network.layers[i].shape[1] > WIDE for i in layers)
    for sparsity in config["sparsities"]:
        problems = posed(network, layers, sparsity)
        limit = config["wide_seconds"] if wide else None
        found = solve_together(problems, gap=config["gap"], time_limit=limit, certify=True)
        verdict, size = verified(folder, found.certificate, problems)
        gap = Bounds(min(verdict.bound, verdict.high), verdict.high).gap
        kept = " + ".join(
            f"{mask[:, problem.prunable].size - int(mask.sum())}"
            for problem, mask in zip(problems, found.masks, strict=True)
        )
        yield (
            f"| {name} | {sparsity:.0%} | {kept} | {verdict.high:.6g} | {verdict.bound:.6g} | {gap:.2e} "
            f"| {found.stats['nodes']:,} | {found.seconds:.1f} | {verdict.seconds:.1f} | {size:.0f} |"
        )


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data-dir", default=os.environ.get("CBS_DATA"), help="of MNIST and MLPNet's weights"
    )
    parser.add_argument("--keep", type=Path, help="folder for the certificates; else they are deleted")
    arguments = parser.parse_args()
    start = time.perf_counter()
    curves = [
        "| network | layer | rows x inputs | rows x counts | proven | largest gap | nodes | search, s "
        "| check, s | proofs | leaves | MB |",
        "|---" * 12 + "|",
    ]
    budgets = [
        "| network | pruned | kept a layer | value | bound | gap | nodes | search, s | check, s | MB |",
        "|---" * 10 + "|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for name, network in networks(config, arguments.data_dir):
            small = [i for i, layer in enumerate(network.layers) if layer.shape[1] <= WIDE]
            groups = {name: range(len(network.layers))}
            if len(small) < len(network.layers):
                groups = {
                    f"{name}, layers {', '.join(network.layers[i].name for i in small)}": small,
                    **groups,
                }
            for title, layers in groups.items():
                folder = Path(temporary if arguments.keep is None else arguments.keep / title)
                folder.mkdir(parents=True, exist_ok=True)
                if layers is small or len(groups) == 1:
                    for line in prove_curves(name, network, config["gap"], folder):
                        print(line, flush=True)
                        curves.append(line)
                for line in prove_budgets(title, network, layers, config, folder):
                    print(line, flush=True)
                    budgets.append(line)
    seconds, cores = time.perf_counter() - start, os.cpu_count()
    text = "\n".join(
        [
            f"Whole run {seconds:.0f} s. Times are wall times on {cores} cores, at a load average of "
            f"{os.getloadavg()[0]:.1f} at the end, of which this run's share is at most {cores}.", "",
            "Curves of every row at every count:", "", *curves, "",
            "One budget for all layers together, from the rows' curves:", "", *budgets, "",
        ]
    )  # fmt: skip
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "table.md").write_text(text)


if __name__ == "__main__":
    main()
