import json
import signal
import sys
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils.data import DataLoader, TensorDataset

import cbs
from cbs.methods import get_method
from cbs.network.layers import find_layers
from cbs.request import Request
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

METHODS = [name for name, facts in cbs.methods().items() if "weights" in facts["granularity"]]
DATA = {mlp: samples(40), convnet: image_samples(10)}
QUICK = {"solver": "greedy", "certify": False}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize(
    "ask",
    [
        {"sparsity": 0.5, "scope": "row"},
        {"sparsity": 0.37, "scope": "layer"},
        {"sparsity": 0.61, "scope": "network"},
        {"sparsity": 0.0},
        {"sparsity": None, "budget": "1:2", "layers": "even"},
        {"sparsity": 0.5, "budget": "columns"},
    ],
)
def test_exactly_the_asked_number_goes(method, make, ask):
    ask = dict(ask)
    model = seeded(make)
    if ask.get("layers") == "even":
        ask["layers"] = [layer.name for layer in find_layers(model) if layer.own_shape[1] % 2 == 0]
    if method in ("obs", "obs-joint", "sparsegpt", "chita") and ask.get("budget") == "columns":
        able = r"does not do budget 'columns' \(.*\); these do: magnitude, .*, alps, .*, joint$"
        with pytest.raises(ValueError, match=f"method {method!r} {able}"):
            cbs.prune(model, DATA[make], method=method, **ask)
        return
    solver = "swapping" if method.startswith("cbs") else "greedy"
    result = cbs.prune(model, DATA[make], method=method, certify=False, solver=solver, **ask)
    request = Request(**{k: ask[k] for k in ("sparsity", "scope", "budget") if k in ask})
    layers = [replace(layer, across=request.across) for layer in find_layers(model, ask.get("layers"))]
    assert list(result.masks) == [layer.name for layer in layers]
    if request.pooled:
        assert sum(int(mask.sum()) for mask in result.masks.values()) == request.network_count(layers)
    else:
        for layer in layers:
            mask = layer.matrix(result.masks[layer.name]).numpy()
            assert request.layer_budget(layer).laid_over(*layer.shape).violation(mask) is None
    for layer in result.layers:
        weight = result.model.get_submodule(layer.name).weight
        assert layer.kept == weight.numel() - int(result.masks[layer.name].sum())
        assert [row.pruned for row in layer.rows] == result.masks[layer.name].flatten(1).sum(1).tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scope", ["layer", "network"])
def test_the_reported_value_is_the_measured_output_change(method, make, bias, scope):
    result = cbs.prune(
        seeded(make, bias=bias), DATA[make], sparsity=0.5, method=method, scope=scope, certify=False
    )
    for layer in result.layers:
        assert layer.value > 0
        assert layer.measured == pytest.approx(layer.value, rel=1e-6)
        assert sum(row.value for row in layer.rows) == pytest.approx(layer.value, rel=1e-12)


