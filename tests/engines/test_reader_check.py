import pytest

from engines import reader_check
from engines.base import Signature, TensorSpec
from engines.manifest import Manifest
from engines.sections.reading import Reader, Recognition
from engines.strict_toml import ConfigError

PICTURE = TensorSpec("x", "FP32", ("rows", 3, 48, "width"))


def manifest(**recognition):
    reader = Reader(detector="detector", recognition=Recognition(**recognition))
    return Manifest(name="reader", service="vision", tasks=("read_text",), reader=reader)


def network(*outputs, inputs=(PICTURE,)):
    return Signature(tuple(inputs), tuple(outputs))


def scores(classes):
    return TensorSpec("probabilities", "FP32", ("rows", "steps", classes))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "characters.txt").write_bytes("a\r\n\u2028\n木\n \n".encode())
    return tmp_path


def test_characters_are_lines_and_a_space_is_one(folder):
    assert reader_check.characters(folder, Recognition()) == ("a", "\u2028", "木", " ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "characters.txt: cannot be read: No such file"),
        (b"a\n\xff\n", "is not UTF-8 text"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
    ],
)
def test_a_damaged_file_of_characters_is_described(tmp_path, content, words):
    if content is not None:
        (tmp_path / "characters.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        reader_check.characters(tmp_path, Recognition())


def test_both_kinds_of_readers_pass(folder):
    reader_check.check(manifest(), folder, network(scores(5)))
    reader_check.check(manifest(), folder, network(scores("classes")))
    steps = [TensorSpec("best", "INT64", ("rows", "steps")), TensorSpec("sure", "FP32", ("rows", "steps"))]
    reader_check.check(manifest(output="best", confidence="sure"), folder, network(*steps))


@pytest.mark.parametrize(
    ("made", "signature", "words"),
    [
        (manifest(), network(scores(7)), "has 4 lines.*each of the 7 classes but the first"),
        (
            manifest(output="text"),
            network(scores(5)),
            "reader.recognition.output.*is 'text'.*the model has probabilities",
        ),
        (manifest(confidence="sure"), network(scores(5)), "confidence.*is 'sure'"),
        (manifest(), network(TensorSpec("probabilities", "FP32", ("rows", 5))), "must have rows, steps and classes"),
        (manifest(input="y"), network(scores(5)), "takes 'x' FP32.*named 'y'"),
        (manifest(), network(scores(5), inputs=()), "takes nothing"),
    ],
)
def test_a_network_that_is_not_as_the_manifest_says_is_described(folder, made, signature, words):
    with pytest.raises(ConfigError, match=words):
        reader_check.check(made, folder, signature)
