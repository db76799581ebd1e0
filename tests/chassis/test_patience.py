"""Work that finds a queue full."""

import asyncio

import pytest

from services.chassis import errors
from services.chassis.errors import ServiceError
from services.chassis.patience import Siblings, patiently


def full_until(attempts):
    """An attempt that finds the queue full until it is made for the time numbered `attempts`."""
    made = 0

    async def attempt():
        nonlocal made
        made += 1
        if made < attempts:
            raise errors.queue_full("m", 0.001)
        return made

    return attempt


async def test_what_may_wait_is_tried_again_until_there_is_room():
    assert await patiently(full_until(3), lambda: True) == 3


async def test_what_may_not_wait_is_refused():
    with pytest.raises(ServiceError) as raised:
        await patiently(full_until(2), lambda: False)
    assert raised.value.reason == "QUEUE_FULL"


async def test_any_other_error_is_not_waited_for():
    async def attempt():
        raise errors.draining()

    with pytest.raises(ServiceError) as raised:
        await patiently(attempt, lambda: True)
    assert raised.value.reason != "QUEUE_FULL"


async def test_a_call_is_refused_only_while_none_of_its_works_is_inside():
    siblings, leave = Siblings(), asyncio.Event()
    with pytest.raises(ServiceError):
        await siblings.run(full_until(2))
    inside = asyncio.create_task(siblings.run(leave.wait))
    await asyncio.sleep(0)
    assert await siblings.run(full_until(3)) == 3
    leave.set()
    await inside
    with pytest.raises(ServiceError):
        await siblings.run(full_until(2))
