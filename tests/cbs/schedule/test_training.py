"""Training by our own loop: what masks have pruned stays exactly zero, and nothing half done is left."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.data import Samples
from cbs.schedule.masks import masked_parameters
from cbs.schedule.training import train
from cbs.zoo import digits_mlp
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
LBFGS = partial(torch.optim.LBFGS, max_iter=3)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_depends_on_the_seed_only():
    data = Samples(torch.rand(90, 64), torch.arange(90) % 10)
    before, weights = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        model = digits_mlp(0)
        model.insert(2, nn.Dropout())
        train(model, data, epochs=2, seed=seed)
        weights.append(model[0].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_is_that_of_adam_with_weight_decay_and_half_a_cosine():
    """Against Adam's formulas in NumPy, on a single batch of a linear least-squares problem."""
    model, data = nn.Linear(3, 1, bias=False).double(), samples(8, (3,))
    y = data.inputs @ torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    w = model.weight.detach().numpy().ravel().copy()
    X, t = data.inputs.numpy(), y.numpy().ravel()
    train(model, (data.inputs, y), epochs=4, batch=8, learning_rate=0.1, weight_decay=0.3, loss="mse_loss")
    first, second = np.zeros(3), np.zeros(3)
    for k in range(4):
        g = 2 * X.T @ (X @ w - t) / 8 + 0.3 * w
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        rate = 0.1 * (1 + np.cos(np.pi * k / 4)) / 2
        w -= rate * (first / (1 - 0.9 ** (k + 1))) / (np.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8)
    np.testing.assert_allclose(model.weight.detach().numpy().ravel(), w, rtol=1e-9)


@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("optimizer", [None, SGD, LBFGS])
def test_what_is_pruned_stays_exactly_zero(make, optimizer):
    model = seeded(make)
    for module in model:
        if hasattr(module, "weight") and module.weight.ndim > 1:
            torch_prune.random_unstructured(module, "weight", 0.5)
            torch_prune.random_unstructured(module, "bias", 1)
    before, kept = copy.deepcopy(state(model)), []

    def watched(parameters):
        steps = (optimizer or partial(torch.optim.Adam, weight_decay=0.1))(parameters)
        kept.append(steps)
        return steps

    data = samples(20) if make is mlp else image_samples(20)
    train(model, data, epochs=3, batch=7, optimizer=watched)
    after = state(model)
    for name, mask in after.items():
        if name.endswith("_mask"):
            assert torch.equal(mask, before[name])
            orig, pruned = name.replace("_mask", "_orig"), mask == 0
            assert not after[orig][pruned].any()
            assert not torch.equal(after[orig][~pruned], before[orig][~pruned])
            module = model.get_submodule(name.rpartition(".")[0])
            assert torch.equal(getattr(module, name.split(".")[-1].removesuffix("_mask")), after[orig] * mask)
    moved = [name for name in after if "running_mean" in name]
    assert len(moved) == (make is convnet)
    assert not any(torch.equal(after[name], before[name]) for name in moved)
    buffers = {id(p): mask for p, mask in masked_parameters(model)}
    for parameter, values in kept[0].state.items():
        for value in values.values():
            if id(parameter) in buffers and torch.is_tensor(value) and value.shape == parameter.shape:
                assert not value[buffers[id(parameter)]].any()
    assert not any(module.training for module in model.modules())


def test_fine_tuning_a_pruned_network_repairs_it_and_keeps_its_masks():
    model, split = cbs.trained_digits_mlp()
    result = cbs.prune(model, split.train, sparsity=0.8, method="magnitude", certify=False)
    masks, loss = result.masks, result.after.loss
    train(result.model, split.train, epochs=5)
    assert all(torch.equal(result.masks[name], mask) for name, mask in masks.items())
    plain = result.permanent()
    for name, mask in masks.items():
        assert not plain.get_submodule(name).weight[mask].any()
    tuned = F.cross_entropy(plain(split.train.inputs), split.train.targets)
    assert tuned.item() < 0.5 * loss


def test_data_in_any_form_and_losses_of_any_reduction_train_alike():
    one = samples(21)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(one.inputs, one.targets), 7)
    models = [seeded(mlp) for _ in range(3)]
    train(models[0], one, epochs=2, batch=5)
    train(models[1], loader, epochs=2, batch=5)
    train(models[2], (one.inputs, one.targets), epochs=2, batch=5, loss=nn.CrossEntropyLoss(reduction="none"))
    assert same(state(models[0]), state(models[1]))
    for name, value in state(models[2]).items():
        torch.testing.assert_close(value, state(models[0])[name])


