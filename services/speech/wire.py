"""What the speech service's messages hold, as its other modules know it, and back."""

from typing import Final

from google.protobuf import duration_pb2

from headrace.speech.v1 import speech_pb2 as pb
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel
from services.speech.audio import Recording
from services.speech.layouts import AudioError, Encoding, Layout

_ENCODINGS: Final[dict[int, Encoding]] = {
    pb.AUDIO_ENCODING_LINEAR16: "LINEAR16",
    pb.AUDIO_ENCODING_FLOAT32: "FLOAT32",
    pb.AUDIO_ENCODING_MULAW: "MULAW",
}
#: Nanoseconds of one sample at 16 kHz.
_SAMPLE_NANOS: Final = 62_500


def recording_of(audio: pb.Audio) -> Recording:
    """The recording that a message holds. Raises ServiceError INVALID_ARGUMENT."""
    if audio.encoding == pb.AUDIO_ENCODING_UNSPECIFIED:
        return Recording(audio.content)
    return Recording(audio.content, layout_of(audio.encoding, audio.sample_rate_hertz, audio.channel_count, "audio."))


def layout_of(encoding: int, rate: int, channels: int, path: str) -> Layout:
    """How bare samples lie. Raises ServiceError INVALID_ARGUMENT; `path` stands before the names of its fields."""
    known = _ENCODINGS.get(encoding)
    if known is None:
        names = ", ".join(f"AUDIO_ENCODING_{name}" for name in _ENCODINGS.values())
        raise errors.invalid_argument(f"{path}encoding", f"is {encoding}; bare samples must be one of {names}")
    try:
        return Layout(known, rate, channels or 1)
    except AudioError as error:
        raise errors.invalid_argument(path + error.field, error.problem) from error


def refused(error: AudioError) -> ServiceError:
    """What a caller hears whose recording cannot be used."""
    return errors.invalid_argument(f"audio.{error.field}", error.problem)


def settle(call: Call, model: LoadedModel) -> None:
    """Let the receipt speak of the model that the caller meant, whichever network ran last."""
    if call.receipt is not None:
        call.receipt.model, call.receipt.version = model.name, model.version


def offset(samples: int) -> duration_pb2.Duration:
    """So many samples at 16 kHz as a duration."""
    seconds, rest = divmod(samples * _SAMPLE_NANOS, 10**9)
    return duration_pb2.Duration(seconds=seconds, nanos=rest)
