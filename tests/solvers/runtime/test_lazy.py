import json
import os
import pkgutil
import subprocess
import sys

import pytest

import cbs
import solvers
from cbs import report
from solvers import instances
from solvers.runtime import tensors

PACKAGES = [solvers, instances, cbs, report]
HEAVY = {"torch", "numba", "scipy", "sklearn", "cvxpy", "ortools", "matplotlib", "flint", "pooch", "pandas"}


def fresh(code):
    """What a new interpreter prints after `code`, read as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loaded(code):
    """Which heavy modules are imported by `code`."""
    return set(fresh(f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))")) & HEAVY


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_everything_that_a_package_lists_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert vars(package)[name] is getattr(package, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def collisions(package):
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return [(package.__name__, name) for name in package.__all__ if name in submodules]


COLLISIONS = [pair for package in PACKAGES for pair in collisions(package)]


FIRSTS = (
    "import {p}; {p}.{n}; import {p}.{n}",
    "import {p}.{n} as found; import types; assert not isinstance(found, types.ModuleType)",
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, to import PyTorch once")
def test_a_submodule_never_hides_the_export_of_its_name():
    """Each pair, and each way to come to it, in a process that has imported nothing of the packages."""
    told = "print(json.dumps(['{p}', '{n}', {i}, type({p}.{n}).__name__]), flush=True)"
    tries = [
        f"{first}\nimport {{p}}, json\n{told}".format(p=p, n=n, i=i)
        for p, n in COLLISIONS
        for i, first in enumerate(FIRSTS)
    ]
    code = f"""
import os, torch
for code in {tries!r}:
    if not os.fork():
        exec(code)
        os._exit(0)
    os.wait()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    expected = [[p, n, i, "function"] for p, n in COLLISIONS for i in range(len(FIRSTS))]
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


@pytest.mark.parametrize(
    "name",
    [
        "cbs.result",
        "cbs.network.network",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cbs.data", "cbs.curvature.output")),
    ],
)
def test_a_module_that_imports_torch_can_be_the_first_that_is_imported(name):
    """PyTorch looks at all modules while it is imported; exports that wait for their use stay as they are."""
    assert fresh(f"import {name}, json, sys; print(json.dumps('torch' in sys.modules))")


def test_the_file_of_an_export_that_waits_is_told_without_importing_it():
    code = """
import inspect, json, sys, cbs
waits = sys.modules["cbs.prune"]
assert isinstance(waits, type(sys)) and waits.__name__ == "cbs.prune" and inspect.getfile(waits)
assert "torch" not in sys.modules
print(json.dumps([waits.compare.__module__, cbs.compare is waits.compare]))"""
    assert fresh(code) == ["cbs.prune", True]


def test_there_are_such_names():
    assert ("solvers", "solve") in COLLISIONS
    assert ("solvers", "curve") in COLLISIONS
    assert ("cbs", "prune") in COLLISIONS
    assert ("cbs", "methods") in COLLISIONS


def test_commands_that_compute_nothing_import_nothing_heavy():
    helped = ["prune", "solve", "bound", "curve", "verify", "export", "solvers", "methods"]
    commands = [["--version"], [], ["-h"], ["methods"], ["methods", "--json"]]
    commands += [[name, "--help"] for name in helped]
    assert loaded(f"from cbs.cli import main\nassert not any(main(argv) for argv in {commands!r})") == set()


def test_the_listing_of_solvers_needs_no_framework():
    commands = [["solvers"], ["solvers", "--json"]]
    code = f"from cbs.cli import main\nassert not any(main(argv) for argv in {commands!r})"
    assert loaded(code) <= {"numba", "scipy", "flint"}


def test_importing_a_package_is_cheap():
    assert loaded("import cbs, solvers, solvers.instances, cbs.report; cbs.methods()") == set()
    assert "torch" not in loaded("from solvers import available; available()")


def test_the_checker_is_imported_without_a_solver():
    assert loaded("import solvers.checker") <= {"flint"}


def test_tensors_come_from_torch():
    import torch

    assert tensors.torch.float64 is torch.float64
    assert tensors.torch.linalg is torch.linalg
    assert "float64" in vars(tensors.torch)
    with pytest.raises(AttributeError):
        _ = tensors.torch.no_such_function


@pytest.mark.parametrize(
    "call",
    [
        "solvers.solve(problem, 'greedy', time_limit=60)",
        "solvers.solve_together([problem], time_limit=60)",
        "solvers.curve(problem, time_limit=60)",
    ],
)
def test_torch_is_imported_before_the_clock_starts(call):
    """The first step that is timed finds it there, where a problem is wide enough to need it."""
    code = f"""
import json, sys, time, solvers, numpy as np
problem = solvers.SubsetProblem(np.ones((1, 129)), np.eye(129), solvers.Budget.per_layer(1))
clock, seen = time.perf_counter, []
def watched():
    seen.append("torch" in sys.modules)
    return clock()
time.perf_counter = watched
{call}
print(json.dumps(seen))"""
    seen = fresh(code)
    assert seen
    assert all(seen)
