"""The saddle functions of one block, compiled, against the batched ones that autograd checks."""

import numpy as np
import pytest
import torch

from solvers.bounds.interior import block_saddle, saddle
from tests.solvers.oracles import gram

N = 6


def both(refit, columns, rng):
    """The compiled derivatives and the batched ones at a random point."""
    H, B, constant = gram(rng, N), rng.standard_normal((N, columns)), float(rng.standard_normal())
    z, d = rng.uniform(0.1, 0.9, N), rng.uniform(0.01, 0.5, N) * (1 if refit else rng.choice([-1, 1], N))
    data = block_saddle.Data(refit, H, B, constant, np.zeros(N, np.int64), np.array([3.0]))
    square = [np.full((N, N), 7.0) for _ in range(3)]
    out = block_saddle.Derivatives(np.empty(N), np.empty(N), *square)
    value = (block_saddle.joint if refit else block_saddle.selection)(data, z, d, out)
    A, C = torch.as_tensor(H)[None], torch.as_tensor(B)[None]
    phi = (
        saddle.joint(A, C, torch.tensor([constant], dtype=A.dtype))
        if refit
        else saddle.selection(A, C[:, :, 0])
    )
    at = phi(torch.as_tensor(z)[None], torch.as_tensor(d)[None])
    return value, out, at


@pytest.mark.parametrize(("refit", "columns"), [(True, 1), (True, 3), (False, 1)])
def test_one_block_has_the_derivatives_of_its_batch(refit, columns, rng):
    value, out, at = both(refit, columns, rng)
    assert value == pytest.approx(float(at.value[0]), rel=1e-10)
    zd, expected = (out.zd, at.zd[0]) if refit else (np.diag(out.zd), torch.diagonal(at.zd[0]))
    np.testing.assert_allclose(zd, expected, rtol=1e-8, atol=1e-10)
    for found, batched in ((out.z, at.z), (out.d, at.d), (out.zz, at.zz), (-out.dd, at.dd)):
        np.testing.assert_allclose(found, batched[0], rtol=1e-8, atol=1e-10)
