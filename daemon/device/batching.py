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

import heapq
from collections import Counter, deque
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile

# A chunk of a live camera has two or three snippets, and a turn takes them all. With shorter turns
# all cameras would finish their chunks late, at about the same time.
TURN_SIZE = 4


class Lane(Enum):
    """The two kinds of work; a camera's items stay in order within each."""

    SNIPPETS = "backbone"
    WINDOWS = "localizer"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The limits by which items share calls.

    Attributes:
        max_size: Most items in one call, >= 1.
        max_wait_s: Seconds that an item may wait for others while the device is free, >= 0.
        turn_size: Most items of one camera before it is another camera's turn, >= 1.
    """

    max_size: int
    max_wait_s: float = 0.0
    turn_size: int = TURN_SIZE

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.turn_size < 1:
            raise ValueError(
                f"max_size is {self.max_size} and turn_size {self.turn_size}, wanted 1 or more"
            )
        if not 0 <= self.max_wait_s < float("inf"):
            raise ValueError(f"max_wait_s is {self.max_wait_s}, wanted 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Items of one camera that want to go through one network.

    Attributes:
        lane: The kind of work.
        camera: The camera that the items are of.
        group: What must be equal for items to share a call: the network, and the items' shapes.
        n_items: How many items, >= 1.
        arrived_s: When the request was made, in seconds on the device's clock.
        deadline_s: When the camera will have its next snippet, on the same clock. It decides only
            which camera is first in a round.
    """

    lane: Lane
    camera: str
    group: Hashable
    n_items: int
    arrived_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a request: ``n_items`` of its items, beginning with number ``first``."""

    request: Request
    first: int
    n_items: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One call: pieces of requests of one group, one for each request, in the order of rows."""

    lane: Lane
    pieces: tuple[Piece, ...]

    @property
    def n_items(self) -> int:
        """How many items, and so rows, the call has."""
        return sum(piece.n_items for piece in self.pieces)


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
        self._lanes = {lane: _FairQueue(lane, policy) for lane in (Lane.WINDOWS, Lane.SNIPPETS)}
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


@dataclass(slots=True)
class _Waiting:
    """What is left of a request; ``number`` counts requests in the order in which they came."""

    request: Request
    number: int
    n_taken: int = 0

    @property
    def n_left(self) -> int:
        return self.request.n_items - self.n_taken


@dataclass(slots=True)
class _Camera:
    """A camera's requests and its place: round * turn_size + items that it gave in that round."""

    place: int = 0
    requests: deque[_Waiting] = field(default_factory=deque)


# Round, deadline, number (no two are equal) and camera; the lowest goes first.
_Rank = tuple[int, float, int, _Camera]


class _FairQueue:
    """The requests of one lane.

    ``_round`` never falls while something waits, and no waiting camera's next item is more than
    one round ahead of it. So a camera loses nothing by what it was given while no other waited.
    """

    def __init__(self, lane: Lane, policy: BatchPolicy) -> None:
        self._lane = lane
        self._policy = policy
        self._cameras: dict[str, _Camera] = {}
        self._round = 0
        self._n_added = 0

    @property
    def n_waiting(self) -> int:
        return sum(waiting.n_left for c in self._cameras.values() for waiting in c.requests)

    def add(self, request: Request) -> None:
        camera = self._cameras.setdefault(request.camera, _Camera())
        camera.requests.append(_Waiting(request, self._n_added))
        self._n_added += 1

    def cancel(self, request: Request) -> None:
        camera = self._cameras.get(request.camera)
        if camera is not None and camera.requests:
            kept = [waiting for waiting in camera.requests if waiting.request is not request]
            camera.requests = deque(kept)

    def due_s(self) -> dict[Hashable, float]:
        """When the call of each group may be made, for the groups of the cameras' next items."""
        due_s: dict[Hashable, float] = {}
        n_items: Counter[Hashable] = Counter()
        for camera in self._waiting():
            request = camera.requests[0].request
            arrived_s = due_s.get(request.group, request.arrived_s)
            due_s[request.group] = min(arrived_s, request.arrived_s)
            if self._policy.max_wait_s:
                n_items[request.group] += _n_next(camera)
        return {
            group: arrived_s
            if n_items[group] >= self._policy.max_size
            else arrived_s + self._policy.max_wait_s
            for group, arrived_s in due_s.items()
        }

    def take(self, groups: Collection[Hashable]) -> Batch:
        """The next call, of the group of the first camera whose next item is of ``groups``.

        At least one camera's next item must be of one of ``groups``.
        """
        ranks = [self._rank(camera) for camera in self._waiting()]
        lead_round, *_, lead = min(rank for rank in ranks if _group(rank[-1]) in groups)
        group = _group(lead)
        taken = self._fill(group, [rank for rank in ranks if _group(rank[-1]) == group])
        left = min((camera.place for camera in self._waiting()), default=0)
        self._round = max(lead_round, left // self._policy.turn_size)
        self._forget_the_past()
        return Batch(self._lane, tuple(Piece(w.request, w.n_taken - n, n) for w, n in taken))

    def _fill(self, group: Hashable, heap: list[_Rank]) -> list[tuple[_Waiting, int]]:
        """Take items of a group, in order, until none is left or the call is full."""
        taken: dict[int, tuple[_Waiting, int]] = {}  # by number
        heapq.heapify(heap)
        for _ in range(self._policy.max_size):
            if not heap:
                break
            camera = heapq.heappop(heap)[-1]
            waiting = camera.requests[0]
            waiting.n_taken += 1
            camera.place = max(camera.place, self._round * self._policy.turn_size) + 1
            taken[waiting.number] = (waiting, taken.get(waiting.number, (waiting, 0))[1] + 1)
            if not waiting.n_left:
                camera.requests.popleft()
            if camera.requests and _group(camera) == group:
                heapq.heappush(heap, self._rank(camera))
        return list(taken.values())

    def _rank(self, camera: _Camera) -> _Rank:
        waiting = camera.requests[0]
        its_round = max(self._round, camera.place // self._policy.turn_size)
        return its_round, waiting.request.deadline_s, waiting.number, camera

    def _forget_the_past(self) -> None:
        turn = self._policy.turn_size
        for name, camera in list(self._cameras.items()):
            camera.place = min(camera.place, (self._round + 1) * turn)
            if not camera.requests and camera.place <= self._round * turn:
                del self._cameras[name]

    def _waiting(self) -> list[_Camera]:
        return [camera for camera in self._cameras.values() if camera.requests]


def _group(camera: _Camera) -> Hashable:
    """The group of a waiting camera's next item."""
    return camera.requests[0].request.group


def _n_next(camera: _Camera) -> int:
    """How many of the camera's items may share the call of its next item."""
    group = _group(camera)
    run = takewhile(lambda waiting: waiting.request.group == group, camera.requests)
    return sum(waiting.n_left for waiting in run)
