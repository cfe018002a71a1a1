"""Old and new events are paired by class and overlap, and told in a table, JSON and a page."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from rich.console import Console

from daemon.errors import ConfigError
from daemon.moments import parse_moment
from daemon.replay.batches import Replay
from daemon.replay.camera import ReplayModel
from daemon.replay.difference import compared, within
from daemon.replay.period import Period, parse_period
from daemon.replay.report import (
    counts_text,
    difference_table,
    gap_lines,
    page_names,
    page_of,
)
from engine.types import Phase, Reason, Span
from tests.support.logged_features import FEATURE_ID, LoggedLife
from tests.support.records import an_event
from tests.support.scripted import SmoothingLocalizer, a_spec

OLD = an_event("a", 2, span=Span(1_000_000, 3_000_000))


def kinds(old, new):
    return [row.kind for row in compared(old, new)]


def test_the_same_event_is_equal_and_a_moved_one_matches() -> None:
    moved = replace(OLD, event_id="b", span=Span(1_200_000, 3_000_000))

    assert ["equal"] == kinds([OLD], [OLD])
    assert ["matched"] == kinds([OLD], [moved])


@pytest.mark.parametrize(
    "other",
    [
        {"span": Span(5_000_000, 6_000_000)},
        {"class_name": "pushing"},
        {"camera": "gate"},
        {"run": "run-2"},
    ],
)
def test_events_apart_are_alone(other) -> None:
    assert ["only new", "only old"] == sorted(kinds([OLD], [replace(OLD, **other)]))


def test_classes_are_paired_by_name_and_what_was_taken_back_is_left_out() -> None:
    renumbered = replace(OLD, class_index=9)
    retracted = replace(OLD, event_id="r", phase=Phase.RETRACTED, reason=Reason.VANISHED)

    assert ["matched"] == kinds([OLD], [renumbered])
    assert [] == kinds([retracted], [])


def test_events_belong_to_a_period_by_where_they_ended_up() -> None:
    opened = replace(OLD, revision=0, phase=Phase.OPENED, span=Span(1_000_000, 1_500_000))

    assert [opened, OLD] == within([opened, OLD], Span(2_500_000, 4_000_000))
    assert [] == within([opened, OLD], Span(3_000_000, 4_000_000))


def a_replay():
    life = LoggedLife(a_spec(), SmoothingLocalizer(), camera="gate <3>")
    for n_lost in (0, 7):
        life.see(np.zeros((30, 3), np.float32), n_lost)
        life.see(np.full((8, 3), (0.9, 0, 0), np.float32))
        life.see(np.zeros((20, 3), np.float32))
    model = ReplayModel(a_spec(), None, FEATURE_ID)
    done = Replay(model, SmoothingLocalizer(), Period(), 8)
    for one in life.logged:
        done.push(one)
    done.settle()
    return life, model, done.runs[0]


def test_the_page_has_a_lane_for_either_side_and_is_well_formed() -> None:
    life, model, run = a_replay()

    page = page_of(run, model, life.published, run.revisions)

    words = " ".join(ET.fromstring(page).itertext())  # noqa: S314 - our own
    assert "red · old" in words
    assert "red · new" in words
    assert "gate <3>" in words
    assert ["gate_3_"] == page_names([run])
    assert ["gate_3_", "gate_3_-2"] == page_names([run, run])


def test_the_table_tells_each_event_and_gaps_have_a_line() -> None:
    life, _model, run = a_replay()
    console = Console(width=200)

    with console.capture() as shown:
        console.print(difference_table(compared(life.published, run.revisions[:-1]), [run]))

    assert "gate <3>" in shown.get()
    assert "0 equal, 0 matched, 0 only old, 1 only new" == counts_text(compared([], [OLD]))
    (line,) = gap_lines([run])
    assert "gate <3>: no features from " in line
    assert line.endswith("(1.1 s)")


NOON = datetime.fromisoformat("2026-03-05T12:00:00+00:00")
NOON_US = round(NOON.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "wanted_s"),
    [
        ("90s", -90),
        ("1.5h", -5400),
        ("2d", -172_800),
        ("2026-03-05T12:00:10+00:00", 10),
        ("11:59:30+00:00", -30),
        ("12:01+00:00", 60 - 86_400),  # the latest such lies in yesterday
    ],
)
def test_moments_are_dates_times_of_day_and_times_ago(text, wanted_s) -> None:
    assert NOON_US + wanted_s * 1_000_000 == parse_moment(text, "--since", NOON)


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "2026-13-01T00:00", "5 apples"])
def test_what_is_no_moment_is_refused_in_a_line(text) -> None:
    with pytest.raises(ConfigError, match=r"--since is .*, wanted a moment such as"):
        parse_moment(text, "--since", NOON)


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match="--since 1h is not before --until 2h"):
        parse_period("1h", "2h", NOON)
