"""The parts of `headrace call` that need no mesh; tests/e2e/test_commands.py has the others."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from rich.console import Console
from typer.testing import CliRunner

from cli.call import app, inputs, speech, speech_stream
from cli.call.reply import Reply, bar, receipt_line
from headrace import Model, Receipt, SpeechSegment, StreamingResult

MODEL = Model("whisper", "1")


def test_the_list_of_calls_imports_none_of_them() -> None:
    code = (
        "import sys; from cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted(m for m in sys.modules if m.startswith(('cli.call.', 'grpc', 'rich.console', 'numpy'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "call", "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    assert "speech.stream" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "name",
    ["vision.read_text", "nlp.rerank", "recommendation.rank", "speech.detect_speech", "speech.stream"],
)
def test_every_call_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "--gateway" in result.output


def test_lines_are_texts() -> None:
    assert inputs.lines("\ufeffa\n \nb c\r\n".encode(), "it") == ["a", "b c"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00a", "grün".encode("latin-1")])
def test_what_is_no_text_is_one_line(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        inputs.lines(content, "notes.bin")
    assert capsys.readouterr().err.startswith("error: notes.bin: is not UTF-8 text")


def test_a_gateway_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["nlp.embed", "a", "--gateway", "127.0.0.1:1", "--timeout", "2"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_bars_and_receipts() -> None:
    assert [len(bar(share).plain) for share in (-1.0, 0.0, 0.5, 1.0, 7.0)] == [0, 0, 10, 20, 20]
    receipt = Receipt(MODEL, 1.5, 4.25, 4.25, 1, 0.0)
    line = receipt_line(Reply({}, "", MODEL, receipt), "0123456789abcdef" * 2).plain
    assert line == "whisper@1   queue 1.5 ms, engine 4.2 ms, batch of 1 row   headrace trace 01234567"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0:00.0"), (59.96, "1:00.0"), (61.26, "1:01.3"), (3725.0, "1:02:05.0")]
)
def test_clock(seconds: float, words: str) -> None:
    assert speech.clock(seconds) == words


def test_a_timeline_marks_who_speaks_when() -> None:
    line = speech.timeline([SpeechSegment(0.0, 1.0), SpeechSegment(3.0, 4.0)], 4.0).plain.strip()
    assert line == "█" * 15 + "─" * 30 + "█" * 15


def test_a_recording_becomes_what_a_microphone_sends(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tone = np.sin(np.arange(44_100) * 2 * np.pi * 440 / 44_100)
    soundfile.write(path, np.stack([tone, np.zeros_like(tone)], axis=1), 44_100)
    samples = np.frombuffer(speech_stream.load(path), "<i2")
    assert len(samples) == 16_000
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(32767 / 2, rel=0.02)


def test_chunks_come_in_real_time_or_at_once() -> None:
    plan = speech_stream.Plan(b"\0\0" * 4000)  # a quarter of a second
    begun = time.monotonic()
    assert [len(chunk) for chunk in speech_stream._chunks(plan, begun)] == [3200, 3200, 1600]
    assert time.monotonic() - begun >= 0.25
    fast = speech_stream.Plan(plan.samples, live=False)
    begun = time.monotonic()
    assert b"".join(speech_stream._chunks(fast, begun)) == plan.samples
    assert time.monotonic() - begun < 0.2


def test_what_a_stream_says_is_kept_and_drawn(tmp_path: Path) -> None:
    heard = speech_stream.Heard()
    heard.take(StreamingResult(None, False, 0.0, "START", 0.2, MODEL), 0.4)
    assert heard.speaking
    heard.take(StreamingResult(SpeechSegment(0.2, 0.9, "good"), False, 0.5, "", 0.0, MODEL), 0.9)
    assert (heard.guess, heard.first, heard.finals) == ("good", 0.9, [])
    heard.take(StreamingResult(None, False, 0.0, "END", 1.0, MODEL), 1.2)
    heard.take(StreamingResult(SpeechSegment(0.2, 1.0, "good morning"), True, 0.0, "", 0.0, MODEL), 1.5)
    assert (heard.guess, heard.speaking, len(heard.finals)) == ("", False, 1)
    reply = speech_stream.replied(tmp_path / "a.wav", speech_stream.Plan(b"\0\0" * 32_000), heard)
    assert reply.document["transcript"] == "good morning"
    assert [update["at"] for update in reply.document["updates"]] == [0.4, 0.9, 1.2, 1.5]
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(reply.drawn)
    assert "1 guesses, the first after 0.9 s; finals at most 0.5 s after their end" in captured.get()
