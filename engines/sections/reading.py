"""How text in pictures is found and read by two networks."""

from engines.sections.base import Section, Text


class Reader(Section):
    """A recogniser of text lines with the `detector` that finds them, another model of the repository."""

    detector: Text
