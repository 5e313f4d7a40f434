"""Curvature in independent blocks, such as a layer's each, kept block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.hessian.base import Array, Hessian, Index, require_formable
from solvers.hessian.factor import FactorHessian


class BlockDiagonalHessian(Hessian):
    """`H = diag(H_1, ..., H_b)`, each block a curvature of consecutive inputs, shared by all rows.

    As a network's empirical Fisher with a block a layer, for one budget over all of them (Singh & Alistarh
    2020; Yu et al. 2022, section 4). Blocks are dense or factors.

    Args:
        blocks: at least one curvature, each shared by all rows.

    Raises:
        ValueError: if there is no block, or one differs from row to row.
    """

    def __init__(self, blocks: Sequence[Hessian]) -> None:
        if not blocks:
            raise ValueError("hessian: a block-diagonal curvature needs at least one block")
        for i, block in enumerate(blocks):
            if not block.shared:
                raise ValueError(f"hessian: block {i} has a matrix a row; give blocks that all rows share")
        self.blocks = tuple(blocks)
        self.ends = np.cumsum([block.n for block in blocks])
        self.n = int(self.ends[-1])
        self.rows = None

    @property
    def implicit(self) -> bool:
        """See `Hessian.implicit`: where a block is, or several together are."""
        return any(block.implicit for block in self.blocks) or (self.factored and self.n > self.N)

    @property
    def factored(self) -> bool:
        """Whether every block is a factor, so that `ridge`, `image` and `pull_back` can be had."""
        return all(isinstance(block, FactorHessian) for block in self.blocks)

    @property
    def N(self) -> int:
        """Dimensions of the image, of blocks that are factors."""
        return sum(block.N for block in self._factors())

    @property
    def ridge(self) -> Array:
        """`[n]`, see `FactorHessian.ridge`; for blocks that are factors, as the next two."""
        return np.concatenate([block.ridge for block in self._factors()])

    def image(self, D: Array) -> Array:
        """`D F'`, the blocks' images side by side."""
        parts = zip(self._factors(), self._split(D), strict=True)
        return np.concatenate([block.image(d) for block, d in parts], axis=1)

    def pull_back(self, Y: Array) -> Array:
        """`Y F` from images side by side."""
        found = self._factors()
        parts = np.split(Y, np.cumsum([block.N for block in found])[:-1], axis=1)
        return np.concatenate([block.pull_back(y) for block, y in zip(found, parts, strict=True)], axis=1)

    def root(self, index: Index | None = None, dtype: type[np.floating] = np.float64) -> Array:
        """Columns of F, some or all, `[N, |index|]`: zero but for the samples of their own block."""
        wanted = np.arange(self.n) if index is None else index
        tops = np.cumsum([0, *(block.N for block in self._factors())])
        out: Array = np.zeros((tops[-1], len(wanted)), dtype)
        for b, places, local in self._places(wanted):
            out[tops[b] : tops[b + 1], places] = self._factors()[b].root(local, dtype)
        return out

    def dense(self, row: int) -> Array:
        """The whole matrix `[n, n]`.

        Raises:
            ValueError: if it is too large to be formed.
        """
        require_formable(self.n, "a block-diagonal curvature")
        H = self.block(row, np.arange(self.n))
        H.setflags(write=False)
        return H

    def diagonal(self) -> Array:
        """`[n]` diagonal."""
        return np.concatenate([block.diagonal() for block in self.blocks])

    def matmul(self, D: Array) -> Array:
        """`D H`, block by block."""
        parts = zip(self.blocks, self._split(D), strict=True)
        return np.concatenate([block.matmul(d) for block, d in parts], axis=1)

    def doubled(self, row: int, d: Array) -> tuple[Array, Array]:
        """See `Hessian.doubled`, block by block."""
        parts = np.split(d, self.ends[:-1])
        found = [block.doubled(row, part) for block, part in zip(self.blocks, parts, strict=True)]
        return np.concatenate([heads for heads, _ in found]), np.concatenate([tails for _, tails in found])

    def condition(self, row: int) -> float:
        """See `Hessian.condition`: the largest of the blocks'."""
        return max(block.condition(row) for block in self.blocks)

    def block(self, row: int, index: Index | NDArray[np.bool_]) -> Array:
        """The sub-block on `index`: zero between inputs of different blocks."""
        wanted = np.arange(self.n)[index]
        out = np.zeros((len(wanted), len(wanted)))
        for b, places, local in self._places(wanted):
            out[np.ix_(places, places)] = self.blocks[b].block(row, local)
        return out

    def solve(self, row: int, index: Index, rhs: Array) -> Array:
        """See `Hessian.solve`, block by block."""
        return self._each(index, rhs.shape, lambda block, at, local: block.solve(row, local, rhs[at]))

    def inverse_diagonal(self, row: int, index: Index) -> Array:
        """See `Hessian.inverse_diagonal`, block by block."""
        return self._each(index, index.shape, lambda block, at, local: block.inverse_diagonal(row, local))

    def select(self, columns: Index) -> BlockDiagonalHessian:
        """The blocks restricted to their columns.

        Raises:
            ValueError: if columns of different blocks interleave.
        """
        owner = np.searchsorted(self.ends, columns, side="right")
        if (np.diff(owner) < 0).any():
            raise ValueError("hessian: columns of a block-diagonal curvature must be grouped by block")
        return BlockDiagonalHessian([self.blocks[b].select(local) for b, _, local in self._places(columns)])

    def eliminate(self, columns: Index) -> BlockDiagonalHessian:
        """The Schur complement of `columns` on all others, of blocks that are factors.

        Raises:
            ValueError: if the block of `columns` is singular.
        """
        found = {b: local for b, _, local in self._places(columns)}
        blocks = [
            block.eliminate(found[b]) if b in found else block for b, block in enumerate(self._factors())
        ]
        return BlockDiagonalHessian([block for block in blocks if block.n])

    def _factors(self) -> list[FactorHessian]:
        return [block for block in self.blocks if isinstance(block, FactorHessian)]

    def _split(self, D: Array) -> list[Array]:
        return np.split(D, self.ends[:-1], axis=1)

    def _places(self, index: Index) -> list[tuple[int, Index, Index]]:
        """Which blocks `index` touches, where in it, and which of their own inputs."""
        owner = np.searchsorted(self.ends, index, side="right")
        found = []
        for b in np.unique(owner):
            places = np.flatnonzero(owner == b)
            found.append((int(b), places, index[places] - (self.ends[b] - self.blocks[b].n)))
        return found

    def _each(
        self, index: Index, shape: tuple[int, ...], work: Callable[[Hessian, Index, Index], Array]
    ) -> Array:
        out = np.empty(shape)
        for b, places, local in self._places(index):
            out[places] = work(self.blocks[b], places, local)
        return out
