"""Whisper base: 74 million parameters, 99 languages; its decoder, which names the pair."""

from typing import Final

from engines.zoo.recipe import Recipe
from engines.zoo.whisper import decoder_build, decoder_fixture, hears
from engines.zoo.whisper_base_encoder import CONFIG, TOKENIZER, WEIGHTS, WHEELS

_ENCODER: Final = "whisper_base_encoder"
#: "A cup of hot tea is the best thing after a long walk in the rain."
_SENTENCE: Final = (316, 4414, 295, 2368, 5817, 307, 264, 1151, 551, 934, 257, 938, 1792, 294, 264, 4830, 13)

RECIPE: Final = Recipe(
    name="whisper_base",
    revision=2,
    summary="speech recognition, 99 languages, detected when not told",
    licence="MIT",
    wheels=WHEELS,
    build=decoder_build("whisper_base", WEIGHTS, {"tokenizer.json": TOKENIZER, "config.json": CONFIG}),
    fixture=decoder_fixture("whisper_base", layers=6, width=512),
    proof=hears((_ENCODER, "whisper_base"), (50258, 50259, 50359, 50363), _SENTENCE),
    needs=(_ENCODER,),
)
