import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature.backward_recursion import recursion, why_not
from cbs.curvature.diagonal import gauss_newton_diagonal
from cbs.curvature.hessian_diagonal import hessian_diagonal as exact_diagonal
from cbs.data import Samples, mnist
from cbs.methods import get_method
from cbs.network.layers import Layer, find_layers
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def squared_error(outputs, targets):
    return (outputs - torch.eye(3, dtype=outputs.dtype)[targets]).square().sum()


LOSSES = {"cross entropy": F.cross_entropy, "squared error": squared_error}


def pooled(dtype=torch.float64):
    """A convolutional network with every kind of module that there is a rule for."""
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2, 2, 2, padding=1, bias=False),
        nn.Softplus(),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(2 * 2 * 2, 5),
        nn.PReLU(),
        nn.Linear(5, 3),
    )
    model[1].running_var *= 3.0
    return model.to(dtype).eval()


def hessian_diagonal(model, layer, data, loss):
    """`[m, n]` diagonal of the dense Hessian of the mean loss by one layer's weights."""
    name, W = f"{layer.name}.weight", layer.module.weight.detach()
    total = torch.zeros(layer.size, dtype=torch.float64)
    for x, y in zip(data.inputs, data.targets, strict=True):
        value = lambda w, x=x, y=y: loss(functional_call(model, {name: w}, (x[None],)), y[None])  # noqa: E731
        total += torch.diagonal(jacrev(jacrev(value))(W).reshape(layer.size, layer.size))
    return (total.detach() / len(data)).reshape(layer.shape)


def dense_recursion(model, data, loss, second):
    """The recursion's definition on a chain of modules, sample by sample, from their dense derivatives."""
    found = {}
    for x, y in zip(data.inputs, data.targets, strict=True):
        values = [x[None]]
        for module in model:
            values.append(module(values[-1].clone()).detach())
        tail = lambda o, y=y: loss(o, y[None])  # noqa: E731
        h = torch.diagonal(jacrev(jacrev(tail))(values[-1]).reshape(values[-1].numel(), -1))
        g = jacrev(tail)(values[-1]).flatten()
        for i in reversed(range(len(model))):
            module, point = model[i], values[i]
            if hasattr(module, "weight") and not isinstance(module, nn.BatchNorm2d | nn.PReLU):
                layer = Layer(str(i), module)
                rows = layer.flatten(h.reshape(values[i + 1].shape))
                part = torch.einsum("pi,pj->ij", rows, layer.unfold(point) ** 2).detach()
                found[str(i)] = found.get(str(i), 0) + part / len(data)
            run = lambda v, module=module: module(v.clone()).flatten()  # noqa: E731
            J = jacrev(run)(point).reshape(len(h), -1)
            bent = torch.zeros(point.numel(), dtype=torch.float64)
            if second and isinstance(module, nn.Tanh | nn.SiLU | nn.Softplus | nn.PReLU | nn.ReLU):
                bend = jacrev(jacrev(run))(point).reshape(len(h), point.numel(), point.numel())
                bent = torch.einsum("ijj,i->j", bend, g)
            h, g = (J.square().T @ h + bent).detach(), (J.T @ g).detach()
    return found


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    ("make", "data"), [(mlp, samples(7)), (convnet, image_samples(3)), (pooled, image_samples(2))]
)
def test_recursion_is_its_definition(make, data, kind, second):
    model = seeded(make)
    found = recursion(model, find_layers(model), data, LOSSES[kind], second=second)
    expected = dense_recursion(model, data, LOSSES[kind], second)
    assert found.keys() == expected.keys()
    for name, h in expected.items():
        assert float(h.abs().max()) > 0
        torch.testing.assert_close(found[name], h, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("make", "data"), [(mlp, samples(7)), (pooled, image_samples(4))])
def test_the_last_layer_is_exact(make, data, kind):
    model = seeded(make)
    *_, last = find_layers(model)
    found = recursion(model, [last], data, LOSSES[kind], second=True)[last.name]
    torch.testing.assert_close(found, hessian_diagonal(model, last, data, LOSSES[kind]))
    without = recursion(model, [last], data, LOSSES[kind], second=False)[last.name]
    torch.testing.assert_close(without, gauss_newton_diagonal(model, [last], data, LOSSES[kind])[last.name])


