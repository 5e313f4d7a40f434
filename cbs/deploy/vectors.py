"""Sums of many weighted rows at once, in registers: the inner loop of sparse times dense, as LLVM vectors.

A weight that is not zero meets a row of numbers that lie side by side (samples of a batch, or places of an
image), and is multiplied with sixteen of them by one instruction where the machine has such; elsewhere LLVM
takes what there is. The sums stay in registers until all weights of an output are done, which loops written
in Python do not bring the compiler to.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector."""
FAST = ("contract",)
"""A product and a sum may be fused."""


def _weighted(vectors: int) -> Any:
    """An intrinsic for `vectors * LANES` numbers side by side."""

    @intrinsic
    def weighted(
        context: Any,
        out: Any,
        rows: Any,
        scale: Any,
        values: Any,
        places: Any,
        stride: Any,
        count: Any,
        bias: Any,
    ) -> Any:
        """`out[i] = bias + sum_t values[stride t] rows[scale places[stride t] + i]`.

        Args:
            context: of the compiler.
            out: address of float32.
            rows: address of float32.
            scale: floats from a place to the next.
            values: address of float32.
            places: address of uint32.
            stride: floats from a value to the next, and places too.
            count: of values.
            bias: to begin with.
        """
        signature = types.void(
            types.int64,
            types.int64,
            types.int64,
            types.int64,
            types.int64,
            types.int64,
            types.int64,
            types.float32,
        )
        return signature, lambda _, builder, __, args: _generate(builder, args, vectors)

    return weighted


def _splat(builder: ir.IRBuilder, value: Any) -> Any:
    """A vector of one number."""
    i32, vector = ir.IntType(32), ir.VectorType(ir.FloatType(), LANES)
    nothing = ir.Constant(vector, ir.Undefined)
    mask = ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(nothing, value, i32(0)), nothing, mask)


def _generate(builder: ir.IRBuilder, args: Any, vectors: int) -> Any:
    out, rows, scale, values, places, stride, count, bias = args
    i32, i64, single = ir.IntType(32), ir.IntType(64), ir.FloatType()
    vector = ir.VectorType(single, LANES)

    def at(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(kind))

    start = _splat(builder, bias)
    before = builder.block
    head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    t = builder.phi(i64)
    sums = [builder.phi(vector) for _ in range(vectors)]
    t.add_incoming(i64(0), before)
    for total in sums:
        total.add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", t, count), body, done)
    builder.position_at_end(body)
    offset = builder.mul(builder.mul(t, stride), i64(4))
    weight = _splat(builder, builder.load(at(builder.add(values, offset), single)))
    place = builder.zext(builder.load(at(builder.add(places, offset), i32)), i64)
    row = builder.add(rows, builder.mul(builder.mul(place, scale), i64(4)))
    later = builder.add(t, i64(1))
    t.add_incoming(later, body)
    for k, total in enumerate(sums):
        x = builder.load(at(builder.add(row, i64(4 * LANES * k)), vector), align=4)
        moved = builder.fadd(builder.fmul(weight, x, flags=FAST), total, flags=FAST)
        total.add_incoming(moved, body)
    builder.branch(head)
    builder.position_at_end(done)
    for k, total in enumerate(sums):
        builder.store(total, at(builder.add(out, i64(4 * LANES * k)), vector), align=4)
    return None


def _paired(vectors: int) -> Any:
    """An intrinsic for two outputs whose weights stand at the same places: what is loaded serves both."""

    @intrinsic
    def paired(
        context: Any, out: Any, apart: Any, rows: Any, values: Any, further: Any, places: Any, count: Any,
        bias: Any, other: Any,
    ) -> Any:  # fmt: skip
        """As `weighted` with scale and stride 1, for outputs and values so many floats apart."""
        signature = types.void(*[types.int64] * 7, types.float32, types.float32)
        return signature, lambda _, builder, __, args: _generate_pair(builder, args, vectors)

    return paired


