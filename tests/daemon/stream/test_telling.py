"""What gauges and log lines say of cameras and of steps."""

import math
from dataclasses import replace
from typing import Any

import pytest

from daemon.journal.base import CameraStatus, Condition, Owner, Presence, Step
from daemon.metrics import Metrics
from daemon.stream.gauges import CameraGauges
from daemon.stream.kept import tell_kept
from daemon.stream.roll_call import RollCall, tell_change
from engine.types import Phase
from tests.support.daemons import LogCapture
from tests.support.records import ANCHOR_US, an_event

STATUS = CameraStatus(
    "door",
    Presence.ONLINE,
    9,
    "p",
    Owner("host"),
    "model",
    watermark_us=4_000_000,
    anchor_us=1_000_000,
    last_chunk_us=9_500_000,
    last_frame_us=7_000_000,
    lag_s=1.5,
    fps=24.0,
    snippets_per_minute=180,
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"s2netd_{name}", {"camera": "door", **labels})


def test_gauges_say_what_the_status_says() -> None:
    metrics = Metrics()
    CameraGauges(metrics, "door").show(STATUS, 2)

    assert [2, 1.5, 0, 24, 180, 7, 9.5, 5] == [
        value(metrics, name)
        for name in (
            "open_events",
            "camera_lag_seconds",
            "clock_skew_seconds",
            "camera_fps",
            "camera_snippets_per_minute",
            "last_frame_seconds",
            "last_chunk_seconds",
            "watermark_seconds",
        )
    ]
    states = {c.value: value(metrics, "camera_state", state=c.value) for c in Condition}
    assert {"live": 1.0, "silent": 0, "refused": 0, "late": 0, "degraded": 0} == states


def test_what_is_not_known_any_more_is_not_shown() -> None:
    metrics = Metrics()
    gauges = CameraGauges(metrics, "door")
    gauges.show(STATUS, 0)
    gauges.show(CameraStatus("door", Presence.ONLINE, 9, "p", Owner("h"), "m"), 0)

    for name in ("camera_lag_seconds", "clock_skew_seconds", "last_frame_seconds", "camera_fps"):
        assert value(metrics, name) is None
    assert value(metrics, "watermark_seconds") is None
    assert 0 == value(metrics, "open_events")


def test_what_comes_back_is_shown_again() -> None:
    metrics = Metrics()
    gauges = CameraGauges(metrics, "door")
    for lag_s in (1.5, None, 1.5, 2.5, 1.5):
        gauges.show(replace(STATUS, lag_s=lag_s), 0)
        assert lag_s == value(metrics, "camera_lag_seconds")


def test_the_future_is_skew_and_not_a_lag_of_nothing() -> None:
    metrics = Metrics()
    CameraGauges(metrics, "door").show(replace(STATUS, lag_s=-30.0), 0)

    assert (30, -30) == (
        value(metrics, "clock_skew_seconds"),
        value(metrics, "camera_lag_seconds"),
    )


def test_every_metric_of_a_camera_is_in_one_list() -> None:
    metrics = Metrics()
    labelled = {
        metric
        for metric in metrics.registry._collector_to_names
        if "camera" in getattr(metric, "_labelnames", ())
    }

    assert labelled == set(metrics.of_cameras)
    assert len(labelled) >= 15


def touched() -> Metrics:
    """Every metric of two cameras, with a value."""
    metrics = Metrics()
    for metric in metrics.of_cameras:
        for camera in ("door", "gate"):
            for other in ("a", "b"):
                labels = dict.fromkeys(metric._labelnames, other) | {"camera": camera}
                metric.labels(**labels).inc(3)
    return metrics


def shown(metrics: Metrics, camera: str) -> set[str]:
    return {
        family.name
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.labels.get("camera") == camera
    }


def test_all_gauges_of_a_camera_go_with_its_partition_and_counts_stay() -> None:
    metrics = touched()
    everything = shown(metrics, "door")
    metrics.release({"door", "unknown"})

    kinds = {family.name: family.type for family in metrics.registry.collect()}
    assert {name for name in everything if kinds[name] == "counter"} == shown(metrics, "door")
    assert everything == shown(metrics, "gate")


def test_nothing_of_a_forgotten_camera_is_left() -> None:
    metrics = touched()
    metrics.forget({"door"})

    assert set() == shown(metrics, "door")
    assert len(metrics.of_cameras) == len(shown(metrics, "gate"))


def told(now_us: int, *events: Any) -> tuple[Metrics, LogCapture]:
    metrics, logs = Metrics(), LogCapture()
    tell_kept(Step(1, 1, revisions=events), metrics, logs.logger(), now_us)
    return metrics, logs


def test_a_line_when_an_event_opens_and_one_when_it_closes() -> None:
    events = [an_event(revision=n) for n in range(3)]
    _, logs = told(ANCHOR_US + 5_000_000, *events)

    assert ["event.opened", "event.closed"] == [name for name, _ in logs.entries]
    (opened,) = logs.named("event.opened")
    assert ("door", "opening bottle", 0.75, "e1") == tuple(
        opened[key] for key in ("camera", "label", "score", "id")
    )
    assert str(opened["start"]).endswith("Z")


def test_an_event_that_is_taken_back_is_said_and_one_without_a_clock_has_stream_time() -> None:
    _, logs = told(0, an_event(phase=Phase.RETRACTED, anchor_us=None))

    (line,) = logs.named("event.retracted")
    assert ("1.00 s", "3.00 s") == (line["start"], line["end"])


@pytest.mark.parametrize(("ahead_s", "n_early"), [(-1, 0), (0, 0), (1, 1), (1e6, 1)])
def test_a_revision_from_the_future_has_no_latency(ahead_s: float, n_early: int) -> None:
    event = an_event()
    now_us = ANCHOR_US + event.decided_us - round(ahead_s * 1e6)
    metrics, _ = told(now_us, event)

    n_timed = metrics.registry.get_sample_value("s2netd_event_latency_seconds_count")
    assert (n_early, 1 - n_early) == (value(metrics, "early_revisions_total") or 0, n_timed)
    total_s = metrics.registry.get_sample_value("s2netd_event_latency_seconds_sum")
    assert math.isclose(max(-ahead_s, 0), total_s or 0)


def test_a_change_of_condition_is_one_line() -> None:
    logs = LogCapture()
    late = replace(STATUS, condition=Condition.LATE, lag_s=12.34)
    for before, now in ((None, STATUS), (STATUS, STATUS), (STATUS, late), (late, late)):
        tell_change(logs.logger(), before, now)

    assert [("live", None), ("late", "live")] == [
        (line["state"], line["before"]) for line in logs.named("camera.state")
    ]
    assert 12.3 == logs.named("camera.state")[-1]["lag_s"]


def test_once_a_minute_all_that_are_not_well_are_named() -> None:
    logs = LogCapture()
    roll = RollCall(logs.logger())
    silent = replace(STATUS, camera="hall", condition=Condition.SILENT)
    late = replace(STATUS, camera="yard", condition=Condition.LATE)
    for second in range(150):
        roll.tell([STATUS, silent, late], second)
    for second in range(150, 400):
        roll.tell([STATUS], second)
    for second in range(400, 459):
        roll.tell([late], second)

    lines = logs.named("cameras.unwell")
    assert [{"cameras": 2, "silent": ["hall"], "late": ["yard"]}] * 2 == lines
