"""The saddle functions of a block, against automatic differentiation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.bounds.interior import saddle
from tests.solvers.oracles import gram

N = 5


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@settings(derandomize=True, max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), columns=st.integers(1, 3))
def test_derivatives_against_autograd(refit, seed, columns):
    rng = np.random.default_rng(seed)
    columns = columns if refit else 1
    H, B, constant = gram(rng, N), rng.standard_normal((N, columns)), float(rng.standard_normal())
    z, d = rng.uniform(0.1, 0.9, N), rng.uniform(0.01, 0.5, N) * (1 if refit else rng.choice([-1, 1], N))
    data = saddle.Data(refit, H, B, constant, np.zeros(N, np.int64), np.array([3.0]))
    square = [np.full((N, N), 7.0) for _ in range(3)]
    out = saddle.Derivatives(np.empty(N), np.empty(N), *square)
    value = (saddle.joint if refit else saddle.selection)(data, z, d, out)
    A, C, where = torch.as_tensor(H), torch.as_tensor(B), (torch.as_tensor(z), torch.as_tensor(d))

    def phi(z, d):
        if not refit:
            return 0.5 * z @ A @ z - C[:, 0] @ z + 0.5 * (d * z * (1 - z)).sum()
        return constant - 0.5 * (C * torch.linalg.solve(A + torch.diag(d * (1 / z - 1)), C)).sum()

    gz, gd = torch.autograd.functional.jacobian(phi, where)
    (zz, zd), (_, dd) = torch.autograd.functional.hessian(phi, where)
    mixed = out.zd if refit else np.diag(np.diag(out.zd))  # the rest of a selection's is left alone
    found, expected = (out.z, out.d, out.zz, mixed, -out.dd), (gz, gd, zz, zd, dd)
    assert value == pytest.approx(float(phi(*where)), rel=1e-10)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-8, atol=1e-9)
