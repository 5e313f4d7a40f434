"""Iterative pruning: the same as pruning, training and pruning again by hand; nothing half done is left."""

import importlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.data import Samples
from cbs.network.evaluate import evaluate
from cbs.network.surgery import read_masks
from cbs.result import PruneResult
from cbs.schedule.training import train
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

DATA = {mlp: samples(40), convnet: image_samples(12)}
QUICK = {"certify": False, "reselect": False}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("method", "make", "scope"),
    [
        ("magnitude", mlp, "row"), ("obd", convnet, "network"), ("wanda", convnet, "row"),
        ("woodfisher", mlp, "network"), ("joint", mlp, "row"), ("joint", convnet, "network"),
    ],
)  # fmt: skip
def test_two_stages_are_two_prunings_with_training_between(method, make, scope):
    data, options = DATA[make], {"method": method, "scope": scope, "seed": 3}
    result = cbs.prune(seeded(make), data, sparsity=0.64, stages=2, finetune=2, **options)
    cheap = {"certify": False} | ({"solver": "greedy"} if method == "joint" else {})  # others follow
    first = cbs.prune(seeded(make), data, sparsity=0.4, **cheap, **options)
    train(first.model, data, epochs=2, seed=3)
    second = cbs.prune(first.model, data, sparsity=0.64, **options)
    assert (result.value, result.bound, result.status) == (second.value, second.bound, second.status)
    assert result.history[0].pruned == first.after
    assert result.history[0].tuned == second.before
    assert result.history[1].pruned == second.after
    assert [stage.value for stage in result.history] == [first.value, second.value]
    assert [stage.sparsity for stage in result.history] == [first.sparsity, second.sparsity]
    assert [stage.epochs for stage in result.history] == [2, 2]
    train(second.model, data, epochs=2, seed=3)
    assert same(state(result.model), state(second.model))
    plain = second.permanent()
    assert result.after.loss == pytest.approx(
        torch.nn.functional.cross_entropy(plain(data.inputs), data.targets).item(), rel=1e-6
    )
    assert result.before == first.before
    for name, mask in first.masks.items():
        assert bool(result.masks[name][mask].all())
    assert same(state(result.undo()), state(seeded(make)))
    assert result.seconds >= sum(stage.seconds for stage in result.history) * (1 - 1e-9)


def test_one_stage_with_fine_tuning_keeps_what_is_known_of_the_pruning():
    data = DATA[convnet]
    model = seeded(convnet).train()
    before = state(model)
    plain = cbs.prune(model, data, sparsity=0.5, method="magnitude")
    tuned = cbs.prune(model, data, sparsity=0.5, method="magnitude", finetune=3, test=data)
    assert same(state(model), before)
    assert (tuned.value, tuned.bound, tuned.layers[0].rows) == (
        plain.value,
        plain.bound,
        plain.layers[0].rows,
    )
    assert tuned.history[0].pruned == plain.after
    assert tuned.history[0].tuned == tuned.after == tuned.test_after
    assert tuned.after.loss < plain.after.loss
    assert all(torch.equal(tuned.masks[name], mask) for name, mask in plain.masks.items())
    assert tuned.model.training
    assert same(state(tuned.undo()), before)


def test_methods_are_compared_with_stages_and_each_goes_its_own_way():
    data, seen = DATA[mlp], []
    options = {"stages": 3, "finetune": 1, "scope": "layer"}
    results = cbs.compare(
        seeded(mlp),
        data,
        sparsities=[0.5, 0.7],
        methods=["magnitude", "joint"],
        callback=seen.append,
        **options,
    )
    assert [(r.method, r.asked, len(r.history)) for r in results] == [
        ("magnitude", 0.5, 3), ("joint", 0.5, 3), ("magnitude", 0.7, 3), ("joint", 0.7, 3),
    ]  # fmt: skip
    assert all(result.bound is not None and 0 <= result.bound <= result.value for result in results)
    for result in results:
        alone = cbs.prune(seeded(mlp), data, sparsity=result.asked, method=result.method, **options)
        assert same(state(alone.model), state(result.model))
        assert (alone.value, alone.bound) == (result.value, result.bound)
    steps = [step for step in seen if step.method == "joint" and step.asked == 0.7]
    assert {step.part for step in steps if step.stage == "select"} == {1, 2, 3}
    assert {(step.index, step.count) for step in steps if step.stage == "finetune"} == {(1, 1)}
    assert {step.parts for step in steps if step.stage == "evaluate"} == {3}