def test_single_units_are_exact():
    """A chain of units that feed one other each, up to outputs that a squared error does not couple."""
    model, data = seeded(mlp, sizes=(4, 1, 1, 3)), samples(9, (4,))
    layers = find_layers(model)
    found = recursion(model, layers, data, squared_error, second=True)
    without = recursion(model, layers, data, squared_error, second=False)
    gauss_newton = gauss_newton_diagonal(model, layers, data, squared_error)
    for layer in layers:
        expected = hessian_diagonal(model, layer, data, squared_error)
        torch.testing.assert_close(found[layer.name], expected)
        torch.testing.assert_close(without[layer.name], gauss_newton[layer.name])
    assert not torch.allclose(found["0"], without["0"], rtol=1e-3)


class Functional(nn.Module):
    """Residual and functional, as networks are written by hand; `sequence` is its chain for no residual."""

    def __init__(self, residual):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.fc, self.residual = nn.Linear(3, 3), residual

    def forward(self, x):
        x = torch.tanh(self.a(x))
        y = F.relu(self.b(x), inplace=True)
        if self.residual:
            y = y + x
        y = F.max_pool2d(y, 2)
        y = F.dropout(y, 0.3, self.training)
        y = F.avg_pool2d(y, 2, ceil_mode=True).mean((2, 3))
        return self.fc(y.view(x.size(0), -1))

    @property
    def sequence(self):
        return nn.Sequential(
            self.a, nn.Tanh(), self.b, nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.fc,
        ).eval()  # fmt: skip


def test_functions_are_followed_as_modules_are():
    model, data = seeded(lambda: Functional(False)).double().eval(), image_samples(5)
    found = recursion(model, find_layers(model), data, F.cross_entropy, second=True)
    chain = model.sequence
    expected = recursion(chain, find_layers(chain), data, F.cross_entropy, second=True)
    assert list(found) == ["a", "b", "fc"]
    for name, other in zip(found, expected, strict=True):
        torch.testing.assert_close(found[name], expected[other])


def test_around_a_residual_sum_both_ways_are_added():
    model, data = seeded(lambda: Functional(True)).double().eval(), image_samples(5)
    layers = find_layers(model)
    found = recursion(model, layers, data, F.cross_entropy, second=False)
    total = torch.zeros(3, 18, dtype=torch.float64)
    for x, y in zip(data.inputs, data.targets, strict=True):
        a = model.a(x[None])
        z = torch.tanh(a)
        inner = model.b(z)
        tail = lambda v: model.fc(  # noqa: E731
            F.avg_pool2d(F.max_pool2d(v, 2), 2, ceil_mode=True).mean((2, 3))
        )
        top = F.relu(inner) + z
        J = jacrev(tail)(top).reshape(3, -1)  # selecting, averaging and weighted: one entry a way
        B = jacrev(jacrev(lambda o, y=y: F.cross_entropy(o, y[None])))(tail(top)).reshape(3, 3)
        h = torch.einsum("ij,i->j", J.square(), torch.diagonal(B))
        K = jacrev(model.b)(z).reshape(inner.numel(), -1)
        h = h + K.square().T @ (h * (inner.flatten() > 0))
        h = (h * (1 - z.flatten() ** 2) ** 2).reshape(z.shape)
        layer = layers[0]
        total += torch.einsum("pi,pj->ij", layer.flatten(h), layer.unfold(x[None]) ** 2)
    torch.testing.assert_close(found["a"], (total / len(data)).detach())


@pytest.mark.parametrize("name", ["obd-recursion", "obd-exact", "obd-sd-fisher", "obd-sd-spread"])
@pytest.mark.parametrize("make", [mlp, convnet])
def test_methods_prune_by_half_h_w_squared(make, name):
    data = samples(30) if make is mlp else image_samples(20)
    model = seeded(make)
    method = get_method(name)
    result = cbs.prune(model, data, method=name, sparsity=0.5, certify=False)
    models = Network(model, data)(method.curvature)
    scores = np.concatenate(
        [
            (0.5 * q.diagonal * layer.module.weight.detach().reshape(layer.shape).numpy() ** 2).ravel()
            for q, layer in zip(models, find_layers(model), strict=True)
        ]
    )
    gone = np.concatenate([mask.flatten().numpy() for mask in result.masks.values()])
    assert gone.sum() == round(0.5 * gone.size)
    assert scores[gone].max() < scores[~gone].min()
    if name != "obd-sd-spread":
        assert result.measured.prediction == pytest.approx(scores[gone].sum(), rel=1e-9)


