"""Model cards: what somebody must know who uses a model, as the zoo or its owner wrote it."""

import difflib
import re
from pathlib import Path
from typing import Final

from engines.zoo import registry
from engines.zoo.errors import ZooError

FILE_NAME: Final = "CARD.md"
#: What each card of the zoo tells, under headings of these names.
SECTIONS: Final = ("Origin", "Licence", "Training data", "Metrics", "Limits")
_STATIC: Final = Path(__file__).parent / "files"


def card(name: str, models: Path) -> str:
    """The card of a model in the repository `models`, else that of the zoo. Raises ZooError."""
    for path in (models / name / FILE_NAME, _STATIC / name / FILE_NAME):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    if (models / name).is_dir():
        raise ZooError(f"{models / name} has no {FILE_NAME}")
    near = difflib.get_close_matches(name, [*registry.NAMES, *_folders(models)], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the zoo has: {', '.join(registry.NAMES)}"
    raise ZooError(f"there is no model '{name}'; {hint}")


def sections(text: str) -> dict[str, str]:
    """What stands below each `## ` heading of a card."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _folders(models: Path) -> list[str]:
    return [path.name for path in models.iterdir() if path.is_dir()] if models.is_dir() else []
