"""The tables that a served recommender reads from its folder: which items it knows, and what its users chose."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.recommender.csv_tables import MAX_FIELD, DatasetError, identifier, number, table

Places = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Tables:
    """`ids` and `titles` in the order that numbers the items, `places` from an id to its number; `trending`: numbers,
    most chosen of late first, and `trend` [items], how much each is. `histories`: user -> numbers, oldest first.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    places: Mapping[str, int]
    trend: npt.NDArray[np.float32]
    trending: Places
    histories: Mapping[str, Places]

    def __len__(self) -> int:
        return len(self.ids)


def load(folder: Path, items: str, interactions: str) -> Tables:
    """Read both files of a model's folder, `interactions` "" for none; unchanged files are read once.

    Blocks while it reads. Raises DatasetError.
    """
    paths = [folder / name for name in (items, interactions) if name]
    return _load(folder, items, interactions, tuple(_state(path) for path in paths))


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=4)
def _load(folder: Path, items: str, interactions: str, _states: tuple[tuple[int, int], ...]) -> Tables:
    places: dict[str, int] = {}
    titles: list[str] = []
    trend: list[float] = []
    with table(folder / items, ("item_id",), ("title", "trend")) as (columns, rows):
        for place, row in rows:
            item = identifier(place, "item_id", columns.value(row, "item_id"))
            if item in places:
                raise place.error("item_id", f"{item[:40]!r} is there a second time, each item may be listed once")
            places[item] = len(places)
            titles.append(columns.value(row, "title")[:MAX_FIELD])
            trend.append(number(place, "trend", columns.value(row, "trend")) if "trend" in columns else 0.0)
    if not places:
        raise DatasetError(f"{items}: has no items below its header")
    weights = np.array(trend, np.float32)
    histories = _histories(folder / interactions, places) if interactions else {}
    trending = np.argsort(-weights, kind="stable").astype(np.int32)
    return Tables(tuple(places), tuple(titles), places, weights, trending, histories)


def _histories(path: Path, places: Mapping[str, int]) -> dict[str, Places]:
    found: dict[str, list[int]] = {}
    with table(path, ("user_id", "item_id"), ()) as (columns, rows):
        for place, row in rows:
            user = identifier(place, "user_id", columns.value(row, "user_id"))
            item = identifier(place, "item_id", columns.value(row, "item_id"))
            if item not in places:
                raise place.error("item_id", f"is {item[:40]!r}, must be an item of the catalogue")
            found.setdefault(user, []).append(places[item])
    return {user: np.array(items, np.int32) for user, items in found.items()}
