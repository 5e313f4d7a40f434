"""One split for many rows: the d that maximises the sum of their bounds, by a barrier method."""

from __future__ import annotations

from collections.abc import Callable

from solvers.bounds.shared.admm import Ascent, ascend, slope, start
from solvers.bounds.shared.rows import SharedRows
from solvers.runtime.tensors import Tensor, torch

FIRST_STEPS, STEPS = 15, 4
"""Steps of the rows' relaxations before the first step of d, and between two."""
COOL = 0.6
"""Factor of the barrier's weight from step to step."""
LAST = 1e-3
"""Weight of the barrier at the end, relative to the first."""
NEAR = 0.9
"""Share of the way to the boundary that a step may go."""
STUCK = 1e-3
"""A step shorter than this ends the method."""
SHRINK = 0.3
"""Share of an entry of d that a step leaves of it at least."""


def largest_split(H: Tensor, inverse: Tensor) -> Tensor:
    """`[n]` most of the way to the boundary along `d = t / diag(H^-1)`."""
    scale = torch.diagonal(inverse).rsqrt()
    A = inverse * scale[:, None] * scale[None, :]
    x = torch.ones_like(scale)
    for _ in range(30):
        x = A @ (x / torch.linalg.vector_norm(x))
    d: Tensor = NEAR / torch.linalg.vector_norm(x) * scale**2
    while not _definite(H, d):
        d = 0.7 * d
    return d


def shared_split(
    rows: SharedRows,
    inverse: Tensor,
    d: Tensor,
    *,
    shift: float = 0.0,
    most: int | None = None,
    stopped: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Ascent, int]:
    """Improve a split of all rows, from one strictly inside.

    With the rows' relaxations at hand, g is the gradient of the sum of their bounds
    (`solvers.bounds.shared.admm.slope`), and a step of d is a Newton step on

        -sum_i g_i d_i^2 / d'_i  +  mu log det(H - diag(d'))  +  mu sum_i log d'_i

    whose first term has that gradient, and curvature as if a bound's scores `q^2 / (2 d)` alone changed. Then
    mu falls. Each step costs a few `n^3`; the relaxations follow by a few products each.

    Args:
        rows: the rows, in double precision; H positive definite.
        inverse: `H^-1`.
        d: `[n]` positive, with `H - diag(d)` positive definite.
        shift: what was added to the diagonal of a selection problem's H, so that d is positive.
        most: steps at most.
        stopped: polled between steps; a true answer ends them.

    Returns:
        d, the relaxations there, and the number of steps.
    """
    at = ascend(rows, d, inverse, start(rows), FIRST_STEPS, shift)
    S = _inverse(rows.H, d)
    mu = first = 0.0
    steps = 0
    while mu >= LAST * first and steps != most and not stopped():
        g = slope(rows, d, at)
        if not steps:
            mu = first = float((g * d).sum()) / len(d)
            if mu == 0.0:
                break
        M = mu * S * S + torch.diag(2.0 * g / d + mu / d**2)
        move = _solve(M, g + mu / d - mu * torch.diagonal(S))
        if move is None:
            break
        steps += 1
        d, reach = _move(rows.H, d, torch.maximum(move, (SHRINK - 1.0) * d))
        if not reach:
            break
        S = _inverse(rows.H, d)
        at = ascend(rows, d, inverse, at, STEPS, shift)
        if reach > 0.5:
            mu *= COOL
    return d, at, steps


def _move(H: Tensor, d: Tensor, move: Tensor) -> tuple[Tensor, float]:
    reach = 1.0
    while reach > STUCK:
        if _definite(H, d + reach / NEAR * move) and _definite(H, d + reach * move):
            return d + reach * move, reach
        reach *= 0.7
    return d, 0.0


def _definite(H: Tensor, d: Tensor) -> bool:
    return int(torch.linalg.cholesky_ex(H - torch.diag(d)).info) == 0


def _inverse(H: Tensor, d: Tensor) -> Tensor:
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(H - torch.diag(d)))
    return inverse


def _solve(A: Tensor, b: Tensor) -> Tensor | None:
    """`A^-1 b`, or None if rounding leaves A indefinite."""
    factor, info = torch.linalg.cholesky_ex(A)
    return None if int(info) else torch.cholesky_solve(b[:, None], factor)[:, 0]
