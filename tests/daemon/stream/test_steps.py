"""Outcomes in, steps out: nothing is lost, nothing comes twice, and offsets stay honest."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from daemon.journal.base import CameraState, DeadLetter, FeatureRows, Step
from daemon.stream.ledger import Ledger
from daemon.stream.steps import Outcome, StepBuilder
from tests.support.records import an_event

CAMERAS = ("door", "yard")
FIRST, NEXT, NUMBER = 5, 9, 41  # where the builder goes on


def a_builder() -> StepBuilder:
    return StepBuilder(Ledger(NEXT, FIRST), NUMBER, "log")


def rows(camera: str, index: int) -> FeatureRows:
    return FeatureRows(camera, "run", 0, index, np.zeros((1, 2), np.float16))


def a_letter(offset: int) -> DeadLetter:
    return DeadLetter("door", "p", offset, "error", "reason", b"bytes")


def test_a_step_holds_all_that_follows_from_a_delivery() -> None:
    steps, state = a_builder(), CameraState(b"blob", 7, "run", 3)
    steps.ledger.begin(9)
    features, letter = rows("door", 0), a_letter(9)

    steps.add("door", Outcome((an_event(),), (features,), state, (letter,)), 9)

    assert (True, False, 1) == (steps.has_revisions, steps.is_empty, steps.n_deliveries)
    wanted = Step(
        number=NUMBER + 1,
        next_offset=10,
        log_id="log",
        revisions=(an_event(),),
        features=(features,),
        states={"door": state},
        dead=(letter,),
    )
    assert wanted == steps.build()
    assert (False, True, 0) == (steps.has_revisions, steps.is_empty, steps.n_deliveries)


def test_a_step_is_not_changed_by_what_comes_after_it() -> None:
    steps = a_builder()
    steps.add("door", Outcome(state=CameraState(b"old")))
    step = steps.build()

    steps.add("door", Outcome(state=CameraState(b"new")))

    assert {"door": CameraState(b"old")} == step.states


def test_a_delivery_from_which_nothing_follows_is_a_step_all_the_same() -> None:
    steps = a_builder()
    steps.ledger.begin(9)
    steps.add("door", Outcome(), 9)

    assert not steps.is_empty
    assert Step(NUMBER + 1, 10, "log") == steps.build()


def test_nothing_that_follows_from_nothing_is_no_step() -> None:
    steps = a_builder()
    steps.add("door", Outcome())
    assert steps.is_empty

    steps.touch()

    assert not steps.is_empty
    assert Step(NUMBER + 1, NEXT, "log") == steps.build()
    assert steps.is_empty


def test_what_follows_from_no_delivery_leaves_the_offset() -> None:
    steps = a_builder()
    steps.ledger.begin(9)
    steps.add("door", Outcome((an_event(),)))

    assert (NEXT, 0) == (steps.build().next_offset, steps.n_deliveries)


def test_a_camera_that_is_forgotten_and_returns_is_known_again() -> None:
    steps = a_builder()
    steps.add("door", Outcome(state=CameraState(b"old")))
    steps.add("door", Outcome(is_forgotten=True))
    assert {"door": None} == steps.build().states

    steps.add("door", Outcome(is_forgotten=True))
    steps.add("door", Outcome(state=CameraState(b"new")))

    assert {"door": CameraState(b"new")} == steps.build().states


@given(
    st.builds(
        Outcome,
        revisions=st.sampled_from([(), (an_event(),)]),
        features=st.sampled_from([(), (rows("door", 0),)]),
        state=st.sampled_from([None, CameraState(b"")]),
        dead=st.sampled_from([(), (a_letter(1),)]),
        is_forgotten=st.booleans(),
    )
)
def test_an_outcome_is_empty_if_it_is_like_the_empty_one(outcome: Outcome) -> None:
    assert (outcome == Outcome()) == outcome.is_empty


@dataclass
class Sent:
    """What went in, in order."""

    revisions: list[Any] = field(default_factory=list)
    features: list[Any] = field(default_factory=list)
    dead: list[Any] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)


class StepsMachine(RuleBasedStateMachine):
    """Outcomes of deliveries that finish in any order, and steps at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = a_builder()
        self.unfinished: list[int] = []
        self.sent = Sent()
        self.made: list[Step] = []
        self.n = 0

    @rule(gap=st.integers(0, 2))
    def hand_out(self, gap: int) -> None:
        offset = self.steps.ledger.next_to_read + gap
        self.steps.ledger.begin(offset)
        self.unfinished.append(offset)

    def outcome(self, camera: str, n_events: int, *, has_state: bool) -> Outcome:
        self.n += 1
        events = tuple(an_event(f"{self.n}", revision) for revision in range(n_events))
        features = (rows(camera, self.n),) if n_events else ()
        dead = (a_letter(self.n),) if n_events == 2 else ()
        state = CameraState(str(self.n).encode()) if has_state else None
        self.sent.revisions += events
        self.sent.features += features
        self.sent.dead += dead
        if state is not None:
            self.sent.states[camera] = state
        return Outcome(events, features, state, dead)

    @precondition(lambda self: self.unfinished)
    @rule(
        choice=st.randoms(use_true_random=False),
        camera=st.sampled_from(CAMERAS),
        n_events=st.integers(0, 2),
        has_state=st.booleans(),
    )
    def finish(self, choice: Any, camera: str, n_events: int, *, has_state: bool) -> None:
        offset = choice.choice(self.unfinished)
        self.unfinished.remove(offset)
        self.steps.add(camera, self.outcome(camera, n_events, has_state=has_state), offset)
        assert not self.steps.is_empty

    @rule(camera=st.sampled_from(CAMERAS), n_events=st.integers(0, 2))
    def say(self, camera: str, n_events: int) -> None:
        """What follows from a camera's silence, say."""
        self.steps.add(camera, self.outcome(camera, n_events, has_state=True))

    @rule(camera=st.sampled_from(CAMERAS))
    def forget(self, camera: str) -> None:
        self.sent.states[camera] = None
        self.steps.add(camera, Outcome(is_forgotten=True))

    @rule()
    def build(self) -> None:
        before = self.made[-1] if self.made else Step(NUMBER, NEXT)
        step = self.steps.build()
        self.made.append(step)
        assert before.number + 1 == step.number
        assert before.next_offset <= step.next_offset
        assert all(step.next_offset <= offset or offset < NEXT for offset in self.unfinished)

    def teardown(self) -> None:
        self.build()
        kept: dict[str, Any] = {}
        for step in self.made:
            kept.update(step.states)
        assert self.sent.revisions == [one for step in self.made for one in step.revisions]
        assert self.sent.features == [one for step in self.made for one in step.features]
        assert self.sent.dead == [one for step in self.made for one in step.dead]
        assert self.sent.states == kept
        if not self.unfinished:
            assert max(NEXT, self.steps.ledger.next_to_read) == self.made[-1].next_offset


TestStepsMachine = StepsMachine.TestCase
