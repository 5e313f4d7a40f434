import itertools

import numpy as np
import pytest

from solvers.checker.tree import Broken, leaves_of

SMALL = {"entry": [2, -1, 0, -1, -1], "pruned": [1, -1, 4, -1, -1], "kept": [2, -1, 3, -1, -1]}


def walk(n, tree):
    return leaves_of(n, *(np.array(tree[name], dtype=np.int64) for name in ("entry", "pruned", "kept")))


def random_tree(rng, n, depth):
    """Nodes in random order, the root first."""
    nodes = []

    def grow(free, level):
        node = len(nodes)
        nodes.append([-1, -1, -1])
        if level < depth and rng.random() < 0.8:
            entry = int(rng.choice(free))
            rest = [i for i in free if i != entry]
            nodes[node] = [entry, grow(rest, level + 1), grow(rest, level + 1)]
        return node

    grow(list(range(n)), 0)
    order = np.concatenate([[0], 1 + rng.permutation(len(nodes) - 1)]).astype(int)
    place = np.append(np.argsort(order), -1)
    entry, pruned, kept = np.array(nodes)[order].T
    return {"entry": entry, "pruned": place[pruned], "kept": place[kept]}


@pytest.mark.parametrize("seed", range(8))
def test_leaves_partition_all_masks(seed):
    n = 6
    tree = random_tree(np.random.default_rng(seed), n, 5)
    nodes, fixings = walk(n, tree)
    assert sorted(nodes) == np.flatnonzero(np.array(tree["entry"]) < 0).tolist()
    for mask in itertools.product((-1, 1), repeat=n):
        assert ((fixings == 0) | (fixings == np.array(mask))).all(axis=1).sum() == 1


def test_fixings_are_those_of_the_path():
    nodes, fixings = walk(3, SMALL)
    found = dict(zip(nodes.tolist(), fixings.tolist(), strict=True))
    assert found == {1: [0, 0, -1], 4: [-1, 0, 1], 3: [1, 0, 1]}


@pytest.mark.parametrize(
    ("field", "node", "value", "message"),
    [
        ("entry", 2, 2, "node 2 branches again on entry 2"),
        ("entry", 2, 3, "node 2 branches on no entry"),
        ("entry", 0, -2, "node 0 branches on no entry"),
        ("entry", 2, -1, "node 2 is a leaf, but has a child"),
        ("entry", 1, 1, "node 1 has no child where its entry is pruned"),
        ("pruned", 0, -1, "node 0 has no child where its entry is pruned"),
        ("pruned", 0, 5, "node 0 has no child where its entry is pruned"),
        ("kept", 2, 0, "node 2 has no child where its entry is kept"),
        ("kept", 2, 2, "node 2 has two parents"),
        ("kept", 2, 1, "node 1 has two parents"),
        ("kept", 0, 1, "node 1 has two parents"),
    ],
)
def test_a_broken_tree_is_named(field, node, value, message):
    tree = {name: list(values) for name, values in SMALL.items()}
    tree[field][node] = value
    with pytest.raises(Broken, match=message):
        walk(3, tree)


def test_a_cycle_apart_from_the_root_is_no_part_of_the_tree():
    tree = {"entry": [-1, 0, 1], "pruned": [-1, 2, 1], "kept": [-1, -1, -1]}
    with pytest.raises(Broken, match="no child where its entry is kept"):
        walk(3, tree)
    tree = {"entry": [-1, 0, -1], "pruned": [-1, 1, -1], "kept": [-1, 2, -1]}
    with pytest.raises(Broken, match="2 of 3 nodes can't be reached"):
        walk(3, tree)


def test_nothing_is_no_tree():
    with pytest.raises(Broken, match="no root"):
        walk(3, {"entry": [], "pruned": [], "kept": []})
