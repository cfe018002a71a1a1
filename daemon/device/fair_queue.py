"""The cameras of one lane take turns; what a call takes costs the same however many wait. Pure."""

import heapq
import math
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from daemon.device.requests import Batch, BatchPolicy, Lane, Piece, Request


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

    name: str
    place: int = 0
    requests: deque[_Waiting] = field(default_factory=deque)

    @property
    def group(self) -> Hashable:
        """The group of its next item."""
        return self.requests[0].request.group


# Deadline and number (no two are equal) of a camera's next request; the lowest goes first.
_Turn = tuple[float, int, _Camera]


@dataclass(slots=True)
class _Group:
    """The cameras whose next item is of a group: a heap of the turns in each round.

    Turns of requests that were cancelled stay until they come up.
    """

    this_round: list[_Turn] = field(default_factory=list)
    next_round: list[_Turn] = field(default_factory=list)

    def tidy(self) -> "_Group | None":
        """The group, with true turns in front; None if nothing is left."""
        for heap in (self.this_round, self.next_round):
            while heap and not _is_true(heap[0]):
                heapq.heappop(heap)
        return self if self.this_round or self.next_round else None


class FairQueue:
    """The requests of one lane.

    ``_round`` never falls while something waits, and no waiting camera's next item is more than
    one round ahead of it. So a camera loses nothing by what it was given while no other waited.

    Args:
        lane: The lane.
        policy: The limits by which items share calls.

    Attributes:
        n_waiting: How many items wait.
    """

    def __init__(self, lane: Lane, policy: BatchPolicy) -> None:
        self.n_waiting = 0
        self._lane = lane
        self._policy = policy
        self._cameras: dict[str, _Camera] = {}
        self._groups: dict[Hashable, _Group] = {}
        self._idle: list[_Camera] = []  # remembered until the round is over in which they gave
        self._round = 0
        self._n_added = 0

    def add(self, request: Request) -> None:
        """Let a request wait."""
        camera = self._cameras.setdefault(request.camera, _Camera(request.camera))
        camera.requests.append(_Waiting(request, self._n_added))
        self._n_added += 1
        self.n_waiting += request.n_items
        if len(camera.requests) == 1:
            self._line_up(camera)

    def cancel(self, request: Request) -> None:
        """Forget what is left of a request, if anything is."""
        camera = self._cameras.get(request.camera)
        if camera is None or not camera.requests:
            return
        was_next = camera.requests[0].request is request
        kept = deque(waiting for waiting in camera.requests if waiting.request is not request)
        self.n_waiting -= sum(w.n_left for w in camera.requests) - sum(w.n_left for w in kept)
        camera.requests = kept
        if not kept:
            self._rest(camera)
        elif was_next:
            self._line_up(camera)

    def due_s(self) -> dict[Hashable, float]:
        """When the call of each group may be made, for the groups of the cameras' next items."""
        if not self._policy.max_wait_s:
            return dict.fromkeys(self._true_groups(), -math.inf)
        due_s: dict[Hashable, float] = {}
        n_items: Counter[Hashable] = Counter()
        for camera in self._cameras.values():
            if camera.requests:
                arrived_s = camera.requests[0].request.arrived_s
                due_s[camera.group] = min(due_s.get(camera.group, arrived_s), arrived_s)
                n_items[camera.group] += _n_next(camera)
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
        known = self._true_groups()
        firsts = [(*self._first(known[group]), group) for group in groups]
        lead_round, *_, lead_group = min(firsts, key=lambda first: first[:3])
        taken, seen = self._fill(lead_group)
        self._go_on(lead_round, seen)
        self.n_waiting -= sum(n for _, n in taken)
        return Batch(self._lane, tuple(Piece(w.request, w.n_taken - n, n) for w, n in taken))

    def _first(self, group: _Group) -> tuple[int, float, int]:
        """Round, deadline and number of a group's first turn."""
        if group.this_round:
            return self._round, *group.this_round[0][:2]
        return self._round + 1, *group.next_round[0][:2]

    def _fill(self, name: Hashable) -> tuple[list[tuple[_Waiting, int]], list[_Camera]]:
        """Take items of a group, in order, until none is left or the call is full.

        Returns:
            Requests with how much of them was taken, and the cameras that gave it: they stand in
            no line any more.
        """
        group = self._groups[name]
        again: list[tuple[int, float, int, _Camera]] = []  # those that gave: by round and turn
        taken: dict[int, tuple[_Waiting, int]] = {}  # by number
        seen: dict[str, _Camera] = {}
        for _ in range(self._policy.max_size):
            camera = self._next(group, again)
            if camera is None:
                break
            waiting = camera.requests[0]
            waiting.n_taken += 1
            camera.place = max(camera.place, self._round * self._policy.turn_size) + 1
            seen[camera.name] = camera
            taken[waiting.number] = (waiting, taken.get(waiting.number, (waiting, 0))[1] + 1)
            if not waiting.n_left:
                camera.requests.popleft()
            if camera.requests and camera.group == name:
                heapq.heappush(again, (self._round_of(camera), *_turn_of(camera)))
        return list(taken.values()), list(seen.values())

    def _next(self, group: _Group, again: list[tuple[int, float, int, _Camera]]) -> _Camera | None:
        """The camera of a group whose turn it is, out of line; None if none waits."""
        if group.tidy() is not None and (not again or self._first(group) < again[0][:3]):
            return heapq.heappop(group.this_round or group.next_round)[-1]
        return heapq.heappop(again)[-1] if again else None

    def _go_on(self, lead_round: int, seen: list[_Camera]) -> None:
        """After a call: which round it is now, and where those stand that gave something."""
        turn, before = self._policy.turn_size, self._round
        waiting = [camera for camera in seen if camera.requests]
        left = [camera.place // turn for camera in waiting]
        groups = self._true_groups().values()
        if any(group.this_round for group in groups):
            left.append(before)
        elif groups:
            left.append(before + 1)
        self._round = max(lead_round, min(left, default=0))
        if self._round > before:
            self._begin_round()
        for camera in seen:
            camera.place = min(camera.place, (self._round + 1) * turn)
            if camera.requests:
                self._line_up(camera)
            else:
                self._rest(camera)

    def _begin_round(self) -> None:
        for group in self._groups.values():
            for turn in group.next_round:
                heapq.heappush(group.this_round, turn)
            group.next_round = []
        idle, self._idle = self._idle, []
        for camera in idle:
            if not camera.requests:
                self._rest(camera)

    def _line_up(self, camera: _Camera) -> None:
        """Give a camera that waits its turn."""
        group = self._groups.setdefault(camera.group, _Group())
        is_now = self._round_of(camera) == self._round
        heapq.heappush(group.this_round if is_now else group.next_round, _turn_of(camera))

    def _rest(self, camera: _Camera) -> None:
        """Forget a camera that waits for nothing, once what it gave says nothing any more."""
        if camera.place <= self._round * self._policy.turn_size:
            self._cameras.pop(camera.name, None)
        else:
            self._idle.append(camera)

    def _round_of(self, camera: _Camera) -> int:
        return max(self._round, camera.place // self._policy.turn_size)

    def _true_groups(self) -> dict[Hashable, _Group]:
        """The groups for which something waits, with true turns in front."""
        self._groups = {name: group for name, group in self._groups.items() if group.tidy()}
        return self._groups


def _turn_of(camera: _Camera) -> _Turn:
    waiting = camera.requests[0]
    return waiting.request.deadline_s, waiting.number, camera


def _is_true(turn: _Turn) -> bool:
    """Is it still the turn of that camera's next request?"""
    _, number, camera = turn
    return bool(camera.requests) and camera.requests[0].number == number


def _n_next(camera: _Camera) -> int:
    """How many of the camera's items may share the call of its next item."""
    group = camera.group
    run: Iterator[_Waiting] = takewhile(lambda w: w.request.group == group, camera.requests)
    return sum(waiting.n_left for waiting in run)
