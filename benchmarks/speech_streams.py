"""How live a stream is: WAV files at the pace of speech, some streams side by side, every answer timed by the sound.

    python -m benchmarks.speech_streams 127.0.0.1:8080 one.wav two.wav three.wav --streams 3

Questions: how long after somebody begins to speak is the first guess there, how far apart are guesses, how long after
the endpoint and after the last sound of speech is the final there, and do the finals say what Recognize says of the
whole file. A chunk is sent when its last sample has been spoken, so positions in the sound are instants of the clock.
"""

import argparse
import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from headrace import AsyncClient, StreamingOptions, StreamingResult, WavChunks

#: Seconds between the beginnings of two streams, so that their sentences do not begin together.
_STAGGER = 0.7


@dataclass(slots=True)
class Timings:
    """Seconds, of every utterance of every stream."""

    first_guess: list[float] = field(default_factory=list)
    guess_gap: list[float] = field(default_factory=list)
    final_after_endpoint: list[float] = field(default_factory=list)
    final_after_speech: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Watch:
    """Times the answers of one stream that began at the instant `begun`."""

    begun: float
    timings: Timings
    finals: list[str] = field(default_factory=list)
    _spoken: float | None = None  # when the utterance that lasts began, by the sound
    _latest: float | None = None  # when its latest guess was there
    _ended: float = math.nan  # when the latest endpoint was told

    def see(self, result: StreamingResult) -> None:
        """Note when an answer came."""
        now = time.monotonic() - self.begun
        if result.event == "START":
            self._spoken, self._latest = result.event_offset, None
        elif result.event == "END":
            self._ended, self._spoken = now, None
        elif result.segment is not None and result.is_final:
            self.finals.append(result.segment.text)
            self.timings.final_after_speech.append(now - result.segment.end)
            if self._spoken is None:
                self.timings.final_after_endpoint.append(now - self._ended)
        elif result.segment is not None and self._spoken is not None:
            if self._latest is None:
                self.timings.first_guess.append(now - self._spoken)
            else:
                self.timings.guess_gap.append(now - self._latest)
            self._latest = now


async def stream(client: AsyncClient, path: str, model: str, timings: Timings) -> str:
    """Speak one file; return what was understood."""
    chunks = WavChunks(path)
    options = StreamingOptions(chunks.sample_rate, model=model, interim_results=True)
    watch = Watch(time.monotonic(), timings)
    async for result in client.speech.streaming_recognize(chunks, options):
        watch.see(result)
    return "".join(watch.finals)


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Run the streams and compare their texts with those of the whole files."""
    files = [arguments.files[index % len(arguments.files)] for index in range(arguments.streams)]
    timings = Timings()

    async def later(index: int, path: str) -> str:
        await asyncio.sleep(index * _STAGGER)
        return await stream(client, path, arguments.model, timings)

    async with AsyncClient(arguments.target) as client:
        texts = await asyncio.gather(*(later(index, path) for index, path in enumerate(files)))
        wrong = words = 0
        for path, text in zip(files, texts, strict=True):
            whole = await client.speech.recognize(path, model=arguments.model, timeout=300)
            wrong += distance(text.split(), whole.text.split())
            words += len(whole.text.split())
    measured = {name: summary(getattr(timings, name)) for name in Timings.__slots__}
    return {"streams": arguments.streams, "seconds": measured, "words": words, "words_unlike_unary": wrong}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Count, median, 99th percentile and maximum."""
    ordered = sorted(values) or [math.nan]
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    found = {name: round(ordered[math.ceil(share * len(ordered)) - 1], 3) for name, share in places.items()}
    return {"count": len(values), **found}


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Words to insert, delete or replace to make one text of the other."""
    row = list(range(len(other) + 1))
    for index, word in enumerate(one, start=1):
        before, row = row, [index]
        for place, another in enumerate(other, start=1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (word != another)))
    return row[-1]


def show(found: dict[str, object]) -> None:
    """Print the figures as a table."""
    table = Table(title=f"{found['streams']} live streams, seconds")
    for column in ("what", "count", "p50", "p99", "max"):
        table.add_column(column)
    seconds = found["seconds"]
    assert isinstance(seconds, dict)  # noqa: S101  # As `measure` made it.
    for name, values in seconds.items():
        table.add_row(name.replace("_", " "), *(str(value) for value in values.values()))
    console = Console()
    console.print(table)
    console.print(f"{found['words_unlike_unary']} of {found['words']} words are not as Recognize has them")


def main() -> None:
    """Read the command line, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("target", help="host:port of a gateway or a speech service")
    parser.add_argument("files", nargs="+", help="WAV files of 16 bits and one channel")
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--model", default="whisper_tiny_en")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments))
    if arguments.json:
        print(json.dumps(found))  # noqa: T201  # The answer of this command.
    else:
        show(found)


if __name__ == "__main__":
    main()
