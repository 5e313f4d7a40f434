"""Proofs whose splits are in groups: their trees, and what every leaf may claim by enumerating states.

At a node with fixings a lone joint row is a smaller one, the Schur complement of its kept entries, and has
a split in groups of its own (`solvers.bounds.groups`). A proof restricts nothing: as with diagonal splits,
D is lifted to all entries that are not pruned, and a fixing only forbids some of a group's states. Which
groups are made of whole pools, and have their budgets' states alone, follows from the budget and from what a
split assumes; a proof's first split has none of these, as it encloses values, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.groups.clusters import pattern_of
from solvers.bounds.groups.split import Family, GroupSplit, relaxed, worth_above
from solvers.bounds.groups.states import Index, Pattern, States
from solvers.certificate.points import SHARE, Terms, completed, rounded, rounding
from solvers.certificate.proof import IMPOSSIBLE, LOSS, OffDiagonal, Proof, leaf_fixings
from solvers.form.blocks import Block
from solvers.hessian import Array

EPS = float(np.finfo(float).eps)
SHRINKS = (0.0, *(1e-12 * 2.0 ** np.arange(39)), *(1.0 - 0.5 ** np.arange(1, 40)))
"""Shares by which a split is made smaller until its remainder is semidefinite for certain."""
NARROW = tuple(2.0 ** -np.arange(24.0, 19.0, -1.0))
"""The same in single precision, as far as that is worth its room."""
CHUNK = 1 << 18
"""Numbers in an array of one batch."""


def prove_in_groups(
    block: Block,
    first: Array,
    splits: Sequence[tuple[NDArray[np.int8], Sequence[Family]]],
    vectors: Sequence[tuple[int, Array, Array]],
    *,
    entry: NDArray[np.int32],
    pruned: NDArray[np.int32],
    kept: NDArray[np.int32],
    vector: NDArray[np.int32],
) -> Proof:
    """The proof that a tree makes whose nodes have splits in groups, with all its claims; see `Proof`.

    Splits, points and prices are rounded to single precision where that costs little.

    Args:
        block: a lone joint row.
        first: `[1, n]` a diagonal split of the whole block, as `solvers.bounds.split.secure` leaves it.
        splits: the fixings `[n]` that each assumes (1 kept, -1 pruned, 0 free), and groups of what those
            leave free, numbered as `np.flatnonzero(root == 0)` does; valid for what
            `solvers.bounds.node.restriction.restrict` leaves of the block.
        vectors: of each the split, `q [f]` of the free entries, `q = b - (S - D) u` in that smaller row, and
            a price of any sign of keeping an entry of every pool, `t [pools]`.
        entry: `[T]` decision branched on, -1 for a leaf.
        pruned: `[T]` child where it is pruned.
        kept: `[T]` child where it is kept.
        vector: `[T]` which of `vectors` a leaf has, or `IMPOSSIBLE`; a leaf's fixings are those that its
            split assumes, and any others.

    Raises:
        ValueError: if the block is no lone joint row, or its curvature too close to singular.
    """
    if not block.refit or block.B.shape != (1, block.n, 1):
        raise ValueError("splits in groups are for lone joint rows")
    H, n = block.H[0], block.n
    roots = np.zeros((len(splits) + 1, n), np.int8)
    whole = [_alone(first[0])]
    for i, (root, families) in enumerate(splits):
        roots[i + 1] = root
        whole.append(_lifted(first[0], roots[i + 1], families))
    split = np.array([which + 1 for which, _, _ in vectors], np.int32)
    whole, narrow = _secured(H, roots, whole)
    u = _points(block, roots, whole, split, [q for _, q, _ in vectors])
    price = rounded(np.array([t for _, _, t in vectors]).reshape(len(vectors), len(block.keep)))
    d, blocks = _written(n, whole, price, narrow)
    leaf = np.where(entry < 0, vector, IMPOSSIBLE).astype(np.int32)
    proof = Proof(
        block.rows, block.keep, d, entry, pruned, kept, leaf, rounded(u[:, None, :, None]),
        np.full(len(entry), -np.inf), roots, split, blocks,
    )  # fmt: skip
    terms = Terms.of(block)
    proof = replace(proof, claim=grouped_claims(terms, proof))
    if proof.bounding.any() and proof.u.dtype == np.float32:
        worst = int(np.argmin(np.where(proof.bounding, proof.claim, np.inf)))
        v = int(proof.vector[worst])
        only = replace(
            proof,
            u=u[v : v + 1, None, :, None],
            split=split[v : v + 1],
            vector=np.where(np.arange(len(entry)) == worst, 0, IMPOSSIBLE).astype(np.int32),
            blocks=replace(blocks, price=price[v : v + 1]),
        )
        if grouped_claims(terms, only)[worst] - proof.bound > LOSS * abs(proof.bound):
            proof = replace(proof, u=u[:, None, :, None])
            proof = replace(proof, claim=grouped_claims(terms, proof))
    return proof


def group_proof(block: Block, first: Array, split: GroupSplit) -> Proof:
    """The proof that a secured split in blocks of a lone joint row makes.

    Args:
        block: the row.
        first: `[1, n]` a diagonal split of it, as `solvers.bounds.split.secure` leaves it; written where
            blocks are made of whole pools.
        split: the split.

    Raises:
        ValueError: if no block has more than one entry: a diagonal split proves more.
    """
    whole: list[Sequence[Family]] = [split.families]
    if any(family.pattern for family in split.families):
        whole = [_alone(first[0]), split.families]
    d, blocks = _written(block.n, whole, split.t[None], False)
    if not len(blocks.pair):
        raise ValueError("split has no blocks of several entries; use root_proof")
    u = relaxed(split.remainder(block.H[0]), block.B[0, :, 0] - split.q)
    leaf, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    proof = Proof(
        block.rows, block.keep, d, none, none, none, leaf, rounded(u[None, None, :, None]), np.zeros(1),
        split=np.array([len(whole) - 1], np.int32), blocks=blocks,
    )  # fmt: skip
    return replace(proof, claim=grouped_claims(Terms.of(block), proof))


def resecured(proof: Proof, H: Array, slack: Array) -> Proof:
    """A proof whose splits hold for a curvature `[n, n]` that is known up to `slack`."""
    assert proof.blocks is not None
    whole = [list(families) for families in families_of(proof)]
    whole, narrow = _secured(H - 2.0 * np.diag(slack.sum(axis=1)), proof.roots, whole)
    d, blocks = _written(len(H), whole, proof.blocks.price, narrow)
    return replace(proof, d=d, blocks=blocks)


def families_of(proof: Proof) -> Iterator[list[Family]]:
    """Every split's groups of the entries that it does not assume pruned, by size."""
    assert proof.blocks is not None
    ends = np.append(0, np.cumsum(proof.blocks.counts(len(proof.splits))))
    for i, (d, root) in enumerate(zip(proof.splits[:, 0].astype(np.float64), proof.roots, strict=True)):
        pair = proof.blocks.pair[ends[i] : ends[i + 1]].astype(np.int64)
        D = np.diag(d)
        D[pair[:, 0], pair[:, 1]] = D[pair[:, 1], pair[:, 0]] = proof.blocks.cross[ends[i] : ends[i + 1]]
        group = np.arange(len(d))
        for a, b in pair.tolist():
            if group[a] != group[b]:
                group[group == group[b]] = group[a]
        members: dict[int, list[list[int]]] = {}
        for name in np.unique(group[root >= 0]):
            these = np.flatnonzero(group == name).tolist()
            members.setdefault(len(these), []).append(these)
        yield [Family(at, D[at[:, :, None], at[:, None, :]]) for at in map(np.array, members.values())]


