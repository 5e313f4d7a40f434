"""Recurrent layers and cells as matrices: gates over `[x, h]`, a step at a time.

A gate's sum is `[W_ih, W_hh] [x; h] + b`: one matrix over inputs and hidden state together, whose Gram has
what the two have to do with each other. GRU's new gate multiplies the hidden part with the reset gate before
it is added, so that its two parts are matrices of their own. Sequences run in packed form, in which steps
beyond a sequence's end do not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from cbs.network.kinds.registry import Slot, Take

State = tuple[Tensor, ...]


class LSTMStep(nn.Module):
    """A step of an LSTM: `i, f, g, o` from `gates [x; h]`, `c' = f c + i g`, `h' = o tanh c'`."""

    def __init__(self, inputs: int, hidden: int, bias: bool, out: int = 0) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + (out or hidden), 4 * hidden, bias=bias)
        self.hidden, self.out = hidden, out or hidden
        self.projection = nn.Linear(hidden, out, bias=False) if out else None

    def forward(self, x: Tensor, state: State) -> State:
        """`h` and `c` after an input."""
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], dim=-1)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h if self.projection is None else self.projection(h)), c


class GRUStep(nn.Module):
    """A step of a GRU: `r, z` of `gates [x; h]`, `n = tanh(new_x x + r new_h h)`, `h' = (1 - z) n + z h`."""

    def __init__(self, inputs: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 2 * hidden, bias=bias)
        self.new_x = nn.Linear(inputs, hidden, bias=bias)
        self.new_h = nn.Linear(hidden, hidden, bias=bias)
        self.hidden = self.out = hidden

    def forward(self, x: Tensor, state: State) -> State:
        """`h` after an input."""
        (h,) = state
        r, z = self.gates(torch.cat([x, h], dim=-1)).sigmoid().chunk(2, dim=-1)
        n = torch.tanh(self.new_x(x) + r * self.new_h(h))
        return (n + z * (h - n),)


class RNNStep(nn.Module):
    """A step of an Elman network: `h' = f(gates [x; h])`, f tanh or relu."""

    def __init__(self, inputs: int, hidden: int, bias: bool, relu: bool) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, hidden, bias=bias)
        self.hidden, self.out, self.relu = hidden, hidden, relu

    def forward(self, x: Tensor, state: State) -> State:
        """`h` after an input."""
        total = self.gates(torch.cat([x, *state], dim=-1))
        return (total.relu() if self.relu else total.tanh(),)


def _step(module: Any, inputs: int) -> nn.Module:
    """What a step of a module is."""
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return LSTMStep(inputs, module.hidden_size, module.bias, getattr(module, "proj_size", 0))
    if isinstance(module, nn.GRU | nn.GRUCell):
        return GRUStep(inputs, module.hidden_size, module.bias)
    nonlinearity = getattr(module, "nonlinearity", "tanh")
    return RNNStep(inputs, module.hidden_size, module.bias, nonlinearity == "relu")


def _slots(step: nn.Module, part: str, names: Any, inputs: int, bias: bool) -> list[Slot]:
    """Where the parameters of a step are; `names(what)` is that of `weight_ih` and so on."""

    def rows(start: int, stop: int) -> Take:
        return lambda values: values[start:stop]

    def columns(start: int, stop: int | None) -> Take:
        return lambda values: values[:, start:stop]

    (dot, h) = (f"{part}." if part else ""), step.hidden
    assert isinstance(h, int)
    count = {LSTMStep: 4, GRUStep: 2, RNNStep: 1}[type(step)] * h
    gates = rows(0, count)
    slots = [
        Slot(f"{dot}gates.weight", names("weight_ih"), gates, columns(0, inputs)),
        Slot(f"{dot}gates.weight", names("weight_hh"), gates, columns(inputs, None)),
    ]
    if bias:
        slots.append(Slot(f"{dot}gates.bias", names("bias_ih"), gates, plus=names("bias_hh")))
    if isinstance(step, GRUStep):
        new = rows(count, count + h)
        for end in ("ih", "hh"):
            to = f"{dot}new_{'x' if end == 'ih' else 'h'}"
            slots.append(Slot(f"{to}.weight", names(f"weight_{end}"), new))
            slots += [Slot(f"{to}.bias", names(f"bias_{end}"), new)] if bias else []
    if getattr(step, "projection", None) is not None:
        slots.append(Slot(f"{dot}projection.weight", names("weight_hr")))
    return slots


class OpenRecurrent(nn.Module):
    """`nn.LSTM`, `nn.GRU` or `nn.RNN`, step after step: its parts are `l0`, `l0_reverse`, `l1`, ...

    Args:
        module: whose sizes and settings are taken.
    """

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.num_layers, self.batch_first, self.dropout = (
            module.num_layers,
            module.batch_first,
            module.dropout,
        )
        self.directions = 2 if module.bidirectional else 1
        self.bidirectional, self.hidden_size, self.input_size = (
            module.bidirectional, module.hidden_size, module.input_size,
        )  # fmt: skip
        self.proj_size, self.mode = module.proj_size, module.mode
        self.pair = isinstance(module, nn.LSTM)
        size = module.input_size
        for layer in range(self.num_layers):
            for direction in range(self.directions):
                step: Any = _step(module, size)
                self.add_module(_name(layer, direction), step)
            size = int(step.out) * self.directions

    def flatten_parameters(self) -> None:
        """There is nothing to flatten."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """As `nn.LSTM.forward` and its kin."""
        packed = isinstance(input, PackedSequence)
        batched, order, back = True, None, None
        if packed:
            data, sizes, order, back = input
            counts = [int(size) for size in sizes]
        else:
            assert isinstance(input, Tensor)
            batched = input.dim() == 3
            x = input if batched else input[:, None] if not self.batch_first else input[None]
            x = x.transpose(0, 1) if self.batch_first else x
            counts = [x.shape[1]] * x.shape[0]
            data = x.flatten(0, 1)
        given = None if hx is None else (tuple(hx) if self.pair else (hx,))
        if given is not None:
            given = tuple(h if batched else h[:, None] for h in given)
            given = tuple(h if order is None else h.index_select(1, order) for h in given)
        last: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            found = []
            for direction in range(self.directions):
                step: Any = self.get_submodule(_name(layer, direction))
                at = layer * self.directions + direction
                if given is None:
                    widths = (step.out, step.hidden) if self.pair else (step.hidden,)
                    start = tuple(data.new_zeros(counts[0], width) for width in widths)
                else:
                    start = tuple(h[at] for h in given)
                outputs, state = _run(step, data, counts, start, direction == 1)
                found.append(outputs)
                last.append(list(state))
            data = torch.cat(found, dim=-1)
            if layer < self.num_layers - 1:
                data = F.dropout(data, self.dropout, self.training)
        states = [torch.stack(parts) for parts in zip(*last, strict=True)]
        if back is not None:
            states = [h.index_select(1, back) for h in states]
        if packed:
            return PackedSequence(data, sizes, order, back), tuple(states) if self.pair else states[0]
        out = data.unflatten(0, (len(counts), counts[0]))
        out = out.transpose(0, 1) if self.batch_first else out
        if not batched:
            out = out[0] if self.batch_first else out[:, 0]
            states = [h[:, 0] for h in states]
        return out, tuple(states) if self.pair else states[0]


def _name(layer: int, direction: int) -> str:
    return f"l{layer}{'_reverse' if direction else ''}"


def _run(
    step: nn.Module, data: Tensor, counts: Sequence[int], start: State, reverse: bool
) -> tuple[Tensor, State]:
    """Steps over a packed sequence: outputs in its order, and the state at every sequence's end.

    Args:
        step: of the layer.
        data: `[sum of counts, inputs]`.
        counts: for every step how many sequences have it; they never grow.
        start: `[sequences, ...]`.
        reverse: from the ends to the beginnings.
    """
    parts = torch.split(data, list(counts))
    outputs: list[Tensor] = []
    if reverse:
        state = tuple(h[: counts[-1]] for h in start)
        for i in range(len(counts) - 1, -1, -1):
            known = len(state[0])
            if known < counts[i]:
                pairs = zip(state, start, strict=True)
                state = tuple(torch.cat([h, h0[known : counts[i]]]) for h, h0 in pairs)
            state = step(parts[i], state)
            outputs.append(state[0])
        return torch.cat(outputs[::-1]), state
    state, ended = start, list[State]()
    for part, count in zip(parts, counts, strict=True):
        if count < len(state[0]):
            ended.append(tuple(h[count:] for h in state))
            state = tuple(h[:count] for h in state)
        state = step(part, state)
        outputs.append(state[0])
    ended.append(state)
    return torch.cat(outputs), tuple(torch.cat(h) for h in zip(*ended[::-1], strict=True))


def open_recurrent(module: nn.Module) -> tuple[nn.Module, Sequence[Slot]]:
    """An LSTM, GRU or RNN rewritten, and where its parameters are."""
    assert isinstance(module, nn.RNNBase)
    opened, slots = OpenRecurrent(module), list[Slot]()
    for layer in range(module.num_layers):
        for direction in range(opened.directions):
            name = _name(layer, direction)
            step: Any = opened.get_submodule(name)
            size = step.gates.in_features - step.out
            slots += _slots(step, name, _named(f"_{name}"), size, module.bias)
    return opened, slots


def _named(end: str) -> Any:
    return lambda what: f"{what}{end}"


class OpenCell(nn.Module):
    """`nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`: a step by itself.

    Args:
        module: whose sizes and settings are taken.
    """

    def __init__(self, module: nn.RNNCellBase) -> None:
        super().__init__()
        self.step = _step(module, module.input_size)
        self.input_size, self.hidden_size = module.input_size, module.hidden_size
        self.pair = isinstance(module, nn.LSTMCell)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As `nn.LSTMCell.forward` and its kin."""
        count = 2 if self.pair else 1
        if hx is None:
            state = (input.new_zeros(*input.shape[:-1], self.hidden_size),) * count
        else:
            state = tuple(hx) if self.pair else (hx,)
        found = self.step(input, state)
        return tuple(found) if self.pair else found[0]


def open_cell(module: nn.Module) -> tuple[nn.Module, Sequence[Slot]]:
    """A recurrent cell rewritten, and where its parameters are."""
    assert isinstance(module, nn.RNNCellBase)
    opened = OpenCell(module)
    return opened, _slots(opened.step, "step", _named(""), module.input_size, module.bias)
