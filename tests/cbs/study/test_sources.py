import numpy as np
import pytest

from cbs.study.sources import budget, facts_of, instances
from cbs.study.studyfile import Study
from solvers import Budget
from solvers.instances import random_problem, save


def sources(folder, text):
    path = folder / "s.toml"
    path.write_text(f'name = "s"\n{text}\n[[solvers]]\nname = "auto"\n')
    (table,) = Study.load(path).instances
    return list(instances(table, folder, None))


def test_generators_give_every_combination_and_the_same_again(tmp_path):
    text = """
[[instances]]
random = true
m = [1, 2]
n = [6, 8]
sparsities = [0.5, 0.75]
budgets = ["per_row", "per_layer", "2:4"]
variants = ["joint", "selection"]
count = 2
"""
    text = text.replace("n = [6, 8]", "n = [8, 12]")
    found = sources(tmp_path, text)
    assert len(found) == 2 * 2 * 2 * (2 + 2 + 1) * 2
    assert len({one.name for one in found}) == len({one.digest for one in found}) == len(found)
    assert [one.digest for one in sources(tmp_path, text)] == [one.digest for one in found]
    for one in found:
        problem = one.problem()
        assert (problem.m, problem.n) == (one.facts["m"], one.facts["n"])
        assert problem.refit == (one.facts["variant"] == "joint")
        assert one.facts["sparsity"] in (0.5, 0.75)


def test_planted_problems_and_files_are_found(tmp_path):
    (one,) = sources(tmp_path, "[[instances]]\nplanted = true\nn = 8\n")
    assert one.facts["family"] == "planted-0.9"
    problem = random_problem(2, 5, Budget.per_layer(4), seed=1)
    save(tmp_path / "mine.npz", problem)
    (found,) = sources(tmp_path, '[[instances]]\nfiles = "*.npz"\n')
    assert found.name == "mine"
    assert found.facts == {**facts_of(problem, tmp_path.name)}
    assert found.facts["sparsity"] == 0.4
    assert np.array_equal(found.problem().W, problem.W)
    assert len(found.digest) == 64


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[instances]]\nfiles = "none*.npz"', "names no file"),
        ('[[instances]]\nfiles = "s.toml"', "instance file"),
        ('[[instances]]\nrandom = true\nn = 8\nbudgets = "per_column"', "per_row, per_layer, columns or N:M"),
        ('[[instances]]\nrandom = true\nn = 7\nbudgets = "2:4"', "1: "),
        ("[[instances]]\nrandom = true\nn = 7\ncorrelation = 1", "correlation must be"),
    ],
)
def test_what_can_t_be_had_is_told(tmp_path, text, told):
    with pytest.raises(ValueError, match=told) as raised:
        sources(tmp_path, text)
    assert "[[instances]] 1" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("boom", "made 'own.py:boom' failed .KeyError: 'k'"),
        ("nothing", "made 'own.py:nothing' failed .TypeError"),
        ('nothing"\nparameters = {q = 1}#', "unknown parameter 'q'; known: none"),
    ],
)
def test_functions_that_fail_are_told(tmp_path, text, told):
    (tmp_path / "own.py").write_text("def boom():\n    return {}['k']\ndef nothing():\n    pass\n")
    with pytest.raises(ValueError, match=told) as raised:
        sources(tmp_path, f'[[instances]]\nmade = "own.py:{text}"')
    assert "[[instances]] 1" in str(raised.value)


def test_problems_of_networks_libraries_and_one_s_own_functions(tmp_path):
    text = '[[instances]]\nnetwork = "digits"\nlayers = "2"\nrows = 2\nsparsities = [0.5, 0.75]\n'
    found = sources(tmp_path, text)
    assert len(found) == 4
    assert {one.facts["family"] for one in found} == {"digits/2"}
    for one in found:
        problem = one.problem()
        assert facts_of(problem, "digits/2") == {name: one.facts[name] for name in facts_of(problem, "x")}
    with pytest.raises(ValueError, match="has no instance of these"):
        sources(tmp_path, text + "n = [1000, 2000]\n")
    (tmp_path / "own.py").write_text(
        "from solvers import Budget\nfrom solvers.instances import random_problem\n"
        "def problems(count=1):\n"
        "    for i in range(count):\n"
        "        yield f'mine/{i}', random_problem(1, 6, Budget.per_row(3), seed=i)\n"
        "def wrong():\n    yield 3\n"
    )
    own = sources(tmp_path, '[[instances]]\nmade = "own.py:problems"\nparameters = {count = 2}\n')
    assert [(one.name, one.facts["family"]) for one in own] == [("mine/0", "mine"), ("mine/1", "mine")]
    assert np.array_equal(own[1].problem().W, random_problem(1, 6, Budget.per_row(3), seed=1).W)
    with pytest.raises(ValueError, match="must yield"):
        sources(tmp_path, '[[instances]]\nmade = "own.py:wrong"\n')


def test_budgets_by_name():
    assert budget("per_row", 2, 8, 0.25).describe() == Budget.per_row(2).describe()
    assert budget("per_layer", 2, 8, 0.25).describe() == Budget.per_layer(4).describe()
    assert budget("columns", 2, 8, 0.25).describe() == Budget.columns(2).describe()
    assert budget("2:4", 2, 8, 0.25).describe() == Budget.n_of_m(2, 4).describe()