def grouped_claims(terms: Terms, proof: Proof) -> Array:
    """`[T]` what each leaf may claim, less a margin for rounding; minus infinity where there is none."""
    assert proof.blocks is not None
    out = np.full(len(proof.entry), -np.inf)
    leaves, fixings = leaf_fixings(proof, len(terms.labels))
    leaves, fixings = leaves[proof.vector[leaves] >= 0], fixings[proof.vector[leaves] >= 0]
    possible = forced(fixings, terms.labels, proof.keep)
    out[leaves[~possible]] = np.inf
    leaves, fixings = leaves[possible], fixings[possible]
    u = proof.u[:, 0, :, 0].astype(np.float64)[:, None, :, None]
    u = completed(terms.H, terms.B, proof.roots, proof.owner, u)[:, 0, :, 0]
    price = proof.blocks.price.astype(np.float64)
    owner = proof.owner[proof.vector[leaves]]
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(proof.splits) + 1))
    for i, families in enumerate(families_of(proof)):
        mine = order[ends[i] : ends[i + 1]]
        if len(mine):
            if i:
                families = _with_patterns(families, proof.roots[i], terms.labels, proof.keep)
            used, at = np.unique(proof.vector[leaves[mine]], return_inverse=True)
            claims = _claims(terms, families, u[used], price[used], proof.keep, at, fixings[mine])
            out[leaves[mine]] = claims
    return out


def _with_patterns(
    families: Sequence[Family], root: NDArray[np.int8], labels: Index, keep: Index
) -> list[Family]:
    """Families parted by what their groups are made of, once a split's assumptions are met."""
    free, place = root == 0, np.cumsum(root == 0) - 1
    left = keep - np.bincount(labels[root > 0], minlength=len(keep))
    out = []
    for family in families:
        kinds: dict[Pattern, list[int]] = {}
        for b, at in enumerate(family.members):
            pattern = pattern_of(place[at], labels[free], left) if len(at) > 1 else ()
            kinds.setdefault(pattern, []).append(b)
        out += [Family(family.members[some], family.D[some], kind) for kind, some in sorted(kinds.items())]
    return out


