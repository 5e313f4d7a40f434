"""Open nodes go into arrays and come back as they were."""

import numpy as np
import pytest

from solvers.exact.grouped.inheritance import Group, Seed
from solvers.exact.grouped.open_node import OpenNode, cut, pack, unpack


def some_nodes():
    rng = np.random.default_rng(0)
    groups = [
        Group(np.array([2, 0]), np.eye(2), rng.dirichlet(np.ones(4))),
        Group(np.array([1]), np.array([[2.0]]), np.array([0.25, 0.75])),
        Group(np.array([3, 4, 5]), 2.0 * np.eye(3), rng.dirichlet(np.ones(3)), ((3, 2),)),
    ]
    seed = Seed(np.array([0, 2, 4, 5, 6, 7]), groups, np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.0]))
    fix = np.array([0, 1, 0, -1, 0, 0, 0, 0], np.int8)
    return [OpenNode(fix, 1.0), OpenNode(fix, 2.0, seed, 4), OpenNode(-fix, 3.0, seed, 1)]


def test_nodes_come_back():
    nodes = some_nodes()
    again = unpack(pack(nodes, 8), 8)
    assert [(node.lower, node.at) for node in again] == [(1.0, 0), (2.0, 4), (3.0, 1)]
    assert again[0].seed is None
    assert again[1].seed is again[2].seed
    for node, other in zip(nodes, again, strict=True):
        assert (node.fix == other.fix).all()
    for group, other in zip(nodes[1].seed.groups, again[1].seed.groups, strict=True):
        assert (group.members == other.members).all()
        assert (group.D == other.D).all()
        assert (group.share == other.share).all()
        assert group.pattern == other.pattern
    assert (again[1].seed.t == nodes[1].seed.t).all()
    assert nodes[1].bytes > nodes[0].bytes
    assert unpack(pack([], 8), 8) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("free", lambda a: a + 8), ("members", lambda a: 0 * a), ("seed", lambda a: a + 1),
        ("pattern", lambda a: a[::-1]), ("pattern", lambda a: a + 1),
        ("pools", lambda a: 0 * a),
        ("size", lambda a: a + 1), ("share", lambda a: a[1:]), ("fix", lambda a: a[:, 1:]),
    ],
)  # fmt: skip
def test_arrays_that_point_nowhere_are_refused(name, change):
    arrays = pack(some_nodes(), 8)
    arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match="its"):
        unpack(arrays, 8)


def test_pieces_have_their_sizes():
    assert [piece.tolist() for piece in cut(np.arange(5), np.array([2, 0, 3]))] == [[0, 1], [], [2, 3, 4]]
