"""The composition root: configuration → a running daemon; its adapters are named only here."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from typing_extensions import override

from daemon.app import App
from daemon.calls import RunningCalls
from daemon.cameras import CameraLimits
from daemon.claims import claim
from daemon.clock import SystemClock
from daemon.config import (
    Config,
    DirectorySourceConfig,
    JsonlSinkConfig,
    ModelConfig,
    SinkConfig,
    SourceConfig,
)
from daemon.decoding.opening import NewDecoder, decoding
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.errors import EXIT_CONFIG, EXIT_FAILED, ConfigError
from daemon.journal.base import Journal
from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.journal.local import LocalJournal, LocalJournalSettings
from daemon.journal.projections.base import Projection
from daemon.journal.projections.jsonl import JsonlProjection, JsonlSettings
from daemon.journal.projections.topic import TopicProjection, TopicSettings
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.membership import claim_member_name
from daemon.kafka_sections import KafkaSinkConfig, KafkaSourceConfig
from daemon.last_resort import LastResort
from daemon.library_lines import LINES
from daemon.logs import set_up
from daemon.metrics import Metrics
from daemon.models.reading import bundle_name
from daemon.models.slot import ModelSlot
from daemon.outages import Outages
from daemon.partitions import Serving
from daemon.reload import Reloader
from daemon.sources.base import ChunkSource
from daemon.sources.directory import (
    DirectoryChunkSource,
    DirectorySourceSettings,
    Watcher,
)
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.sources.kafka.source import KafkaChunkSource
from daemon.sources.positions import POSITIONS
from daemon.sources.retention import Removed
from daemon.starting import Start, StoppedError, first_model, unless
from daemon.stream.flow import FlowControl, FlowLimits
from daemon.stream.stages import WorkerParts
from daemon.stream.tenure import StepLimits
from daemon.systemd import Notifier
from engine.errors import BundleError, S2netdError

_NO_TOPIC_CHARACTER = re.compile(r"[^A-Za-z0-9._-]")


def run_daemon(config: Config, path: Path | None = None) -> int:
    """Run until the source ends or a signal comes, and return the process's exit code.

    Args:
        config: The daemon's configuration.
        path: Its file, which is read again upon SIGHUP; None: SIGHUP does nothing.
    """
    log = set_up(config.log.form, config.log.level)
    calls = RunningCalls(SystemClock())
    last_resort = LastResort(config.drain_timeout_s, calls, log)
    exit_code = _run_to_the_end(config, log, path, calls, last_resort)
    LINES.tell(log, at_once=True)
    if not exit_code:
        log.info("daemon.stopped")
    last_resort.leave_if_stuck(exit_code)
    return exit_code


def _run_to_the_end(
    config: Config,
    log: structlog.stdlib.BoundLogger,
    path: Path | None,
    calls: RunningCalls,
    last_resort: LastResort,
) -> int:
    try:
        asyncio.run(_run(config, log, path, calls, last_resort))
    except StoppedError:
        pass
    except (ConfigError, BundleError) as error:
        log.error("daemon.failed", error=type(error).__name__, reason=str(error))  # noqa: TRY400 - no traceback for operators
        return EXIT_CONFIG
    except S2netdError as error:
        log.error("daemon.failed", error=type(error).__name__, reason=str(error))  # noqa: TRY400 - no traceback for operators
        return EXIT_FAILED
    except Exception:
        log.exception("daemon.crashed")
        return EXIT_FAILED
    finally:
        last_resort.ended()
    return 0


async def _run(
    config: Config,
    log: structlog.stdlib.BoundLogger,
    path: Path | None,
    calls: RunningCalls,
    last_resort: LastResort,
) -> None:
    stop = _Stop(last_resort)
    loop = asyncio.get_running_loop()
    # This comes first, for SIGTERM without a handler is ignored by PID 1 of a container.
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    reloader = Reloader(path, config, log) if path is not None else None
    loop.add_signal_handler(signal.SIGHUP, reloader.reload if reloader else lambda: None)
    async with composed(config, log, stop, reloader, calls) as app:
        try:
            await app.serve()
        finally:
            last_resort.begin()


class _Stop(asyncio.Event):
    """Told to stop, the process ends in time.

    Args:
        last_resort: Sees to it.
    """

    def __init__(self, last_resort: LastResort) -> None:
        super().__init__()
        self._last_resort = last_resort

    @override
    def set(self) -> None:
        self._last_resort.begin()
        super().set()


@contextlib.asynccontextmanager
async def composed(
    config: Config,
    log: structlog.stdlib.BoundLogger,
    stop: asyncio.Event | None = None,
    reloader: Reloader | None = None,
    calls: RunningCalls | None = None,
) -> AsyncIterator[App]:
    """Open, warm up and connect everything; close it in the opposite order afterwards.

    /livez and /readyz answer from the first moment, for building a GPU's plans can take minutes.
    A broker that is away or a disk that is full is waited for.

    Args:
        config: The daemon's configuration.
        log: Starts, stops and faults are logged here.
        stop: Whoever sets it lets the daemon drain.
        reloader: Reads the configuration again upon SIGHUP, and tells the model of it.
        calls: Told of each call that runs.

    Raises:
        StoppedError: ``stop`` was set before everything was open.
    """
    notifier = Notifier()
    apps: list[App] = []  # health and source refer to the app, which is only made from them later
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(_claim_places, config, stack)
        metrics, calls = Metrics(), calls or RunningCalls(SystemClock())
        outages = Outages(log)
        start = Start(config, notifier, metrics, log, apps, calls, outages)
        watch = start.watch
        stack.callback(start.open_health().close)
        device = Device(batching(config.model), metrics, calls)
        stack.callback(device.close)
        swap = await unless(stop, start.open_model(device, stack), watch.serve())
        slot = swap.slot
        model = slot.current
        log.info("daemon.started", model=model.description, precision=model.why, pid=os.getpid())
        new_decoder = await stack.enter_async_context(decoding(config.decode, metrics, calls, log))
        watcher = _folder_watcher(metrics, log)
        source, journal, instance = _transports(
            config, stack, outages, calls, watcher, _hanging_teller(metrics, log)
        )
        stack.push_async_callback(journal.close)
        await unless(stop, journal.start(), watch.serve())
        stack.push_async_callback(source.close)
        app = App(
            source=source,
            journal=journal,
            device=device,
            parts=_parts(config, log, slot, device, metrics, calls, new_decoder),
            flow=FlowControl(_flow_limits(config)),
            notifier=notifier,
            serving=Serving(
                drain_timeout_s=config.drain_timeout_s,
                steps=StepLimits(config.journal.commit_interval_s),
                cameras=_camera_limits(config),
                instance=instance,
            ),
            watch=watch,
            stop=stop,
            companion=swap.serve,
        )
        await unless(stop, app.start(), watch.serve())
        apps.append(app)
        if first_model(config.model) is not config.model:
            swap.want(config.model)
        if reloader is not None:
            reloader.begin(swap.want)
        yield app


def _parts(
    config: Config,
    log: structlog.stdlib.BoundLogger,
    slot: ModelSlot,
    device: Device,
    metrics: Metrics,
    calls: RunningCalls,
    new_decoder: NewDecoder,
) -> WorkerParts:
    return WorkerParts(
        models=slot,
        device=device,
        metrics=metrics,
        calls=calls,
        clock=SystemClock(),
        log=log,
        new_decoder=new_decoder,
        foreign_time=config.foreign_time,
    )


def batching(model: ModelConfig) -> BatchPolicy:
    """The policy by which snippets and windows share the device's calls."""
    return BatchPolicy(model.max_batch, model.max_wait_ms / 1000)


