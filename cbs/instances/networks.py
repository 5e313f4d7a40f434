"""Instances of a trained network: rows, layers, and all of its layers with one budget.

The problem of a layer is that of its weights and the damped Gram matrix of its inputs, `H = E[z z'] + c I`:
half the mean squared change of the layer's output. A bias may follow: it is eliminated,
`H = H_ww - H_wb H_bw / H_bb`, in both variants. Grams are taken in double precision and then rounded to
single, with the weights, so that a library is small and another machine most likely makes the same numbers.
"""

from __future__ import annotations

import copy
import difflib
import importlib.metadata
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from cbs.change import layer_weights
from cbs.curvature.gram import layer_grams
from cbs.network.layers import Layer, find_layers
from cbs.zoo import trained
from solvers.instances.identity import digest_together
from solvers.instances.item import NETWORK, VARIANTS, Item, budget_of
from solvers.instances.layer_data import LayerData
from solvers.problem import Mask, SubsetProblem

SAMPLES = 10_000
"""Samples that a Gram is taken over, unless asked otherwise."""
TINY = 1e-12
"""Weights below this, relative to the layer's largest, are zero: weight decay has left them."""
SPARSITIES = (0.5, 0.75, 0.9)
KINDS = ("per_row", "per_layer", "columns", NETWORK)
PATTERN = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, eq=False)
class LayerInstance:
    """A layer's data and the name that it has in a library.

    Attributes:
        name: of the data.
        layer: of the network.
        data: rows and curvature.
        about: provenance, as JSON can hold it.
        drawn: places in `data` of the rows that are instances of their own.
        whole: name of all layers together.
    """

    name: str
    layer: str
    data: LayerData
    about: dict[str, Any]
    drawn: list[int]
    whole: str


def of_network(
    name: str,
    *,
    layers: Sequence[str] | None = None,
    rows: int | Sequence[int] = 4,
    variants: Sequence[str] = VARIANTS,
    sparsities: Sequence[float] = SPARSITIES,
    budgets: Sequence[str] = ("per_row",),
    damping: float = 1e-2,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    samples: int = SAMPLES,
    layer_rows: int | None = None,
) -> Iterator[Item]:
    """Instances of a network of the zoo, made on the fly.

    Args:
        name: of the network, see `cbs.zoo.trained`.
        layers: their names, or patterns; by default those that the literature prunes.
        rows: of every layer, which are instances of their own under `per_row` and N:M budgets: how many to
            draw, or which.
        variants: `joint`, `selection`, or both.
        sparsities: shares to prune, above 0 and below 1; counts are rounded.
        budgets: `per_row`, an N:M pattern as `2:4` (keeps 2 of 4; layers whose inputs it does not divide are
            left out), `per_layer`, `columns`, and `network`: all of the layers, for `solve_together`.
        damping: added to the diagonal, relative to its mean; positive.
        data_dir: folder with the data, see `cbs.zoo.trained`.
        seed: of the network, the samples, and the rows that are drawn.
        samples: how many training samples the Gram is of.
        layer_rows: how many rows of a layer are there, for budgets of layers; by default all.

    Yields:
        Items, layer by layer; those of the network last.

    Raises:
        ValueError: in one line, for a name, layer or setting that is none, before any work but training.
    """
    check_settings(rows, variants, sparsities, budgets, damping, samples, layer_rows)
    found = layer_instances(
        name, layers=layers, rows=rows, damping=damping, data_dir=data_dir, seed=seed, samples=samples,
        layer_rows=layer_rows,
    )  # fmt: skip
    every: list[LayerInstance] = []
    for layer in found:
        every.append(layer)
        for entry in layer_entries(name, layer, variants, sparsities, budgets):
            yield made(entry, [layer])
    if NETWORK in budgets:
        for entry in network_entries(name, every, variants, sparsities):
            yield made(entry, every)


