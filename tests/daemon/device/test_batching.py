"""The batching policy's laws, each held against a plain record of who waits."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon.device.batching import Batcher, WaitUntil
from daemon.device.requests import Batch, BatchPolicy, Lane, Request

CAMERAS = ("a", "b", "c", "d", "e")


def a_request(
    camera: str = "a",
    n_items: int = 1,
    *,
    lane: Lane = Lane.SNIPPETS,
    group: str = "model",
    arrived_s: float = 0.0,
    deadline_s: float = 0.0,
) -> Request:
    return Request(lane, camera, group, n_items, arrived_s, deadline_s)


def taken(batch: Batch | WaitUntil | None) -> list[tuple[str, int]]:
    """(camera, items) of each piece."""
    assert isinstance(batch, Batch)
    return [(piece.request.camera, piece.n_items) for piece in batch.pieces]


def filled(policy: BatchPolicy, *requests: Request) -> Batcher:
    batcher = Batcher(policy)
    for request in requests:
        batcher.add(request)
    return batcher


def test_nothing_waits_and_nothing_is_called():
    assert Batcher(BatchPolicy(4)).next(0) is None


def test_cameras_share_a_call_in_the_order_of_their_deadlines():
    batcher = filled(
        BatchPolicy(4),
        a_request("late", 2, deadline_s=3),
        a_request("early", 1, deadline_s=1),
        a_request("between", 1, deadline_s=2),
    )

    assert [("early", 1), ("between", 1), ("late", 2)] == taken(batcher.next(0))
    assert batcher.next(0) is None


def test_a_long_chunk_is_spread_over_calls_and_lets_others_in():
    batcher = filled(BatchPolicy(4, turn_size=2), a_request("long", 100))
    assert [("long", 4)] == taken(batcher.next(0))

    batcher.add(a_request("short", 1, deadline_s=9))

    assert [("long", 3), ("short", 1)] == taken(batcher.next(0))


def test_what_a_camera_got_while_it_was_alone_is_not_held_against_it():
    batcher = filled(BatchPolicy(4, turn_size=1), a_request("lonely", 100))
    for _ in range(20):
        batcher.next(0)
    batcher.add(a_request("rival", 100, deadline_s=9))

    calls = [Counter(dict(taken(batcher.next(0)))) for _ in range(4)]

    assert all({"lonely": 2, "rival": 2} == call for call in calls)


def test_what_rode_along_in_the_call_of_another_is_not_held_against_it():
    alternating = [a_request("other", group=f"{i % 2}", deadline_s=1) for i in range(12)]
    batcher = filled(
        BatchPolicy(6, turn_size=1), a_request("lead", deadline_s=-1), a_request("rides", 6)
    )
    for request in alternating:
        batcher.add(request)
    assert [("lead", 1), ("rides", 5)] == taken(batcher.next(0))

    assert [("other", 1)] == taken(batcher.next(0))
    assert [("rides", 1)] == taken(batcher.next(0))


def test_who_waits_for_company_does_not_hold_the_turns_of_others_back():
    batcher = filled(BatchPolicy(2, max_wait_s=9, turn_size=1), a_request("z", group="z"))
    batcher.add(a_request("patient", 4, group="y", deadline_s=100))
    batcher.next(0)
    served = []
    for i in range(10):
        batcher.add(a_request("pushy", 2, group="x", deadline_s=-i))
        served += taken(batcher.next(0))

    assert ("patient", 2) in served[:3]


@pytest.mark.parametrize("n_served_before", [0, 40])
def test_a_newcomer_gets_its_turn_and_no_more(n_served_before):
    batcher = filled(BatchPolicy(1, turn_size=1), a_request("old", 1000, deadline_s=5))
    for _ in range(n_served_before):
        batcher.next(0)
    batcher.add(a_request("new", 1000, deadline_s=-5))

    served = [taken(batcher.next(0))[0][0] for _ in range(12)]

    assert 6 == served.count("new")
    assert {"new", "old"} == set(served[2:4])


def test_an_ever_earlier_deadline_starves_nobody():
    batcher = filled(BatchPolicy(1, turn_size=1), a_request("patient", deadline_s=100))
    served = []
    for i in range(10):
        batcher.add(a_request("pushy", deadline_s=-i))
        served += taken(batcher.next(0))

    assert ("patient", 1) in served[:2]


def test_networks_are_never_mixed():
    batcher = filled(
        BatchPolicy(8),
        a_request("a", 2, group="old"),
        a_request("b", 2, group="new"),
        a_request("c", 2, group="old"),
    )

    assert [("a", 2), ("c", 2)] == taken(batcher.next(0))
    assert [("b", 2)] == taken(batcher.next(0))


def test_windows_go_first_but_never_twice_in_a_row():
    batcher = filled(BatchPolicy(1), a_request("a", 2), a_request("b", 3, lane=Lane.WINDOWS))

    lanes = []
    while isinstance(batch := batcher.next(0), Batch):
        lanes.append(batch.lane)

    windows, snippets = Lane.WINDOWS, Lane.SNIPPETS
    assert [windows, snippets, windows, snippets, windows] == lanes


def test_a_call_waits_for_company_until_it_is_full_or_its_time_is_over():
    batcher = filled(BatchPolicy(3, max_wait_s=0.5), a_request("a", arrived_s=10))

    assert WaitUntil(10.5) == batcher.next(10.25)
    batcher.add(a_request("b", arrived_s=10.25))
    assert WaitUntil(10.5) == batcher.next(10.25)
    batcher.add(a_request("c", arrived_s=10.25))
    assert 3 == len(taken(batcher.next(10.25)))
    batcher.add(a_request("d", arrived_s=10.25))
    assert WaitUntil(10.75) == batcher.next(10.5)
    assert [("d", 1)] == taken(batcher.next(10.75))


def test_a_cancelled_request_is_gone_even_when_it_was_half_taken():
    long = a_request("long", 9)
    batcher = filled(BatchPolicy(4), long, a_request("next", 1, deadline_s=1))
    batcher.next(0)

    batcher.cancel(long)
    batcher.cancel(long)

    assert [("next", 1)] == taken(batcher.next(0))
    assert batcher.next(0) is None
    assert 0 == batcher.n_waiting


def test_cameras_that_are_gone_are_forgotten():
    batcher = Batcher(BatchPolicy(2))
    for i in range(1000):
        batcher.add(a_request(f"camera {i}", 1))
        batcher.add(a_request("stays", 2))
        batcher.next(0)

    # A leak has no other witness.
    assert sum(len(lane._cameras) for lane in batcher._lanes.values()) <= 3


@pytest.mark.parametrize(
    ("max_size", "max_wait_s", "turn_size"),
    [(0, 0, 1), (1, 0, 0), (1, -1, 1), (1, math.inf, 1), (1, math.nan, 1)],
)
def test_a_policy_that_makes_no_calls_is_refused(max_size, max_wait_s, turn_size):
    with pytest.raises(ValueError, match="wanted"):
        BatchPolicy(max_size, max_wait_s, turn_size)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), min_size=1, max_size=8),
    st.integers(1, 9),
)
def test_whole_turns_come_in_deadline_order(wanted, max_size):
    batcher = Batcher(BatchPolicy(max_size, turn_size=3))
    for i, (n_items, deadline_s) in enumerate(wanted):
        batcher.add(a_request(f"{i}", n_items, deadline_s=deadline_s))

    order: list[str] = []
    while isinstance(batch := batcher.next(0), Batch):
        order += [piece.request.camera for piece in batch.pieces for _ in range(piece.n_items)]

    by_deadline = sorted(range(len(wanted)), key=lambda i: wanted[i][1])
    assert [f"{i}" for i in by_deadline for _ in range(wanted[i][0])] == order


@given(st.integers(0, 60), st.integers(1, 6), st.integers(1, 8), st.integers(1, 5))
def test_waiting_cameras_delay_a_newcomer_by_two_turns_each_at_most(
    n_waiting, n_cameras, max_size, turn_size
):
    batcher = Batcher(BatchPolicy(max_size, turn_size=turn_size))
    for i in range(n_cameras):
        batcher.add(a_request(f"{i}", n_waiting + 1, deadline_s=-1))
    for _ in range(n_waiting * n_cameras // (2 * max_size)):
        batcher.next(0)
    batcher.add(a_request("newcomer", 1, deadline_s=1))

    n_calls = 1
    while ("newcomer", 1) not in taken(batcher.next(0)):
        n_calls += 1

    assert n_calls <= math.ceil((2 * turn_size * n_cameras + 1) / max_size)


@dataclass
class _Due:
    """An item that is due, with what was served when it became so."""

    n_before: int
    served: Counter[str]
    leads: Counter[str]


@dataclass
class _Waits:
    """The record of one request."""

    request: Request
    n_done: int = 0
    due: dict[int, _Due] = field(default_factory=dict)  # by place

    @property
    def n_left(self) -> int:
        return self.request.n_items - self.n_done


class BatcherMachine(RuleBasedStateMachine):
    """Any mixture of asking, cancelling, waiting and calling, held to every law at each call."""

    @initialize(
        max_size=st.integers(1, 6),
        max_wait_s=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
        turn_size=st.integers(1, 4),
        n_groups=st.integers(1, 3),
    )
    def begin(self, max_size, max_wait_s, turn_size, n_groups):
        self.policy = BatchPolicy(max_size, max_wait_s, turn_size)
        self.batcher = Batcher(self.policy)
        self.n_groups = n_groups
        self.now_s = 0.0
        self.waiting: dict[tuple[Lane, str], list[_Waits]] = defaultdict(list)
        self.served = {lane: Counter() for lane in Lane}
        self.leads = {lane: Counter() for lane in Lane}
        self.last: Batch | None = None

    @rule(
        camera=st.sampled_from(CAMERAS),
        lane=st.sampled_from(Lane),
        group=st.integers(0, 2),
        n_items=st.integers(1, 12),
        deadline_s=st.integers(-20, 20),
    )
    def ask(self, camera, lane, group, n_items, deadline_s):
        group = f"{lane}{group % self.n_groups}"
        request = Request(lane, camera, group, n_items, self.now_s, deadline_s)
        self.batcher.add(request)
        self.waiting[lane, camera].append(_Waits(request))

    @precondition(lambda self: self._all())
    @rule(data=st.data())
    def give_up(self, data):
        gone = data.draw(st.sampled_from(self._all()))
        self.batcher.cancel(gone.request)
        queue = self.waiting[gone.request.lane, gone.request.camera]
        at = queue.index(gone)
        queue.remove(gone)
        for later in queue[at:]:
            later.due.clear()  # their places have changed, for the better: watch them anew

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0]))
    def let_time_pass(self, seconds):
        self.now_s += seconds

    @rule()
    def call(self):
        due_lanes = self._note_what_is_due()
        callable_groups = self._groups_that_may_be_called()
        todo = self.batcher.next(self.now_s)
        if isinstance(todo, Batch):
            assert todo.pieces[0].request.group in callable_groups
            self._check_batch(todo, due_lanes)
            self.last = todo
            return
        assert not due_lanes, "something is due and the device is free"
        ends = [w.request.arrived_s + self.policy.max_wait_s for w in self._all()]
        assert (WaitUntil(min(ends)) if ends else None) == todo
        assert not callable_groups

    @invariant()
    def nothing_is_lost_or_made_up(self):
        assert sum(waits.n_left for waits in self._all()) == self.batcher.n_waiting

    def _all(self) -> list[_Waits]:
        return [waits for queue in self.waiting.values() for waits in queue]

    def _next_by_group(self) -> Counter[str]:
        """Items that could share a call now, by group."""
        counts: Counter[str] = Counter()
        for queue in self.waiting.values():
            for waits in queue:
                if waits.request.group != queue[0].request.group:
                    break
                counts[waits.request.group] += waits.n_left
        return counts

    def _groups_that_may_be_called(self) -> set[str]:
        """Those that are full, and those of which a camera's next request is due."""
        next_up = [queue[0].request for queue in self.waiting.values() if queue]
        latest_s = self.now_s - self.policy.max_wait_s
        due = {request.group for request in next_up if request.arrived_s <= latest_s}
        return due | {g for g, n in self._next_by_group().items() if n >= self.policy.max_size}

    def _note_what_is_due(self) -> set[Lane]:
        """Remember, of each item that now is due, what was served so far; the lanes of such."""
        lanes: set[Lane] = set()
        for (lane, _), queue in self.waiting.items():
            n_before = 0
            for waits in queue:
                if waits.request.arrived_s + self.policy.max_wait_s <= self.now_s:
                    lanes.add(lane)
                    for place in range(waits.n_done, waits.request.n_items):
                        now = _Due(
                            n_before + place - waits.n_done,
                            Counter(self.served[lane]),
                            Counter(self.leads[lane]),
                        )
                        waits.due.setdefault(place, now)
                n_before += waits.n_left
        return lanes

    def _check_batch(self, batch: Batch, due_lanes: set[Lane]) -> None:
        assert 1 <= batch.n_items <= self.policy.max_size
        assert 1 == len({piece.request.group for piece in batch.pieces})
        assert len(batch.pieces) == len({id(piece.request) for piece in batch.pieces})
        lead = batch.pieces[0].request.camera
        for piece in batch.pieces:
            assert batch.lane is piece.request.lane
            camera = piece.request.camera
            queue = self.waiting[batch.lane, camera]
            waits = queue[0]
            assert piece.request is waits.request, "a camera's requests come in order"
            assert waits.n_done == piece.first, "every item comes out once and in order"
            for place in range(piece.first, piece.first + piece.n_items):
                if place in waits.due:
                    self._check_wait(batch.lane, camera, waits.due[place])
            waits.n_done += piece.n_items
            if not waits.n_left:
                queue.pop(0)
        # What goes in the same call is not before it.
        for piece in batch.pieces:
            self.served[batch.lane][piece.request.camera] += piece.n_items
        self.leads[batch.lane][lead] += 1
        self._check_room(batch)
        if self.last is not None and len(due_lanes) == len(Lane):
            assert self.last.lane is not batch.lane, "where both lanes wait, they take turns"

    def _check_wait(self, lane: Lane, camera: str, due: _Due) -> None:
        turn = self.policy.turn_size
        most = turn * (2 + due.n_before // turn)
        # Where networks differ, what rides in a call that another camera leads delays nobody.
        counted = (
            self.served[lane] - due.served if self.n_groups == 1 else self.leads[lane] - due.leads
        )
        others = {other: n for other, n in counted.items() if other != camera}
        assert all(n <= most for n in others.values()), f"{others} went before {camera}, {due}"

    def _check_room(self, batch: Batch) -> None:
        """A call that has room has taken everything of its group that could come along."""
        if batch.n_items == self.policy.max_size:
            return
        assert 0 == self._next_by_group()[batch.pieces[0].request.group]


BatcherMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestBatcher = BatcherMachine.TestCase
