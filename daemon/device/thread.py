"""One thread owns the device, and requests of many cameras share its calls.

While the device is busy, requests pile up; when it is free, ``batching`` says which of them go
into the next call. On a CPU nothing is gained by waiting for more requests: under load, batches
grow by themselves.
"""

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from daemon.calls import RunningCalls
from daemon.clock import Clock, SystemClock
from daemon.device.batching import Batcher, WaitUntil
from daemon.device.requests import Batch, BatchPolicy, Lane, Request
from daemon.metrics import Metrics
from engine.cas import Localizer
from engine.errors import S2netdError
from engine.features import FeatureExtractor
from engine.types import CasWindow, FeatureWindow, Snippet, SnippetFeature

R = TypeVar("R")

# Opening and trying a model takes seconds on a GPU; work that is not back after this time hangs.
LONG_WORK_S = 600.0


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A request's items, and the answers that have come back so far, by the items' places."""

    work: Callable[[Sequence[Any]], list[Any]]
    items: Sequence[Any]
    answer: asyncio.Future[list[Any]]
    answers: dict[int, Any] = field(default_factory=dict)


class Device:
    """Networks that share one device, callable from the event loop while ``serve`` runs.

    Args:
        policy: The limits by which items share calls.
        metrics: Sizes, waits and times of calls are counted here.
        calls: Told of each call, so that one that hangs is noticed.
        clock: Measures how long requests wait; None: the machine's.
        thread: The one thread for calls, which outlives the device; None: one of its own.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        metrics: Metrics,
        calls: RunningCalls,
        clock: Clock | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._metrics = metrics
        self._calls = calls
        self._clock = clock or SystemClock()
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="device")
        self._owns_thread = thread is None
        self._is_free = asyncio.Lock()
        self._batcher = Batcher(policy)
        self._tickets: dict[Request, _Ticket] = {}
        self._wake = asyncio.Event()
        self._busy_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds that calls for cameras have taken, in all."""
        return self._busy_s

    async def run(self, work: Callable[[], R]) -> R:
        """Do any work on the device thread, between two calls; ``serve`` need not run.

        It may take ``LONG_WORK_S`` longer than a call before it counts as a hang.
        """
        await self._is_free.acquire()
        return await self._on_thread(work, LONG_WORK_S)

    async def extract(
        self,
        extractor: FeatureExtractor,
        snippets: Sequence[Snippet],
        *,
        camera: str = "",
        deadline_s: float | None = None,
    ) -> list[SnippetFeature]:
        """Features of one camera's snippets, in order.

        Args:
            extractor: Used from the device thread only; a call is of one extractor.
            snippets: The frames of each are uint8 (L, H, W, 3), all of one shape.
            camera: The camera that the snippets are of; cameras take turns.
            deadline_s: When the camera will have its next snippet, in seconds on the device's
                clock; None: now.

        Returns:
            A float32 (D,) vector for each snippet.

        Raises:
            DeviceError: The backend failed.
        """
        if not snippets:
            return []
        group = (id(extractor), snippets[0].rgb.shape)
        return await self._ask(
            Lane.SNIPPETS, group, extractor.extract, snippets, camera, deadline_s
        )

    async def localize(
        self,
        localizer: Localizer,
        windows: Sequence[FeatureWindow],
        *,
        camera: str = "",
        deadline_s: float | None = None,
    ) -> list[CasWindow]:
        """CAS of one camera's windows, in order.

        Args:
            localizer: Used from the device thread only; a call is of one localizer.
            windows: The features of each are float32 (T, D), all of one shape.
            camera: The camera that the windows are of; cameras take turns.
            deadline_s: As in ``extract``.

        Returns:
            For each window, scores of C classes, float32 (T, C), and attention, float32 (T,).

        Raises:
            DeviceError: The backend failed.
        """
        if not windows:
            return []
        group = (id(localizer), windows[0].features.shape, windows[0].camera_mean.shape)
        return await self._ask(
            Lane.WINDOWS, group, localizer.localize, windows, camera, deadline_s
        )

    async def serve(self) -> None:
        """Answer requests until cancelled."""
        while True:
            now_s = self._clock.monotonic_s()
            todo = self._batcher.next(now_s)
            if isinstance(todo, Batch):
                await self._answer(todo)
                continue
            self._wake.clear()
            wait_s = todo.at_s - now_s if isinstance(todo, WaitUntil) else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def close(self) -> None:
        """Wait for what is running, and end the thread unless the caller gave it."""
        if self._owns_thread:
            self._thread.shutdown(wait=True)

    async def _ask(
        self,
        lane: Lane,
        group: Hashable,
        work: Callable[[Sequence[Any]], list[Any]],
        items: Sequence[Any],
        camera: str,
        deadline_s: float | None,
    ) -> list[Any]:
        now_s = self._clock.monotonic_s()
        deadline_s = now_s if deadline_s is None else deadline_s
        request = Request(lane, camera, group, len(items), now_s, deadline_s)
        ticket = _Ticket(work, items, asyncio.get_running_loop().create_future())
        self._tickets[request] = ticket
        self._batcher.add(request)
        self._wake.set()
        try:
            return await ticket.answer
        finally:  # answered, failed, or its camera gave up
            self._batcher.cancel(request)
            del self._tickets[request]

    async def _answer(self, batch: Batch) -> None:
        """Make one call and hand its answers out."""
        tickets = [self._tickets[piece.request] for piece in batch.pieces]
        rows = [
            row
            for piece, ticket in zip(batch.pieces, tickets, strict=True)
            for row in ticket.items[piece.first : piece.first + piece.n_items]
        ]
        try:
            answers = await self._call(batch, partial(tickets[0].work, rows))
        except S2netdError as error:
            for piece, ticket in zip(batch.pieces, tickets, strict=True):
                self._batcher.cancel(piece.request)  # half an answer is of no use
                if not ticket.answer.done():
                    ticket.answer.set_exception(error)
        else:
            _hand_out(batch, tickets, answers)
        if batch.lane is Lane.SNIPPETS:
            # A camera that now has a window asks for it before the next long call is made.
            await asyncio.sleep(0)

    async def _call(self, batch: Batch, work: Callable[[], list[Any]]) -> list[Any]:
        await self._is_free.acquire()
        started_s = self._clock.monotonic_s()
        self._tell(batch, started_s)
        answers = await self._on_thread(work)
        spent_s = self._clock.monotonic_s() - started_s
        self._busy_s += spent_s
        self._metrics.device_busy_seconds.labels(batch.lane.value).inc(spent_s)
        return answers

    def _tell(self, batch: Batch, started_s: float) -> None:
        sizes = {
            Lane.SNIPPETS: self._metrics.device_batch,
            Lane.WINDOWS: self._metrics.device_windows,
        }
        sizes[batch.lane].observe(batch.n_items)
        waits = self._metrics.device_wait_seconds.labels(batch.lane.value)
        for piece in batch.pieces:
            waits.observe(started_s - piece.request.arrived_s)

    async def _on_thread(self, work: Callable[[], R], allowance_s: float = 0) -> R:
        """Work on the device thread, which the caller has acquired; it is free afterwards.

        If the caller is cancelled, the work goes on, and the thread is free only when it is done.
        """
        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        done.add_done_callback(partial(self._release, self._calls.begin(allowance_s)))
        return await asyncio.shield(done)

    def _release(self, number: int, done: "asyncio.Future[Any]") -> None:
        self._calls.end(number)
        self._is_free.release()
        if not done.cancelled():
            done.exception()  # marks it as seen, for perhaps nobody waits for it any more


def _hand_out(batch: Batch, tickets: Sequence[_Ticket], answers: Sequence[Any]) -> None:
    if len(answers) != batch.n_items:
        raise AssertionError(f"{len(answers)} answers for {batch.n_items} {batch.lane.name}")
    at = 0
    for piece, ticket in zip(batch.pieces, tickets, strict=True):
        places = range(piece.first, piece.first + piece.n_items)
        ticket.answers.update(zip(places, answers[at:], strict=False))
        at += piece.n_items
        is_whole = len(ticket.answers) == len(ticket.items)
        if is_whole and not ticket.answer.done():  # its camera may have been cancelled meanwhile
            ticket.answer.set_result([ticket.answers[i] for i in range(len(ticket.items))])