def forced(fixings: NDArray[np.int8], labels: Index, keep: Index) -> NDArray[np.bool_]:
    """Fix, in place, what the budget leaves no choice of; return which fixings leave a mask at all."""
    possible = np.ones(len(fixings), dtype=bool)
    for p, wanted in enumerate(keep.tolist()):
        pool = labels == p
        part = fixings[:, pool]
        left, free = wanted - (part > 0).sum(axis=1), (part == 0).sum(axis=1)
        possible &= (left >= 0) & (left <= free)
        choice = np.where(left <= 0, -1, np.where(left >= free, 1, 0))[:, None]
        fixings[:, pool] = np.where(part == 0, choice, part)
    return possible


def _alone(d: Array) -> list[Family]:
    """A diagonal split `[n]` as one of groups."""
    return [Family(np.arange(len(d))[:, None], d[:, None, None])]


def _lifted(first: Array, root: NDArray[np.int8], families: Sequence[Family]) -> list[Family]:
    """A split of what is left free as one of the kept entries too; see `solvers.certificate.points.lift`."""
    free, kept = np.flatnonzero(root == 0), np.flatnonzero(root > 0)
    if len(free) == len(root):
        return list(families)
    lifted = []
    for family in families:
        at = free[family.members]
        own = SHARE * first[at][:, :, None] * np.eye(at.shape[1])
        lifted.append(Family(at, (1.0 - SHARE) * family.D + own))
    if len(kept):
        lifted.append(Family(kept[:, None], SHARE * first[kept][:, None, None]))
    return lifted


def _secured(
    H: Array, roots: NDArray[np.int8], whole: Sequence[Sequence[Family]]
) -> tuple[list[list[Family]], bool]:
    """Splits shrunk until each is valid for certain; and whether single precision holds them all."""
    sizes = [np.diagonal(family.D, axis1=1, axis2=2) for families in whole for family in families]
    room = all(((size > 2.0**-80) & (size < 2.0**120)).all() for size in sizes)
    for narrow in (True, False) if room else (False,):
        found = []
        for root, families in zip(roots, whole, strict=True):
            safe = _shrunk(H, np.flatnonzero(root >= 0), families, narrow)
            if safe is None:
                break
            found.append(safe)
        else:
            return found, narrow
    raise ValueError("hessian is too close to singular for a certified split; add damping")


def _shrunk(H: Array, alive: Index, families: Sequence[Family], narrow: bool) -> list[Family] | None:
    A = H[np.ix_(alive, alive)]
    place = np.zeros(len(H), np.int64)
    place[alive] = np.arange(len(alive))
    scale = np.exp2(-np.round(0.5 * np.log2(np.maximum(np.diagonal(A), 1e-280))))
    margin = 4.0 * (len(A) + 4) * EPS * float((scale**2 * np.diagonal(A)).sum())
    for shrink in NARROW if narrow else SHRINKS:
        trial = []
        R = A.copy()
        for family in families:
            D = (1.0 - shrink) * family.D
            D = D.astype(np.float32).astype(np.float64) if narrow else D
            at = place[family.members]
            R[at[:, :, None], at[:, None, :]] -= D
            trial.append(replace(family, D=D))
        R = scale[:, None] * R * scale + margin * (1e-3 - 1.0) * np.eye(len(A))
        if scipy.linalg.lapack.dpotrf(R, lower=1)[1] == 0:
            return trial
    return None


def _points(
    block: Block,
    roots: NDArray[np.int8],
    whole: Sequence[Sequence[Family]],
    split: NDArray[np.int32],
    residuals: Sequence[Array],
) -> Array:
    """`[V, n]` points with given residuals on what their splits leave free; zero elsewhere."""
    H, b = block.H[0], block.B[0, :, 0]
    u = np.zeros((len(split), block.n))
    for i in np.unique(split):
        free, kept = np.flatnonzero(roots[i] == 0), np.flatnonzero(roots[i] > 0)
        R = H.copy()
        for family in whole[i]:
            R[family.members[:, :, None], family.members[:, None, :]] -= family.D
        R, right = R[np.ix_(free, free)], b[free]
        if len(kept):
            across = H[np.ix_(kept, free)]
            solved = scipy.linalg.solve(
                H[np.ix_(kept, kept)], np.column_stack([across, b[kept]]), assume_a="pos", check_finite=False
            )
            R, right = R - across.T @ solved[:, :-1], right - across.T @ solved[:, -1]
        mine = np.flatnonzero(split == i)
        for v in mine.tolist() if len(free) else ():
            u[v, free] = relaxed(R, right - residuals[v])
    return u


