"""The demo's parts: who found what, in which order it is told, and what a scene needs."""

import io
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from daemon.demo.live import Narrator
from daemon.demo.report import event_table, sentence
from daemon.demo.scene import render_scene
from daemon.demo.score import compare, total
from daemon.errors import ConfigError
from engine.judging.truth import TruthSpan
from engine.types import ActionEvent, Phase, Reason, Span

S = 1_000_000


def life(
    event_id: str,
    name: str,
    start_s: float,
    end_s: float,
    *,
    last: Phase = Phase.CLOSED,
    reason: Reason = Reason.FROZEN,
) -> list[ActionEvent]:
    """Opened one second after its start, final two seconds after its end."""
    span = Span(round(start_s * S), round(end_s * S))
    opened = ActionEvent(
        event_id=event_id,
        camera="cam1",
        run="0",
        revision=0,
        phase=Phase.OPENED,
        reason=Reason.SCORE,
        class_index=0,
        class_name=name,
        span=span,
        score=0.8,
        decided_us=span.start_us + S,
        anchor_us=None,
        model_id="m@1",
    )
    ended = replace(opened, revision=1, phase=last, reason=reason, decided_us=span.end_us + 2 * S)
    return [opened, ended]


def happened(name: str, start_s: float, end_s: float) -> TruthSpan[str]:
    return TruthSpan(name, Span(round(start_s * S), round(end_s * S)))


def printed(*things: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    for thing in things:
        console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_action_and_event_is_paired_at_most_once_and_only_within_its_class():
    truth = [happened("fall", 0, 4), happened("run", 10, 14), happened("jump", 20, 22)]
    records = [
        *life("right", "fall", 0.5, 4.5),
        *life("again", "fall", 0, 2.5),
        *life("other", "wave", 10, 14),
        *life("brief", "jump", 20, 20.5),  # tIoU .25
        *life("gone", "run", 10, 14, last=Phase.RETRACTED),
    ]
    outcome = compare(truth, records)

    assert [("fall", "right")] == [
        (p.truth.class_id, p.event.last.event_id) for p in outcome.found
    ]
    assert ["run", "jump"] == [one.class_id for one in outcome.missed]
    assert ["again", "other", "brief"] == [one.last.event_id for one in outcome.false]
    assert (1, 1 / 3, 1 / 4) == (outcome.n_taken_back, outcome.recall, outcome.precision)
    assert pytest.approx(3.5 / 4.5) == outcome.found[0].tiou


def test_delays_are_medians_in_stream_time_and_a_cut_short_end_is_none():
    truth = [happened("run", 0, 4), happened("run", 10, 14), happened("run", 20, 24)]
    records = [
        *life("a", "run", 0, 4),  # opened +1, final +2
        *life("b", "run", 12, 15),  # opened +3, final +3
        *life("c", "run", 21, 24, reason=Reason.END),  # opened +2
    ]
    outcome = compare(truth, records)

    assert (2.0, 2.5) == (outcome.open_delay_s, outcome.final_delay_s)
    assert outcome.found[2].final_delay_us is None


def test_where_there_is_nothing_to_divide_by_there_is_no_share():
    nothing = compare([], [])
    assert (None, None) == (nothing.recall, nothing.precision)
    assert (None, None) == (nothing.open_delay_s, nothing.final_delay_s)
    assert sentence(nothing).startswith("0 of 0 actions found, 0 missed, 0 false: recall -,")


def test_the_total_counts_every_scene():
    good = compare([happened("run", 0, 4)], life("a", "run", 0, 4))
    bad = compare([happened("run", 0, 4)], life("a", "jump", 0, 4))
    whole = total([good, bad, good])

    assert (2, 1, 1) == (len(whole.found), len(whole.missed), len(whole.false))
    assert (2 / 3, 2 / 3, 1.0) == (whole.recall, whole.precision, whole.open_delay_s)


def test_the_table_lists_everything_by_time_and_keeps_foreign_names_as_they_are():
    truth = [happened("[red]run", 0, 4), happened("fall", 20, 24)]
    records = [*life("a", "[red]run", 0, 4), *life("b", "jump", 10, 14)]
    lines = printed(event_table(compare(truth, records))).splitlines()

    rows = [line.split()[:2] for line in lines[3:] if line.strip()]
    assert [["found", "[red]run"], ["false", "jump"], ["missed", "fall"]] == rows


def test_what_happens_is_told_before_what_is_said_of_it():
    console = Console(file=io.StringIO(), width=200)
    narrator = Narrator(console, [happened("run", 1, 4), happened("[b]fall", 30, 31)])
    opened, ended = life("a", "run", 1, 4)
    narrator.tell(opened)
    narrator.reach(5 * S)
    narrator.tell(ended)
    narrator.finish()
    assert isinstance(console.file, io.StringIO)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]

    assert [
        "seen to truth reported",
        "0:01.0 run starts",
        "0:02.0 started run 0:01.0-0:04.0 score 0.80",
        "0:04.0 run ends",
        "0:06.0 ended run 0:01.0-0:04.0 score 0.80",
        "0:30.0 [b]fall starts",
        "0:31.0 [b]fall ends",
    ] == lines


def test_without_opencv_a_scene_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("engine.scenes.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", None)

    with pytest.raises(ConfigError, match=r"pip install 's2netd\[scenes\]'"):
        render_scene(tmp_path / "scene.mp4", 1, None, 10, Console(quiet=True))
