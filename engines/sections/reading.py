"""How text in pictures is found and read by two networks of the PP-OCR family."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engines.sections.base import Positive, Section, Text

Share = Annotated[float, Field(gt=0, lt=1)]


class _Pixels(Section):
    """What both networks say of their input: x = (pixel - mean) / scale in the order of `color`, NCHW, 0..255."""

    input: Text = "x"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    scale: tuple[float, float, float] = (127.5, 127.5, 127.5)
    color: Literal["RGB", "BGR"] = "BGR"

    @field_validator("scale")
    @classmethod
    def _divides(cls, scale: tuple[float, float, float]) -> tuple[float, float, float]:
        if 0.0 in scale:
            raise ValueError("must be numbers other than 0")
        return scale


class Detection(_Pixels):
    """From a picture to the outlines of its lines, by a network that gives each pixel the probability of being text.

    A page is scaled down so that its longer side has at most `max_side` pixels, but not below `least_scale`; what is
    larger is looked at in tiles. Where its lower outlines turn out to be less than `fine_height` pixels high, it is
    looked at again, twice as large. The network's sides are multiples of `multiple`. Pixels above `threshold` make up
    a region, which is kept when the mean of its outline is `box_threshold` or more, and widened by `unclip` times its
    area over its perimeter. The `max_lines` largest are kept.
    """

    output: Text = "probability"
    max_side: Annotated[int, Field(ge=64, le=8192)] = 960
    multiple: Annotated[int, Field(ge=1, le=512)] = 32
    least_scale: Share = 0.3
    fine_height: Annotated[float, Field(ge=0, le=100)] = 11.0
    threshold: Share = 0.3
    box_threshold: Share = 0.4
    unclip: Annotated[float, Field(ge=0, le=10)] = 1.6
    max_lines: Annotated[int, Field(ge=1, le=100_000)] = 2000


class Recognition(_Pixels):
    """From a line's pixels to its characters.

    A line is scaled to `height` and to a width that is a multiple of `width_step`, so that lines of different pictures
    share batches; one wider than `max_width` is read in parts. `output` holds the probabilities [rows, steps, classes],
    or, when `confidence` names an output too, the likeliest class [rows, steps] with its probability there. Class 0 is
    the blank, class n is line n of the file `characters`. Lines read with less than `min_confidence` are left out.
    """

    output: Text = "probabilities"
    confidence: str = ""
    characters: Text = "characters.txt"
    height: Annotated[int, Field(ge=8, le=512)] = 48
    width_step: Positive = 64
    max_width: Annotated[int, Field(ge=32, le=8192)] = 960
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5


class Reader(Section):
    """A recogniser of text lines with the `detector` that finds them, another model of the repository."""

    detector: Text
    detection: Detection = Detection()
    recognition: Recognition = Recognition()
