"""Every local move in closed form, batched over rows: the two tableaux.

Both keep a state for a batch of rows and answer the same three questions: what does it cost to prune
j, to restore i, to swap both. Batched torch tensors, so they run wherever torch does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from solvers.runtime.tensors import Tensor, torch


class Tableau(ABC):
    """A batch of B rows with a pruned set each, and the cost of every move from there.

    Attributes:
        pruned: `[B, n]` bool.
        cost: `[B]` cost of the pruned set.
    """

    pruned: Tensor
    cost: Tensor

    @abstractmethod
    def prune_costs(self) -> Tensor:
        """`[B, n]` change of cost when a survivor is pruned; infinite for pruned entries."""

    @abstractmethod
    def restore_costs(self) -> Tensor:
        """`[B, n]` change of cost when a pruned entry comes back; infinite for survivors."""

    @abstractmethod
    def swap_costs(self) -> Tensor:
        """`[B, n, n]` change when a pruned i (first index) comes back and a survivor j goes."""

    @abstractmethod
    def flip(self, rows: Tensor, index: Tensor) -> None:
        """Prune or restore entry `index[k]` of row `rows[k]`; rows are distinct."""


class JointTableau(Tableau):
    """The sweep of `C = H^-1` on the pruned set P of every row.

    With `M = (C_PP)^-1`, `u = M w_P`, `T = M C_PS`, `w^ = w_S - C_SP u` the stored matrix E holds
    `-M` on PP, `T` on PS and `C_SS - C_SP T` on SS, and y holds u on P and w^ on S. Pruning and
    restoring are the same pivot: with `p = E_jj`, `r = E_j`,

        E <- E - r r'/p,   y <- y - r y_j/p,   cost <- cost + y_j^2 / (2 p),
        E_jj <- -1/p,      E_j <- +-r/p,       y_j <- +-y_j/p      (+ to prune, - to restore).

    The cost of pruning j is the OBS saliency `w^_j^2 / (2 E_jj)` (Hassibi & Stork 1992).

    Args:
        inverse: `C`, `[n, n]` or `[B, n, n]`.
        weights: `w [B, n]`.
        pruned: `[B, n]` bool to start from, or None for nothing.
    """

    def __init__(self, inverse: Tensor, weights: Tensor, pruned: Tensor | None = None) -> None:
        self.inverse = inverse
        self.weights = weights
        self.pruned = torch.zeros_like(weights, dtype=torch.bool) if pruned is None else pruned.clone()
        self.refresh()

    def refresh(self) -> None:
        """Factorise afresh from the data, dropping whatever rounding the pivots have gathered."""
        batch, n = self.weights.shape
        C = self.inverse.expand(batch, n, n)
        P = self.pruned
        if not P.any():
            self.E, self.y = C.clone(), self.weights.clone()
            self.cost = torch.zeros_like(self.weights[:, 0])
            return
        both = P[:, :, None] & P[:, None, :]
        eye = torch.eye(n, dtype=C.dtype, device=C.device)
        M = torch.linalg.inv(torch.where(both, C, eye)) * both
        T = M @ C
        mixed = torch.where(P[:, :, None], T, C - C @ T)
        E = torch.where(P[:, None, :] & ~P[:, :, None], T.mT, mixed)
        self.E = torch.where(both, -M, E)
        u = (M @ self.weights[:, :, None])[:, :, 0]
        self.y = torch.where(P, u, self.weights - (C @ u[:, :, None])[:, :, 0])
        self.cost = 0.5 * (self.weights * u).sum(-1)

    def drift(self) -> Tensor:
        """`[B]` how far the running cost is from the cost computed afresh, relative."""
        running = self.cost
        self.refresh()
        return (running - self.cost).abs() / self.cost.abs().clamp_min(1e-300)

    def _saliency(self) -> Tensor:
        return self.y**2 / (2.0 * torch.diagonal(self.E, dim1=-2, dim2=-1))

    def prune_costs(self) -> Tensor:
        """See `Tableau`."""
        return self._saliency().masked_fill(self.pruned, torch.inf)

    def restore_costs(self) -> Tensor:
        """See `Tableau`: `-u_i^2 / (2 M_ii)`."""
        return self._saliency().masked_fill(~self.pruned, torch.inf)

    def swap_costs(self) -> Tensor:
        """See `Tableau`: `-u_i^2/(2 M_ii) + (w^_j + T_ij u_i/M_ii)^2 / (2 (E_jj + T_ij^2/M_ii))`."""
        diagonal = torch.diagonal(self.E, dim1=-2, dim2=-1)
        scaled = self.E / -diagonal[:, :, None]
        top = self.y[:, None, :] + scaled * self.y[:, :, None]
        bottom = diagonal[:, None, :] + scaled * self.E
        return (top * top / bottom).mul_(0.5).add_(self._saliency()[:, :, None])

    def flip(self, rows: Tensor, index: Tensor) -> None:
        """See `Tableau`."""
        r = self.E[rows, index]
        p = r.gather(1, index[:, None])
        yj = self.y[rows, index][:, None]
        sign = torch.where(self.pruned[rows, index], -1.0, 1.0)[:, None].to(r.dtype)
        self.cost[rows] += 0.5 * (yj * yj / p)[:, 0]
        scaled = r / p
        whole = len(rows) == len(self.E)
        if whole:
            self.E.baddbmm_(r[:, :, None], scaled[:, None, :], alpha=-1.0)
        else:
            self.E[rows] = torch.baddbmm(self.E[rows], r[:, :, None], scaled[:, None, :], alpha=-1.0)
        self.y[rows] -= scaled * yj
        edge = (sign * scaled).scatter(1, index[:, None], -1.0 / p)
        self.E[rows, index] = edge
        self.E[rows, :, index] = edge
        self.y[rows, index] = (sign * yj / p)[:, 0]
        self.pruned[rows, index] = ~self.pruned[rows, index]


class SelectionTableau(Tableau):
    """`a = A x` for the selection variant, with `A = diag(w) H diag(w)` and linear cost `-c'x`.

    Args:
        A: `[B, n, n]`.
        c: `[B, n]`.
        pruned: `[B, n]` bool to start from, or None for nothing.
    """

    def __init__(self, A: Tensor, c: Tensor, pruned: Tensor | None = None) -> None:
        self.A, self.c = A, c
        self.diagonal = torch.diagonal(A, dim1=-2, dim2=-1)
        self.pruned = torch.zeros_like(c, dtype=torch.bool) if pruned is None else pruned.clone()
        x = self.pruned.to(A.dtype)
        self.a = (A @ x[:, :, None])[:, :, 0]
        self.cost = (x * (0.5 * self.a - c)).sum(-1)

    def prune_costs(self) -> Tensor:
        """See `Tableau`: `a_j + A_jj/2 - c_j`."""
        return (self.a + 0.5 * self.diagonal - self.c).masked_fill(self.pruned, torch.inf)

    def restore_costs(self) -> Tensor:
        """See `Tableau`: `-a_i + A_ii/2 + c_i`."""
        return (0.5 * self.diagonal - self.a + self.c).masked_fill(~self.pruned, torch.inf)

    def swap_costs(self) -> Tensor:
        """See `Tableau`: the two single costs less `A_ij`."""
        come = 0.5 * self.diagonal - self.a + self.c
        go = 0.5 * self.diagonal + self.a - self.c
        return come[:, :, None] + go[:, None, :] - self.A

    def flip(self, rows: Tensor, index: Tensor) -> None:
        """See `Tableau`."""
        sign = torch.where(self.pruned[rows, index], -1.0, 1.0).to(self.a.dtype)
        change = sign * (self.a[rows, index] - self.c[rows, index]) + 0.5 * self.diagonal[rows, index]
        self.cost[rows] += change
        self.a[rows] += sign[:, None] * self.A[rows, index]
        self.pruned[rows, index] = ~self.pruned[rows, index]