def test_single_precision_values_are_measured_too():
    model = seeded(mlp, dtype=torch.float32)
    result = cbs.prune(model, samples(dtype=torch.float32), sparsity=0.5, method="joint", **QUICK)
    for layer in result.layers:
        assert layer.measured == pytest.approx(layer.value, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_not_changed_and_the_result_is_a_masked_copy(method):
    model = seeded(convnet)
    model.train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    result = cbs.prune(model, DATA[convnet], sparsity=0.5, method=method, certify=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert not torch_prune.is_pruned(model)
    assert [m.training for m in result.model] == [m.training for m in model]
    assert all(torch_prune.is_pruned(result.model.get_submodule(layer.name)) for layer in result.layers)
    plain = seeded(convnet)
    plain.load_state_dict(result.state)
    x = DATA[convnet].inputs
    result.model.eval()
    assert torch.equal(plain(x), result.model(x))
    assert torch.equal(result.permanent().eval()(x), result.model(x))
    undone = result.undo()
    assert all(torch.equal(undone.state_dict()[name], value) for name, value in state.items())


def test_losses_and_accuracies_are_those_of_both_models():
    model, data, test = seeded(mlp), samples(40), samples(25, seed=1)
    result = cbs.prune(
        model, data, sparsity=0.5, method="magnitude", test=(test.inputs, test.targets), **QUICK
    )
    for part, before, after in (
        (data, result.before, result.after),
        (test, result.test_before, result.test_after),
    ):
        for network, found in ((model, before), (result.model, after)):
            y = network(part.inputs)
            assert found.loss == pytest.approx(float(nn.functional.cross_entropy(y, part.targets).detach()))
            assert found.accuracy == pytest.approx(float((y.argmax(1) == part.targets).double().mean()))
    assert result.loss_increase == result.after.loss - result.before.loss
    assert result.loss_increase != 0


@pytest.mark.parametrize("method", METHODS)
def test_results_are_ready_for_json(method):
    result = cbs.prune(seeded(mlp), samples(), sparsity=0.5, method=method, **QUICK)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["method"] == method
    assert record["value"] == result.value
    assert record["bound"] is None
    assert record["gap"] is None
    assert record["measured"]["before"]["loss"] == result.before.loss
    assert record["layers"][0]["rows"][0]["pruned"] == result.layers[0].rows[0].pruned
    assert record["layers"][0]["damping"] > 0
    without = ("magnitude", "random", "sensitivity", "obd-sd-spread")
    assert (record["measured"]["prediction"] is None) == (method in without)


def test_pruned_networks_can_be_pruned_again():
    once = cbs.prune(seeded(mlp), samples(), sparsity=0.3, method="magnitude", **QUICK)
    twice = cbs.prune(once.model, samples(), sparsity=0.6, method="magnitude", **QUICK)
    assert twice.sparsity == pytest.approx(0.6, abs=0.02)
    for name, mask in once.masks.items():
        assert twice.masks[name][mask].all()


def nan_weights():
    model = seeded(mlp)
    model[0].weight.data[0, 0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "data", "ask", "message"),
    [
        (nn.Sequential(nn.Tanh()), samples(), {}, "model Sequential has no prunable layer"),
        (nan_weights(), samples(), {}, "layer '0' has a NaN or infinite weight"),
        ("digits", samples(), {}, "model must be a torch.nn.Module, not str"),
        (mlp(), samples(shape=(7,)), {}, r"the model refuses inputs of shape \[2, 7\]"),
        (mlp(), (torch.full((3, 6), torch.nan), torch.zeros(3)), {}, "inputs hold NaN"),
        (mlp(), samples(classes=8), {}, "loss refuses outputs"),
        (mlp(), samples(), {"sparsity": 1.0}, r"sparsity must lie in \[0, 1\)"),
        (mlp(), samples(), {"scope": "net"}, "unknown scope 'net'; did you mean 'network'"),
        (mlp(), samples(), {"budget": "block"}, "unknown budget 'block'"),
        (
            mlp(),
            samples(),
            {"budget": "2:4", "sparsity": None, "layers": ["0"]},
            "4 does not divide the 6 inputs of layer '0'",
        ),
        (mlp(), samples(), {"method": "cbs_s"}, "unknown method 'cbs_s'; did you mean 'cbs-s'"),
        (mlp(), samples(), {"method": "sgd"}, "unknown method 'sgd'"),
        (mlp(), samples(), {"solver": "gredy"}, "unknown solver 'gredy'; did you mean 'greedy'"),
        (mlp(), samples(), {"damping": -1.0}, "damping must be a finite number >= 0, got -1.0"),
        (mlp(), samples(), {"layers": ["fc9"]}, "layers: 'fc9' names no prunable layer"),
        (mlp(), samples(), {"method": "obs", "budget": "columns"}, "'obs' does not do budget 'columns'"),
        (mlp(), samples(), {"samples": 0}, "samples must be at least 1"),
        (mlp(), samples(), {"samples": 10.0}, "samples must be at least 1 or None, and whole, got 10.0"),
        (mlp(), samples(), {"samples": "10"}, "samples must be .* got '10'"),
        (mlp(), samples(), {"damping": "0.1"}, "damping must be a finite number >= 0, got '0.1'"),
        (mlp(), samples(), {"layers": "20"}, r"layers must be a list of names, such as \['20'\]"),
        (mlp(), samples(), {"device": "gpu"}, "device 'gpu' can't be used"),
    ],
)
def test_bad_input_is_one_line(model, data, ask, message):
    ask = {"sparsity": 0.5, "method": "magnitude", **ask}
    with pytest.raises(ValueError, match=message) as error:
        cbs.prune(model, data, **ask)
    assert "\n" not in str(error.value)


def test_methods_of_one_name_are_refused():
    with pytest.raises(ValueError, match="sparsities and methods must hold at least one each"):
        cbs.compare(mlp(), samples(), sparsities=[])
    table = get_method("magnitude")
    with pytest.raises(ValueError, match="pipeline 'sequential'"):
        cbs.compare(mlp(), samples(), sparsities=[0.5], methods=["magnitude"], pipeline="sequential")
    other = replace(table, paper="mine")
    with pytest.raises(ValueError, match="methods: two are named 'magnitude'; give each a name of its own"):
        cbs.compare(mlp(), samples(), sparsities=[0.5], methods=["magnitude", other])


@pytest.mark.parametrize(("key", "one"), [("sparsities", 0.5), ("methods", "joint")])
def test_one_where_a_list_belongs_is_refused(key, one):
    ask = {"sparsities": [0.5], "methods": ["joint"], key: one}
    with pytest.raises(ValueError, match=rf"{key} must be a list, such as \[{one!r}\]"):
        cbs.compare(mlp(), samples(), **ask)


@pytest.mark.parametrize("budget", ["1:2", "columns"])
def test_a_scope_that_a_budget_leaves_nothing_to_say_is_told(budget):
    ask = {"budget": budget, "layers": ["0"], **QUICK}
    with pytest.warns(cbs.ScopeIgnored, match=f"scope 'row' is ignored: budget '{budget}'") as told:
        result = cbs.prune(seeded(mlp), samples(), method="magnitude", sparsity=0.5, scope="row", **ask)
    assert (len(told), told[0].filename) == (1, __file__)
    with pytest.warns(cbs.ScopeIgnored) as told:
        cbs.compare(seeded(mlp), samples(), methods=["magnitude"], sparsities=[0.5], scope="layer", **ask)
    assert (len(told), told[0].filename) == (1, __file__)
    with pytest.raises(ValueError, match="unknown scope 'rows'"):
        cbs.prune(seeded(mlp), samples(), sparsity=0.5, scope="rows", **ask)
    quiet = cbs.prune(seeded(mlp), samples(), method="magnitude", sparsity=0.5, **ask)
    assert all(torch.equal(quiet.masks[name], mask) for name, mask in result.masks.items())


def test_the_defaults_are_the_joint_method_and_one_budget_for_the_network():
    result = cbs.prune(seeded(mlp), samples(), sparsity=0.5)
    assert (result.method, result.request.scope) == ("joint", "network")
    named = cbs.prune(seeded(mlp), samples(), sparsity=0.5, method="joint", scope="network")
    assert all(torch.equal(named.masks[name], mask) for name, mask in result.masks.items())


def test_what_needs_no_compiled_code_does_not_wait_for_it():
    stages = {}
    for method in ("magnitude", "joint"):
        for certify in (True, False):
            seen = stages[method, certify] = []
            cbs.prune(
                seeded(mlp), samples(), sparsity=0.5, method=method, certify=certify,
                callback=lambda step, seen=seen: seen.append(step.stage),
            )  # fmt: skip
    assert {key for key, seen in stages.items() if "compile" not in seen} == {("magnitude", False)}


def test_a_layer_that_never_runs_is_named():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match="layer 'idle' saw no input of this data"):
        cbs.prune(Idle(), samples(), sparsity=0.5, method="joint", **QUICK)
    result = cbs.prune(Idle(), samples(), sparsity=0.5, method="joint", layers=["used"], **QUICK)
    assert [layer.name for layer in result.layers] == ["used"]


