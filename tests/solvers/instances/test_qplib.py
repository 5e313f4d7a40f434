"""QPLIB files: written and read, and evaluated by a reader that shares no code with ours."""

import itertools

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.instances import digest, random_problem, read_problem, read_qplib, write_qplib
from tests.solvers.oracles import BUDGETS, make_problem, optimum

EXAMPLE = """! a small mixed-integer programme with a quadratic row
MIPBAND # problem name
QML
Minimize # sense
3 # variables
2 # constraints
5 # entries of the lower triangle
1 1 2.0
2 1 -1.0 next to the diagonal
2 2 2.0
3 2 -1.0
3 3 2.0
-0.2
1
2 -0.4
0.5 # constant

4 # entries of A
1 1 1.0
1 2 1.0
2 1 1.0
2 3 1.0
1.0E+20 # infinity
1.0
0
1.0E+20
0
0.0
1
2 -1D+1
2.0
1
2 1.0
0
1
2 1
0.0 # starting point
0
0.0
0
0.0
0
1
3 third
0
"""


def evaluate(path):
    """An evaluator of its own: records by the grammar, sums by hand; the objective and rows at a point."""
    records = [line.split("#")[0].split() for line in path.read_text().splitlines()]
    records = iter([record for record in records if record])
    assert next(records)
    kind = next(records)[0]
    assert next(records) == ["minimize"]
    N, M = int(next(records)[0]), int(next(records)[0])

    def sparse(axes):
        count = int(next(records)[0])
        entries = [next(records) for _ in range(count)]
        return [(*(int(word) - 1 for word in entry[:axes]), float(entry[axes])) for entry in entries]

    def vector(size):
        values = [float(next(records)[0])] * size
        for place, value in sparse(1):
            values[place] = value
        return values

    Q, c, constant, A = sparse(2), vector(N), float(next(records)[0]), None
    A = sparse(2)
    infinity = float(next(records)[0])
    rows = vector(M), vector(M)
    limits = ([0.0] * N, [1.0] * N) if kind[1] == "B" else (vector(N), vector(N))
    types = [2.0] * N if kind[1] == "B" else vector(N)
    start = vector(N)

    def objective(x):
        total = constant + sum(a * b for a, b in zip(c, x, strict=True))
        for i, j, q in Q:
            assert i >= j
            total += (0.5 if i == j else 1.0) * q * x[i] * x[j]
        return total

    def feasible(x, slack=1e-9):
        sums = [0.0] * M
        for i, j, a in A:
            sums[i] += a * x[j]
        ends = zip(sums, *rows, strict=True)
        inside = all((low <= -infinity or s >= low - slack) and s <= high + slack for s, low, high in ends)
        ranged = all(low - slack <= v <= high + slack for v, low, high in zip(x, *limits, strict=True))
        return inside and ranged and all(v in (0.0, 1.0) for v, t in zip(x, types, strict=True) if t)

    return kind, N, objective, feasible, np.array(start)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_row", "per_layer", "n_of_m", "columns"])
def test_the_objective_is_the_loss_increase(rng, tmp_path, budget, refit):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=not refit)
    path = tmp_path / "p.qplib"
    write_qplib(path, problem, "net-a")
    kind, _, objective, feasible, start = evaluate(path)
    assert kind == ("CML" if refit else "CBL")
    ours = read_qplib(path)
    mask = solve(problem, gap=1e-9).mask
    decisions = problem.pools.decisions(mask)
    x = decisions.ravel().astype(float)
    if refit:
        x = np.concatenate([(~decisions).ravel(), problem.weights(mask).ravel()]).astype(float)
    assert feasible(x)
    assert ours.violation(x) < 1e-9
    assert objective(x) == pytest.approx(problem.value(mask), rel=1e-9, abs=1e-12)
    assert ours.objective(x) == pytest.approx(objective(x), rel=1e-12, abs=1e-12)
    assert objective(start) == pytest.approx(0.0, abs=1e-12)
    other = x.copy()
    other[0] = 1.0 - other[0]
    assert not feasible(other)
    assert ours.violation(other) > 0.5
    assert digest(read_problem(path)) == digest(problem)


def test_its_optimum_is_the_problem_s(rng, tmp_path):
    problem = make_problem(rng, Budget.per_row(2), m=2, n=4, refit=False, gradient=True)
    path = tmp_path / "p.qplib"
    write_qplib(path, problem)
    _, N, objective, feasible, _ = evaluate(path)
    points = (np.array(x, float) for x in itertools.product((0.0, 1.0), repeat=N))
    assert min(objective(x) for x in points if feasible(x)) == pytest.approx(optimum(problem), rel=1e-9)


def test_movable_columns_and_gradients_are_eliminated(rng, tmp_path):
    problem = make_problem(rng, Budget.per_row(2), refit=True, gradient=True, movable=(5,))
    path = tmp_path / "p.qplib"
    write_qplib(path, problem)
    _, N, objective, _, start = evaluate(path)
    mask = np.zeros(problem.W.shape, bool)
    assert 2 * problem.m * (problem.n - 1) == N
    free = problem.move(mask)  # nothing pruned, everything moves
    expected = (problem.G * free).sum() + 0.5 * np.einsum("ri,ri->", free, problem.hessian.matmul(free))
    assert objective(start) == pytest.approx(expected, rel=1e-6)


