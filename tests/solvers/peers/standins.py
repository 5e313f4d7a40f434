"""Environments with stand-ins for peers: real interpreters and processes, without an index to install from.

The stand-in packages search all supports. What they do is read from a file at every row: to sleep, die,
raise, answer with too many entries, or claim too much.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from solvers.peers import environment

COMMON = """
import itertools, math, os, time
from pathlib import Path
import numpy as np

def best(X, y, k):
    act = Path(__file__).with_name("behaviour.txt").read_text()
    if act == "sleep":
        time.sleep(60)
    if act == "die":
        os._exit(9)
    if act == "raise":
        raise RuntimeError("no luck\\nat all")
    if act == "print":
        print("noise")
    k += {"more": 2, "fewer": -1}.get(act, 0)
    found = None
    for S in itertools.combinations(range(X.shape[1]), k):
        S = list(S)
        b = np.linalg.lstsq(X[:, S], y, rcond=None)[0] if S else np.zeros(0)
        loss = float(((X[:, S] @ b - y) ** 2).sum() - y @ y)
        if found is None or loss < found[0]:
            found = loss, S, b
    beta = np.zeros(X.shape[1])
    beta[found[1]] = found[2]
    return found[0], beta, act
"""
ABESS = """
class LinearRegression:
    def __init__(self, support_size, fit_intercept):
        self.k = support_size[0]

    def fit(self, X, y, is_normal):
        self.coef_ = best(X, y, self.k)[1]
"""
OKRIDGE = """
class BNBTree:
    number_of_nodes = 7

    def __init__(self, X, y, lambda2, max_memory_GB):
        self.X, self.y = X, y

    def solve(self, k, gap_tol, time_limit):
        loss, beta, act = best(self.X, self.y, k)
        if act == "boast":
            return loss, beta, 1.0, loss + 0.5 * abs(loss), 0.1
        return loss, beta, 0.0, loss, 0.1
"""


def make(folder: Path, name: str) -> Path:
    """An environment for a stand-in of `abess` or `okridge` in a folder; the file of its behaviour."""
    place = folder / name
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = place / "lib" / version / "site-packages"
    (site / "numpy.pth").write_text(sysconfig.get_path("purelib") + "\n")
    package = site / name
    package.mkdir()
    (package / "__init__.py").write_text(COMMON + ABESS if name == "abess" else "")
    (package / "tree.py").write_text(COMMON + OKRIDGE)
    (site / f"{name}-9.9.dist-info").mkdir()
    (site / f"{name}-9.9.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 9.9\n")
    behaviour = package / "behaviour.txt"
    behaviour.write_text("")
    facts = {"version": "9.9", "python": "3", "packages": {}, "requirements": environment._digest(name)}
    (place / environment.MARK).write_text(json.dumps(facts))
    return behaviour
