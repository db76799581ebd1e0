"""A small shop with an order in what people take: four aisles of items, walked along with leaps, made from a seed."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

AISLES = 4
LENGTH = 15
ITEMS = AISLES * LENGTH


def item(place: int) -> str:
    return f"item-{place}"


@dataclass(frozen=True)
class Shop:
    """The two files that `headrace models train recommender` takes."""

    interactions: Path
    items: Path
    histories: dict[str, list[str]]


def make(folder: Path, users: int = 80, seed: int = 5, ratings: bool = True) -> Shop:
    """Write the shop's files below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    histories = {f"user-{user}": [item(place) for place in _walk(random)] for user in range(users)}
    shop = Shop(folder / "interactions.csv", folder / "items.csv", histories)
    with shop.items.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title", "genres"])
        for place in range(ITEMS):
            writer.writerow([item(place), f"Thing, no. {place} ({1990 + place % 20})", f"aisle {place // LENGTH}"])
    rows = [
        (user, name, 1 + len(name) % 5, 1000 * turn + index)
        for index, (user, names) in enumerate(histories.items())
        for turn, name in enumerate(names)
    ]
    order = random.permutation(len(rows))
    with shop.interactions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", *(["rating"] if ratings else []), "timestamp"])
        for index in order:
            user, name, rating, time = rows[index]
            writer.writerow([user, name, *([rating] if ratings else []), time])
    return shop


def _walk(random: np.random.Generator) -> list[int]:
    """Mostly the next of the aisle, sometimes anything; never the same twice."""
    aisle, place = int(random.integers(AISLES)), int(random.integers(LENGTH))
    found: list[int] = []
    for _ in range(int(random.integers(6, 12))):
        number = aisle * LENGTH + place % LENGTH if random.random() < 0.85 else int(random.integers(ITEMS))
        if number not in found:
            found.append(number)
        place += 1
    return found
