"""From a recogniser's steps to text: CTC without a language model.

Method: Graves et al., "Connectionist Temporal Classification", ICML 2006, best path decoding.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.sections.reading import Recognition


class CharactersError(Exception):
    """The network said a character that its file does not list."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line says; `confidence` is the mean probability of its characters, 0..1; 0 for an empty line."""

    text: str
    confidence: float


def read_steps(outputs: dict[str, npt.NDArray[Any]], numbers: Recognition, characters: Sequence[str]) -> Reading:
    """The text of one row: repeated classes are one character, class 0 is none.

    Raises CharactersError when the network knows more characters than the file.
    """
    steps = outputs[numbers.output][0]
    if numbers.confidence:
        classes, sure = steps.astype(np.int64), outputs[numbers.confidence][0].astype(np.float64)
    else:
        classes, sure = steps.argmax(axis=-1), steps.max(axis=-1).astype(np.float64)
    said = (classes != 0) & np.concatenate([[True], classes[1:] != classes[:-1]])
    if not said.any():
        return Reading("", 0.0)
    chosen = classes[said]
    if int(chosen.max()) > len(characters) or int(chosen.min()) < 0:
        raise CharactersError(f"class {int(chosen.max())} has no line among the {len(characters)} characters")
    return Reading("".join([characters[index - 1] for index in chosen]), float(sure[said].mean()))


def joined(readings: Sequence[Reading], spaced: Sequence[bool]) -> Reading:
    """The parts of a line as one; `spaced`: whether a gap as between words stood before each."""
    text = ""
    for reading, gap in zip(readings, spaced, strict=True):
        between = " " if gap and text and reading.text and not (_is_wide(text[-1]) or _is_wide(reading.text[0])) else ""
        text += between + reading.text
    letters = sum(len(reading.text) for reading in readings)
    sure = sum(reading.confidence * len(reading.text) for reading in readings)
    return Reading(" ".join(text.split(" ")).strip(), sure / letters if letters else 0.0)


def _is_wide(character: str) -> bool:
    """Whether the character is of a script that is written without spaces."""
    return unicodedata.east_asian_width(character) in {"W", "F"}