def check_settings(
    rows: int | Sequence[int],
    variants: Sequence[str],
    sparsities: Sequence[float],
    budgets: Sequence[str],
    damping: float,
    samples: int,
    layer_rows: int | None,
) -> None:
    """See that the settings of `of_network` are some.

    Raises:
        ValueError: in one line.
    """
    for what, values in (("variants", variants), ("sparsities", sparsities), ("budgets", budgets)):
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{what} must list at least one, got {values!r}")
    for variant in variants:
        _known("variant", variant, VARIANTS)
    for budget in budgets:
        match = PATTERN.fullmatch(str(budget))
        if match and not 1 <= int(match[1]) < int(match[2]):
            raise ValueError(f"budget {budget!r} must keep at least 1 and fewer than all")
        if not match:
            _known("budget", budget, (*KINDS, "2:4"))
    for sparsity in sparsities:
        if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 < sparsity < 1:
            raise ValueError(f"sparsity must be a number between 0 and 1, got {sparsity!r}")
    if isinstance(damping, bool) or not isinstance(damping, int | float) or not 0 < damping < float("inf"):
        raise ValueError(f"damping must be a finite number above 0, got {damping!r}")
    for what, count in (("samples", samples), ("layer_rows", layer_rows)):
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"{what} must be a whole number from 1, got {count!r}")
    listed = [rows] if isinstance(rows, int) else list(rows)
    if not all(type(row) is int and row >= 0 for row in listed) or len(set(listed)) < len(listed):
        raise ValueError(f"rows must be a number of rows, or list some, each once, got {rows!r}")


def layer_instances(
    name: str,
    *,
    layers: Sequence[str] | None = None,
    rows: int | Sequence[int] = 4,
    damping: float = 1e-2,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    samples: int = SAMPLES,
    layer_rows: int | None = None,
) -> Iterator[LayerInstance]:
    """The data of a network's layers, see `of_network`."""
    found = trained(name, data_dir, seed)
    model = copy.deepcopy(found.model).double()
    chosen = _layers(name, model, found.layers, layers)
    some = found.train.choose(samples, seed).cast(torch.Tensor.double)
    grams = layer_grams(model, chosen, some)
    if idle := [layer.name for layer in chosen if layer.name not in grams]:
        raise ValueError(f"network {name!r}: layer {idle[0]!r} saw no input of its data; leave it out")
    for layer in chosen:
        dense, H = layer_weights(layer), grams[layer.name].numpy()
        W, n = np.where(np.abs(dense.W) > TINY * np.abs(dense.W).max(), dense.W, 0.0), dense.W.shape[1]
        H[np.arange(n), np.arange(n)] += damping * float(np.diagonal(H)[:n].mean())
        if dense.bias is not None:
            H = H[:n, :n] - np.outer(H[:n, n], H[n, :n]) / H[n, n]
        alive = np.count_nonzero(W, axis=1) > n / 2
        there, drawn = _drawn(name, layer.name, alive, rows, seed, layer_rows)
        data = LayerData.rounded(W[there], H, there)
        about = {
            "network": name, "layer": layer.name, "m": len(there), "n": n, "of_rows": len(W),
            "damping": damping, "seed": seed, "samples": len(some), "data": _about_data(found.name),
            "bias": "none" if dense.bias is None else "eliminated", "made_with": versions(),
        }  # fmt: skip
        plain = damping == 1e-2 and seed == 0
        extra = "" if plain else f"-d{damping:g}-s{seed}"
        yield LayerInstance(f"{name}-{layer.name}{extra}", layer.name, data, about, drawn, f"{name}{extra}")


