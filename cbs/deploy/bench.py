"""`bench()`: a network dense, smaller, sparse and as ONNX, side by side on this machine.

All variants of one network are timed in turn, round by round, so that whatever else the machine does meets
all of them alike. What is told is the median of a call and the quarters around it. Where nothing is gained
the result says so.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cbs.data import first_line
from cbs.deploy.batch import Batch, call, difference
from cbs.deploy.counting import memory, multiplications
from cbs.deploy.export import example_of, slimmed
from cbs.deploy.sparse import choices, sparse
from cbs.deploy.stored import write
from cbs.deploy.timing import Times, interleaved
from cbs.quantization.quantize import QuantizeResult
from cbs.result import PruneResult

NOTHING = 1.05
"""Ratios of times that are closer to 1 than this are no gain and no loss."""


@dataclass(frozen=True)
class Timing:
    """Of one call.

    Attributes:
        median: seconds.
        low: seconds; a quarter of the rounds was quicker.
        high: seconds; a quarter of the rounds took longer.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Variant:
    """One way to run the network.

    Attributes:
        name: `dense`, `smaller`, `sparse`, `onnx`.
        what: in words.
        disk: bytes of its file.
        memory: bytes of what it computes with; None where that is not known.
        parameters: zeros included; None where that is not known.
        multiplications: for one sample.
        times: by batch size.
    """

    name: str
    what: str
    disk: int
    memory: int | None
    parameters: int | None
    multiplications: int
    times: Mapping[int, Timing] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a network costs, in some variants; the first one is dense.

    Attributes:
        variants: all that could be made.
        threads: that a call might take.
        machine: on which it ran.
        remarks: what could not be made, and why.
    """

    variants: list[Variant]
    threads: int
    machine: str
    remarks: list[str]

    def ratio(self, variant: Variant, batch: int) -> float:
        """How many times faster than dense a variant is; below 1 it is slower."""
        return self.variants[0].times[batch].median / variant.times[batch].median

    def told(self, variant: Variant, batch: int) -> str:
        """The same in words: `4.7 x faster`, `no gain`, `1.3 x slower`."""
        if variant is self.variants[0]:
            return ""
        ratio = self.ratio(variant, batch)
        if 1 / NOTHING < ratio < NOTHING:
            return "no gain"
        return f"{ratio:.1f} x faster" if ratio > 1 else f"{1 / ratio:.1f} x slower"

    @property
    def verdicts(self) -> list[str]:
        """A sentence a batch size: which variant is fastest, or that none is faster than dense."""
        found = []
        for batch in self.variants[0].times:
            best = max(self.variants, key=lambda variant: self.ratio(variant, batch))
            if self.ratio(best, batch) < NOTHING:
                found.append(f"Batch {batch}: nothing is faster than dense.")
            else:
                found.append(f"Batch {batch}: {best.name} is {self.told(best, batch)} than dense.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        facts = asdict(self)
        for variant, record in zip(self.variants, facts["variants"], strict=True):
            record["faster"] = {batch: self.ratio(variant, batch) for batch in variant.times}
        return facts | {"verdicts": self.verdicts}


def bench(
    model: nn.Module | PruneResult | QuantizeResult,
    *,
    inputs: Any = None,
    batches: Sequence[int] = (1, 64),
    threads: int | None = None,
    seconds: float = 1.0,
    onnx: bool = True,
    neurons: Sequence[Any] = (),
) -> Bench:
    """Time a network in every variant that can be made of it: `dense`, `smaller`, `sparse`, `onnx`.

    Args:
        model: a network with zeros or masks, or a result.
        inputs: a batch of inputs; repeated where it has fewer samples than are asked for. By default
            calibration samples of a result.
        batches: sizes to time.
        threads: for PyTorch and ONNX Runtime; by default as many as PyTorch has now.
        seconds: for the timing of a batch size, about.
        onnx: whether to try ONNX Runtime, if it is installed.
        neurons: of a network what was pruned of groups of neurons, as a report has it.

    Raises:
        ValueError: in one line, for what can't be run.
    """
    if not batches or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in batches):
        raise ValueError(f"batches must be whole numbers from 1, got {list(batches)}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads must be a whole number from 1, got {threads!r}")
    given = example_of(model, inputs)
    if given is None:
        raise ValueError("inputs are missing: a network is timed by running it; give a batch as inputs=")
    given = given.to("cpu")
    dense, small, removed = slimmed(model, given, neurons)
    sized = {n: _sized(given, n) for n in batches}
    with _threads(threads), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        return _Bench(dense.cpu(), small.cpu(), removed, given, sized, Path(folder), seconds).run(model, onnx)


class _Bench:
    """The making and timing of variants."""

    def __init__(
        self,
        dense: nn.Module,
        small: nn.Module,
        removed: list[tuple[str, int, int]],
        given: Batch,
        sized: Mapping[int, Batch],
        folder: Path,
        seconds: float,
    ) -> None:
        self.dense, self.small, self.removed, self.given = dense, small, removed, given
        self.sized, self.folder, self.seconds = sized, folder, seconds
        self.remarks: list[str] = []
        self.variants: list[Variant] = []
        self.calls: list[dict[int, Callable[[], Any]]] = []

    def run(self, model: Any, onnx: bool) -> Bench:
        """All variants, timed."""
        try:
            wanted = call(self.dense, self.given)
        except Exception as error:
            raise ValueError(f"the model refuses the inputs ({first_line(error)})") from None
        count = multiplications(self.dense, self.given)
        plain = sum(t.numel() * t.element_size() for t in self.dense.state_dict().values())
        self._add("dense", "PyTorch, every weight", self.dense, plain, count.all)
        packed = model.packed if isinstance(model, QuantizeResult) else {}
        disk = write(self.small, self.folder / "small.safetensors", packed=packed).bytes
        if self.removed:
            gone = sum(part for _, part, _ in self.removed)
            all_ = multiplications(self.small, self.given).all
            self._add("smaller", f"PyTorch, without {gone:,} neurons", self.small, disk, all_)
        else:
            self.remarks.append(
                "smaller: no neuron can be taken out, and in PyTorch zeros cost as much as others"
            )
        needed = multiplications(self.small, self.given).needed
        self._sparse(wanted, disk, needed)
        if onnx:
            self._onnx(multiplications(self.small, self.given).all)
        for n in self.sized:
            times = interleaved([ways[n] for ways in self.calls], seconds=self.seconds)
            self.variants = [self._timed(v, n, t) for v, t in zip(self.variants, times, strict=True)]
        machine = f"{platform.system()} {platform.machine()}"
        return Bench(self.variants, torch.get_num_threads(), machine, self.remarks)

    def _add(self, name: str, what: str, network: nn.Module, disk: int, multiplied: int) -> None:
        parameters = sum(p.numel() for p in network.parameters())
        self.variants.append(Variant(name, what, disk, memory(network), parameters, multiplied))
        self.calls.append({n: _caller(network, batch) for n, batch in self.sized.items()})

    def _sparse(self, wanted: Any, disk: int, needed: int) -> None:
        """The sparse runtime, chosen for every batch size by itself, if anything is compiled."""
        made = {n: sparse(self.small, batch) for n, batch in self.sized.items()}
        told = [choice for network in made.values() for choice in choices(network)]
        if not any(choice.used == "compiled" for choice in told):
            why = told[0].reason if told else "there is no layer"
            self.remarks.append(f"sparse: nothing was compiled ({why})")
            return
        if not all(difference(call(network, self.given), wanted) < 1e-3 for network in made.values()):
            self.remarks.append("sparse: outputs differ")
            return
        first = made[min(made)]
        used = {choice.name for choice in choices(first) if choice.used == "compiled"}
        what = "one compiled call" if used == {""} else f"{len(used)} compiled parts, the rest in PyTorch"
        self.variants.append(Variant("sparse", what, disk, memory(first), None, needed))
        self.calls.append({n: _caller(made[n], batch) for n, batch in self.sized.items()})

    def _onnx(self, multiplied: int) -> None:
        if find_spec("onnx") is None or find_spec("onnxruntime") is None:
            self.remarks.append("onnx: onnx and onnxruntime are not installed (extra 'onnx')")
            return
        from cbs.deploy.onnx import feed, session, write_onnx

        path = self.folder / "small.onnx"
        try:
            with torch.inference_mode(False):
                write_onnx(self.small, path, self.given)
            running = session(path, torch.get_num_threads())
            feeds = {n: feed(self.small, batch, running) for n, batch in self.sized.items()}
            for values in feeds.values():
                running.run(None, values)
        except Exception as error:  # of PyTorch's exporters and of ONNX Runtime
            self.remarks.append(f"onnx: {first_line(error)}")
            return
        disk = path.stat().st_size
        self.variants.append(Variant("onnx", "ONNX Runtime", disk, None, None, multiplied))
        self.calls.append({n: _runner(running, values) for n, values in feeds.items()})

    @staticmethod
    def _timed(variant: Variant, batch: int, times: Times) -> Variant:
        low, high = times.spread
        found = {**variant.times, batch: Timing(times.median, low, high)}
        return Variant(**{**vars(variant), "times": found})


def _caller(network: nn.Module, batch: Batch) -> Callable[[], Any]:
    if isinstance(batch, torch.Tensor):
        return lambda: network(batch)
    return lambda: call(network, batch)


def _runner(running: Any, values: dict[str, Any]) -> Callable[[], Any]:
    return lambda: running.run(None, values)


def _sized(given: Batch, count: int) -> Batch:
    """So many samples, the first ones again where there are not enough."""
    return given[torch.arange(count) % len(given)]


@contextmanager
def _threads(count: int | None) -> Any:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
