"""silero-vad: is there speech in these 32 milliseconds? Conv1d layers and an LSTM cell, 309,633 weights.

The network in plain PyTorch, as its published graph computes it: a short-time Fourier transform written as a
convolution, four convolutions, an LSTM cell that carries its state from one window to the next, and a
probability. The weights come from the package's TorchScript file.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 512
"""Samples of a window, at 16 kHz."""
CONTEXT = 64
"""Samples of the window before that it starts with."""


class VoiceActivity(nn.Module):
    """Sound `[N, samples]` at 16 kHz to a logit of speech for every window, `[N, windows]`.

    The transform's basis is a buffer: it is no trained layer, and is not pruned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(258, 1, 256))
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, wave: Tensor) -> Tensor:
        """Windows are seen all at once by the convolutions, one after another by the cell."""
        count = wave.shape[1] // WINDOW
        chunks = wave[:, : count * WINDOW].reshape(len(wave), count, WINDOW)
        before = F.pad(chunks[:, :-1, -CONTEXT:], (0, 0, 1, 0))
        windows = torch.cat([before, chunks], dim=2)
        x = self._encode(windows.reshape(-1, WINDOW + CONTEXT)).reshape(len(wave), count, -1)
        state, hidden = None, []
        for t in range(count):
            state = self.lstm_cell(x[:, t], state)
            hidden.append(state[0])
        h = torch.stack(hidden, dim=2)
        return self.final_conv(F.relu(h)).squeeze(1)

    def _encode(self, windows: Tensor) -> Tensor:
        """`[windows, 576]` to `[windows, 128]`."""
        x = F.conv1d(F.pad(windows, (0, CONTEXT), mode="reflect").unsqueeze(1), self.basis, stride=128)
        x = x[:, :129].square().add(x[:, 129:].square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(layer(x))
        return x.squeeze(-1)


def load(folder: Path) -> VoiceActivity:
    """The network with its trained weights: those of the TorchScript file that the package's users load.

    Of that file only the tensors are taken. (The package's safetensors file is of another training.)
    """
    state = _script(folder)._model.state_dict()
    model = VoiceActivity()
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return model.eval()


def _script(folder: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(str(folder / "silero_vad.jit"), map_location="cpu").eval()


def original(folder: Path, wave: Tensor) -> Tensor:
    """What the package's own network says of sound `[N, samples]`: probabilities `[N, windows]`."""
    script = _script(folder)
    script.reset_states()
    with torch.no_grad():
        whole = wave[:, : wave.shape[1] // WINDOW * WINDOW]
        return torch.cat([script(x, 16_000) for x in whole.split(WINDOW, dim=1)], dim=1)


def quality(dense: nn.Module, pruned: nn.Module, wave: Tensor, spoken: np.ndarray) -> dict[str, float]:
    """How much of the decisions is kept, at the threshold one half.

    Returns:
        `agreement`: share of windows with the same decision before and after; `off`: mean distance of the
        two probabilities; `accuracy` and `dense_accuracy`: share of windows decided as they were made, of
        those that are speech, or not, throughout.
    """
    with torch.no_grad():
        p, q = (model(wave).sigmoid().double().numpy() for model in (dense, pruned))
    share = spoken[:, : p.shape[1] * WINDOW].reshape(len(spoken), p.shape[1], WINDOW).mean(axis=2)
    clear = (share == 0) | (share == 1)
    return {
        "agreement": round(float(((p > 0.5) == (q > 0.5)).mean()), 4),
        "off": round(float(np.abs(p - q).mean()), 4),
        "accuracy": round(float(((q > 0.5) == (share > 0.5))[clear].mean()), 4),
        "dense_accuracy": round(float(((p > 0.5) == (share > 0.5))[clear].mean()), 4),
    }
