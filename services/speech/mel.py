"""Sound as Whisper sees it: 80 bands of pitch, 100 frames a second, logarithmic. Pure numpy, float32.

As in OpenAI's `whisper/audio.py`: periodic Hann window of 25 ms, hop of 10 ms, ends mirrored, Slaney's mel scale with
filters of equal area, the range cut to 80 dB below the loudest, (log10 + 4) / 4.
"""

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

SAMPLE_RATE: Final = 16_000
BANDS: Final = 80
HOP: Final = 160
#: Frames of the window that the networks were trained on, 30 s.
FULL_WINDOW: Final = 3000
_WINDOW: Final = 400
_HALF: Final = _WINDOW // 2
_FLOOR: Final = 1e-10
_RANGE: Final = 8.0
# Slaney's scale: linear below 1 kHz, logarithmic above.
_LINEAR_HERTZ: Final = 200.0 / 3
_BREAK_HERTZ: Final = 1000.0
_BREAK_MEL: Final = _BREAK_HERTZ / _LINEAR_HERTZ
_LOG_STEP: Final = float(np.log(6.4)) / 27.0

Floats = npt.NDArray[np.float32]


def log_mel(samples: Floats, frames: int = FULL_WINDOW, *, blank: bool = False) -> Floats:
    """`samples` [n] (16 kHz, mono, in [-1, 1]) followed by silence, as [80, frames]; sound behind the window is cut.

    Only frames that hear something are transformed: silence has the value that the loudest frame leaves it. `blank`:
    behind the sound stand zeros instead, as in CTranslate2's examples, which OpenAI's networks take as well.
    """
    length = frames * HOP
    sound = samples[:length]
    heard = min(frames, -(-(len(sound) + _HALF) // HOP))
    padded = np.zeros(length + 2 * _HALF, np.float32)
    padded[_HALF : _HALF + len(sound)] = sound
    if frames * HOP > _HALF:
        padded[:_HALF] = padded[_WINDOW:_HALF:-1]
        padded[length + _HALF :] = padded[length + _HALF - 2 : length - 2 : -1]
    pieces = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[: heard * HOP : HOP]
    spectrum = np.fft.rfft(pieces * _hann(), axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    levels = np.log10(np.maximum(_filters() @ power.T, np.float32(_FLOOR)))
    loudest = levels.max(initial=np.log10(np.float32(_FLOOR)))
    quietest = max(np.log10(_FLOOR), loudest - _RANGE)
    made = np.full((BANDS, frames), (quietest + 4.0) / 4.0, np.float32)
    made[:, :heard] = (np.maximum(levels, np.float32(quietest)) + np.float32(4.0)) / np.float32(4.0)
    if blank:
        made[:, len(sound) // HOP + 1 :] = 0.0
    return made


@functools.cache
def _hann() -> Floats:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW), np.float32)


@functools.cache
def _filters() -> Floats:
    """Triangles over the bins of the transform, [80, 201]."""
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _HALF + 1)
    edges = _hertz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), BANDS + 2))
    widths = np.diff(edges)
    ramps = edges[:, np.newaxis] - bins
    rising = -ramps[:-2] / widths[:-1, np.newaxis]
    falling = ramps[2:] / widths[1:, np.newaxis]
    areas = 2.0 / (edges[2:] - edges[:-2])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)) * areas[:, np.newaxis], np.float32)


def _mel(hertz: float) -> float:
    return _BREAK_MEL + float(np.log(hertz / _BREAK_HERTZ)) / _LOG_STEP


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = _LINEAR_HERTZ * mels
    return np.where(mels < _BREAK_MEL, linear, _BREAK_HERTZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL)))
