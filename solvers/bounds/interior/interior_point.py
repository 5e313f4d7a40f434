"""The saddle point of a relaxation over (z, d), by a primal-dual interior-point method in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from solvers.bounds.interior.saddle import Saddle
from solvers.runtime.tensors import Tensor, torch

SHORTEN = 0.9
"""Share of the way to the boundary that a step may go."""
STALL = 1e-6
"""A step shorter than this ends a row's iterations."""
START = 1.0
"""First barrier weight times n, relative to the objective at the start (or one, if that is less)."""


@dataclass(frozen=True)
class SaddlePoint:
    """`z [B, n]`, `d [G, n]` with `G = B`, or 1 when shared, and the number of Newton steps."""

    z: Tensor
    d: Tensor
    steps: int


def saddle_point(
    phi: Saddle,
    H: Tensor,
    counts: Tensor,
    pools: Tensor,
    *,
    positive: bool,
    tolerance: float = 1e-3,
    max_steps: int = 40,
    stopped: Callable[[], object] = lambda: None,
) -> SaddlePoint:
    """`max_d min_z sum phi(z, d)` over `H - diag(d) >= 0`, `0 <= z <= 1`, `sum_pool z = count`.

    A Newton step solves, with `S = (H - diag d)^-1`, its multiplier `X` in the HKM form, and
    `K = phi_zz + L_low / z + L_high / (1 - z)`,

        K dz + phi_zd dd - E' dt = -(phi_z - mu/z + mu/(1 - z) - E't),   E dz = 0,
        (X o S + L_d / d - phi_dd) dd - phi_dz dz = phi_d + mu/d - mu diag(S).

    Every iterate's `d` is a valid split, so nothing depends on convergence: the bound is evaluated
    at what comes back. The objective and `H` should be scaled to order one.

    Args:
        phi: the saddle function of a batch of B rows.
        H: `[G, n, n]`, the matrices to split: `G = B`, or 1 to share one d among all rows. Positive
            definite if `positive`.
        counts: `[B, pools]` sums of z, each strictly between 0 and the pool's size.
        pools: `[pools, n]` membership, 0 or 1.
        positive: require `d > 0`.
        tolerance: stop when the complementarity gap, in units of the objective, is below this.
        max_steps: Newton steps at most.
        stopped: polled between steps; a true answer ends them.
    """
    n, shared = H.shape[-1], len(H) == 1

    def gather(x: Tensor) -> Tensor:
        return x.sum(0, keepdim=True) if shared else x

    def least(x: Tensor) -> Tensor:
        return x.amin(0, keepdim=True) if shared else x

    E = pools.to(H.dtype)
    z = (counts / E.sum(-1)) @ E
    d = _start(H, positive)
    S = _inverse(H - torch.diag_embed(d))
    first = phi(z, d).value.abs().clamp_min(1.0)[:, None]
    mu = START / n * (first.mean(0, keepdim=True) if shared else first)
    X = mu[:, :, None] * S
    low, high, t = mu / z, mu / (1 - z), torch.zeros_like(counts)
    floor = mu / d if positive else torch.zeros_like(d)
    going = torch.ones_like(mu, dtype=torch.bool)
    steps = 0
    while steps < max_steps and not stopped():
        steps += 1
        at = phi(z, d)
        P, multiplier = _projector(at.zz + torch.diag_embed(low / z + high / (1 - z)), E)
        rho = t @ E - at.z + mu / z - mu / (1 - z)
        FP = at.zd.mT @ P
        system = X * S + gather(FP @ at.zd - at.dd)
        rhs = gather(at.d + (FP @ rho[:, :, None])[:, :, 0]) - mu * torch.diagonal(S, dim1=-2, dim2=-1)
        if positive:
            system = system + torch.diag_embed(floor / d)
            rhs = rhs + mu / d
        dd = torch.linalg.solve_ex(system, rhs).result.nan_to_num(0.0, 0.0, 0.0)
        rest = rho - (at.zd @ dd.expand_as(z)[:, :, None])[:, :, 0]
        dz = (P @ rest[:, :, None])[:, :, 0].nan_to_num(0.0, 0.0, 0.0)
        dt = -(multiplier @ rest[:, :, None])[:, :, 0].nan_to_num(0.0, 0.0, 0.0)
        dlow = mu / z - low - low / z * dz
        dhigh = mu / (1 - z) - high + high / (1 - z) * dz
        XDS = X @ (dd[:, :, None] * S)
        dX = mu[:, :, None] * S - X + 0.5 * (XDS + XDS.mT)

        reach = torch.minimum(
            torch.minimum(_reach(z, dz), _reach(1 - z, -dz)),
            torch.minimum(_reach(low, dlow), _reach(high, dhigh)),
        )
        a = least(reach)
        if positive:
            dfloor = mu / d - floor - floor / d * dd
            a = torch.minimum(a, torch.minimum(_reach(d, dd), _reach(floor, dfloor)))
        a = _stay_definite(H - torch.diag_embed(d), -torch.diag_embed(dd), a * going)
        a = _stay_definite(X, dX, a)
        z, low, high, t = z + a * dz, low + a * dlow, high + a * dhigh, t + a * dt
        d, X = d + a * dd, X + a[:, :, None] * dX
        if positive:
            floor = floor + a * dfloor
        S = _inverse(H - torch.diag_embed(d))
        slack = torch.diagonal(X @ (H - torch.diag_embed(d)), dim1=-2, dim2=-1) + floor * d
        gap = (slack + gather(low * z + high * (1 - z))).sum(-1, keepdim=True)
        going = going & (gap > tolerance) & (a > STALL)
        if not going.any():
            break
        products = (4 if positive else 3) * n if not shared else (2 + 2 * len(z)) * n
        mu = gap / products * (1 - a).clamp(0.1, 0.9)
    return SaddlePoint(z, d, steps)


