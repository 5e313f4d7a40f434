"""The network refit as a part of a pruning: whatever it meets, masks hold and nothing is lost."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.data import Samples
from cbs.result import PruneResult
from cbs.schedule import refitting
from tests.cbs.networks import convnet, mlp, samples, seeded

LAZY = {"method": "magnitude", "certify": False, "refit": "network"}


def single(count=200):
    return samples(count, dtype=torch.float32)


def refitted(model, data, **options):
    """A result of which masks hold, nothing became worse, and everything can be undone and written."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = cbs.prune(model, data, **{"sparsity": 0.5, **LAZY, **options})
    for name, mask in result.masks.items():
        assert not result.model.get_submodule(name).weight[mask].any()
    undone = result.undo().state_dict()
    assert all(torch.equal(value, undone[name]) for name, value in before.items())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    stage = result.history[-1]
    if stage.divergence is not None:
        assert stage.refitted_divergence <= stage.divergence
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert PruneResult.from_dict(record, result.model, result.saved, result.original).to_dict() == record
    return result


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model, data = seeded(mlp, dtype=dtype), single()
    result = refitted(model, Samples(data.inputs.to(dtype), data.targets), sparsity=0.7)
    stage = result.history[-1]
    assert stage.refitted_divergence < 0.5 * stage.divergence
    assert {values.dtype for values in result.model.parameters()} == {dtype}


class Masked(nn.Module):
    """A class that can't be is given minus infinity."""

    def __init__(self):
        super().__init__()
        self.net = seeded(mlp, dtype=torch.float32)

    def forward(self, x):
        logits = self.net(x)
        return torch.cat([logits[:, :2], torch.full_like(logits[:, :1], -math.inf)], dim=1)


def test_outputs_that_are_not_finite_are_refused_before_any_work():
    data = Samples(single().inputs, single().targets % 2)
    with pytest.raises(
        ValueError, match=r"refit 'network': \d+ of \d+ outputs of the dense network are NaN"
    ) as error:
        refitted(Masked().eval(), data)
    assert len(str(error.value).splitlines()) == 1


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = seeded(mlp, dtype=torch.float32)

    def forward(self, x):
        return torch.where(x[:, :1] > 2, torch.nan, self.net(x))


def test_a_network_whose_outputs_are_not_finite_is_told_so():
    with pytest.raises(ValueError, match="its outputs are NaN or infinite, though no layer's is"):
        refitted(Breaks().eval(), single())


@pytest.mark.parametrize("count", [1, 2, 40])
def test_data_too_small_to_hold_back_is_told_of(count):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", cbs.RefitWarning)
        result = refitted(seeded(mlp, dtype=torch.float32), single(count))
    (one,) = [str(warning.message) for warning in told if warning.category is cbs.RefitWarning]
    assert f"{count} samples are too few to hold 32 back" in one
    assert result.history[-1].refit["held_back"] == 0


@pytest.mark.parametrize("limit", [1e-6, 0.05])
def test_time_that_is_up_keeps_the_masks(limit):
    result = refitted(seeded(mlp, dtype=torch.float32), single(), time_limit=limit)
    assert sum(int(mask.sum()) for mask in result.masks.values()) == 31


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("how", ["answer", "interrupt"])
def test_a_stop_in_the_refit_keeps_the_best_step(how, first):
    def stop(step):
        if step.stage == "refit" and step.index >= first:
            if how == "interrupt":
                raise KeyboardInterrupt
            return True
        return False

    result = refitted(seeded(mlp, dtype=torch.float32), single(), callback=stop)
    assert result.status == "interrupted"
    assert result.after.loss == pytest.approx(
        F.cross_entropy(result.model(single().inputs), single().targets).item(), rel=1e-5
    )


class Twice(nn.Module):
    """A layer that is used twice, and a dropout; left in training mode by its user."""

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.drop(self.first(self.first(x).tanh()).tanh()))


def test_layers_used_twice_behind_a_dropout_in_training_mode():
    result = refitted(seeded(Twice).train(), single())
    stage = result.history[-1]
    assert stage.refitted_divergence < 0.5 * stage.divergence
    assert all(module.training for module in result.model.modules())


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "neurons"},
        {"budget": "1:2", "along": "kernel", "sparsity": None, "layers": ["0", "3"]},
        {"budget": "columns"},
        {"stages": 2, "sparsity": 0.7, "finetune": 1},
        {"stages": cbs.Schedule(2, deleted="adapt")},
        {"norms": False},
        {"norms": True},
    ],
)
def test_convolutions_with_norms(options):
    data = samples(120, (2, 4, 6), dtype=torch.float32)
    result = refitted(seeded(convnet, dtype=torch.float32), data, **options)
    if options.get("norms") is not None:
        assert all(stage.norms == (["1"] if options["norms"] else []) for stage in result.history)
    small = result.permanent()
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-4, atol=1e-5)


DATA = {mlp: samples(120), convnet: samples(120, (2, 4, 6))}
QUICK = {"certify": False, "refit": "network", "reselect": False}


