"""Speech, synthesized: sentences spoken by the voices of eSpeak NG, with pauses, noise and tones around them.

The library is loaded from its wheel through its C interface; nothing is played. What is speech and what is
not is known where it was made, so that detections can be judged against the truth.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, resample_poly

RATE = 16_000
"""Samples a second, of what the detector hears."""
VOICES = ("en-us", "en", "en-us+f2", "en+f4", "en-us+m3", "en+m7", "de", "fr", "es", "it+f3")
"""Voices for calibration; those for the test are others."""
HELD_OUT = ("en-us+f5", "en+m2", "en-gb-scotland", "nl", "pt", "pl+f1")

Audio = NDArray[np.float32]
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesizer:
    """Text to speech by eSpeak NG."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(str(folder / "libespeak-ng.so"))
        path = str(folder / "espeak-ng-data").encode()
        retrieval = 1  # AUDIO_OUTPUT_RETRIEVAL: no sound device is opened
        self.rate = self._library.espeak_Initialize(retrieval, 0, path, 0)
        if self.rate <= 0:
            raise SystemExit(f"eSpeak NG does not start from {folder}")
        self._chunks: list[Audio] = []
        self._callback = _Callback(self._take)  # kept, or it would be collected
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, wave: "ctypes._Pointer[ctypes.c_short]", count: int, events: object) -> int:
        if wave and count:
            self._chunks.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 2**15)
        return 0

    def say(self, text: str, voice: str, speed: int, pitch: int) -> Audio:
        """A sentence at 16 kHz, words a minute and pitch (0 to 99) as asked."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"eSpeak NG has no voice {voice!r}")
        self._library.espeak_SetParameter(1, speed, 0)
        self._library.espeak_SetParameter(3, pitch, 0)
        self._chunks.clear()
        raw = text.encode()
        self._library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, 1, 0, 1, None, None)
        self._library.espeak_Synchronize()
        wave = np.concatenate(self._chunks)
        return resample_poly(wave, 320, 441).astype(np.float32) if self.rate == 22_050 else wave


@dataclass(frozen=True)
class Recording:
    """Sound at 16 kHz, and for every sample whether speech was put there."""

    wave: Audio
    spoken: NDArray[np.bool_]


def recordings(
    synthesizer: Synthesizer, sentences: list[str], voices: tuple[str, ...], seconds: int, seed: int
) -> list[Recording]:
    """A recording a sentence, each of so many seconds: silence, speech that starts somewhere, and noise.

    The level of the noise varies from none to 5 dB below speech; a quarter has tones and clicks for speech.
    """
    rng = np.random.default_rng(seed)
    length, found = seconds * RATE, []
    for i, sentence in enumerate(sentences):
        wave, spoken = np.zeros(length, np.float32), np.zeros(length, bool)
        if i % 4 != 3:
            voice = voices[i % len(voices)]
            said = synthesizer.say(sentence, voice, int(rng.integers(130, 220)), int(rng.integers(25, 75)))
            start = int(rng.integers(0, length // 3))
            said = said[: length - start]
            wave[start : start + len(said)] = said * rng.uniform(0.3, 1.0)
            spoken[start : start + len(said)] = _loud(said)
        else:
            wave += _disturbance(rng, length)
        level = float(np.sqrt(np.square(wave[spoken]).mean())) if spoken.any() else 0.05
        share = (0.0, 0.02, 0.1, 0.3, 0.56)[int(rng.integers(5))]
        wave += share * level * _noise(rng, length)
        found.append(Recording(np.clip(wave, -1, 1).astype(np.float32), spoken))
    return found


def _loud(wave: Audio) -> NDArray[np.bool_]:
    """Where a spoken sentence is not silent, by its level in windows of 32 ms."""
    power = np.convolve(np.square(wave), np.ones(512) / 512, mode="same")
    return np.asarray(power > 1e-3 * power.max())


def _noise(rng: np.random.Generator, length: int) -> Audio:
    """White, pink-like or brown-like noise of mean square one."""
    white = rng.standard_normal(length)
    pole = (0.0, 0.9, 0.98)[int(rng.integers(3))]
    coloured = lfilter([1.0], [1.0, -pole], white)
    return np.asarray(coloured / np.sqrt(np.square(coloured).mean()), np.float32)


def _disturbance(rng: np.random.Generator, length: int) -> Audio:
    """Tones that come and go, and clicks: loud, and no speech."""
    t = np.arange(length) / RATE
    wave = np.zeros(length)
    for _ in range(int(rng.integers(1, 4))):
        pitch, when, width = rng.uniform(80, 3000), rng.uniform(0, length / RATE), rng.uniform(0.05, 0.8)
        wave += 0.2 * np.sin(2 * np.pi * pitch * t) * np.exp(-np.square((t - when) / width))
    clicks = rng.integers(0, length - 200, 5)
    for at in clicks:
        wave[at : at + 200] += 0.3 * rng.standard_normal(200) * np.exp(-np.arange(200) / 40)
    return wave.astype(np.float32)
