import json
import zipfile

import numpy as np
import pytest

from cbs.cli import main
from solvers import Budget, solve
from solvers.instances import load, random_problem, save


@pytest.fixture
def instance(tmp_path):
    path = tmp_path / "layer.npz"
    save(path, random_problem(2, 8, Budget.per_row(4), seed=0))
    return path


def certified(instance, *options):
    out = instance.parent / "layer.cert"
    assert main(["solve", str(instance), "--certificate", str(out), *options]) == 0
    return out


@pytest.mark.parametrize("solver", ["greedy", "brute-force", "relaxation"])
def test_what_solve_writes_is_proven(capsys, instance, solver):
    certificate = certified(instance, "--solver", solver, "--json")
    result = json.loads(capsys.readouterr().out)
    assert main(["verify", str(certificate), str(instance), "--json"]) == 0
    captured = capsys.readouterr()
    verdict = json.loads(captured.out)
    assert captured.err == ""
    low, high = verdict["value"]
    assert low <= result["value"] * (1 + 1e-12)
    assert high >= result["value"] * (1 - 1e-12)
    assert verdict["proven"] is True
    assert verdict["bound"] <= result["bound"]
    assert verdict["bound"] <= solve(load(instance), "brute-force").value
    assert verdict["gap"] == pytest.approx((high - verdict["bound"]) / high)
    assert (verdict["proofs"], verdict["leaves"]) == (2, 2)


def test_one_short_line(capsys, instance):
    certificate = certified(instance, "--solver", "greedy")
    capsys.readouterr()
    assert main(["verify", str(certificate), str(instance)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("proven: value ")
    assert "2 proofs, 2 leaves" in out


def test_refuted_in_one_line_and_status_1(capsys, instance):
    certificate = certified(instance, "--solver", "greedy")
    with np.load(instance) as archive:
        fields = {name: archive[name] for name in archive.files}
    fields["weights"][0, 0] = np.nextafter(fields["weights"][0, 0], 1e3)
    np.savez(instance, **fields)
    capsys.readouterr()
    assert main(["verify", str(certificate), str(instance)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("cbs: not proven: ")
    assert "is not the problem certified" in captured.err


def test_unreadable_files_are_status_2(capsys, instance):
    certificate = certified(instance, "--solver", "greedy")
    capsys.readouterr()
    whole = certificate.read_bytes()
    certificate.write_bytes(whole[: len(whole) // 2])
    assert main(["verify", str(certificate), str(instance)]) == 2
    assert "can't be read" in capsys.readouterr().err
    certificate.write_bytes(whole)
    assert main(["verify", str(certificate), str(instance.parent / "none.npz")]) == 2
    assert "it does not exist" in capsys.readouterr().err
    assert main(["verify", str(instance), str(instance)]) == 2
    assert "field 'format' is missing" in capsys.readouterr().err
    assert main(["verify", str(certificate)]) == 2


def test_a_certificate_needs_its_folder_before_the_work(capsys, instance):
    out = instance.parent / "none" / "layer.cert"
    assert main(["solve", str(instance), "--certificate", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "is not a folder" in captured.err


def test_the_file_holds_plain_arrays(instance):
    certificate = certified(instance, "--solver", "greedy")
    assert zipfile.is_zipfile(certificate)
    with np.load(certificate, allow_pickle=False) as archive:
        assert {archive[name].dtype.kind for name in archive.files} <= set("Ubif")
        assert archive["mask"].sum() == 8
