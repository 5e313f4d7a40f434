import numpy as np

from cbs.deploy.timing import Times, interleaved


def test_calls_take_turns():
    order = []
    found = interleaved([lambda: order.append("a"), lambda: order.append("b")], seconds=0, part=1e-9)
    assert [len(times.seconds) for times in found] == [3, 3]
    assert "".join(order) == "aabb" + "ab" * 3


def test_median_and_quartiles():
    times = Times(np.array([5.0, 1.0, 2.0, 4.0, 3.0]))
    assert times.median == 3
    assert times.spread == (2, 4)
