"""One peer, run by the interpreter of its own environment: rows come in, supports and claims go out.

This file imports nothing of this project: where it runs there is only the peer. `solvers.peers.process` sends
it the length of a NumPy archive, 8 bytes with the highest first, and the archive, again and again; it
answers each with a line of JSON. The first line says that it is ready, imports and compilation done.

In comes a row `min 1/2 (b - w)'H(b - w)` over b with at most `keep` entries: `H [n, n]` symmetric positive
definite, `w [n]`, `keep`; `value` an upper bound on the least cost, `gap` relative to it, `seconds`, `memory`
(bytes), `seed`; and for peers that put a price on every entry instead of counting them: `price`, `reach` (no
better row has a larger entry) and `start` (`[n]` bool, a support to start from).
Out goes `support` (indices), `bound` (a claimed lower bound of the row's cost, or null), `done` (whether it
ended by itself), `seconds` of its search, and `nodes`; or `error`.
"""

import importlib
import importlib.metadata
import io
import json
import math
import os
import sys
import threading
import time
from typing import Any

import numpy as np

TINY = 1e-300


def okridge(p: Any) -> dict[str, Any]:
    """OKRidge (Liu, Rosa, Rudin 2023): k-sparse ridge regression with `X'X = H`, `X'y = H w`, as it is.

    Its loss is `b'Hb - 2 w'Hb`, twice the cost less `w'Hw`; it takes eigenvalues below 1e-3 for zero, so that
    H is scaled to a smallest one of 1.
    """
    tree = importlib.import_module("okridge.tree")
    scale = 1.0 / np.linalg.eigvalsh(p["H"])[0]
    H, w = scale * p["H"], p["w"]
    X = np.linalg.cholesky(H).T
    offset, target = w @ H @ w, 2.0 * scale * p["value"]
    gap = p["gap"] * target / max(abs(target - offset), TINY)
    start = time.perf_counter()
    search = tree.BNBTree(X, X @ w, lambda2=0.0, max_memory_GB=p["memory"] / 2**30)
    loss, beta, reached, bound, _ = search.solve(int(p["keep"]), gap_tol=gap, time_limit=p["seconds"])
    if reached <= gap:  # an empty queue is told as a gap of zero, though nodes were left within the gap
        bound = min(bound, loss - gap * abs(loss))
    return {
        "seconds": time.perf_counter() - start, "support": np.flatnonzero(beta), "done": reached <= gap,
        "bound": (bound + offset) / (2.0 * scale) if bound > -1e18 else -math.inf,
        "nodes": search.number_of_nodes,
    }  # fmt: skip


def priced(p: Any) -> tuple[Any, ...]:
    """The penalised form `1/2 |y - Xb|^2 + price |b|_0 + ridge/2 |b|^2` of a row, with `X'X + ridge I = H`.

    A bound L on its least value bounds the cost of every b with `keep` entries (Lagrange):
    cost >= L - price keep - 1/2 (y'y - w'Hw).
    """
    scale = len(p["w"]) / np.trace(p["H"])
    H, w = scale * p["H"], p["w"]
    ridge = 0.99 * np.linalg.eigvalsh(H)[0]
    X = np.linalg.cholesky(H - ridge * np.eye(len(w))).T
    y = np.linalg.solve(X.T, H @ w)
    price = scale * p["price"]
    offset = 0.5 * (y @ y - w @ H @ w) + price * p["keep"]
    return X, y, ridge, price, offset, scale


def l0bnb(p: Any) -> dict[str, Any]:
    """L0BnB (Hazimeh, Mazumder, Saab 2022), on the penalised form with a big M."""
    package = importlib.import_module("l0bnb")
    X, y, ridge, price, offset, scale = priced(p)
    target = scale * p["value"]
    gap = p["gap"] * target / max(abs(target + offset), TINY)
    start = time.perf_counter()
    search = package.BNBTree(X, y, rel_tol=min(gap, 1e-4))
    found = search.solve(
        price, ridge / 2.0, p["reach"], gap_tol=gap, warm_start=np.where(p["start"], p["w"], 0.0),
        time_limit=p["seconds"],
    )  # fmt: skip
    seconds = time.perf_counter() - start
    # an empty queue leaves the gap as it was, and it may be below zero: nodes are cut off within the gap
    done = found.gap <= gap or seconds < p["seconds"]
    bound = found.cost - (gap if done else found.gap) * abs(found.cost)
    return {
        "seconds": seconds, "support": np.flatnonzero(found.beta), "done": done,
        "bound": (bound - offset) / scale, "nodes": search.number_of_nodes,
    }  # fmt: skip


