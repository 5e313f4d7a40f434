import numpy as np

from cbs.deploy.timing import Times, interleaved


def test_calls_take_turns():
    order = []
    found = interleaved([lambda: order.append("a"), lambda: order.append("b")], rounds=4, seconds=1e-4)
    assert [len(times.seconds) for times in found] == [len(found[0].seconds)] * 2
    assert 3 <= len(found[0].seconds) <= 4
    runs = "".join(order)
    assert runs.startswith("aabb")
    assert runs.replace("aa", "a").count("ab") >= 3


def test_median_and_quartiles():
    times = Times(np.array([5.0, 1.0, 2.0, 4.0, 3.0]))
    assert times.median == 3
    assert times.spread == (2, 4)
