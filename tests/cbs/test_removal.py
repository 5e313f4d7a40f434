import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.compensation import Nothing, Survivors
from cbs.methods import table
from cbs.network.network import Network
from cbs.network.shrink import Removed
from cbs.selection import NeuronChoice, NeuronSelection
from tests.cbs.network.test_neurons import Custom, Residual
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

NETWORKS = {
    "chain": (mlp, samples()),
    "batch norm": (convnet, image_samples()),
    "residual": (Residual, image_samples()),
}
SCORED = [name for name, method in table().items() if isinstance(method.selection, cbs.Scores)]
every_network = pytest.mark.parametrize(("make", "data"), NETWORKS.values(), ids=NETWORKS.keys())


def run(model, data, method, sparsity=0.5, **options):
    return cbs.prune(model, data, method=method, sparsity=sparsity, granularity="neurons", **options)


@pytest.mark.parametrize("scope", ["layer", "network"])
@pytest.mark.parametrize("method", SCORED)
@every_network
def test_every_method_by_scores_removes_neurons(make, data, method, scope):
    model = seeded(make)
    result = run(model, data, method, scope=scope, certify=False)
    network = Network(model, data)
    counts = [len(group.neurons) for group in result.neurons]
    sizes = [group.count for group in result.neurons]
    if scope == "layer":
        assert counts == [round(n / 2) for n in sizes]
    else:
        assert sum(counts) == round(sum(sizes) / 2)
    assert all(k < n for k, n in zip(counts, sizes, strict=True))
    for group, lost in zip(network.neurons, result.neurons, strict=True):
        assert lost.stays is None
        assert sorted([*lost.neurons, *lost.kept]) == [*range(group.count)]
        for name, rows in group.rows.items():
            module = result.model.get_submodule(name)
            assert not module.weight[rows[lost.neurons]].any()
            assert result.masks[name][rows[lost.neurons]].all()
            assert module.bias is None or not module.bias[rows[lost.neurons]].any()
        for name, columns in group.columns.items():
            module = result.model.get_submodule(name)
            assert not module.weight.flatten(1)[:, columns[lost.neurons]].any()
            assert result.masks[name].flatten(1)[:, columns[lost.neurons]].all()
    pruned = sum(int(mask.sum()) for mask in result.masks.values())
    assert result.sparsity == pytest.approx(pruned / sum(layer.size for layer in network.layers))
    small, outputs = result.permanent(), result.model(data.inputs)
    assert (small(data.inputs) - outputs).abs().max() <= 1e-12 * outputs.abs().max()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    again = result.undo()
    assert all(torch.equal(values, again.state_dict()[name]) for name, values in model.state_dict().items())


@pytest.mark.parametrize("method", SCORED)
def test_neurons_leave_the_digits_mlp(method):
    split = cbs.digits()
    result = run(cbs.digits_mlp(), split.train, method, scope="layer", samples=100, certify=False)
    small, x = result.permanent(), split.test.inputs
    assert [tuple(p.shape) for p in small.parameters()] == [(16, 64), (16,), (8, 16), (8,), (10, 8), (10,)]
    assert (small(x) - result.model(x)).abs().max() <= 1e-6 * result.model(x).abs().max()


@every_network
def test_a_layer_loses_what_its_columns_change_on_the_rows_that_are_left(make, data):
    """Every layer run on its dense inputs, with and without the columns; dead rows count for nothing."""
    model = seeded(make)
    result = run(model, data, "magnitude", scope="layer")
    for layer in result.layers:
        inputs = []
        module = model.get_submodule(layer.name)
        handle = module.register_forward_hook(lambda m, x, y, inputs=inputs: inputs.append((x[0], y)))
        with torch.no_grad():
            model(data.inputs)
            handle.remove()
            (x, y), after = inputs[0], result.model.get_submodule(layer.name)
            moved = (after(x) - y).movedim(1, -1).reshape(-1, len(module.weight))
        dead = sorted({row for group in result.neurons for row in group.rows.get(layer.name, ())})
        D = (after.weight - module.weight).detach().flatten(1)
        D[dead], moved[:, dead] = 0, 0
        for group in result.neurons:
            if layer.name in group.rows:
                assert all(layer.rows[row].value == 0 for row in group.rows[layer.name])
        expected = 0.5 * float(moved.square().sum()) / len(data) + 0.5 * layer.damping * float(
            D.square().sum()
        )
        assert layer.value == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert layer.measured == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert [row.pruned for row in layer.rows] == result.masks[layer.name].flatten(1).sum(dim=1).tolist()