def test_without_comments_a_file_ends_with_its_last_record(tmp_path):
    problem = random_problem(1, 4, Budget.per_row(2), seed=0, refit=False)
    write_qplib(tmp_path / "p.qplib", problem, carry=False)
    assert (tmp_path / "p.qplib").read_text().splitlines()[-1].startswith("0 #")
    found = read_problem(tmp_path / "p.qplib")
    assert solve(found).value == pytest.approx(solve(problem).value, rel=1e-9)


def test_a_file_of_others(tmp_path):
    (tmp_path / "x.qplib").write_text(EXAMPLE)
    p = read_qplib(tmp_path / "x.qplib")
    assert p.name == "MIPBAND"
    assert p.Q.toarray().tolist() == [[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]]
    assert p.c.tolist() == [-0.2, -0.4, -0.2]
    assert p.A.toarray().tolist() == [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    assert p.row_upper.tolist() == [np.inf, np.inf]
    assert (p.lower.tolist(), p.upper.tolist()) == ([0.0, -10.0, 0.0], [2.0, 1.0, 2.0])
    assert p.whole.tolist() == [False, True, False]
    assert p.names == ("x1", "x2", "third")
    assert p.objective(np.array([1.0, 1.0, 0.0])) == pytest.approx(0.5 * (2 - 2 + 2) - 0.6 + 0.5)
    assert p.violation(np.array([1.0, 0.5, 0.0])) == 0.5
    with pytest.raises(ValueError, match="is no subset-selection problem: variable 'x1' is not binary"):
        read_problem(tmp_path / "x.qplib")


def test_quadratic_rows_and_unconstrained_files(tmp_path):
    text = "q\nLCQ\nmaximize\n2\n1\n0\n1\n2 3\n0\n2\n1 1 1 2\n1 2 1 4\n1\n1 1 1\n1e30\n-1e30\n0\n4\n0\n"
    (tmp_path / "x.qplib").write_text(text + "-5\n0\n5\n0\n0\n0\n0\n0\n0\n0\n0\n0\n")
    p = read_qplib(tmp_path / "x.qplib")
    assert p.maximise
    assert p.c.tolist() == [0.0, 3.0]
    assert p.rows(np.array([1.0, 2.0])).tolist() == [1.0 + 1.0 + 8.0]
    text = "q\nQBN\nminimize\n2\n1\n2 1 3\n0\n0\n1\n1e30\n0\n0\n0\n0\n0\n0\n"
    (tmp_path / "x.qplib").write_text(text)
    p = read_qplib(tmp_path / "x.qplib")
    assert p.objective(np.ones(2)) == 4.0
    assert p.whole.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("QML", "QM"), "line 3: the type is 'QM'"),
        (("Minimize", "Min"), "line 4: the sense is 'min'"),
        (("3 # variables", "x"), "line 5: the number of variables is 'x'"),
        (("3 # variables", "99999999999"), "must be a whole number up to"),
        (("3 3 2.0", "3 4 2.0"), "line 12: Q has index '4'; it must be from 1 to 3"),
        (("3 3 2.0", "3 3"), "line 12: Q needs 3 values, 2 are there"),
        (("3 3 2.0", "3 3 two"), "'two', which is not a number"),
        (("3 3 2.0", "3 3 inf"), "Q has inf"),
        (("2 1\n0.0 # s", "2 7\n0.0 # s"), "types of variables must be 0, 1 or 2"),
        (("3 third\n0\n", ""), "ends before names of variables"),
        (("3 third\n0\n", "3 third\n0\n7 more\n"), "'7 more' comes after the last record"),
        (("3 # variables", "\u00b3"), "line 5: the number of variables is '\u00b3'"),
        (("3 3 2.0", "3 3 2_0"), "'2_0', which is not a number"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, change, message):
    assert change[0] in EXAMPLE
    (tmp_path / "x.qplib").write_text(EXAMPLE.replace(*change))
    with pytest.raises(ValueError, match=message):
        read_qplib(tmp_path / "x.qplib")


def test_places_and_names_that_are_none(tmp_path):
    problem = SubsetProblem(np.ones((1, 3)), np.eye(3), Budget.per_row(1))
    with pytest.raises(ValueError, match=r"must end in \.qplib"):
        write_qplib(tmp_path / "x.txt", problem)
    with pytest.raises(ValueError, match="must be one word"):
        write_qplib(tmp_path / "x.qplib", problem, "two words")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "limit", "message"),
    [(3, "1e30", "row 1 does not count the variables of a pool"), (10**6, "2", "it has 1000000 variables")],
)
def test_programmes_that_are_no_problem(tmp_path, size, limit, message):
    text = f"x\nLBL\nminimize\n{size}\n1\n1\n0\n0\n2\n1 1 1\n1 2 1\n1e20\n{limit}\n0\n{limit}\n"
    (tmp_path / "x.qplib").write_text(text + 9 * "0\n")
    with pytest.raises(ValueError, match=message):
        read_problem(tmp_path / "x.qplib")
