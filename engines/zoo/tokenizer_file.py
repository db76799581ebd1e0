"""A user's tokenizer.json: whether it can be read, and the longest text that it was made for."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from engines.zoo.errors import ZooError


def longest(path: Path) -> int:
    """Tokens that the file itself cuts texts to; 0 where it cuts none. Raises ZooError when it is no tokenizer."""
    try:
        text = path.read_text(encoding="utf-8")
        Tokenizer.from_str(text)
        truncation = json.loads(text).get("truncation") or {}
        return int(truncation.get("max_length", 0))
    except Exception as error:
        # The library raises bare Exceptions for whatever it does not understand.
        problem = " ".join(str(error).split())[:200]
        raise ZooError(f"--tokenizer: the file is no tokenizer.json of the tokenizers library ({problem})") from error
