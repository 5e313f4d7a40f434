"""Sparse kernels on the layers of 784-300-100-10, and ResNet20 with fewer channels: see README.md."""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
import time
import tomllib
import warnings
from collections.abc import Callable
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

HERE = Path(__file__).parent
FIELDS = ("part", "what", "multiplications", "batch", "how", "wall", "cpu", "times dense", "times dense, cpu")
PART = 3e-4
Times = dict[str, tuple[float, float]]


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


class Rows:
    """What was measured, on disk as it comes."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()

    def add(
        self, part: str, what: str, count: dict[str, int], batch: int, times: dict[str, tuple[float, float]]
    ) -> None:
        """One group of calls; the first of them is dense."""
        dense = times["torch"]
        for how, (wall, cpu) in times.items():
            self.rows.append(
                {
                    "part": part, "what": what, "batch": batch, "how": how,
                    "multiplications": count.get(how, count["torch"]), "wall": f"{1e6 * wall:.2f}",
                    "cpu": f"{1e6 * cpu:.2f}",
                    "times dense": f"{dense[0] / wall:.2f}", "times dense, cpu": f"{dense[1] / cpu:.2f}",
                }
            )  # fmt: skip
            print(*self.rows[-1].values(), flush=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)


def layers(settings: dict[str, Any], rows: Rows) -> None:
    """Every layer by itself, by every kernel, and the network."""
    generator = torch.Generator().manual_seed(settings["seed"])
    for sparsity in settings["sparsities"]:
        modules: list[nn.Module] = []
        for n, m in itertools.pairwise(settings["sizes"]):
            layer = nn.Linear(n, m)
            with torch.no_grad():
                layer.weight.mul_(torch.rand(m, n, generator=generator) >= sparsity)
            modules += [layer.requires_grad_(False), nn.ReLU()]
        network = nn.Sequential(*modules[:-1]).eval()
        for batch in settings["batches"]:
            x = torch.randn(batch, settings["sizes"][0], generator=generator)
            whole = compiled(network, x)
            calls = {"torch": partial(network, x), "compiled": partial(whole, x)}
            times = timed(calls, settings["seconds"])
            name = f"{'-'.join(map(str, settings['sizes']))} at {sparsity:.0%}"
            total = sum(layer.weight.numel() for layer in network if isinstance(layer, nn.Linear))
            rows.add(
                "network", name, {"torch": total, "compiled": whole.program.multiplications}, batch, times
            )
            for layer in network:
                if isinstance(layer, nn.Linear):
                    times = timed(kernels(layer, x), settings["seconds"])
                    count = {how: int((layer.weight != 0).sum()) for how in times if how != "torch"}
                    name = f"{layer.in_features} -> {layer.out_features} at {sparsity:.0%}"
                    rows.add("layer", name, count | {"torch": layer.weight.numel()}, batch, times)
                x = layer(x)


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


def resnet(settings: dict[str, Any], rows: Rows) -> None:
    """ResNet20 with a share of its channels, and of its weights; everything against the dense one."""
    generator = torch.Generator().manual_seed(settings["seed"])
    dense = ResNet20().eval().requires_grad_(False)
    variants: dict[str, nn.Module] = {f"{kept:.0%} of channels": ResNet20(kept) for kept in settings["kept"]}
    for share in settings["thinned"]:
        variants[f"{1 - share:.0%} of weights"] = thin = ResNet20()
        with torch.no_grad():
            for p in thin.parameters():
                if p.ndim > 1:
                    p.mul_(torch.rand(p.shape, generator=generator) >= share)
    for what, network in variants.items():
        network = network.eval().requires_grad_(False)
        for batch in settings["batches"]:
            x = torch.randn(batch, 3, 32, 32, generator=generator)
            ours, folded = compiled(network, x[:1]), fuse(network)
            whole = compiled(dense, x[:1]).program.multiplications
            calls: dict[str, Callable[[], Any]] = {"torch": partial(dense, x), "compiled": partial(ours, x)}
            if "channels" in what:
                calls |= {
                    "smaller in torch": partial(network, x),
                    "smaller, norms folded": partial(folded, x),
                }
                with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
                    write_onnx(
                        network, Path(folder) / "net.onnx", torch.randn(2, 3, 32, 32, generator=generator)
                    )
                    running = session(Path(folder) / "net.onnx", threads=1)
                calls["smaller in ONNX Runtime"] = partial(running.run, None, {"input": x.numpy()})
            count = dict.fromkeys(calls, ours.program.multiplications) | {"torch": whole}
            rows.add("ResNet20", what, count, batch, timed(calls, 2 * settings["seconds"]))


def table(rows: list[dict[str, Any]]) -> str:
    """Ratios to dense PyTorch, by processor time: a line a network or layer."""
    ways = [*dict.fromkeys(row["how"] for row in rows if row["how"] != "torch")]
    lines = [
        f"| | batch | multiplications | torch, us | {' | '.join(ways)} |",
        "|---" * (4 + len(ways)) + "|",
    ]
    for (what, batch), group in itertools.groupby(rows, key=lambda row: (row["what"], row["batch"])):
        found = {row["how"]: row for row in group}
        count = int(found["torch"]["multiplications"]) / max(1, int(found["compiled"]["multiplications"]))
        cells = [found[way]["times dense, cpu"] if way in found else "" for way in ways]
        lines.append(
            f"| {what} | {batch} | 1 / {count:.2f} | {found['torch']['cpu']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--part", choices=("layers", "resnet20"), help="only this; the other's rows stay")
    given = parser.parse_args()
    settings = tomllib.loads((HERE / "config.toml").read_text())
    if given.seconds is not None:
        settings["seconds"] = given.seconds
    torch.set_num_threads(1)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's sparse matrices are in beta
        for name, part in PARTS.items():
            if given.part in (None, name):
                part(settings, Rows(results / f"{name}.csv"))
    tables = []
    for name in PARTS:
        with (results / f"{name}.csv").open(newline="") as file:
            rows = [*csv.DictReader(file)]
        kinds = dict.fromkeys(row["part"] for row in rows)
        tables += [table([row for row in rows if row["part"] == kind]) for kind in kinds]
    (results / "table.md").write_text("\n".join(tables))


PARTS = {"layers": layers, "resnet20": resnet}

if __name__ == "__main__":
    main()