@every_network
def test_survivors_and_biases_are_refitted_by_least_squares(make, data):
    """Against a dense ridge regression of every consumer's dense outputs on the inputs that are left."""
    model = seeded(make)
    method = cbs.Method(cbs.Gram(), cbs.Scores("magnitude"), Survivors(), name="refitted")
    result = run(model, data, method, scope="layer")
    network = Network(model, data)
    lost = {name: g.columns[name] for g in result.neurons for name in g.columns}
    dead = {name: g.rows[name] for g in result.neurons for name in g.rows}
    assert any(lost.values())
    for i, layer in enumerate(network.layers):
        H, W = network(cbs.Gram())[i].H, network.dense[i].augmented
        keep = [i for i in range(W.shape[1]) if i not in lost.get(layer.name, [])]
        out = [i for i in range(W.shape[1]) if i not in keep]
        expected = W.copy()
        expected[:, keep] += W[:, out] @ H[np.ix_(out, keep)] @ np.linalg.inv(H[np.ix_(keep, keep)])
        expected[:, out] = 0
        expected[dead.get(layer.name, [])] = 0
        module = result.model.get_submodule(layer.name)
        found = module.weight.detach().flatten(1).numpy()
        if module.bias is not None:
            found = np.column_stack([found, module.bias.detach().numpy()])
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    assert result.value < run(model, data, "magnitude", scope="layer").value


def columns_value(H, W, out):
    """The layer objective when columns go and everything else is refitted."""
    C = np.linalg.inv(H)
    w = W[:, out]
    return 0.5 * np.einsum("ri,ij,rj->", w, np.linalg.inv(C[np.ix_(out, out)]), w)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples()), (convnet, image_samples())])
def test_bounds_are_below_the_best_choice_of_columns_for_the_rows_that_are_left(make, data):
    model = seeded(make)
    result = run(model, data, "wanda", scope="layer")
    network = Network(model, data)
    bounded = 0
    for layer, quadratic in zip(result.layers, network(cbs.Gram()), strict=True):
        feeding = [group for group in network.neurons if layer.name in group.columns]
        if not feeding:
            assert layer.bound == layer.value == 0
            assert layer.status == "optimal"
            continue
        (group,) = feeding
        dead = {row for g in result.neurons for row in g.rows.get(layer.name, ())}
        live = [r for r in range(len(layer.rows)) if r not in dead]
        k = round(group.count / 2)
        values = [
            columns_value(quadratic.H, quadratic.W[live], group.columns[layer.name][[*out]].ravel())
            for out in itertools.combinations(range(group.count), k)
        ]
        assert 0 < layer.bound <= min(values) * (1 + 1e-9)
        assert layer.bound <= layer.value
        bounded += 1
    assert bounded == 2
    assert result.bound is None  # a layer's bound takes the rows that are left as they are


def test_one_hidden_layer_is_bounded_as_a_whole():
    model, data = seeded(mlp, sizes=(6, 5, 3)), samples()
    result = run(model, data, "wanda", scope="layer", sparsity=0.4)
    assert result.bound == result.layers[1].bound > 0
    assert 0 < result.gap < 1


def test_one_budget_for_all_groups_has_no_bounds():
    result = run(seeded(mlp), samples(), "wanda", scope="network")
    assert result.bound is None
    assert [layer.bound for layer in result.layers] == [0, None, None]
    assert result.status == "feasible"


@pytest.mark.parametrize(("make", "data"), [(mlp, samples()), (convnet, image_samples())])
def test_what_a_selection_proves_bounds_the_layers(make, data):
    result = run(seeded(make), data, "neuron-joint", scope="layer", solver="brute-force", certify=False)
    network = Network(seeded(make), data)
    for layer, quadratic in zip(result.layers, network(cbs.Gram()), strict=True):
        assert layer.status == "optimal"
        feeding = [group for group in network.neurons if layer.name in group.columns]
        if feeding:
            dead = {row for g in result.neurons for row in g.rows.get(layer.name, ())}
            live = [r for r in range(len(layer.rows)) if r not in dead]
            at, k = feeding[0].columns[layer.name], round(feeding[0].count / 2)
            best = min(
                columns_value(quadratic.H, quadratic.W[live], at[[*out]].ravel())
                for out in itertools.combinations(range(len(at)), k)
            )
            assert layer.bound == pytest.approx(best, rel=1e-6)
            assert layer.value == pytest.approx(best, rel=1e-6)
    assert result.bound is None


