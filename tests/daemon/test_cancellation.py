"""A task's own cancellation passes; one that comes from what it waits for is an error."""

import asyncio

import pytest

from daemon.cancellation import own_cancellation
from daemon.errors import ForeignCancellationError, TransportError


async def wait_for(future: asyncio.Future[None]) -> None:
    with own_cancellation("the door"):
        await future


async def test_what_is_cancelled_under_a_task_is_an_error_that_names_it() -> None:
    future = asyncio.get_running_loop().create_future()
    waiting = [asyncio.create_task(wait_for(future)) for _ in range(2)]
    await asyncio.sleep(0)

    waiting[0].cancel()

    first, second = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, ForeignCancellationError)
    assert "the door: was cancelled by somebody else" == str(second)
    assert isinstance(second, TransportError)


async def test_a_time_out_inside_or_around_is_a_time_out() -> None:
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait_for(future)

    with pytest.raises(TimeoutError), own_cancellation("the door"):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_group_that_ends_early_still_ends_quietly() -> None:
    future = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        raise ValueError

    async def all_of_it() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for(future))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as raised:
        await all_of_it()

    assert [ValueError] == [type(error) for error in raised.value.exceptions]
