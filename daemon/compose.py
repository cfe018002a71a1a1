"""The composition root: configuration → a running daemon. Only here are adapters named."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from daemon.app import App
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import (
    Config,
    DirectorySourceConfig,
    JsonlSinkConfig,
    KafkaSecurityConfig,
)
from daemon.device import Device
from daemon.errors import EXIT_CONFIG, EXIT_FAILED, ConfigError
from daemon.health import HealthServer
from daemon.kafka_client import KafkaConnection
from daemon.logs import set_up
from daemon.metrics import Metrics
from daemon.model import OpenModel, open_model
from daemon.overload import FlowControl, FlowLimits
from daemon.sinks.base import EventSink
from daemon.sinks.jsonl import JsonlEventSink, JsonlSinkSettings
from daemon.sinks.kafka import KafkaEventSink, KafkaSinkSettings
from daemon.sources.base import ChunkSource, OnRevoked, StartAt
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings
from daemon.sources.kafka import KafkaChunkSource, KafkaSourceSettings
from daemon.state.base import StateStore
from daemon.state.sqlite import SqliteStateSettings, SqliteStateStore
from daemon.stream_worker import WorkerParts
from daemon.systemd import Notifier
from engine.containers import DecodeLimits
from engine.errors import BundleError, S2netdError
from engine.frames import PyAvDecoder


def run_daemon(config: Config) -> int:
    """Run until the source ends or a signal comes; give the process's exit code."""
    log = set_up(config.log.form, config.log.level)
    try:
        asyncio.run(_run(config, log))
    except (ConfigError, BundleError) as error:
        log.error("daemon.failed", error=type(error).__name__, reason=str(error))  # noqa: TRY400 - no traceback for operators
        return EXIT_CONFIG
    except S2netdError as error:
        log.error("daemon.failed", error=type(error).__name__, reason=str(error))  # noqa: TRY400 - no traceback for operators
        return EXIT_FAILED
    log.info("daemon.stopped")
    return 0


async def _run(config: Config, log: structlog.stdlib.BoundLogger) -> None:
    stop = asyncio.Event()
    # From the first moment: as PID 1 of a container an unhandled SIGTERM would be ignored.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with composed(config, log, stop) as app:
        await app.serve()


@contextlib.asynccontextmanager
async def composed(
    config: Config, log: structlog.stdlib.BoundLogger, stop: asyncio.Event | None = None
) -> AsyncIterator[App]:
    """Everything open, warm and connected; closed again in the opposite order.

    Args:
        config: What to open.
        log: Where life-cycle is told.
        stop: Set to drain.
    """
    notifier = Notifier()
    notifier.status(f"opening {config.model.bundle}")
    async with contextlib.AsyncExitStack() as stack:
        metrics, calls = Metrics(), RunningCalls(SystemClock())
        model = open_model(config.model)
        stack.callback(model.close)
        max_batch = config.model.max_batch
        device = Device(model.extractor, model.localizer, max_batch, metrics, calls)
        stack.callback(device.close)
        await device.warm_up(model.warm_up)
        log.info("daemon.started", model=model.description, pid=os.getpid())
        store = SqliteStateStore(SqliteStateSettings(config.state.path))
        stack.callback(store.close)
        sink = _sink(config)
        stack.push_async_callback(sink.close)
        await sink.start()
        pool = ThreadPoolExecutor(config.decode.threads, thread_name_prefix="decode")
        stack.callback(pool.shutdown)
        parts = _parts(config, log, model, device, pool, sink, store, metrics, calls)
        apps: list[App] = []  # the source must be able to name the app that is built on it

        async def on_revoked(partition: str) -> None:
            await apps[0].release(partition)

        source = _source(config, store.low_offsets().get, on_revoked)
        stack.push_async_callback(source.close)
        app = App(
            source=source,
            device=device,
            parts=parts,
            flow=FlowControl(FlowLimits(config.queue_chunks, config.queue_chunks // 2)),
            notifier=notifier,
            drain_timeout_s=config.drain_timeout_s,
            max_cameras=config.max_cameras,
            stop=stop,
        )
        apps.append(app)
        await source.start()
        health = HealthServer(
            config.http.host, config.http.port, metrics.registry, app.is_live, app.is_ready
        )
        stack.callback(health.close)
        yield app


def _parts(
    config: Config,
    log: structlog.stdlib.BoundLogger,
    model: OpenModel,
    device: Device,
    pool: ThreadPoolExecutor,
    sink: EventSink,
    store: StateStore,
    metrics: Metrics,
    calls: RunningCalls,
) -> WorkerParts:
    limits = DecodeLimits(
        max_pixels=config.decode.max_pixels,
        max_frames=config.decode.max_frames,
        max_payload_bytes=config.decode.max_chunk_bytes,
    )
    return WorkerParts(
        spec=model.spec,
        labels=model.labels,
        device=device,
        decode_pool=pool,
        sink=sink,
        store=store,
        metrics=metrics,
        calls=calls,
        clock=SystemClock(),
        log=log,
        new_decoder=lambda: PyAvDecoder(model.spec.geometry, model.spec.timeline, limits),
    )


def _source(config: Config, start_at: StartAt, on_revoked: OnRevoked) -> ChunkSource:
    source = config.source
    if isinstance(source, DirectorySourceConfig):
        return DirectoryChunkSource(
            DirectorySourceSettings(
                path=source.path,
                follow=source.follow,
                poll_interval_s=source.poll_interval_s,
                max_chunk_bytes=config.decode.max_chunk_bytes,
            ),
            start_at,
        )
    return KafkaChunkSource(
        KafkaSourceSettings(
            connection=kafka_connection(source.bootstrap_servers, source.security),
            topic=source.topic,
            group_id=source.group_id,
            group_instance_id=source.group_instance_id or member_name(config.state.path),
            start=source.start,
            max_chunk_bytes=source.max_chunk_bytes,
        ),
        start_at,
        on_revoked,
    )


def _sink(config: Config) -> EventSink:
    sink = config.sink
    if isinstance(sink, JsonlSinkConfig):
        return JsonlEventSink(JsonlSinkSettings(sink.path, config.site, sink.fsync))
    return KafkaEventSink(
        KafkaSinkSettings(
            connection=kafka_connection(sink.bootstrap_servers, sink.security),
            topic=sink.topic,
            site=config.site,
        )
    )


def member_name(state_path: Path) -> str:
    """A name no other member has, the same after a restart: only one daemon can hold a state."""
    place = f"{socket.gethostname()}:{state_path.resolve()}"
    return f"s2netd-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def kafka_connection(bootstrap_servers: str, security: KafkaSecurityConfig) -> KafkaConnection:
    """The adapters' connection out of the operator's keys."""
    return KafkaConnection(
        bootstrap_servers=bootstrap_servers,
        security_protocol=security.protocol,
        sasl_mechanism=security.sasl_mechanism,
        sasl_username=security.sasl_username,
        sasl_password_file=security.sasl_password_file,
        ca_file=security.ca_file,
    )
