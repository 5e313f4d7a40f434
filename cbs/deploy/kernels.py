"""A whole network, or a part of it, in one compiled call: an interpreter of few operations (numba).

A program is a table of operations over one block of memory, the arena, which holds what flows between them. A
sample goes through all operations before the next does, so that what flows stays in the cache. Where all are
linear layers and there are several samples, up to 64 of these go through together, side by side.

The matrix of a linear layer is kept in slices of eight rows (sliced ELLPACK): the rows are sorted by how
many weights they have, eight of like length are interleaved, and shorter ones are filled with zeros. Eight
sums run at once. A convolution is done without unfolding (direct sparse convolution): a weight that is not
zero multiplies a whole plane of its input channel, shifted, and is added to the plane of its output channel.
For strides the input is first dealt into planes of every s-th place, so that what a weight meets always lies
side by side.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from cbs.deploy.vectors import (
    added,
    copied,
    float_pointer,
    int_pointer,
    paired16,
    paired32,
    paired64,
    place_pointer,
    seconds,
    transpose,
    weighted16,
    weighted32,
    weighted64,
)

FLAGS = {"contract"}
LINEAR, CONV, ADD, POOL, AFFINE = 0, 1, 2, 3, 4
"""Operations."""
KEEP, RELU, TANH, SIGMOID, GELU, SILU, RELU6 = 0, 1, 2, 3, 4, 5, 6
"""What is done to a result before it is stored."""
WIDTH = 24
"""Fields of an operation."""
# of every operation: what it is, activation, where it reads and writes in the arena
KIND, ACT, SRC, DST, INDEX, VALUES = 0, 1, 2, 3, 4, 5
# LINEAR: inputs, outputs, slices
N, M, SLICES = 6, 7, 8
# CONV and POOL: channels and sizes, strides, padding, phase planes and how many are used, scratch, sums
C, H, W, OUT, HO, WO = 6, 7, 8, 9, 10, 11
SH, SW, PT, PL, HQ, WQ, SCRATCH, SUMS, UH, UW, ALIKE, APART = 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23
# POOL: window, largest or mean
KH, KW, LARGEST = 16, 17, 18
# ADD: the other summand, entries; AFFINE: channels, places of each
OTHER, SIZE = 6, 7
CHANNELS, PLACES = 6, 7
ROWS = 8
"""Of a slice."""
TILE = 64
"""Samples that go together at most."""
FEW = 4
"""Samples that are better done one by one are fewer."""
BLOCK = 4096
"""Places of an image that are summed at once at most."""

inner = njit(  # type: ignore[call-overload]
    nogil=True, fastmath=FLAGS, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""A function that compiled ones alone call."""


@inner
def activated(value, act):
    """An activation."""
    if act == RELU:
        return np.float32(0) if value < np.float32(0) else value
    if act == RELU6:
        lifted = np.float32(0) if value < np.float32(0) else value
        return np.float32(6) if lifted > np.float32(6) else lifted
    if act == TANH:
        return np.float32(math.tanh(value))
    if act == SIGMOID:
        return np.float32(1) / (np.float32(1) + np.float32(math.exp(-value)))
    if act == GELU:
        return (
            np.float32(0.5)
            * value
            * (np.float32(1) + np.float32(math.erf(value * np.float32(0.7071067811865476))))
        )
    if act == SILU:
        return value / (np.float32(1) + np.float32(math.exp(-value)))
    return value


