"""Checking proofs one by one, and what they show together about every row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.checker.claims import Claim, ImageClaim
from solvers.checker.grouped import Unfit, grouped_bounds, groups_of
from solvers.checker.image import image_bound
from solvers.checker.leaves import CHUNK, bounds, curve, points
from solvers.checker.piece import Piece, make_piece
from solvers.checker.problem import Problem
from solvers.checker.reduced import reduce_problem
from solvers.checker.rounding import Array
from solvers.checker.tree import Broken, leaves_of


class Refuted(Exception):
    """What a certificate claims is not proven; the message says what, in one line."""


class Prover:
    """Collects the bounds of proofs that hold.

    Attributes:
        reduced: every problem without its movable columns; but those with a bound in an image.
        images: proven bounds in images, by problem.
        leaves: leaves evaluated.
        vectors: points evaluated.
    """

    def __init__(self, problems: Sequence[Problem], images: Sequence[ImageClaim] = ()) -> None:
        self.problems = problems
        apart = {image.problem for image in images}
        self.reduced = {i: reduce_problem(problem) for i, problem in enumerate(problems) if i not in apart}
        self.images: dict[int, float] = {}
        self.leaves = self.vectors = 0
        self._bound: dict[tuple[int, int], float] = {}
        self._curve: dict[tuple[int, int], Array] = {}
        self._split: dict[tuple[int, int], Array] = {}
        self._definite: set[tuple[int, int, bytes]] = set()

    def check(self, proof: Claim) -> None:
        """Verify a proof and take its bound.

        Raises:
            Refuted: naming the row, the node, and by how much.
        """
        name = f"row {proof.row} of problem {proof.problem}"
        piece = self._piece(proof, name)
        if len(proof.pair):
            self._check_grouped(proof, piece, name)
            return
        self._check_splits(proof, piece, name)
        try:
            nodes, fixings = leaves_of(piece.n, proof.entry, proof.pruned, proof.kept)
        except Broken as error:
            raise Refuted(f"the tree of {name} does not cover every mask: {error}") from None
        vectors = proof.vector[nodes]
        if ((vectors < -1) | (vectors >= len(proof.u))).any():
            raise Refuted(f"a leaf of {name} has a vector that is not there")
        assumed = np.where((vectors < 0)[:, None], 0, proof.root[proof.split[np.maximum(vectors, 0)]])
        foreign = np.flatnonzero(((assumed != 0) & (assumed != fixings)).any(axis=1))
        if len(foreign):
            raise Refuted(f"leaf at node {nodes[foreign[0]]} of {name} lacks fixings that its split assumes")
        claims = proof.claim[nodes]
        proven, root = self._evaluate(piece, proof, vectors, fixings)
        wrong_leaves = np.flatnonzero(~np.where(vectors < 0, proven == np.inf, proven >= claims))
        if len(wrong_leaves):
            i = wrong_leaves[0]
            claim, shown = float(claims[i]), float(proven[i])
            what = f"claims {claim!r}, but {shown!r} is proven ({claim - shown:.3g} less)"
            if vectors[i] < 0:
                what = "says that it has no masks, but it has"
            raise Refuted(f"leaf at node {nodes[i]} of {name} {what}")
        bound = float(claims[proven < np.inf].min(initial=np.inf))
        self._take(proof, piece, bound, root if len(nodes) == 1 else None)

    def check_image(self, image: ImageClaim) -> None:
        """Verify a bound in an image.

        Raises:
            Refuted: by how much it fails.
        """
        shown = image_bound(self.problems[image.problem], image.v)
        if not shown >= image.claim:
            what = f"claims {image.claim!r}, but {shown!r} is proven ({image.claim - shown:.3g} less)"
            raise Refuted(f"the image of problem {image.problem} {what}")
        self.images[image.problem] = image.claim
        self.vectors += len(image.v)

    def _check_grouped(self, proof: Claim, piece: Piece, name: str) -> None:
        """A proof without branching, whose split has blocks."""
        counts = (len(proof.entry), len(proof.u), len(proof.d))
        leaf = counts == (1, 1, 1) and proof.entry[0] == -1 and proof.vector[0] == 0
        if not leaf or proof.root.any() or proof.split.any():
            raise Refuted(f"the split of {name} has blocks, but its tree is not a leaf with a vector")
        try:
            grouped, D = groups_of(piece, proof.d[0, 0], proof.pair, proof.cross)
        except Unfit as error:
            raise Refuted(f"the split of {name} {error}") from None
        u = proof.u[0, 0, :, 0].astype(np.float64)
        shown, root = grouped_bounds(piece, grouped, D, u, proof.price)
        self.leaves, self.vectors = self.leaves + 1, self.vectors + 1
        claim = float(proof.claim[0])
        if not shown >= claim:
            what = f"claims {claim!r}, but {shown!r} is proven ({claim - shown:.3g} less)"
            raise Refuted(f"leaf at node 0 of {name} {what}")
        least = np.empty((1, piece.n))
        for group in grouped:
            least[0, group.members] = group.least
        self._split[proof.problem, proof.row] = least
        self._take(proof, piece, claim, root if self.problems[proof.problem].kind == "per_layer" else None)

    def row_bound(self, problem: int, row: int) -> float:
        """The best bound proven of a row of decisions.

        Raises:
            Refuted: if there is no proof about it.
        """
        if (problem, row) not in self._bound:
            raise Refuted(f"there is no proof about row {row} of problem {problem}")
        return self._bound[problem, row]

    def curves(self, problem: int) -> list[Array]:
        """Every row's bounds for every pruned count, in a problem whose rows share a budget."""
        for row in range(self.problems[problem].m):
            if (problem, row) not in self._curve:
                raise Refuted(f"there is no proof about row {row} of problem {problem}")
        return [self._curve[problem, row] for row in range(self.problems[problem].m)]

    def splits(self, problem: int) -> Array:
        """`[m, n]` a checked split of every row (ones in a selection, where none is needed)."""
        this = self.problems[problem]
        d = np.ones((this.m, this.n))
        if this.refit:
            for row in range(this.m):
                if this.kind == "columns":
                    part = self._split[problem, 0]
                    d[row] = part[row if len(part) > 1 else 0]
                else:
                    d[row] = self._split[problem, row][0]
        return d

    def _piece(self, proof: Claim, name: str) -> Piece:
        problem = self.problems[proof.problem]
        _, prune = problem.pools()
        if not 0 <= proof.row < len(prune):
            raise Refuted(f"there is a proof about {name}, which does not exist")
        if proof.problem not in self.reduced:
            raise Refuted(f"there is a proof about {name} beside a bound in its image")
        counts = prune[proof.row]
        if problem.kind != "per_layer":
            if proof.prune != -1:
                raise Refuted(f"a proof about {name} prunes {proof.prune}, which the budget says already")
        else:
            counts = np.array([proof.prune])
            if not 0 <= proof.prune <= problem.n:
                raise Refuted(f"a proof about {name} prunes {proof.prune} of {problem.n}")
        rows = np.arange(problem.m) if problem.kind == "columns" else np.array([proof.row])
        return make_piece(problem, self.reduced[proof.problem], rows, counts)

    def _check_splits(self, proof: Claim, piece: Piece, name: str) -> None:
        if not len(proof.d) or proof.root[0].any():
            raise Refuted(f"the first split of {name} assumes fixings")
        if ((proof.split < 0) | (proof.split >= len(proof.d))).any():
            raise Refuted(f"a vector of {name} has a split that is not there")
        shared = piece.refit and len(self.reduced[proof.problem].H) == 1
        for d, root in zip(proof.d, proof.root, strict=True):
            key = (proof.problem, -1 if shared else proof.row, d.tobytes() + root.tobytes())
            if key not in self._definite:
                if wrong := piece.check_split(d, root):
                    raise Refuted(f"the split of {name} {wrong}")
                self._definite.add(key)
        self._split[proof.problem, proof.row] = proof.d[0]

    def _evaluate(
        self, piece: Piece, proof: Claim, vectors: NDArray[np.int64], fixings: NDArray[np.int8]
    ) -> tuple[Array, Array | None]:
        """Every leaf's proven bound; and the curve at the point of a tree that is a single leaf."""
        proven = np.empty(len(vectors))
        order = np.argsort(vectors, kind="stable")
        where = np.searchsorted(vectors[order], np.arange(-1, len(proof.u) + 1))
        none = order[: where[1]]
        nothing = np.zeros((len(none), piece.n))
        proven[none] = bounds(piece, np.full(len(none), -np.inf), nothing, fixings[none])
        size = max(1, CHUNK // (piece.n * proof.u.shape[3]))
        root = None
        for start in range(0, len(proof.u), size):
            some = slice(start, start + size)
            base, score = points(piece, proof.d, proof.root, proof.split[some], proof.u[some])
            stop = start + len(base)
            mine = order[where[start + 1] : where[stop + 1]]
            step = max(1, CHUNK // piece.n)
            for i in range(0, len(mine), step):
                leaves = mine[i : i + step]
                at = vectors[leaves] - start
                proven[leaves] = bounds(piece, base[at], score[at], fixings[leaves])
            if len(vectors) == 1 and self.problems[proof.problem].kind == "per_layer" and vectors[0] >= 0:
                root = curve(piece, float(base[vectors[0] - start]), score[vectors[0] - start])
        self.leaves += len(vectors)
        self.vectors += len(proof.u)
        return proven, root

    def _take(self, proof: Claim, piece: Piece, bound: float, root: Array | None) -> None:
        key = (proof.problem, proof.row)
        self._bound[key] = max(bound, self._bound.get(key, -np.inf))
        if self.problems[proof.problem].kind != "per_layer":
            return
        best = self._curve.setdefault(key, np.full(piece.n + 1, piece.floor))
        best[proof.prune] = max(best[proof.prune], bound)
        if root is not None:
            np.maximum(best, root, out=best)
        if piece.refit:
            np.maximum.accumulate(best, out=best)
