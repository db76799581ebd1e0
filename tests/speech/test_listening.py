"""The tape of a long sound."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.speech.listening import Tape


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 20_000)), min_size=1, max_size=15))
def test_a_tape_gives_back_what_it_was_not_told_to_forget(steps):
    tape, sound = Tape(), np.zeros(0, np.float32)
    kept = 0
    for count, behind in steps:
        samples = np.arange(len(sound), len(sound) + count, dtype=np.float32)
        tape.append(samples)
        sound = np.concatenate([sound, samples])
        kept = max(kept, len(sound) - behind)
        tape.forget(kept)
        assert tape.end == len(sound)
        np.testing.assert_array_equal(tape.cut(kept, len(sound)), sound[kept:])
    np.testing.assert_array_equal(tape.cut(kept, len(sound) + 100), sound[kept:])


def test_a_tape_stays_small_however_long_it_runs():
    tape = Tape()
    for _ in range(600):
        tape.append(np.zeros(16_000, np.float32))
        tape.forget(tape.end - 32_000)
    assert tape.end == 600 * 16_000
    assert tape._buffer.nbytes < 1 << 20


def test_what_is_cut_out_is_a_copy():
    tape = Tape()
    tape.append(np.ones(10, np.float32))
    cut = tape.cut(0, 10)
    cut[:] = 0
    assert tape.cut(0, 10).all()