def test_negative_curvatures_go_first_and_are_counted():
    model, data = seeded(mlp), samples(30)
    result = cbs.prune(model, data, method="obd-recursion", sparsity=0.1, certify=False)
    layers = find_layers(model)
    found = recursion(model, layers, data, F.cross_entropy, second=True)
    h = torch.cat([found[layer.name].flatten() for layer in layers])
    count = int((h < 0).sum())
    assert 6 < count == result.history[0].stats["negative_curvatures"]
    gone = torch.cat([mask.flatten() for mask in result.masks.values()])
    assert float(h[gone].max()) < 0
    assert result.measured.prediction < 0


class Branching(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.fc, self.out, self.how = nn.Linear(6, 6), nn.Linear(6, 3), how

    def forward(self, x):
        x = self.fc(x)
        return self.out(self.how(x))


def on_values(x):
    return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (nn.LayerNorm(6), r"module 'how' \(LayerNorm\)"),
        (nn.Softmax(dim=1), r"module 'how' \(Softmax\)"),
        (torch.exp, "for 'exp' at 'exp'"),
        (lambda x: x * x, "for 'mul' at 'mul'"),
        (lambda x: x + x, "for 'add' at 'add'"),
        (lambda x: x.T.T, "for 'getattr' at"),
        (lambda x: (x[:, None] * torch.ones(2, 1)).mean(1), "for entries that are repeated, .* to"),
        (on_values, "can't follow the network module by module"),
    ],
)
def test_what_has_no_rule_is_refused_in_one_line(how, message):
    model = Branching(how)
    with pytest.raises(ValueError, match=f"^method 'obd-recursion' .*{message}.*; take .*'obd'") as error:
        cbs.prune(model, samples(8, dtype=torch.float32), sparsity=0.5, method="obd-recursion")
    assert "\n" not in str(error.value)


def test_a_hook_that_changes_an_answer_is_noticed():
    model = Functional(False).eval()
    model.register_forward_hook(lambda module, args, output: 2 * output)
    data = image_samples(4)
    reason = why_not(Network(model, Samples(data.inputs.float(), data.targets)))
    assert "its answer is then another" in reason


def test_a_loss_without_second_derivatives_is_refused():
    data = Samples(torch.randn(8, 6), torch.randn(8, 3))
    with pytest.raises(ValueError, match="no derivative by any weight") as error:
        cbs.prune(mlp(dtype=torch.float32), data, sparsity=0.5, method=without_second(), loss="l1_loss")
    assert "\n" not in str(error.value)


def without_second():
    return cbs.Method(cbs.RecursionDiagonal(second=False), cbs.Scores("obd"), cbs.Nothing())


@pytest.mark.slow
def test_mnist_recursion_beside_the_gauss_newton_diagonal():
    folder = os.environ.get("CBS_DATA")
    if not folder:
        pytest.skip("CBS_DATA names no data folder")
    model = cbs.mlpnet(os.path.join(folder, "mlpnet_93.97.npz")).double()
    data = mnist(folder).train.choose(500)
    data = Samples(data.inputs.double(), data.targets)
    layers = find_layers(model)
    found = recursion(model, layers, data, F.cross_entropy, second=True)
    known = gauss_newton_diagonal(model, layers, data, F.cross_entropy)
    exact = exact_diagonal(model, layers, data, F.cross_entropy)
    torch.testing.assert_close(found["fc3"], exact["fc3"])
    for name, h in exact.items():  # ReLU does not bend, so that nothing but the loss does
        torch.testing.assert_close(known[name], h)
    for name in ("fc1", "fc2"):
        ranks = [h.flatten().argsort().argsort().double() for h in (found[name], known[name])]
        assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.9
