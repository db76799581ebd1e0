"""`headrace call` and `headrace demo` against the real mesh: every rpc, in words and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.demo_steps import PAGE, PHOTO, STEPS, TALK
from cli.main import app
from tests.mesh import RunningMesh

Call = Callable[..., Result]


@pytest.fixture
def call(mesh: RunningMesh) -> Call:
    def invoke(*arguments: object, stdin: str | bytes = "") -> Result:
        words = ["call", *map(str, arguments), "--gateway", mesh.gateway]
        return CliRunner().invoke(app, words, input=stdin)

    return invoke


def document(result: Result, *, computed: bool = True) -> dict[str, Any]:
    """The JSON of an answer with its receipt; `computed`: an engine ran for it."""
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert (found["receipt"]["engine_ms"] > 0) == computed
    assert len(found["trace_id"]) == 32
    assert found["model"].endswith("@1")
    return found


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_pictures_are_labelled_read_and_embedded(call: Call, tmp_path: Path) -> None:
    no_picture = tmp_path / "notes.txt"
    no_picture.write_text("no picture")
    labelled = call("vision.classify", PHOTO, "--top-k", 1, "--json")
    (item,) = document(labelled)["results"]
    assert [found["label"] for found in item["categories"]] == ["palace"]
    assert len(document(call("vision.embed", PHOTO, "--json"))["results"][0]["embedding"]) == 1280

    both = call("vision.classify", PHOTO, no_picture)
    assert both.exit_code == 1
    assert "palace" in both.stdout
    assert "INVALID_ARGUMENT" in both.stdout
    assert "headrace trace" in both.stdout


def test_a_page_is_read(call: Call) -> None:
    (item,) = document(call("vision.read_text", PAGE, "--json"))["results"]
    text = " ".join(line["text"] for line in item["lines"])
    assert "Delivery note 4711" in text
    assert "469.90" in text
    assert all(len(line["polygon"]) == 4 and line["confidence"] > 0.5 for line in item["lines"])
    assert "Delivery note 4711" in call("vision.read_text", PAGE).stdout


def test_texts_come_from_the_line_from_standard_input_and_from_a_file(call: Call, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("a third\n\na fourth\n")
    found = document(call("nlp.embed", "a first", "-", "--file", more, "--json", stdin="a second\n"))
    assert [item["text"] for item in found["results"]] == ["a first", "a second", "a third", "a fourth"]
    assert {len(item["embedding"]) for item in found["results"]} == {384}
    drawn = call("nlp.embed", "a dog", "a hound", "a balance sheet").stdout
    assert "384 values of unit length" in drawn
    assert "alike" in drawn


def test_texts_are_labelled_and_ranked(call: Call) -> None:
    mood = document(call("nlp.classify", "I love it, it fits perfectly and looks great.", "--json"))
    assert mood["results"][0]["categories"][0]["label"] == "positive"
    labels = ("--label", "sport", "--label", "finance")
    chosen = document(call("nlp.classify", "The bank raised its interest rates.", *labels, "--json"))
    assert chosen["results"][0]["categories"][0]["label"] == "finance"
    documents = ("Refunds are paid within five days.", "We are open on Monday.")
    ranked = document(call("nlp.rerank", "When do I get my money back?", *documents, "--top-n", 1, "--json"))
    assert [(found["index"], found["document"]) for found in ranked["results"]] == [(0, documents[0])]
    assert documents[0] in call("nlp.rerank", "When do I get my money back?", *documents).stdout


def test_items_are_recommended_ranked_and_related(call: Call) -> None:
    for arguments in (("--user", "196"), ("--liked", "50", "--liked", "172"), ()):
        # What is trending was counted beforehand.
        found = document(call("recommendation.recommend", *arguments, "--count", 3, "--json"), computed=bool(arguments))
        assert len(found["items"]) == 3
        assert all(item["title"] for item in found["items"])
    ranked = document(call("recommendation.rank", "50", "-", "--user", "196", "--json", stdin="172\nnone\n"))
    assert {item["item_id"] for item in ranked["items"]} == {"50", "172"}
    assert ranked["missing_item_ids"] == ["none"]
    near = call("recommendation.similar_items", "50", "-n", 2)
    assert near.exit_code == 0, near.output
    assert near.stdout.splitlines()[0] == "like 50"


def test_recordings_are_written_down_and_searched_for_speech(call: Call) -> None:
    said = document(call("speech.recognize", TALK, "--language", "en", "--json"))
    assert "open the door" in said["transcript"].lower()
    assert said["duration"] == pytest.approx(6.25, abs=0.01)
    assert len(said["segments"]) == 2
    assert "0:03." in call("speech.detect_speech", TALK).stdout


def test_a_stream_says_its_words_as_they_come(call: Call) -> None:
    live = document(call("speech.stream", TALK, "--json"))
    assert "open the door" in live["transcript"].lower()
    guesses = [update for update in live["updates"] if "text" in update and not update["is_final"]]
    assert guesses
    assert live["first_words_seconds"] < live["segments"][0]["end"]
    assert "open the door" in call("speech.stream", TALK, "--fast").stdout.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vision.classify", "none.jpg"), "none.jpg: there is no such file"),
        (("vision.classify", "."), ".: is a folder"),
        (("vision.embed", PHOTO, "--model", "nobody"), "NOT_FOUND"),
        (("nlp.embed",), "no text is given"),
        (("nlp.classify", "a text", "--top-k", "-1"), "INVALID_ARGUMENT"),
        (("nlp.rerank", "a query"), "no document is given"),
        (("recommendation.recommend", "--user", "nobody"), "NOT_FOUND"),
        (("recommendation.similar_items", "nothing"), "NOT_FOUND"),
        (("recommendation.rank",), "no item is given"),
        (("speech.recognize", PAGE), "INVALID_ARGUMENT"),
        (("speech.recognize", TALK, "--encoding", "linear17"), "bare samples are linear16, float32, mulaw"),
        (("speech.recognize", TALK, "--encoding", "linear16"), "bare samples need --rate"),
        (("speech.stream", PAGE), "cannot be read as a recording"),
        (("speech.stream", TALK, "--fast", "--model", "nobody"), "NOT_FOUND"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments: tuple[object, ...], words: str, call: Call) -> None:
    assert words in refused(call(*arguments))


def test_the_demo_walks_every_domain_in_a_minute(mesh: RunningMesh) -> None:
    walked = mesh.command("demo", timeout=60.0)
    assert walked.returncode == 0, walked.stdout + walked.stderr
    for step in STEPS:
        assert step.question in walked.stdout
    assert f"{len(STEPS)} of {len(STEPS)} calls answered" in walked.stdout
    assert walked.stdout.count("headrace-gateway") >= 4
    for word in ("palace", "Delivery note 4711", "positive", "headrace trace"):
        assert word in walked.stdout


def test_the_demo_needs_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert "start one by 'headrace up'" in refused(result)
