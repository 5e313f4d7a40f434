"""Batch norms get the statistics of their inputs, each with those before right: against direct formulas."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.data import Samples
from cbs.network import norms
from cbs.network.norms import find_norms, recompute_norms
from cbs.result import PruneResult
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


class Forked(nn.Module):
    """Two branches that meet, a norm behind them, and one that is used by nobody."""

    def __init__(self):
        super().__init__()
        self.unused = nn.BatchNorm2d(4)
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.late = nn.BatchNorm1d(4, momentum=None)
        self.norm_b, self.norm_a = nn.BatchNorm2d(4, eps=0.1), nn.BatchNorm2d(4, affine=False)
        self.flat = nn.BatchNorm1d(4)
        self.end = nn.Linear(4, 3)

    def forward(self, x):
        y = self.norm_a(self.a(x)).relu() + self.norm_b(self.b(x)).sigmoid()
        y = self.late(y.flatten(2)).tanh()
        return self.end(self.flat(y.mean(dim=2)))


def forked():
    model = Forked().double()
    with torch.no_grad():
        for norm in find_norms(model).values():
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            if norm.affine:
                norm.weight.normal_()
                norm.bias.normal_()
    return model.eval()


def moments(x):
    values = x.movedim(1, 0).flatten(1)
    return values.mean(dim=1), values.var(dim=1, unbiased=True)


def statistics(model):
    return {name: (m.running_mean.clone(), m.running_var.clone()) for name, m in find_norms(model).items()}


def by_hand(model, x):
    """The statistics of `Forked`, norm by norm, the formula of each written out."""

    def normed(x, norm):
        mean, var = moments(x)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        weight = torch.ones_like(mean) if norm.weight is None else norm.weight
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
        y = (x - mean.view(shape)) / (var + norm.eps).sqrt().view(shape) * weight.view(shape)
        return y + bias.view(shape), (mean, var)

    found = {}
    a, found["norm_a"] = normed(model.a(x), model.norm_a)
    b, found["norm_b"] = normed(model.b(x), model.norm_b)
    y, found["late"] = normed((a.relu() + b.sigmoid()).flatten(2), model.late)
    _, found["flat"] = normed(y.tanh().mean(dim=2), model.flat)
    return found


@pytest.mark.parametrize("batch", [30, 11, 7, 1])
def test_statistics_are_those_of_a_direct_computation_however_small_the_batches(batch):
    model, data = seeded(forked), image_samples(30)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = by_hand(model, data.inputs)
    done = recompute_norms(model, replace(data, batch=batch))
    assert done == ["norm_a", "norm_b", "late", "flat"]
    for name, (mean, var) in statistics(model).items():
        if name == "unused":
            assert torch.equal(mean, before["unused.running_mean"])
            continue
        torch.testing.assert_close(mean, expected[name][0].detach(), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(var, expected[name][1].detach(), rtol=1e-11, atol=1e-13)
        assert int(model.get_submodule(name).num_batches_tracked) == -(-30 // batch)
        assert not torch.equal(mean, before[f"{name}.running_mean"])
    assert (model.norm_a.momentum, model.late.momentum) == (0.1, None)
    for name, value in model.state_dict().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("batch", [30, 7])
def test_with_the_dense_network_norms_give_what_they_gave_in_it(batch):
    dense, data = seeded(forked), image_samples(30)
    model = copy.deepcopy(dense)
    assert recompute_norms(model, replace(data, batch=batch), dense)
    for (mean, var), before in zip(statistics(model).values(), statistics(dense).values(), strict=True):
        torch.testing.assert_close((mean, var), before, rtol=1e-11, atol=1e-13)
    with torch.no_grad():
        model.a.weight[:, 0] = 0
        model.b.weight.mul_(0.8)
        model.b.bias.sub_(1)
    before = outputs(model, data.inputs)
    recompute_norms(model, replace(data, batch=batch), dense)
    after, wanted = outputs(model, data.inputs), outputs(dense, data.inputs)
    for name, y in wanted.items():
        torch.testing.assert_close(moments(after[name]), moments(y), rtol=1e-10, atol=1e-12)
        assert not torch.allclose(moments(before[name])[1], moments(y)[1], rtol=1e-3)


def outputs(model, x):
    """What every norm that runs gives."""
    found = {}
    handles = [
        norm.register_forward_hook(lambda module, args, y, name=name: found.update({name: y}))
        for name, norm in find_norms(model).items()
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def test_channels_that_are_constant_stay_finite():
    dense, data = seeded(forked), image_samples(30)
    model = copy.deepcopy(dense)
    with torch.no_grad():
        model.a.weight[0], dense.a.weight[1] = 0, 0
    recompute_norms(model, data, dense)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert model.norm_a.running_var[0] == 0
    x = outputs(model, data.inputs)["norm_a"], outputs(dense, data.inputs)["norm_a"]
    torch.testing.assert_close(*(moments(y)[0] for y in x), rtol=1e-10, atol=1e-12)
    assert model.norm_a.running_var[1] == dense.norm_a.running_var[1]


def test_a_large_mean_costs_no_digits():
    model = nn.Sequential(nn.BatchNorm1d(3)).double().eval()
    x = 1e8 + samples(50, (3,)).inputs
    recompute_norms(model, Samples(x, torch.zeros(50), batch=7))
    torch.testing.assert_close(model[0].running_var, x.var(dim=0), rtol=1e-7, atol=0)


def test_modes_stay_and_a_frozen_network_is_run_in_evaluation_mode():
    model, data = seeded(forked), image_samples(9)
    model.train()
    model.norm_b.eval()
    dropped = nn.Sequential(model, nn.Dropout(0.5))
    dropped.train()
    model.norm_b.eval()
    recompute_norms(dropped, data)
    assert [m.training for m in (dropped[1], model.norm_a, model.norm_b)] == [True, True, False]
    other = seeded(forked)
    recompute_norms(other, data)
    for name, values in statistics(other).items():
        assert all(torch.equal(*pair) for pair in zip(values, statistics(model)[name], strict=True))


class Own(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(2 * x)


def test_what_is_not_understood_or_keeps_no_statistics_is_left_alone():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), Own(3), nn.InstanceNorm2d(3),
        nn.InstanceNorm2d(3, track_running_stats=True), nn.SyncBatchNorm(3), nn.Flatten(), nn.Linear(72, 3),
    ).eval()  # fmt: skip
    model.double()
    assert [*find_norms(model)] == ["5"]
    before = copy.deepcopy(model.state_dict())
    assert recompute_norms(model, image_samples(8)) == ["5"]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"5.running_mean", "5.running_var", "5.num_batches_tracked"}
    with torch.no_grad():
        mean, var = moments(model[:5](image_samples(8).inputs))
    torch.testing.assert_close(model[5].running_mean, mean)
    torch.testing.assert_close(model[5].running_var, var)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.end = nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.end(self.norm(self.norm(input=x).tanh()))


def test_a_norm_that_runs_twice_gets_the_statistics_of_both_runs():
    model = seeded(Twice).double().eval()
    data = samples(20)
    with torch.no_grad():
        expected = moments(torch.cat([data.inputs, model.norm(data.inputs).tanh()]))
    assert recompute_norms(model, replace(data, batch=6)) == ["norm"]
    torch.testing.assert_close(model.norm.running_mean, expected[0])
    torch.testing.assert_close(model.norm.running_var, expected[1])


def test_single_values_and_values_that_are_not_finite_leave_a_norm_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)).double().eval()
    assert recompute_norms(model, samples(1)) == []
    assert recompute_norms(model, Samples(1e200 * samples(3).inputs, torch.zeros(3))) == []
    low = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)).half().eval()
    big = Samples(1e3 * samples(9).inputs.half(), torch.zeros(9))
    assert recompute_norms(low, big) == []
    for norm in (model[0], low[0]):
        assert norm.running_mean.eq(0).all()
        assert norm.running_var.eq(1).all()
        assert norm.num_batches_tracked == 0


def test_what_ends_it_early_puts_all_statistics_back():
    model, data = seeded(forked), image_samples(9)
    before = copy.deepcopy(model.state_dict())

    def interrupt(module, args):
        if not torch.equal(model.norm_b.running_mean, before["norm_b.running_mean"]):
            raise KeyboardInterrupt

    handle = model.late.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        recompute_norms(model, data)
    handle.remove()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.late._forward_pre_hooks


@pytest.mark.parametrize("passes", [0, 2])
def test_time_that_is_up_puts_all_statistics_back(monkeypatch, passes):
    model, now = seeded(forked), itertools.count()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr(norms.time, "perf_counter", lambda: next(now))
    assert recompute_norms(model, image_samples(9), until=passes) == []
    assert next(now) == passes + 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(recompute_norms(model, image_samples(9), until=100)) == 4


@pytest.mark.parametrize("pipeline", ["one-shot", "sequential"])
def test_a_pruning_recomputes_them_and_undo_puts_them_back(pipeline):
    model, data = seeded(convnet), image_samples(40)
    one_by_one = {"method": "joint", "solver": "local-search"}  # no proof: rows are wide, and samples few
    options = one_by_one if pipeline == "sequential" else {"method": "magnitude"}
    options |= {"sparsity": 0.6, "pipeline": pipeline, "certify": False}
    plain = cbs.prune(model, data, norms=False, **options)
    result = cbs.prune(model, data, norms=True, **options)
    assert (plain.history[0].norms, result.history[0].norms) == ([], ["1"])
    for name, mask in plain.masks.items():
        assert torch.equal(mask, result.masks[name])
    assert (plain.value, plain.bound) == (result.value, result.bound)
    with torch.no_grad():
        found = moments(result.model[:2](data.inputs))
        loss = F.cross_entropy(result.model(data.inputs), data.targets)
        torch.testing.assert_close(found, moments(model[:2](data.inputs)))
        assert not torch.allclose(moments(plain.model[:2](data.inputs))[1], found[1], rtol=1e-3)
    assert result.after.loss == pytest.approx(loss.item(), rel=1e-12)
    back = result.undo().state_dict()
    assert all(torch.equal(value, back[name]) for name, value in model.state_dict().items())
    assert plain.original is None
    again = PruneResult.from_dict(result.to_dict(), result.model, result.saved, result.original)
    assert again.original is not None


def test_every_stage_recomputes_them_before_fine_tuning():
    data = image_samples(40)
    seen = []

    def look(model, stage):
        with torch.no_grad():
            found, wanted = (moments(net[:2](data.inputs)) for net in (model, dense))
        seen.append(all(torch.allclose(*pair) for pair in zip(found, wanted, strict=True)))

    dense = seeded(convnet)
    result = cbs.prune(
        dense, data, sparsity=0.6, method="magnitude", certify=False, stages=2, finetune=look,
        norms=True,
    )  # fmt: skip
    assert seen == [True, True]
    assert [stage.norms for stage in result.history] == [["1"], ["1"]]


def test_neurons_without_which_statistics_were_recomputed_can_be_taken_out():
    model, data = seeded(convnet), image_samples(40)
    result = cbs.prune(
        model, data, sparsity=0.5, method="magnitude", granularity="neurons", norms=True, certify=False
    )
    small = result.permanent()
    assert small[1].num_features < 3
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs))


def test_a_network_without_norms_has_nothing_to_recompute():
    result = cbs.prune(seeded(mlp), samples(20), sparsity=0.5, method="magnitude", norms=True, certify=False)
    assert result.history[0].norms == []
    assert result.original is None


def test_norms_that_are_no_flag_are_refused():
    with pytest.raises(ValueError, match="norms must be True, False or None, got 'yes'"):
        cbs.prune(seeded(mlp), samples(20), sparsity=0.5, norms="yes")
