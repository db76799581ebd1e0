"""Tokens of both real tokenizers."""

import json

import numpy as np
import pytest

from services.speech.tokens import Tokens, TokensError
from tests.mesh import zoo_models

ENGLISH, MULTILINGUAL = "whisper_tiny_en", "whisper_base"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return zoo_models(tmp_path_factory.mktemp("tokens"), (ENGLISH, MULTILINGUAL))


@pytest.fixture(scope="module")
def tokens(models):
    return {
        ENGLISH: Tokens(models / ENGLISH / "tokenizer.json", models / ENGLISH / "config.json", ["en"]),
        MULTILINGUAL: Tokens(models / MULTILINGUAL / "tokenizer.json", models / MULTILINGUAL / "config.json"),
    }


def test_prompts_are_those_of_training(tokens):
    assert tokens[ENGLISH].prompt("en") == [50257, 50362]
    assert tokens[MULTILINGUAL].prompt("en") == [50258, 50259, 50359, 50363]
    assert tokens[MULTILINGUAL].prompt("zh") == [50258, 50260, 50359, 50363]
    assert tokens[MULTILINGUAL].detection() == [50258]


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("en", "en"), ("en-US", "en"), ("EN_gb", "en"), ("zh", "zh"), ("cmn-Hans-CN", "zh"), ("zh-Hant-TW", "zh"),
        ("nb-NO", "no"), ("nn", "nn"), ("iw", "he"), ("he-IL", "he"), ("jv", "jv"), ("jw", "jv"), ("fil-PH", "tl"),
        ("haw", "haw"), ("tlh", None), ("english", None), ("", None), ("en US", None), ("-en", None), ("e", None),
        ("en-" + "x" * 9, None), ("en\0", None),
    ],
)  # fmt: skip
def test_a_language_is_found_by_its_bcp47_tag(tokens, code, language):
    assert tokens[MULTILINGUAL].language(code) == language


def test_each_language_has_a_tag_of_its_own(tokens):
    languages = tokens[MULTILINGUAL].languages
    assert len(languages) == len(set(languages.values())) == 99
    assert "jw" not in languages
    assert all(tokens[MULTILINGUAL].language(code) == code for code in languages)


def test_an_english_model_knows_english_only(tokens):
    assert list(tokens[ENGLISH].languages) == ["en"]
    assert tokens[ENGLISH].language("en-AU") == "en"
    assert tokens[ENGLISH].language("de") is None


def test_text_has_no_special_tokens_and_no_spaces_at_its_ends(tokens):
    said = [50258, 50259, 50359, 50363, 316, 4414, 295, 2368, 5817, 50257]
    assert tokens[MULTILINGUAL].text(said) == "A cup of hot tea"
    assert tokens[MULTILINGUAL].text([]) == ""


def test_half_a_character_is_not_told(tokens):
    speaking = tokens[MULTILINGUAL].before("你好吗", 9)[1:]
    assert "你好" in tokens[MULTILINGUAL].text(speaking)
    for end in range(len(speaking)):
        assert "\N{REPLACEMENT CHARACTER}" not in tokens[MULTILINGUAL].text(speaking[:end])


def test_what_was_said_before_goes_in_front_and_is_cut_at_its_beginning(tokens):
    whole = tokens[ENGLISH].before("one two three four five six", 64)
    assert whole[0] == 50360
    assert tokens[ENGLISH].before("one two three four five six", 2) == [50360, *whole[-2:]]
    assert tokens[ENGLISH].before("  ", 64) == []


@pytest.mark.parametrize(("name", "size"), [(ENGLISH, 51864), (MULTILINGUAL, 51865)])
def test_what_must_not_be_said_is_masked(tokens, name, size, models):
    first, later = tokens[name].masks(size)
    config = json.loads((models / name / "config.json").read_text())
    assert first.dtype == later.dtype == np.float32
    assert np.isneginf(later[[number for number in config["suppress_ids"] if number >= 0]]).all()
    assert np.isneginf(later[tokens[name].end + 1 :]).all()
    assert later[tokens[name].end] == 0.0
    assert np.isneginf(first[[tokens[name].end, 220]]).all()
    assert np.isfinite(later).sum() == np.isfinite(first).sum() + 2 > 50_000


def test_damaged_files_are_named(models, tmp_path):
    good = models / ENGLISH
    with pytest.raises(TokensError, match=r"tokenizer\.json: cannot be read \(No such file or directory\)"):
        Tokens(tmp_path / "tokenizer.json", good / "config.json")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokensError, match=r"tokenizer\.json: is not a tokenizer"):
        Tokens(tmp_path / "tokenizer.json", good / "config.json")
    (tmp_path / "config.json").write_text('{"suppress_ids": "all"}')
    with pytest.raises(TokensError, match=r"config\.json: lacks suppress_ids"):
        Tokens(good / "tokenizer.json", tmp_path / "config.json")
    document = json.loads((good / "tokenizer.json").read_text())
    document["added_tokens"] = [token for token in document["added_tokens"] if "notimestamps" not in token["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokensError, match=r"has no token '<\|notimestamps\|>', so it is not Whisper's"):
        Tokens(tmp_path / "tokenizer.json", good / "config.json")
    with pytest.raises(TokensError, match="no token for the language 'xx' of the manifest"):
        Tokens(good / "tokenizer.json", good / "config.json", ["en", "xx"])
