"""The network refit as a part of a pruning: whatever it meets, masks hold and nothing is lost."""

import json
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.data import Samples
from cbs.result import PruneResult
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
        {"budget": "1:2", "sparsity": None, "layers": ["0", "3"]},
        {"budget": "columns"},
        {"stages": 2, "sparsity": 0.7, "finetune": 1},
        {"stages": cbs.Schedule(2, deleted="adapt")},
        {"norms": False},
    ],
)
def test_convolutions_with_norms(options):
    data = samples(120, (2, 4, 6), dtype=torch.float32)
    result = refitted(seeded(convnet, dtype=torch.float32), data, **options)
    assert all(stage.norms == (["1"] if result.request.renorms else []) for stage in result.history)
    small = result.permanent()
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-4, atol=1e-5)
