"""Networks and losses that `torch.func.vmap` can't follow: their derivatives are those of plain autograd."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import cbs
from cbs.curvature import fisher
from cbs.curvature.diagonal import gauss_newton_diagonal
from cbs.curvature.each import require_apart
from cbs.curvature.fisher import gradient_factor
from cbs.network.layers import find_layers
from cbs.network.losses import sample_losses
from tests.cbs.networks import mlp, samples, seeded

pytestmark = pytest.mark.filterwarnings("ignore:not pruned")

QUICK = {"solver": "greedy", "certify": False, "sparsity": 0.5, "scope": "row"}


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class Net(nn.Module):
    """A network whose hidden activations are changed in some way."""

    def __init__(self, change=torch.tanh):
        super().__init__()
        self.a, self.b, self.change = nn.Linear(6, 5), nn.Linear(5, 3), change
        self.double().eval()

    def forward(self, x):
        return self.b(self.change(self.a(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(1, 5, batch_first=True), nn.Linear(5, 3)
        self.double().eval()

    def forward(self, x):
        return self.fc(self.rnn(x[..., None])[0][:, -1])


def branching(y):
    return y.tanh() if y.abs().max().item() < 1e9 else y


def fill(y):
    z = torch.zeros(y.shape, dtype=y.dtype)
    z += y
    return z.tanh_()


class Stored(Net):
    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class InPlace(Net):
    def forward(self, x):
        return super().forward(x.sub_(1.0).div_(2.0))


NETWORKS = {
    "recurrent": Recurrent,
    "takes a value out": lambda: Net(branching),
    "checkpoint": lambda: Net(lambda y: checkpoint(torch.tanh, y, use_reentrant=False)),
    "autograd function of one's own": lambda: Net(Square.apply),
    "fills a tensor": lambda: Net(fill),
    "data parallel": lambda: nn.DataParallel(Net()),
    "keeps its output": Stored,
    "changes its input": InPlace,
}


def branching_loss(outputs, targets):
    loss = F.cross_entropy(outputs, targets)
    return loss if loss.item() > 0.5 else 2 * loss


def in_place_loss(outputs, targets):
    return F.cross_entropy(outputs.mul_(2.0), targets.add_(1).remainder_(3))


LOSSES = {"cross entropy": F.cross_entropy, "takes a value out": branching_loss, "in place": in_place_loss}
CASES = [(name, "cross entropy") for name in NETWORKS] + [("keeps its output", name) for name in LOSSES]


def gradients(model, layers, x, y, loss):
    value = loss(model(x.clone()[None]), y.clone()[None])
    found = torch.autograd.grad(value, [layer.module.weight for layer in layers])
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize(("network", "loss"), CASES)
def test_gradients_are_those_of_plain_autograd(network, loss):
    model, data, loss = seeded(NETWORKS[network]), samples(7), LOSSES[loss]
    layers = find_layers(model)
    X = gradient_factor(model, layers, data, loss)
    expected = [gradients(model, layers, x, y, loss) for x, y in zip(data.inputs, data.targets, strict=True)]
    assert float(X.abs().max()) > 0
    torch.testing.assert_close(X, torch.stack(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("network", "loss"), CASES)
def test_the_diagonal_is_that_of_plain_autograd(network, loss):
    model, data, loss = seeded(NETWORKS[network]), samples(7), LOSSES[loss]
    layers = find_layers(model)
    found = gauss_newton_diagonal(model, layers, data, loss)
    for layer in layers:
        expected = 0
        for x, y in zip(data.inputs, data.targets, strict=True):
            output = model(x.clone()[None])[0]
            parts = [
                torch.autograd.grad(o, layer.module.weight, retain_graph=True)[0].flatten() for o in output
            ]
            J = torch.stack(parts)
            one = lambda o, y=y: loss(o.clone()[None], y.clone()[None])  # noqa: E731
            B = torch.autograd.functional.hessian(one, output.detach())
            expected = expected + torch.einsum("ap,ab,bp->p", J, B, J) / len(data)
        assert float(expected.max()) > 0
        torch.testing.assert_close(found[layer.name].flatten(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_single_samples(loss):
    outputs, targets = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    kept = outputs.clone(), targets.clone()
    losses = sample_losses(LOSSES[loss], outputs, targets)
    expected = [LOSSES[loss](outputs[i : i + 1].clone(), targets[i : i + 1].clone()) for i in range(5)]
    torch.testing.assert_close(losses, torch.stack(expected))
    assert torch.equal(outputs, kept[0])
    assert torch.equal(targets, kept[1])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", ["obd", "woodfisher", "cbs-s", "joint"])
def test_methods_prune_them_and_leave_data_and_model_alone(network, method):
    model, data = seeded(NETWORKS[network]), samples(20)
    kept, state = data.inputs.clone(), copy.deepcopy(model.state_dict())
    result = cbs.prune(model, data, method=method, **QUICK)
    assert torch.equal(data.inputs, kept)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for layer in result.layers:
        assert layer.measured == pytest.approx(layer.value, rel=1e-9)


@pytest.mark.parametrize("method", ["obd", "woodfisher", "joint"])
@pytest.mark.parametrize("scope", ["row", "network"])
def test_frozen_parameters_and_inference_mode_change_nothing(method, scope):
    model, data = seeded(mlp), samples(20)
    ask = {**QUICK, "method": method, "scope": scope}
    expected = cbs.prune(model, data, **ask)
    frozen = copy.deepcopy(model).requires_grad_(False)
    partly = copy.deepcopy(model)
    partly[0].weight.requires_grad_(False)
    with torch.inference_mode():
        made = copy.deepcopy(model).load_state_dict(model.state_dict()) and copy.deepcopy(model)
        inside = cbs.prune(made, (data.inputs.clone(), data.targets.clone()), **ask)
    with torch.no_grad():
        without = cbs.prune(model, data, **ask)
    results = {"inference": inside, "no grad": without}
    for name, one in (("frozen", frozen), ("partly", partly)):
        results[name] = cbs.prune(one, data, **ask)
        flags = [p.requires_grad for p in one.parameters()]
        for copied in (results[name].permanent(), results[name].undo()):
            assert {n: p.requires_grad for n, p in copied.named_parameters()} == dict(
                zip(dict(one.named_parameters()), flags, strict=True)
            )
    for name, result in results.items():
        assert result.value == expected.value, name
        for layer, mask in result.masks.items():
            assert torch.equal(mask, expected.masks[layer]), name


class Cut(Net):
    """A network through which no gradient flows."""

    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Inference(Net):
    """A network that runs in inference mode."""

    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)


class Overwriting(Net):
    """A network that overwrites what its gradients need, and so can't be trained."""

    def forward(self, x):
        hidden = self.a(x).relu_()
        hidden += 1
        return self.b(hidden)


