"""Every metric: name, unit, labels. A test compares docs/operating.md with this file."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGE_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
LATENCY_BUCKETS_S = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 60, 300)


@dataclass(frozen=True, slots=True)
class Metrics:
    """One daemon's metrics, in a registry of their own so that two daemons fit in one process.

    Attributes:
        registry: Holds them all.
        of_cameras: Every metric with a label ``camera``, and all its labels.
    """

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    chunks: Counter = field(init=False)
    duplicate_chunks: Counter = field(init=False)
    corrupt_chunks: Counter = field(init=False)
    gaps: Counter = field(init=False)
    frames: Counter = field(init=False)
    late_frames: Counter = field(init=False)
    snippets: Counter = field(init=False)
    windows: Counter = field(init=False)
    events: Counter = field(init=False)
    snapshots_refused: Counter = field(init=False)
    camera_failures: Counter = field(init=False)
    quarantines: Counter = field(init=False)
    lost_decoders: Counter = field(init=False)
    steps: Counter = field(init=False)
    lost_partitions: Counter = field(init=False)
    hanging_transactions: Counter = field(init=False)
    removed_chunks: Counter = field(init=False)
    passed_over_files: Counter = field(init=False)
    silent_cameras: Counter = field(init=False)
    early_revisions: Counter = field(init=False)
    low_fps_runs: Counter = field(init=False)
    spared_snippets: Counter = field(init=False)
    queued_chunks: Gauge = field(init=False)
    queued_bytes: Gauge = field(init=False)
    paused_partitions: Gauge = field(init=False)
    open_events: Gauge = field(init=False)
    watermark_seconds: Gauge = field(init=False)
    last_frame_seconds: Gauge = field(init=False)
    last_chunk_seconds: Gauge = field(init=False)
    camera_lag_seconds: Gauge = field(init=False)
    clock_skew_seconds: Gauge = field(init=False)
    camera_fps: Gauge = field(init=False)
    camera_snippets_per_minute: Gauge = field(init=False)
    camera_state: Gauge = field(init=False)
    camera_rung: Gauge = field(init=False)
    tasks: Gauge = field(init=False)
    loop_lag_seconds: Gauge = field(init=False)
    waiting: Gauge = field(init=False)
    device_batch: Histogram = field(init=False)
    device_windows: Histogram = field(init=False)
    device_wait_seconds: Histogram = field(init=False)
    device_busy_seconds: Counter = field(init=False)
    model_swaps: Counter = field(init=False)
    http_dropped: Counter = field(init=False)
    stage_seconds: Histogram = field(init=False)
    event_latency_seconds: Histogram = field(init=False)

    of_cameras: dict[Counter | Gauge, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, metric: Counter | Gauge | Histogram) -> None:
            object.__setattr__(self, name, metric)

        def of_camera(metric: Counter | Gauge, labels: tuple[str, ...]) -> None:
            if "camera" in labels:
                self.of_cameras[metric] = labels

        def counter(name: str, what: str, *labels: str) -> None:
            metric = Counter(f"s2netd_{name}", what, labels, registry=self.registry)
            put(name, metric)
            of_camera(metric, labels)

        def gauge(name: str, what: str, *labels: str) -> None:
            metric = Gauge(f"s2netd_{name}", what, labels, registry=self.registry)
            put(name, metric)
            of_camera(metric, labels)

        def histogram(
            name: str, what: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
        ) -> None:
            metric = Histogram(
                f"s2netd_{name}", what, labels, buckets=buckets, registry=self.registry
            )
            put(name, metric)

        counter("chunks", "Video chunks that were used, each once", "camera")
        counter("duplicate_chunks", "Chunks seen before and skipped", "camera")
        counter("corrupt_chunks", "Chunks refused or undecodable", "camera", "error")
        counter("gaps", "Places where footage is missing", "camera")
        counter("frames", "Frames decoded", "camera")
        counter("late_frames", "Frames left out because their time did not rise", "camera")
        counter("snippets", "Snippets given to the backbone", "camera")
        counter("windows", "Windows given to the localizer", "camera")
        counter("events", "Revisions of events published", "camera", "phase")
        counter("snapshots_refused", "Stored states that could not be used", "camera")
        counter("camera_failures", "Unexpected errors that cost a camera its run", "camera")
        counter("quarantines", "Times a camera was not tried for a while", "camera")
        counter("lost_decoders", "Processes for decoding that were ended and started anew")
        _how_steps_are_kept(counter)
        _what_folders_come_to(counter)
        counter("silent_cameras", "Times a camera fell silent", "camera")
        counter("low_fps_runs", "Runs with fewer frames a second than the model wants", "camera")
        counter("spared_snippets", "Snippets that the backbone did not look at", "camera", "why")
        counter(
            "early_revisions",
            "Revisions kept before their footage was captured, by our clock: they have no latency",
            "camera",
        )
        gauge("queued_chunks", "Chunks waiting in memory", "camera")
        gauge("queued_bytes", "Bytes of all chunks in memory that are not finished")
        gauge("paused_partitions", "Partitions paused because a queue, or the memory, is full")
        gauge("open_events", "Events that are not final", "camera")
        gauge(
            "watermark_seconds",
            "Unix time before which no further event of the camera's run will start",
            "camera",
        )
        _how_cameras_are(gauge)
        gauge("tasks", "Tasks of the daemon's event loop")
        gauge("loop_lag_seconds", "How late the event loop was when it was last looked at")
        gauge("waiting", "Parts of the daemon that wait for what is away", "for")
        _how_the_device_is(counter, histogram)
        counter("model_swaps", "Models that took over while cameras were served", "outcome")
        counter("http_dropped", "Connections to the HTTP port closed without an answer", "why")
        histogram("stage_seconds", "Time of one stage on one chunk", STAGE_BUCKETS_S, ("stage",))
        histogram(
            "event_latency_seconds",
            "From the capture of the newest frame that a revision rests on to its delivery",
            LATENCY_BUCKETS_S,
        )

    def release(self, cameras: Collection[str]) -> None:
        """Drop what is told of how cameras are, for they are another daemon's; counts stay."""
        gauges = ((m, labels) for m, labels in self.of_cameras.items() if isinstance(m, Gauge))
        _remove(cameras, gauges)

    def forget(self, cameras: Collection[str]) -> None:
        """Drop everything that is told of cameras."""
        _remove(cameras, self.of_cameras.items())


