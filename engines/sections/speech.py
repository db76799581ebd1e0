"""How sound becomes the input tensors of a recogniser, and which networks work together."""

from engines.sections.base import Section, Text


class Recognizer(Section):
    """A decoder with the `encoder` whose states it reads, another model of the repository."""

    encoder: Text