def state(model):
    return {name: values.clone() for name, values in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (mlp, {"method": "magnitude", "sparsity": 0.4}), (mlp, {"method": "joint", "sparsity": 0.4}),
        (mlp, {"method": "cbs", "sparsity": 0.4}),
        (mlp, {"method": "magnitude", "budget": "1:2", "layers": ["0"]}),
        (mlp, {"method": "wanda", "budget": "columns", "sparsity": 0.4}),
        (mlp, {"method": "magnitude", "granularity": "neurons", "sparsity": 0.4}),
        (mlp, {"method": "joint", "sparsity": 0.4, "pipeline": "sequential", "scope": "layer"}),
        (convnet, {"method": "magnitude", "sparsity": 0.4}),
        (convnet, {"method": "joint", "sparsity": 0.4, "scope": "row"}),
    ],
)  # fmt: skip
def test_after_any_mask_outputs_come_nearer_and_all_can_be_undone(make, options):
    model, data = seeded(make), DATA[make]
    before = state(model)
    plain = cbs.prune(model, data, certify=False, **options)
    result = cbs.prune(model, data, test=data, **QUICK, **options)
    (stage,) = result.history
    assert stage.pruned == plain.after
    assert result.value == plain.value
    assert all(torch.equal(result.masks[name], mask) for name, mask in plain.masks.items())
    for name, mask in result.masks.items():
        assert not bool(result.model.get_submodule(name).weight_orig[mask].any())
    assert result.after == stage.refitted == stage.test_refitted == result.test_after
    assert stage.refitted_divergence < stage.divergence
    assert stage.refit["held_back"] == 32
    assert same(state(model), before)
    assert same(state(result.undo()), before)
    record = json.loads(json.dumps(result.to_dict()))
    again = PruneResult.from_dict(record, result.model, result.saved, result.original)
    assert again.history == result.history
    assert same(state(again.undo()), before)
    if result.neurons:
        outputs = result.permanent()(data.inputs)
        torch.testing.assert_close(outputs, result.model(data.inputs), rtol=1e-9, atol=1e-9)


def test_layers_that_were_left_out_stay():
    model = seeded(convnet)
    result = cbs.prune(model, DATA[convnet], sparsity=0.4, method="magnitude", layers=["3"], **QUICK)
    assert torch.equal(result.model[0].weight, model[0].weight)
    assert torch.equal(result.model[6].weight, model[6].weight)
    assert not torch.equal(result.model[1].weight, model[1].weight)  # a norm
    assert not torch.equal(result.model[3].bias, model[3].bias)


def test_every_stage_is_refitted_to_the_dense_network(monkeypatch):
    dense, seen = seeded(mlp), []
    refit = refitting.refit_network

    def heard(model, against, data, **options):
        seen.append(state(against))
        return refit(model, against, data, **options)

    monkeypatch.setattr(refitting, "refit_network", heard)
    steps = []
    result = cbs.prune(
        dense,
        DATA[mlp],
        sparsity=0.6,
        method="magnitude",
        stages=3,
        finetune=1,
        callback=steps.append,
        **QUICK,
    )
    assert len(seen) == 3
    assert all(same(one, state(dense)) for one in seen)
    for stage in result.history:
        assert stage.refitted_divergence <= stage.divergence
        assert stage.refitted is not None
        assert stage.tuned is not None
    assert result.after == result.history[-1].tuned
    told = [(step.part, step.index) for step in steps if step.stage == "refit"]
    for part, stage in enumerate(result.history, 1):
        taken = range(len(stage.refit["steps"]) + 1)
        assert [index for number, index in told if number == part] == [*taken]
    kinds = [
        step.stage for step in steps if step.part == 1 and step.stage in ("evaluate", "refit", "finetune")
    ]
    assert list(dict.fromkeys(kinds)) == ["evaluate", "refit", "finetune"]


@pytest.mark.parametrize("how", ["callback", "ctrl-c"])
def test_an_interruption_keeps_the_best_step(how):
    options = {"sparsity": 0.4, "method": "magnitude", **QUICK}

    def stop(step):
        if step.stage != "refit" or step.index < 2:
            return False
        if how == "ctrl-c":
            raise KeyboardInterrupt
        return True

    whole = cbs.prune(seeded(mlp), DATA[mlp], **options)
    result = cbs.prune(seeded(mlp), DATA[mlp], callback=stop, finetune=3, **options)
    assert result.status == "interrupted"
    (stage,) = result.history
    assert stage.tuned is None
    step = stage.refit["steps"][1]
    assert stage.refitted_divergence == step["held"] == whole.history[0].refit["steps"][1]["held"]
    assert result.after == stage.refitted


def test_a_time_limit_that_is_up_leaves_the_pruning_as_it_is():
    result = cbs.prune(seeded(mlp), DATA[mlp], sparsity=0.4, method="magnitude", time_limit=1e-9, **QUICK)
    (stage,) = result.history
    assert stage.refit is None or (stage.refit["why"], stage.refit["steps"]) == ("time limit", [])
    assert stage.divergence is None
    assert result.after == stage.pruned
    assert np.isclose(result.sparsity, 0.4, atol=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": lambda o, y: torch.nn.functional.cross_entropy(o, y)}, r"^match must be given"),
        ({"match": "probabilities", "loss": "mse_loss"}, r"^match 'probabilities' takes outputs"),
        ({"labels": True, "loss": "l1_loss"}, r"^labels: loss l1_loss has no curvature"),
    ],
)
def test_what_can_not_be_matched_is_refused_before_any_pruning(options, words, monkeypatch):
    monkeypatch.setattr("cbs.assemble.surgery.apply", lambda *args: pytest.fail("pruned"))
    data, sizes = DATA[mlp], (6, 5, 1)
    if isinstance(options["loss"], str):
        data = (data.inputs, data.inputs[:, :1])
    else:
        sizes = (6, 5, 3)
    with pytest.raises(ValueError, match=words):
        cbs.prune(seeded(mlp, sizes=sizes), data, sparsity=0.4, method="magnitude", **QUICK, **options)


def test_match_makes_up_for_a_loss_that_is_not_known():
    loss = lambda o, y: torch.nn.functional.cross_entropy(o, y)  # noqa: E731
    result = cbs.prune(
        seeded(mlp), DATA[mlp], sparsity=0.4, method="magnitude", loss=loss, match="probabilities", **QUICK
    )
    assert result.history[0].refitted_divergence < result.history[0].divergence