class Mixing(Net):
    """A network whose answers depend on the other samples of the batch."""

    def forward(self, x):
        return super().forward(x - x.mean(dim=0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Cut, "no derivative by any weight"), (Mixing, "otherwise in a batch than alone"),
        (Inference, "can't be differentiated|no derivative by any"),
        (Overwriting, "can't be differentiated .*in-?place"),
    ],
)  # fmt: skip
def test_where_there_are_no_gradients_methods_that_need_them_say_so(make, message):
    for method, scope in (("obd", "row"), ("woodfisher", "row"), ("joint", "network")):
        with pytest.raises(ValueError, match=message) as error:
            cbs.prune(seeded(make), samples(20), method=method, **{**QUICK, "scope": scope})
        assert "\n" not in str(error.value)
    for method in ("magnitude", "joint"):
        assert cbs.prune(seeded(make), samples(20), method=method, **QUICK).value > 0


def test_nobody_is_told_that_samples_are_taken_in_turn():
    model = seeded(lambda: nn.Sequential(nn.LSTM(6, 4, batch_first=True), Last(), nn.Linear(4, 3))).eval()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = samples(20, shape=(5, 6), dtype=torch.float32)
        gradient_factor(model, find_layers(model), data, F.cross_entropy)
    assert [str(one.message) for one in told] == []


class Last(nn.Module):
    """The last output of a recurrent module."""

    def forward(self, found):
        return found[0][:, -1]


def test_a_sample_alone_is_answered_as_in_a_batch():
    require_apart(seeded(mlp), samples(20))
    require_apart(seeded(mlp), replace(samples(20), batch=1))


def test_gradients_that_do_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr(fisher, "free_memory", lambda: 2 * 8 * 20 * 62 - 1.0)
    model = seeded(mlp)
    assert sum(layer.size for layer in find_layers(model)) == 62
    with pytest.raises(ValueError, match=r"gradients of 20 samples by 62 weights take .*`layers`"):
        gradient_factor(model, find_layers(model), samples(20), F.cross_entropy)
    gradient_factor(model, find_layers(model, ["0", "2"]), samples(20), F.cross_entropy)


def test_a_loss_with_too_many_outputs_is_refused(monkeypatch):
    monkeypatch.setattr("cbs.curvature.gauss_newton.WIDEST", 2)
    with pytest.raises(ValueError, match="curvature by all 3 outputs of a sample, its limit is 2"):
        gauss_newton_diagonal(seeded(mlp), find_layers(seeded(mlp)), samples(5), F.cross_entropy)