def el0ps(p: Any) -> dict[str, Any]:
    """El0ps (Guyard, Herzet, Elvira 2024), on the penalised form with a big M.

    Without its simultaneous pruning tests: version 0.0.4 with them and with screening calls the empty support
    optimal on rows where it is not.
    """
    bnb = importlib.import_module("el0ps.solver.bnb")
    X, y, ridge, price, offset, scale = priced(p)
    datafit = importlib.import_module("el0ps.datafit").Leastsquares(y)
    penalty = importlib.import_module("el0ps.penalty").BigmL2norm(p["reach"], ridge / 2.0)
    start = time.perf_counter()
    search = bnb.BnbSolver(relative_gap=0.0, absolute_gap=p["gap"] * scale * p["value"], simpruning=False)
    # its own `solve`, but for the bound, which that does not hand out
    problem = bnb.ProblemWrapper(
        datafit, penalty, X, price, np.where(p["start"], p["w"], 0.0), search.bound_solver
    )
    limit = {} if math.isinf(p["seconds"]) else {"time_limit": p["seconds"]}
    found = search.solver.solve(
        problem, absolute_gap=search.absolute_gap, relative_gap=0.0, log=None, **limit
    )
    b = None if found.best_node is None else found.best_node.state.x_upper
    return {
        "seconds": time.perf_counter() - start, "support": [] if b is None else np.flatnonzero(b),
        "done": found.termination_condition in ("optimality", "queue_empty"),
        "bound": (float(found.bound) - offset) / scale, "nodes": found.nodes,
    }  # fmt: skip


def abess(p: Any) -> dict[str, Any]:
    """Best subsets by abess (Zhu et al. 2020), by splicing, a heuristic, on `X'X = H`, `X'y = H w`.

    It subtracts the columns' means, intercept or none, so that every sample is given with both signs; and it
    takes no exchange that gains less than an absolute amount, so that costs are scaled to a million.
    """
    package = importlib.import_module("abess")
    scale = 1e6 / p["value"]
    root = np.linalg.cholesky(0.5 * scale * p["H"]).T
    X = np.vstack([root, -root])
    start = time.perf_counter()
    model = package.LinearRegression(support_size=[int(p["keep"])], fit_intercept=False)
    model.fit(X, X @ p["w"], is_normal=False)
    return {
        "seconds": time.perf_counter() - start, "support": np.flatnonzero(model.coef_), "done": True,
        "bound": None, "nodes": 0,
    }  # fmt: skip


PEERS = {"okridge": okridge, "l0bnb": l0bnb, "el0ps": el0ps, "abess": abess}


def tiny() -> dict[str, Any]:
    """A row to import and compile with; L0BnB can't take one of fewer than 5 inputs."""
    n = 6
    H = np.eye(n) + 0.3 * np.cos(np.subtract.outer(np.arange(n), np.arange(n)))
    w = np.array([1.0, -0.7, 0.4, 0.1, -0.3, 0.6])
    return {
        "H": H, "w": w, "keep": 3, "value": 0.5, "gap": 1e-3, "seconds": 60.0, "price": 0.1, "reach": 5.0,
        "start": np.abs(w) > 0.5, "seed": 0, "memory": 2.0**30,
    }  # fmt: skip


def fields(archive: Any) -> dict[str, Any]:
    """The archive's numbers as the peers take them."""
    found = {name: archive[name] for name in archive.files}
    return {name: value.item() if value.ndim == 0 else value for name, value in found.items()}


def plain(answer: Any) -> dict[str, Any]:
    """An answer as JSON has it: no array, no infinity."""
    bound = answer["bound"]
    return {
        "seconds": float(answer["seconds"]), "support": [int(i) for i in answer["support"]],
        "done": bool(answer["done"]), "nodes": int(answer["nodes"]),
        "bound": float(bound) if bound is not None and math.isfinite(bound) else None,
    }  # fmt: skip


def told(error: BaseException) -> dict[str, str]:
    """An exception in one line."""
    return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def follow(parent: int) -> None:
    """End with the process that started this one, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Answer rows until there are no more."""
    name = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    if "--version" not in sys.argv:
        threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
    sys.stdout = sys.stderr
    if "--version" in sys.argv:
        PEERS[name](tiny())
        packages = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
        python = ".".join(map(str, sys.version_info[:3]))
        say({"version": packages[name], "python": python, "packages": dict(sorted(packages.items()))})
        return
    try:
        PEERS[name](tiny())
    except BaseException as error:
        say(told(error))
        return
    say({"ready": importlib.metadata.version(name)})
    while len(size := sys.stdin.buffer.read(8)) == 8:
        archive = io.BytesIO(sys.stdin.buffer.read(int.from_bytes(size, "big")))
        try:
            answer = plain(PEERS[name](fields(np.load(archive, allow_pickle=False))))
        except BaseException as error:
            answer = told(error)
        say(answer)


if __name__ == "__main__":
    main()