def test_no_batch_is_larger_than_the_data_s_and_none_is_of_one_sample():
    for count, asked, given in ((9, 4, [4, 3, 2]), (8, 4, [4, 4]), (5, 2, [2, 2, 1]), (7, 64, [3, 2, 2])):
        sizes, model = [], seeded(mlp)
        model.register_forward_pre_hook(lambda module, args, sizes=sizes: sizes.append(len(args[0])))
        data = replace(samples(count), batch=3 if asked == 64 else 500)
        train(model, data, epochs=1, batch=asked)
        assert sizes == given


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_what_ends_training_leaves_the_last_finished_epoch(stop):
    model, seen = seeded(convnet), [None]
    start = state(model)

    class Ends:
        calls = 0

        def __call__(self, outputs, targets):
            self.calls += 1
            if self.calls == limit:
                raise stop("now")
            return F.cross_entropy(outputs, targets)

    for limit in (1, 8):
        expected = start
        if limit == 8:
            other = seeded(convnet)
            train(other, image_samples(12), epochs=6, batch=4, callback=lambda epoch: epoch.index == 1)
            expected = state(other)
        model = seeded(convnet)
        error = KeyboardInterrupt if stop is KeyboardInterrupt else ValueError
        with pytest.raises(error):
            train(model, image_samples(12), epochs=6, batch=4, loss=Ends(), callback=seen.append)
        assert same(state(model), expected)
        assert not model.training
    assert [epoch.index for epoch in seen[1:]] == [0, 1]


def test_the_callback_hears_of_every_epoch_and_may_end_it():
    heard = []
    model, data = seeded(mlp), samples(20)
    start = F.cross_entropy(model(data.inputs), data.targets).item()
    train(model, data, epochs=9, batch=20, callback=lambda epoch: heard.append(epoch) or len(heard) == 3)
    assert [(epoch.index, epoch.count) for epoch in heard] == [(0, 9), (1, 9), (2, 9)]
    assert heard[0].loss == pytest.approx(start, rel=1e-12)
    assert heard[2].loss < heard[0].loss


def test_training_that_diverges_is_an_error_and_leaves_finite_weights():
    model = seeded(mlp)
    with pytest.raises(ValueError, match=r"training diverges: the loss is .* in epoch") as error:
        train(
            model, (torch.randn(20, 6).double(), torch.randn(20, 3).double()), epochs=200, loss="mse_loss",
            optimizer=partial(torch.optim.SGD, lr=1e5),
        )  # fmt: skip
    assert len(str(error.value).splitlines()) == 1
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be a whole number >= 0, got -1"),
        ({"epochs": 1.5}, "epochs must be a whole number >= 0, got 1.5"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"seed": "a"}, "seed must be a whole number >= 0, got 'a'"),
        ({"learning_rate": 0}, "learning_rate must be a positive number, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number >= 0, got -1.0"),
        ({"loss": "entropy"}, "unknown loss 'entropy'; did you mean"),
        ({"optimizer": lambda parameters: 3}, "optimizer must be a function that makes"),
        ({"optimizer": "sgd"}, "optimizer must be a function that makes a torch.optim.Optimizer"),
        (
            {"optimizer": lambda _: torch.optim.SGD(seeded(mlp).parameters(), lr=0.1)},
            "optimizer must step the",
        ),
        ({"callback": 3}, "callback must be a function of an Epoch or None, got 3"),
        ({"data": None}, "data must be"),
        ({"data": (torch.zeros(4, 5).double(), torch.zeros(4).long())}, "data: the model refuses inputs"),
        ({"model": None}, "model must be a torch.nn.Module, not NoneType"),
        ({"model": seeded(mlp).requires_grad_(False)}, "model has no parameters to train"),
    ],
)
def test_bad_input_is_refused_in_one_line(options, message):
    options = {"model": seeded(mlp), "data": samples(9), **options}
    with pytest.raises(ValueError, match=message) as error:
        train(options.pop("model"), options.pop("data"), **options)
    assert len(str(error.value).splitlines()) == 1


def test_an_optimizer_that_is_made_already_is_refused():
    model = seeded(mlp)
    with pytest.raises(ValueError, match=r"made already: give functools.partial\(torch.optim.SGD"):
        train(model, samples(9), optimizer=SGD(model.parameters()))


