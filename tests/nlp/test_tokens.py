import threading
import time

import pytest
from tokenizers import Tokenizer

from services.nlp.tokens import TextTokenizer, TokenizerError
from tests.nlp.tiny_models import WORDS, write_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return TextTokenizer(write_tokenizer(tmp_path), 8)


def test_texts_become_ids_with_special_tokens(tokenizer):
    good, empty, odd = tokenizer.encode(["Good shoes", "", "猫 \x00 😀"])
    assert good.ids == [2, 4, 6, 7, 3]
    assert empty.ids == [2, 3]
    assert odd.ids == [2, 8, 1, 3]
    assert [good.cut, empty.cut, odd.cut] == [False] * 3


def test_pairs_have_types(tokenizer):
    (pair,) = tokenizer.encode([("good", "bad shoe")])
    assert pair.ids == [2, 4, 3, 5, 6, 3]
    assert pair.types == [0, 0, 0, 1, 1, 1]


def test_a_long_text_is_cut_and_says_so(tokenizer):
    fits, cut = tokenizer.encode(["good " * 6, "good " * 7])
    assert (len(fits), fits.cut) == (8, False)
    assert (len(cut), cut.cut) == (8, True)
    assert cut.ids == [2, 4, 4, 4, 4, 4, 4, 3]


@pytest.mark.parametrize("filler", ["good ", " ", "x", "猫", "\n\t", "\x00", "shoes-"])
def test_reading_only_a_beginning_changes_nothing(tokenizer, tmp_path, filler):
    """The first piece of a text is 256 characters here; whatever fills it, the answer is that of the whole text."""
    whole = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    whole.enable_truncation(8)
    for text in (filler * 3000, filler * 3000 + " good bad", "bad" + filler * 300 + " shoes"):
        (found,) = tokenizer.encode([text])
        expected = whole.encode(text)
        assert found.ids == expected.ids
        assert found.cut == bool(expected.overflowing)


def test_the_files_own_padding_is_off_but_its_id_kept(tmp_path):
    tokenizer = TextTokenizer(write_tokenizer(tmp_path, pad_id=5, length=32), 8)
    assert tokenizer.pad_id == 5
    assert [len(tokens) for tokens in tokenizer.encode(["good", "good bad"])] == [3, 4]


def test_the_padding_token_is_found_by_name(tokenizer):
    assert tokenizer.pad_id == WORDS.index("[PAD]")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 3}', b"\xff\xfe", b"[" * 10_000])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is no tokenizer file"):
        TextTokenizer(path, 8)


def test_a_missing_file_and_too_few_tokens_are_named(tmp_path):
    with pytest.raises(TokenizerError, match="cannot be read: No such file"):
        TextTokenizer(tmp_path / "tokenizer.json", 8)
    with pytest.raises(TokenizerError, match="adds 3 special tokens, max_tokens is 3"):
        TextTokenizer(write_tokenizer(tmp_path), 3)


def test_other_threads_run_while_a_long_text_is_read(tokenizer):
    """Reading a megabyte of one word takes many milliseconds; a thread that only counts is never held up for it all."""
    gaps, stop = [], threading.Event()

    def count():
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=count)
    thread.start()
    started = time.perf_counter()
    tokenizer.encode([" " * 4_000_000])
    took = time.perf_counter() - started
    stop.set()
    thread.join()
    assert took > 0.05
    assert len(gaps) > 10
    assert max(gaps) < took / 2
