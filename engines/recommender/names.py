"""What the models and files of a recommender are called."""

from typing import Final

ITEMS_FILE: Final = "items.csv"
INTERACTIONS_FILE: Final = "interactions.csv"
REPORT_FILE: Final = "REPORT.txt"
#: The manifest of a recommender trained on somebody's own data says this.
ORIGIN: Final = "headrace models train recommender"


def retrieval_name(name: str) -> str:
    """What the retrieval of the recommender `name` is called."""
    return f"{name}_retrieval"
