import asyncio
import math
import time

from engines.alarm import Alarm


class Rings:
    def __init__(self) -> None:
        self.count = 0
        self.rang = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.rang.set()


async def test_it_rings_for_the_earliest_deadline() -> None:
    rings = Rings()
    alarm = Alarm(rings)
    now = time.monotonic()
    for seconds in (60, 0.02, 30):
        alarm.note(now + seconds, now)
    async with asyncio.timeout(5):
        await rings.rang.wait()
    assert time.monotonic() - now >= 0.015
    alarm.reset()
    assert rings.count == 1


async def test_a_deadline_that_has_passed_rings_at_once() -> None:
    rings = Rings()
    alarm = Alarm(rings)
    alarm.note(0.0, time.monotonic())
    async with asyncio.timeout(5):
        await rings.rang.wait()


async def test_deadlines_close_to_the_one_noted_set_no_new_timer() -> None:
    alarm = Alarm(Rings())
    alarm.note(100.0, 0.0)
    timer = alarm._timer
    alarm.note(99.999, 0.0)
    assert alarm._timer is timer
    alarm.note(99.0, 0.0)
    assert alarm._timer is not timer
    alarm.reset(math.inf)
    assert alarm._timer is None
