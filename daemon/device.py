"""One thread owns the device; requests of many cameras share its calls.

While the device is busy, requests pile up; when it is free, it takes what is there, oldest first,
up to ``max_batch`` snippets. So there is no waiting for company, and batches grow by themselves
when the box is loaded.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from daemon.calls import RunningCalls
from daemon.metrics import Metrics
from engine.cas import Localizer
from engine.errors import S2netdError
from engine.features import FeatureExtractor
from engine.types import CasWindow, FeatureWindow, Snippet, SnippetFeature

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Request:
    snippets: Sequence[Snippet]
    answer: asyncio.Future[list[SnippetFeature]]


class Device:
    """The backbone and the localizer, callable from the event loop while ``serve`` runs.

    Args:
        extractor: Used from the device thread only.
        localizer: Likewise.
        max_batch: Most snippets in one backbone call.
        metrics: Batch sizes are told here.
        calls: So are calls that do not come back.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        localizer: Localizer,
        max_batch: int,
        metrics: Metrics,
        calls: RunningCalls,
    ) -> None:
        self._extractor = extractor
        self._localizer = localizer
        self._max_batch = max_batch
        self._metrics = metrics
        self._calls = calls
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._waiting: deque[_Request] = deque()
        self._wake = asyncio.Event()

    async def warm_up(self, work: Callable[[], None]) -> None:
        """Run the first, slow calls on the device thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        """Features of one camera's snippets, in order.

        Raises:
            DeviceError: The backend failed.
        """
        if not snippets:
            return []
        features: list[SnippetFeature] = []
        # A long chunk must not hold the device while other cameras wait.
        for first in range(0, len(snippets), self._max_batch):
            features += await self._ask(snippets[first : first + self._max_batch])
        return features

    async def localize(self, windows: Sequence[FeatureWindow]) -> list[CasWindow]:
        """CAS of one camera's windows, in order.

        Raises:
            DeviceError: The backend failed.
        """
        if not windows:
            return []
        return await self._call(self._localizer.localize, windows)

    async def serve(self) -> None:
        """Answer requests until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._answer(self._gather())

    def close(self) -> None:
        """Wait for the running call and end the thread."""
        self._thread.shutdown(wait=True)

    async def _ask(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        answer: asyncio.Future[list[SnippetFeature]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(snippets, answer))
        self._wake.set()
        return await answer

    async def _answer(self, requests: list[_Request]) -> None:
        batch = [snippet for request in requests for snippet in request.snippets]
        self._metrics.device_batch.observe(len(batch))
        try:
            features = await self._call(self._extractor.extract, batch)
        except S2netdError as error:
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        _hand_out(requests, features)

    def _gather(self) -> list[_Request]:
        """The oldest requests that fit one call."""
        requests = [self._waiting.popleft()]
        room = self._max_batch - len(requests[0].snippets)
        while self._waiting and len(self._waiting[0].snippets) <= room:
            room -= len(self._waiting[0].snippets)
            requests.append(self._waiting.popleft())
        return requests

    async def _call(self, work: Callable[[T], R], value: T) -> R:
        with self._calls.running():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, value)


def _hand_out(requests: list[_Request], features: list[SnippetFeature]) -> None:
    at = 0
    for request in requests:
        n = len(request.snippets)
        if not request.answer.done():  # its camera may have been cancelled meanwhile
            request.answer.set_result(features[at : at + n])
        at += n
