import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.evaluate import evaluate
from cbs.network.surgery import clone
from tests.cbs.networks import confident, convnet, image_samples, mlp, residual, samples, seeded

CASES = {
    "mlp": (mlp, samples(60)),
    "convnet": (convnet, image_samples(30)),
    "residual": (residual, samples(25, (2, 4, 4))),
}


def pruned(make, data, **options):
    return cbs.prune(
        seeded(make), data, **{"sparsity": 0.6, "method": "magnitude", "certify": False} | options
    )


def with_layers(result, names):
    """The dense network with some layers as they are pruned."""
    model = result.undo()
    state = result.state
    for name in names:
        model.get_submodule(name).load_state_dict(
            {
                key.removeprefix(f"{name}."): values
                for key, values in state.items()
                if key.startswith(f"{name}.")
            }
        )
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_that_of_a_network_put_together_by_hand(case):
    make, data = CASES[case]
    result = pruned(make, data)
    found = cbs.damage(result, data)
    order = [layer.name for layer in found.layers]
    assert sorted(order) == sorted(layer.name for layer in result.layers)
    dense = evaluate(result.undo(), data, F.cross_entropy)
    assert found.dense.loss == pytest.approx(dense.loss, rel=1e-12)
    assert found.total == pytest.approx(result.loss_increase, rel=1e-9)
    for i, layer in enumerate(found.layers):
        sets = {"alone": [layer.name], "without": order[:i] + order[i + 1 :], "upto": order[: i + 1]}
        for kind, names in sets.items():
            expected = evaluate(with_layers(result, names), data, F.cross_entropy)
            effect = getattr(layer, kind)
            assert effect.loss_increase == pytest.approx(expected.loss - dense.loss, rel=1e-9, abs=1e-12)
            assert effect.accuracy == expected.accuracy
        (own,) = (each for each in result.layers if each.name == layer.name)
        assert layer.value == own.value
        mask = result.masks[layer.name]
        assert layer.sparsity == pytest.approx(float(mask.double().mean()), abs=0.01)
    assert found.layers[-1].upto == found.pruned
    assert found.interaction == pytest.approx(
        found.total - sum(layer.alone.loss_increase for layer in found.layers)
    )
    known = [(layer.objective, layer.alone.loss_increase) for layer in found.layers]
    if len(known) > 2:
        assert found.correlation() == pytest.approx(spearmanr(*np.array(known).T).statistic)


@pytest.mark.parametrize("case", ["mlp", "convnet"])
def test_objective_and_prediction_are_what_the_formulas_say(case):
    make, data = CASES[case]
    result = pruned(make, data)
    dense = result.undo().eval()
    for layer in cbs.damage(result, data).layers:
        outputs = {}
        for model in (dense, with_layers(result, [layer.name])):
            kept = []
            handle = model.get_submodule(layer.name).register_forward_hook(
                lambda m, a, y, kept=kept: kept.append(y.requires_grad_() if y.is_leaf else y) or y.clone()
            )
            loss = F.cross_entropy(model(data.inputs.clone()), data.targets, reduction="sum")
            handle.remove()
            outputs[len(outputs)] = kept[0], loss
        (y, loss), (z, _) = outputs[0], outputs[1]
        (g,) = torch.autograd.grad(loss, y)
        change = (z - y).detach().flatten(1)
        assert layer.objective == pytest.approx(float(0.5 * change.square().sum(dim=1).mean()), rel=1e-9)
        assert layer.objective <= layer.value
        felt = (g.flatten(1) * change).sum(dim=1)
        assert layer.predicted == pytest.approx(float((felt + 0.5 * felt.square()).mean()), rel=1e-9)


def test_a_small_move_costs_what_is_predicted():
    model, data = seeded(mlp), samples(200)
    other = clone(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for i in (0, 2, 4):
            noise = torch.randn(other[i].weight.shape, dtype=torch.float64, generator=generator)
            other[i].weight.add_(1e-6 * noise)
    for layer in cbs.damage(other, data, dense=model).layers:
        assert layer.value is None
        assert layer.predicted == pytest.approx(layer.alone.loss_increase, rel=1e-3)


def test_a_planted_collapse_is_found():
    model, data = confident(sizes=(6, 30, 20, 3))
    result = cbs.prune(model, data, sparsity=0.2, method="magnitude", certify=False)
    ruined = clone(result.model)
    with torch.no_grad():
        ruined[2].weight.mul_(-1)
    found = cbs.damage(ruined, data, dense=model)
    assert found.worst.name == found.collapse.name == "2"
    assert "'2' costs most" in found.verdict
    assert found.layers[1].without.loss_increase < 0.1 < 1 < found.layers[0].without.loss_increase
    assert found.pruned.accuracy < 0.5 < 0.9 < found.layers[0].upto.accuracy


def test_moved_norms_are_layers_too():
    data = CASES["convnet"][1]
    result = pruned(convnet, data, norms=True)
    found = cbs.damage(result, data)
    assert [layer.name for layer in found.layers] == ["0", "1", "3", "6"]
    assert [layer.value for layer in found.layers] == [None] * 4
    assert found.layers[1].sparsity == 0
    assert found.total == pytest.approx(result.loss_increase)


def test_without_labels_it_is_the_distance_that_the_result_measures():
    data = (samples(60).inputs,)
    result = pruned(mlp, data)
    found = cbs.damage(result, data)
    assert found.total == pytest.approx(result.loss_increase)
    o, d = (model.eval()(data[0]).detach() for model in (result.model, result.undo()))
    assert found.total == pytest.approx(float((o - d).square().sum() / d.square().sum()))
    assert found.measure == "distance of outputs"
    assert {layer.predicted for layer in found.layers} == {None}
    assert "distance of outputs +" in found.verdict
    assert "acc." not in found.table()[0]


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.first, self.second = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x, scale=None):
        x = torch.tanh(self.body(x)) * (1 if scale is None else scale)
        return {"a": self.first(x), "b": self.second(x)}


