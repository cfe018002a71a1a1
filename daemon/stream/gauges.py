"""A camera's status → its gauges: the one place that sets them."""

from collections.abc import Iterator

from prometheus_client import Gauge

from daemon.journal.base import CameraStatus, Condition
from daemon.metrics import Metrics
from engine.grid import US_PER_S
from engine.spec import Rung


class CameraGauges:
    """Shows how a camera is, and touches only what has changed.

    Args:
        metrics: The daemon's.
        camera: The camera.
    """

    def __init__(self, metrics: Metrics, camera: str) -> None:
        self._metrics = metrics
        self._camera = camera
        self._shown: dict[tuple[Gauge, tuple[str, ...]], float] = {}

    def show(self, status: CameraStatus, n_open: int) -> None:
        """Set everything that is told of the camera, and let go what is not known any more.

        Args:
            status: How it is.
            n_open: Its events that are not final.
        """
        for gauge, others, value in self._values(status, n_open):
            key = (gauge, others)
            if value is None:
                if self._shown.pop(key, None) is not None:
                    gauge.remove(self._camera, *others)
            elif self._shown.get(key) != value:
                self._shown[key] = value
                gauge.labels(self._camera, *others).set(value)

    def hide(self) -> None:
        """Let everything go that was shown."""
        for gauge, others in self._shown:
            gauge.remove(self._camera, *others)
        self._shown.clear()

    def _values(
        self, status: CameraStatus, n_open: int
    ) -> Iterator[tuple[Gauge, tuple[str, ...], float | None]]:
        metrics, lag_s = self._metrics, status.lag_s
        for condition in Condition:
            yield metrics.camera_state, (condition.value,), float(status.condition is condition)
        yield metrics.open_events, (), n_open
        yield metrics.camera_snippets_per_minute, (), status.snippets_per_minute
        yield metrics.camera_fps, (), status.fps
        yield metrics.camera_lag_seconds, (), lag_s
        yield metrics.clock_skew_seconds, (), None if lag_s is None else max(-lag_s, 0.0)
        yield metrics.last_frame_seconds, (), _seconds(status.last_frame_us)
        yield metrics.last_chunk_seconds, (), _seconds(status.last_chunk_us)
        for rung in Rung:
            yield metrics.camera_rung, (rung.value,), float(status.rung is rung)
        watermark_us = None
        if status.anchor_us is not None and status.watermark_us is not None:
            watermark_us = status.anchor_us + status.watermark_us
        yield metrics.watermark_seconds, (), _seconds(watermark_us)


def _seconds(time_us: int | None) -> float | None:
    return None if time_us is None else time_us / US_PER_S
