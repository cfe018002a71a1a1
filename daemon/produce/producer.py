"""`s2netd produce`: footage → closed-GOP chunks on a transport, composed from what was asked for.

One camera from the command line, told to a person, or all those of a file, told to the log.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from daemon.calls import RunningCalls
from daemon.clock import Clock, SystemClock
from daemon.config import load_security
from daemon.errors import EXIT_CONFIG, EXIT_FAILED, ConfigError
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.topics import check_name
from daemon.last_resort import LastResort
from daemon.library_lines import LINES, silence_kafka_client
from daemon.logs import set_up
from daemon.outages import Kind, Outages
from daemon.produce.config import FolderTarget, ProduceConfig, load_cameras
from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.produce.feed import FeedStatus
from daemon.produce.fleet import Fleet, Target
from daemon.produce.kafka_writer import KafkaChunkWriter, KafkaWriterSettings
from daemon.produce.options import ProduceOptions, footage_of, footages_of
from daemon.produce.telling import console_log
from engine.errors import S2netdError
from engine.video.passwords import has_password

STATUS_EVERY_S = 10.0
# Told to stop, the process ends by then, whatever hangs; it should take 2 s at the most.
_END_WITHIN_S = 1.8


class Producer:
    """Sends one camera's footage until that ends or ``stop`` is called.

    Args:
        options: What to do.
        console: Notes and progress are shown here.
        clock: Sets the pace and gives capture times; None: the machine's.
        calls: Told of each call that may hang.

    Attributes:
        log: What is told on the console.

    Raises:
        ConfigError: The options contradict each other, or name what cannot be.
    """

    def __init__(
        self,
        options: ProduceOptions,
        console: Console,
        clock: Clock | None = None,
        calls: RunningCalls | None = None,
    ) -> None:
        self._options = options
        self._console = console
        self._clock = clock
        self._calls = calls
        self._footage = footage_of(options)
        self._fleet: Fleet | None = None
        self._is_stopped = False
        self.log = console_log(console)

    @property
    def n_chunks(self) -> int:
        """Chunks written, without end markers."""
        return sum(feed.n_chunks for feed in self._fleet.feeds) if self._fleet else 0

    @property
    def n_bytes(self) -> int:
        """Bytes of these."""
        return sum(feed.n_bytes for feed in self._fleet.feeds) if self._fleet else 0

    def stop(self) -> None:
        """Let ``run`` publish the chunk in hand and the end marker, and then return."""
        self._is_stopped = True
        if self._fleet is not None:
            self._fleet.stop()

    async def run(self) -> None:
        """Produce chunks until the source ends or ``stop`` is called.

        A camera or a target that is away is waited for.

        Raises:
            ConfigError: The source or the target is not usable as it was named.
            UnreadableVideoError: The source is no video; of a folder, some files are none.
        """
        options = self._options
        if has_password(options.source):
            self.log.warning("produce.password_shown")
        target = open_target(
            options.to,
            options.bootstrap,
            site=options.site,
            security=options.security,
            outages=Outages(self.log),
        )
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        is_plain = not self._console.is_terminal
        with Progress(
            *columns, console=self._console, transient=True, disable=is_plain
        ) as progress:
            task = progress.add_task(f"{self._footage.shown}: opening")

            def show(statuses: list[FeedStatus]) -> None:
                progress.update(task, description=statuses[0].line())

            self._fleet = Fleet(
                [self._footage],
                target,
                spool_bytes=options.spool_bytes,
                log=self.log,
                clock=self._clock,
                calls=self._calls,
                status_every_s=STATUS_EVERY_S if options.status else None,
                show=show,
            )
            if self._is_stopped:
                self._fleet.stop()
            await self._fleet.run()


def open_target(
    to: str, bootstrap: str, *, site: str, outages: Outages, security: Path | None = None
) -> Target:
    """Make the target that ``--to`` names.

    Args:
        to: ``dir:PATH`` or ``kafka:TOPIC``.
        bootstrap: Of Kafka: addresses of brokers.
        site: Written into every chunk.
        outages: Told when it is away.
        security: Of Kafka: a file with the keys of a section ``security``; None: there are none.

    Raises:
        ConfigError: ``to`` is neither, or the file is wrong.
    """
    kind, _, name = to.partition(":")
    if kind == "dir" and name:
        if security is not None:
            raise ConfigError(f"--security is {security}, but --to is {to}; a folder takes none")
        return _folder(Path(name), site, outages)
    if kind == "kafka" and name:
        keys = {} if security is None else load_security(security).model_dump()
        try:
            check_name(name)
        except ValueError as error:
            raise ConfigError(f"--to kafka:TOPIC: {error}") from error
        return _topic(KafkaConnection(bootstrap, **keys), name, site, outages)
    raise ConfigError(f"--to is {to!r}, wanted dir:PATH or kafka:TOPIC")


def _folder(path: Path, site: str, outages: Outages) -> Target:
    return Target(DirectoryChunkWriter(path, site=site), str(path), Kind.DISK, outages)


def _topic(connection: KafkaConnection, topic: str, site: str, outages: Outages) -> Target:
    connection.options()  # what is wrong with it is a wrong configuration, whoever is away
    name = f"topic {topic} at {connection.bootstrap_servers}"
    outage = outages.watch(Kind.BROKER, name)
    writer = KafkaChunkWriter(KafkaWriterSettings(connection, topic, site), outage)
    return Target(writer, name, Kind.BROKER, outages)


def produce_blocking(options: ProduceOptions, console: Console) -> None:
    """Produce until the source ends, or until SIGTERM or Ctrl-C."""
    silence_kafka_client()
    calls = RunningCalls(SystemClock())
    producer = Producer(options, console, calls=calls)
    last_resort = _last_resort(calls, producer.log)
    try:
        asyncio.run(_obeying_signals(producer.run, producer.stop, last_resort))
    finally:
        last_resort.ended()
    console.print(
        f"{options.camera}: {producer.n_chunks} chunks, {producer.n_bytes / 1e6:.1f} MB "
        f"to {options.to}",
        markup=False,
    )
    _leave_what_hangs(last_resort)


def produce_cameras(path: Path, *, status: bool = False) -> int:
    """Send all cameras of a file until SIGTERM or Ctrl-C; gives the process's exit code.

    Args:
        path: The file.
        status: Log each camera's status, also if the file does not ask for it.

    Raises:
        ConfigError: The file is wrong.
    """
    config = load_cameras(path)
    log = set_up(config.log.form, config.log.level)
    footages = footages_of(config)
    calls = RunningCalls(SystemClock())
    last_resort = _last_resort(calls, log)
    outages = Outages(log)
    exit_code = 0
    try:
        target = target_of(config, outages)
        log.info("produce.started", cameras=len(footages), to=target.name, pid=os.getpid())

        async def run() -> None:
            every_s = config.status_interval_s or (STATUS_EVERY_S if status else None)
            fleet = Fleet(
                footages,
                target,
                spool_bytes=config.spool_bytes,
                log=log,
                calls=calls,
                status_every_s=every_s,
            )
            await _obeying_signals(fleet.run, fleet.stop, last_resort)

        asyncio.run(run())
    except S2netdError as error:
        log.error("produce.failed", error=type(error).__name__, reason=str(error))  # noqa: TRY400 - no traceback for operators
        exit_code = EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED
    finally:
        last_resort.ended()
    LINES.tell(log, at_once=True)
    if not exit_code:
        log.info("produce.stopped")
    _leave_what_hangs(last_resort, exit_code)
    return exit_code


def target_of(config: ProduceConfig, outages: Outages) -> Target:
    """Where all cameras' chunks go.

    Raises:
        ConfigError: What it is reached with cannot be used.
    """
    to = config.to
    if isinstance(to, FolderTarget):
        return _folder(to.path, config.site, outages)
    connection = KafkaConnection(to.bootstrap_servers, **to.security.model_dump())
    return _topic(connection, to.topic, config.site, outages)


async def _obeying_signals(
    run: Callable[[], Coroutine[Any, Any, None]],
    stop: Callable[[], object],
    last_resort: LastResort,
) -> None:
    """Run; the first SIGTERM or Ctrl-C is the beginning of the end."""

    def end() -> None:
        last_resort.begin()
        stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await run()


def _last_resort(calls: RunningCalls, log: structlog.stdlib.BoundLogger) -> LastResort:
    return LastResort(_END_WITHIN_S, calls, log, least_s=_END_WITHIN_S)


def _leave_what_hangs(last_resort: LastResort, exit_code: int = 0) -> None:
    """End at once if a thread hangs, say in a camera that does not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    last_resort.leave_if_stuck(exit_code)
