"""Moments of the outputs' derivatives: against dense Jacobians in double precision, and by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import cbs
from cbs.curvature import OutputDiagonal, OutputGram, output_gram
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


class Twice(nn.Module):
    """A layer that runs twice a pass."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        """Outputs `[N, 3]`."""
        return self.out(torch.tanh(self.fc(torch.tanh(self.fc(x)))))


def prelu():
    return nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 3)).double().eval()


def tokens():
    """A layer on positions `[N, 3, 2]`, then one on all of them."""
    parts = nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    return nn.Sequential(*parts).double().eval()


CASES = {
    "mlp": (mlp, {}, samples(30)),
    "without biases": (mlp, {"bias": False}, samples(30)),
    "prelu": (prelu, {}, samples(30)),
    "cnn with batch norm": (convnet, {}, image_samples(9)),
    "positions": (tokens, {}, samples(20)),
    "run twice": (lambda: Twice().double().eval(), {}, samples(20)),
}


def dense(model, data, name):
    """`E sum_k J_ki J_ki'` of a layer, `[m, n + 1, n + 1]`, from the Jacobian by its parameters."""
    layer = model.get_submodule(name)
    keys = [f"{name}.{key}" for key, _ in layer.named_parameters()]
    values = {key: model.get_parameter(key).detach() for key in keys}
    found = 0.0
    for x in data.inputs:
        J = jacrev(lambda v, x=x: functional_call(model, v, (x[None],)).flatten())(values)
        rows = [J[key].reshape(len(J[key]), values[key].shape[0], -1) for key in keys]
        J = torch.cat(rows, dim=2)
        found = found + torch.einsum("kmi,kmj->mij", J, J)
    return (found / len(data)).detach().numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_rows_matrix_is_that_of_the_dense_jacobian(case):
    make, options, data = CASES[case]
    network = Network(seeded(make, **options), data)
    stacked, apart = network(OutputGram(damping=0.0)), network(OutputDiagonal())
    for layer, model, single in zip(network.layers, stacked, apart, strict=True):
        H, n = dense(network.model, data, layer.name), layer.shape[1]
        np.testing.assert_allclose(model.H, H, rtol=1e-9, atol=1e-12 * np.abs(H).max())
        assert model.bias == single.bias == (layer.bias is not None)
        diagonal = np.diagonal(H, axis1=1, axis2=2)[:, :n]
        if model.bias:
            S = H[:, :n, :n] - H[:, :n, n:] @ H[:, n:, :n] / H[:, n:, n:]
            diagonal = np.diagonal(S, axis1=1, axis2=2)
            np.testing.assert_allclose(single.H.shifts, H[:, n, :n] / H[:, n, n:], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(single.H.corner, H[:, n, n], rtol=1e-9)
        limit = 1e-11 * np.abs(H).max()
        np.testing.assert_allclose(single.diagonal, diagonal, rtol=1e-8, atol=limit)
        np.testing.assert_allclose(model.own_diagonal, diagonal, rtol=1e-8, atol=limit)


def test_a_row_of_one_position_has_the_weighted_gram_and_variance_of_the_paper():
    model, data = seeded(mlp, sizes=(6, 5, 3)), samples(50)
    z = torch.tanh(model[0](data.inputs)).detach()
    V, W = model[2].weight.detach(), model[0].weight.detach()
    omega = ((1 - z**2)[:, None] * V[None]).square().sum(dim=1)  # sum_k (dy_k/da_i)^2, [N, 5]
    (first, _) = Network(model, data)(OutputDiagonal())
    x, share = data.inputs, omega / omega.sum(dim=0)
    mean = share.T @ x
    variance = torch.einsum("si,sij->ij", share, (x[:, None] - mean) ** 2)
    np.testing.assert_allclose(first.H.values, omega.mean(dim=0)[:, None] * variance, rtol=1e-9)
    np.testing.assert_allclose(first.H.shifts, mean, rtol=1e-9)
    assert first.W.shape == (W.shape[0], W.shape[1] + 1)


def test_a_constant_input_does_not_matter():
    data = samples(30)
    data.inputs[:, 2] = 3.0
    (first, *_) = Network(seeded(mlp), data)(OutputDiagonal())
    assert first.diagonal[:, 2].max() < 1e-12 * first.diagonal.max()
    np.testing.assert_allclose(first.H.shifts[:, 2], 3.0)


def test_a_unit_that_the_outputs_do_not_see_keeps_its_bias():
    model = seeded(mlp)
    model[2].weight.data[:, 1] = 0.0
    network = Network(model, samples(30))
    masks = [np.ones((5, 6), dtype=bool)]
    for curvature in (OutputDiagonal(), OutputGram(damping=0.0), OutputGram(damping=0.1)):
        first = network(curvature)[0]
        moved = first.settle(masks)
        assert moved[1, -1] == first.W[1, -1]
        assert (moved[[0, 2], -1] != first.W[[0, 2], -1]).all()


def test_damping_is_relative_to_each_rows_mean_and_spares_the_bias():
    network = Network(seeded(mlp), samples(30))
    plain, damped = network(OutputGram(damping=0.0))[0], network(OutputGram(damping=0.5))[0]
    means = np.diagonal(plain.H, axis1=1, axis2=2)[:, :6].mean(axis=1)
    np.testing.assert_allclose(damped.damping, 0.5 * means)
    expected = plain.H + 0.5 * means[:, None, None] * np.diag([1.0] * 6 + [0.0])
    np.testing.assert_allclose(damped.H, expected)
    np.testing.assert_allclose(damped.diagonal, plain.diagonal, rtol=1e-12)


def test_batches_add_up():
    data = samples(70)
    whole = Network(seeded(mlp), data)(OutputGram(damping=0.0))
    parts = Network(seeded(mlp), [(data.inputs[i : i + 9], data.targets[i : i + 9]) for i in range(0, 70, 9)])
    for one, other in zip(whole, parts(OutputGram(damping=0.0)), strict=True):
        np.testing.assert_allclose(one.H, other.H, rtol=1e-10)


class Last(nn.Module):
    """Gives its layer the samples last."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        """Outputs `[N, 9]` of `[N, 6]`."""
        return self.fc(x.reshape(len(x), 3, 2).transpose(0, 1)).transpose(0, 1).flatten(1)


def test_what_can_not_be_had_is_refused_in_one_line(monkeypatch):
    with pytest.raises(ValueError, match=r"layer 'fc' has inputs of shape \[3, 30, 2\]") as error:
        Network(Last().double().eval(), samples(30))(OutputDiagonal())
    assert "\n" not in str(error.value)
    network = Network(seeded(mlp), samples(30))
    with monkeypatch.context() as patch:
        patch.setattr(output_gram, "free_memory", lambda: 1000.0)
        with pytest.raises(ValueError, match=r"a matrix for every row takes 0\.0 GiB") as error:
            network(OutputGram())
    assert "\n" not in str(error.value)
    monkeypatch.setattr(output_gram, "WIDEST", 2)
    with pytest.raises(ValueError, match="each of the 3 outputs of a sample, the limit is 2"):
        network(OutputDiagonal())
    for method in ("elimination", "elimination-joint"):
        with pytest.raises(ValueError, match=rf"^method '{method}' needs .* of the 3 outputs") as error:
            cbs.prune(seeded(mlp), samples(30), sparsity=0.5, method=method)
        assert "\n" not in str(error.value)


def test_outputs_without_derivatives_are_refused():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(torch.tanh(self.fc(x)).detach())

    network = Network(seeded(Detached).double().eval(), samples(30))
    with pytest.raises(
        ValueError, match="layer 'fc': outputs depend on its weights, but the outputs have no"
    ):
        network(OutputDiagonal())
