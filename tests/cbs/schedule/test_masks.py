"""Masks in training loops of others: they hold exactly, whatever the optimizer and the loop."""

import copy
import io
import os
import socket
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune
from torch.utils.data import DataLoader, TensorDataset

import cbs
from cbs.data import Samples
from cbs.schedule.masks import masked_parameters
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, weight_decay=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "foreach": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1, foreach=True),
    "fused": partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1, fused=True),
    "adam": partial(torch.optim.Adam, lr=0.05, weight_decay=0.1, amsgrad=True),
    "adamw": partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1, foreach=False),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.9, weight_decay=0.1),
    "rprop": torch.optim.Rprop,
    "asgd": torch.optim.ASGD,
    "lbfgs": partial(torch.optim.LBFGS, max_iter=3),
}


def pruned(make=mlp, amount=0.5):
    """A network with random masks, of which one holds a bias, and nothing is zero behind them yet."""
    model = seeded(make)
    generator = torch.Generator().manual_seed(5)
    for module in model:
        if getattr(module, "weight", None) is not None and module.weight.ndim > 1:
            keep = torch.rand(module.weight.shape, generator=generator) >= amount
            torch_prune.custom_from_mask(module, "weight", keep.to(module.weight))
    torch_prune.custom_from_mask(model[0], "bias", torch.arange(len(model[0].bias)) != 1)
    return model


def plain():
    """A network of plain weights with zeros, and the masks of these."""
    model = seeded(mlp)
    masks = {}
    for name in ("0", "2"):
        weight = model.get_submodule(name).weight
        masks[name] = torch.arange(weight.numel()).reshape(weight.shape) % 3 == 0
        with torch.no_grad():
            weight[masks[name]] = 0
    return model, masks


def losses(model, optimizer, data, steps=4):
    """A plain loop, of as many steps."""
    found = []
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(data.inputs), data.targets)
            loss.backward()
            return loss

        found.append(float(optimizer.step(closure).detach()))
    return found


def require_held(model, optimizer, given=()):
    """All that is pruned is exactly zero, and everything else is not."""
    pairs = [*masked_parameters(model), *given]
    assert pairs
    for parameter, mask in pairs:
        assert mask.any()
        assert not parameter.detach()[mask].any()
        assert parameter.detach()[~mask].all()
        for value in optimizer.state.get(parameter, {}).values():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                assert not value[mask].any()
    for module in model.modules():
        if hasattr(module, "weight_mask"):
            assert torch.equal(module.weight, module.weight_orig * module.weight_mask)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("make", [mlp, convnet])
