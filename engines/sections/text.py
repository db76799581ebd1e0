"""How a text becomes the input tensors of a network of the BERT family, and its outputs an answer."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engines.sections.base import Positive, Section, Text

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
#: Inputs that are filled where a network has them; the first it must have.
TOKEN_INPUTS = (IDS, MASK, TYPES)


class TextInput(Section):
    """Tokenize with `tokenizer` (a file of the model's folder), cut to `max_tokens`, special tokens included.

    `pooling` makes one vector of an output [batch, tokens, width]; an output [batch, width] is taken as it is. The
    lengths of small runs are padded up to multiples of `pad_to`, so that texts of different callers meet in one batch.
    `encoder`: instead of all this, the model reads the embeddings of that other model of the repository.
    """

    tokenizer: Text = "tokenizer.json"
    max_tokens: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    pooling: Literal["mean", "cls", "none"] = "mean"
    pad_to: Positive = 4
    encoder: str = ""


class ZeroShot(Section):
    """How an embedder chooses among a caller's labels: by likeness to `template` with the label for `{}`.

    The cosines divided by `temperature` go through a softmax. Of the templates and temperatures tried with
    all-MiniLM-L6-v2, these name the kind of garment of 900 reviews, 100 of each of nine kinds, best (64% right, with a
    mean confidence of 61%).
    """

    template: str = "This text is about {}."
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("must hold the place of the label, '{}', once")
        return template


class Rerank(Section):
    """A cross-encoder: which output holds the relevance of a document read together with the query."""

    output: Text