def _how_the_device_is(counter: Callable[..., None], histogram: Callable[..., None]) -> None:
    histogram("device_batch", "Snippets in one backbone call", BATCH_BUCKETS)
    histogram("device_windows", "Windows in one localizer call", BATCH_BUCKETS)
    histogram(
        "device_wait_seconds",
        "From a camera's asking the device to each call that takes some of what it asked for",
        STAGE_BUCKETS_S,
        ("stage",),
    )
    counter("device_busy_seconds", "Time the device spent in calls", "stage")


def _how_steps_are_kept(counter: Callable[..., None]) -> None:
    counter("steps", "Steps kept in the journal")
    counter("lost_partitions", "Partitions that another process took over unasked")
    counter("hanging_transactions", "Transactions that a broker left hanging; they were ended")


def _what_folders_come_to(counter: Callable[..., None]) -> None:
    counter("removed_chunks", "Done chunks of a folder removed by its retention", "camera")
    counter("passed_over_files", "Files of a folder that came too late to be read", "camera")


def _how_cameras_are(gauge: Callable[..., None]) -> None:
    gauge("last_frame_seconds", "Unix time of capture of the newest finished frame", "camera")
    gauge("last_chunk_seconds", "Unix time when the newest chunk was finished", "camera")
    gauge(
        "camera_lag_seconds",
        "Seconds from the capture of the newest finished frame until that was finished, or "
        "until now if chunks wait; negative if it lies in the future of our clock",
        "camera",
    )
    gauge(
        "clock_skew_seconds",
        "By how much the newest finished frame lay in the future of our clock",
        "camera",
    )
    gauge("camera_fps", "Frames in a second of the camera's footage", "camera")
    gauge("camera_snippets_per_minute", "Snippets in the last minute", "camera")
    gauge(
        "camera_state",
        "1 for the state that a camera is in: live, silent, late, refused or degraded",
        "camera",
        "state",
    )
    gauge("camera_rung", "1 for the rung that a camera is on", "camera", "rung")


def _remove(
    cameras: Collection[str], metrics: Iterable[tuple[Counter | Gauge, tuple[str, ...]]]
) -> None:
    for metric, labels in metrics:
        for camera in cameras:
            if labels == ("camera",):
                metric.remove(camera)
            else:  # looks at all its series
                metric.remove_by_labels({"camera": camera})