def _flow_limits(config: Config) -> FlowLimits:
    return FlowLimits(config.queue_chunks, config.queue_chunks // 2, config.queue_bytes)


def _camera_limits(config: Config) -> CameraLimits:
    return CameraLimits(
        most=config.max_cameras,
        silent_after_s=config.silent_after_s,
        forget_after_s=config.forget_after_s,
        status_interval_s=config.status_interval_s,
        late_after_s=config.late_after_s,
    )


def _claim_places(config: Config, stack: contextlib.AsyncExitStack) -> None:
    """Keep other daemons out of what only one may use, until all else is closed."""
    source, journal = config.source, config.journal.path
    if isinstance(source, DirectorySourceConfig) and os.path.isdir(source.path):  # noqa: PTH112
        lock = source.path / POSITIONS / ".lock"
        stack.callback(claim(lock, f"{source.path}: this folder of chunks").close)
    if not config.keeps_in_kafka:
        lock = Path(f"{os.path.realpath(journal)}.lock")  # a link's journal is what it leads to
        stack.callback(claim(lock, f"{journal}: this journal").close)


def _transports(
    config: Config,
    stack: contextlib.AsyncExitStack,
    outages: Outages,
    calls: RunningCalls,
    watcher: Watcher,
    on_hanging: Callable[[str, int], None],
) -> tuple[ChunkSource, Journal, str | None]:
    """Where chunks come from, where what follows from them goes, and our name in the group."""
    source = config.source
    if isinstance(source, DirectorySourceConfig):
        most = config.decode.max_chunk_bytes
        files = DirectorySourceSettings(**options_of(source), max_chunk_bytes=most)
        source_of_files = DirectoryChunkSource(files, outages, calls, watcher)
        return source_of_files, _local_journal(config, outages, calls), None
    topic = KafkaSourceSettings(**{**options_of(source), "group_id": group_of(config)})
    if not topic.group_instance_id:
        member = claim_member_name(topic.group_id, str(config.journal.path.resolve()))
        stack.callback(member.close)
        topic = replace(topic, group_instance_id=member.name)
    settings = journal_settings(config)
    if settings is None:
        consumer = KafkaChunkSource(topic, outages)
        return consumer, _local_journal(config, outages, calls), topic.group_instance_id
    consumer = KafkaChunkSource(replace(topic, commit_interval_s=None), outages)
    journal = KafkaJournal(settings, consumer, outages, on_hanging)
    return consumer, journal, topic.group_instance_id


def _hanging_teller(
    metrics: Metrics, log: structlog.stdlib.BoundLogger
) -> Callable[[str, int], None]:
    """What is told of a transaction that the broker has left hanging."""

    def tell(partition: str, number: int) -> None:
        metrics.hanging_transactions.inc()
        log.warning("transaction.hung", partition=partition, last_step=number)

    return tell


def _folder_watcher(metrics: Metrics, log: structlog.stdlib.BoundLogger) -> Watcher:
    """Counts and logs what a folder's files come to, besides being read."""

    def on_removed(removed: Mapping[str, Removed]) -> None:
        for camera, one in removed.items():
            metrics.removed_chunks.labels(camera).inc(one.n_chunks)
        log.info(
            "chunks.removed",
            cameras=len(removed),
            chunks=sum(one.n_chunks for one in removed.values()),
            bytes=sum(one.n_bytes for one in removed.values()),
        )

    def on_passed_over(camera: str, n_files: int) -> None:
        metrics.passed_over_files.labels(camera).inc(n_files)
        log.warning("chunks.passed_over", camera=camera, files=n_files)

    return Watcher(on_removed, on_passed_over)


def group_of(config: Config) -> str:
    """The consumer group: two models must not share out one set of cameras between them.

    Raises:
        BundleError: It is named for a bundle that cannot be read.
    """
    source = config.source
    named = source.group_id if isinstance(source, KafkaSourceConfig) else None
    return named or f"s2netd-{bundle_name(config.model)}"


def journal_settings(config: Config) -> KafkaJournalSettings | None:
    """Where the journal in Kafka keeps things; None if the journal is a local one."""
    source, sink, journal = config.source, config.sink, config.journal
    if not isinstance(source, KafkaSourceConfig) or not isinstance(sink, KafkaSinkConfig):
        return None
    if not config.keeps_in_kafka:
        return None
    group_id = group_of(config)
    return KafkaJournalSettings(
        connection=options_of(sink)["connection"],
        group_id=group_id,
        chunks_topic=source.topic,
        events_topic=sink.topic,
        prefix=journal.prefix or _NO_TOPIC_CHARACTER.sub("-", group_id),
        site=config.site,
        guarantee=journal.guarantee,
        max_record_bytes=source.max_chunk_bytes,
    )


def _local_journal(config: Config, outages: Outages, calls: RunningCalls) -> Journal:
    settings = LocalJournalSettings(config.journal.path, site=config.site)
    return LocalJournal(settings, _projection(config, outages, calls), outages, calls)


def _projection(config: Config, outages: Outages, calls: RunningCalls) -> Projection:
    sink = config.sink
    if isinstance(sink, JsonlSinkConfig):
        return JsonlProjection(JsonlSettings(**options_of(sink), site=config.site), calls)
    return TopicProjection(TopicSettings(**options_of(sink), site=config.site), outages)


def options_of(section: SourceConfig | SinkConfig) -> dict[str, Any]:
    """The keyword arguments of an adapter's settings, which are named like the operator's keys.

    Kafka's keys about the broker become one argument, ``connection``.
    """
    options = section.model_dump(exclude={"kind"})
    if section.kind == "kafka":
        security = options.pop("security")
        options["connection"] = KafkaConnection(options.pop("bootstrap_servers"), **security)
    return options
