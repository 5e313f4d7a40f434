"""Programs: operations as tables of numbers, and the memory that they work in (code generation).

A value that flows between operations has a place in the arena until its last reader is done; then others
take it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbs.deploy import kernels as k

SLACK = 128
"""Floats behind everything in the arena: vectors read and write past their ends."""


@dataclass
class Value:
    """What flows between operations.

    Attributes:
        shape: of one sample.
        made: the operation that computes it; None for the input.
        same: the value whose memory this one is a view of.
    """

    shape: tuple[int, ...]
    made: Operation | None = None
    same: Value | None = None

    @property
    def size(self) -> int:
        """Numbers of one sample."""
        return math.prod(self.shape)


@dataclass
class Operation:
    """One step: what it reads, and what it computes it with.

    Attributes:
        kind: see `kernels`.
        sources: what it reads.
        result: what it computes.
        W: weights, for linear layers `[m, n]`, for convolutions `[m, channels in all, kh, kw]`.
        b: biases `[m]`; for affine maps `[channels, 2]` scales and shifts.
        fields: of `kernels`, by number.
        act: what is done to the result.
        stride: of a convolution or pool, as its padding (top, bottom, left, right) and dilation.
        padding: see there.
        dilation: see there.
    """

    kind: int
    sources: list[Value]
    result: Value
    W: NDArray[np.float32] | None = None
    b: NDArray[np.float32] | None = None
    fields: dict[int, int] = field(default_factory=dict)
    act: int = k.KEEP
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def multiplications(self) -> int:
        """By weights that are not zero, for one sample."""
        if self.W is None:
            return 0
        places = math.prod(self.result.shape[1:]) if self.kind == k.CONV else 1
        return int(np.count_nonzero(self.W)) * places


@dataclass(frozen=True, eq=False)
class Program:
    """A program, ready to run; see `kernels.run`.

    Attributes:
        ops: `[steps, WIDTH]`.
        index: places of weights.
        values: weights and biases.
        room: floats of the arena.
        inside: shape of an input's sample.
        outside: shape of an output's.
        last: where the output stands in the arena.
        together: floats of half the arena for samples side by side; 0 where they go one by one.
        multiplications: for one sample.
        rows: whether samples may have more dimensions before them than one, as for linear layers.
    """

    ops: NDArray[np.int64]
    index: NDArray[np.uint32]
    values: NDArray[np.float32]
    room: int
    inside: tuple[int, ...]
    outside: tuple[int, ...]
    last: int
    together: int
    multiplications: int
    rows: bool

    @property
    def bytes(self) -> int:
        """Of the table, places and weights."""
        return self.ops.nbytes + self.index.nbytes + self.values.nbytes


def planned(ops: list[Operation], given: Value, result: Value, rows: bool = True) -> Program:
    """Operations as tables, and what stands where in the arena; `rows` as of `Program`."""
    places, room = _placed(ops, given, result)
    table = np.zeros((len(ops), k.WIDTH), dtype=np.int64)
    index: list[NDArray[np.uint32]] = []
    values: list[NDArray[np.float32]] = []
    entries = numbers = scratch = sums = 0
    for row, op in zip(table, ops, strict=True):
        row[[k.KIND, k.ACT, k.SRC, k.DST, k.INDEX, k.VALUES]] = (
            op.kind, op.act, places[id(_root(op.sources[0]))], places[id(op.result)], entries, numbers,
        )  # fmt: skip
        for number, value in op.fields.items():
            row[number] = value
        at, w = np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.float32)
        if op.kind == k.LINEAR:
            assert op.W is not None
            assert op.b is not None
            at, w = sliced(op.W, op.b)
            row[[k.N, k.M, k.SLICES]] = op.W.shape[1], len(op.W), -(-len(op.W) // k.ROWS)
        elif op.kind == k.CONV:
            at, w = _shifted(row, op)
            planes = row[k.C] * row[k.UH] * row[k.UW] * row[k.HQ] * row[k.WQ]
            row[k.SCRATCH] = -1 if any(op.padding) or op.stride != (1, 1) else -2
            if row[k.SCRATCH] == -1:
                scratch = max(scratch, int(planes))
            row[k.APART] = min(row[k.HO], max(1, k.BLOCK // row[k.WQ])) * row[k.WQ] + SLACK
            sums = max(sums, 2 * int(row[k.APART]))
        elif op.kind == k.ADD:
            row[k.OTHER] = places[id(_root(op.sources[1]))]
        elif op.b is not None:
            w = op.b.ravel()
        index.append(at)
        values.append(w)
        entries, numbers = entries + len(at), numbers + len(w)
    for row in table:
        if row[k.KIND] == k.CONV:
            row[k.SCRATCH], row[k.SUMS] = (room if row[k.SCRATCH] == -1 else -1), room + scratch + SLACK
    room += scratch + sums + 2 * SLACK
    together = 0
    if all(op.kind == k.LINEAR for op in ops):
        together = k.TILE * (max(given.size, *(op.result.size for op in ops)) + 1)
        room = max(room, 2 * together + SLACK)
    return Program(
        table, _joined(index, np.uint32), _joined(values, np.float32), room, given.shape, result.shape,
        places[id(_root(result))], together, sum(op.multiplications for op in ops),
        rows and len(given.shape) == 1,
    )  # fmt: skip


def _placed(ops: list[Operation], given: Value, result: Value) -> tuple[dict[int, int], int]:
    """A place in the arena for every value, used again once its last reader is done; and the room taken."""
    last = {id(given): 0}
    for i, op in enumerate(ops):
        for source in op.sources:
            last[id(_root(source))] = i
        last.setdefault(id(op.result), i)
    last[id(_root(result))] = len(ops)
    places = {id(given): 0}
    held = [(0, given.size + k.ROWS, last[id(given)])]
    room = given.size + k.ROWS
    for i, op in enumerate(ops):
        held = sorted(block for block in held if block[2] >= i)
        size, at = op.result.size + k.ROWS, 0
        for start, stop, _ in held:
            if at + size <= start:
                break
            at = max(at, stop)
        places[id(op.result)] = at
        held.append((at, at + size, last[id(op.result)]))
        room = max(room, at + size)
    return places, room


def sliced(W: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """A matrix in slices of eight rows: starts, rows and places; biases and weights."""
    counts = np.count_nonzero(W, axis=1)
    order = np.argsort(-counts, kind="stable")
    slices = -(-len(W) // k.ROWS)
    rows = np.full(slices * k.ROWS, len(W), dtype=np.int64)
    rows[: len(W)] = order
    lengths = np.zeros(slices * k.ROWS, dtype=np.int64)
    lengths[: len(W)] = counts[order]
    tall = lengths.reshape(slices, k.ROWS).max(axis=1)
    starts = np.concatenate([[0], np.cumsum(tall)])
    at = np.zeros((int(starts[-1]), k.ROWS), dtype=np.uint32)
    w = np.zeros((int(starts[-1]), k.ROWS), dtype=np.float32)
    for i, r in enumerate(order):
        found = np.flatnonzero(W[r])
        start = starts[i // k.ROWS]
        at[start : start + len(found), i % k.ROWS] = found
        w[start : start + len(found), i % k.ROWS] = W[r, found]
    biases = np.zeros(slices * k.ROWS, dtype=np.float32)
    biases[: len(W)] = b[order]
    index = np.concatenate([starts, rows, at.ravel()]).astype(np.uint32)
    return index, np.concatenate([biases, w.ravel()])


def _shifted(row: NDArray[np.int64], op: Operation) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """A convolution's weights that are not zero, each with the shift of the plane that it meets."""
    assert op.W is not None
    assert op.b is not None
    (sh, sw), (dh, dw) = op.stride, op.dilation
    top, bottom, left, right = op.padding
    high, wide = -(-(row[k.H] + top + bottom) // sh), -(-(row[k.W] + left + right) // sw)
    used = [
        int((np.arange(size) * d % s).max()) + 1
        for size, d, s in zip(op.W.shape[2:], op.dilation, op.stride, strict=True)
    ]
    row[[k.SH, k.SW, k.PT, k.PL, k.HQ, k.WQ, k.UH, k.UW]] = sh, sw, top, left, high, wide, *used
    row[k.ALIKE] = int(((op.W != 0) == (op.W[:1] != 0)).all())
    m, c, y, x = np.nonzero(op.W)
    y, x = y * dh, x * dw
    plane = (c * used[0] + y % sh) * used[1] + x % sw
    shifts = plane * high * wide + (y // sh) * wide + x // sw
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(op.W.reshape(len(op.W), -1), axis=1))])
    return np.concatenate([starts, shifts]).astype(np.uint32), np.concatenate(
        [op.b, op.W[m, c, y // dh, x // dw]]
    )


def _root(value: Value) -> Value:
    """The value whose memory this one is a view of."""
    while value.same is not None:
        value = value.same
    return value


def _joined(parts: list[Any], kind: type) -> Any:
    return np.ascontiguousarray(np.concatenate([np.zeros(0, dtype=kind), *parts]).astype(kind))
