"""Prove the curves of whole networks, and from them their budgets: see README.md."""

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import cbs
from cbs.curvature.output import row_scales
from cbs.network.network import Network
from cbs.zoo import trained
from solvers import Bounds, Budget, SubsetProblem, checker, curve, solve_together
from solvers.instances import save
from solvers.runtime.parallel import one_thread_each

GAP = 1e-4
DAMPING = 1e-2
"""Of the mean diagonal of each layer's Gram."""
IMAGES = 10_000
"""Of MNIST's training set, for MLPNet."""


def curves(network: str, layer: str) -> dict[str, Any]:
    """Every row of a layer at every count, proven by the search and by the checker."""
    net = layers(network)
    i = [one.name for one in net.layers].index(layer)
    m, n = net.layers[i].shape
    problem = posed(net, [i], 0.5)[0]
    found = curve(problem, gap=GAP, certify=True)
    verdict, size = verified(found.certificate, [problem])
    shown = found.values - verdict.curves[0]
    settled = shown > found.noise
    worst = float((shown[settled] / np.abs(found.values[settled])).max(initial=0.0))
    return {
        "m": m, "n": n, "gap": worst, "seconds": found.seconds, "nodes": int(found.stats["nodes"]),
        "points": int(found.values.size), "proven": int(found.proven.sum()), "check_seconds": verdict.seconds,
        "proofs": verdict.proofs, "leaves": verdict.leaves, "megabytes": size,
    }  # fmt: skip


def budgets(
    network: str, sparsity: float, some: list[str] | None = None, limit: float | None = None
) -> dict[str, Any]:
    """One budget for layers together, `some` or all of them, from the rows' curves."""
    net = layers(network)
    chosen = [i for i, layer in enumerate(net.layers) if some is None or layer.name in some]
    problems = posed(net, chosen, sparsity)
    found = solve_together(problems, gap=GAP, time_limit=limit, certify=True)
    verdict, size = verified(found.certificate, problems)
    kept = [
        mask[:, problem.prunable].size - int(mask.sum())
        for problem, mask in zip(problems, found.masks, strict=True)
    ]
    return {
        "value": verdict.high, "bound": verdict.bound, "nodes": int(found.stats["nodes"]),
        "gap": Bounds(min(verdict.bound, verdict.high), verdict.high).gap, "seconds": found.seconds,
        "kept": kept, "check_seconds": verdict.seconds, "megabytes": size,
    }  # fmt: skip


@lru_cache(maxsize=1)
def layers(network: str) -> Network:
    """A network with its layers' models."""
    found = trained(network)
    samples = found.train.choose(IMAGES) if network == "mlpnet" else found.train
    return Network(found.model, samples, damping=DAMPING)


def posed(network: Network, chosen: Sequence[int], sparsity: float) -> list[SubsetProblem]:
    """Some layers under one budget, every row scaled by its mean squared output gradient."""
    sizes = [network.layers[i].size for i in chosen]
    ends = np.cumsum(sizes)
    parts = np.diff(round(sparsity * ends[-1]) * ends // ends[-1], prepend=0)
    return [
        network(cbs.Gram())[i].problem(Budget.per_layer(int(part)), scales=row_scales(network)[i])
        for i, part in zip(chosen, parts, strict=True)
    ]


def verified(certificate: Any, problems: Sequence[SubsetProblem]) -> tuple[checker.Verdict, float]:
    """What the checker says of a certificate that was written to a file, and the file's megabytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{i}.npz" for i in range(len(problems))]
        for path, problem in zip(paths, problems, strict=True):
            save(path, problem)
        certificate.save(folder / "certificate")
        with one_thread_each():
            verdict = checker.verify(folder / "certificate", *paths)
        return verdict, (folder / "certificate").stat().st_size / 1e6
