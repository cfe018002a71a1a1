"""One partition, from when it is taken until it is given up: its steps, and its right to them.

Workers go on while a step is on its way to the journal. What they finish meanwhile goes into the
next step. A step that holds a revision goes at once, any other one after a bounded time.

A tenure is a worker's only way out. Once it is over, nothing that a worker still has in hand can
be kept or published, for the partition may have another owner.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from daemon.errors import StaleOwnerError
from daemon.journal.base import Journal, Step
from daemon.stream.ledger import Ledger
from daemon.stream.steps import Outcome, StepBuilder


@dataclass(frozen=True, slots=True)
class StepLimits:
    """When a step without revisions goes to the journal, and how much may wait for one.

    Attributes:
        interval_s: So many seconds after what waits longest in it.
        most_deliveries: With so many finished deliveries.
        most_waiting: With so many, workers wait for the journal.
        most_bytes: With so many bytes of dead letters, a step goes, and workers wait.
        most_spacing_s: Longest time from the end of one step to the next. Between them lies twice
            what the journal took, up to this: steps that come thick and fast share one then.
    """

    interval_s: float = 1.0
    most_deliveries: int = 32
    most_waiting: int = 256
    most_bytes: int = 16 * 2**20
    most_spacing_s: float = 0.25


class Tenure:
    """The right to a partition.

    Args:
        partition: Its name.
        journal: Keeps the steps.
        number: That of the last step.
        next_offset: Everything below it is done.
        first_offset: The first offset that will be read.
        log_id: As in ``Step``.
        limits: When steps go.
        on_kept: Told of every step that was kept, and of how many deliveries it finished.
        served_by: Tells which model and host a step is of.
    """

    def __init__(
        self,
        partition: str,
        journal: Journal,
        *,
        number: int,
        next_offset: int,
        first_offset: int,
        log_id: str = "",
        limits: StepLimits,
        on_kept: Callable[[Step, int], None],
        served_by: Callable[[], str] = str,
    ) -> None:
        self.partition = partition
        self.log_id = log_id
        self.is_held = False
        self.is_over = False
        self._journal = journal
        self._limits = limits
        self._on_kept = on_kept
        self._served_by = served_by
        self._steps = StepBuilder(Ledger(next_offset, first_offset), number, log_id)
        self._committing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._since_s: float | None = None  # when what waits longest began to wait
        self._not_before_s = 0.0  # when the next step may go

    @property
    def next_to_read(self) -> int:
        """The offset after the one that was handed out last."""
        return self._steps.ledger.next_to_read

    @property
    def n_in_flight(self) -> int:
        """Deliveries that were handed out and are not finished for good."""
        return self._steps.ledger.n_in_flight

    def begin(self, offset: int) -> None:
        """Take note of a delivery that was handed out."""
        self._steps.ledger.begin(offset)

    async def finish(self, camera: str, outcome: Outcome, offset: int | None = None) -> None:
        """Let what follows from a delivery go into the next step; not if the tenure is over."""
        self.note(camera, outcome, offset)
        await self._room.wait()

    def note(self, camera: str, outcome: Outcome, offset: int | None = None) -> None:
        """Do as ``finish`` does, but wait for no room; this is for what is small and rare."""
        if self.is_over:
            return
        self._steps.add(camera, outcome, offset)
        if self._steps.is_empty:
            return
        if self._since_s is None:
            self._since_s = asyncio.get_running_loop().time()
        self._changed.set()
        steps, limits = self._steps, self._limits
        if steps.n_deliveries >= limits.most_waiting or steps.n_bytes >= limits.most_bytes:
            self._room.clear()

    async def open(self) -> None:
        """Keep a first step, so that no step of an earlier owner can follow."""
        self._steps.touch()
        await self.flush()

    async def flush(self) -> None:
        """Keep everything that waits now.

        Raises:
            StaleOwnerError, TransportError: As of ``Journal.commit``.
        """
        async with self._committing:
            await self._commit()

    async def hold(self) -> None:
        """Keep everything that waits, and then no more until ``resume``."""
        async with self._committing:
            self.is_held = True
            await self._commit()

    def resume(self) -> None:
        """Go on after ``hold``: the partition has stayed ours."""
        self.is_held = False
        self._changed.set()

    def end(self) -> None:
        """Keep nothing more, whatever workers still have in hand."""
        self.is_over = True
        self._room.set()
        self._changed.set()

    async def serve(self) -> None:
        """Keep steps as they become due, until the tenure is over.

        Raises:
            StaleOwnerError, TransportError: As of ``Journal.commit``.
        """
        while True:
            await self._until_due()
            if self.is_over:
                return
            async with self._committing:
                if not self.is_held and not self.is_over:
                    await self._commit()

    async def _commit(self) -> None:
        if self._steps.is_empty or self.is_over:
            return
        n_deliveries = self._steps.n_deliveries
        step = self._steps.build(self._served_by())
        loop, self._since_s = asyncio.get_running_loop(), None
        began_s = loop.time()
        try:
            await self._journal.commit(self.partition, step)
        except StaleOwnerError:
            self.end()
            raise
        ended_s = loop.time()
        spacing_s = min(2 * (ended_s - began_s), self._limits.most_spacing_s)
        self._not_before_s = ended_s + spacing_s
        self._room.set()
        self._on_kept(step, n_deliveries)

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_over:
            self._changed.clear()
            wait_s = None if self.is_held else self._wait_s(loop.time())
            if wait_s is not None and wait_s <= 0:
                return
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _wait_s(self, now_s: float) -> float | None:
        """Seconds until the next step is due; None: nothing waits."""
        steps, limits = self._steps, self._limits
        if steps.is_empty:
            return None
        due_s = (self._since_s or now_s) + limits.interval_s
        is_large = steps.n_bytes >= limits.most_bytes
        if steps.has_revisions or is_large or steps.n_deliveries >= limits.most_deliveries:
            due_s = now_s
        return max(due_s, self._not_before_s) - now_s
