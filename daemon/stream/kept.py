"""A step that was kept → what is counted and logged of it."""

from typing import Any

import structlog

from daemon.journal.base import Step
from daemon.metrics import Metrics
from daemon.wire.headers import rfc3339
from engine.grid import US_PER_S
from engine.types import ActionEvent, Phase


def tell_kept(
    step: Step, metrics: Metrics, log: structlog.stdlib.BoundLogger, now_us: int
) -> None:
    """Count what is in a step, and log events that open and close.

    Args:
        step: It was kept just now.
        metrics: The daemon's.
        log: The daemon's.
        now_us: Unix microseconds.
    """
    metrics.steps.inc()
    for revision in step.revisions:
        metrics.events.labels(revision.camera, revision.phase.value).inc()
        _count_latency(revision, metrics, now_us)
        if revision.phase is Phase.OPENED:
            log.info("event.opened", **_fields(revision))
        elif revision.phase is Phase.CLOSED:
            log.info("event.closed", **_fields(revision))
        elif revision.phase is Phase.RETRACTED:
            log.info("event.retracted", **_fields(revision))


def _count_latency(revision: ActionEvent, metrics: Metrics, now_us: int) -> None:
    if revision.anchor_us is None:
        return
    latency_s = (now_us - revision.anchor_us - revision.decided_us) / US_PER_S
    if latency_s < 0:  # one of two clocks is wrong, and nobody knows the latency
        metrics.early_revisions.labels(revision.camera).inc()
    else:
        metrics.event_latency_seconds.observe(latency_s)


def _fields(revision: ActionEvent) -> dict[str, Any]:
    return {
        "camera": revision.camera,
        "label": revision.class_name,
        "start": _time(revision, revision.span.start_us),
        "end": _time(revision, revision.span.end_us),
        "score": round(revision.score, 3),
        "reason": revision.reason.value,
        "id": revision.event_id,
    }


def _time(revision: ActionEvent, stream_us: int) -> str | None:
    """The time of capture; without a clock, the stream time in seconds."""
    if revision.anchor_us is None:
        return f"{stream_us / US_PER_S:.2f} s"
    return rfc3339(revision.anchor_us + stream_us)
