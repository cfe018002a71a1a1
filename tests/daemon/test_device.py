import asyncio
import contextlib
import threading

import numpy as np
import pytest

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.device import Device
from daemon.metrics import Metrics
from engine.errors import DeviceError
from engine.types import Snippet, SnippetFeature, Span
from tests.support.scripted import SmoothingLocalizer


def snippets(camera: int, n: int) -> list[Snippet]:
    rgb = np.zeros((1, 1, 1, 3), np.uint8)
    return [Snippet(camera * 100 + i, 0, Span(i, i + 1), rgb) for i in range(n)]


class SlowExtractor:
    """Answers with the index; holds the first call until told to go on."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.threads: set[int] = set()
        self.go_on = threading.Event()

    def extract(self, batch):
        self.calls.append(len(batch))
        self.threads.add(threading.get_ident())
        self.go_on.wait(10)
        return [SnippetFeature(s.index, s.segment, np.array([s.index])) for s in batch]


class BrokenExtractor:
    def extract(self, batch):
        raise DeviceError(f"lost with {len(batch)}")


@contextlib.asynccontextmanager
async def serving(extractor, max_batch=4):
    device = Device(
        extractor, SmoothingLocalizer(), max_batch, Metrics(), RunningCalls(SystemClock())
    )
    task = asyncio.create_task(device.serve())
    try:
        yield device
    finally:
        task.cancel()
        await asyncio.wait({task})
        device.close()


async def test_what_waits_while_the_device_is_busy_shares_its_next_call():
    extractor = SlowExtractor()
    async with serving(extractor) as device:
        asked = [asyncio.create_task(device.extract(snippets(i, 2))) for i in range(6)]
        await asyncio.sleep(0)
        extractor.go_on.set()
        answers = await asyncio.gather(*asked)

    assert [[i * 100, i * 100 + 1] for i in range(6)] == [[f.index for f in a] for a in answers]
    assert 12 == sum(extractor.calls)
    assert max(extractor.calls) <= 4
    assert 3 <= len(extractor.calls) < 6
    assert 1 == len(extractor.threads)


async def test_a_long_chunk_is_answered_whole_in_calls_of_the_batch_size():
    extractor = SlowExtractor()
    extractor.go_on.set()
    async with serving(extractor) as device:
        answer = await device.extract(snippets(0, 9))

    assert list(range(9)) == [feature.index for feature in answer]
    assert [4, 4, 1] == extractor.calls


async def test_nothing_asked_is_nothing_called():
    async with serving(BrokenExtractor()) as device:
        assert [] == await device.extract([])
        assert [] == await device.localize([])


async def test_a_device_error_reaches_everyone_who_waited():
    async with serving(BrokenExtractor()) as device:
        asked = [asyncio.create_task(device.extract(snippets(i, 1))) for i in range(3)]
        results = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(result, DeviceError) for result in results)


async def test_a_camera_that_gave_up_does_not_disturb_the_others():
    extractor = SlowExtractor()
    async with serving(extractor) as device:
        gone = asyncio.create_task(device.extract(snippets(1, 1)))
        stays = asyncio.create_task(device.extract(snippets(2, 1)))
        await asyncio.sleep(0.05)
        gone.cancel()
        extractor.go_on.set()

        assert [200] == [feature.index for feature in await stays]
        with pytest.raises(asyncio.CancelledError):
            await gone
