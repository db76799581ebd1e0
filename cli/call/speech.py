"""Calls of the speech service: `headrace call speech.recognize meeting.mp3`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.call.inputs import existing
from cli.call.reply import Reply, show
from cli.call.session import AsJson, Gateway, ModelOption, Timeout, calling
from cli.failure import fail

if TYPE_CHECKING:
    from headrace import AudioSource, SpeechActivity, SpeechSegment, Transcript

app = typer.Typer()

Recording = Annotated[
    Path, typer.Argument(metavar="FILE", help="A recording: WAV, FLAC, OGG, MP3, or bare samples with --encoding.")
]
Language = Annotated[str, typer.Option("--language", help='Spoken, such as "en"; empty = the model\'s, or detected.')]
Layout = Annotated[str, typer.Option(help="Of bare samples: linear16, float32 or mulaw; empty = a container.")]
Rate = Annotated[int, typer.Option(help="Of bare samples: so many a second and channel.")]
Channels = Annotated[int, typer.Option(help="Of bare samples: interleaved channels.", min=1)]

_TIMELINE = 60


@app.command("speech.recognize")
def recognize(  # noqa: PLR0913 - a command's flags are its parameters.
    file: Recording,
    *,
    language: Language = "",
    encoding: Layout = "",
    rate: Rate = 0,
    channels: Channels = 1,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 300.0,
    as_json: AsJson = False,
) -> None:
    """Write down what is said in a recording."""
    (recording,) = existing([file])
    with calling(gateway, timeout) as session:
        transcript = session.client.speech.recognize(
            _source(recording, encoding, rate, channels),
            language_code=language,
            model=model,
            metadata=session.metadata,
        )
    show(recognized(recording, transcript), session.trace_id, as_json=as_json)


@app.command("speech.detect_speech")
def detect_speech(  # noqa: PLR0913 - a command's flags are its parameters.
    file: Recording,
    *,
    encoding: Layout = "",
    rate: Rate = 0,
    channels: Channels = 1,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 300.0,
    as_json: AsJson = False,
) -> None:
    """Find where somebody speaks in a recording."""
    (recording,) = existing([file])
    with calling(gateway, timeout) as session:
        activity = session.client.speech.detect_speech(
            _source(recording, encoding, rate, channels), model=model, metadata=session.metadata
        )
    show(detected(recording, activity), session.trace_id, as_json=as_json)


def _source(file: Path, encoding: str, rate: int, channels: int) -> "AudioSource":
    """The recording as the client takes it; one line and status 1 when bare samples are described badly."""
    from headrace import RawAudio
    from headrace._audio import Encoding

    if not encoding and not rate:
        return file
    name = next((known for known in get_args(Encoding) if known == encoding.upper()), None)
    if name is None:
        fail(f"--encoding '{encoding}': bare samples are {', '.join(get_args(Encoding)).lower()}, and need --rate")
    if not rate:
        fail("bare samples need --rate, how many a second, such as 16000")
    return RawAudio(file.read_bytes(), rate, name, channels)


def recognized(file: Path, transcript: "Transcript") -> Reply:
    """What was said, and when."""
    document = {
        "file": str(file),
        "transcript": transcript.text,
        "segments": fields(transcript.segments),
        "duration": transcript.duration,
        "language_code": transcript.language,
    }
    table = Table.grid(padding=(0, 2))
    for segment in transcript.segments:
        table.add_row("", span(segment), Text(f"{segment.confidence:.2f}", style="dim"), segment.text.strip())
    found = table if transcript.segments else Text("  nothing was said", style="dim")
    drawn = Group(title(file, transcript.duration, transcript.language), found)
    return Reply(document, drawn, transcript.model, transcript.receipt)


def detected(file: Path, activity: "SpeechActivity") -> Reply:
    """Where somebody speaks, as a line of time and a table."""
    segments = [{"start": segment.start, "end": segment.end} for segment in activity.segments]
    document = {"file": str(file), "segments": segments, "duration": activity.duration}
    table = Table.grid(padding=(0, 2))
    for segment in activity.segments:
        table.add_row("", span(segment), Text(f"{segment.end - segment.start:.1f} s", style="dim"))
    nobody = [Text("  nobody speaks", style="dim")]
    found = [timeline(activity.segments, activity.duration), table] if activity.segments else nobody
    return Reply(document, Group(title(file, activity.duration), *found), activity.model, activity.receipt)


def fields(segments: "Sequence[SpeechSegment]") -> list[dict[str, Any]]:
    """What was said, as JSON."""
    return [
        {"start": segment.start, "end": segment.end, "text": segment.text, "confidence": segment.confidence}
        for segment in segments
    ]


def span(segment: "SpeechSegment") -> Text:
    """When a segment was said."""
    return Text(f"{clock(segment.start)} - {clock(segment.end)}", style="cyan")


def clock(seconds: float) -> str:
    """Seconds as 1:02:03.4, without the hours where there are none."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def timeline(segments: "Sequence[SpeechSegment]", seconds: float) -> Text:
    """The recording as a line, marked where somebody speaks."""
    line, scale = Text("  "), seconds / _TIMELINE
    for place in range(_TIMELINE):
        begin, end = place * scale, (place + 1) * scale
        heard = any(segment.start < end and segment.end > begin for segment in segments)
        line.append("█" if heard else "─", style="green" if heard else "dim")
    return line


def title(file: Path, seconds: float, language: str = "") -> Text:
    """The recording, its length and what is spoken in it."""
    return Text.assemble((str(file), "bold"), (f"   {clock(seconds)}   {language}".rstrip(), "dim"))
