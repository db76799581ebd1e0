from typing import Any

import pytest

from engines import strict_toml
from engines.base import TensorSpec
from engines.manifest import Manifest
from engines.strict_toml import ConfigError
from engines.tensorrt import sizes
from engines.tensorrt.libraries import TensorRTError
from engines.tensorrt.profiles import Stretch

IDS = TensorSpec("input_ids", "INT64", ("batch", "tokens"))


def manifest(**sections: Any) -> Manifest:
    return strict_toml.validate({"name": "one", "service": "nlp", "tasks": ["tensor"], **sections}, Manifest, "test")


def test_a_text_model_needs_its_short_and_its_long_texts() -> None:
    assert sizes.dimensions(manifest(text={"max_tokens": 256}), [IDS]) == {"tokens": (Stretch(1, 32), Stretch(33, 256))}
    assert sizes.dimensions(manifest(text={"max_tokens": 16}), [IDS]) == {"tokens": (Stretch(1, 16),)}


def test_a_picture_has_the_manifests_size() -> None:
    image = {"input": "pixels", "width": 320, "height": 192}
    nchw = TensorSpec("pixels", "FP32", ("n", 3, "h", "w"))
    nhwc = TensorSpec("pixels", "FP32", ("n", "h", "w", 3))
    expected = {"h": (Stretch(192, 192),), "w": (Stretch(320, 320),)}
    assert sizes.dimensions(manifest(image=image), [nchw]) == expected
    assert sizes.dimensions(manifest(image={**image, "layout": "NHWC"}), [nhwc]) == expected


def test_the_manifest_says_the_others() -> None:
    said = manifest(
        text={"max_tokens": 256},
        dimensions={"past": {"least": 0, "greatest": [64, 448]}, "tokens": {"greatest": [128]}},
        batching={"max_rows": 20},
    )
    assert sizes.dimensions(said, [IDS]) == {
        "past": (Stretch(0, 64), Stretch(65, 448)),
        "tokens": (Stretch(1, 128),),
    }
    assert sizes.rows(said) == (1, 4, 16, 20)
    with pytest.raises(ConfigError, match=r"must rise, such as \[32, 256\]"):
        manifest(dimensions={"past": {"greatest": [64, 32]}})


def test_a_command_line_says_the_same() -> None:
    assert sizes.parse(["tokens=256", "past=0:64,448"]) == {
        "tokens": (Stretch(1, 256),),
        "past": (Stretch(0, 64), Stretch(65, 448)),
    }


@pytest.mark.parametrize("given", ["tokens", "tokens=", "=4", "tokens=0", "tokens=a", "tokens=64,32", "past=65:64"])
def test_what_it_says_wrong_is_told(given: str) -> None:
    with pytest.raises(TensorRTError, match=f"--dim {given}: write it as name=N"):
        sizes.parse([given])