def _start(H: Tensor, positive: bool) -> Tensor:
    """A strictly feasible d: a share of the largest one in a fixed direction."""
    n = H.shape[-1]
    if not positive:
        lowest = torch.linalg.eigvalsh(H)[:, :1]
        spread = torch.diagonal(H, dim1=-2, dim2=-1).abs().mean(-1, keepdim=True).clamp_min(1e-6)
        start: Tensor = (lowest - 0.1 * spread).expand(-1, n).clone()
        return start
    root: Tensor = torch.diagonal(torch.linalg.inv(H), dim1=-2, dim2=-1).rsqrt()
    lowest = torch.linalg.eigvalsh(H / (root[:, :, None] * root[:, None, :]))[:, :1]
    start = 0.8 * lowest.clamp_min(1e-12) * root**2
    return start


def _inverse(A: Tensor) -> Tensor:
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(A))
    return inverse


def _projector(K: Tensor, E: Tensor) -> tuple[Tensor, Tensor]:
    """`P` with `dz = P r` solving `K dz - E't = r, E dz = 0`, and `(E K^-1 E')^-1 E K^-1`."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(K).L)
    KE = inverse @ E.mT
    multiplier = torch.linalg.solve_ex(E @ KE, KE.mT).result
    return inverse - KE @ multiplier, multiplier


def _reach(x: Tensor, dx: Tensor) -> Tensor:
    """`[.., 1]` largest step in [0, 1] that keeps `x + a dx` well positive."""
    ratio = torch.where(dx < 0, -x / dx, torch.inf).amin(-1, keepdim=True)
    reach: Tensor = (SHORTEN * ratio).nan_to_num(0.0).clamp(0.0, 1.0)
    return reach


def _stay_definite(A: Tensor, dA: Tensor, a: Tensor) -> Tensor:
    """Shorten steps until `A + a dA` has a Cholesky factor, and a little more."""
    for _ in range(60):
        lost = torch.linalg.cholesky_ex(A + (a / SHORTEN)[:, :, None] * dA).info != 0
        if not lost.any():
            return a
        a = torch.where(lost[:, None], 0.75 * a, a)
    return torch.zeros_like(a)
