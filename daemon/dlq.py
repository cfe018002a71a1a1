"""`s2netd dlq`: a configuration → its journal's dead letters, told, kept or sent again."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from daemon.compose import journal_settings, options_of
from daemon.config import load
from daemon.errors import EXIT_FAILED, ConfigError
from daemon.journal.kafka.dead_letters import DeadLetters
from daemon.journal.kafka.dead_records import StoredLetter
from daemon.kafka.producer import DurableProducer
from daemon.kafka_sections import KafkaSourceConfig
from daemon.library_lines import silence_kafka_client
from daemon.moments import parse_moment
from daemon.wire.headers import rfc3339
from daemon.wire.records import Record, readable_camera

Say = Callable[[str], None]
T = TypeVar("T")

_COLUMNS = ("OFFSET", "TIME", "CAMERA", "CHUNK AT", "BYTES", "ERROR", "REASON")
_MOST_REASON_CHARS = 100


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant.

    Attributes:
        camera: Only this camera's; None: all.
        since: Only those that were written since then; see ``parse_moment``. None: all.
    """

    camera: str | None = None
    since: str | None = None


def run_list(config: Path, wanted: LetterFilter, limit: int, say: Say) -> int:
    """Say a table of the newest letters, oldest first; return the exit code.

    Raises:
        ConfigError: The configuration is wrong or has no such journal, or there is no topic.
        TransportError: The broker cannot be reached.
    """
    letters, _ = _opened(config)

    async def newest() -> list[StoredLetter]:
        return list(deque([each async for each in _matching(letters, wanted)], limit))

    rows = [_row(each) for each in _run(newest())]
    if not rows:
        say("no dead letters")
        return 0
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
    return 0


def run_show(config: Path, offset: int, out: Path | None, say: Say) -> int:
    """Say all that is known of one letter, and write its bytes to a file; return the exit code.

    Raises:
        NoSuchLetterError: There is no letter at this offset.
        ConfigError, TransportError: As of ``run_list``; or the file cannot be written.
    """
    letters, _ = _opened(config)
    stored = _run(letters.at(offset))
    for line in _told(stored):
        say(line)
    if out is not None:
        try:
            out.write_bytes(stored.letter.payload)
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error
        say(f"{out}: {len(stored.letter.payload)} bytes")
    return 0


@dataclass(frozen=True, slots=True)
class Replay:
    """Which letters are to be sent again.

    Attributes:
        offsets: Those at these offsets; empty: all that the filter lets through.
        wanted: The filter.
    """

    offsets: Sequence[int]
    wanted: LetterFilter


def run_replay(config: Path, replay: Replay, confirm: Callable[[str], bool], say: Say) -> int:
    """Send letters again, as they came; return the exit code.

    Args:
        config: The daemon's configuration.
        replay: Which letters.
        confirm: Asked whether to go on.
        say: Told of each letter.

    Raises:
        NoSuchLetterError, ConfigError, TransportError: As of ``run_show``.
    """
    letters, source = _opened(config)

    async def chosen() -> list[int]:
        if replay.offsets:
            return [(await letters.at(offset)).offset for offset in replay.offsets]
        return [each.offset async for each in _matching(letters, replay.wanted)]

    offsets = _run(chosen())
    if not offsets:
        say("no dead letters")
        return 0
    if not confirm(
        f"{len(offsets)} record(s) go back to topic {source.topic}. The daemon leaves out as a "
        "duplicate what belongs to a run of its camera that has ended, or that it has passed. "
        "Go on?"
    ):
        say("nothing was sent")
        return EXIT_FAILED
    producer = DurableProducer(options_of(source)["connection"], source.topic)
    return _run(_send_all(letters, offsets, producer, source.topic, say))


async def _send_all(
    letters: DeadLetters, offsets: Sequence[int], producer: DurableProducer, topic: str, say: Say
) -> int:
    n_left = 0
    await producer.start()
    try:
        for offset in offsets:  # one by one, for each may be as large as a chunk
            stored = await letters.at(offset)
            if stored.truncated:
                say(f"offset {offset}: is truncated, and stays where it is")
                n_left += 1
                continue
            await producer.send([_original(stored)])
            say(f"offset {offset}: sent to topic {topic}")
    finally:
        await producer.close()
    return EXIT_FAILED if n_left else 0


def _original(stored: StoredLetter) -> Record:
    """The record as it came; one without a key gets its camera's, whose chunks are in order."""
    letter = stored.letter
    key = letter.camera.encode() if letter.key is None else letter.key
    return Record(key, list(letter.headers), letter.payload)  # type: ignore[arg-type] # may be None


def _opened(path: Path) -> tuple[DeadLetters, KafkaSourceConfig]:
    """The letters, and where their records came from."""
    silence_kafka_client()
    config = load(path)
    settings = journal_settings(config)
    if settings is None or not isinstance(config.source, KafkaSourceConfig):
        raise ConfigError(
            f"{path}: the journal is not in Kafka, so it keeps no dead letters; see journal.kind"
        )
    return DeadLetters(settings), config.source


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def _matching(letters: DeadLetters, wanted: LetterFilter) -> AsyncIterator[StoredLetter]:
    now = datetime.now().astimezone()
    since_us = None if wanted.since is None else parse_moment(wanted.since, "--since", now)
    async for stored in letters.since(since_us):
        if wanted.camera is None or _camera(stored) == wanted.camera:
            yield stored


def _camera(stored: StoredLetter) -> str:
    """The camera by its key, which a chunk of a refused camera has too."""
    return readable_camera(stored.letter.key, stored.letter.camera)


def _row(stored: StoredLetter) -> tuple[str, ...]:
    letter = stored.letter
    reason = " ".join(letter.reason.split())
    if len(reason) > _MOST_REASON_CHARS:
        reason = reason[: _MOST_REASON_CHARS - 1] + "…"
    return (
        str(stored.offset),
        (rfc3339(stored.at_us) or "")[:19] + "Z",
        _camera(stored),
        f"{letter.partition}@{letter.offset}",
        f"{stored.size}{' (truncated)' if stored.truncated else ''}",
        letter.error,
        reason,
    )


def _told(stored: StoredLetter) -> list[str]:
    letter = stored.letter
    key = "none" if letter.key is None else _shown(letter.key)
    facts = {
        "offset": str(stored.offset),
        "time": rfc3339(stored.at_us) or "",
        "camera": _camera(stored),
        "chunk at": f"{letter.partition}@{letter.offset}",
        "error": letter.error,
        "reason": letter.reason,
        "bytes": str(stored.size),
        "sha256": stored.sha256,
        "key": key,
    }
    if stored.truncated:
        facts["truncated"] = f"{len(letter.payload)} bytes were kept"
    lines = [f"{name}: {value}" for name, value in facts.items()]
    headers = [
        f"  {name}: {'none' if value is None else _shown(value)}" for name, value in letter.headers
    ]
    return [*lines, "headers:" if headers else "headers: none", *headers]


def _shown(raw: bytes) -> str:
    """Bytes as text that does nothing to a terminal."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in text)