def layer_entries(
    network: str,
    layer: LayerInstance,
    variants: Sequence[str],
    sparsities: Sequence[float],
    budgets: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """The instances of a layer as a library's index has them, but for their digests."""
    m, n = layer.data.weights.shape
    every = list(range(m))
    for budget in budgets:
        pattern = PATTERN.fullmatch(budget)
        if budget == NETWORK or (pattern and n % int(pattern[2])):
            continue
        for variant in variants:
            short = {"per_row": "row", "per_layer": "layer"}.get(budget, budget.replace(":", "of"))
            if pattern:
                keep, of = int(pattern[1]), int(pattern[2])
                counts = [({"kind": "n_of_m", "keep": keep, "of": of}, 1 - keep / of, "")]
            else:
                size = m * n if budget == "per_layer" else n
                counts = [
                    ({"kind": budget, "prune": count}, count / size, f"-{_percent(sparsity)}")
                    for sparsity in sparsities
                    if 0 < (count := round(sparsity * size)) < size
                ]
            groups = [[r] for r in layer.drawn] if budget == "per_row" or pattern else [every]
            for rows in groups:
                which = f"-r{int(layer.data.rows[rows[0]])}" if len(rows) < m or m == 1 else ""
                for facts, sparsity, end in counts:
                    yield _entry(
                        f"{layer.name}{which}-{variant}-{short}{end}", network, [layer], [rows], variant,
                        facts, sparsity,
                    )  # fmt: skip


def network_entries(
    network: str, layers: Sequence[LayerInstance], variants: Sequence[str], sparsities: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """The instances of all layers with one budget, as a library's index has them, but for their digests."""
    sizes = [layer.data.weights.size for layer in layers]
    every = [list(range(len(layer.data.weights))) for layer in layers]
    for variant in variants:
        for sparsity in sparsities:
            total = round(sparsity * sum(sizes))
            shares = [size * total // sum(sizes) for size in sizes]
            shares[int(np.argmax(sizes))] += total - sum(shares)
            facts = {"kind": NETWORK, "prune": total, "shares": shares}
            name = f"{layers[0].whole}-{variant}-network-{_percent(sparsity)}"
            yield _entry(name, network, layers, every, variant, facts, total / sum(sizes))


def made(entry: dict[str, Any], layers: Sequence[LayerInstance]) -> Item:
    """An item of an entry, with its digest."""
    name = entry["name"]

    def load() -> list[SubsetProblem]:
        kind, shares = entry["budget"]["kind"], entry["budget"].get("shares")
        budgets = (
            [budget_of({"kind": "per_layer", "prune": share}) for share in shares]
            if kind == NETWORK
            else [budget_of(entry["budget"])]
        )
        return [
            SubsetProblem(
                layer.data.weights[rows], layer.data.hessian, budget, refit=entry["variant"] == "joint"
            )
            for layer, rows, budget in zip(layers, entry["rows"], budgets, strict=True)
        ]

    kind = str(entry["budget"]["kind"])
    names = tuple(layer.layer for layer in layers)
    family = entry["network"] if kind == NETWORK else f"{entry['network']}/{names[0]}"
    return Item(
        name, digest_together(load()), family, entry["network"], names, entry["m"], entry["n"],
        entry["variant"], kind, entry["sparsity"], {layer.layer: layer.about for layer in layers}, load=load,
    )  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        package: importlib.metadata.version(package)
        for package in ("combinatorial-brain-surgeon", "torch", "numpy", "scikit-learn")
    }


def _entry(
    name: str,
    network: str,
    layers: Sequence[LayerInstance],
    rows: list[list[int]],
    variant: str,
    budget: dict[str, Any],
    sparsity: float,
) -> dict[str, Any]:
    return {
        "name": name, "network": network, "layers": [layer.layer for layer in layers],
        "data": [layer.name for layer in layers], "rows": rows, "m": sum(map(len, rows)),
        "n": max(layer.data.weights.shape[1] for layer in layers), "variant": variant, "budget": budget,
        "sparsity": sparsity,
    }  # fmt: skip


def _layers(
    name: str, model: nn.Module, usual: Sequence[str] | None, asked: Sequence[str] | None
) -> list[Layer]:
    if isinstance(asked, str):
        raise ValueError(f"layers must be a list of names, got {asked!r}")
    try:
        return find_layers(model, usual if asked is None else list(asked))
    except ValueError as error:
        raise ValueError(f"network {name!r}: {error}") from None


def _drawn(
    network: str, layer: str, alive: Mask, rows: int | Sequence[int], seed: int, most: int | None
) -> tuple[list[int], list[int]]:
    """Which rows of a layer are in its data, and the places among these of rows that stand alone.

    Rows of which weight decay has left little are not drawn: they say nothing.
    """
    m = len(alive)
    order = np.random.default_rng(seed).permutation(m).tolist()
    if isinstance(rows, int):
        alone = sorted([row for row in order if alive[row]][:rows])
    else:
        alone = list(rows)
        if beyond := [row for row in alone if row >= m]:
            raise ValueError(
                f"network {network!r}: layer {layer!r} has {m} rows, there is no row {beyond[0]}"
            )
    there = sorted({*alone, *order[: m if most is None else most]})
    place = {row: i for i, row in enumerate(there)}
    return there, [place[row] for row in alone]


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g}"


def _about_data(name: str) -> str:
    if name in ("digits", "breast-cancer", "wine"):
        return f"scikit-learn's {name}"
    if name.startswith("cifar-"):
        return "CIFAR-10"
    return {"resnet20": "CIFAR-10", "encoder": "docstrings of Python's standard library"}.get(name, "MNIST")


def _known(what: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {what} {value!r}; {hint}")
