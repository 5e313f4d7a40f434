"""The Gauss-Newton matrix of all that moves, written out: for the few survivors of a small or sparse network.

In a `Linear` layer with one position a sample a row's Jacobian is `g x'`, `g` the derivative of the outputs
by the row's sum: the block of rows a and b is `sum_s (sum_k g_ska g_skb) x_sa x_sb'`, which costs as much as
one output would. Jacobians of everything else are taken sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from cbs.curvature.each import Each
from cbs.data import Samples
from cbs.data.nested import joined, pieces
from cbs.data.samples import stackable
from cbs.network.answers import functional
from cbs.network.layers import Layer, visiting
from cbs.refit.passes import Passes

FLOOR = 1e-3
"""Of the mean diagonal, added to every entry's own where the model is damped."""
CHUNK = 1_000
"""Samples whose products are summed in the network's precision before they are added up in double."""
ENTRIES = 2**24
"""Largest number of Jacobian entries in flight."""


@dataclass(frozen=True)
class Row:
    """The entries of a row of a `Linear` layer that move.

    Attributes:
        row: of the layer.
        inputs: `[count]` the inputs of its survivors; the number of inputs stands for the bias.
        places: `[count]` of them in the vector.
    """

    row: int
    inputs: Tensor
    places: Tensor


@dataclass(frozen=True)
class Structure:
    """What of a network has Jacobians `g x'`, and what has not.

    Attributes:
        layers: `Linear` layers with one position a sample, each with the rows of which something moves.
        rest: `[q]` places in the vector of everything else.
    """

    layers: tuple[tuple[str, tuple[Row, ...]], ...]
    rest: Tensor


