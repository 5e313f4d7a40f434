"""Hand-made trees over a lone joint row whose nodes have splits in groups of their own."""

from dataclasses import dataclass, field, replace

import numpy as np

from solvers.bounds.groups.central_path import group_split
from solvers.bounds.node.restriction import part_of, restrict
from solvers.bounds.split import split_blocks
from solvers.certificate import IMPOSSIBLE, prove_in_groups


@dataclass
class Tree:
    """What `prove_in_groups` takes of a tree."""

    block: object
    size: int
    inherit: int
    nodes: list = field(default_factory=list)
    splits: list = field(default_factory=list)
    vectors: list = field(default_factory=list)

    def proof(self, **other):
        first = split_blocks([self.block])[0].d
        entry, pruned, kept, vector = np.array(self.nodes, np.int32).T
        given = {"entry": entry, "pruned": pruned, "kept": kept, "vector": vector, **other}
        return prove_in_groups(self.block, first, self.splits, self.vectors, **given)


def smaller(block, fixings):
    """The row that fixings leave of a row."""
    free, part = restrict(part_of(block), fixings)
    weights = np.linalg.solve(part.H[0], part.B[0])[None] if len(free) else part.B
    left = replace(
        block, H=part.H, B=part.B, W=weights, constant=part.constant, labels=part.labels, keep=part.keep
    )
    return free, left


def grow(block, depth, size=4, inherit=2):
    """Branch down to a depth; a node at every `inherit`-th level has its own split, others an ancestor's."""
    tree = Tree(block, size, inherit)
    rng = np.random.default_rng(block.n)

    def vector_of(fixings, own):
        _free, left = smaller(block, fixings)
        if own is None or len(tree.vectors) == 0:
            d = split_blocks([left])[0]
            value = 0.3 * max(left.constant, 1e-3)
            split, _ = group_split(left, d.d[0], d.z, value, size=size)
            tree.splits.append((fixings.astype(np.int8), split.families))
            tree.vectors.append((len(tree.splits) - 1, split.q, split.t))
        else:
            which, q, t = tree.vectors[own]
            moved = q * rng.uniform(0.99, 1.01, len(q)), t * rng.uniform(0.98, 1.02, len(t))
            tree.vectors.append((which, *moved))
        return len(tree.vectors) - 1

    def enter(fixings, level, own):
        node = len(tree.nodes)
        tree.nodes.append([-1, -1, -1, IMPOSSIBLE])
        kept = np.bincount(block.labels[fixings > 0], minlength=len(block.keep))
        gone = np.bincount(block.labels[fixings < 0], minlength=len(block.keep))
        if (kept > block.keep).any() or (gone > block.prune).any():
            return node
        left = block.keep - kept
        open_ = (left > 0).all() and (gone < block.prune).all()
        if own is None or (level % inherit == 0 and open_):
            own = vector_of(fixings, None if open_ or own is None else own)
        elif level % 2 and own is not None:
            own = vector_of(fixings, own)
        free = np.flatnonzero(fixings == 0)
        if level == depth or not len(free):
            tree.nodes[node][3] = own
            return node
        entry = int(rng.choice(free))
        children = []
        for mark in (-1, 1):
            inside = fixings.copy()
            inside[entry] = mark
            children.append(enter(inside, level + 1, own))
        tree.nodes[node][:3] = [entry, *children]
        return node

    enter(np.zeros(block.n, np.int64), 0, None)
    return tree
