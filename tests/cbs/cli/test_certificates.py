"""What `cbs solve` says of a certificate that proves less than the solver, or that there is none."""

import sys

import numpy as np
import pytest

import solvers
from cbs.cli import main
from solvers.instances import save
from tests.solvers.oracles import gram


@pytest.fixture
def layer(tmp_path):
    rng = np.random.default_rng(0)
    problem = solvers.SubsetProblem(rng.standard_normal((1, 6)), gram(rng, 6), solvers.Budget.per_row(3))
    save(tmp_path / "layer.npz", problem)
    return tmp_path


def test_a_bound_that_the_certificate_does_not_carry_is_told(layer, capsys):
    paths = str(layer / "layer.cert"), str(layer / "layer.npz")
    assert main(["solve", paths[1], "--solver", "brute-force", "--certificate", paths[0]]) == 0
    assert "the certificate proves a bound of" in capsys.readouterr().err
    assert main(["solve", paths[1], "--solver", "relaxation", "--certificate", paths[0]]) == 0
    assert "the certificate proves" not in capsys.readouterr().err
    assert main(["verify", *paths]) == 0


def test_no_certificate_has_a_reason(layer, capsys, monkeypatch):
    def none(*_, **__):
        raise ValueError("certify: too close to singular; add damping")

    monkeypatch.setattr(sys.modules["solvers.solve"], "make_certificate", none)
    assert main(["solve", str(layer / "layer.npz"), "--certificate", str(layer / "layer.cert")]) == 2
    out = capsys.readouterr()
    assert "value" in out.out
    assert "no certificate is written: certify: too close to singular" in out.err
    assert not (layer / "layer.cert").exists()