def test_masks_hold_through_every_optimizer(name, make):
    model, data = pruned(make), samples(20) if make is mlp else image_samples(20)
    before = copy.deepcopy(model.state_dict())
    assert any(p.detach()[mask].any() for p, mask in masked_parameters(model))
    optimizer = OPTIMIZERS[name](model.parameters())
    with cbs.keep_masks(model, optimizer):
        require_held(model, optimizer)
        for _ in range(4):
            losses(model, optimizer, data, 1)
            require_held(model, optimizer)
    after = model.state_dict()
    for key, value in before.items():
        assert torch.equal(after[key], value) == (key.endswith("_mask") or "running" in key or "track" in key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_plain_weights_stay_zero_where_masks_that_are_given_prune(name):
    model, masks = plain()
    optimizer = OPTIMIZERS[name](model.parameters())
    given = [(model.get_submodule(key).weight, mask) for key, mask in masks.items()]
    with cbs.keep_masks(model, optimizer, masks=masks):
        for _ in range(4):
            losses(model, optimizer, samples(20), 1)
            require_held(model, optimizer, given)
    free, _ = plain()
    losses(free, OPTIMIZERS[name](free.parameters()), samples(20))
    assert free[0].weight[masks["0"]].any()


def test_a_step_is_that_of_the_survivors_alone():
    """Momentum and weight decay by their formulas in NumPy, on the survivors of a linear least squares."""
    model, data = nn.Linear(6, 1, bias=False).double(), samples(8)
    keep = np.array([1, 0, 1, 1, 0, 1.0])
    torch_prune.custom_from_mask(model, "weight", torch.tensor(keep)[None])
    X, y = data.inputs.numpy(), data.inputs.numpy() @ np.arange(6.0)
    w, v = model.weight_orig.detach().numpy().ravel() * keep, np.zeros(6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.3)
    cbs.keep_masks(model, optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        F.mse_loss(model(data.inputs).ravel(), torch.from_numpy(y)).backward()
        optimizer.step()
        v = 0.9 * v + keep * (2 * X.T @ (X @ w - y) / 8 + 0.3 * w)
        w = w - 0.1 * v
    np.testing.assert_allclose(model.weight_orig.detach().numpy().ravel(), w, rtol=1e-12)


def test_gradients_that_are_accumulated_and_clipped_are_those_of_the_survivors():
    (model, masks), data = plain(), samples(20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cbs.keep_masks(model, optimizer, masks=masks):
        for part in (slice(0, 10), slice(10, 20)):
            (F.cross_entropy(model(data.inputs[part]), data.targets[part]) / 2).backward()
            for name, mask in masks.items():
                assert not model.get_submodule(name).weight.grad[mask].any()
    free, _ = plain()
    F.cross_entropy(free(data.inputs), data.targets).backward()
    for name, mask in masks.items():
        expected = free.get_submodule(name).weight.grad.masked_fill(mask, 0)
        torch.testing.assert_close(model.get_submodule(name).weight.grad, expected)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    for name, mask in masks.items():
        free.get_submodule(name).weight.grad[mask] = 0
    expected = sum(float(p.grad.square().sum()) for p in free.parameters()) ** 0.5
    assert float(norm) == pytest.approx(expected, rel=1e-12)


def test_what_a_loop_does_to_gradients_reaches_no_optimizer_where_a_mask_prunes():
    model, data = pruned(), samples(20)
    model[0].weight_mask[0, 0] = 0
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    with cbs.keep_masks(model, optimizer):
        F.cross_entropy(model(data.inputs), data.targets).backward()
        for parameter in model.parameters():
            parameter.grad.add_(torch.randn_like(parameter))
        model[0].weight_orig.grad[0, 0] = torch.nan
        optimizer.step(lambda: torch.zeros(()))
        require_held(model, optimizer)
        for parameter, mask in masked_parameters(model):
            assert not parameter.grad[mask].any()
            assert parameter.grad[~mask].all()


def test_a_scaled_loss_a_schedule_and_a_group_that_comes_later():
    model, data = pruned().float(), samples(20, dtype=torch.float32)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    kept = cbs.keep_masks(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    optimizer.add_param_group({"params": [*model[2].parameters(), *model[4].parameters()], "lr": 0.05})
    schedule.base_lrs.append(0.05)
    before = model[4].weight_orig.detach().clone()
    for _ in range(4):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(data.inputs), data.targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        require_held(model, optimizer)
    assert not torch.equal(before, model[4].weight_orig)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    kept.remove()


def test_states_that_are_loaded_are_held_from_the_next_step_on():
    model, data = pruned(), samples(20)
    dense = seeded(mlp, seed=1)
    momentum = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    other = momentum(dense.parameters())
    losses(dense, other, data, 2)
    optimizer = momentum([p for _, p in sorted(model.named_parameters(), key=lambda pair: pair[0])])
    cbs.keep_masks(model, optimizer)
    losses(model, optimizer, data, 1)
    filled = {key: value if key.endswith("_mask") else torch.randn_like(value) for key, value in
              model.state_dict().items()}  # fmt: skip
    model.load_state_dict(filled)
    state = optimizer.state_dict()
    for values in state["state"].values():
        values["momentum_buffer"].normal_()
    optimizer.load_state_dict(state)
    assert any(p.detach()[mask].any() for p, mask in masked_parameters(model))
    losses(model, optimizer, data, 1)
    require_held(model, optimizer)


@pytest.mark.parametrize("explicit", [False, True])
def test_networks_are_copied_and_saved_while_they_are_held(explicit):
    model, masks = plain() if explicit else (pruned(), None)
    data = samples(20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    cbs.keep_masks(model, optimizer, masks=masks)
    losses(model, optimizer, data)
    twin, twins = copy.deepcopy(model), copy.deepcopy(optimizer)
    assert optimizer._optimizer_step_post_hooks  # what must not come along is there
    assert any(p._backward_hooks for p in model.parameters()) == explicit
    assert not twins._optimizer_step_post_hooks
    assert all(not p._backward_hooks for p in twin.parameters())
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = plain()[0] if explicit else pruned(amount=0.1)
    other.load_state_dict(saved["model"])
    again = torch.optim.Adam(other.parameters(), lr=0.01)
    again.load_state_dict(saved["optimizer"])
    with cbs.keep_masks(other, again, masks=masks):
        assert losses(other, again, data) == losses(model, optimizer, data)
    fresh = torch.optim.Adam(twin.parameters(), lr=0.01, weight_decay=0.1)
    given = [(twin.get_submodule(key).weight, mask) for key, mask in (masks or {}).items()]
    with cbs.keep_masks(twin, fresh, masks=masks):
        losses(twin, fresh, data)
        require_held(twin, fresh, given)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False)
    torch.testing.assert_close(whole(data.inputs), model(data.inputs))


def test_masks_that_come_later_are_held_and_those_taken_off_are_not():
    model, data = seeded(mlp), samples(20)
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    cbs.keep_masks(model, optimizer)
    losses(model, optimizer, data, 2)
    torch_prune.l1_unstructured(model[2], "weight", 0.5)
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    losses(model, optimizer, data, 1)
    require_held(model, optimizer)
    assert [int(mask.sum()) for _, mask in masked_parameters(model)] == [23, 10]
    torch_prune.remove(model[0], "weight")
    losses(model, optimizer, data, 1)
    assert model[0].weight.all()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).tanh())


@pytest.mark.parametrize("second", ["none", "other", "same"])
def test_a_shared_parameter_is_zero_where_all_of_its_modules_prune(second):
    model, data = seeded(Tied).double(), samples(20, classes=6)
    first = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = {"none": torch.zeros(6, 6, dtype=torch.bool), "other": first.T, "same": first}
    torch_prune.custom_from_mask(model.first, "weight", (~first).double())
    if second != "none":
        torch_prune.custom_from_mask(model.second, "weight", (~masks[second]).double())
    shared, both = model.first.weight_orig, first & masks[second]
    if second == "none":
        assert masked_parameters(model) == []
        assert model.second.weight is shared
        torch_prune.random_unstructured(model.first, "bias", 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    with cbs.keep_masks(model, optimizer):
        losses(model, optimizer, data)
        assert torch.equal(shared == 0, both)
        assert not model.first.weight[first].any()
        assert not model.second.weight[masks[second]].any()
        assert model.second.weight[~masks[second]].all()


def test_given_masks_of_a_shared_weight_hold_for_both_modules():
    model, data = seeded(Tied).double(), samples(20, classes=6)
    mask = torch.eye(6, dtype=torch.bool)
    with torch.no_grad():
        model.first.weight[mask] = 0
        model.first.weight[mask.flip(0)] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cbs.keep_masks(model, optimizer, masks={"first": mask, "second": mask.flip(0)}):
        losses(model, optimizer, data)
        assert torch.equal(model.second.weight == 0, mask | mask.flip(0))


def test_frozen_parameters_and_two_optimizers():
    model, data = pruned(), samples(20)
    model[0].weight_orig.requires_grad_(False)
    optimizers = [torch.optim.SGD(model[i].parameters(), lr=0.1, weight_decay=0.1) for i in (2, 4)]
    with cbs.keep_masks(model, optimizers[0]), cbs.keep_masks(model, optimizers[1]):
        for _ in range(3):
            F.cross_entropy(model(data.inputs), data.targets).backward()
            for optimizer in optimizers:
                optimizer.step()
                require_held(model, optimizer)
    plain_model, masks = plain()
    plain_model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(plain_model.parameters(), lr=0.1)
    with cbs.keep_masks(plain_model, optimizer, masks=masks):
        plain_model[0].weight.requires_grad_(True)
        losses(plain_model, optimizer, data)
        require_held(plain_model, optimizer, [(plain_model[0].weight, masks["0"])])


def test_a_handle_that_is_removed_holds_nothing_more():
    model, masks = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = cbs.keep_masks(model, optimizer, masks=masks)
    assert repr(kept) == "KeptMasks: 17 of 50 weights in 2 parameters stay zero"
    kept.remove()
    kept.remove()
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    losses(model, optimizer, samples(20), 1)
    assert model[0].weight[masks["0"]].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model must be a torch.nn.Module, not NoneType"),
        ({"model": seeded(mlp)}, "model has no masks of torch.nn.utils.prune; give the model of"),
        ({"optimizer": None}, "optimizer must be a torch.optim.Optimizer, not NoneType"),
        (
            {"optimizer": torch.optim.Adam(seeded(mlp).parameters())},
            r"optimizer holds none of the parameters that are masked; make it .* torch.optim.Adam\(",
        ),
        ({"masks": [1]}, "masks must be a mapping of modules' names, not list"),
        ({"masks": {"7": torch.zeros(2) > 0}}, "masks: model has no module '7' with a weight"),
        ({"masks": {"1": torch.zeros(2) > 0}}, "masks: model has no module '1' with a weight"),
        ({"masks": {"0": torch.zeros(5, 6)}}, "masks: that of '0' is torch.float32; give a bool tensor"),
        ({"masks": {"0": np.zeros((5, 6), bool)}}, "masks: that of '0' is ndarray; give a bool tensor"),
        ({"masks": {"0": torch.zeros(6, 5) > 0}}, r"of '0' is of shape \[6, 5\], its weight of \[5, 6\]"),
        ({"masks": {"0": torch.ones(5, 6) > 0}}, "masks: 30 weights of '0' are not zero where its mask"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(change, message):
    model = change.get("model", pruned() if "masks" not in change else seeded(mlp))
    parameters = model.parameters() if isinstance(model, nn.Module) else [nn.Parameter(torch.zeros(1))]
    optimizer = change.get("optimizer", torch.optim.SGD(parameters, lr=0.1))
    with pytest.raises(ValueError, match=message) as error:
        cbs.keep_masks(model, optimizer, masks=change.get("masks"))
    assert len(str(error.value).splitlines()) == 1
    assert optimizer is None or not optimizer._optimizer_step_post_hooks


def test_a_network_that_is_compiled_is_held():
    model, data = pruned(), samples(20)
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    other = pruned()
    alike = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    with cbs.keep_masks(compiled, optimizer), cbs.keep_masks(other, alike), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(losses(compiled, optimizer, data), losses(other, alike, data), rtol=1e-12)
        require_held(model, optimizer)


def _tuned(wrap, parts, explicit):
    """A network after some steps on parts of the data, by momentum, its masks held."""
    model, masks = plain() if explicit else (pruned(), None)
    wrapped, data = wrap(model, explicit), samples(20)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    with cbs.keep_masks(wrapped, optimizer, masks=masks):
        losses(wrapped, optimizer, Samples(data.inputs[parts], data.targets[parts]))
        given = [(model.get_submodule(key).weight, mask) for key, mask in (masks or {}).items()]
        require_held(model, optimizer, given)
    return model.state_dict()


def _wrapped(model, explicit):
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=explicit)


def _rank(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(minutes=10))
    for explicit in (False, True):
        torch.save(_tuned(_wrapped, slice(rank, None, 2), explicit), Path(folder) / f"{rank}-{explicit}.pt")
    dist.destroy_process_group()


def test_two_processes_hold_their_masks_and_agree(tmp_path):
    """Against one process on all of the data: gradients are averaged over halves of one size."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, args=(port, str(tmp_path)), nprocs=2)
    for explicit in (False, True):
        one, two = (torch.load(tmp_path / f"{rank}-{explicit}.pt", weights_only=True) for rank in range(2))
        for name, value in _tuned(lambda model, _: model, slice(None), explicit).items():
            assert torch.equal(one[name], two[name])
            torch.testing.assert_close(one[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_mlpnet_is_better_for_a_loop_of_one_s_own_with_its_masks_held():
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST and MLPNet's weights")
    split, model = cbs.mnist(folder), cbs.mlpnet(Path(folder) / "mlpnet_93.97.npz")
    result = cbs.prune(
        model, split.train.choose(2000), sparsity=0.95, test=split.test, certify=False, solver="local-search"
    )
    masks, net = result.masks, result.model.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        TensorDataset(split.train.inputs, split.train.targets), 128, shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    with cbs.keep_masks(net, optimizer):
        for _ in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                F.cross_entropy(net(inputs), targets).backward()
                optimizer.step()
    tuned = result.permanent().eval()
    for name, mask in masks.items():
        assert torch.equal(result.masks[name], mask)
        assert not tuned.get_submodule(name).weight[mask].any()
        assert not net.get_submodule(name).weight_orig[mask].any()
    accuracy = (tuned(split.test.inputs).argmax(dim=1) == split.test.targets).double().mean()
    assert accuracy > result.test_after.accuracy + 0.005
