import asyncio
import contextlib
import threading

import numpy as np
import pytest

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.device.requests import BatchPolicy
from daemon.device.thread import LONG_WORK_S, Device
from daemon.metrics import Metrics
from engine.errors import BundleError, DeviceError
from engine.types import FeatureWindow, Snippet, SnippetFeature, Span
from tests.support.processes import PATIENCE_S
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
        self.go_on.wait(PATIENCE_S)
        return [SnippetFeature(s.index, s.segment, np.array([s.index])) for s in batch]


class Held:
    """Work that takes as long as the test wants."""

    def __init__(self) -> None:
        self.may_end, self._has_begun = threading.Event(), threading.Event()

    def wait(self) -> None:
        self._has_begun.set()
        self.may_end.wait(PATIENCE_S)

    async def began(self) -> None:
        while not self._has_begun.is_set():
            await asyncio.sleep(0)


class BrokenExtractor:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def extract(self, batch):
        self.calls.append(len(batch))
        raise DeviceError(f"lost with {len(batch)}")


class CountingLocalizer(SmoothingLocalizer):
    """Notes the size of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def localize(self, batch):
        self.calls.append(len(batch))
        return super().localize(batch)


@contextlib.asynccontextmanager
async def serving(max_size=4, max_wait_s=0.0, metrics=None):
    policy = BatchPolicy(max_size, max_wait_s)
    device = Device(policy, metrics or Metrics(), RunningCalls(SystemClock()))
    task = asyncio.create_task(device.serve())
    try:
        yield device
    finally:
        task.cancel()
        await asyncio.wait({task})
        device.close()


def a_window(camera: int) -> FeatureWindow:
    features = np.full((8, 3), camera / 100, np.float32)
    return FeatureWindow(camera, 0, features, np.ones(8, bool), np.zeros(3, np.float32))


async def test_what_waits_while_the_device_is_busy_shares_its_next_call():
    extractor = SlowExtractor()
    async with serving() as device:
        asked = [
            asyncio.create_task(device.extract(extractor, snippets(i, 2), camera=f"{i}"))
            for i in range(6)
        ]
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
    async with serving() as device:
        answer = await device.extract(extractor, snippets(0, 9))

    assert list(range(9)) == [feature.index for feature in answer]
    assert [4, 4, 1] == extractor.calls


async def test_a_long_chunk_does_not_hold_the_device():
    extractor = SlowExtractor()
    extractor.go_on.set()
    answered: list[str] = []

    async def ask(device: Device, camera: str, n: int) -> None:
        await device.extract(extractor, snippets(0, n), camera=camera)
        answered.append(camera)

    async with serving() as device, asyncio.TaskGroup() as group:
        group.create_task(ask(device, "long", 400))
        group.create_task(ask(device, "short", 2))

    assert ["short", "long"] == answered


async def test_windows_of_many_cameras_share_calls():
    localizer = CountingLocalizer()
    async with serving() as device:
        asked = [device.localize(localizer, [a_window(i)], camera=f"{i}") for i in range(8)]
        answers = await asyncio.gather(*asked)

    assert list(range(8)) == [answer[0].first_index for answer in answers]
    assert [4, 4] == localizer.calls


async def test_windows_of_a_finished_chunk_go_before_the_next_snippets():
    extractor, localizer = SlowExtractor(), CountingLocalizer()
    seen: list[tuple[int, int]] = []

    async def work(device: Device, camera: int) -> None:
        await device.extract(extractor, snippets(camera, 4), camera=f"{camera}")
        await device.localize(localizer, [a_window(camera)], camera=f"{camera}")
        seen.append((len(extractor.calls), len(localizer.calls)))

    extractor.go_on.set()
    async with serving() as device, asyncio.TaskGroup() as group:
        for camera in range(3):
            group.create_task(work(device, camera))

    # (backbone calls begun, localizer calls begun) when a camera's windows were answered: at most
    # the next camera's snippets can be under way by then.
    assert [1, 2, 3] == [n_window_calls for _, n_window_calls in seen]
    assert all(n_snippet_calls <= n_window_calls + 1 for n_snippet_calls, n_window_calls in seen)


async def test_two_networks_never_share_a_call():
    old, new = SlowExtractor(), SlowExtractor()
    async with serving(max_size=64) as device:
        asked = [
            asyncio.create_task(device.extract((old, new)[i % 2], snippets(i, 2), camera=f"{i}"))
            for i in range(8)
        ]
        old.go_on.set()
        new.go_on.set()
        answers = await asyncio.gather(*asked)

    assert [i * 100 for i in range(8)] == [answer[0].index for answer in answers]
    assert [8] == old.calls
    assert [8] == new.calls


async def test_a_call_waits_for_company_only_while_it_may():
    extractor = SlowExtractor()
    extractor.go_on.set()
    async with serving(max_size=2, max_wait_s=60) as device:
        first = asyncio.create_task(device.extract(extractor, snippets(1, 1), camera="1"))
        second = asyncio.create_task(device.extract(extractor, snippets(2, 1), camera="2"))
        async with asyncio.timeout(240):
            await asyncio.gather(first, second)
    async with serving(max_size=2, max_wait_s=0.02) as device:
        async with asyncio.timeout(240):
            await device.extract(extractor, snippets(3, 1), camera="3")

    assert [2, 1] == extractor.calls


async def test_any_work_runs_on_the_device_thread_between_calls_and_without_serving():
    extractor = SlowExtractor()
    device = Device(BatchPolicy(4), Metrics(), RunningCalls(SystemClock()))

    thread = await device.run(threading.get_ident)

    serving_task = asyncio.create_task(device.serve())
    call = asyncio.create_task(device.extract(extractor, snippets(0, 1)))
    while not extractor.calls:
        await asyncio.sleep(0)
    work = asyncio.create_task(device.run(lambda: len(extractor.calls)))
    extractor.go_on.set()
    assert 1 == await work
    await call
    assert {thread} == extractor.threads
    serving_task.cancel()
    await asyncio.wait({serving_task})
    device.close()


async def test_the_thread_is_busy_until_work_that_nobody_awaits_has_ended():
    extractor, hold = SlowExtractor(), Held()
    extractor.go_on.set()
    calls = RunningCalls(SystemClock())
    device = Device(BatchPolicy(4), Metrics(), calls)
    serving_task = asyncio.create_task(device.serve())
    work = asyncio.create_task(device.run(hold.wait))
    await hold.began()
    work.cancel()
    asked = asyncio.create_task(device.extract(extractor, snippets(0, 1)))
    await asyncio.sleep(0.05)

    # A call that has not begun does not age: long work is no hang.
    assert 0 == calls.oldest_s()
    hold.may_end.set()
    assert 1 == len(await asked)
    serving_task.cancel()
    await asyncio.wait({serving_task})
    device.close()


async def test_long_work_ages_once_it_is_longer_than_any_should_be_even_if_nobody_awaits_it():
    hold, clock = Held(), SetClock()
    calls = RunningCalls(clock)
    device = Device(BatchPolicy(4), Metrics(), calls)
    work = asyncio.create_task(device.run(hold.wait))
    await hold.began()
    work.cancel()
    await asyncio.wait({work})
    ages_s = []
    for clock.now_s in (LONG_WORK_S, LONG_WORK_S + 7):
        ages_s.append(calls.oldest_s())
    hold.may_end.set()
    await device.run(lambda: None)

    assert [0, 7] == ages_s
    assert 0 == calls.oldest_s()
    device.close()


class SetClock:
    """Says what it is told."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_us(self) -> int:
        raise NotImplementedError


