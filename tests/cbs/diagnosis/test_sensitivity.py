import json

import pytest
from torch.nn import functional as F

import cbs
from cbs.network.evaluate import evaluate
from tests.cbs.diagnosis.test_damage import CASES, with_layers
from tests.cbs.networks import confident, mlp, samples, seeded


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["magnitude", "obc"])
def test_every_figure_is_that_of_one_layer_pruned_in_the_dense_network(case, method):
    make, data = CASES[case]
    found = cbs.sensitivity(seeded(make), data, sparsities=[0.0, 0.4, 0.8], method=method)
    dense = evaluate(seeded(make), data, F.cross_entropy)
    for j, sparsity in enumerate((0.0, 0.4, 0.8)):
        result = cbs.prune(seeded(make), data, sparsity=sparsity, method=method, scope="layer", certify=False)
        assert [layer.name for layer in found.layers] == [layer.name for layer in result.layers]
        for layer in found.layers:
            expected = evaluate(with_layers(result, [layer.name]), data, F.cross_entropy)
            assert layer.effects[j].loss_increase == pytest.approx(
                expected.loss - dense.loss, rel=1e-7, abs=1e-12
            )
            assert layer.effects[j].accuracy == expected.accuracy
    assert [layer.effects[0].loss_increase for layer in found.layers] == [0.0] * len(found.layers)


def test_it_is_measured_on_test_data_if_there_are_any():
    model, data = confident(sizes=(6, 12, 3))
    test = data.take(range(300, 400))
    found = cbs.sensitivity(model, data.few(300), test=test, sparsities=[0.5])
    result = cbs.prune(model, data.few(300), sparsity=0.5, scope="layer", method="magnitude", certify=False)
    expected = evaluate(with_layers(result, ["0"]), test, F.cross_entropy)
    assert found.samples == 100
    assert found.layers[0].effects[0].loss == pytest.approx(expected.loss)


def test_sparsities_within_a_limit():
    model, data = confident(sizes=(6, 12, 3))
    found = cbs.sensitivity(model, data, sparsities=[0.2, 0.5, 0.9])
    costs = [effect.loss_increase for effect in found.layers[0].effects]
    assert costs[0] < costs[1] < costs[2]
    assert found.within(costs[1])["0"] == 0.5
    assert found.within(costs[1] - 1e-9)["0"] == 0.2
    assert found.within(0.0) == {"0": 0.0, "2": 0.0}
    assert set(found.within(100.0).values()) == {0.9}
    with pytest.raises(ValueError, match="limit must be a number >= 0, got -1"):
        found.within(-1)


def test_single_layers_can_be_named_and_it_stops():
    model, data = seeded(mlp), samples(60)
    found = cbs.sensitivity(model, data, layers=["2"], sparsities=[0.5], method="wanda")
    assert [layer.name for layer in found.layers] == ["2"]
    steps = []
    found = cbs.sensitivity(
        model, data, sparsities=[0.2, 0.4, 0.6],
        callback=lambda step: steps.append(step.stage) or len(steps) == 3,
    )  # fmt: skip
    assert found.status == "interrupted"
    assert found.sparsities == [0.2, 0.4]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["sparsities"] == [0.2, 0.4]
    assert repr(found).splitlines()[0].split() == ["layer", "weights", "20%", "40%"]


def test_bad_input_is_refused_in_one_line():
    model, data = seeded(mlp), samples(60)
    for options, message in (
        ({"sparsities": 0.5}, "sparsities must be a list of at least one"),
        ({"sparsities": []}, "sparsities must be a list of at least one"),
        ({"sparsities": [0.5, 1.0]}, r"sparsity must lie in \[0, 1\), got 1.0"),
        ({"method": "magnitud"}, "unknown method 'magnitud'; did you mean 'magnitude'"),
        ({"layers": ["7"]}, "'7' names no prunable layer"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            cbs.sensitivity(model, data, **options)
        assert "\n" not in str(caught.value)
