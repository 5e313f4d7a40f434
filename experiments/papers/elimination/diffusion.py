"""Trajectories of one-dimensional diffusion-sorption, by the method of lines.

    u_t = D / R(u) u_xx,   R(u) = 1 + (1 - phi) / phi rho k n u^(n - 1)

the retardation factor of Freundlich's isotherm, on 0 < x < 1 and 0 < t <= 500, with u(t, 0) = 1 and
u(t, 1) = -D u_x(t, 1), the outflow of PDEBench (Takamoto et al. 2022). A trajectory has a diffusivity of its
own, D = mu 5e-4 with mu between 1/2 and 2, and starts from a random smooth profile.
"""

import numpy as np
import torch
from scipy.integrate import solve_ivp

from cbs import Samples

POROSITY, DENSITY, FREUNDLICH, EXPONENT, DIFFUSIVITY = 0.29, 2880.0, 3.5e-4, 0.874, 5e-4
GRID, END = 65, 500.0
TIMES = np.linspace(0.0, END, 101)
LEAST = 1e-6
"""Least concentration at which the retardation factor, infinite at zero, is evaluated."""


def retardation(u):
    """`R(u)`."""
    power = np.maximum(u, LEAST) ** (EXPONENT - 1)
    return 1 + (1 - POROSITY) / POROSITY * DENSITY * FREUNDLICH * EXPONENT * power


def trajectory(mu, start):
    """`u [times, grid]` from a profile `start [grid]`."""
    D, dx = mu * DIFFUSIVITY, 1.0 / (GRID - 1)

    def rate(t, inner):
        u = np.concatenate([[1.0], inner, [D / (D + dx) * inner[-1]]])
        return D / retardation(inner) * np.diff(u, 2) / dx**2

    banded = {"uband": 1, "lband": 1}
    found = solve_ivp(rate, (0.0, END), start[1:-1], "LSODA", TIMES, rtol=1e-5, atol=1e-7, **banded)
    inner = found.y.T
    return np.column_stack([np.ones(len(inner)), inner, D / (D + dx) * inner[:, -1]])


def dataset(trajectories, points, seed=0):
    """Inputs (mu, t, x, u0 on the grid), standardised, and outputs u, to train and to test with."""
    rng, x = np.random.default_rng(seed), np.linspace(0.0, 1.0, GRID)
    inputs, outputs = [], []
    for _ in range(trajectories):
        mu = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
        waves = sum(rng.uniform(-0.04, 0.04) * np.sin(np.pi * k * x) for k in (1, 2, 3))
        start = np.clip(rng.uniform(0.0, 0.2) + waves, 0.0, None)
        u = trajectory(mu, start)
        t, place = rng.integers(1, len(TIMES), points), rng.integers(0, GRID, points)
        own = np.column_stack([np.full(points, mu), TIMES[t], x[place], np.tile(start, (points, 1))])
        inputs.append(own)
        outputs.append(u[t, place])
    test = max(1, trajectories // 5)
    X, y = np.stack(inputs), np.stack(outputs)
    known = X[test:].reshape(-1, X.shape[-1])
    mean, spread = known.mean(axis=0), known.std(axis=0)
    X = (X - mean) / np.where(spread > 0, spread, 1.0)
    return samples(X[test:], y[test:]), samples(X[:test], y[:test])


def samples(X, y):
    """As the package takes them."""
    inputs = torch.from_numpy(X.reshape(-1, X.shape[-1])).float()
    return Samples(inputs, torch.from_numpy(y.reshape(-1, 1)).float())


def noisy(data, size, seed):
    """The same samples with `U(-size, size)` added to the outputs."""
    drawn = torch.rand(data.targets.shape, generator=torch.Generator().manual_seed(seed))
    return Samples(data.inputs, data.targets + size * (2 * drawn - 1))
