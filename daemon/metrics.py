"""Every metric: name, unit, labels. A test compares docs/operating.md with this file."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGE_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
LATENCY_BUCKETS_S = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 60, 300)


@dataclass(frozen=True, slots=True)
class Metrics:
    """One daemon's metrics, in a registry of their own so that two daemons fit in one process."""

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
    silent_cameras: Counter = field(init=False)
    queued_chunks: Gauge = field(init=False)
    paused_partitions: Gauge = field(init=False)
    open_events: Gauge = field(init=False)
    watermark_seconds: Gauge = field(init=False)
    tasks: Gauge = field(init=False)
    device_batch: Histogram = field(init=False)
    device_windows: Histogram = field(init=False)
    device_wait_seconds: Histogram = field(init=False)
    device_busy_seconds: Counter = field(init=False)
    model_swaps: Counter = field(init=False)
    http_dropped: Counter = field(init=False)
    stage_seconds: Histogram = field(init=False)
    event_latency_seconds: Histogram = field(init=False)

    def __post_init__(self) -> None:
        def put(name: str, metric: Counter | Gauge | Histogram) -> None:
            object.__setattr__(self, name, metric)

        def counter(name: str, what: str, *labels: str) -> None:
            put(name, Counter(f"s2netd_{name}", what, labels, registry=self.registry))

        def gauge(name: str, what: str, *labels: str) -> None:
            put(name, Gauge(f"s2netd_{name}", what, labels, registry=self.registry))

        def histogram(
            name: str, what: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
        ) -> None:
            metric = Histogram(
                f"s2netd_{name}", what, labels, buckets=buckets, registry=self.registry
            )
            put(name, metric)

        counter("chunks", "Video chunks processed", "camera")
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
        counter("steps", "Steps kept in the journal")
        counter("lost_partitions", "Partitions that another process took over unasked")
        counter("silent_cameras", "Times a camera fell silent", "camera")
        gauge("queued_chunks", "Chunks waiting in memory", "camera")
        gauge("paused_partitions", "Partitions paused because a camera's queue is full")
        gauge("open_events", "Events that are not final", "camera")
        gauge(
            "watermark_seconds",
            "Unix time before which no further event of the camera's run will start",
            "camera",
        )
        gauge("tasks", "Tasks of the daemon's event loop")
        histogram("device_batch", "Snippets in one backbone call", BATCH_BUCKETS)
        histogram("device_windows", "Windows in one localizer call", BATCH_BUCKETS)
        histogram(
            "device_wait_seconds",
            "From a camera's asking the device to each call that takes some of what it asked for",
            STAGE_BUCKETS_S,
            ("stage",),
        )
        counter("device_busy_seconds", "Time the device spent in calls", "stage")
        counter("model_swaps", "Models that took over while cameras were served", "outcome")
        counter("http_dropped", "Connections to the HTTP port closed without an answer", "why")
        histogram("stage_seconds", "Time of one stage on one chunk", STAGE_BUCKETS_S, ("stage",))
        histogram(
            "event_latency_seconds",
            "From the capture of the newest frame that a revision rests on to its delivery",
            LATENCY_BUCKETS_S,
        )

    def forget(self, camera: str) -> None:
        """Drop what is told of a camera that has sent nothing but what could not be used."""
        for metric in (self.queued_chunks, self.corrupt_chunks):
            for sample in next(iter(metric.collect())).samples:
                if sample.labels["camera"] == camera and not sample.name.endswith("_created"):
                    metric.remove(*sample.labels.values())
