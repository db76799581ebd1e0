"""The models the zoo knows, by name. A recipe's module is imported when it is asked for."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Final

from engines.zoo.errors import ZooError
from engines.zoo.recipe import Recipe

NAMES: Final = (
    "double",
    "efficientnet_lite0",
    "all_minilm_l6_v2",
    "clothing_sentiment",
    "movielens_retrieval",
    "movielens",
    "silero_vad",
    "whisper_tiny_en_encoder",
    "whisper_tiny_en",
    "whisper_base_encoder",
    "whisper_base",
    "ppocr_v6_detector",
    "ppocr_v6",
)


def with_needs(names: Iterable[str]) -> list[Recipe]:
    """The recipes of `names`, each once and after those that it needs. Raises ZooError."""
    found: dict[str, Recipe] = {}

    def visit(name: str) -> None:
        if name not in found:
            wanted = recipe(name)
            for need in wanted.needs:
                visit(need)
            found[name] = wanted

    for name in names:
        visit(name)
    return list(found.values())


def recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises ZooError naming the nearest one."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(NAMES)}"
        raise ZooError(f"the zoo has no model '{name}'; {hint}")
    found = import_module(f"engines.zoo.{name}").RECIPE
    if not isinstance(found, Recipe):
        raise TypeError(f"engines.zoo.{name}.RECIPE is no Recipe")
    return found
