"""What every section of a manifest is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Values read once; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
