"""Recordings as they come: every container and layout, and what is wrong with some."""

import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from services.speech.audio import OpenRecording, Recording, sniff
from services.speech.layouts import AudioError, Layout, SampleReader, mono

HOUR = 3600.0


def tone(seconds=1.0, rate=16_000, channels=1, hertz=440.0, peak=0.5):
    """float32 [frames, channels], every channel the same."""
    wave = peak * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def contained(samples, rate, kind, subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def decoded(content, layout=None, max_seconds=HOUR):
    return np.concatenate(list(OpenRecording(Recording(content, layout), max_seconds).blocks()))


def problem(content, layout=None, max_seconds=HOUR):
    with pytest.raises(AudioError) as raised:
        decoded(content, layout, max_seconds)
    return raised.value


CONTAINERS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "ALAW"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("kind", "subtype"), CONTAINERS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_container_gives_the_same_sound(kind, subtype, channels):
    sound = decoded(contained(tone(2.0, 48_000, channels), 48_000, kind, subtype))
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(32_000, rel=0.04)
    middle = sound[8_000:24_000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("encoding", ["LINEAR16", "FLOAT32", "MULAW"])
@pytest.mark.parametrize("channels", [1, 7])
def test_bare_samples_of_every_layout(rate, encoding, channels):
    sound = decoded(bare(tone(1.0, rate, channels), encoding), Layout(encoding, rate, channels))
    assert len(sound) == pytest.approx(16_000, abs=2)
    wanted = tone(1.0)[:, 0]
    np.testing.assert_allclose(sound[800:15_000], wanted[800:15_000], atol=0.03 if encoding == "MULAW" else 2e-3)


def bare(samples, encoding):
    if encoding == "FLOAT32":
        return samples.astype("<f4").tobytes()
    if encoding == "LINEAR16":
        return (samples * 32_767).astype("<i2").tobytes()
    wav = contained(samples, 8_000, "WAV", "ULAW")
    return wav[wav.index(b"data") + 8 :][: samples.size]


def test_mp3_is_read_in_blocks_without_a_scratch():
    """Reading it a second time at each block's beginning would lose what frames borrow from those before."""
    content = contained(tone(30.0), 16_000, "MP3")
    whole, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_allclose(decoded(content), whole, atol=1e-6)


def test_mulaw_is_what_libsndfile_makes_of_it():
    codes = bytes(range(256))
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 8_000, 1, "ULAW", format="RAW") as file:
        file.buffer_write(np.zeros(256, np.int16), "int16")
    expected, _ = soundfile.read(
        io.BytesIO(codes), dtype="float32", samplerate=8_000, channels=1, subtype="ULAW", format="RAW"
    )
    np.testing.assert_array_equal(mono(codes, Layout("MULAW", 8_000)), expected)


def test_clipped_sound_is_sound():
    loud = np.clip(tone(peak=4.0), -1, 1)
    assert decoded(contained(loud, 16_000, "WAV")).max() <= 1.0
    over = tone(peak=3.0)
    assert np.abs(decoded(contained(over, 16_000, "WAV", "FLOAT"))).max() == 1.0
    assert np.abs(decoded(over.tobytes(), Layout("FLOAT32", 16_000))).max() == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    samples = tone()
    samples[100] = value
    for error in (
        problem(samples.tobytes(), Layout("FLOAT32", 16_000)),
        problem(contained(samples, 16_000, "WAV", "FLOAT")),
    ):
        assert error.field == "content"
        assert "no numbers" in error.problem


def test_integers_sent_as_floats_are_refused():
    error = problem((tone() * 32_767).astype("<f4").tobytes(), Layout("FLOAT32", 16_000))
    assert "[-1, 1]" in error.problem


@pytest.mark.parametrize(
    ("rate", "channels", "field"),
    [
        (7_999, 1, "sample_rate_hertz"),
        (48_001, 1, "sample_rate_hertz"),
        (0, 1, "sample_rate_hertz"),
        (16_000, 9, "channel_count"),
        (16_000, -1, "channel_count"),
    ],
)
def test_layouts_out_of_range_are_refused(rate, channels, field):
    with pytest.raises(AudioError) as raised:
        Layout("LINEAR16", rate, channels)
    assert raised.value.field == field


def test_nothing_is_refused():
    assert "is empty" in problem(b"").problem
    assert "is empty" in problem(b"", Layout("LINEAR16", 16_000)).problem
    for kind in ("WAV", "FLAC"):
        assert problem(contained(np.zeros((0, 1), np.float32), 16_000, kind)).field == "content"


def test_bytes_that_do_not_fill_a_frame_are_refused():
    error = problem(b"\0" * 1001, Layout("LINEAR16", 16_000))
    assert error.field == "content"
    assert "1001 bytes" in error.problem
    assert "2-byte" in error.problem
    assert "14-byte" in problem(b"\0" * 1000, Layout("LINEAR16", 16_000, 7)).problem


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_a_container_called_bare_samples_is_recognised(kind, subtype):
    content = contained(tone(), 16_000, kind, subtype)
    error = problem(content[: len(content) // 2 * 2], Layout("LINEAR16", 16_000))
    assert error.field == "encoding"
    assert kind in error.problem


def test_an_mp3_with_a_tag_called_bare_samples_is_recognised():
    assert "MP3" in problem(b"ID3\x04\x00\x00" + b"\0" * 94, Layout("LINEAR16", 16_000)).problem


def test_bare_samples_called_a_container_are_told_what_to_set():
    error = problem(bare(tone(), "LINEAR16"))
    assert error.field == "content"
    assert "audio.encoding" in error.problem


@pytest.mark.parametrize(("head", "name"), [(b"\0\0\0\x20ftypM4A ", "MP4"), (b"\x1aE\xdf\xa3" + b"\0" * 9, "WebM"),
                                            (b"FORM\0\0\0\0AIFF", "AIFF"), (b"#!AMR\n", "AMR")])  # fmt: skip
def test_files_that_are_not_read_here_are_named(head, name):
    assert name in problem(head + b"\0" * 100).problem


@pytest.mark.parametrize(("kind", "subtype"), CONTAINERS)
def test_a_truncated_container_is_heard_as_far_as_it_goes(kind, subtype):
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 16_000 * 8)
    whole = contained(noise, 16_000, kind, subtype)
    sound = decoded(whole[: len(whole) * 6 // 10])
    assert 2.0 < len(sound) / 16_000 < 6.0
    assert np.abs(sound).max() > 0.4


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_header_alone_is_refused(kind):
    error = problem(contained(tone(), 16_000, kind)[:40])
    assert error.field == "content"
    assert kind in error.problem or "no sound" in error.problem


def test_a_header_that_promises_more_than_there_is_changes_nothing():
    wav = bytearray(contained(tone(), 16_000, "WAV"))
    for claim in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x7f"):
        wav[4:8] = wav[40:44] = claim
        assert len(decoded(bytes(wav))) == 16_000


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]), place=st.integers(0, 3_000), noise=st.binary(max_size=40))
def test_damage_never_does_worse_than_an_error(kind, place, noise):
    content = contained(tone(0.5), 16_000, kind)
    broken = content[:place] + noise + content[place + len(noise) :]
    with contextlib.suppress(AudioError):
        assert np.isfinite(decoded(broken)).all()


def test_strange_rates_and_channels_of_containers_are_refused():
    assert "1000 samples a second" in problem(contained(tone(1.0, 1_000), 1_000, "WAV")).problem
    assert "100 channels" in problem(contained(tone(0.1, 16_000, 100), 16_000, "WAV")).problem
    assert len(decoded(contained(tone(1.0, 192_000), 192_000, "WAV"))) == pytest.approx(16_000, abs=2)


def test_too_long_a_recording_is_refused_by_its_header():
    bomb = contained(np.zeros(16_000 * 400, np.int16), 16_000, "FLAC")
    assert len(bomb) < 50_000
    with pytest.raises(AudioError, match=r"400 s long.*at most 300 s"):
        OpenRecording(Recording(bomb), 300.0)
    with pytest.raises(AudioError, match="at most 300 s"):
        list(OpenRecording(Recording(b"\0" * 400 * 8_000, Layout("MULAW", 8_000)), 300.0).blocks())


def test_what_unfolds_to_more_than_its_header_says_is_stopped():
    """An MP3's header is no promise; what comes out is counted."""
    blocks = OpenRecording(Recording(contained(np.zeros(16_000 * 60), 16_000, "MP3")), 25.0).blocks()
    assert len(next(blocks)) + len(next(blocks)) <= 25 * 16_000
    with pytest.raises(AudioError, match="at most 25 s"):
        next(blocks)


def test_a_long_recording_is_never_in_memory_whole():
    """Two hours of silence are 460 MB as float32 and a few hundred KB as FLAC."""
    program = """
import io, resource, numpy as np, soundfile
from services.speech.audio import OpenRecording, Recording
buffer = io.BytesIO()
with soundfile.SoundFile(buffer, "w", 16000, 1, "PCM_16", format="FLAC") as file:
    for _ in range(120): file.write(np.zeros(16000 * 60, np.int16))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(block) for block in OpenRecording(Recording(buffer.getvalue()), 7200.0).blocks())
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 7200 * 16_000
    assert grown < 50_000


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 4_000), max_size=12), rate=st.sampled_from([8_000, 16_000, 44_100]))
def test_samples_that_arrive_split_anywhere_are_the_same_sound(cuts, rate):
    layout, data = Layout("LINEAR16", rate), bare(tone(0.1, rate), "LINEAR16")
    reader, parts, last = SampleReader(layout), [], 0
    for cut in [*sorted(cuts), len(data)]:
        parts.append(reader.feed(data[last:cut]))
        last = max(last, cut)
    parts.append(reader.finish())
    whole = SampleReader(layout)
    np.testing.assert_allclose(np.concatenate(parts), np.concatenate([whole.feed(data), whole.finish()]), atol=1e-6)


def test_sniffing_reads_only_the_head():
    assert sniff(b"\xff\xfb\x90\x00" + b"\0" * 8) == "MP3"
    with pytest.raises(AudioError):
        sniff(b"\xff\xf1\x50\x80" + b"\0" * 8)  # AAC, whose layer bits are 0
