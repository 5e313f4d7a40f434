"""Open nodes of a tree whose nodes have splits in groups, and their way into a checkpoint and out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.states import Pattern
from solvers.exact.grouped.inheritance import Group, Seed
from solvers.form.blocks import Block

Named = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class OpenNode:
    """A node to be looked at.

    Attributes:
        fix: `[n]` 1 kept, -1 pruned, 0 free.
        lower: bound known.
        seed: of its parent; None at the root.
        at: its leaf in the proof, where that is recorded.
    """

    fix: NDArray[np.int8]
    lower: float
    seed: Seed | None = None
    at: int = 0

    @property
    def bytes(self) -> int:
        """Memory that it takes, with its half of the seed."""
        return self.fix.nbytes + 300 + (0 if self.seed is None else self.seed.bytes // 2)


def settle(block: Block, fix: NDArray[np.int8]) -> NDArray[np.int8] | None:
    """Fixings with what a full or empty budget leaves no choice about, or None where no mask is left."""
    pools = len(block.keep)
    need = block.keep - np.bincount(block.labels[fix > 0], minlength=pools)
    free = np.bincount(block.labels[fix == 0], minlength=pools)
    if ((need < 0) | (need > free)).any():
        return None
    choice = np.where(need == 0, -1, np.where(need == free, 1, 0))[block.labels]
    return np.where(fix == 0, choice, fix).astype(np.int8)


def pack(nodes: Sequence[OpenNode], n: int) -> Named:
    """Nodes as arrays by name."""
    seeds = {id(node.seed): node.seed for node in nodes if node.seed is not None}
    number = {key: k for k, key in enumerate(seeds)}
    several = list(seeds.values())
    groups = [group for seed in several for group in seed.groups]

    def joined(arrays: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
        return np.concatenate([*(array.ravel() for array in arrays), np.zeros(0, dtype)]).astype(dtype)

    return {
        "fix": np.array([node.fix for node in nodes], np.int8).reshape(len(nodes), n),
        "lower": np.array([node.lower for node in nodes], np.float64),
        "seed": np.array([number.get(id(node.seed), -1) for node in nodes], np.int64),
        "at": np.array([node.at for node in nodes], np.int64),
        "free": joined([seed.free for seed in several], np.int64),
        "frees": np.array([len(seed.free) for seed in several], np.int64),
        "groups": np.array([len(seed.groups) for seed in several], np.int64),
        "price": joined([seed.t for seed in several], np.float64),
        "size": np.array([len(group.members) for group in groups], np.int64),
        "pools": np.array([len(group.pattern) for group in groups], np.int64),
        "pattern": joined([np.array(group.pattern, np.int64) for group in groups], np.int64),
        "members": joined([group.members for group in groups], np.int64),
        "block": joined([group.D for group in groups], np.float64),
        "share": joined([group.share for group in groups], np.float64),
    }


def unpack(arrays: Named, n: int) -> list[OpenNode]:
    """The nodes that `pack` made arrays of.

    Raises:
        ValueError: for arrays that it can't have made.
    """
    size, frees = arrays["size"], arrays["frees"]
    if arrays["fix"].shape[1:] != (n,) or ((size < 1) | (size > 30)).any() or (frees < 1).any():
        raise ValueError("its nodes have other lengths")
    members = cut(arrays["members"], size)
    patterns = [_pattern(some) for some in cut(arrays["pattern"], 2 * arrays["pools"])]
    if any(sum(s for s, _ in some) != own for some, own in zip(patterns, size.tolist(), strict=True) if some):
        raise ValueError("its groups are of other pools")
    states = [
        math.prod(math.comb(*pool) for pool in some) if some else 1 << own
        for some, own in zip(patterns, size.tolist(), strict=True)
    ]
    blocks, shares = cut(arrays["block"], size * size), cut(arrays["share"], np.array(states, np.int64))
    groups = [
        Group(at, D.reshape(len(at), len(at)), share, pattern)
        for at, D, share, pattern in zip(members, blocks, shares, patterns, strict=True)
    ]
    prices = cut(arrays["price"], frees)
    seeds, first = [], 0
    for free, count, price in zip(cut(arrays["free"], frees), arrays["groups"], prices, strict=True):
        some = groups[first : first + int(count)]
        named = np.concatenate([group.members for group in some])
        if ((free < 0) | (free >= n)).any() or not np.array_equal(np.sort(named), np.arange(len(free))):
            raise ValueError("its groups hold entries that are not there")
        seeds.append(Seed(free, some, price))
        first += int(count)
    if ((arrays["seed"] < -1) | (arrays["seed"] >= len(seeds))).any():
        raise ValueError("its nodes point nowhere")
    names = ("fix", "lower", "seed", "at")
    return [
        OpenNode(fix, float(low), None if k < 0 else seeds[k], int(at))
        for fix, low, k, at in zip(*(arrays[name] for name in names), strict=True)
    ]


def _pattern(numbers: NDArray[np.int64]) -> Pattern:
    if (numbers < 1).any() or (numbers[::2] <= numbers[1::2]).any() or numbers.sum() > 60:
        raise ValueError("its groups are of other pools")
    return tuple((size, keep) for size, keep in numbers.reshape(-1, 2).tolist())


def cut(array: NDArray[Any], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
    """An array in pieces of given sizes."""
    if sizes.sum() != len(array):
        raise ValueError("its arrays have other lengths")
    return np.split(array, np.cumsum(sizes)[:-1]) if len(sizes) else []
