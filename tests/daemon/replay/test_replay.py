"""The bundle that served gives the same events from the log; another one's are compared."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ConfigError
from daemon.replay.batches import Replay
from daemon.replay.camera import ReplayModel
from daemon.replay.period import LoggedRows, Period
from engine.judging.histories import histories
from engine.spec import ModelSpec
from engine.types import ActionEvent, Reason
from tests.support.logged_features import FEATURE_ID, LoggedLife
from tests.support.scripted import SmoothingLocalizer, a_camera_mean, a_spec

SPEC = a_spec(camera_mean=a_camera_mean())
STRIDE_US = SPEC.grid.stride_us


def a_life(spec: ModelSpec = SPEC, **fields: Any) -> LoggedLife:
    return LoggedLife(spec, SmoothingLocalizer(), **fields)


def colours(*reds: float) -> Any:
    return np.array([(red, 0, 0) for red in reds], np.float32)


def quiet(n: int) -> Any:
    return colours(*[0.0] * n)


def an_action(life: LoggedLife, n_before: int = 30) -> None:
    """Nothing, something, nothing; long enough to be final."""
    life.see(quiet(n_before))
    life.see(colours(*[0.9] * 8))
    life.see(quiet(20))


def replay(
    logged: list[LoggedRows],
    spec: ModelSpec = SPEC,
    period: Period | None = None,
    feature_id: str = FEATURE_ID,
    max_batch: int = 4,
) -> Replay:
    model = ReplayModel(spec, None, feature_id)
    done = Replay(model, SmoothingLocalizer(), period or Period(), max_batch)
    for one in logged:
        done.push(one)
    done.settle()
    return done


def events(done: Replay) -> list[ActionEvent]:
    return [one for run in done.runs for one in run.revisions]


SIGHTS = st.lists(st.sampled_from([0.0, 0.0, 0.3, 0.6, 0.95]), min_size=1, max_size=12)
HAPPENINGS = st.one_of(
    st.tuples(st.just("see"), SIGHTS, st.sampled_from([0, 0, 0, 0, 5])),
    st.tuples(st.just("close"), st.sampled_from([Reason.GAP, Reason.SILENT, Reason.MODEL])),
    st.tuples(st.just("end")),
    st.tuples(st.just("run")),
    st.tuples(st.just("anchor"), st.integers(-50_000, 50_000)),
)


@given(st.lists(HAPPENINGS, max_size=30), st.integers(1, 9), st.integers(1, 3))
def test_the_bundle_that_served_gives_the_very_same_events(happenings, max_batch, hop) -> None:
    spec = a_spec(camera_mean=a_camera_mean(), hop_snippets=hop)
    life = a_life(spec)
    life.begin_run()
    for what, *how in happenings:
        match what:
            case "see":
                life.see(colours(*how[0]), how[1])
            case "close":
                life.close(how[0])
            case "end":
                life.close(Reason.END)
                life.begin_run()
            case "run":
                life.begin_run()
            case "anchor":
                life.anchor_us = (life.anchor_us or 0) + how[0]

    assert life.published == events(replay(life.logged, spec, max_batch=max_batch))


def test_rows_that_come_twice_count_once() -> None:
    life = a_life()
    an_action(life)
    life.close(Reason.GAP)
    life.see(colours(*[0.9] * 8))
    life.see(quiet(20))

    assert len(life.published) > 2
    assert life.published == events(replay(life.logged[:5] + life.logged[1:]))


def test_a_camera_without_a_wall_clock_is_placed_by_when_it_was_logged() -> None:
    life = a_life(anchor_us=None)
    an_action(life)

    assert life.published == events(replay(life.logged))
    assert [] == replay(life.logged, period=Period(since_us=2**50)).runs


def test_lost_rows_end_the_segment() -> None:
    life = a_life()
    life.see(quiet(30))
    life.see(colours(*[0.9] * 8))
    life.see(quiet(4))
    life.see(quiet(20))

    without = replay(life.logged[:2] + life.logged[3:])

    (event,) = histories(events(without))
    assert Reason.GAP is event.last.reason
    assert 2 == len(without.runs[0].pieces)


def test_only_the_period_is_reported_and_what_is_near_it_is_seen() -> None:
    life = a_life()
    for _ in range(40):
        an_action(life, n_before=100)
    in_all = len(histories(life.published))
    middle = life.logged[60]
    since_us = middle.moment_us(SPEC.grid)
    until_us = since_us + 200 * STRIDE_US

    done = replay(life.logged, period=Period(since_us, until_us))

    (run,) = done.runs
    assert 40 == in_all
    assert run.covered is not None
    covered_us = run.covered.end_us - run.covered.start_us
    assert 0 < covered_us <= 310 * STRIDE_US
    # All events of the log lie within the margin here, so all are as they were.
    assert life.published == run.revisions


def test_far_from_the_period_nothing_is_localized_but_the_mean_learns() -> None:
    life = a_life()
    an_action(life, n_before=6000)  # sixteen minutes
    life.see(quiet(5))
    an_action(life, n_before=6000)
    since_us = life.logged[-3].moment_us(SPEC.grid) + 5900 * STRIDE_US

    done = replay(
        [
            LoggedRows(
                replace(
                    one.rows,
                    first_index=one.rows.first_index + i,
                    vectors=one.rows.vectors[i : i + 50],
                ),
                one.logged_us,
            )
            for one in life.logged
            for i in range(0, len(one.rows.vectors), 50)
        ],
        period=Period(since_us),
    )

    first, second = histories(life.published)
    (event,) = histories(events(done))
    assert first.last.event_id != second.last.event_id
    assert second == event


def test_features_of_another_backbone_are_refused() -> None:
    life = a_life()
    an_action(life)

    with pytest.raises(ConfigError, match=r"camera gate: .* made by backbone .* wants other"):
        replay(life.logged, feature_id="other")


def test_before_the_period_features_of_another_backbone_are_passed_over() -> None:
    old, new = a_life(feature_id="old"), a_life()
    an_action(old)
    an_action(new)
    later = [
        LoggedRows(replace(one.rows, run="later", anchor_us=10**15 * 2), 2 * 10**15)
        for one in new.logged
    ]

    done = replay(old.logged + later, period=Period(since_us=2 * 10**15))

    assert ["later"] == [run.run for run in done.runs]
    assert len(new.published) == len(events(done))