@pytest.mark.parametrize("method", ["joint", "cbs-s", "obs"])
@pytest.mark.parametrize("scope", ["row", "network"])
def test_a_callback_can_stop_and_what_was_found_is_kept(method, scope):
    steps = []

    def stop(step):
        steps.append(step)
        return step.index == 1 or scope == "network"

    result = cbs.prune(seeded(mlp), samples(), sparsity=0.5, method=method, scope=scope, callback=stop)
    assert result.status == "interrupted"
    assert {step.method for step in steps} == {method}
    assert result.sparsity == pytest.approx(0.5, abs=0.04)
    assert result.layers[-1].status in ("interrupted", "optimal")
    assert result.after.loss > 0


def test_ctrl_c_keeps_what_was_found():
    pressed = []

    def press(step):
        if step.stage == "select" and step.progress is not None and not pressed:
            pressed.append(step)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell started the tests in the background
    result = cbs.prune(
        seeded(mlp, sizes=(12, 6, 5, 3)), samples(shape=(12,)), sparsity=0.5, method="joint", scope="row",
        solver="brute-force", callback=press,
    )  # fmt: skip
    assert result.status == "interrupted"
    assert result.sparsity == pytest.approx(0.5, abs=0.05)
    assert signal.getsignal(signal.SIGINT) is before


