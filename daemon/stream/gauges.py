"""A camera's status → its gauges: the one place that sets them."""

from prometheus_client import Gauge

from daemon.journal.base import CameraStatus, Condition
from daemon.metrics import Metrics
from engine.grid import US_PER_S


def show(metrics: Metrics, status: CameraStatus, *, n_open: int) -> None:
    """Set everything that is told of a camera.

    Args:
        metrics: The daemon's.
        status: How the camera is.
        n_open: Its events that are not final.
    """
    camera, lag_s = status.camera, status.lag_s
    metrics.open_events.labels(camera).set(n_open)
    for condition in Condition:
        is_so = status.condition is condition
        metrics.camera_state.labels(camera, condition.value).set(is_so)
    metrics.camera_snippets_per_minute.labels(camera).set(status.snippets_per_minute)
    _set(metrics.camera_fps, camera, status.fps)
    _set(metrics.camera_lag_seconds, camera, lag_s)
    skew_s = None if lag_s is None else max(-lag_s, 0.0)
    _set(metrics.clock_skew_seconds, camera, skew_s)
    _set(metrics.last_frame_seconds, camera, _seconds(status.last_frame_us))
    _set(metrics.last_chunk_seconds, camera, _seconds(status.last_chunk_us))
    watermark_us = None
    if status.anchor_us is not None and status.watermark_us is not None:
        watermark_us = status.anchor_us + status.watermark_us
    _set(metrics.watermark_seconds, camera, _seconds(watermark_us))


def _set(gauge: Gauge, camera: str, value: float | None) -> None:
    """Set a gauge, or let what is not known any more go."""
    if value is None:
        gauge.remove(camera)
    else:
        gauge.labels(camera).set(value)


def _seconds(time_us: int | None) -> float | None:
    return None if time_us is None else time_us / US_PER_S
