"""Cameras of one process: each goes its own way, and all end in time when they are told to.

What is away, a camera, a broker or a disk, is waited for without end. Nothing here waits for a
thread, so an end needs nobody's consent: what could not be written by then is counted, and said.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import structlog

from daemon.calls import RunningCalls
from daemon.clock import Clock, SystemClock
from daemon.errors import TransportError
from daemon.library_lines import LINES
from daemon.outages import Kind, Outages
from daemon.produce.base import ChunkWriter
from daemon.produce.feed import SLOW_S, SPOOL_FULL, Feed, FeedParts, FeedStatus
from daemon.produce.footage import Footage
from daemon.produce.spool import Spool, Waiting
from daemon.systemd import Notifier
from daemon.threads import told_if_slow
from engine.errors import S2netdError

# Told to stop, cameras have so long to write what waits, and then the writer to hang up.
DRAIN_S = 0.5
_HANG_UP_S = 0.3
_RETRY_S = 5.0  # of a writer that cannot be started, and of a camera that failed
_BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where chunks go.

    Attributes:
        writer: The way there.
        name: What it is called in messages.
        kind: What it is called when it is away.
        outages: Told when it is.
    """

    writer: ChunkWriter
    name: str
    kind: Kind
    outages: Outages


class Fleet:
    """Cameras that send to one target.

    Args:
        footages: Each camera's footage; each has a name of its own.
        target: Where all chunks go.
        spool_bytes: Most bytes of chunks that wait to be written.
        log: What becomes of the footage is told here.
        clock: Sets the pace and gives capture times.
        calls: Told of each call that may hang.
        status_every_s: How often each camera's status is told; None: never.
        show: Called once a second with how the cameras are.

    Attributes:
        feeds: The cameras.
    """

    def __init__(
        self,
        footages: Sequence[Footage],
        target: Target,
        *,
        spool_bytes: int,
        log: structlog.stdlib.BoundLogger,
        clock: Clock | None = None,
        calls: RunningCalls | None = None,
        status_every_s: float | None = None,
        show: Callable[[list[FeedStatus]], object] = list,
    ) -> None:
        self._target = target
        self._log = log
        self._stop = asyncio.Event()
        self._is_open = asyncio.Event()
        self._machine_clock = SystemClock()
        self._status_every_s = status_every_s
        self._show = show
        self._notifier = Notifier()
        parts = FeedParts(
            writer=target.writer,
            is_open=self._is_open,
            spool=Spool(spool_bytes),
            drop=self._drop,
            stop=self._stop,
            clock=clock or SystemClock(),
            calls=calls or RunningCalls(SystemClock()),
            log=log,
        )
        watch = target.outages.watch
        self.feeds = [Feed(one, parts, watch(target.kind, target.name)) for one in footages]
        self._by_camera = {feed.footage.camera: feed for feed in self.feeds}
        self._outage = watch(target.kind, target.name)

    def stop(self) -> None:
        """Let ``run`` write what waits and the end markers, as far as that takes no time."""
        self._stop.set()

    async def run(self) -> None:
        """Send until all footage has ended, or ``stop`` is called.

        Raises:
            ConfigError: A source or the target is not usable as it was named.
            UnreadableVideoError: Files could not be read; all others were sent.
        """
        starting = asyncio.create_task(self._start())
        beating = asyncio.create_task(self._beat())
        feeding = asyncio.gather(*(self._fed(feed) for feed in self.feeds))
        stopping = asyncio.create_task(self._stopped())
        try:
            await _until_any(feeding, stopping, starting, beating)
        finally:
            for task in (starting, beating, feeding, stopping):
                task.cancel()
            await asyncio.wait({starting, beating, stopping}, timeout=_HANG_UP_S)
            with suppress(asyncio.CancelledError, S2netdError):  # it was raised already
                await feeding
            await self._hang_up()

    async def _start(self) -> None:
        """Open the target, however long that takes."""
        while True:
            starting = self._target.writer.start()
            try:
                await told_if_slow(starting, SLOW_S, self._outage.failed)
            except TransportError as error:
                self._outage.failed(error)
            else:
                self._outage.worked()
                self._is_open.set()
                return
            await asyncio.sleep(_RETRY_S)

    async def _fed(self, feed: Feed) -> None:
        """Serve a camera; an error that nobody foresaw costs no other one."""
        while True:
            try:
                return await feed.run()
            except S2netdError:
                raise
            except Exception:
                if not feed.footage.is_live:
                    raise
                self._log.exception("produce.camera_failed", camera=feed.footage.camera)
            await asyncio.sleep(_RETRY_S)

    async def _stopped(self) -> None:
        await self._stop.wait()
        self._notifier.stopping()
        await asyncio.sleep(DRAIN_S)

    async def _hang_up(self) -> None:
        # Of a target that is wrong the error says enough.
        if self._is_open.is_set() or self._stop.is_set():
            for feed in self.feeds:
                feed.give_up()
                feed.losses.tell(self._log, self._machine_clock.monotonic_s(), at_once=True)
        with suppress(TransportError, TimeoutError):
            async with asyncio.timeout(_HANG_UP_S):
                await self._target.writer.close()

    async def _beat(self) -> None:
        """Once a second tell what there is to tell, and the service manager that we are alive."""
        self._notifier.ready(self._in_brief([feed.status() for feed in self.feeds]))
        told_s = self._machine_clock.monotonic_s()
        while True:
            await asyncio.sleep(_BEAT_S)
            now_s = self._machine_clock.monotonic_s()
            self._target.outages.tick()
            LINES.tell(self._log)
            for feed in self.feeds:
                feed.losses.tell(self._log, now_s)
            statuses = [feed.status() for feed in self.feeds]
            self._notifier.status(self._in_brief(statuses))
            self._notifier.alive()
            self._show(statuses)
            if self._status_every_s is not None and now_s - told_s >= self._status_every_s:
                told_s = now_s
                for status in statuses:
                    self._log.info("produce.status", **asdict(status))

    def _in_brief(self, states: Sequence[FeedStatus]) -> str:
        """One line for the service manager."""
        n_live = sum(status.state == "live" for status in states)
        dropped_s = sum(status.dropped_s for status in states)
        spooled = sum(status.spooled_bytes for status in states) / 1e6
        brief = (
            f"{n_live} of {len(states)} cameras live, spooled {spooled:.1f} MB, "
            f"dropped {dropped_s:.0f} s"
        )
        waiting = self._target.outages.status
        return f"{waiting}; {brief}" if waiting else brief

    def _drop(self, gone: list[Waiting]) -> None:
        for waiting in gone:
            self._by_camera[waiting.chunk.camera].losses.add(waiting, SPOOL_FULL)


async def _until_any(
    feeding: "asyncio.Future[list[None]]",
    stopping: "asyncio.Task[None]",
    *others: "asyncio.Task[None]",
) -> None:
    """Wait until all cameras have ended or the time to stop is over; raise what failed."""
    waited_for: set[asyncio.Future[object]] = {feeding, stopping, *others}  # type: ignore[arg-type]
    while not feeding.done() and not stopping.done():
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            if task.done():
                task.result()
                waited_for.discard(task)
    if feeding.done():
        feeding.result()