async def test_what_work_raises_reaches_who_asked_for_it():
    async with serving() as device:
        with pytest.raises(BundleError, match="no such network"):
            await device.run(fails)

        assert 7 == await device.run(lambda: 7)


def fails() -> None:
    raise BundleError("no such network")


async def test_sizes_waits_and_times_of_calls_are_told():
    metrics, extractor = Metrics(), SlowExtractor()
    extractor.go_on.set()
    async with serving(metrics=metrics) as device:
        await device.extract(extractor, snippets(0, 6))
        await device.localize(SmoothingLocalizer(), [a_window(0)])

    value = metrics.registry.get_sample_value
    assert 2 == value("s2netd_device_batch_count")
    assert 6 == value("s2netd_device_batch_sum")
    assert 1 == value("s2netd_device_windows_count")
    assert 2 == value("s2netd_device_wait_seconds_count", {"stage": "backbone"})
    assert 1 == value("s2netd_device_wait_seconds_count", {"stage": "localizer"})
    assert 0 < value("s2netd_device_busy_seconds_total", {"stage": "backbone"})


async def test_nothing_asked_is_nothing_called():
    async with serving() as device:
        assert [] == await device.extract(BrokenExtractor(), [])
        assert [] == await device.localize(SmoothingLocalizer(), [])


async def test_a_device_error_reaches_everyone_who_waited():
    async with serving() as device:
        asked = [
            asyncio.create_task(device.extract(BrokenExtractor(), snippets(i, 1), camera=f"{i}"))
            for i in range(3)
        ]
        results = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(result, DeviceError) for result in results)


async def test_an_error_fails_those_in_the_call_alone():
    good, broken = SlowExtractor(), BrokenExtractor()
    good.go_on.set()
    async with serving() as device:
        asked = [
            asyncio.create_task(
                device.extract((good, broken)[i % 2], snippets(i, 1), camera=f"{i}")
            )
            for i in range(6)
        ]
        results = await asyncio.gather(*asked, return_exceptions=True)

    assert [[i * 100] for i in (0, 2, 4)] == [[f.index for f in r] for r in results[::2]]
    assert all(isinstance(result, DeviceError) for result in results[1::2])


async def test_what_is_left_of_a_failed_request_is_not_tried():
    broken = BrokenExtractor()
    async with serving() as device:
        with pytest.raises(DeviceError, match="lost with 4"):
            await device.extract(broken, snippets(0, 100))

    assert [4] == broken.calls


async def test_a_camera_that_gave_up_does_not_disturb_the_others():
    extractor = SlowExtractor()
    async with serving() as device:
        gone = asyncio.create_task(device.extract(extractor, snippets(1, 1), camera="1"))
        stays = asyncio.create_task(device.extract(extractor, snippets(2, 1), camera="2"))
        while not extractor.calls:
            await asyncio.sleep(0)
        gone.cancel()
        extractor.go_on.set()

        assert [200] == [feature.index for feature in await stays]
        with pytest.raises(asyncio.CancelledError):
            await gone
