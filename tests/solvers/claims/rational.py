"""Every mask's cost of a small problem, and optima under every budget, without rounding."""

from fractions import Fraction
from functools import cached_property

from flint import fmpq, fmpq_mat

from solvers import BlockDiagonalHessian, FactorHessian


def rational(x):
    """A float, as the rational number that it is."""
    return fmpq(*float(x).as_integer_ratio())


def rational_hessian(hessian, row):
    """A row's curvature `[n, n]` as nested lists of rationals; a factor's is `X'X / N + damping I`."""
    if isinstance(hessian, FactorHessian):
        N, n = hessian.X.shape
        X = fmpq_mat(N, n, [rational(x) for x in hessian.X.ravel()])
        H = X.transpose() * X / fmpq(N)
        damping = rational(hessian.damping)
        return [[H[i, j] + (damping if i == j else 0) for j in range(n)] for i in range(n)]
    if isinstance(hessian, BlockDiagonalHessian):
        H = [[fmpq(0)] * hessian.n for _ in range(hessian.n)]
        start = 0
        for block in hessian.blocks:
            for i, line in enumerate(rational_hessian(block, 0)):
                H[start + i][start : start + block.n] = line
            start += block.n
        return H
    return [[rational(x) for x in line] for line in hessian.dense(row)]


def is_semidefinite(H):
    """Whether a symmetric rational matrix has no negative eigenvalue, by symmetric elimination."""
    A, n = [list(line) for line in H], len(H)
    for i in range(n):
        if A[i][i] < 0 or (A[i][i] == 0 and any(A[i][j] != 0 for j in range(i, n))):
            return False
        if A[i][i] == 0:
            continue
        for j in range(i + 1, n):
            ratio = A[j][i] / A[i][i]
            if ratio != 0:
                for k in range(i, n):
                    A[j][k] -= ratio * A[i][k]
    return True


class Exact:
    """A problem without rounding: what each mask costs each row.

    Attributes:
        costs: for every row the cost of every set of pruned columns, a set being bits over the prunable ones.
        semidefinite: whether the curvature is, without rounding.
    """

    def __init__(self, problem):
        self.problem = problem
        self.columns = problem.prunable.tolist()
        matrices = [rational_hessian(problem.hessian, r) for r in range(problem.hessian.rows or 1)]
        self.semidefinite = all(is_semidefinite(H) for H in matrices)
        self.costs = [self._row(matrices[r if len(matrices) > 1 else 0], r) for r in range(problem.m)]

    def _row(self, H, r):
        problem, n = self.problem, self.problem.n
        w = [rational(x) for x in problem.W[r]]
        g = [fmpq(0)] * n if problem.G is None else [rational(x) for x in problem.G[r]]
        movable = problem.movable.tolist()
        return [self._cost(H, w, g, bits, movable) for bits in range(1 << len(self.columns))]

    def _cost(self, H, w, g, bits, movable):
        pruned = [c for i, c in enumerate(self.columns) if bits >> i & 1]
        kept = [c for i, c in enumerate(self.columns) if not bits >> i & 1]
        moving = sorted(movable + (kept if self.problem.refit else []))
        cost = sum((H[i][j] * w[i] * w[j] for i in pruned for j in pruned), fmpq(0)) / 2
        cost -= sum((g[i] * w[i] for i in pruned), fmpq(0))
        pull = [g[i] - sum((H[i][j] * w[j] for j in pruned), fmpq(0)) for i in moving]
        if any(p != 0 for p in pull):
            k = len(moving)
            A = fmpq_mat(k, k, [H[i][j] for i in moving for j in moving])
            move = A.solve(fmpq_mat(k, 1, pull))
            cost -= sum((p * move[i, 0] for i, p in enumerate(pull)), fmpq(0)) / 2
        return cost

    def value(self, mask):
        """What a mask costs."""
        return sum((self.row_value(r, mask[r]) for r in range(self.problem.m)), fmpq(0))

    def row_value(self, r, pruned):
        """What one row's mask costs it."""
        return self.costs[r][sum(1 << i for i, c in enumerate(self.columns) if pruned[c])]

    @cached_property
    def curves(self):
        """For every row its least cost at every number pruned."""
        n = len(self.columns)
        found = []
        for costs in self.costs:
            best = [None] * (n + 1)
            for bits, cost in enumerate(costs):
                k = bits.bit_count()
                if best[k] is None or cost < best[k]:
                    best[k] = cost
            found.append(best)
        return found

    @property
    def optimum(self):
        """The least cost under the problem's budget."""
        pools = self.problem.pools
        if self.problem.budget.kind == "per_layer":
            return shared_optimum(self.curves, int(pools.prune[0]))
        rows = self.costs
        if pools.coupled:
            rows = [[sum(costs, fmpq(0)) for costs in zip(*self.costs, strict=True)]]
        total = fmpq(0)
        for r, costs in enumerate(rows):
            needs = _needs(pools, r)
            total += min(
                cost
                for bits, cost in enumerate(costs)
                if all((bits & members).bit_count() == count for members, count in needs)
            )
        return total


def _needs(pools, r):
    """Pairs of a pool's entries in a row, as bits, and how many of them are pruned."""
    found = {}
    for i, label in enumerate(pools.labels[r].tolist()):
        found[label] = found.get(label, 0) | 1 << i
    return [(members, int(pools.prune[label])) for label, members in found.items()]


def shared_optimum(curves, total):
    """`min sum_r f_r(k_r)` over all `k` with `sum_r k_r = total`."""
    best = {0: fmpq(0)}
    for curve in curves:
        step = {}
        for used, value in best.items():
            for k, cost in enumerate(curve):
                if used + k <= total and (used + k not in step or value + cost < step[used + k]):
                    step[used + k] = value + cost
        best = step
    return best[total]


def fraction(x):
    """A flint rational as a `Fraction`, which compares with floats exactly."""
    return Fraction(int(x.p), int(x.q))
