"""The Gauss-Newton matrix written out, against Jacobians and Hessians of every sample."""

import pytest
import torch
from torch import nn

from cbs.data import Samples
from cbs.network.surgery import clone
from cbs.refit import normal_equations
from cbs.refit.divergence import Probabilities, Squares
from cbs.refit.movable import find_movable
from cbs.refit.normal_equations import find_structure, normal_matrix
from cbs.refit.passes import Passes
from tests.cbs.networks import masked, seeded
from tests.cbs.refit.test_passes import DIVERGENCES, MAKE, dense_matrix, problem


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", MAKE)
def test_the_matrix_is_that_of_all_jacobians(name, divergence, monkeypatch):
    monkeypatch.setattr(normal_equations, "CHUNK", 5)
    passes, vector, data = problem(name, DIVERGENCES[divergence])
    structure = find_structure(passes, vector, data)
    assert {name for name, _ in structure.layers} == {
        "mlp": {"0", "2", "4"},
        "convnet": {"6"},
        "residual": {"fc"},
    }[name]
    assert (len(structure.rest) == 0) is (name == "mlp")
    G = normal_matrix(passes, vector, data, structure)
    torch.testing.assert_close(G, dense_matrix(passes, vector, data), rtol=1e-9, atol=1e-12)
    assert torch.equal(G, G.T)


class Shared(nn.Module):
    """A linear layer at several places, one that runs twice, and one between changes in place."""

    def __init__(self):
        super().__init__()
        self.places, self.twice, self.once = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.places(x.reshape(len(x), 2, 3)).tanh().mean(dim=1)
        x = self.twice(self.twice(x).tanh())
        return torch.relu_(self.once(x.relu_())) + x[:, :3]


def test_only_layers_of_one_place_have_the_fast_form():
    model, dense = masked(seeded(Shared).double(), 0.3), seeded(Shared).double()
    movable = find_movable(model, clone(model))
    passes = Passes(clone(model), movable, Probabilities())
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data, vector = Samples(x, dense(x).detach(), batch=3), movable.vector(movable.base)
    structure = find_structure(passes, vector, data)
    assert [name for name, _ in structure.layers] == ["once"]
    G = normal_matrix(passes, vector, data, structure)
    torch.testing.assert_close(G, dense_matrix(passes, vector, data), rtol=1e-9, atol=1e-12)


def test_rows_of_which_nothing_is_left_have_their_bias():
    model = masked(seeded(MAKE["mlp"]))
    with torch.no_grad():
        model[2].weight_mask[1] = 0
    movable = find_movable(model, clone(model))
    passes = Passes(clone(model), movable, Squares())
    data = Samples(torch.randn(5, 6, dtype=torch.float64), torch.zeros(5, 3, dtype=torch.float64))
    vector = movable.vector(movable.base)
    structure = find_structure(passes, vector, data)
    (rows,) = [rows for name, rows in structure.layers if name == "2"]
    assert rows[1].inputs.tolist() == [5]
    G = normal_matrix(passes, vector, data, structure)
    torch.testing.assert_close(G, dense_matrix(passes, vector, data), rtol=1e-9, atol=1e-12)


class Cast(nn.Module):
    """Layers that run in bfloat16, and one of several places that does not."""

    def __init__(self):
        super().__init__()
        self.places, self.low, self.last = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.places(x.reshape(len(x), 2, 3)).tanh().mean(dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            return self.last(self.low(x).tanh()).float()


def test_layers_may_run_in_types_of_their_own():
    model = masked(seeded(Cast))
    movable = find_movable(model, clone(model))
    passes = Passes(clone(model), movable, Squares())
    data = Samples(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 3))
    vector = movable.vector(movable.base)
    structure = find_structure(passes, vector, data)
    assert [name for name, _ in structure.layers] == ["low", "last"]
    assert len(structure.rest) > 0
    G, wanted = normal_matrix(passes, vector, data, structure), dense_matrix(passes, vector, data)
    assert float((G - wanted).norm()) < 0.05 * float(wanted.norm())  # bfloat16 has 8 bits
