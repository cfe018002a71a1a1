import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daemon.timeline.chart import MAX_THUMBNAILS
from daemon.timeline.lanes import MAX_CURVES
from daemon.timeline.marks import (
    MAX_CURVE_POINTS,
    N_HUES,
    decimated,
    hues,
    label_rooms,
    packed,
    runs,
    ticks,
)
from daemon.timeline.page import CurveSet, Mistakes, Thumbnail, render_timeline
from daemon.timeline.style import STYLE
from daemon.timeline.text import clock, wall_clock
from engine.judging.truth import TruthSpan
from engine.types import ActionEvent, Phase, Reason, Span

S = 1_000_000
SNIPPET_US = 640_000
USUAL_SPAN = Span(2 * S, 5 * S)
REASONS = {
    Phase.OPENED: Reason.SCORE,
    Phase.UPDATED: Reason.SCORE,
    Phase.CLOSED: Reason.FROZEN,
    Phase.RETRACTED: Reason.VANISHED,
}


def records(
    event_id: str = "e1",
    name: str = "run",
    span: Span = USUAL_SPAN,
    last: Phase = Phase.CLOSED,
    n_updates: int = 0,
) -> list[ActionEvent]:
    """An event's life: opened, grown ``n_updates`` times, then ``last``."""
    phases = [Phase.OPENED, *[Phase.UPDATED] * n_updates, last]
    return [
        ActionEvent(
            event_id=event_id,
            camera="cam",
            run="0",
            revision=revision,
            phase=phase,
            reason=REASONS[phase],
            class_index=0,
            class_name=name,
            span=span,
            score=0.8,
            decided_us=span.end_us + S + revision,
            anchor_us=None,
            model_id="m@1",
        )
        for revision, phase in enumerate(phases)
    ]


def curves(scores: Any, labels: Sequence[str] = ("run",), **more: Any) -> CurveSet:
    values = np.asarray(scores, np.float32).reshape(-1, len(labels))
    times = np.arange(len(values), dtype=np.int64) * SNIPPET_US + SNIPPET_US // 2
    return CurveSet(times, values, tuple(labels), **more)


def a_page(**changes: Any) -> str:
    given_values: dict[str, Any] = {
        "title": "clip.mp4",
        "duration_us": 10 * S,
        "events": (),
        "curves": curves([0.1, 0.2, 0.15]),
        "open_score": 0.35,
    }
    return render_timeline(**{**given_values, **changes})