def _written(
    n: int, whole: Sequence[Sequence[Family]], price: NDArray[np.floating], narrow: bool
) -> tuple[NDArray[np.floating], OffDiagonal]:
    """`[Q, 1, n]` the diagonals of all D, ones where a split has none, and the rest."""
    d = np.ones((len(whole), 1, n), np.float32 if narrow else np.float64)
    kind = np.int32 if len(whole) == 1 or n > 256 else np.uint8
    pairs, cross, place = [np.zeros((0, 2), kind)], [np.zeros(0, d.dtype)], [np.zeros(0, np.int32)]
    for q, families in enumerate(whole):
        for family in families:
            d[q, 0, family.members] = np.diagonal(family.D, axis1=1, axis2=2)
            for i, j in combinations(range(family.members.shape[1]), 2):
                pairs.append(np.sort(family.members[:, [i, j]], axis=1).astype(kind))
                cross.append(family.D[:, i, j].astype(d.dtype))
                place.append(np.full(len(family.members), q, np.int32))
    places = None if len(whole) == 1 else np.concatenate(place)
    return d, OffDiagonal(np.concatenate(pairs), np.concatenate(cross), price, places)


def _claims(
    terms: Terms,
    families: Sequence[Family],
    u: Array,
    price: Array,
    keep: Index,
    at: Index,
    fixings: NDArray[np.int8],
) -> Array:
    """`[L]` claims of leaves that have one split, at its points `u [V, n]`: those numbered `at [L]`."""
    H, gamma = terms.H[0], rounding(len(terms.labels))
    D, price = np.zeros_like(H), price.copy()
    for family in families:
        D[family.members[:, :, None], family.members[:, None, :]] = family.D
        if family.pattern:
            price[:, terms.labels[family.members]] = 0.0
    y = u @ (H - D)
    error = gamma * (np.abs(u) @ (2.0 * np.abs(H) + np.abs(H - D)))
    if terms.H_slack is not None:
        error = error + np.abs(u) @ terms.H_slack[0]
    q = terms.B[0, :, 0] - y
    off = error + terms.B_slack[0, :, 0] + gamma * np.abs(q)
    base = terms.constant - 0.5 * (u * y).sum(axis=1) - (np.abs(u) * error).sum(axis=1)
    around = abs(terms.constant) + 0.5 * np.abs(u * y).sum(axis=1) + np.abs(price) @ keep
    low, margin = (base - price @ keep)[at], around[at]
    for family in families:
        paid = price[:, terms.labels[family.members[:, 0]]]
        score = state_scores(family, q[:, family.members], off[:, family.members], paid)
        part, size = best_allowed(family, score, at, fixings)
        low, margin = low - part.sum(axis=1), margin + size.sum(axis=1)
    claims = low - gamma * margin - 8.0 * len(H) * EPS * np.abs(low) - 1e-300
    return np.where(np.isfinite(claims), np.maximum(claims, terms.floor), -np.inf)


def state_scores(family: Family, q: Array, error: Array, price: Array) -> Array:
    """`[V, B, K]` `h_S - t |S|` from above for residuals `q [V, B, s]` within an error, prices `[V, B]`.

    As `solvers.bounds.groups.split.scores_above`, with the checker's rounding on top.
    """
    gamma, states = rounding(family.members.shape[1]), States.of(family.D, q[0], family.states)
    found = np.empty((*q.shape[:2], len(family.states.kept)))
    for v, own in enumerate(q):
        h = worth_above(family, states.at(own) if v else states, own, error[v])
        paid = price[v][:, None] * family.states.counts
        found[v] = h - paid + gamma * (np.abs(h) + np.abs(paid))
    return found


def best_allowed(family: Family, score: Array, at: Index, fixings: NDArray[np.int8]) -> tuple[Array, Array]:
    """`[L, B]` the best state of every group that a leaf allows, and its absolute value.

    Args:
        family: the groups.
        score: `[V, B, K]`.
        at: `[L]` the vector of every leaf.
        fixings: `[L, n]`.
    """
    bit = 1 << np.arange(family.members.shape[1])
    states = family.states.kept @ bit
    best = score.max(axis=2)[at]
    inside = fixings[:, family.members]
    must, no = (inside > 0) @ bit, (inside < 0) @ bit
    leaf, group = np.nonzero(must | no)
    step = max(1, CHUNK // len(states))
    for i in range(0, len(leaf), step):
        some, these = leaf[i : i + step], group[i : i + step]
        fixed = (must | no)[some, these]
        allowed = (states & fixed[:, None]) == must[some, these][:, None]
        best[some, these] = np.where(allowed, score[at[some], these], -np.inf).max(axis=1)
    return best, np.abs(best)
