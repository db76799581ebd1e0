"""What a recommender knows beside its network: its items, its users, and how candidates are found."""

from engines.sections.base import Section, Text


class Recommender(Section):
    """`items`: the catalogue, a file of the model's folder."""

    items: Text = "items.csv"
