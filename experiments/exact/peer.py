"""One row by OKRidge or L0BnB, run by the interpreter of its own environment: see regression.py."""

import contextlib
import io
import json
import sys
import time

import numpy as np


def okridge(p):
    from okridge.tree import BNBTree

    scale = 1.0 / np.linalg.eigvalsh(p["H"])[0]  # it takes eigenvalues below 1e-3 for zero
    H, w = scale * p["H"], p["w"]
    X = np.linalg.cholesky(H).T
    offset = w @ H @ w
    target = 2.0 * scale * p["value"]
    start = time.perf_counter()
    tree = BNBTree(X, X @ w, lambda2=0.0, max_memory_GB=4)
    gap = p["gap"] * target / abs(target - offset)
    _, beta, reached, bound, _ = tree.solve(int(p["keep"]), gap_tol=gap, time_limit=float(p["cap"]))
    return time.perf_counter() - start, beta, (bound + offset) / (2.0 * scale), reached <= gap


def l0bnb(p):
    from l0bnb import BNBTree, gen_synthetic

    scale = len(p["w"]) / np.trace(p["H"])
    H, w = scale * p["H"], p["w"]
    ridge = 0.99 * np.linalg.eigvalsh(H)[0]
    X = np.linalg.cholesky(H - ridge * np.eye(len(w))).T
    y = np.linalg.solve(X.T, H @ w)
    price = scale * float(p["price"])
    offset = 0.5 * (y @ y - w @ H @ w) + price * float(p["keep"])
    target = scale * p["value"]
    warm = np.where(p["start"], w, 0.0)
    known, told, _ = gen_synthetic(n=20, p=6, supp_size=2)
    BNBTree(known, told).solve(0.1, 0.1, 10.0)  # compile first
    start = time.perf_counter()
    gap = p["gap"] * target / abs(target + offset)
    answer = BNBTree(X, y, rel_tol=min(gap, 1e-4)).solve(
        price, ridge / 2.0, float(p["reach"]), gap_tol=gap, warm_start=warm, time_limit=float(p["cap"])
    )
    seconds = time.perf_counter() - start
    done = answer.gap <= gap or seconds < p["cap"]  # an empty queue leaves the gap as it was
    bound = answer.cost - (min(answer.gap, gap) if done else answer.gap) * abs(answer.cost)
    return seconds, answer.beta, (bound - offset) / scale, done


def main():
    p = np.load(io.BytesIO(sys.stdin.buffer.read()))
    with contextlib.redirect_stdout(sys.stderr):
        seconds, beta, bound, done = {"okridge": okridge, "l0bnb": l0bnb}[sys.argv[1]](p)
    support = np.flatnonzero(beta).tolist()
    print(json.dumps({"seconds": seconds, "support": support, "bound": float(bound), "done": bool(done)}))


if __name__ == "__main__":
    main()