@inner
def linear(op, index, values, arena):
    """One sample through a linear layer in slices."""
    src, dst, act = np.uint64(op[SRC]), np.uint64(op[DST]), op[ACT]
    starts = np.uint64(op[INDEX])
    slices = np.uint64(op[SLICES])
    rows = starts + slices + np.uint64(1)
    places = rows + slices * np.uint64(ROWS)
    bias, weights = np.uint64(op[VALUES]), np.uint64(op[VALUES]) + slices * np.uint64(ROWS)
    one, eight = np.uint64(1), np.uint64(ROWS)
    x = arena[src:]
    at, w = index[places:], values[weights:]
    for s in range(op[SLICES]):
        t = np.uint64(index[starts + np.uint64(s)]) * eight
        end = np.uint64(index[starts + np.uint64(s) + one]) * eight
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0)
        while t < end:
            a0 += w[t] * x[at[t]]
            a1 += w[t + np.uint64(1)] * x[at[t + np.uint64(1)]]
            a2 += w[t + np.uint64(2)] * x[at[t + np.uint64(2)]]
            a3 += w[t + np.uint64(3)] * x[at[t + np.uint64(3)]]
            a4 += w[t + np.uint64(4)] * x[at[t + np.uint64(4)]]
            a5 += w[t + np.uint64(5)] * x[at[t + np.uint64(5)]]
            a6 += w[t + np.uint64(6)] * x[at[t + np.uint64(6)]]
            a7 += w[t + np.uint64(7)] * x[at[t + np.uint64(7)]]
            t += eight
        k = np.uint64(s) * eight
        for i, total in enumerate((a0, a1, a2, a3, a4, a5, a6, a7)):
            row = np.uint64(index[rows + k + np.uint64(i)])
            # rows that fill up the last slice are written behind the layer's outputs, where nobody reads
            arena[dst + row] = activated(total + values[bias + k + np.uint64(i)], act)


@inner
def linear_together(op, index, values, arena, src, dst, tile):
    """`tile` samples (16, 32 or 64) side by side through a linear layer: `[n, tile]` to `[m, tile]`."""
    slices, starts = op[SLICES], op[INDEX]
    rows = starts + slices + 1
    places = index.ctypes.data + 4 * (rows + slices * ROWS)
    weights = values.ctypes.data + 4 * (op[VALUES] + slices * ROWS)
    x, y = arena.ctypes.data + 4 * src, arena.ctypes.data + 4 * dst
    for s in range(slices):
        start = np.int64(index[starts + s])
        count = np.int64(index[starts + s + 1]) - start
        for i in range(ROWS):
            k = s * ROWS + i
            row = np.int64(index[rows + k])
            at = 4 * (start * ROWS + i)
            out = y + 4 * tile * row
            if tile == 64:
                weighted64(out, x, tile, weights + at, places + at, ROWS, count, values[op[VALUES] + k])
            elif tile == 32:
                weighted32(out, x, tile, weights + at, places + at, ROWS, count, values[op[VALUES] + k])
            else:
                weighted16(out, x, tile, weights + at, places + at, ROWS, count, values[op[VALUES] + k])
    if op[ACT] == RELU:
        copied(y, y, op[M] * tile, np.float32(0))
    elif op[ACT] != KEEP:
        for i in range(dst, dst + op[M] * tile):
            arena[i] = activated(arena[i], op[ACT])