def test_what_is_proven_of_a_finished_result_is_not_computed_again(monkeypatch):
    model, data = seeded(mlp), samples()
    ask = {"sparsities": [0.5], "methods": ["neuron-joint"], "scope": "layer", "solver": "brute-force"}
    done = cbs.compare(model, data, **ask)
    monkeypatch.setattr("cbs.watch.Watch.solve", None)
    (again,) = cbs.compare(model, data, finished=done, **ask)
    assert again.layers == done[0].layers


def test_an_optimal_choice_is_said_to_be_one():
    model, data = seeded(mlp, sizes=(6, 2, 3)), samples()
    values = []
    for out in (0, 1):
        result = run(model, data, cbs.Method(cbs.Gram(), Fixed(out), Survivors()), scope="layer")
        values.append((result.value, result.status, result.bound))
    assert min(values)[1] == "optimal"
    assert max(values)[1] == "feasible"
    assert max(values)[2] <= min(values)[0]


class Fixed(NeuronSelection):
    """One neuron by its place, or what it is told to remove."""

    words = "fixed"

    def __init__(self, out):
        self.out = out

    def choose_neurons(self, job, groups, counts):
        return [NeuronChoice(group, np.isin(np.arange(group.count), self.out), "fixed") for group in groups]


def test_a_selection_that_misses_its_budget_is_refused():
    method = cbs.Method(cbs.Gram(), Fixed([0, 1]), Nothing())
    with pytest.raises(
        ValueError, match=r"'custom' removed \[2\] neurons of the groups, asked were \[1\] of \[3\]"
    ):
        run(seeded(mlp, sizes=(6, 3, 3)), samples(), method, scope="layer", sparsity=0.4)


def test_what_prunes_neurons_only_need_not_be_asked():
    result = cbs.prune(
        seeded(mlp, sizes=(6, 3, 3)), samples(), sparsity=0.4, scope="layer",
        method=cbs.Method(cbs.Gram(), Fixed(2), Nothing()),
    )  # fmt: skip
    assert result.request.granularity == "neurons"
    assert result.neurons[0].neurons == [2]


def test_masks_that_a_network_came_with_stay():
    model, data = seeded(mlp), samples()
    first = run(model, data, "magnitude", scope="layer", sparsity=0.25)
    second = run(first.model, data, "random", scope="layer", sparsity=0.6, seed=3)
    for before, after in zip(first.neurons, second.neurons, strict=True):
        assert {*before.neurons} < {*after.neurons}
    one = cbs.prune(model, data, method="magnitude", sparsity=0.3, scope="layer")
    both = run(one.model, data, "obd", scope="network")
    for name, mask in one.masks.items():
        assert (both.masks[name] | ~mask).all()
    with pytest.raises(ValueError, match="prunes 1 of 5 neurons, but layer '0' comes with masks that have 3"):
        run(second.model, data, "magnitude", scope="layer", sparsity=0.2)


def test_at_least_one_neuron_of_each_group_stays():
    for scope in ("layer", "network"):
        result = run(seeded(mlp), samples(), "magnitude", sparsity=0.99, scope=scope)
        assert [len(group.kept) for group in result.neurons] == [1, 1]


def test_recalibration_refits_what_is_left():
    model, data = seeded(mlp), samples()
    method = cbs.Method(cbs.Gram(), cbs.Scores("wanda"), Survivors(), name="refitted")
    plain, again = (run(model, data, method, scope="layer", refit=refit) for refit in (None, "layer"))
    assert [g.neurons for g in plain.neurons] == [g.neurons for g in again.neurons]
    small = again.permanent()
    torch.testing.assert_close(small(data.inputs), again.model(data.inputs), rtol=1e-12, atol=1e-12)
    dense = model(data.inputs)
    off = [(r.model(data.inputs) - dense).square().mean().item() for r in (plain, again)]
    assert off[1] < off[0]


