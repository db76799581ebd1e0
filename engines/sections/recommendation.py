"""What a recommender knows beside its network: its items, its users, and how candidates are found."""

from typing import Annotated

from pydantic import Field

from engines.sections.base import Section, Text


class Recommender(Section):
    """A ranking network over the items of a catalogue.

    `items`: the catalogue, a file of the model's folder: `item_id[,title][,trend]`; the order of its lines numbers the
    items. `interactions`: who chose what, oldest first: `user_id,item_id`; "" = no user is known. `retrieval`: another
    model of the repository, from a history to `user` rows and `scores` of all items; "" = the network reads histories
    itself, and can only rank. `candidates`: how many retrieved items are ranked. The network's tensors: `user` takes
    what retrieval gives, or histories INT64 [rows, places], latest first, -1 where one is over; `item` INT64 [rows, 1];
    `score` [rows, 1], better is higher.
    """

    items: Text = "items.csv"
    interactions: str = ""
    retrieval: str = ""
    candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    user: Text = "user"
    item: Text = "item"
    score: Text = "score"