def overfitting(count=24):
    """Labels with so much noise that there is something to learn first, and then only by heart."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2 * count, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(2 * count, 3, generator=generator, dtype=torch.float64)
    labels = (2 * inputs[:, :3] + 2 * noise).argmax(dim=1)
    return Samples(inputs[:count], labels[:count]), Samples(inputs[count:], labels[count:])


def test_the_best_epoch_by_what_is_held_back_is_kept_and_what_came_is_one_of_them():
    data, held = overfitting()
    losses, states = [], []
    model = seeded(mlp)
    start = F.cross_entropy(model(held.inputs), held.targets).item()

    def watch(epoch):
        losses.append(epoch.validation)
        states.append(state(model))
        assert F.cross_entropy(model.eval()(held.inputs), held.targets).item() == pytest.approx(losses[-1])
        model.train()

    train(model, data, epochs=25, batch=6, learning_rate=0.05, validation=held, callback=watch)
    best = int(np.argmin(losses))
    assert len(losses) == 25
    assert losses[best] < min(start, losses[-1])
    assert same(state(model), states[best])
    for patience in (1, 2, 30):
        heard, models = [], [seeded(mlp)]
        train(
            models[0], data, epochs=25, batch=6, learning_rate=0.05, validation=held, patience=patience,
            callback=heard.append,
        )  # fmt: skip
        found = [epoch.validation for epoch in heard]
        assert found == losses[: len(found)]
        worse = [value > min([start, *found[: i + 1]]) for i, value in enumerate(found)]
        runs = "".join("x" if flag else "." for flag in worse)
        assert runs.find("x" * patience) in (len(found) - patience, -1)
        assert len(found) < 25 or patience == 30
    ruined = seeded(mlp)
    before = state(ruined)
    train(ruined, data, epochs=4, optimizer=partial(torch.optim.SGD, lr=30.0), validation=held)
    assert same(state(ruined), before)


def test_a_fraction_of_the_data_is_drawn_and_not_trained_on():
    data, seen = samples(40), []
    model = seeded(mlp)
    model.register_forward_pre_hook(lambda module, args: seen.append((module.training, args[0].clone())))
    train(model, data, epochs=2, batch=8, validation=0.25, seed=3)
    trained = torch.cat([x for training, x in seen if training]).unique(dim=0)
    judged = torch.cat([x for training, x in seen if not training]).unique(dim=0)
    assert (len(trained), len(judged)) == (30, 10)
    assert len(torch.cat([trained, judged]).unique(dim=0)) == 40
    other = seeded(mlp)
    train(other, data, epochs=2, batch=8, validation=0.25, seed=3)
    assert same(state(other), state(model))


def test_an_interruption_keeps_the_best_epoch():
    data, held = overfitting()
    losses, states, model = [], [], seeded(mlp)

    def watch(epoch):
        losses.append(epoch.validation)
        states.append(state(model))
        if epoch.index == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, data, epochs=25, batch=6, learning_rate=0.05, validation=held, callback=watch)
    assert int(np.argmin(losses)) < 19
    assert same(state(model), states[int(np.argmin(losses))])


def test_a_pruning_s_fine_tuning_stops_early():
    data = overfitting()[0]
    options = {"epochs": 40, "batch": 6, "learning_rate": 0.1, "validation": 0.25, "patience": 2}
    result = cbs.prune(
        seeded(mlp), data, sparsity=0.3, method="magnitude", certify=False, finetune=options, samples=20
    )
    assert 2 <= result.history[0].epochs < 40
    assert result.to_dict()["request"]["finetune"] == options
    expected = cbs.prune(seeded(mlp), data, sparsity=0.3, method="magnitude", certify=False, samples=20).model
    train(expected, data, **options)
    assert same(state(expected), state(result.model))


def test_progress_is_silent_without_a_terminal_and_a_bar_on_one(capsys, monkeypatch):
    train(seeded(mlp), samples(20), epochs=2, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    train(seeded(mlp), samples(20), epochs=2, validation=0.5)
    assert capsys.readouterr() == ("", "")
    train(seeded(mlp), samples(20), epochs=2, validation=0.5, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 of 2 epochs" in err
    assert "held back" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2}, "patience 2 is about a loss on data that is held back; give validation"),
        ({"patience": 0, "validation": 0.5}, "patience must be a whole number of epochs >= 1 or None, got 0"),
        ({"patience": 1.5, "validation": 0.5}, "patience must be a whole number"),
        ({"validation": 1.0}, r"validation must be data, or a fraction of it in \(0, 1\), got 1.0"),
        ({"validation": 0.01}, "validation 0.01 of 9 samples is 0; at least one sample must be held back"),
        ({"validation": 0.99}, "validation 0.99 of 9 samples is 9; at least one"),
        ({"validation": "some"}, "validation: data must be .* not str; a fraction of the data may be given"),
        ({"validation": (torch.zeros(4, 5), torch.zeros(4).long())}, "data: the model refuses inputs"),
        ({"progress": "yes"}, "progress must be True or False, got 'yes'"),
    ],
)
def test_bad_input_about_what_is_held_back_is_refused_in_one_line(options, message):
    model = seeded(mlp)
    before = state(model)
    with pytest.raises(ValueError, match=message) as error:
        train(model, samples(9), **options)
    assert len(str(error.value).splitlines()) == 1
    assert same(state(model), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "unknown option of finetune 'epoch'; did you mean 'epochs'?"),
        ({"epochs": -3}, "epochs must be a whole number >= 0, got -3"),
        ({"patience": 3}, "patience 3 is about a loss on data that is held back"),
        ({"validation": (1, 2)}, r"validation must be a fraction of the calibration data in \(0, 1\)"),
    ],
)
def test_bad_options_of_fine_tuning_are_refused_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        cbs.prune(None, None, sparsity=0.5, finetune=options)
