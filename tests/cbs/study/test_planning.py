import textwrap

import pytest

from cbs.study.driver import run
from cbs.study.planning import planned
from cbs.study.store import Store
from cbs.study.studyfile import Study
from tests.cbs.study.test_driver import calls, study


def test_calls_that_could_not_be_told_apart_are_refused(tmp_path):
    (tmp_path / "other.py").write_text("def double(a):\n    return {'value': 3.0 * a}\n")
    other = '[[calls]]\nfunction = "other.py:double"\ngrid = {a = [1, 2]}\n'
    path = study(tmp_path, textwrap.dedent(calls("double", "a = [2, 3]")) + other)
    with pytest.raises(ValueError, match="'double' for two functions; give one of them a label"):
        run(path, workers=1)
    path = study(tmp_path, calls("double", "a = [inf, -inf]"))
    with pytest.raises(ValueError, match="'a=inf' and 'a=-inf' can't be told apart"):
        planned(Study.load(path))
    assert not (tmp_path / "s.sqlite").exists()
    path = study(tmp_path, calls("double", "a = [2, 3]") + calls("double", "a = [3, 4]"))
    assert planned(Study.load(path))["solvers"] == {"double": (3, 3)}
    assert planned(Study.load(path), only="a=4")["solvers"] == {"double": (1, 1)}


def test_studies_that_share_a_store_have_functions_of_their_own(tmp_path):
    for i, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cells.py").write_text(f"def measure(a):\n    return {{'value': a + {i}}}\n")
        (tmp_path / name / "study.toml").write_text(
            f'name = "{name}"\nstore = "../shared.sqlite"\n'
            '[[calls]]\nfunction = "cells.py:measure"\ngrid = {a = 1.0}\n'
        )
        run(tmp_path / name / "study.toml", workers=1)
    with Store.open(tmp_path / "shared.sqlite") as store:
        assert store.frame(store.members("one"))["value"].tolist() == [1.0]
        assert store.frame(store.members("two"))["value"].tolist() == [2.0]