@inner
def deal(op, arena):
    """A convolution's input, padded, into planes of every s-th place in both directions."""
    src, scratch, H_, W_ = op[SRC], op[SCRATCH], op[H], op[W]
    plane = op[HQ] * op[WQ]
    at, lowest = arena.ctypes.data, np.float32(-np.inf)
    for c in range(op[C]):
        for py in range(op[UH]):
            for px in range(op[UW]):
                to = scratch + ((c * op[UH] + py) * op[UW] + px) * plane
                for qy in range(op[HQ]):
                    y = qy * op[SH] + py - op[PT]
                    row = to + qy * op[WQ]
                    if y < 0 or y >= H_:
                        for i in range(op[WQ]):
                            arena[row + i] = np.float32(0)
                        continue
                    line = src + (c * H_ + y) * W_
                    if op[SW] == 1:
                        left = op[PL]
                        right = min(op[WQ], left + W_)
                        for i in range(left):
                            arena[row + i] = np.float32(0)
                        copied(at + 4 * (row + left), at + 4 * line, right - left, lowest)
                        for i in range(right, op[WQ]):
                            arena[row + i] = np.float32(0)
                        continue
                    first = -((px - op[PL]) // op[SW]) if px < op[PL] else 0
                    last = min(op[WQ], (W_ - 1 - px + op[PL]) // op[SW] + 1)
                    for qx in range(first):
                        arena[row + qx] = np.float32(0)
                    x = line + first * op[SW] + px - op[PL]
                    if op[SW] == 2:
                        seconds(at + 4 * (row + first), at + 4 * x, last - first)
                    else:
                        for qx in range(last - first):
                            arena[row + first + qx] = arena[x + qx * op[SW]]
                    for qx in range(max(first, last), op[WQ]):
                        arena[row + qx] = np.float32(0)


@inner
def conv(op, index, values, arena):
    """One image through a convolution, a weight that is not zero at a time."""
    planes = op[SRC]
    if op[SCRATCH] >= 0:
        deal(op, arena)
        planes = op[SCRATCH]
    starts = op[INDEX]
    places = index.ctypes.data + 4 * (starts + op[OUT] + 1)
    weights = values.ctypes.data + 4 * (op[VALUES] + op[OUT])
    base, sums = arena.ctypes.data + 4 * planes, arena.ctypes.data + 4 * op[SUMS]
    wide, rows = op[WQ], max(1, BLOCK // op[WQ])
    whole, floor = arena.ctypes.data, np.float32(0) if op[ACT] == RELU else np.float32(-np.inf)
    for top in range(0, op[HO], rows):
        high = min(rows, op[HO] - top)
        length = (high - 1) * wide + op[WO]
        x = base + 4 * top * wide
        m = 0
        while m < op[OUT]:
            start = np.int64(index[starts + m])
            count = np.int64(index[starts + m + 1]) - start
            at, bias = 4 * start, values[op[VALUES] + m]
            both = op[ALIKE] == 1 and m + 1 < op[OUT]
            i = 0
            if both:
                other = values[op[VALUES] + m + 1]
                apart = op[APART]
                while i < length:
                    left = length - i
                    to, at_x = sums + 4 * i, x + 4 * i
                    if left > 32:
                        paired64(to, apart, at_x, weights + at, count, places + at, count, bias, other)
                        i += 64
                    elif left > 16:
                        paired32(to, apart, at_x, weights + at, count, places + at, count, bias, other)
                        i += 32
                    else:
                        paired16(to, apart, at_x, weights + at, count, places + at, count, bias, other)
                        i += 16
            while i < length:
                left = length - i
                if left > 32:
                    weighted64(sums + 4 * i, x + 4 * i, 1, weights + at, places + at, 1, count, bias)
                    i += 64
                elif left > 16:
                    weighted32(sums + 4 * i, x + 4 * i, 1, weights + at, places + at, 1, count, bias)
                    i += 32
                else:
                    weighted16(sums + 4 * i, x + 4 * i, 1, weights + at, places + at, 1, count, bias)
                    i += 16
            for k in range(2 if both else 1):
                for y in range(high):
                    line = op[DST] + ((m + k) * op[HO] + top + y) * op[WO]
                    part = op[SUMS] + k * op[APART] + y * wide
                    if op[ACT] <= RELU:
                        copied(whole + 4 * line, whole + 4 * part, op[WO], floor)
                    else:
                        for j in range(op[WO]):
                            arena[line + j] = activated(arena[part + j], op[ACT])
            m += 2 if both else 1


@inner
def pool(op, arena):
    """The largest, or the mean, of every window; places outside count as nothing, but in the mean's count."""
    for c in range(op[C]):
        for oy in range(op[HO]):
            for ox in range(op[WO]):
                total = np.float32(-np.inf) if op[LARGEST] else np.float32(0)
                for ky in range(op[KH]):
                    y = oy * op[SH] + ky - op[PT]
                    if 0 <= y < op[H]:
                        line = op[SRC] + (c * op[H] + y) * op[W]
                        for kx in range(op[KW]):
                            x = ox * op[SW] + kx - op[PL]
                            if 0 <= x < op[W]:
                                value = arena[line + x]
                                if not op[LARGEST]:
                                    total += value
                                elif not value <= total:  # larger, or NaN, which stays
                                    total = value if total == total else total
                if not op[LARGEST]:
                    total /= np.float32(op[KH] * op[KW])
                arena[op[DST] + (c * op[HO] + oy) * op[WO] + ox] = activated(total, op[ACT])


@inner
def step(op, index, values, arena):
    """One sample through one operation."""
    kind, act, src, dst = op[KIND], op[ACT], op[SRC], op[DST]
    if kind == LINEAR:
        linear(op, index, values, arena)
    elif kind == CONV:
        conv(op, index, values, arena)
    elif kind == POOL:
        pool(op, arena)
    elif kind == ADD:
        other = op[OTHER]
        if act <= RELU:
            at, floor = arena.ctypes.data, np.float32(0) if act == RELU else np.float32(-np.inf)
            added(at + 4 * dst, at + 4 * src, at + 4 * other, op[SIZE], floor)
        else:
            for i in range(op[SIZE]):
                arena[dst + i] = activated(arena[src + i] + arena[other + i], act)
    else:
        scale = op[VALUES]
        for c in range(op[CHANNELS]):
            a, b = values[scale + 2 * c], values[scale + 2 * c + 1]
            for i in range(c * op[PLACES], (c + 1) * op[PLACES]):
                arena[dst + i] = activated(a * arena[src + i] + b, act)


@njit(cache=True, nogil=True, fastmath=FLAGS, error_model="numpy")
def run(
    ops_at,
    steps,
    index_at,
    entries,
    values_at,
    numbers,
    arena_at,
    room,
    x_at,
    y_at,
    count,
    inside,
    outside,
    last,
    together,
):
    """Samples through a program.

    Args:
        ops_at: address of the table of operations, int64 `[steps, WIDTH]`.
        steps: operations.
        index_at: address of the places, uint32 `[entries]`.
        entries: of these.
        values_at: address of the weights, float32 `[numbers]`.
        numbers: of these.
        arena_at: address of the arena, float32 `[room]`, whose first `inside` entries are the input.
        room: of the arena.
        x_at: address of the inputs, float32 `[count, inside]`.
        y_at: address of the outputs, float32 `[count, outside]`.
        count: samples.
        inside: numbers of an input.
        outside: numbers of an output.
        last: where the output stands in the arena.
        together: floats of one half of the arena for samples side by side; 0 if some operation is not linear.
    """
    ops = carray(int_pointer(ops_at), (steps, WIDTH))
    index = carray(place_pointer(index_at), (entries,))
    values = carray(float_pointer(values_at), (numbers,))
    arena = carray(float_pointer(arena_at), (room,))
    x = carray(float_pointer(x_at), (count, inside))
    y = carray(float_pointer(y_at), (count, outside))
    done = 0
    while together and count - done >= FEW:
        left = count - done
        tile = 64 if left > 32 else 32 if left > 16 else 16
        taken = min(left, tile)
        src, dst = 0, together
        whole, even = taken - taken % 16, inside - inside % 16
        for i in range(0, whole, 16):
            for j in range(0, even, 16):
                transpose(x_at + 4 * ((done + i) * inside + j), inside, arena_at + 4 * (j * tile + i), tile)
        for i in range(taken):
            for j in range(even if i < whole else 0, inside):
                arena[j * tile + i] = x[done + i, j]
        for k in range(steps):
            linear_together(ops[k], index, values, arena, src, dst, tile)
            src, dst = dst, src
        for j in range(outside):
            for i in range(taken):
                y[done + i, j] = arena[src + j * tile + i]
        done += taken
    lowest = np.float32(-np.inf)
    for i in range(done, count):
        copied(arena_at, x_at + 4 * i * inside, inside, lowest)
        for k in range(steps):
            step(ops[k], index, values, arena)
        copied(y_at + 4 * i * outside, arena_at + 4 * last, outside, lowest)
