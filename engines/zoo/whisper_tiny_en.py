"""Whisper tiny.en: 39 million parameters, English; its decoder, which names the pair."""

from typing import Final

from engines.zoo.recipe import Recipe
from engines.zoo.whisper import decoder_build, decoder_fixture, hears
from engines.zoo.whisper_tiny_en_encoder import CONFIG, TOKENIZER, WEIGHTS, WHEELS

_ENCODER: Final = "whisper_tiny_en_encoder"
#: "A cup of hot tea is the best thing after a long walk in the rain."
_SENTENCE: Final = (317, 6508, 286, 3024, 8887, 318, 262, 1266, 1517, 706, 257, 890, 2513, 287, 262, 6290, 13)

RECIPE: Final = Recipe(
    name="whisper_tiny_en",
    revision=3,
    summary="speech recognition, English, small and quick",
    licence="MIT",
    wheels=WHEELS,
    build=decoder_build("whisper_tiny_en", (WEIGHTS,), {"tokenizer.json": TOKENIZER, "config.json": CONFIG}),
    fixture=decoder_fixture("whisper_tiny_en", layers=4, width=384),
    proof=hears((_ENCODER, "whisper_tiny_en"), (50257, 50362), _SENTENCE),
    needs=(_ENCODER,),
)