def test_pruning_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(cbs.prune(seeded(mlp), samples(), sparsity=0.5, method="joint", **QUICK))
    )
    thread.start()
    thread.join()
    assert found[0].sparsity == 0.5


def test_a_time_limit_ends_the_search():
    model, data = seeded(mlp, sizes=(20, 8, 3)), samples(90, (20,))
    ask = {"sparsity": 0.5, "method": "joint", "scope": "row", "solver": "brute-force", "certify": False}
    result = cbs.prune(model, data, time_limit=0.2, layers=["0"], **ask)
    assert result.status == "time_limit"
    assert result.sparsity == 0.5


def test_same_seed_same_answer():
    for method in METHODS:
        runs = [
            cbs.prune(seeded(mlp), samples(), sparsity=0.5, method=method, seed=3, **QUICK) for _ in range(2)
        ]
        assert runs[0].value == runs[1].value
        assert all(torch.equal(runs[0].masks[name], mask) for name, mask in runs[1].masks.items())


def test_methods_are_a_table():
    known = cbs.methods()
    assert set(known) >= {
        "magnitude", "random", "obd", "obd-recursion", "obd-exact", "obd-sd-fisher",
        "obd-sd-spread", "obs", "obs-joint", "woodfisher", "wanda", "obc", "sparsegpt", "alps",
        "chita", "rmp", "cbs-s", "cbs", "cbs-scaled", "joint",
    }  # fmt: skip
    for name, row in known.items():
        assert row["name"] == name
        axes = {"curvature", "selection", "compensation", "granularity"}
        assert set(row) == {"name", "needs", "paper", *axes}
        assert all(row.values())


def test_a_method_that_fails_is_left_out_and_the_others_are_kept(monkeypatch):
    monkeypatch.setattr("cbs.curvature.gauss_newton.WIDEST", 2)
    ask = {"sparsities": [0.5, 0.75], "scope": "row", **QUICK}
    with pytest.warns(cbs.LeftOut, match="method 'obs' is left out: the Gauss-Newton matrix") as told:
        results = cbs.compare(seeded(mlp), samples(), methods=["magnitude", "obs", "random"], **ask)
    assert [(r.method, r.asked) for r in results] == [
        (method, sparsity) for sparsity in (0.5, 0.75) for method in ("magnitude", "random")
    ]
    assert len(told) == 1
    assert told[0].filename == __file__
    with pytest.raises(ValueError, match="by all 3 outputs of a sample, its limit is 2"):
        cbs.compare(seeded(mlp), samples(), methods=["obs"], **ask)


class Odd(nn.Module):
    """A network of which the activations between its layers are changed."""

    def __init__(self, change):
        super().__init__()
        self.a, self.b, self.change = nn.Linear(6, 5).double(), nn.Linear(5, 3).double(), change

    def forward(self, x):
        return self.b(self.change(self.a(x)))


@pytest.mark.parametrize("method", METHODS)
def test_activations_that_are_not_finite_are_named_by_their_layer(method):
    for change in (torch.log, lambda y: y / 0.0):
        with pytest.raises(ValueError, match="the input of layer 'b' is NaN or infinite") as error:
            cbs.prune(seeded(Odd, change=change), samples(), sparsity=0.5, method=method, **QUICK)
        assert "\n" not in str(error.value)
    half = cbs.Samples(samples().inputs, samples().targets.where(torch.arange(40) < 20, -100), batch=20)
    with pytest.raises(ValueError, match="no layer's output is; is there a batch of which no label counts"):
        cbs.prune(seeded(mlp), half, sparsity=0.5, method=method)


class Small(nn.Module):
    """A network that can only be given so many samples at once."""

    def __init__(self, most):
        super().__init__()
        self.fc, self.out, self.most = nn.Linear(6, 5).double(), nn.Linear(5, 3).double(), most

    def forward(self, x):
        assert len(x) <= self.most, "out of memory"
        return self.out(torch.tanh(self.fc(x)))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "obd-recursion"])  # is not traced
