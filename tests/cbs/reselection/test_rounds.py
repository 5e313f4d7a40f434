import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbs.data import Samples
from cbs.network.surgery import clone, put_mask, read_masks
from cbs.reselection.rounds import reselect
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

NAMES = ["0", "2", "4"]


def posed(make=mlp, names=NAMES, drop=0.4, seed=0, **options):
    """A dense network, and a copy with masks of the smallest weights of every layer."""
    dense = seeded(make, seed, **options)
    model = clone(dense)
    for name in names:
        W = model.get_submodule(name).weight
        size = W.abs().reshape(-1).argsort()
        gone = torch.zeros(W.numel(), dtype=torch.bool)
        gone[size[: int(drop * W.numel())]] = True
        put_mask(model.get_submodule(name), "weight", gone.reshape(W.shape))
    return dense, model


def one_pool(model, names, share=0.3):
    pools = {name: torch.zeros_like(model.get_submodule(name).weight, dtype=torch.int64) for name in names}
    return pools, torch.tensor([round(share * sum(pool.numel() for pool in pools.values()))])


def divergence(model, dense, x):
    with torch.no_grad():
        p, q = (net(x).log_softmax(dim=1) for net in (dense, model))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


def kept(model):
    return sum(int((~mask).sum()) for mask in read_masks(model).values())


@pytest.mark.parametrize(
    ("make", "names", "data"),
    [
        (mlp, NAMES, samples(300)),
        (convnet, ["0", "3", "6"], image_samples(120)),
    ],
)
def test_as_many_weights_as_asked_for_at_less_divergence(make, names, data):
    dense, model = posed(make, names)
    start, (pools, keep) = clone(model), one_pool(model, names)
    found = reselect(model, dense, data, layers=names, pools=pools, keep=keep, rounds=2)
    assert kept(model) == int(keep) < kept_of(start, names)
    assert found.changed
    for name, mask in read_masks(model).items():
        assert not bool(model.get_submodule(name).weight[mask].any())
    fits = [r["fit"] for r in found.rounds if r["what"] in ("refit", "return", "swing") and r["taken"]]
    assert all(b < a for a, b in itertools.pairwise(fits))
    best = min(r["held"] for r in found.rounds if r["taken"] and r["what"] != "down")
    assert found.after == pytest.approx(best)
    cut = clone(start)  # the same number by size alone
    sizes = torch.cat([cut.get_submodule(name).weight.abs().reshape(-1) for name in names])
    least = sizes.sort(descending=True).values[int(keep)]
    with torch.no_grad():
        for name in names:
            W = cut.get_submodule(name).weight
            W[W.abs() <= least] = 0.0
    assert divergence(model, dense, data.inputs) < 0.5 * divergence(cut, dense, data.inputs)
    assert torch.equal(model(data.inputs[:2]), clone(model)(data.inputs[:2]))


def kept_of(model, names):
    return sum(int((model.get_submodule(name).weight != 0).sum()) for name in names)


