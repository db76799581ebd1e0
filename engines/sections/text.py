"""How a text becomes the input tensors of a network of the BERT family."""

from typing import Annotated, Literal

from pydantic import Field

from engines.sections.base import Section, Text


class TextInput(Section):
    """Tokenize with `tokenizer` (a file of the model's folder), cut to `max_tokens`, special tokens included."""

    tokenizer: Text = "tokenizer.json"
    max_tokens: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    pooling: Literal["mean", "cls", "none"] = "mean"
