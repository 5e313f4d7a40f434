import pytest
import torch
from torch import nn
from torch.func import jacrev

from cbs.curvature import rules
from cbs.network.layers import Layer
from tests.cbs.networks import seeded


def dense_rule(run, x, h, g):
    """`sum_i (dy_i/dx_j)^2 h_i + sum_i d2y_i/dx_j^2 g_i` of one sample, from dense derivatives."""
    J = jacrev(run)(x).reshape(h.numel(), -1)
    bend = jacrev(jacrev(run))(x).reshape(h.numel(), x.numel(), x.numel())
    bent = torch.einsum("ijj,i->j", bend, g.flatten())
    return (torch.einsum("ij,i->j", J.square(), h.flatten()) + bent).reshape(x.shape)


def drawn(run, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    y = run(x)
    h, g = (torch.randn(y.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, h, g


def normalisation(kind):
    layer = kind(3).double().eval()
    layer.running_mean += 0.3
    layer.running_var *= torch.tensor([0.5, 2.0, 3.0])
    layer.weight.data *= torch.tensor([-1.5, 0.2, 3.0])
    return layer


PLAIN = [
    kind for kind in rules.ELEMENTWISE if kind not in (nn.PReLU, nn.BatchNorm1d, nn.BatchNorm2d)
]  # fmt: skip


@pytest.mark.parametrize("make", [*PLAIN, lambda: nn.PReLU(3).double(), lambda: nn.ReLU(inplace=True)])
def test_an_activation_bends_and_scales(make):
    module = make().eval()
    x, h, g = drawn(lambda x: module(x.clone()), (3, 4))
    found = rules.elementwise(module, x, h, g)
    flat = rules.elementwise(module, x, h, None)
    for s in range(len(x)):
        run = lambda point: module(point[None].clone())[0]  # noqa: E731
        torch.testing.assert_close(found[s], dense_rule(run, x[s], h[s], g[s]))
        torch.testing.assert_close(flat[s], dense_rule(run, x[s], h[s], 0 * g[s]))


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (3,)), (nn.BatchNorm2d, (3, 2, 2))])
def test_a_normalisation_scales_each_channel(kind, shape):
    module = normalisation(kind)
    x, h, g = drawn(module, shape)
    found = rules.elementwise(module, x, h, g)
    scale = (module.weight / (module.running_var + module.eps).sqrt()).square()
    torch.testing.assert_close(found, h * scale.detach().reshape(-1, *[1] * (len(shape) - 1)))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Identity(), (3, 2)),
        (nn.Flatten(), (3, 2, 2)),
        (nn.Unflatten(1, (2, 3)), (6,)),
        (nn.Dropout(0.5).eval(), (4,)),
        (nn.MaxPool1d(2), (3, 6)),
        (nn.MaxPool2d(2), (2, 4, 4)),
        (nn.MaxPool2d(3, stride=1, padding=1), (2, 4, 4)),
    ],
)
def test_what_selects_sends_back_where_it_took_from(module, shape):
    x, h, g = drawn(module, shape)
    found = rules.selecting(module, x, h)
    for s in range(len(x)):
        expected = dense_rule(lambda point: module(point[None])[0], x[s], h[s], g[s])
        torch.testing.assert_close(found[s], expected)


@pytest.mark.parametrize(
    "module",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((3, 2)),
    ],
)
def test_a_mean_sends_back_its_squared_shares(module):
    x, h, g = drawn(module, (2, 5, 5))
    found = rules.averaging(module, x, h, rules.window_shares(module, x))
    for s in range(len(x)):
        expected = dense_rule(lambda point: module(point[None])[0], x[s], h[s], g[s])
        torch.testing.assert_close(found[s], expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(2, 3, 3),
        lambda: nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(1, 0), bias=False),
        lambda: nn.Conv2d(2, 4, 2, dilation=2, padding=1),
        lambda: nn.Linear(5, 4),
    ],
)
def test_weighted_sums_send_back_squared_weights_and_take_squared_inputs(make):
    module = seeded(make).double()
    linear = isinstance(module, nn.Linear)
    x, h, _ = drawn(module, (5,) if linear else (2, 5, 6))
    by_inputs, by_weights = rules.weighted(module, x, h)
    layer = Layer("", module)
    X, rows = layer.unfold(x), layer.flatten(h)
    torch.testing.assert_close(by_weights.reshape(layer.shape), torch.einsum("pi,pj->ij", rows, X**2))
    for s in range(len(x)):
        expected = dense_rule(lambda point: module(point[None])[0], x[s], h[s], 0 * h[s])
        torch.testing.assert_close(by_inputs[s], expected)


def test_a_grouped_convolution_is_one_a_group():
    module = seeded(lambda: nn.Conv2d(4, 6, 3, groups=2)).double()
    x, h, _ = drawn(module, (4, 5, 5))
    by_inputs, by_weights = rules.weighted(module, x, h)
    for k in range(2):
        part = nn.Conv2d(2, 3, 3).double()
        part.weight.data = module.weight.data[3 * k : 3 * k + 3]
        inputs, weights = rules.weighted(part, x[:, 2 * k : 2 * k + 2], h[:, 3 * k : 3 * k + 3])
        torch.testing.assert_close(by_inputs[:, 2 * k : 2 * k + 2], inputs)
        torch.testing.assert_close(by_weights[3 * k : 3 * k + 3], weights)
