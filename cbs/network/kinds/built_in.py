"""The layer types that come with the package, a row each."""

from __future__ import annotations

from torch import nn

from cbs.network.kinds.attention import open_attention
from cbs.network.kinds.recurrent import open_cell, open_recurrent
from cbs.network.kinds.registry import Open
from cbs.network.kinds.transposed import open_conv1d, open_transposed

TYPES: dict[type[nn.Module] | str, Open] = {
    nn.MultiheadAttention: open_attention,
    nn.LSTM: open_recurrent,
    nn.GRU: open_recurrent,
    nn.RNN: open_recurrent,
    nn.LSTMCell: open_cell,
    nn.GRUCell: open_cell,
    nn.RNNCell: open_cell,
    nn.ConvTranspose1d: open_transposed,
    nn.ConvTranspose2d: open_transposed,
    nn.ConvTranspose3d: open_transposed,
    "transformers.pytorch_utils.Conv1D": open_conv1d,
}