@pytest.mark.parametrize("size", [1, 16])
def test_a_network_is_never_given_more_than_the_loader_s_batch(method, size):
    data = samples(50)
    loader = DataLoader(TensorDataset(data.inputs, data.targets), batch_size=size)
    model = seeded(Small, most=size)
    result = cbs.prune(
        model, loader, sparsity=0.5, method=method, scope="row", test=loader,
        refit="layer" if method == "joint" else None, **QUICK,
    )  # fmt: skip
    model.most = 50
    whole = cbs.prune(
        model,
        data,
        sparsity=0.5,
        method=method,
        scope="row",
        refit="layer" if method == "joint" else None,
        **QUICK,
    )
    assert result.value == pytest.approx(whole.value, rel=1e-9)
    assert result.before.loss == pytest.approx(whole.before.loss, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", ["row", "layer"])
def test_units_of_the_inputs_do_not_matter(method, scope):
    found = []
    for unit in (1.0, 1e8, 1e-8):
        model, data = seeded(mlp), samples()
        model[0].weight.data /= unit
        result = cbs.prune(
            model, (data.inputs * unit, data.targets), sparsity=0.5, method=method, scope=scope
        )
        found.append(result)
        assert result.layers[0].value == pytest.approx(found[0].layers[0].value, rel=1e-6)
        assert result.layers[0].measured == pytest.approx(result.layers[0].value, rel=1e-6)
        assert all(torch.equal(result.masks[name], mask) for name, mask in found[0].masks.items())


def test_results_are_handed_out_as_they_finish_and_taken_up_again(monkeypatch):
    options = {"sparsities": [0.5, 0.25], "methods": ["magnitude", "random"], "scope": "row"}
    seen = []
    whole = cbs.compare(seeded(mlp), samples(), on_result=seen.append, **options)
    first, last = {}, {}
    for result in seen:
        first.setdefault((result.method, result.asked), result)
        last[result.method, result.asked] = result
    assert [r.to_dict() for r in last.values()] == [r.to_dict() for r in whole]
    assert all(first[key].model is last[key].model for key in last)

    def stop(result):
        if result.method == "random":
            raise KeyboardInterrupt

    kept = []
    with pytest.raises(KeyboardInterrupt):
        cbs.compare(
            seeded(mlp), samples(), on_result=lambda result: (kept.append(result), stop(result)), **options
        )
    assert [(r.method, r.asked) for r in kept] == [("magnitude", 0.5), ("random", 0.5)]
    assert kept[0].value == whole[0].value
    ran = []
    inner = sys.modules["cbs.prune"]._run
    monkeypatch.setattr(
        sys.modules["cbs.prune"],
        "_run",
        lambda *args: (ran.append((args[1].name, args[1].fraction)), inner(*args))[1],
    )
    again = cbs.compare(seeded(mlp), samples(), finished=kept, **options)
    assert ran == [("magnitude", 0.25), ("random", 0.25)]
    assert [(r.value, r.bound, r.status) for r in again] == [(r.value, r.bound, r.status) for r in whole]
    other = replace(get_method("magnitude"), paper="mine")
    with pytest.raises(ValueError, match="finished: the result of 'magnitude' is by another method of that"):
        cbs.compare(seeded(mlp), samples(), finished=kept, **options | {"methods": [other]})
    for ask in ({"scope": "layer"}, {"damping": 0.5}, {"seed": 7}):
        with pytest.raises(ValueError, match=f"finished: the result of 'magnitude' has {next(iter(ask))} "):
            cbs.compare(seeded(mlp), samples(), finished=kept, **options | ask)
    for junk in (kept[0], [3]):
        with pytest.raises(ValueError, match="finished must be a list of results, got"):
            cbs.compare(seeded(mlp), samples(), finished=junk, **options)
    with pytest.raises(ValueError, match="finished: the result of 'magnitude' is of other layers"):
        cbs.compare(seeded(mlp), samples(), finished=kept, layers=[kept[0].layers[0].name], **options)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"callback": 3}, "callback must be a function, got 3"),
        ({"layers": 0}, "layers must be a list of names, got 0"),
        ({"method": 3}, "method must be a name, or a cbs.Method, got 3"),
        ({"method": cbs.Gram()}, "method must be a name, or a cbs.Method, got Gram"),
        ({"device": None}, "device must be a name, such as 'cpu' or 'cuda', got None"),
    ],
)
def test_arguments_of_another_kind_are_refused_in_one_line(ask, message):
    with pytest.raises((TypeError, ValueError)) as error:
        cbs.prune(seeded(mlp), samples(), sparsity=0.5, **ask)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sparsities", [None, "0.5", 0.5])
def test_sparsities_are_a_list(sparsities):
    with pytest.raises(ValueError, match=r"sparsities must be a list, such as \["):
        cbs.compare(seeded(mlp), samples(), sparsities=sparsities, methods=["magnitude"])
