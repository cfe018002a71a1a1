"""Sets structlog up, and lists the event names that the daemon may log.

INFO tells of starts, stops and changes. WARNING tells what an operator may act on. ERROR comes
with an exit, with lost data, or with a refusal of what was asked for. ``docs/runbook.md`` says of
each event what to do.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor
from typing_extensions import override

from daemon.clock import SystemClock
from daemon.library_lines import LINES
from daemon.log_lines import Floods, Prioritized, bounded, is_journal, printable

EVENTS = {
    "daemon.started": "configuration read, model warm",
    "daemon.ready": "consuming",
    "daemon.draining": "told to stop; finishing what was begun",
    "daemon.stopped": "everything closed",
    "daemon.drain_timeout": "the drain deadline passed; the rest is read again at the next start",
    "daemon.failed": "exit with an error",
    "daemon.crashed": "exit with an error that nobody foresaw",
    "daemon.cut_short": "an end in order took too long; the process ends, and names what hangs",
    "produce.started": "`s2netd produce --config`: configuration read, cameras are opened",
    "produce.connected": "a camera sends",
    "produce.away": "a camera does not answer, or stopped sending; it is connected to again",
    "produce.note": "footage was not simply copied, or pictures of it were left out",
    "produce.unreadable": "a file of a folder cannot be read; the others are sent",
    "produce.not_sent": "chunks were given up, and why",
    "produce.status": "how a camera is, if that was asked for",
    "produce.password_shown": "the command line holds a password",
    "produce.camera_failed": "an unexpected error cost a camera its connection",
    "produce.stopped": "told to stop; what could be written is",
    "produce.failed": "exit with an error",
    "outage.began": "a broker, disk or folder is away; it is waited for, and nothing is lost",
    "outage.lasts": "it still is, said once a minute",
    "outage.over": "it is there again",
    "library.left_out": "so many lines of libraries were left out, and of which kinds",
    "task.lost": "what a camera or another part waited for was cancelled; the daemon fails",
    "config.reloaded": "the configuration file was read again",
    "config.restart_needed": "keys of it that changed need a restart; the rest was applied",
    "config.refused": "it cannot be used; nothing changed",
    "model.runtime_said": "TensorRT or its driver warns of something",
    "model.precision_note": "a precision is left out, or what was measured of them is not usable",
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
    "stream.late_frames": "pictures were left out, for their time did not rise",
    "stream.snapshot_refused": "a stored state cannot go on; its events end there",
    "camera.failed": "an unexpected error cost a camera its run; its open events end there",
    "camera.too_slow": "to decode a chunk took far longer than it plays",
    "decoder.lost": "a process for decoding was ended and is started anew",
    "decoder.not_started": "the machine gives no process for decoding; it is tried again",
    "camera.let_go": "a new camera needed a place, and this one was silent for longest",
    "camera.quarantined": "a camera did harm again, or has done nothing else; it is not tried",
    "stream.rung": "more or less of a camera's footage is looked at now",
    "stream.low_fps": "a run has clearly fewer frames a second than the model wants",
    "camera.state": "a camera is live, silent, late, refused or degraded now",
    "cameras.unwell": "cameras that are not live, once a minute",
    "event.opened": "an event was published for the first time",
    "event.closed": "an event was published for the last time",
    "event.retracted": "an event was taken back, for what followed contradicts it",
    "chunk.dropped": "a chunk was refused or corrupt",
    "chunks.removed": "done chunks of folders went, as source.retention_s or _bytes say",
    "chunks.passed_over": "files came after one with a later number, or with the same; not read",
    "decoder.fell_back": "a camera was decoded on the CPU instead of the GPU",
    "chunk.duplicate": "a chunk was seen before",
    "partition.taken": "a partition is ours; its cameras go on where its last owner stopped",
    "partition.kept": "a rebalance has brought a partition back, and it goes on from memory",
    "partition.lost": "another process owns a partition; what was in hand is dropped unheard",
    "transaction.hung": "the broker left one hanging; the last step is known, and work goes on",
    "partition.went_on": "others of the group have served it since; what was open here ends",
    "partition.made_anew": "its log is another one under the same name; it is read from its start",
    "partition.other_model": "a daemon of the group on another host has served it another model",
    "partition.paused": "a queue, or the memory, is full",
    "partition.resumed": "it is nearly empty again",
    "source.finished": "the source has nothing more to give",
    "http.dropped": "a connection to the HTTP port was closed without an answer",
    "library.said": "a library, or a part of the daemon, warns of something",
    "log.untold": "so many more lines of one kind came in a minute, and then no more",
}

# Lines a minute for one camera; the others are counted in ``n_untold``. What is not named here is
# said each time. Runs may be many and short, and each is a change.
MOST_A_MINUTE = {
    "chunk.duplicate": 1,
    "chunk.dropped": 1,  # of an error
    "camera.let_go": 1,
    "decoder.lost": 6,
    "decoder.not_started": 1,
    "decoder.fell_back": 60,  # each camera's says so once
    "stream.gap": 1,
    "stream.late_frames": 1,
    "camera.state": 10,  # and in each state
    "stream.low_fps": 1,
    "http.dropped": 1,
    "stream.opened": 60,
    "produce.note": 6,
    "produce.away": 2,
    "produce.connected": 6,
    "produce.camera_failed": 1,
    "stream.ended": 60,
}
_MOST_OF_A_LIBRARY = 1  # lines a minute of one wording


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
    floods = Floods(SystemClock().monotonic_s, MOST_A_MINUTE)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The plain traceback: a pretty one shows local variables, and with them footage and passwords.
    rendering: list[Processor] = [
        structlog.processors.format_exc_info,
        bounded,
        *_renderers(form, out),
    ]
    set_level(level)
    structlog.configure(
        processors=[_level, floods, _TellEnded(floods), *shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _send_library_logs(out, floods, shared, rendering)
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger


def _renderers(form: Literal["json", "console"], out: TextIO) -> list[Processor]:
    plain = structlog.dev.plain_traceback
    render: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)
    )
    escaping: list[Processor] = [] if form == "json" else [printable]
    return [*escaping, Prioritized(render) if is_journal(out) else render]


class _TellEnded:
    """Tells of floods that are over: how many lines nobody has seen."""

    def __init__(self, floods: Floods) -> None:
        self._floods = floods

    def __call__(self, _logger: object, _method: str, fields: EventDict) -> EventDict:
        for kind, n_untold in self._floods.ended():
            structlog.get_logger().info("log.untold", kind=kind, lines=n_untold)
        return fields


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


class _LibraryFloods(logging.Filter):
    """Lets few lines of one wording pass a minute; of our own parts, of one text."""

    def __init__(self, floods: Floods) -> None:
        super().__init__()
        self._floods = floods

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        # A library's numbers say little; what our own parts name must each be said.
        text = record.getMessage() if record.name.startswith("daemon.") else str(record.msg)
        kind = (record.name, record.levelname, text[:500])
        n_untold = self._floods.count(kind, _MOST_OF_A_LIBRARY)
        record.n_untold = n_untold
        return n_untold is not None


def _translated(_logger: object, _method: str, fields: EventDict) -> EventDict:
    """A library's words are no event's name."""
    record = fields["_record"]
    told = {**fields, "event": "library.said", "logger": record.name, "said": fields["event"]}
    return {**told, "n_untold": record.n_untold} if record.n_untold else told


def _send_library_logs(
    out: TextIO, floods: Floods, shared: list[Processor], rendering: list[Processor]
) -> None:
    """Log what libraries log through ``logging``, such as the Kafka client, from warnings on."""
    handler = logging.StreamHandler(out)
    handler.addFilter(_LibraryFloods(floods))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _translated],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(LINES)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
