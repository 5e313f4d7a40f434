"""Checking proofs one by one, and what they show together about every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.checker.claims import Claim, ImageClaim
from solvers.checker.forest import grouped_leaves
from solvers.checker.grouped import Unfit
from solvers.checker.image import image_bound
from solvers.checker.leaves import CHUNK, bounds, curve, points
from solvers.checker.piece import Piece, make_piece
from solvers.checker.problem import Problem
from solvers.checker.reduced import reduce_problem
from solvers.checker.rounding import Array
from solvers.checker.tree import Broken, leaves_of


class Refuted(Exception):
    """What a certificate claims is not proven; the message says what, in one line."""


@dataclass(frozen=True)
class Shown:
    """What a proof shows.

    Attributes:
        piece: the decisions that it is about.
        nodes: every leaf.
        bounds: `[leaves]` what no mask with a leaf's fixings costs less than; infinite where there is none.
        split: `[g, n]` a checked split.
        curve: `[n + 1]` bounds for every pruned count, of a proof without branching in a row whose budget is
            shared; else None.
    """

    piece: Piece
    nodes: NDArray[np.int64]
    bounds: Array
    split: Array
    curve: Array | None


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
        self.take(proof, self.shown(proof))

    def shown(self, proof: Claim) -> Shown:
        """What a proof shows, whatever it claims.

        Raises:
            Refuted: if it shows nothing, naming the row and the node.
        """
        name = f"row {proof.row} of problem {proof.problem}"
        piece = self._piece(proof, name)
        self._check_roots(proof, name)
        if not len(proof.pair):
            self._check_splits(proof, piece, name)
        try:
            nodes, fixings = leaves_of(piece.n, proof.entry, proof.pruned, proof.kept)
        except Broken as error:
            raise Refuted(f"the tree of {name} does not cover every mask: {error}") from None
        vectors = proof.vector[nodes]
        if ((vectors < -1) | (vectors >= len(proof.u))).any():
            raise Refuted(f"a leaf of {name} has a vector that is not there")
        owners = np.append(proof.split, -1)[vectors]
        for split in np.unique(owners[owners >= 0]):
            assumed, mine = proof.root[split], np.flatnonzero(owners == split)
            foreign = mine[((assumed != 0) & (assumed != fixings[mine])).any(axis=1)]
            if len(foreign):
                at = nodes[foreign[0]]
                raise Refuted(f"leaf at node {at} of {name} lacks fixings that its split assumes")
        if len(proof.pair):
            every = self.problems[proof.problem].kind == "per_layer"
            try:
                bounds, split, curve = grouped_leaves(piece, proof, vectors, fixings, every=every)
            except Unfit as error:
                raise Refuted(f"the split of {name} {error}") from None
        else:
            split = proof.d[0]
            bounds, curve = self._evaluate(piece, proof, vectors, fixings)
        self.leaves, self.vectors = self.leaves + len(nodes), self.vectors + len(proof.u)
        for i in np.flatnonzero((vectors < 0) & (bounds < np.inf))[:1]:
            raise Refuted(f"leaf at node {nodes[i]} of {name} says that it has no masks, but it has")
        return Shown(piece, nodes, bounds, split, curve if len(nodes) == 1 else None)

    def take(self, proof: Claim, shown: Shown) -> None:
        """Hold a proof's claims against what it shows, and take its bound.

        Raises:
            Refuted: naming the row, the node, and by how much.
        """
        claims = proof.claim[shown.nodes]
        for i in np.flatnonzero(~((shown.bounds == np.inf) | (shown.bounds >= claims)))[:1]:
            claim, found = float(claims[i]), float(shown.bounds[i])
            what = f"claims {claim!r}, but {found!r} is proven ({claim - found:.3g} less)"
            raise Refuted(
                f"leaf at node {shown.nodes[i]} of row {proof.row} of problem {proof.problem} {what}"
            )
        key = (proof.problem, proof.row)
        self._split[key] = shown.split
        bound = float(claims[shown.bounds < np.inf].min(initial=np.inf))
        self._bound[key] = max(bound, self._bound.get(key, -np.inf))
        if self.problems[proof.problem].kind != "per_layer":
            return
        best = self._curve.setdefault(key, np.full(shown.piece.n + 1, shown.piece.floor))
        best[proof.prune] = max(best[proof.prune], bound)
        if shown.curve is not None:
            np.maximum(best, shown.curve, out=best)
        if shown.piece.refit:
            np.maximum.accumulate(best, out=best)

    def check_image(self, image: ImageClaim) -> None:
        """Verify a bound in an image.

        Raises:
            Refuted: by how much it fails.
        """
        self.take_image(image, image_bound(self.problems[image.problem], image.v))

    def take_image(self, image: ImageClaim, shown: float) -> None:
        """Hold the claim of a point in an image against what it shows, and take it.

        Raises:
            Refuted: by how much it fails.
        """
        if not shown >= image.claim:
            what = f"claims {image.claim!r}, but {shown!r} is proven ({image.claim - shown:.3g} less)"
            raise Refuted(f"the image of problem {image.problem} {what}")
        self.images[image.problem] = image.claim
        self.vectors += len(image.v)

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
                if this.shared:
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
        rows = np.arange(problem.m) if problem.shared else np.array([proof.row])
        return make_piece(problem, self.reduced[proof.problem], rows, counts)

    def _check_roots(self, proof: Claim, name: str) -> None:
        if not len(proof.d) or proof.root[0].any():
            raise Refuted(f"the first split of {name} assumes fixings")
        if ((proof.split < 0) | (proof.split >= len(proof.d))).any():
            raise Refuted(f"a vector of {name} has a split that is not there")

    def _check_splits(self, proof: Claim, piece: Piece, name: str) -> None:
        shared = piece.refit and len(self.reduced[proof.problem].H) == 1
        for d, root in zip(proof.d, proof.root, strict=True):
            key = (proof.problem, -1 if shared else proof.row, d.tobytes() + root.tobytes())
            if key not in self._definite:
                if wrong := piece.check_split(d, root):
                    raise Refuted(f"the split of {name} {wrong}")
                self._definite.add(key)

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
        return proven, root