def _generate_pair(builder: ir.IRBuilder, args: Any, vectors: int) -> Any:
    out, apart, rows, values, further, places, count, *biases = args
    i32, i64, single = ir.IntType(32), ir.IntType(64), ir.FloatType()
    vector = ir.VectorType(single, LANES)

    def at(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(kind))

    starts = [_splat(builder, bias) for bias in biases]
    second = [i64(0), builder.mul(further, i64(4))]
    before = builder.block
    head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    t = builder.phi(i64)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in starts]
    t.add_incoming(i64(0), before)
    for start, totals in zip(starts, sums, strict=True):
        for total in totals:
            total.add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", t, count), body, done)
    builder.position_at_end(body)
    offset = builder.mul(t, i64(4))
    place = builder.zext(builder.load(at(builder.add(places, offset), i32)), i64)
    row = builder.add(rows, builder.mul(place, i64(4)))
    value = builder.add(values, offset)
    weights = [_splat(builder, builder.load(at(builder.add(value, more), single))) for more in second]
    t.add_incoming(builder.add(t, i64(1)), body)
    for k in range(vectors):
        x = builder.load(at(builder.add(row, i64(4 * LANES * k)), vector), align=4)
        for weight, totals in zip(weights, sums, strict=True):
            moved = builder.fadd(builder.fmul(weight, x, flags=FAST), totals[k], flags=FAST)
            totals[k].add_incoming(moved, body)
    builder.branch(head)
    builder.position_at_end(done)
    to = [out, builder.add(out, builder.mul(apart, i64(4)))]
    for place, totals in zip(to, sums, strict=True):
        for k, total in enumerate(totals):
            builder.store(total, at(builder.add(place, i64(4 * LANES * k)), vector), align=4)
    return None


def _mapped(addends: int) -> Any:
    """An intrinsic that copies numbers, or adds two rows of them, and lifts what is below a floor to it."""
    if addends == 1:

        @intrinsic
        def copied(context: Any, out: Any, a: Any, count: Any, floor: Any) -> Any:
            """`out[i] = max(a[i], floor)`: addresses of float32, a count, and a float32; NaN stays."""
            signature = types.void(types.int64, types.int64, types.int64, types.float32)
            return signature, lambda _, builder, __, args: _map(builder, args[0], args[1:2], *args[2:])

        return copied

    @intrinsic
    def added(context: Any, out: Any, a: Any, b: Any, count: Any, floor: Any) -> Any:
        """`out[i] = max(a[i] + b[i], floor)`, as above."""
        signature = types.void(types.int64, types.int64, types.int64, types.int64, types.float32)
        return signature, lambda _, builder, __, args: _map(builder, args[0], args[1:3], *args[3:])

    return added


def _map(builder: ir.IRBuilder, out: Any, sources: Any, count: Any, floor: Any) -> Any:
    """Sixteen at a time, and then one by one."""
    i64, single = ir.IntType(64), ir.FloatType()
    start: Any = i64(0)
    for kind, lanes in ((ir.VectorType(single, LANES), LANES), (single, 1)):
        least = _splat(builder, floor) if lanes > 1 else floor
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(i64)
        i.add_incoming(start, before)
        later = builder.add(i, i64(lanes))
        builder.cbranch(builder.icmp_signed("<=", later, count), body, done)
        builder.position_at_end(body)
        offset = builder.mul(i, i64(4))
        values = [
            builder.load(builder.inttoptr(builder.add(place, offset), ir.PointerType(kind)), align=4)
            for place in sources
        ]
        total = values[0] if len(values) == 1 else builder.fadd(*values)
        lifted = builder.select(builder.fcmp_ordered("<", total, least), least, total)
        builder.store(lifted, builder.inttoptr(builder.add(out, offset), ir.PointerType(kind)), align=4)
        i.add_incoming(later, body)
        builder.branch(head)
        builder.position_at_end(done)
        start = i
    return None