def test_a_network_that_expects_its_channels_keeps_masks_and_says_so():
    make = lambda: Custom(  # noqa: E731
        lambda m, x: m.b(torch.relu(m.a(x)).view(-1, 2, 2).flatten(1)), a=nn.Linear(6, 4), b=nn.Linear(4, 3)
    )
    model, data = seeded(make), samples()
    with pytest.warns(
        cbs.LeftOut, match=r"^neurons that can't be taken out of the network stay masked: 'a' \("
    ):
        result = run(model, data, "magnitude")
    assert result.neurons[0].stays.startswith("the smaller network does not run")
    with pytest.warns(cbs.LeftOut, match="stay masked"):
        kept = result.permanent()
    torch.testing.assert_close(kept(data.inputs), result.model(data.inputs))
    assert kept.a.weight.shape == (4, 6)
    assert not kept.a.weight[result.neurons[0].neurons].any()


def test_a_result_goes_through_json():
    result = run(seeded(convnet), image_samples(), "magnitude")
    record = json.loads(json.dumps(result.to_dict()))
    again = cbs.PruneResult.from_dict(record, result.model, result.saved)
    assert again.neurons == result.neurons
    assert isinstance(again.neurons[0], Removed)
    assert "50.0% of neurons" not in str(result)
    assert f"{100 * sum(len(g.neurons) for g in result.neurons) / 7:.1f}% of neurons" in str(again)


def test_fine_tuned_networks_shrink_too():
    model, data = seeded(mlp), samples()
    result = run(model, data, "magnitude", scope="layer")
    cbs.train(result.model, data, epochs=2)
    small = result.permanent()
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", [name for name, m in table().items() if "neurons" in m.granularities])
def test_networks_without_biases_lose_neurons(method):
    model, data = seeded(mlp, bias=False), samples()
    result = run(model, data, method, scope="layer", certify=False)
    assert [len(group.neurons) for group in result.neurons] == [2, 2]
    small = result.permanent()
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_neurons_go_in_stages(scope):
    model, data = seeded(mlp, sizes=(6, 10, 8, 3)), samples()
    result = run(model, data, "magnitude", scope=scope, stages=3, finetune=1)
    assert [stage.sparsity for stage in result.history] == sorted({s.sparsity for s in result.history})
    assert len(result.history) == 3
    assert sum(len(group.neurons) for group in result.neurons) == 9
    small = result.permanent()
    torch.testing.assert_close(small(data.inputs), result.model(data.inputs), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(v, result.undo().state_dict()[k]) for k, v in model.state_dict().items())
    masked = run(model, data, "magnitude", scope=scope, sparsity=0.3).model
    further = run(masked, data, "magnitude", scope=scope, stages=2)
    assert sum(len(group.neurons) for group in further.neurons) == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "2:4"}, "budget '2:4' is one of weights; granularity 'neurons' takes 'unstructured'"),
        ({"budget": "columns"}, "budget 'columns' is one of weights"),
        ({"pipeline": "sequential"}, "pipeline 'sequential' prunes weights"),
        ({"method": "obc"}, "method 'obc' prunes weights, not neurons; these do: magnitude, random, obd"),
        ({"granularity": "channels"}, "unknown granularity 'channels'; known: weights, neurons"),
    ],
)
def test_what_neurons_have_not_is_refused_in_one_line(options, words):
    given = {
        "method": "magnitude",
        "sparsity": None if "2:4" in options.values() else 0.5,
        "granularity": "neurons",
    }
    with pytest.raises(ValueError, match="(?s)" + words) as error:
        cbs.prune(seeded(mlp), samples(), **{**given, **options})
    assert "\n" not in str(error.value)


def test_a_comparison_goes_on_without_the_methods_that_need_neurons():
    model, data = seeded(mlp, sizes=(6, 3)), samples()
    fixed = cbs.Method(cbs.Gram(), Fixed(0), Nothing(), name="fixed")
    with pytest.warns(cbs.LeftOut, match="'fixed' is left out: .* no neuron that can be removed"):
        results = cbs.compare(model, data, sparsities=[0.5], methods=["magnitude", fixed])
    assert [result.method for result in results] == ["magnitude"]
