"""`headrace call speech.stream talk.wav`: a recording sent as if it were spoken now, and its words as they come."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.call.inputs import existing
from cli.call.reply import Reply, show
from cli.call.session import AsJson, Gateway, ModelOption, Session, calling
from cli.call.speech import Language, clock, fields, span, title
from cli.failure import fail

if TYPE_CHECKING:
    from headrace import Model, Receipt, SpeechSegment, StreamingResult

app = typer.Typer()

_RATE = 16_000
_CHUNK = _RATE // 10
_SAMPLE_BYTES = 2


@app.command("speech.stream")
def stream(  # noqa: PLR0913 - a command's flags are its parameters.
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording: WAV, FLAC, OGG or MP3.")],
    *,
    fast: Annotated[bool, typer.Option("--fast", help="Send at once instead of in real time.")] = False,
    single: Annotated[bool, typer.Option("--single", help="End after the first utterance.")] = False,
    language: Language = "",
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Annotated[float, typer.Option(help="Seconds allowed beyond those of the recording.", min=0.001)] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Send a recording as if it were spoken now, and show its words as they come."""
    (recording,) = existing([file])
    plan = Plan(load(recording), model, language, single=single, live=not fast, patience=timeout)
    with calling(gateway, timeout) as session:
        heard = converse(session, plan, Console(highlight=False, quiet=as_json))
    show(replied(recording, plan, heard), session.trace_id, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent and how: `samples` of 16 bits at 16 kHz, `live` in real time. `patience`: seconds beyond them."""

    samples: bytes
    model: str = ""
    language: str = ""
    single: bool = False
    live: bool = True
    patience: float = 60.0

    @property
    def seconds(self) -> float:
        """The length of the recording."""
        return len(self.samples) / _SAMPLE_BYTES / _RATE


@dataclass(slots=True)
class Heard:
    """What came back so far. `guess`: words that may still change. Times in seconds since the stream began."""

    finals: list["SpeechSegment"] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    guess: str = ""
    speaking: bool = False
    first: float | None = None
    updates: list[dict[str, Any]] = field(default_factory=list)
    model: "Model | None" = None
    receipt: "Receipt | None" = None

    def take(self, update: "StreamingResult", now: float) -> None:
        """Note one answer that came at `now`."""
        said: dict[str, Any] = {"at": round(now, 3), "is_final": update.is_final, "event": update.event}
        segment, self.model = update.segment, update.model
        if update.event:
            self.speaking = update.event == "START"
            said["event_offset"] = update.event_offset
        if segment is not None:
            said |= {"start": segment.start, "end": segment.end, "text": segment.text, "stability": update.stability}
            self.first = now if self.first is None and segment.text.strip() else self.first
            self.guess = "" if update.is_final else segment.text
        if segment is not None and update.is_final:
            self.finals.append(segment)
            self.delays.append(now - segment.end)
        self.updates.append(said)


def load(file: Path) -> bytes:
    """A recording as 16-bit samples at 16 kHz, its channels mixed; one line and status 1 when it is none."""
    import numpy as np
    import soundfile
    import soxr

    try:
        sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        fail(f"{file}: cannot be read as a recording ({error})")
    mono = soxr.resample(sound.mean(axis=1), rate, _RATE)
    samples: bytes = (np.clip(mono, -1.0, 1.0) * 32767).astype("<i2").tobytes()
    if not samples:
        fail(f"{file}: holds no sound")
    return samples


def converse(session: Session, plan: Plan, console: Console) -> Heard:
    """Send the recording and note what comes back; drawn as it comes where `console` is a terminal."""
    from headrace import StreamingOptions

    options = StreamingOptions(_RATE, "LINEAR16", plan.model, plan.language, True, plan.single)
    heard, begun = Heard(), time.monotonic()
    answers = session.client.speech.streaming_recognize(_chunks(plan, begun), options, metadata=session.metadata)
    # A stream has no deadline of its own.
    late = threading.Timer(plan.seconds + plan.patience, answers.cancel)
    late.daemon = True
    late.start()
    drawn = console.is_terminal and not console.quiet
    try:
        with Live(
            console=console, auto_refresh=drawn, transient=True, get_renderable=_view(heard, plan, begun)
        ) as live:
            for update in answers:
                heard.take(update, time.monotonic() - begun)
                if drawn:
                    live.refresh()
    finally:
        late.cancel()
    heard.receipt = answers.receipt
    return heard


def _chunks(plan: Plan, begun: float) -> Iterator[bytes]:
    """The samples in tenths of a second, each when a microphone would have heard it, or at once."""
    size = _CHUNK * _SAMPLE_BYTES
    for start in range(0, len(plan.samples), size):
        chunk = plan.samples[start : start + size]
        if plan.live:
            due = (start + len(chunk)) / _SAMPLE_BYTES / _RATE
            time.sleep(max(0.0, begun + due - time.monotonic()))
        yield chunk


def _view(heard: Heard, plan: Plan, begun: float) -> Callable[[], Group]:
    """What a terminal shows while the stream runs: finals, the guess that may still change, and how far it is."""

    def view() -> Group:
        passed = min(time.monotonic() - begun, plan.seconds)
        sign = Text("  ● ", style="red") if heard.speaking else Text("  ○ ", style="dim")
        state = Text(f"{clock(passed)} of {clock(plan.seconds)}", style="dim")
        return Group(_table(heard), Text.assemble(sign, state, "  ", (heard.guess.strip(), "italic dim")))

    return view


def _table(heard: Heard) -> Table:
    table = Table.grid(padding=(0, 2))
    for segment in heard.finals:
        table.add_row("", span(segment), segment.text.strip())
    return table


def replied(file: Path, plan: Plan, heard: Heard) -> Reply:
    """The finals, and how soon they came."""
    from headrace import Model

    transcript = "".join(segment.text for segment in heard.finals).strip()
    document = {
        "file": str(file),
        "transcript": transcript,
        "segments": fields(heard.finals),
        "first_words_seconds": heard.first,
        "updates": heard.updates,
    }
    lines = [title(file, plan.seconds), _table(heard) if heard.finals else Text("  nothing was said", style="dim")]
    if plan.live and heard.delays and heard.first is not None:
        guesses = sum(1 for update in heard.updates if "text" in update and not update["is_final"])
        worst = max(heard.delays)
        words = (
            f"  {guesses} guesses, the first after {heard.first:.1f} s; finals at most {worst:.1f} s after their end"
        )
        lines.append(Text(words, style="dim"))
    return Reply(document, Group(*lines), heard.model or Model("", ""), heard.receipt)