@intrinsic
def seconds(context: Any, out: Any, a: Any, count: Any) -> Any:
    """`out[i] = a[2 i]`: addresses of float32, and a count; up to one number more is read behind the last."""
    signature = types.void(types.int64, types.int64, types.int64)
    return signature, lambda _, builder, __, args: _every_second(builder, *args)


def _every_second(builder: ir.IRBuilder, out: Any, a: Any, count: Any) -> Any:
    i32, i64, single = ir.IntType(32), ir.IntType(64), ir.FloatType()
    start: Any = i64(0)
    for lanes in (LANES, 1):
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(i64)
        i.add_incoming(start, before)
        later = builder.add(i, i64(lanes))
        builder.cbranch(builder.icmp_signed("<=", later, count), body, done)
        builder.position_at_end(body)
        place, to = builder.add(a, builder.mul(i, i64(8))), builder.add(out, builder.mul(i, i64(4)))
        kind: Any = single
        if lanes > 1:
            wide, kind = ir.VectorType(single, 2 * LANES), ir.VectorType(single, LANES)
            both = builder.load(builder.inttoptr(place, ir.PointerType(wide)), align=4)
            mask = ir.Constant(ir.VectorType(i32, LANES), [2 * k for k in range(LANES)])
            value = builder.shuffle_vector(both, ir.Constant(wide, ir.Undefined), mask)
        else:
            value = builder.load(builder.inttoptr(place, ir.PointerType(single)), align=4)
        builder.store(value, builder.inttoptr(to, ir.PointerType(kind)), align=4)
        i.add_incoming(later, body)
        builder.branch(head)
        builder.position_at_end(done)
        start = i
    return None


@intrinsic
def transpose(context: Any, rows: Any, wide: Any, columns: Any, high: Any) -> Any:
    """Sixteen numbers of each of sixteen rows, to sixteen of each of sixteen columns.

    Args:
        context: of the compiler.
        rows: address of float32.
        wide: floats from a row to the next.
        columns: address of float32.
        high: floats from a column to the next.
    """
    signature = types.void(types.int64, types.int64, types.int64, types.int64)
    return signature, lambda _, builder, __, args: _transposed(builder, args)


def _transposed(builder: ir.IRBuilder, args: Any) -> Any:
    rows, wide, columns, high = args
    i32, i64 = ir.IntType(32), ir.IntType(64)
    vector = ir.VectorType(ir.FloatType(), LANES)

    def at(address: Any, stride: Any, k: int) -> Any:
        place = builder.add(address, builder.mul(stride, i64(4 * k)))
        return builder.inttoptr(place, ir.PointerType(vector))

    half = LANES // 2
    masks = [
        ir.Constant(ir.VectorType(i32, LANES), [start + i // 2 + LANES * (i % 2) for i in range(LANES)])
        for start in (0, half)
    ]
    parts = [builder.load(at(rows, wide, k), align=4) for k in range(LANES)]
    for _ in range(LANES.bit_length() - 1):  # each round deals the vectors of the halves into each other
        parts = [builder.shuffle_vector(parts[k], parts[k + half], m) for k in range(half) for m in masks]
    for k, part in enumerate(parts):
        builder.store(part, at(columns, high, k), align=4)
    return None


def _pointer(kind: Any) -> Any:
    """An intrinsic that makes of an address what `numba.carray` takes."""

    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        """An address as a pointer."""
        target: Any = types.CPointer(kind)  # type: ignore[no-untyped-call]

        def generate(compiler: Any, builder: ir.IRBuilder, _: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], compiler.get_value_type(target))

        return target(address), generate

    return pointer


weighted64, weighted32, weighted16 = _weighted(4), _weighted(2), _weighted(1)
paired64, paired32, paired16 = _paired(4), _paired(2), _paired(1)
float_pointer, int_pointer, place_pointer = (
    _pointer(types.float32),
    _pointer(types.int64),
    _pointer(types.uint32),
)
copied, added = _mapped(1), _mapped(2)