def test_a_function_of_the_users_trains_and_hears_which_stage_it_follows():
    heard = []

    def finetune(model, stage):
        heard.append((stage, float((model[0].weight == 0).double().mean())))
        train(model, DATA[mlp], epochs=1)

    result = cbs.prune(
        seeded(mlp), DATA[mlp], sparsity=0.75, stages=2, finetune=finetune, method="magnitude", scope="row",
        **QUICK,
    )  # fmt: skip
    assert heard == [(1, 0.5), (2, pytest.approx(0.7, abs=0.05))]
    assert [stage.epochs for stage in result.history] == [None, None]
    assert result.history[-1].tuned == result.after
    assert result.request.to_dict()["finetune"].endswith("finetune")


def test_deleted_weights_may_adapt_again():
    """What a stage has deleted starts from zero, and the next stage chooses among all weights."""
    model, heard = seeded(mlp), []
    W = model[0].weight.detach().clone()
    smallest = W.abs().flatten().argsort()

    def finetune(model, stage):
        heard.append(model[0].weight.detach().clone())
        with torch.no_grad():
            if stage == 1:
                assert not hasattr(model[0], "weight_mask")
                model[0].weight.view(-1)[smallest[0]] = 9.0

    schedule = cbs.Schedule(2, growth="linear", deleted="adapt")
    result = cbs.prune(
        model, DATA[mlp], sparsity=0.5, stages=schedule, finetune=finetune, method="magnitude", layers=["0"],
        **QUICK,
    )  # fmt: skip
    dead = smallest[: round(0.25 * W.numel())]
    expected = W.clone()
    expected.view(-1)[dead] = 0.0
    assert torch.equal(heard[0], expected)
    assert not result.masks["0"].view(-1)[smallest[0]]
    assert bool(result.masks["0"].view(-1)[dead[1:]].all())
    assert int(result.masks["0"].sum()) == round(0.5 * W.numel())
    assert result.history[0].sparsity == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("method", ["magnitude", "joint"])
def test_deleted_weights_may_shrink_instead(method):
    """Without compensation `shrink * w` where chosen; with it, as far on the way to the pruned weights."""
    model, heard = seeded(mlp), []
    options = {"method": method, "layers": ["0"], "damping": 0.1, **QUICK}
    once = cbs.prune(model, DATA[mlp], sparsity=0.25, **options)

    def finetune(model, stage):
        heard.append((model[0].weight.detach().clone(), model[0].bias.detach().clone()))

    cbs.prune(
        model, DATA[mlp], sparsity=0.5, finetune=finetune,
        stages=cbs.Schedule(2, growth="linear", deleted="shrink", shrink=0.3), **options,
    )  # fmt: skip
    expected = 0.3 * model[0].weight + 0.7 * once.permanent()[0].weight
    torch.testing.assert_close(heard[0][0], expected.detach())
    torch.testing.assert_close(heard[0][1], (0.3 * model[0].bias + 0.7 * once.model[0].bias).detach())
    if method == "magnitude":
        mask = once.masks["0"]
        torch.testing.assert_close(heard[0][0][mask], (0.3 * model[0].weight)[mask].detach())
        assert torch.equal(heard[0][0][~mask], model[0].weight[~mask].detach())


