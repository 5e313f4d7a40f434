"""What is printed of a pruning: a few lines, without its model or any tensor."""

import json
import math

import pytest
import torch
from torch import nn

import cbs
from cbs.request import Request
from cbs.result import PruneResult


def network(layers):
    torch.manual_seed(0)
    stack = [module for _ in range(layers) for module in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*stack, nn.Linear(6, 3)).eval()


def data(size=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 6, generator=generator), torch.randint(0, 3, (size,), generator=generator)


def test_a_result_is_a_few_lines():
    result = cbs.prune(network(2), data(), method="joint", sparsity=0.5, scope="row", test=data(10))
    text = repr(result)
    assert text == str(result)
    head, losses, objective, *layers = text.splitlines()
    assert head == "PruneResult: joint, 50.0% pruned, scope row: optimal"
    before, after = result.test_before.accuracy, result.test_after.accuracy
    assert f"accuracy {before:.2%} -> {after:.2%} on test data, loss {result.before.loss:.4f} -> " in losses
    assert f"value {result.value:.7g}, bound {result.bound:.7g}" in objective
    assert [line.split()[0] for line in layers] == ["0", "2", "4"]
    assert f"18 of 36 kept, value {result.layers[0].value:.7g}" in layers[0]
    assert "tensor" not in text
    assert "Linear(" not in text
    assert len(text) < 600
    assert repr(result.layers[0]).startswith("LayerResult 0 [6, 6]: 18 of 36 kept, value ")
    assert len(repr(result.layers[0])) < 200


def test_many_layers_are_cut_and_what_is_not_known_is_called_so():
    result = cbs.prune(network(20), data(), method="magnitude", sparsity=0.5, certify=False)
    assert result.bound is None
    text = repr(result)
    assert "bound unknown, gap unknown" in text
    assert "on calibration data, loss" in text
    assert text.splitlines()[-1] == "  ... and 10 more"
    assert len(text.splitlines()) == 15


def test_a_pattern_is_named():
    result = cbs.prune(network(1), data(), method="magnitude", budget="1:3", certify=False)
    assert "budget 1:3" in repr(result).splitlines()[0]


def test_a_result_is_its_parts():
    result = cbs.prune(network(2), data(), method="magnitude", sparsity=0.5, scope="row", test=data(10))
    assert result.request == Request(0.5, method="magnitude", scope="row")
    assert (result.method, result.asked) == ("magnitude", 0.5)
    for part in (result.measured, result.certified):
        for name in ("before", "after", "test_before", "test_after", "sparsity", "seconds", "loss_increase"):
            assert not hasattr(part, name) or getattr(part, name) == getattr(result, name)
        for name in ("value", "bound", "gap", "status"):
            assert not hasattr(part, name) or getattr(part, name) == getattr(result, name)
    (stage,) = result.history
    assert stage.method == cbs.methods()["magnitude"]
    assert stage.seconds == result.seconds >= stage.shared_seconds >= 0
    assert stage.sparsity == result.sparsity == 0.5
    record = result.to_dict()
    assert record["measured"]["test_after"]["accuracy"] == result.test_after.accuracy
    assert record["certified"] == {
        "value": result.value, "bound": result.bound, "status": result.status, "gap": result.gap
    }  # fmt: skip
    assert not {"model", "saved"} & set(record)


def test_seconds_of_a_stage_tell_what_is_shared():
    obd, joint = cbs.compare(network(1), data(), sparsities=[0.5], methods=["obd", "joint"], scope="row")
    assert obd.history[0].seconds >= obd.history[0].shared_seconds > 0
    assert joint.history[0].seconds >= joint.history[0].shared_seconds > 0


def test_a_result_comes_back_from_its_record():
    result = cbs.prune(network(1), data(), method="joint", sparsity=0.5, loss=nn.CrossEntropyLoss())
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    again = PruneResult.from_dict(record, result.model, result.saved)
    assert again.to_dict() == record
    assert again.layers == result.layers
    assert (again.measured, again.certified) == (result.measured, result.certified)
    assert again.request.loss == "torch.nn.modules.loss:CrossEntropyLoss"
    for damage in (
        {"value": record["value"] + 1}, {"history": [{}]}, {"request": {"sparsity": 2}}, {"layers": None},
        {"request": {**record["request"], "time_limt": 3}}, {"certified": {}}, {"measured": []},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="no record of a result") as error:
            PruneResult.from_dict(record | damage, result.model, result.saved)
        assert "\n" not in str(error.value)


def test_data_shows_its_shapes():
    samples = cbs.Samples(*data())
    assert repr(samples) == "Samples(40: inputs [40, 6], targets [40])"
    assert math.isclose(len(repr(cbs.Split(samples, samples))), 2 * len(repr(samples)), rel_tol=0.5)
