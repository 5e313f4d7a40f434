"""Open nodes of many blocks as tensors, and which of them come next."""

from __future__ import annotations

from typing import NamedTuple

from solvers.runtime.tensors import Tensor, torch

START = 1024
"""Places at first; they double as they fill."""


class Nodes(NamedTuple):
    """Some nodes, in any number of leading dimensions.

    Attributes:
        owner: block of the node, -1 for none.
        lower: bound known.
        level: branchings above it.
        fix: `[.., n]` 1 kept, -1 pruned, 0 free.
        x: `[.., g, c, n]` single precision, the point to start from, in the units of its batch.
        side: entry branched on plus one, negative where pruned, 0 if none.
        share: how far that moved the entry's share.
    """

    owner: Tensor
    lower: Tensor
    level: Tensor
    fix: Tensor
    x: Tensor
    side: Tensor
    share: Tensor

    def at(self, index: Tensor) -> Nodes:
        """Some of them, by index or by a mask."""
        return Nodes(*(x[index] for x in self))

    @classmethod
    def none(cls, places: int, point: tuple[int, ...], device: str) -> Nodes:
        """So many places without a node."""
        number = torch.zeros(places, dtype=torch.int32, device=device)
        fix = torch.zeros((places, point[-1]), dtype=torch.int8, device=device)
        x = torch.zeros((places, *point), dtype=torch.float32, device=device)
        return cls(number.long() - 1, number.double(), number, fix, x, number.clone(), number.float())


class OpenNodes:
    """Nodes that wait to be bounded, a place each.

    Args:
        roots: the first ones, `[k]`.
        memory: bytes that they may take, and their copies where room is made for more; if that is not less
            than a search in depth needs.

    Attributes:
        nodes: `[places]` in their places.
        capacity: places at most.
    """

    def __init__(self, roots: Nodes, memory: int) -> None:
        n, count = roots.fix.shape[1], len(roots.owner)
        each = sum(x[0].numel() * x.element_size() for x in roots)
        self.capacity = max(memory // (2 * each), 2 * (n + count + 1))
        self.nodes = roots

    def __len__(self) -> int:
        return int((self.nodes.owner >= 0).sum())

    def add(self, fresh: Nodes) -> None:
        """Put in nodes `[k]`."""
        place = torch.nonzero(self.nodes.owner < 0)[:, 0]
        if len(place) < len(fresh.owner):
            self._stretch(len(self.nodes.owner) + len(fresh.owner) - len(place))
            place = torch.nonzero(self.nodes.owner < 0)[:, 0]
        for mine, theirs in zip(self.nodes, fresh, strict=True):
            mine[place[: len(theirs)]] = theirs

    def take(self, grid: Tensor) -> Nodes:
        """The nodes in these places, which get free; any node where there is a -1."""
        found = self.nodes.at(grid.clamp_min(0))
        self.nodes.owner[grid[grid >= 0]] = -1
        return found

    def least(self, blocks: int) -> Tensor:
        """`[blocks]` least bound of every block's open nodes, infinite where there are none."""
        owner, lower = self.nodes.owner, self.nodes.lower
        found = lower.new_full((blocks,), torch.inf)
        return found.scatter_reduce(0, owner[owner >= 0], lower[owner >= 0], "amin")

    def close(self, cutoff: Tensor) -> Tensor:
        """Drop nodes past their block's cutoff `[F]`: the least bound of those of every block."""
        owner, lower = self.nodes.owner, self.nodes.lower
        past = (owner >= 0) & (lower >= cutoff[owner.clamp_min(0)])
        least = torch.full_like(cutoff, torch.inf).scatter_reduce(0, owner[past], lower[past], "amin")
        owner[past] = -1
        return least

    def next(self, batch: int, deep: bool) -> tuple[Tensor, Tensor]:
        """Blocks `[F]` and places `[F, b]` of the nodes to go on with, -1 where a block has fewer.

        All blocks with open nodes get as many, those of least bound; or, if `deep`, of highest level. A
        batch too small for all blocks goes to the first ones.
        """
        owner, lower, level = self.nodes.owner, self.nodes.lower, self.nodes.level
        here = torch.nonzero(owner >= 0)[:, 0]
        here = here[lower[here].argsort(stable=True)]
        if deep:
            here = here[level[here].argsort(descending=True, stable=True)]
        here = here[owner[here].argsort(stable=True)]
        blocks, counts = torch.unique_consecutive(owner[here], return_counts=True)
        blocks, counts = blocks[:batch], counts[:batch]
        each = min(int(counts.max()), max(1, batch // len(blocks)))
        rank = torch.arange(each, device=here.device)
        start = counts.cumsum(0) - counts
        grid = here[(start[:, None] + rank).clamp_max(len(here) - 1)]
        return blocks, torch.where(rank < counts[:, None], grid, -1)

    def _stretch(self, least: int) -> None:
        """Make room for so many nodes, and more."""
        have = len(self.nodes.owner)
        more = max(least, START, min(2 * have, self.capacity)) - have
        point = tuple(self.nodes.x.shape[1:])
        fresh = Nodes.none(more, point, str(self.nodes.x.device))
        self.nodes = Nodes(*(torch.cat(pair) for pair in zip(self.nodes, fresh, strict=True)))
