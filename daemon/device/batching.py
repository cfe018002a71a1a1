"""Decides which waiting snippets and windows go into the device's next call, and when. Pure.

Time comes in as numbers. A lane is one kind of work, snippets or windows. The rules:

1. A call holds items of one group only, at most ``max_size``. A request may be spread over calls.
2. The cameras of a lane take turns. In each round every waiting camera gives up to ``turn_size``
   items, and the cameras come in the order of their deadlines. A camera that joins takes part in
   the round that is being served.
3. A call is made as soon as a group is full or one of its requests has waited ``max_wait_s``.
4. If both lanes wait, windows go first, since they are cheap and are the last thing that a chunk
   needs the device for; but they do not go twice in a row.

So no camera waits for ever. Consider an item that is due and that ``p`` items of its own camera
precede. It waits for at most ``turn_size * (2 + p // turn_size)`` items of each other camera in
its lane. Every call takes at least the first of these items and, if the lane has one group only,
``max_size`` of them. Between two calls of a lane there is at most one of the other lane.
"""

from dataclasses import dataclass

from daemon.device.fair_queue import FairQueue
from daemon.device.requests import Batch, BatchPolicy, Lane, Request


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Tells that no call is due before ``at_s``, unless a request is added."""

    at_s: float


class Batcher:
    """Holds the requests that wait for the device, and makes calls of them.

    Args:
        policy: The limits by which items share calls.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._lanes = {lane: FairQueue(lane, policy) for lane in (Lane.WINDOWS, Lane.SNIPPETS)}
        self._last: Lane | None = None

    def add(self, request: Request) -> None:
        """Let a request wait."""
        self._lanes[request.lane].add(request)

    def cancel(self, request: Request) -> None:
        """Forget what is left of a request, if anything is."""
        self._lanes[request.lane].cancel(request)

    @property
    def n_waiting(self) -> int:
        """How many items wait."""
        return sum(lane.n_waiting for lane in self._lanes.values())

    def next(self, now_s: float) -> Batch | WaitUntil | None:
        """The call to make now that the device is free.

        Args:
            now_s: The time, in seconds on the clock of ``arrived_s``.

        Returns:
            The call, whose items then wait no more; or when to ask again; None if nothing waits.
        """
        due_s = {lane: queue.due_s() for lane, queue in self._lanes.items()}
        ready = {
            lane: {group for group, at_s in groups.items() if at_s <= now_s}
            for lane, groups in due_s.items()
        }
        lanes = [lane for lane, groups in ready.items() if groups]
        if not lanes:
            at_s = [at_s for groups in due_s.values() for at_s in groups.values()]
            return WaitUntil(min(at_s)) if at_s else None
        self._last = next((lane for lane in lanes if lane is not self._last), lanes[0])
        return self._lanes[self._last].take(ready[self._last])