def parsed(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own page


def of_class(page: str, name: str) -> list[ET.Element]:
    return [e for e in parsed(page).iter() if name in e.get("class", "").split()]


def words(element: ET.Element) -> str:
    return "".join(element.itertext())


def line_points(page: str) -> list[tuple[int, int]]:
    (line,) = of_class(page, "line")
    return [(int(x), int(y)) for x, y in re.findall(r"(\d+) (\d+)", line.get("d", ""))]


def verdict(page: str) -> str:
    return words(of_class(page, "verdict")[0])


def a_busy_page() -> str:
    events = [
        *records("a", "run", Span(0, 3 * S)),
        *records("b", "run", Span(2 * S, 5 * S), Phase.RETRACTED),
        *records("c", "jump", Span(9 * S, 12 * S), Phase.UPDATED, n_updates=30),
    ]
    return a_page(
        subtitle="m@1",
        events=events,
        curves=curves(
            np.linspace(0, 1, 40), ["run", "sit"], breaks=(5,), attention=np.ones(20, np.float32)
        ),
        thumbnails=[Thumbnail(i * S, b"\xff\xd8jpeg") for i in range(12)],
        truth=[TruthSpan("run", Span(S, 3 * S)), TruthSpan("fall", Span(6 * S, 7 * S))],
        anchor_us=1_700_000_000 * S,
        notes=["25 fps", "3.1 times real time"],
    )


class _Balance(HTMLParser):
    """Notes a tag that closes another than the one that is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


PAGES = {
    "busy": a_busy_page,
    "quiet": a_page,
    "without curves": lambda: a_page(curves=None),
    "with empty curves": lambda: a_page(curves=curves([])),
    "without anything": lambda: a_page(title="", curves=None, duration_us=0),
}


@pytest.mark.parametrize("build", PAGES.values(), ids=PAGES.keys())
def test_page_is_well_formed_as_html_and_as_xml(build: Any) -> None:
    page = build()
    balance = _Balance()
    balance.feed(page)
    balance.close()

    assert ([], []) == (balance.open, balance.wrong)
    assert "html" == parsed(page).tag


@pytest.mark.parametrize("build", PAGES.values(), ids=PAGES.keys())
def test_page_reaches_for_nothing_outside_itself(build: Any) -> None:
    page = build()
    addresses = [
        value
        for element in parsed(page).iter()
        for name, value in element.attrib.items()
        if name in {"src", "href", "srcset", "data", "action"}
    ]

    assert all(a.startswith(("#event-", "data:image/jpeg;base64,")) for a in addresses)
    assert not re.search(r"url\(|@import|https?:|fetch|import\(", page)


def test_page_is_the_same_for_the_same_records_in_any_order() -> None:
    events = [*records("a", n_updates=3), *records("b", "jump"), *records("c", span=Span(0, S))]

    assert a_page(events=events) == a_page(events=events[::-1])
    assert a_page(events=events) == a_page(events=events + events)


ANY_TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=250)


@given(ANY_TEXT)
def test_no_name_can_become_markup(name: str) -> None:
    page = a_page(
        title=name,
        subtitle=name,
        notes=[name],
        events=records(name, name),
        curves=curves([0.4, 0.9], [name]),
        truth=[TruthSpan(name, Span(0, S))],
    )
    plain = a_page(
        title="x",
        subtitle="x",
        notes=["x"],
        events=records("x", "x"),
        curves=curves([0.4, 0.9], ["x"]),
        truth=[TruthSpan("x", Span(0, S))],
    )

    assert [e.tag for e in parsed(plain).iter()] == [e.tag for e in parsed(page).iter()]
    assert page == page.encode("utf-8").decode("utf-8")


def test_a_name_that_looks_like_markup_is_read_as_written() -> None:
    name = """<script>alert("1")</script> & 'x' &amp;"""
    page = a_page(title=name, events=records(name=name))

    assert name == words(next(parsed(page).iter("h1")))
    assert name in {words(bdi) for bdi in parsed(page).iter("bdi")}
    assert 1 == page.count("<script")


def test_controls_that_reorder_or_cannot_be_encoded_are_replaced() -> None:
    page = a_page(title="a\u202eb\x00c\ud800d\ne")

    assert "a\ufffdb\ufffdc\ufffdd e" == words(next(parsed(page).iter("h1")))


def test_policy_admits_only_the_script_of_the_page() -> None:
    page = a_page()
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [e.get("content", "") for e in parsed(page).iter("meta") if e.get("http-equiv")]

    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_paper_has_the_colours_of_a_light_screen() -> None:
    screen, dark, paper = re.findall(r"\n  --paper: [^}]*", STYLE)

    assert screen == paper != dark


def test_every_event_is_a_bar_and_a_row_with_its_times() -> None:
    spans = [Span(i * 3 * S, i * 3 * S + 1_250_000) for i in range(200)]
    events = [r for i, span in enumerate(spans) for r in records(f"e{i}", f"c{i % 9}", span)]
    page = a_page(events=events, duration_us=600 * S)
    bars = of_class(page, "bar")
    rows = {e.get("id"): words(e) for e in parsed(page).iter("tr") if e.get("id")}

    shown = [
        Span(int(bar.attrib["data-start-us"]), int(bar.attrib["data-end-us"])) for bar in bars
    ]
    assert spans == sorted(shown)
    for bar, span in zip(bars, shown, strict=True):
        row = rows[bar.attrib["href"].removeprefix("#")]
        assert clock(span.start_us) in row
        assert clock(span.end_us) in row
        assert f"{clock(span.start_us)}–{clock(span.end_us)}" in words(bar)  # noqa: RUF001


@pytest.mark.parametrize(
    ("last", "state"),
    [(Phase.UPDATED, "open"), (Phase.CLOSED, "closed"), (Phase.RETRACTED, "retracted")],
)
def test_a_bar_shows_how_its_event_stands(last: Phase, state: str) -> None:
    (bar,) = of_class(a_page(events=records(last=last)), "bar")

    assert state in bar.attrib["class"].split()
    assert state in bar.attrib["title"]


def test_a_bar_has_the_newest_times_and_the_table_the_older_ones() -> None:
    first, last = records(span=Span(2 * S, 5 * S))
    grown = replace(last, span=Span(2 * S, 8 * S))
    page = a_page(events=[first, grown])
    (bar,) = of_class(page, "bar")
    history = [words(item) for item in parsed(page).iter("li") if "at 0:0" in words(item)]

    assert str(8 * S) == bar.attrib["data-end-us"]
    assert ["opened", "closed"] == [item.split()[0] for item in history]
    assert "0:02.0–0:05.0" in history[0]  # noqa: RUF001


def test_a_long_history_keeps_its_beginning_and_its_end() -> None:
    page = a_page(events=records(n_updates=98))
    items = [words(e) for e in next(parsed(page).iter("details")).iter("li")]

    assert items[0].startswith("opened")
    assert items[-1].startswith("closed")
    assert 13 == len(items)
    assert "88 revisions left out here" in items


def test_waiting_for_the_decision_is_drawn_from_the_end_to_the_decision() -> None:
    first, last = records(span=Span(2 * S, 4 * S))
    page = a_page(events=[first, replace(last, decided_us=7 * S)])
    (wait, _key) = of_class(page, "wait")

    assert "left:40.0000%;width:30.0000%" == wait.attrib["style"]
    assert "3.0 s after its end" in page


def test_verdict_without_contrasts_names_the_highest_class_and_what_decides() -> None:
    page = a_page(curves=curves([[0.1, 0.0], [0.2, 0.3]], ["run", "sit & <wait>"]))

    expected = (
        "No events. The highest curve is that of “sit & <wait>”, 0.30 at 0:01.0; an event must "
        "stand out from its surroundings by 0.35."
    )
    assert expected == " ".join(verdict(page).split())
    assert not list(parsed(page).iter("table"))
    assert not of_class(page, "threshold"), "a curve is no contrast: the line is not its own"


def test_verdict_names_what_came_nearest_by_what_decides() -> None:
    """A high curve that hardly stands out is further from an event than a low one that does."""
    page = a_page(
        curves=curves(
            [[0.9, 0.2], [0.95, 0.3]],
            ["run", "sit & <wait>"],
            contrasts=np.array([[0.05, 0.1], [0.05, 0.28]], np.float32),
        )
    )

    expected = (
        "No events. “sit & <wait>” came nearest: it stood out from its surroundings by 0.28 at "
        "0:01.0; an event needs 0.35."
    )
    assert expected == " ".join(verdict(page).split())
    assert ["sit & <wait>", "run"] == [
        words(next(lane.iter("bdi"))) for lane in of_class(page, "lane")
    ]


def test_nothing_that_stood_out_is_said_to_be_so() -> None:
    flat = curves([[0.9, 0.2]], ["run", "sit"], contrasts=np.zeros((1, 2), np.float32))
    page = a_page(curves=flat, class_open_scores={"sit": 0.1})

    assert "Nothing stood out: the highest curve is that of “run”, 0.90" in verdict(page)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0, 1))
def test_a_page_without_events_never_shows_more_than_an_event_needs(
    contrast: float, needed: float, peak: float
) -> None:
    values = np.array([[contrast]], np.float32)
    page = a_page(curves=curves([[peak]], contrasts=values), open_score=needed)
    said = re.search(r"by (\d\.\d+) at .* needs (\d\.\d+)\.", verdict(page))

    if float(values[0, 0]) >= needed:
        assert said is None
    elif said is not None:
        assert float(said[1]) <= float(said[2])
        assert needed - contrast < 1e-6 or float(said[1]) < float(said[2])


def test_the_line_to_reach_has_the_axis_of_what_must_reach_it() -> None:
    page = a_page(
        curves=curves([0.9, 0.8], contrasts=np.array([[0.2], [0.3]], np.float32)),
        open_score=0.5,
    )
    (contrast,), (threshold, _) = of_class(page, "contrast"), of_class(page, "threshold")

    assert "M3200 800L9600 700" == contrast.get("d")
    assert "M0 500H100000" == threshold.get("d")
    assert "peak 0.90 at 0:00.3 · stood out by 0.30, needs 0.50" in page


def test_verdict_does_not_count_what_was_taken_back() -> None:
    taken_back = records("b", last=Phase.RETRACTED)

    assert verdict(a_page(events=taken_back)).startswith("No events. 1 event opened and taken")
    both = verdict(a_page(events=records("a") + taken_back))
    assert "1 event: run. 1 event opened and taken back." == both


def test_only_the_highest_classes_and_those_with_events_have_a_lane() -> None:
    peaks = np.linspace(0, 1, 400, dtype=np.float32)
    labels = [f"class {i}" for i in range(400)]
    page = a_page(curves=curves(peaks[None], labels), events=records(name="class 3"))
    lanes = [words(next(lane.iter("bdi"))) for lane in of_class(page, "lane")]

    assert ["class 3", *(f"class {i}" for i in range(399, 400 - MAX_CURVES, -1))] == lanes


def test_a_spike_of_one_snippet_keeps_its_height_in_a_day() -> None:
    values = np.zeros(135_000, np.float32)
    values[77_777] = 0.9
    points = line_points(a_page(curves=curves(values), duration_us=86_400 * S))

    assert len(points) <= MAX_CURVE_POINTS
    assert 1 == [y for _, y in points].count(100)


@given(
    arrays(np.float32, st.integers(0, 300), elements=st.floats(0, 1, width=32)),
    st.integers(4, 60),
)
def test_decimation_keeps_extremes_ends_and_order(values: Any, limit: int) -> None:
    kept = decimated(values, limit)

    assert len(kept) <= limit
    assert (np.diff(kept) > 0).all()
    if len(values):
        assert (0, len(values) - 1) == (kept[0], kept[-1])
        assert values.max() == values[kept].max()
        assert values.min() == values[kept].min()


def test_decimation_leaves_a_short_curve_as_it_is() -> None:
    assert 7 == len(decimated(np.zeros(7, np.float32), 7))


def test_a_gap_breaks_the_curve_and_is_hatched() -> None:
    times = np.array([0, 1, 2, 7, 8], np.int64) * S
    given_curves = CurveSet(times, np.full((5, 1), 0.2, np.float32), ("run",), breaks=(3,))
    page = a_page(curves=given_curves)
    (line,) = of_class(page, "line")
    gap = of_class(page, "gap")[0]

    assert 2 == line.attrib["d"].count("M")
    assert "left:25.0000%;width:40.0000%" == gap.attrib["style"]
    assert "no footage, 0:02.5–0:06.5" == gap.attrib["title"]  # noqa: RUF001


def test_runs_split_where_a_break_lies_between_kept_rows() -> None:
    kept = np.array([0, 4, 5, 9], np.int64)

    assert [[0, 4], [5, 9]] == [list(run) for run in runs(kept, [2 + 3])]
    assert [[0], [4, 5, 9]] == [list(run) for run in runs(kept, [1, 3])]
    assert [[0, 4, 5, 9]] == [list(run) for run in runs(kept, [])]


def test_a_label_has_the_same_colour_on_every_page() -> None:
    one = a_page(curves=curves([[0.5, 0.4]], ["run", "opening bottle"]))
    other = a_page(curves=curves([[0.9]], ["run"]))
    colour = {page: of_class(page, "lane")[0].attrib["class"].split()[1] for page in (one, other)}

    assert colour[one] == colour[other]


@given(st.lists(st.text(), unique=True, max_size=N_HUES))
def test_labels_of_one_page_do_not_share_a_colour_while_there_are_enough(labels: Any) -> None:
    assert len(labels) == len(set(hues(labels).values()))


SPANS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 100)).map(lambda p: Span(p[0], sum(p))),
    max_size=30,
)


@given(SPANS)
def test_bars_and_labels_of_one_row_never_cover_each_other(spans: list[Span]) -> None:
    rows = packed(spans)
    for row in set(rows):
        mine = sorted(span for span, r in zip(spans, rows, strict=True) if r == row)
        covered = []
        for span, room in zip(mine, label_rooms(mine, 1000), strict=True):
            covered.append((span.start_us + min(room, 0), span.end_us + max(room, 0)))

        assert all(first[1] <= second[0] for first, second in pairwise(covered))
        assert covered[0][0] >= 0
        assert covered[-1][1] <= 1000


@given(st.integers(1, 10 * 365 * 86_400 * S))
def test_ticks_stay_few_and_each_level_refines_the_one_before(axis_us: int) -> None:
    placed = ticks(axis_us)

    for level, most in enumerate((5, 12, 40, 120)):
        shown = [tick.time_us for tick in placed if tick.level <= level]
        assert 1 <= len(shown) <= most
        assert len({b - a for a, b in pairwise(shown)}) <= 1
        assert 0 == shown[0]
        assert shown[-1] <= axis_us


@pytest.mark.parametrize(
    ("time_us", "shown"),
    [
        (0, "0:00.0"),
        (49_999, "0:00.0"),
        (50_000, "0:00.1"),
        (59_949_999, "0:59.9"),
        (59_950_000, "1:00.0"),
        (3_599_950_000, "1:00:00.0"),
        (90 * 60 * S, "1:30:00.0"),
    ],
)
def test_clock_rounds_to_a_tenth_and_carries(time_us: int, shown: str) -> None:
    assert shown == clock(time_us)


def test_wall_clock_of_an_absurd_anchor_is_left_out() -> None:
    assert "2023-11-14 22:13:20 UTC" == wall_clock(1_700_000_000 * S, 0)
    assert "" == wall_clock(10**30, 0)
    assert "" == wall_clock(None, 5)


def test_thumbnails_are_few_and_lie_where_they_were_taken() -> None:
    many = [Thumbnail(i * 100_000, b"jpeg %d" % i) for i in range(100)]
    images = list(parsed(a_page(thumbnails=many)).iter("img"))
    assert MAX_THUMBNAILS == len(images)

    late = [Thumbnail(9 * S + i, b"") for i in range(3)]
    slots = list(of_class(a_page(thumbnails=late), "film")[0])
    assert [False, False, True] == [slot.find("img") is not None for slot in slots]


def test_truth_is_drawn_in_the_lane_of_its_class_even_without_events() -> None:
    page = a_page(truth=[TruthSpan("fall", Span(S, 2 * S))])
    (lane,) = [e for e in of_class(page, "lane") if words(next(e.iter("bdi"))) == "fall"]

    (mark,) = [e for e in lane.iter() if e.get("class") == "truth"]
    assert "left:10.0000%;width:10.0000%" == mark.attrib["style"]


def test_what_truth_and_events_do_not_share_is_marked() -> None:
    missed, seen = TruthSpan("fall", Span(S, 2 * S)), TruthSpan("run", Span(2 * S, 5 * S))
    page = a_page(
        events=[*records("right"), *records("wrong", "jump", Span(6 * S, 8 * S))],
        truth=[missed, seen],
        mistakes=Mistakes(frozenset({"wrong"}), frozenset({missed})),
    )
    marks = [(e.get("class"), e.get("title")) for e in of_class(page, "truth") if e.get("style")]
    bars = {e.get("class", "").split()[2]: words(e) for e in of_class(page, "bar")}
    key = [words(entry) for entry in of_class(page, "key")[0]]

    assert [
        ("truth", "truth: 0:02.0–0:05.0"),  # noqa: RUF001
        ("truth missed", "truth: 0:01.0–0:02.0 (not reported)"),  # noqa: RUF001
    ] == sorted(marks, key=lambda mark: str(mark[0]))
    assert bars["false"].startswith("false: 0:06.0")
    assert 2 == len(bars)
    assert {"not reported", "event that reports nothing true"} <= set(key)


def test_every_lane_shows_the_score_that_its_own_class_needs() -> None:
    page = a_page(
        curves=curves(
            [[0.1, 0.9], [0.2, 0.3]],
            ["run", "jump"],
            contrasts=np.array([[0.0, 0.75], [0.1, 0.2]], np.float32),
        ),
        class_open_scores={"jump": 0.8},
    )
    heights = {
        words(next(lane.iter("bdi"))): mark.get("d")
        for lane in of_class(page, "lane")
        for mark in lane.iter()
        if mark.get("class") == "threshold" and mark.get("d")
    }

    assert {"run": "M0 650H100000", "jump": "M0 200H100000"} == heights
    assert "how much an event must stand out (0.35 to 0.80, by class)" in page
    assert "“jump” came nearest: it stood out from its surroundings by 0.75" in verdict(page)


def test_the_axis_grows_to_hold_an_event_that_ends_after_the_video() -> None:
    page = a_page(events=records(span=Span(5 * S, 20 * S)), duration_us=10 * S)
    (bar,) = of_class(page, "bar")

    assert "left:25.0000%;width:75.0000%" == bar.attrib["style"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"class_names": ("a", "b")}, "scores are"),
        ({"scores": np.full((3, 1), np.nan, np.float32)}, "not finite"),
        ({"times_us": np.array([0, 2, 2], np.int64)}, "must rise"),
        ({"breaks": (3,)}, "breaks"),
        ({"attention": np.zeros(2, np.float32)}, "attention is"),
        ({"contrasts": np.zeros((2, 1), np.float32)}, "contrasts are"),
        ({"contrasts": np.full((3, 1), np.inf, np.float32)}, "contrasts hold values"),
    ],
)
def test_curves_that_do_not_fit_together_are_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(curves([0.1, 0.2, 0.3]), **changes)