def test_a_linear_network_ends_at_the_best_of_all_masks():
    """One layer with squared distances is its own quadratic model, for which brute force has the answer."""
    dense = seeded(mlp, 1, sizes=(5, 2))
    data = samples(300, (5,), seed=1)
    model = clone(dense)
    put_mask(model[0], "weight", torch.arange(10).reshape(2, 5) % 2 == 0)
    pools, keep = one_pool(model, ["0"], 0.3)
    reselect(
        model,
        dense,
        data,
        layers=["0"],
        pools=pools,
        keep=keep,
        match="outputs",
        solver="brute-force",
        rounds=2,
    )
    x = torch.nn.functional.pad(data.inputs, (0, 1), value=1.0)
    whole = torch.cat([dense[0].weight, dense[0].bias[:, None]], dim=1).detach()
    best = math.inf
    for choice in itertools.combinations(range(10), 3):
        total = 0.0
        for row in range(2):
            there = [c - 5 * row for c in choice if c // 5 == row] + [5]
            y = x @ whole[row]
            v = torch.linalg.lstsq(x[:, there], y[:, None]).solution
            total += float((x[:, there] @ v - y[:, None]).square().sum()) / 2 / len(x)
        best = min(best, total)
    with torch.no_grad():
        now = float(0.5 * (model(data.inputs) - dense(data.inputs)).square().sum(dim=1).mean())
    assert now == pytest.approx(best, rel=2e-2)  # the fit has nine tenths of the samples
    assert kept(model) == 3


def budgets(model):
    """Labels and counts of a quota a layer, a row, and 2 of every 3 neighbours."""
    shapes = [(name, model.get_submodule(name).weight.shape) for name in ("0", "2")]
    layers = {name: torch.full(shape, i) for i, (name, shape) in enumerate(shapes)}
    rows, groups, first, group = {}, {}, 0, 0
    for name, (m, n) in shapes:
        rows[name] = first + torch.arange(m)[:, None].expand(m, n).contiguous()
        groups[name] = group + torch.arange(m * n).reshape(m, n) // 3
        first, group = first + m, group + (m * n) // 3
    return {
        "layer": (layers, torch.tensor([8, 5])),
        "row": (rows, torch.tensor([2] * 6 + [3] * 4)),
        "n:m": (groups, torch.full((group,), 1)),
    }


@pytest.mark.parametrize("kind", ["layer", "row", "n:m"])
def test_every_budget_is_met(kind):
    dense = seeded(mlp, 2, sizes=(6, 6, 4))
    model = clone(dense)
    for name in ("0", "2"):
        W = model.get_submodule(name).weight
        put_mask(model.get_submodule(name), "weight", torch.arange(W.numel()).reshape(W.shape) % 3 == 2)
    pools, keep = budgets(model)[kind]
    found = reselect(model, dense, samples(300), layers=["0", "2"], pools=pools, keep=keep, rounds=3)
    labels = torch.cat([pools[name][~mask] for name, mask in read_masks(model).items()])
    assert torch.bincount(labels, minlength=len(keep)).tolist() == keep.tolist()
    assert any(r["search"].get("returned", 0) for r in found.rounds if r["what"] == "return")


def test_what_was_pruned_earlier_stays_out():
    dense, model = posed(drop=0.3)
    earlier = {name: mask.clone() for name, mask in read_masks(model).items()}
    pools, keep = one_pool(model, NAMES)
    reselect(model, dense, samples(300), layers=NAMES, pools=pools, keep=keep, earlier=earlier, rounds=1)
    for name, mask in read_masks(model).items():
        assert bool(mask[earlier[name]].all())
    assert kept(model) == int(keep)


def test_the_same_seed_the_same_masks():
    found = []
    for _ in range(2):
        dense, model = posed()
        pools, keep = one_pool(model, NAMES)
        reselect(model, dense, samples(300), layers=NAMES, pools=pools, keep=keep, rounds=1, seed=3)
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("rounds_told", [1, 4])
def test_stopped_early_it_meets_the_budget_with_the_best_there_is(rounds_told):
    dense, model = posed()
    pools, keep = one_pool(model, NAMES)
    heard = []

    def told(record):
        heard.append(record)
        return len(heard) == rounds_told

    found = reselect(
        model, dense, samples(300), layers=NAMES, pools=pools, keep=keep, told=told,
        stopped=lambda: len(heard) >= rounds_told,
    )  # fmt: skip
    assert (len(heard), found.why, kept(model)) == (rounds_told, "stopped", int(keep))


def test_out_of_time_or_interrupted_the_budget_is_met():
    dense, model = posed()
    pools, keep = one_pool(model, NAMES)
    found = reselect(model, dense, samples(300), layers=NAMES, pools=pools, keep=keep, until=-math.inf)
    assert (found.why, found.rounds, kept(model)) == ("time limit", [], int(keep))
    dense, model = posed()

    def told(record):
        raise KeyboardInterrupt

    found = reselect(model, dense, samples(300), layers=NAMES, pools=pools, keep=keep, told=told)
    assert (found.why, found.interrupted, kept(model)) == ("interrupted", True, int(keep))


def test_labels_may_be_what_it_fits():
    dense, model = posed()
    data = samples(300)
    pools, keep = one_pool(model, NAMES)
    before = float(F.cross_entropy(model(data.inputs), data.targets).detach())
    reselect(model, dense, data, layers=NAMES, pools=pools, keep=keep, labels=True, rounds=2)
    assert float(F.cross_entropy(model(data.inputs), data.targets).detach()) < before


def test_bad_input():
    dense, model = posed()
    pools, keep = one_pool(model, NAMES)
    few = Samples(torch.randn(40, 6, dtype=torch.float64), torch.zeros(40, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^samples: 40 are too few to hold some back; give at least 96$"):
        reselect(model, dense, few, layers=NAMES, pools=pools, keep=keep)
    with pytest.raises(ValueError, match=r"^keep asks for 60 weights of pool 0, but the network has \d+$"):
        reselect(model, dense, samples(300), layers=NAMES, pools=pools, keep=torch.tensor([60]))


def test_a_divergence_that_is_not_finite_leaves_masks_of_the_cheapest():
    dense, model = posed()
    with torch.no_grad():
        model[0].bias[0] = math.nan
    pools, keep = one_pool(model, NAMES)
    found = reselect(model, dense, samples(300), layers=NAMES, pools=pools, keep=keep)
    assert found.why == "the divergence is not finite at first"
    assert kept(model) == int(keep)
    assert np.isnan(found.before)