def find_structure(passes: Passes, vector: Tensor, samples: Samples) -> Structure:
    """Look which layers have one position a sample, by running a few samples."""
    x, _ = next(samples.batches(3))
    found: dict[str, list[bool]] = {}
    candidates = [
        Layer(name, module)
        for name, module in passes.model.named_modules()
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    ]

    def visit(name: str, inputs: Tensor, outputs: Tensor) -> None:
        found.setdefault(name, []).append(inputs.ndim == 2 and len(inputs) == len(x))

    with torch.no_grad(), visiting(candidates, visit):
        functional(passes.model, passes.movable.parameters(vector), x)
    parts = {part.name: part for part in passes.movable.parts}
    layers, taken = [], torch.zeros(len(vector), dtype=torch.bool, device=vector.device)
    for layer in candidates:
        dot = f"{layer.name}." if layer.name else ""
        weight, bias = parts.get(f"{dot}weight"), parts.get(f"{dot}bias")
        if found.get(layer.name) != [True] or weight is None:
            continue
        m, n = layer.shape
        rows = []
        for row in range(m):
            inside = (weight.index // n == row).nonzero()[:, 0]
            inputs, places = weight.index[inside] % n, weight.start + inside
            if bias is not None:
                own = (bias.index == row).nonzero()[:, 0]
                inputs = torch.cat([inputs, torch.full_like(own, n)])
                places = torch.cat([places, bias.start + own])
            if len(places):
                rows.append(Row(row, inputs, places))
                taken[places] = True
        layers.append((layer.name, tuple(rows)))
    return Structure(tuple(layers), (~taken).nonzero()[:, 0])


def normal_matrix(passes: Passes, vector: Tensor, samples: Samples, structure: Structure) -> Tensor:
    """`G [p, p]` at a vector, in double precision; products are taken in the network's precision.

    Raises:
        ValueError: in one line, if the network can't be differentiated.
    """
    rows = [row for _, rows in structure.layers for row in rows]
    order = torch.cat([*(row.places for row in rows), structure.rest])
    sizes = [len(row.places) for row in rows]
    q, p = len(structure.rest), len(order)
    G = torch.zeros(p, p, dtype=torch.float64, device=vector.device)
    jacobians = _Jacobians(passes, vector, structure.rest) if q else None
    for x, known in _chunks(passes, samples):
        inputs, slopes, columns = _signals(passes, vector, x, known, structure)
        J = None if jacobians is None else jacobians(x, columns)  # [N, k, q]
        start = 0
        counts = torch.tensor(sizes, device=vector.device)
        for a, size in enumerate(sizes):
            omega = (slopes[:, a : a + 1] * slopes[:, a:]).sum(dim=0)  # [rows, N]
            scaled = omega.repeat_interleave(counts[a:], dim=0).mul_(inputs[start:])
            G[start : start + size, start : p - q] += inputs[start : start + size] @ scaled.T
            if J is not None:
                J = J.to(slopes)
                across = torch.einsum("kn,nkq->nq", slopes[:, a], J)
                G[start : start + size, p - q :] += inputs[start : start + size] @ across
            start += size
        if J is not None:
            flat = J.reshape(-1, q)
            G[p - q :, p - q :] += flat.T @ flat
    G = G.triu() + G.triu(1).T
    found = torch.empty_like(G)
    found[order[:, None], order[None, :]] = G
    return found / len(samples)


def _chunks(passes: Passes, samples: Samples) -> Iterator[tuple[Any, Any]]:
    """Batches of the samples, several in one where they are small."""
    held: list[tuple[Any, Any]] = []
    for x, known in passes.batches(samples):
        if held and not stackable(held[-1], (x, known)):
            yield joined([x for x, _ in held]), joined([known for _, known in held])
            held.clear()
        held.append((x, known))
        if sum(len(x) for x, _ in held) + len(x) > min(CHUNK, samples.batch):
            yield joined([x for x, _ in held]), joined([known for _, known in held])
            held.clear()
    if held:
        yield joined([x for x, _ in held]), joined([known for _, known in held])


def _signals(
    passes: Passes, vector: Tensor, x: Any, known: Any, structure: Structure
) -> tuple[Tensor, Tensor, Tensor]:
    """What the blocks of the layers are made of.

    Returns:
        Inputs `[p - q, N]` of every entry; `[k, rows, N]` derivatives of the outputs by the sum of every
        row, for every column of a root of the divergence's curvature; and these columns, `[k, N, ...]`.
    """
    layers = [Layer(name, passes.model.get_submodule(name)) for name, _ in structure.layers]  # type: ignore[arg-type]
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def visit(name: str, inputs: Tensor, outputs: Tensor) -> Tensor:
        seen[name] = inputs.detach().clone(), outputs
        return outputs.clone()  # what comes next may change it in place

    with visiting(layers, visit):
        outputs, _ = passes.run(vector, x.clone())
    with torch.no_grad():
        columns = passes.divergence.columns(outputs.detach(), known)
    if not layers:
        return torch.empty(0, len(x)), torch.empty(len(columns), 0, len(x)), columns
    sums = [seen[name][1] for name, _ in structure.layers]
    slopes: list[list[Tensor]] = [[] for _ in sums]
    for column in columns:
        found = torch.autograd.grad(outputs, sums, column, retain_graph=True, allow_unused=True)
        for held, g, y in zip(slopes, found, sums, strict=True):
            held.append(torch.zeros_like(y) if g is None else g)
    parts, inputs = [], []
    for (name, rows), held in zip(structure.layers, slopes, strict=True):
        z = seen[name][0].T
        z = torch.cat([z, torch.ones_like(z[:1])])
        inputs += [z[row.inputs] for row in rows]
        parts.append(torch.stack(held)[:, :, [row.row for row in rows]].transpose(1, 2))
    given, pulled = torch.cat(inputs), torch.cat(parts, dim=1).contiguous()
    single = torch.promote_types(torch.promote_types(given.dtype, pulled.dtype), torch.float32)
    return given.to(single), pulled.to(single), columns  # layers may run in types of their own


class _Jacobians:
    """Rooted Jacobians of every sample by some of the entries, `[N, k, q]`."""

    def __init__(self, passes: Passes, vector: Tensor, places: Tensor) -> None:
        movable = passes.movable
        inside = {
            part.name: (places >= part.start) & (places < part.start + part.count) for part in movable.parts
        }
        self.parts = [part for part in movable.parts if bool(inside[part.name].any())]
        self.index = {part.name: part.index[places[inside[part.name]] - part.start] for part in self.parts}
        everything = movable.parameters(vector)
        self.fixed = {name: v for name, v in everything.items() if name not in self.index}
        self.parameters = {name: v for name, v in everything.items() if name in self.index}
        self.passes = passes

        def single(x: Any, columns: Tensor) -> Tensor:
            def run(parameters: dict[str, Tensor]) -> Tensor:
                out: Tensor = functional(passes.model, {**self.fixed, **parameters}, x[None])
                return out

            _, pull, *_ = vjp(run, self.parameters)
            (found,) = vmap(pull)(columns[:, None])
            return torch.cat([found[name].flatten(1)[:, at] for name, at in self.index.items()], dim=1)

        def alone(x: Any, columns: Tensor) -> Tensor:
            leaves = {name: v.detach().clone().requires_grad_() for name, v in self.parameters.items()}
            output = functional(passes.model, {**self.fixed, **leaves}, x)
            rows = []
            for column in columns[0]:
                found = torch.autograd.grad(
                    output, list(leaves.values()), column[None], retain_graph=True, allow_unused=True
                )
                full = {
                    name: torch.zeros_like(leaf) if g is None else g
                    for (name, leaf), g in zip(leaves.items(), found, strict=True)
                }
                rows.append(torch.cat([full[name].reshape(-1)[at] for name, at in self.index.items()]))
            return torch.stack(rows)

        self.each = Each(vmap(single), alone)
        self.size = sum(values.numel() for values in self.parameters.values())

    def __call__(self, x: Any, columns: Tensor) -> Tensor:
        step = max(1, ENTRIES // (len(columns) * self.size))
        by_sample = columns.transpose(0, 1)
        parts = zip(pieces(x, step), torch.split(by_sample, step), strict=True)
        return torch.cat([self.each(part, own) for part, own in parts])
