"""How large the open dimensions of a model get, for engines that are compiled ahead of time."""

from typing import Annotated

from pydantic import Field, field_validator

from engines.sections.base import Positive, Section


class Dimension(Section):
    """Sizes of one open dimension, called as in the ONNX file (never axis 0, whose sizes are the batch's).

    `least`: the smallest that occurs; 0 is that of a cache before its first step. `greatest`: the largest, with smaller
    sizes before it at which an engine should also be at its best; an engine gets kernels for each stretch between them.
    """

    least: Annotated[int, Field(ge=0)] = 1
    greatest: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @field_validator("greatest")
    @classmethod
    def _rises(cls, greatest: tuple[int, ...]) -> tuple[int, ...]:
        if list(greatest) != sorted(set(greatest)):
            raise ValueError("must rise, such as [32, 256]")
        return greatest
