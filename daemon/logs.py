"""Sets structlog up, and lists the event names that the daemon may log.

INFO tells of starts, stops and changes. WARNING tells what an operator may act on. ERROR comes
with an exit, with lost data, or with a refusal of what was asked for.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog

EVENTS = {
    "daemon.started": "configuration read, model warm",
    "daemon.ready": "consuming",
    "daemon.draining": "told to stop; finishing what was begun",
    "daemon.stopped": "everything closed",
    "daemon.drain_timeout": "the drain deadline passed; the rest is read again at the next start",
    "daemon.failed": "exit with an error",
    "task.lost": "what a camera or another part waited for was cancelled; the daemon fails",
    "config.reloaded": "the configuration file was read again",
    "config.restart_needed": "keys of it that changed need a restart; the rest was applied",
    "config.refused": "it cannot be used; nothing changed",
    "model.runtime_said": "TensorRT or its driver warns of something",
    "model.building": "another model is on its way; the one before serves on",
    "model.given_up": "a newer one is wanted instead",
    "model.unchanged": "the model that is wanted is the one that serves",
    "model.swapped": "another model is current; cameras go over to it between two chunks",
    "model.swap_failed": "it did not take over; the one before serves on",
    "model.close_failed": "what it held may stay held until the daemon ends",
    "model.closed": "no camera uses it any more",
    "stream.opened": "first chunk of a producer's run",
    "stream.restored": "a camera goes on from its snapshot",
    "stream.model_changed": "a camera works with another model from its next chunk on",
    "stream.ended": "the producer ended its run",
    "stream.gap": "footage is missing; the window was closed",
    "stream.snapshot_refused": "a stored state cannot go on; its events end there",
    "camera.failed": "an unexpected error cost a camera its run; its open events end there",
    "camera.too_slow": "to decode a chunk took far longer than it plays",
    "decoder.lost": "a process for decoding was ended and is started anew",
    "decoder.not_started": "the machine gives no process for decoding; it is tried again",
    "camera.quarantined": "a camera did harm again within minutes; its chunks are not tried",
    "chunk.dropped": "a chunk was refused or corrupt",
    "decoder.fell_back": "a camera was decoded on the CPU instead of the GPU",
    "chunk.duplicate": "a chunk was seen before",
    "partition.taken": "a partition is ours; its cameras go on where its last owner stopped",
    "partition.kept": "a rebalance has brought a partition back, and it goes on from memory",
    "partition.lost": "another process owns a partition; what was in hand is dropped unheard",
    "partition.went_on": "others of the group have served it since; what was open here ends",
    "partition.made_anew": "its log is another one under the same name; it is read from its start",
    "partition.other_model": "a daemon of the group on another host has served it another model",
    "partition.paused": "a camera's queue is full",
    "partition.resumed": "it is nearly empty again",
    "source.finished": "the source has nothing more to give",
}


def set_up(
    form: Literal["json", "console"], level: str, stream: TextIO | None = None
) -> structlog.stdlib.BoundLogger:
    """Configure structlog for the process, and return its root logger.

    Args:
        form: ``json`` for machines, ``console`` for people.
        level: debug, info, warning or error; nothing below it is logged.
        stream: Where log lines go; standard error by default.
    """
    out = stream or sys.stderr
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    set_level(level)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[_level, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _send_library_logs(out, renderer, shared)
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger


class _LeastLevel:
    """Drops what lies below a level that may change while loggers are in use."""

    def __init__(self) -> None:
        self.least = logging.INFO

    def __call__(
        self, _logger: object, method: str, fields: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        if logging.getLevelNamesMapping()[method.upper()] < self.least:
            raise structlog.DropEvent
        return fields


_level = _LeastLevel()  # one for the process, as structlog's configuration is


def set_level(level: str) -> None:
    """From now on log nothing below ``level``: debug, info, warning or error."""
    _level.least = logging.getLevelNamesMapping()[level.upper()]


def _send_library_logs(
    out: TextIO, renderer: structlog.types.Processor, shared: list[structlog.types.Processor]
) -> None:
    """Log what libraries log through ``logging``, such as the Kafka client, from warnings on."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