def sum_of_two():
    """`y = x_1 + x_2 + 0.3 x_3` where `x_3` is nearly the sum of the others, and data of it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    x[:, 2] = x[:, 0] + x[:, 1] + 0.1 * x[:, 2]
    model = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False, dtype=torch.float64))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0, 0.3]]))
        return model, Samples(x, model(x) + 0.1)  # a loss without gradient is refused


@pytest.mark.parametrize("refit", [None, "network"])
@pytest.mark.parametrize(
    ("deleted", "pruned"), [("stay", (False, False, True)), ("return", (True, True, False))]
)
def test_a_weight_returns_that_is_best_alone_and_worst_of_three(refit, deleted, pruned):
    """Of three the third is the cheapest to prune; of one it is the only one to keep."""
    model, data = sum_of_two()
    heard = []

    def finetune(model, stage):
        heard.append(read_masks(model)["0"][0].tolist())

    options = {"loss": "mse_loss", "method": "joint", "damping": 1e-6, "refit": refit, **QUICK}
    result = cbs.prune(
        model, data, sparsity=2 / 3, stages=cbs.Schedule(given=(1 / 3, 2 / 3), deleted=deleted), **options
    )
    assert [stage.sparsity for stage in result.history] == pytest.approx([1 / 3, 2 / 3])
    masks = result.masks["0"][0].tolist()
    assert masks == [*pruned] if deleted == "return" else masks[2]
    if deleted == "return":
        assert result.model[0].weight[0, 2].item() == pytest.approx(1.3, rel=0.02)
    cbs.prune(
        model, data, sparsity=2 / 3, finetune=finetune,
        stages=cbs.Schedule(given=(1 / 3, 2 / 3), deleted=deleted), **options,
    )  # fmt: skip
    assert heard[0] == [False, False, True]  # while it is trained the mask of the first stage holds


@pytest.mark.parametrize("deleted", ["stay", "return", "shrink", "adapt"])
@pytest.mark.parametrize("scope", ["row", "network"])
def test_masks_that_the_network_came_with_stay(deleted, scope):
    model = seeded(convnet)
    torch_prune.random_unstructured(model[0], "weight", 0.3)
    torch_prune.random_unstructured(model[3], "bias", 1)
    earlier = model[0].weight_mask == 0
    result = cbs.prune(
        model, DATA[convnet], sparsity=0.75, scope=scope, method="magnitude", finetune=1,
        stages=cbs.Schedule(3, deleted=deleted), **QUICK,
    )  # fmt: skip
    assert bool(result.masks["0"][earlier].all())
    assert torch.equal(result.model[3].bias_mask, model[3].bias_mask)
    found = [stage.sparsity for stage in result.history]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.75, abs=0.05)


def interrupts(at, kind):
    """A callback that stops at the first step of a kind in a stage."""
    return lambda step: step.part == at and step.stage == kind


@pytest.mark.parametrize(
    ("kind", "epochs", "refit"), [("select", None, None), ("finetune", 1, None), ("refit", None, "network")]
)
def test_a_stop_keeps_the_stage_that_was_pruned_last(kind, epochs, refit):
    data = samples(100)
    result = cbs.prune(
        seeded(mlp), data, sparsity=0.8, stages=4, finetune=3, method="joint", refit=refit,
        callback=interrupts(2, kind),
    )  # fmt: skip
    assert result.status == "interrupted"
    assert len(result.history) == 2
    assert result.history[-1].epochs == epochs
    assert result.asked == 0.8
    assert result.sparsity == pytest.approx(1 - 0.2**0.5, abs=0.05)
    last = result.history[-1]
    assert result.after == (last.tuned or last.refitted or last.pruned)


def test_ctrl_c_in_a_function_of_the_users_undoes_what_it_did():
    kept = []

    def finetune(model, stage):
        kept.append(state(model))
        train(model, DATA[mlp], epochs=1)
        if stage == 2:
            raise KeyboardInterrupt

    result = cbs.prune(
        seeded(mlp), DATA[mlp], sparsity=0.75, stages=3, finetune=finetune, method="magnitude", **QUICK
    )
    assert result.status == "interrupted"
    assert same(state(result.model), kept[1])
    assert result.history[1].tuned is None
    assert result.after == result.history[1].pruned


def test_ctrl_c_between_stages_keeps_the_last_and_before_any_goes_on(monkeypatch):
    calls = []

    def network(*args):
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr("cbs.schedule.stages.stage_network", network)
    result = cbs.prune(seeded(mlp), DATA[mlp], sparsity=0.75, stages=2, method="magnitude", **QUICK)
    assert (len(calls), result.status, len(result.history)) == (1, "interrupted", 1)
    assert result.sparsity == pytest.approx(0.5, abs=0.05)
    monkeypatch.setattr(sys.modules["cbs.prune"], "_run", network)  # the package's attribute is the function
    with pytest.raises(KeyboardInterrupt):
        cbs.prune(seeded(mlp), DATA[mlp], sparsity=0.75, stages=2, method="magnitude")


@pytest.mark.parametrize(
    ("place", "times", "deleted"),
    [
        ("refitting.evaluate", 1, "stay"), ("refitting.evaluate", 2, "return"),
        ("refitting.refit_network", 1, "stay"), ("reselecting.assemble", 1, "stay"),
        ("reselecting.assemble", 2, "stay"), ("tuning.evaluate", 1, "return"),
        ("tuning.evaluate", 2, "stay"), ("stages.stage_network", 1, "return"),
    ],
)  # fmt: skip
def test_ctrl_c_anywhere_leaves_a_result_that_speaks_of_its_model(
    monkeypatch, request, place, times, deleted
):
    where = f"cbs.schedule.{place}"
    module, _, name = where.rpartition(".")
    real, left = getattr(importlib.import_module(module), name), [times]

    def pressed(*args, **options):
        found = real(*args, **options)
        while left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(where, pressed)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run aside
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    data, model = samples(120, dtype=torch.float32), seeded(mlp, dtype=torch.float32)
    before = state(model)
    result = cbs.prune(
        model, data, sparsity=0.7, method="magnitude", refit="network", finetune=1, match="probabilities",
        reselect=place.startswith("reselecting"), stages=cbs.Schedule(2, deleted=deleted), certify=False,
    )  # fmt: skip
    assert (left[0] < times, result.status) == (True, "interrupted")
    assert result.after == evaluate(result.model, data, torch.nn.functional.cross_entropy)
    gone = torch.cat([mask.flatten() for mask in result.masks.values()])
    assert result.sparsity == pytest.approx(float(gone.double().mean()))
    assert [layer.kept for layer in result.layers] == [int((~mask).sum()) for mask in result.masks.values()]
    assert same(state(result.undo()), before)


def test_a_time_limit_covers_stages_and_fine_tuning_and_the_sparsity_is_reached(clock):
    def turn(step):
        if step.stage == "finetune":
            clock.advance(3.0)

    result = cbs.prune(
        seeded(mlp), DATA[mlp], sparsity=0.75, stages=3, finetune=9, method="magnitude", time_limit=10.0,
        callback=turn, **QUICK,
    )  # fmt: skip
    assert [stage.epochs for stage in result.history] == [1, 1, 2]  # 10 1/6, (10-3) 2/5, (10-6) 3/3
    assert result.sparsity == pytest.approx(0.75, abs=0.02)
    assert clock.passed < 14


def test_a_time_limit_covers_refits_and_the_sparsity_is_reached(clock):
    heard = []

    def turn(step):
        if step.stage == "refit":
            heard.append(step.part)
            clock.advance(4.0)

    result = cbs.prune(
        seeded(mlp), samples(100), sparsity=0.75, stages=3, refit="network", method="magnitude",
        time_limit=6.0, callback=turn, **QUICK,
    )  # fmt: skip
    assert {*heard} == {1, 2, 3}
    assert result.sparsity == pytest.approx(0.75, abs=0.02)
    assert len(heard) <= 4
    assert all(stage.seconds >= stage.refit_seconds > 0 for stage in result.history)


def test_a_result_of_stages_with_refits_goes_through_json():
    model, data = seeded(mlp), samples(100)
    schedule = cbs.Schedule(given=(0.3, 0.6), deleted="return")
    result = cbs.prune(model, data, sparsity=0.6, stages=schedule, refit="network", scope="layer")
    record = json.loads(json.dumps(result.to_dict()))
    assert record["request"]["stages"]["given"] == [0.3, 0.6]
    again = PruneResult.from_dict(record, result.model, result.saved, state(model))
    assert again.to_dict() == record
    assert again.history == result.history
    assert [stage.refitted_divergence <= stage.divergence for stage in again.history] == [True, True]
    assert result.bound <= result.value


def test_a_result_goes_through_json_and_is_taken_up(tmp_path):
    model, data = seeded(convnet), DATA[convnet]
    options = {"stages": 2, "finetune": 1, "scope": "layer"}
    (result,) = cbs.compare(model, data, sparsities=[0.5], methods=["joint"], test=data, **options)
    record = json.loads(json.dumps(result.to_dict()))
    again = PruneResult.from_dict(record, result.model, result.saved, state(model))
    assert again.to_dict() == record
    assert again.history == result.history
    assert same(state(again.undo()), state(model))
    taken, other = cbs.compare(
        model, data, sparsities=[0.5], methods=["joint", "magnitude"], test=data, finished=[again], **options
    )
    assert taken.to_dict() == record
    assert other.bound is not None
    with pytest.raises(ValueError, match="has stages 2, not 3"):
        cbs.compare(
            model, data, sparsities=[0.5], methods=["joint"], finished=[again], **options | {"stages": 3}
        )


def takes_masks_off(model, stage):
    torch_prune.remove(model[0], "weight")


def diverges(model, stage):
    with torch.no_grad():
        model[2].weight_orig.fill_(np.nan)


def casts(model, stage):
    model.float()


def adds_a_layer(model, stage):
    model.append(torch.nn.Linear(3, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        (casts, "finetune changed the network: '0.weight_orig' was .*float64 and is .*float32"),
        (adds_a_layer, "finetune changed the network: '5.weight' was not there and is"),
        (lambda model: None, "finetune must take two arguments, the model and the stage, got"),
        (takes_masks_off, "finetune changed the mask of layer '0'; train the model in place"),
        (diverges, "finetune left NaN or infinite values in '2.weight_orig'"),
        ("tests:finetune", "finetune must be a number of epochs or a function, got 'tests:finetune'"),
    ],
)
def test_what_does_not_train_in_place_is_refused(finetune, message):
    with pytest.raises(ValueError, match=message):
        cbs.prune(seeded(mlp), DATA[mlp], sparsity=0.5, finetune=finetune, method="magnitude", **QUICK)


def test_what_a_mask_prunes_is_zero_behind_it_whatever_a_function_did():
    def noise(model, stage):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)

    result = cbs.prune(
        seeded(mlp), DATA[mlp], sparsity=0.5, finetune=noise, stages=2, method="magnitude", **QUICK
    )
    for name, mask in result.masks.items():
        module = result.model.get_submodule(name)
        assert not bool(module.weight_orig[mask].any())
        assert not bool(module.weight[mask].any())


def test_it_is_fine_tuned_on_all_of_the_data_whatever_a_curvature_takes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = cbs.prune(
            seeded(mlp), DATA[mlp], sparsity=0.5, finetune=2, samples=10, method="obd", seed=1, **QUICK
        )
        once = cbs.prune(seeded(mlp), DATA[mlp], sparsity=0.5, samples=10, method="obd", seed=1, **QUICK)
    train(once.model, DATA[mlp], epochs=2, seed=1)
    assert same(state(once.model), state(result.model))
    assert result.before.samples == 10


@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("scope", ["layer", "network"])
def test_neurons_go_in_stages_and_leave_the_network(make, scope):
    options = {"granularity": "neurons", "method": "magnitude", "scope": scope, **QUICK}
    result = cbs.prune(seeded(make), DATA[make], sparsity=0.5, stages=2, finetune=2, **options)
    first = cbs.prune(seeded(make), DATA[make], sparsity=1 - 0.5**0.5, **options)
    assert result.history[0].pruned == first.after
    for one, other in zip(first.neurons, result.neurons, strict=True):
        assert {*one.neurons} <= {*other.neurons}
    small, x = result.permanent(), DATA[make].inputs
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in seeded(make).parameters())
    torch.testing.assert_close(small.eval()(x), result.model.eval()(x), rtol=1e-6, atol=1e-9)
    assert result.history[-1].tuned == result.after
    assert result.after.loss < result.history[-1].pruned.loss


@pytest.mark.slow
def test_fine_tuning_in_stages_repairs_mlpnet():
    """At 2% of the weights magnitude pruning alone leaves a third of the accuracy."""
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST and MLPNet's weights")
    split, model = cbs.mnist(folder), cbs.mlpnet(Path(folder) / "mlpnet_93.97.npz")
    options = {"sparsity": 0.98, "method": "magnitude", "samples": 5000, "test": split.test, **QUICK}
    once = cbs.prune(model, split.train, **options)
    tuned = cbs.prune(model, split.train, finetune=2, **options)
    staged = cbs.prune(model, split.train, finetune=1, stages=3, **options)
    assert once.test_after.accuracy < 0.5
    assert tuned.test_after.accuracy > once.test_after.accuracy + 0.2
    assert staged.test_after.accuracy > tuned.test_after.accuracy
    assert sum(layer.kept for layer in staged.layers) == sum(layer.kept for layer in once.layers) == 647
    for stage in staged.history:
        assert stage.tuned.loss < stage.pruned.loss
