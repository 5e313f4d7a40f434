"""Functions that cells of tests call."""

import os
import time
from pathlib import Path

import numpy as np


def double(a, b="x", seed=0):
    return {"value": 2.0 * a, "status": "done", "text": f"{b}{seed}", "squares": np.arange(a) ** 2}


def noted(folder, number, seconds=0.0):
    """Note beginning and end in a folder, so that runs at the same time show."""
    mark = Path(folder) / f"{number}.running"
    with open(mark, "x"):
        time.sleep(seconds)
    mark.unlink()
    with open(Path(folder) / f"{number}.runs", "a") as file:
        file.write(f"{os.getpid()}\n")
    return {"value": float(number)}


def lasting(folder, number, seconds):
    """Note when it began and ended."""
    begun = time.time()
    time.sleep(seconds)
    with open(Path(folder) / f"{number}.runs", "a") as file:
        file.write(f"{begun} {time.time()}\n")
    return {"value": float(number)}


def fails(number):
    if number % 2:
        raise RuntimeError(f"number {number} is odd")
    return {"value": 0.0}


def stubborn():
    while True:
        pass


def greedy(mebibytes):
    kept = np.ones(mebibytes * 2**17)
    time.sleep(60)
    return {"value": float(kept.sum())}


def dies(folder):
    """Die at the first attempt."""
    mark = Path(folder) / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return {"value": 1.0}


def wrong():
    return 3


def odd(kind):
    """Give what a table can't hold, or what is odd and can be held."""
    if kind == "objects":
        return {"a": np.array([None, {}], dtype=object)}
    if kind == "nodes":
        return {"nodes": 2**70}
    if kind == "value":
        return {"value": 2**2000}
    if kind == "halves":
        raise RuntimeError("half of a character \ud800, \0, and " + 100_000 * "x")
    if kind == "ctrl-c":
        raise KeyboardInterrupt
    if kind == "fork" and os.fork() == 0:
        return {"value": -1.0}
    return {"value": 1.0, "status": "\ud800\0", "name": os.fsdecode(b"\xff"), "file": np.ones(2)}
