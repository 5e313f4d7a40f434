"""Factors: blocks as they are by hand, exact where their assumption holds, and an inverse that is one."""

import pytest
import torch
from torch import nn

from cbs.data import Samples
from cbs.network.surgery import clone
from cbs.refit import preconditioner
from cbs.refit.divergence import Squares
from cbs.refit.movable import find_movable
from cbs.refit.normal_equations import FLOOR
from cbs.refit.passes import Passes
from cbs.refit.preconditioner import factors
from tests.cbs.networks import masked
from tests.cbs.refit.test_passes import MAKE, dense_matrix, problem


def test_of_a_linear_network_the_blocks_are_the_matrix():
    """Half the squared distance has `B = I`: a row's block is `E[x x']`, with ones for the bias."""
    model = masked(nn.Sequential(nn.Linear(6, 4, dtype=torch.float64)))
    movable = find_movable(model, clone(model))
    passes, vector = Passes(clone(model), movable, Squares()), movable.vector(movable.base)
    data = Samples(torch.randn(20, 6, dtype=torch.float64), torch.zeros(20, 4, dtype=torch.float64))
    found, G = factors(passes, vector, data, seed=0), dense_matrix(passes, vector, data)
    d = G.diagonal()
    torch.testing.assert_close(found.diagonal, d + FLOOR * d.mean(), rtol=1e-9, atol=1e-12)
    written = torch.zeros_like(G)
    for places, blocks in found.blocks:
        for at, block in zip(places, blocks, strict=True):
            written[at[:, None], at[None, :]] = block
    torch.testing.assert_close(written, G, rtol=1e-9, atol=1e-12)
    v = torch.randn(len(vector), dtype=torch.float64)
    expected = torch.linalg.solve(G + 0.1 * torch.diag(found.damped), v)
    torch.testing.assert_close(found.inverse(0.1)(v), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", MAKE)
def test_blocks_are_gram_factors_of_the_survivors(name, monkeypatch):
    monkeypatch.setattr(preconditioner, "PROBES", 1)
    passes, vector, data = problem(name, Squares(), batch=100)
    found = factors(passes, vector, data, seed=0)
    places = torch.cat([at.reshape(-1) for at, _ in found.blocks])
    assert len(places) == len(set(places.tolist()))
    in_layers = sum(
        part.count for part in passes.movable.parts if "norm" not in part.name and part.name[:2] != "1."
    )
    assert len(places) == in_layers
    for _, blocks in found.blocks:
        assert bool((torch.linalg.eigvalsh(blocks) > -1e-9).all())
    assert bool((found.diagonal > 0).all())
    inverse = found.inverse(0.01)
    M = torch.stack([inverse(e) for e in torch.eye(len(vector), dtype=torch.float64)])
    torch.testing.assert_close(M, M.T, rtol=1e-7, atol=1e-9 * float(M.abs().max()))
    assert float(torch.linalg.eigvalsh(M)[0]) > 0


def test_the_diagonal_of_what_has_no_block_is_that_of_the_matrix_on_average():
    passes, vector, data = problem("residual", Squares(), batch=100)
    d = dense_matrix(passes, vector, data).diagonal()
    found = torch.stack([factors(passes, vector, data, seed).diagonal for seed in range(40)]).mean(dim=0)
    norms = torch.cat(
        [
            torch.arange(*part.place.indices(len(vector)))
            for part in passes.movable.parts
            if "norm" in part.name
        ]
    )
    assert len(norms) == 16
    torch.testing.assert_close(found[norms], d[norms] + FLOOR * d.mean(), rtol=0.6, atol=1e-4)


def test_what_is_too_large_has_its_diagonal(monkeypatch):
    monkeypatch.setattr(preconditioner, "FACTORS", 10)
    passes, vector, data = problem("mlp", Squares())
    found = factors(passes, vector, data, seed=0)
    assert found.blocks == ()
    v = torch.ones_like(vector)
    torch.testing.assert_close(found.inverse(0.5)(v), v / (found.diagonal + 0.5 * found.damped))
