"""What is told of a camera, and when."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.journal.base import CameraStatus, Condition, Owner, Presence
from daemon.stream.status import NEWS_INTERVAL_S, CameraWatch, StreamFacts, is_news

FACTS = StreamFacts("run", "model@1", 2, watermark_us=5, anchor_us=7)
HERE = Owner("host-1", "member-1")


def a_watch(silent_since_us: int | None = None) -> CameraWatch:
    return CameraWatch("door", "chunks/3", HERE, 30.0, silent_since_us)


def told(watch: CameraWatch, **facts: Any) -> CameraStatus:
    return watch.status(replace(FACTS, **facts), n_queued=1, n_behind=9, at_us=1000)


def test_a_status_tells_all_that_is_known() -> None:
    watch = a_watch()
    watch.saw_chunk(7, 900, is_refused=True)
    watch.saw_chunk(8, 950, is_refused=False)

    wanted = CameraStatus(
        camera="door",
        state=Presence.ONLINE,
        at_us=1000,
        partition="chunks/3",
        owner=HERE,
        model_id="model@1",
        run="run",
        n_queued=1,
        n_behind=9,
        n_gaps=2,
        n_refused=1,
        watermark_us=5,
        anchor_us=7,
        last_offset=8,
        last_chunk_us=950,
    )
    assert wanted == told(watch)


def test_the_newest_chunk_and_silence_make_the_state() -> None:
    watch = a_watch()
    states = [told(watch).state]
    for is_refused in (False, True, False):
        watch.saw_chunk(1, 10, is_refused=is_refused)
        states.append(told(watch).state)
    watch.saw_silence(9)
    states.append(told(watch).state)
    watch.saw_silence(99)

    assert (Presence.SILENT, 10) == (told(watch).state, told(watch).silent_since_us)
    watch.saw_chunk(2, 110, is_refused=False)
    assert (Presence.ONLINE, None) == (told(watch).state, told(watch).silent_since_us)
    online, refused = Presence.ONLINE, Presence.REFUSED
    assert [online, online, refused, online, Presence.SILENT] == states


def test_a_camera_that_was_silent_is_so_for_the_next_owner() -> None:
    assert (Presence.SILENT, 4) == (told(a_watch(4)).state, told(a_watch(4)).silent_since_us)


@pytest.mark.parametrize(
    "changed",
    [
        {"state": Presence.REFUSED},
        {"run": "other"},
        {"model_id": "other"},
        {"n_gaps": 3},
        {"degraded": ("slow",)},
        {"condition": Condition.LATE},
        {"partition": "chunks/4"},
        {"owner": Owner("host-2", "member-1")},
    ],
)
def test_news_is_told_at_once_but_not_twice_a_second(changed: dict[str, Any]) -> None:
    watch, before = a_watch(), told(a_watch())
    now = replace(before, **changed)

    assert is_news(before, now)
    assert [True, False, False, True, False, False, True] == [
        watch.is_due(before, 0.0),
        watch.is_due(before, 29.9),
        watch.is_due(before, 29.95),
        watch.is_due(now, 29.96),
        watch.is_due(before, 30.0),
        watch.is_due(before, 30.9),
        watch.is_due(before, 30.97),
    ]


def test_silence_and_its_end_are_told_at_once() -> None:
    watch, online = a_watch(), told(a_watch())
    silent = replace(online, state=Presence.SILENT, silent_since_us=3)

    assert [True, True, False, True] == [
        watch.is_due(online, 0.0),
        watch.is_due(silent, 0.1),
        watch.is_due(silent, 0.2),
        watch.is_due(online, 0.3),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"n_refused": 5},
        {"n_queued": 5},
        {"n_behind": None},
        {"watermark_us": 6},
        {"anchor_us": 1},
        {"at_us": 9},
        {"last_offset": 9, "last_chunk_us": 9},
        {"lag_s": 3.5},
        {"last_frame_us": 9},
        {"fps": 12.0},
        {"snippets_per_minute": 9},
    ],
)
def test_numbers_alone_wait_for_the_interval(changed: dict[str, Any]) -> None:
    watch, before = a_watch(), told(a_watch())
    now = replace(before, **changed)

    assert [True, False, True] == [
        watch.is_due(before, 0.0),
        watch.is_due(now, 29.9),
        watch.is_due(now, 30.0),
    ]


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60))
def test_however_a_camera_flaps_it_is_not_told_chunk_by_chunk(
    chunks: list[tuple[float, bool]],
) -> None:
    watch, now_s, told_at = a_watch(), 0.0, list[float]()
    for passed_s, is_refused in chunks:
        now_s += passed_s
        watch.saw_chunk(1, 1, is_refused=is_refused)
        if watch.is_due(told(watch), now_s):
            told_at.append(now_s)

    pauses = [after - before for before, after in pairwise(told_at)]
    assert all(pause >= NEWS_INTERVAL_S for pause in pauses)


def seen(watch: CameraWatch, *, behind_s: float, n_queued: int = 0, passed_s: float = 0) -> Any:
    """The status of a camera whose newest frame was finished so long after its capture."""
    facts = replace(FACTS, anchor_us=0, newest_us=10_000_000)
    watch.saw_chunk(1, round((10 + behind_s) * 1e6), is_refused=False)
    at_us = round((10 + behind_s + passed_s) * 1e6)
    return watch.status(facts, n_queued=n_queued, n_behind=None, at_us=at_us)


def test_the_lag_grows_while_chunks_wait_and_not_while_none_come() -> None:
    assert 3 == seen(a_watch(), behind_s=3, passed_s=50).lag_s
    assert 53 == seen(a_watch(), behind_s=3, n_queued=1, passed_s=50).lag_s
    assert 10_000_000 == seen(a_watch(), behind_s=3).last_frame_us
    assert told(a_watch()).lag_s is None


def test_late_begins_beyond_the_limit_and_ends_at_half_of_it() -> None:
    watch, late, live = a_watch(), Condition.LATE, Condition.LIVE
    conditions = [seen(watch, behind_s=lag_s).condition for lag_s in (9, 11, 9, 6, 5, 9, 10, 11)]

    assert [live, late, late, late, live, live, live, late] == conditions


@pytest.mark.parametrize(
    ("behind_s", "degraded"), [(-1.9, ()), (-2.1, ("clock_ahead",)), (-1e6, ("clock_ahead",))]
)
def test_footage_from_the_future_is_a_clock_that_is_ahead(
    behind_s: float, degraded: tuple[str, ...]
) -> None:
    status = seen(a_watch(), behind_s=behind_s)

    assert degraded == status.degraded
    assert pytest.approx(behind_s) == status.lag_s
    assert (Condition.DEGRADED if degraded else Condition.LIVE) == status.condition


def test_of_several_conditions_the_worst_is_named() -> None:
    watch = a_watch()
    facts = replace(FACTS, anchor_us=0, newest_us=0, degraded=("low_fps",))

    def condition() -> Condition:
        return watch.status(facts, n_queued=0, n_behind=None, at_us=0).condition

    conditions = [condition()]
    watch.saw_chunk(1, 60_000_000, is_refused=False)
    conditions.append(condition())
    watch.saw_chunk(2, 60_000_000, is_refused=True)
    conditions.append(condition())
    watch.saw_silence(60_000_000)
    conditions.append(condition())

    assert [
        Condition.DEGRADED,
        Condition.LATE,
        Condition.REFUSED,
        Condition.SILENT,
    ] == conditions