def test_inputs_and_outputs_may_be_of_any_structure():
    model, plain = seeded(Several).double().eval(), samples(40)
    inputs = {"x": plain.inputs, "scale": torch.rand(40, 1, dtype=torch.float64)}
    options = {"sparsity": 0.5, "method": "magnitude", "certify": False}
    result = cbs.prune(model, (inputs, plain.targets), output="b", **options)
    found = cbs.damage(result, (inputs, plain.targets))
    assert found.layers[0].name == "body"
    assert found.total == pytest.approx(result.loss_increase)
    (unused,) = (layer for layer in found.layers if layer.name == "first")
    assert unused.alone.loss_increase == 0.0
    again = cbs.damage(result.model, (inputs, plain.targets), dense=model, output="b")
    assert again.total == pytest.approx(found.total)

    def both(outputs, targets):
        return sum(F.cross_entropy(outputs[key], targets, reduction="none") for key in "ab")

    result = cbs.prune(model, (inputs, plain.targets), loss=both, **options)
    found = cbs.damage(result, (inputs, plain.targets))
    assert found.total == pytest.approx(result.loss_increase)
    assert all(layer.alone.loss_increase != 0 for layer in found.layers)
    assert cbs.trace(result, (inputs,)).modules[0].name == "body"


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


def test_parts_that_do_not_run_by_themselves_have_no_objective():
    model = seeded(Attending).double().eval()
    other = clone(model)
    with torch.no_grad():
        other.attention.in_proj_weight[::2] = 0
        other.attention.out_proj.weight[::2] = 0
        other.out.weight[0] = 0
    found = cbs.damage(other, samples(20, (5, 8)), dense=model)
    assert [layer.name for layer in found.layers] == ["attention", "attention.out_proj", "out"]
    objectives = [layer.objective for layer in found.layers]
    assert objectives[0] > 0
    assert objectives[1] is None
    assert found.layers[0].shape == (24, 8)
    assert found.correlation() is None


class Bare(nn.Module):
    """Parameters of the model itself, and inputs by keyword."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6, dtype=torch.float64))

    def forward(self, x, shift):
        return x @ self.weight.T + shift


def test_a_model_may_be_one_module():
    plain = samples(30)
    linear, bare = nn.Linear(6, 3).double(), seeded(Bare)
    for model, inputs in (
        (linear, plain.inputs), (bare, {"shift": plain.inputs[:, :3], "x": plain.inputs}),
    ):  # fmt: skip
        other = clone(model)
        with torch.no_grad():
            other.weight[:, ::2] = 0
        found = cbs.damage(other, (inputs, plain.targets), dense=model)
        assert [layer.name for layer in found.layers] == [""]
        assert found.layers[0].alone == found.layers[0].upto == found.pruned
        assert found.total != 0


def test_the_value_of_groups_is_that_of_all_of_them():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(54, 3)))
    data = samples(20, (4, 4, 4), dtype=torch.float32)
    result = cbs.prune(model, data, sparsity=0.5, method="magnitude", certify=False)
    assert len(result.layers) == 3
    found = cbs.damage(result, data)
    assert [layer.name for layer in found.layers] == ["0", "2"]
    assert found.layers[0].value == pytest.approx(sum(layer.value for layer in result.layers[:2]))
    assert found.layers[0].objective <= found.layers[0].value


def test_it_stops_with_what_was_measured():
    result, data = pruned(mlp, samples(60)), samples(60)
    data = cbs.Samples(data.inputs, data.targets, 20)
    steps = []
    found = cbs.damage(result, data, callback=lambda step: steps.append(step) or step.index == 2)
    assert found.status == "interrupted"
    assert found.samples == 40
    assert [(step.index, step.count, step.stage) for step in steps] == [
        (1, 3, "evaluate"),
        (2, 3, "evaluate"),
    ]
    first = cbs.damage(result, data.few(40))
    assert found.total == pytest.approx(first.total)
    assert cbs.damage(result, data, samples=10, seed=1).samples == 10


def test_it_can_be_printed_and_kept():
    result = pruned(mlp, samples(60))
    found = cbs.damage(result, samples(60))
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["layers"][0]["alone"]["loss_increase"] == found.layers[0].alone.loss_increase
    assert record["correlation"]["objective"] == found.correlation()
    lines = repr(found).splitlines()
    assert lines[0].split()[:3] == ["layer", "zeros", "objective"]
    assert len(lines) == 5
    assert all(len(line) <= 100 for line in lines[:-1])
    with pytest.raises(ValueError, match="of must be 'objective', 'predicted' or 'value', got 'loss'"):
        found.correlation("loss")


def test_bad_input_is_refused_in_one_line():
    result = pruned(mlp, samples(60))
    for data, options, message in (
        (samples(5, (7,)), {}, "the model refuses"),
        ((samples().inputs, torch.randn(40, 3)), {}, "cross_entropy"),
        (samples(), {"loss": "mse"}, "unknown loss 'mse'"),
        (samples(), {"dense": result.model}, "dense is known of a result"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            cbs.damage(result, data, **options)
        assert "\n" not in str(caught.value)


def test_ranks_of_equal_values_are_shared():
    from cbs.diagnosis.damage import _ranks

    assert _ranks(np.array([2.0, 1.0, 2.0, 3.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
    assert not math.isnan(spearmanr([2.0, 1.0, 2.0], [1.0, 2.0, 3.0]).statistic)
