"""Sparse kernels on the layers of 784-300-100-10, and ResNet20 with fewer channels: see README.md."""

from __future__ import annotations

import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numba import njit
from torch import nn
from torch.fx.experimental.optimization import fuse

from cbs.deploy.onnx import session, write_onnx
from cbs.deploy.sparse import compiled
from cbs.zoo import ResNet20

SIZES = (784, 300, 100, 10)
PART = 3e-4
"""Seconds that a way has before it is the next one's turn."""
SEED = 0
Times = dict[str, tuple[float, float]]


def perceptron(sparsity: float, batch: int, seconds: float = 1.0) -> dict[str, Any]:
    """784-300-100-10 with so many zeros as one call, and every layer of it by every kernel."""
    with quiet():
        generator = torch.Generator().manual_seed(SEED)
        network = thinned(sparsity, generator)
        x = torch.randn(batch, SIZES[0], generator=generator)
        whole = compiled(network, x)
        times = timed({"torch": partial(network, x), "compiled": partial(whole, x)}, seconds)
        total = sum(layer.weight.numel() for layer in network if isinstance(layer, nn.Linear))
        count = {"torch": total, "compiled": whole.program.multiplications}
        rows = measured("network", f"{'-'.join(map(str, SIZES))} at {sparsity:.0%}", count, times)
        for layer in network:
            if isinstance(layer, nn.Linear):
                times = timed(kernels(layer, x), seconds)
                count = dict.fromkeys(times, int((layer.weight != 0).sum())) | {"torch": layer.weight.numel()}
                rows += measured(
                    "layer", f"{layer.in_features} -> {layer.out_features} at {sparsity:.0%}", count, times
                )
            x = layer(x)
    return {"calls": rows}


def resnet(batch: int, channels: float = 1.0, weights: float = 1.0, seconds: float = 2.0) -> dict[str, Any]:
    """ResNet20 with a share of its channels, or of its weights, against the dense one."""
    with quiet():
        generator = torch.Generator().manual_seed(SEED)
        dense = ResNet20().eval().requires_grad_(False)
        network = ResNet20(channels)
        if weights < 1:
            with torch.no_grad():
                for p in network.parameters():
                    if p.ndim > 1:
                        p.mul_(torch.rand(p.shape, generator=generator) >= 1 - weights)
        network = network.eval().requires_grad_(False)
        x = torch.randn(batch, 3, 32, 32, generator=generator)
        ours, folded = compiled(network, x[:1]), fuse(network)
        whole = compiled(dense, x[:1]).program.multiplications
        calls: dict[str, Callable[[], Any]] = {"torch": partial(dense, x), "compiled": partial(ours, x)}
        if weights == 1:
            calls |= {"smaller in torch": partial(network, x), "smaller, norms folded": partial(folded, x)}
            with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
                path = Path(folder) / "net.onnx"
                write_onnx(network, path, torch.randn(2, 3, 32, 32, generator=generator))
                running = session(path, threads=1)
            calls["smaller in ONNX Runtime"] = partial(running.run, None, {"input": x.numpy()})
        count = dict.fromkeys(calls, ours.program.multiplications) | {"torch": whole}
        what = f"{weights:.0%} of weights" if weights < 1 else f"{channels:.0%} of channels"
        return {"calls": measured("ResNet20", what, count, timed(calls, seconds))}


@contextmanager
def quiet() -> Iterator[None]:
    """One thread, no gradients, and no word of PyTorch's sparse matrices being in beta."""
    torch.set_num_threads(1)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def measured(part: str, what: str, count: Mapping[str, int], times: Times) -> list[dict[str, Any]]:
    """Microseconds of a group of calls, by the clock and of the processor; the first of them is dense."""
    return [
        {"part": part, "what": what, "how": how, "multiplications": count[how],
         "wall": 1e6 * wall, "cpu": 1e6 * cpu,
         "times_dense": times["torch"][0] / wall, "times_dense_cpu": times["torch"][1] / cpu}
        for how, (wall, cpu) in times.items()
    ]  # fmt: skip


def thinned(sparsity: float, generator: torch.Generator) -> nn.Sequential:
    """The network with random weights, so many of which are zero."""
    modules: list[nn.Module] = []
    for n, m in itertools.pairwise(SIZES):
        layer = nn.Linear(n, m)
        with torch.no_grad():
            layer.weight.mul_(torch.rand(m, n, generator=generator) >= sparsity)
        modules += [layer.requires_grad_(False), nn.ReLU()]
    return nn.Sequential(*modules[:-1]).eval()


@njit(fastmath={"reassoc", "contract"}, nogil=True)
def csr_loop(starts, places, values, bias, x, y):
    """A sum a row, as one writes it."""
    for r in range(len(starts) - 1):
        total = bias[r]
        for t in range(starts[r], starts[r + 1]):
            total += values[t] * x[places[t]]
        y[r] = total


def timed(calls: dict[str, Callable[[], Any]], seconds: float) -> Times:
    """Median wall and processor time of calls that take turns, in seconds."""
    counts = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        counts[name] = max(1, int(PART / (time.perf_counter() - began)))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(found[name]) < 5:
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.thread_time()
            for _ in range(counts[name]):
                call()
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            found[name].append((wall / counts[name], cpu / counts[name]))
    return {name: tuple(np.median(times, axis=0)) for name, times in found.items()}  # type: ignore[misc]


def kernels(layer: nn.Linear, x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """A layer by all kernels. Those that want samples side by side get them so."""
    W = layer.weight.detach().numpy()
    C = scipy.sparse.csr_matrix(W)
    T = layer.weight.detach().to_sparse_csr()
    columns = np.ascontiguousarray(x.numpy().T)
    side = torch.from_numpy(columns)
    bias, y = layer.bias.detach().numpy(), np.empty(len(W), dtype=np.float32)
    ours = compiled(layer, x)
    arena = np.zeros(ours.program.room, dtype=np.float32)
    out = torch.empty(len(x), len(W))
    place = arena.ctypes.data, len(arena), x.data_ptr(), out.data_ptr(), len(x), *ours._sizes
    held = arena, out  # whose addresses the kernel is given

    def alone(_: Any = held) -> None:
        ours._run(*ours._tables, *place)

    found: dict[str, Callable[[], Any]] = {
        "torch": lambda: layer(x),
        "torch CSR": lambda: T @ side,
        "scipy CSR": lambda: C @ columns,
        "compiled": lambda: ours(x),
        "compiled, kernel alone": alone,
    }
    if len(x) == 1:
        starts, places, flat = C.indptr, C.indices, columns[:, 0].copy()
        found["numba CSR loop"] = lambda: csr_loop(starts, places, C.data, bias, flat, y)
    return found
