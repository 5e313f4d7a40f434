from textwrap import dedent

import pytest

from cbs.study.grid import grid
from cbs.study.studyfile import Study
from tests.cbs.study.test_driver import WORK


def of(folder, text):
    path = folder / "s.toml"
    path.write_text(f'name = "s"\n{dedent(text)}')
    return grid(Study.load(path))


RANDOM = """
[[instances]]
random = true
n = [6, 10]
variants = ["joint", "selection"]
"""


def test_problems_are_crossed_with_solvers_limits_and_seeds(tmp_path):
    found = of(
        tmp_path,
        "time_limits = [1, 5]\nseeds = [0, 1]\n"
        + RANDOM
        + """
        [[solvers]]
        name = "tabu"

        [[solvers]]
        name = "highs"
        label = "HiGHS"
        time_limits = [9]
        seeds = [3]

        [[solvers]]
        name = "brute-force"
        most_n = 8
        """.replace("        ", ""),
    )
    by = {}
    for cell in found.cells:
        by.setdefault(cell.solver, []).append(cell)
    assert {solver: len(cells) for solver, cells in by.items()} == {"tabu": 16, "HiGHS": 2, "brute-force": 8}
    assert {(cell.time_limit, cell.seed) for cell in by["HiGHS"]} == {(9.0, 3)}
    assert "highspy" in by["HiGHS"][0].parameters["wheel"]
    assert all(cell.facts["variant"] == "selection" for cell in by["HiGHS"])
    assert sorted(found.left_out.values()) == [2, 2]
    assert len({cell.key("1", "m") for cell in found.cells}) == len(found.cells)
    payload = by["tabu"][0].payload()
    assert payload["problem"].n == 6
    assert payload["time_limit"] == 1.0


def test_a_label_does_not_make_another_cell(tmp_path):
    text = RANDOM + '\n[[solvers]]\nname = "tabu"\n'
    one, two = of(tmp_path, text), of(tmp_path, text + 'label = "Tabu search"\n')
    assert [cell.key("1", "m") for cell in one.cells] == [cell.key("1", "m") for cell in two.cells]


def test_cells_can_be_picked(tmp_path):
    found = of(tmp_path, RANDOM + '\n[[solvers]]\nname = "tabu"\n[[solvers]]\nname = "greedy"\n')
    assert len(found.cells) == 8
    assert len(found.only("tabu").cells) == 4
    assert len(found.only("*x6-joint*").cells) == 2
    assert found.only(None) is found
    assert not found.only("tabu").whole
    with pytest.raises(ValueError, match="'nobody' meets no cell"):
        found.only("nobody")


PRUNE = """
[[models]]
name = "digits"
samples = 50

[[methods]]
name = "magnitude"
sparsities = [0.5, 0.9]
"""


def test_networks_are_crossed_with_methods_and_schedules(tmp_path):
    found = of(
        tmp_path,
        PRUNE + '\n[[schedules]]\nlabel = "at once"\n[[schedules]]\nlabel = "in 2"\noptions = {stages = 2}\n',
    )
    assert [cell.solver for cell in found.cells] == ["magnitude at once"] * 2 + ["magnitude in 2"] * 2
    assert [cell.facts["sparsity"] for cell in found.cells] == [0.5, 0.9] * 2
    assert len({cell.key("1", "m") for cell in found.cells}) == 4
    assert len({cell.digest for cell in found.cells}) == 1


def test_functions_are_called_with_every_combination(tmp_path):
    found = of(
        tmp_path,
        f'seeds = [0, 1]\n[[calls]]\nfunction = "{WORK}:double"\ngrid = {{a = [1, 2], b = "y"}}\n'
        f'[[calls]]\nfunction = "{WORK}:double"\nlabel = "more"\ncases = [{{a = 5}}, {{a = 6, b = "z"}}]\n',
    )
    assert [(c.instance, c.seed) for c in found.cells[:4]] == [
        ("a=1 b=y", 0),
        ("a=1 b=y", 1),
        ("a=2 b=y", 0),
        ("a=2 b=y", 1),
    ]
    assert [c.instance for c in found.cells[4::2]] == ["a=5", "a=6 b=z"]
    of_its_own = of(
        tmp_path,
        f'seeds = [0, 1]\n[[calls]]\nfunction = "{WORK}:double"\ngrid = {{a = 1, seed = [5, 6, 7]}}\n',
    )
    assert [c.seed for c in of_its_own.cells] == [5, 6, 7]
    assert found.cells[-1].payload()["parameters"] == {"a": 6, "b": "z", "seed": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (RANDOM + '[[solvers]]\nname = "brnch-and-bound"', "did you mean 'branch-and-bound'"),
        (RANDOM + '[[solvers]]\nname = "tabu"\noptions = {stepps = 3}', "unknown option 'stepps'"),
        (
            RANDOM + '[[solvers]]\nname = "tabu"\noptions = {reach = "x"}',
            "option reach can't be 'x'; its default is",
        ),
        (PRUNE.replace("magnitude", "magnitud"), "did you mean 'magnitude'"),
        (PRUNE + "options = {scop = 'row'}", "unknown option 'scop'; did you mean 'scope'"),
        (PRUNE + "options = {seed = 3}", "magnitude: unknown option 'seed'"),
        (PRUNE.replace("0.9", "1"), "sparsity"),
        (PRUNE.replace('"digits"', '"diggits"'), "did you mean 'digits'"),
        (PRUNE + 'models = ["digit"]', "did you mean 'digits'"),
        (f'[[calls]]\nfunction = "{WORK}:dubble"', "did you mean 'double'"),
        (f'[[calls]]\nfunction = "{WORK}:double"\ngrid = {{aa = 1}}', "unknown parameter 'aa'; did you mean"),
        (f'[[calls]]\nfunction = "{WORK}:double"', "missing a required argument: 'a'"),
        ('[[calls]]\nfunction = "none.py:double"', "is not there"),
        ('[[calls]]\nfunction = "double"', "FILE.py:NAME"),
        (f'[[calls]]\nfunction = "{WORK}:double"\ngrid = {{a = []}}', "grid a is empty"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, text, told):
    with pytest.raises(ValueError, match=told) as raised:
        of(tmp_path, text)
    assert "\n" not in str(raised.value)
