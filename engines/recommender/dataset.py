"""The data a recommender is made of: who chose what, in which order; and what the items are."""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engines.recommender.csv_tables import MAX_FIELD, DatasetError, Place, identifier, instant, number, table

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: What a ranking network can be learned from at all.
MIN_USERS: Final = 10
MIN_ITEMS: Final = 20
MIN_CHOICES: Final = 3
MAX_GENRES: Final = 64
MAX_ITEMS: Final = 1_000_000
_YEAR: Final = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items in the order of their file, by which they are numbered.

    `genres`: 0 or 1 [items, kinds]; `kinds` names the columns. `years`: when an item is from, NaN where nobody says.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    kinds: tuple[str, ...]
    genres: Floats
    years: Floats

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Choices:
    """Choices ordered by user, then time: `items`, `ratings` and `times` [choices]; those of user u lie between
    `starts[u]` and `starts[u + 1]`. Without ratings all are 0; without times they count the lines.
    """

    items: Ints
    ratings: Floats
    times: Floats
    starts: Ints

    def __len__(self) -> int:
        return len(self.items)

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.starts) - 1

    @property
    def counts(self) -> Ints:
        """Choices of each user."""
        return np.diff(self.starts)

    def of(self, user: int) -> Ints:
        """One user's items, oldest first."""
        return self.items[self.starts[user] : self.starts[user + 1]]

    def kept(self, mask: npt.NDArray[np.bool_]) -> "Choices":
        """Only the choices in `mask` [choices]; users keep their numbers."""
        kept = np.concatenate([[0], np.cumsum(mask)])[self.starts]
        return Choices(self.items[mask], self.ratings[mask], self.times[mask], kept)

    def of_users(self, users: Ints) -> "Choices":
        """Only these users, numbered anew."""
        counts = self.counts[users]
        offsets = np.repeat(self.starts[users] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        places = offsets + np.arange(int(counts.sum()))
        starts = np.concatenate([[0], np.cumsum(counts)])
        return Choices(self.items[places], self.ratings[places], self.times[places], starts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A catalogue, its users and what they chose. `notes`: what was left out while reading, for people."""

    catalogue: Catalogue
    user_ids: tuple[str, ...]
    choices: Choices
    has_ratings: bool
    has_times: bool
    notes: tuple[str, ...] = ()


def read(interactions: Path, items: Path) -> Dataset:
    """Read two CSV files: `user_id,item_id[,rating][,timestamp]` and `item_id[,title][,genres][,year]`.

    Genres are separated by `|`; without a year column, a title that ends in "(1995)" says the year. Other columns are
    not used. Of a repeated choice the last counts. Choices of unknown items are left out. Raises DatasetError.
    """
    catalogue, notes = read_items(items)
    known = {item: index for index, item in enumerate(catalogue.ids)}
    users: dict[str, int] = {}
    # Numbers of user and item, rating and time, one after the other: a tenth of what tuples would take.
    found = array("d")
    unknown: tuple[Place, str] | None = None
    missing = 0
    with table(interactions, ("user_id", "item_id"), ("rating", "timestamp")) as (columns, rows):
        notes += _unused(columns.file, columns.unused)
        has_ratings, has_times = "rating" in columns, "timestamp" in columns
        for place, row in rows:
            user = identifier(place, "user_id", columns.value(row, "user_id"))
            item = identifier(place, "item_id", columns.value(row, "item_id"))
            rating = number(place, "rating", columns.value(row, "rating")) if has_ratings else 0.0
            time = instant(place, "timestamp", columns.value(row, "timestamp")) if has_times else float(len(found) // 4)
            if item not in known:
                unknown = unknown or (place, item)
                missing += 1
                continue
            found.extend((users.setdefault(user, len(users)), known[item], rating, time))
    if unknown is not None:
        place, item = unknown
        notes.append(
            f"{missing} interactions of items that {items.name} lacks were left out"
            f" (first: line {place.line}, {item[:40]!r})"
        )
    if not found:
        where = f"{interactions.name}: has no interactions"
        raise DatasetError(f"{where} of items that {items.name} lists" if missing else f"{where} below its header")
    made = dataset_of(
        catalogue, list(users), np.frombuffer(found).reshape(-1, 4), has_ratings=has_ratings, has_times=has_times
    )
    return replace(made, notes=(*notes, *made.notes))


def dataset_of(
    catalogue: Catalogue, user_ids: Sequence[str], found: Floats, *, has_ratings: bool, has_times: bool
) -> Dataset:
    """A data set from rows of user's number, item's number, rating and time [n, 4]; of repeated choices the last."""
    choices, repeated = _ordered(found, len(user_ids))
    words = f"{repeated} repeated interactions were left out (the last of a user and an item counts)"
    return Dataset(catalogue, tuple(user_ids), choices, has_ratings, has_times, (words,) if repeated else ())


def catalogue_of(
    ids: Sequence[str], titles: Sequence[str], genres: Sequence[Sequence[str]], years: Sequence[float] = ()
) -> Catalogue:
    """A catalogue from lists; without years, titles that end in "(1995)" say them."""
    kinds, table_ = _kinds(genres)
    said = years or [_year_in(title) for title in titles]
    return Catalogue(tuple(ids), tuple(titles), kinds, table_, np.array(said, np.float64))


def read_items(path: Path) -> tuple[Catalogue, list[str]]:
    """Read the catalogue, and notes for people. Raises DatasetError."""
    ids: dict[str, int] = {}
    titles: list[str] = []
    genres: list[list[str]] = []
    years: list[float] = []
    with table(path, ("item_id",), ("title", "genres", "year")) as (columns, rows):
        for place, row in rows:
            item = identifier(place, "item_id", columns.value(row, "item_id"))
            if item in ids:
                raise place.error("item_id", f"{item[:40]!r} is there a second time, each item may be listed once")
            title = columns.value(row, "title")
            if len(title) > MAX_FIELD:
                raise place.error("title", f"has {len(title)} characters, at most {MAX_FIELD} are allowed")
            ids[item] = place.line
            titles.append(title)
            genres.append([kind for kind in (part.strip() for part in columns.value(row, "genres").split("|")) if kind])
            years.append(_year(place, columns.value(row, "year"), title))
        if not ids:
            raise DatasetError(f"{path.name}: has no items below its header")
        if len(ids) > MAX_ITEMS:
            raise DatasetError(f"{path.name}: has {len(ids)} items, at most {MAX_ITEMS} are allowed")
        notes = _unused(columns.file, columns.unused)
    return catalogue_of(list(ids), titles, genres, years), notes


def check_size(dataset: Dataset) -> None:
    """Refuse what nothing can be learned from. Raises DatasetError."""
    able = int((dataset.choices.counts >= MIN_CHOICES).sum())
    if able < MIN_USERS:
        raise DatasetError(
            f"the interactions have {able} users with {MIN_CHOICES} or more different items,"
            f" at least {MIN_USERS} are needed"
        )
    chosen = len(np.unique(dataset.choices.items))
    if chosen < MIN_ITEMS:
        raise DatasetError(f"the interactions are of {chosen} different items, at least {MIN_ITEMS} are needed")


def _unused(file: str, columns: Sequence[str]) -> list[str]:
    return [f"columns of {file} that are not used: {', '.join(columns)}"] if columns else []


def _year(place: Place, value: str, title: str) -> float:
    return number(place, "year", value) if value else _year_in(title)


def _year_in(title: str) -> float:
    match = _YEAR.search(title)
    return float(match.group(1)) if match else np.nan


def _kinds(genres: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], Floats]:
    """The most frequent genres, and a table of who has which."""
    counts: dict[str, int] = {}
    for kinds in genres:
        for kind in dict.fromkeys(kinds):
            counts[kind] = counts.get(kind, 0) + 1
    chosen = sorted(sorted(counts, key=lambda kind: (-counts[kind], kind))[:MAX_GENRES])
    places = {kind: index for index, kind in enumerate(chosen)}
    found = np.zeros((len(genres), len(chosen)))
    for row, kinds in enumerate(genres):
        found[row, [places[kind] for kind in kinds if kind in places]] = 1.0
    return tuple(chosen), found


def _ordered(found: npt.NDArray[Any], users: int) -> tuple[Choices, int]:
    """Sort by user and time (equal times: by line) and drop all but the last of a repeated choice."""
    user, item = found[:, 0].astype(np.int64), found[:, 1].astype(np.int64)
    order = np.lexsort((np.arange(len(found)), found[:, 3], user))
    pair = (user * (int(item.max()) + 1) + item)[order]
    _, last = np.unique(pair[::-1], return_index=True)
    keep = np.sort(len(pair) - 1 - last)
    order, repeated = order[keep], len(pair) - len(keep)
    starts = np.concatenate([[0], np.cumsum(np.bincount(user[order], minlength=users))])
    return Choices(item[order], found[order, 2], found[order, 3], starts), repeated
