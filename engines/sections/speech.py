"""How sound becomes the input tensors of a recogniser, and which networks work together."""

from typing import Annotated

from pydantic import Field

from engines.sections.base import Section, Text


class Recognizer(Section):
    """A decoder of the Whisper family with the `encoder` whose states it reads, another model of the repository.

    `tokenizer` and `config` (tokens that are never said) are files of the model's folder. `languages`: those that the
    model knows, as Whisper calls them; none = all that have a token. A short stretch may be heard in a window that
    ends `margin_seconds` after it, and never in one shorter than `window_seconds`; with `full_window` only the guesses
    of live streams are, and whatever is final is heard in the 30 s of the training.
    """

    encoder: Text
    tokenizer: Text = "tokenizer.json"
    config: Text = "config.json"
    languages: tuple[Text, ...] = ()
    margin_seconds: Annotated[float, Field(ge=0, le=30)] = 1.0
    window_seconds: Annotated[float, Field(ge=1, le=30)] = 5.0
    full_window: bool = False
