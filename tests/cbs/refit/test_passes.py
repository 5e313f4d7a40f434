"""Divergence, gradient and Gauss-Newton products against dense derivatives by torch.func."""

import time

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev
from torch.nn import functional as F

from cbs.data import Samples
from cbs.network.surgery import clone
from cbs.refit.divergence import Classes, Probabilities, Squares
from cbs.refit.movable import find_movable
from cbs.refit.passes import Halted, Passes
from tests.cbs.networks import convnet, image_samples, masked, mlp, residual, samples, seeded

DATA = {"mlp": samples(9), "convnet": image_samples(7), "residual": image_samples(7)}
MAKE = {"mlp": mlp, "convnet": convnet, "residual": residual}
DIVERGENCES = {"classes": Probabilities(), "numbers": Squares(), "labels": Classes(F.cross_entropy)}


def problem(name, divergence, batch=4):
    """Passes of a masked network, where they are, and samples in batches of 4 that know what is matched."""
    data, dense = DATA[name], seeded(MAKE[name])
    model = masked(seeded(MAKE[name]))
    plain = clone(model)
    known = dense(data.inputs).detach() if divergence.dense else data.targets
    movable = find_movable(model, plain)
    passes = Passes(plain, movable, divergence)
    return passes, movable.vector(movable.base), Samples(data.inputs, known, batch=batch)


def dense_matrix(passes, vector, data):
    """`1/N sum_s J_s' B_s J_s`, by Jacobians and Hessians of every sample."""
    movable, total = passes.movable, 0
    for s in range(len(data)):
        x, y = data.inputs[s : s + 1], data.targets[s : s + 1]
        parameters = movable.parameters(vector)
        J = jacrev(lambda p, x=x: functional_call(passes.model, p, (x,)))(parameters)
        o = functional_call(passes.model, parameters, (x,))
        k = o.numel()
        J = torch.cat([J[p.name].reshape(k, -1)[:, p.index] for p in movable.parts], dim=1)
        B = jacrev(jacrev(lambda o, y=y: passes.divergence.values(o, y).sum()))(o).reshape(k, k)
        total = total + J.T @ B @ J
    return total.detach() / len(data)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", MAKE)
def test_value_gradient_and_products_are_exact(name, divergence):
    passes, vector, data = problem(name, DIVERGENCES[divergence])

    def mean(parameters):
        outputs = functional_call(passes.model, parameters, (data.inputs,))
        return passes.divergence.values(outputs, data.targets).mean()

    parameters = passes.movable.parameters(vector)
    value, slope = passes.gradient(vector, data)
    assert value == pytest.approx(float(mean(parameters)), rel=1e-12)
    assert passes.value(vector, data) == pytest.approx(value, rel=1e-12)
    expected = passes.movable.vector(grad(mean)(parameters))
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)
    assert bool(expected.any())
    G = dense_matrix(passes, vector, data)
    v = torch.randn(len(vector), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(passes.product(vector, v, data), G @ v, rtol=1e-9, atol=1e-12)
    passes._forward_mode = False
    torch.testing.assert_close(passes.product(vector, v, data), G @ v, rtol=1e-9, atol=1e-12)


class Backward(torch.autograd.Function):
    """A product by 2 that has no derivative forward."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class Doubling(nn.Module):
    def forward(self, x):
        return Backward.apply(x)


def test_what_can_not_go_forward_goes_backward_twice():
    inner = seeded(mlp)
    model = masked(nn.Sequential(inner, Doubling()))
    twin = nn.Sequential(*clone(model)[0], nn.Linear(3, 3, bias=False, dtype=torch.float64))
    twin[-1].weight = nn.Parameter(2 * torch.eye(3, dtype=torch.float64))
    data = DATA["mlp"]
    found = []
    for plain in (clone(model), twin):
        masks = (
            model if plain is not twin else masked(nn.Sequential(*seeded(mlp), twin[-1]), names=list("024"))
        )
        movable = find_movable(masks, plain)
        passes = Passes(plain, movable, Squares())
        v = torch.linspace(-1, 1, movable.count, dtype=torch.float64)
        found.append(passes.product(movable.vector(movable.base), v, Samples(data.inputs, torch.zeros(9, 3))))
        assert passes._forward_mode is (plain is twin)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


def test_a_network_without_derivatives_is_refused():
    model = masked(nn.Sequential(nn.Linear(6, 3, dtype=torch.float64), Detached()))
    movable = find_movable(model, clone(model))
    passes = Passes(clone(model), movable, Squares())
    with pytest.raises(ValueError, match=r"^refit 'network': model's outputs have no derivatives"):
        passes.attempt(movable.vector(movable.base), Samples(DATA["mlp"].inputs, torch.zeros(9, 3)))


def test_passes_are_left_when_the_time_is_up_or_someone_asks():
    passes, vector, data = problem("mlp", Squares())
    asked = iter([False, True])
    passes.stopped = lambda: next(asked)
    with pytest.raises(Halted):
        passes.value(vector, data)
    passes.stopped, passes.until = (lambda: False), time.perf_counter()
    with pytest.raises(Halted):
        passes.gradient(vector, data)
