"""`s2netd dlq` on a real broker: a daemon's bad records, listed, shown and sent again."""

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from daemon.cameras import CameraLimits
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import Record, chunk_record, parse_event
from tests.support.cli import Answer, Cli, in_process
from tests.support.daemons import straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.kafka_stage import Stage, foreign

LARGE = 200_000  # larger than the daemon accepts
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_process(monkeypatch, capsys)


class Served:
    """A daemon has read good records and bad ones."""

    def __init__(self, cli: Cli, stage: Stage, config: Path, bad: list[Record]) -> None:
        self.stage, self.config, self.bad = stage, config, bad
        self._cli = cli

    def dlq(self, *words: object) -> Answer:
        return self._cli("dlq", *words, "--config", self.config)

    def rows(self, *words: object) -> list[list[str]]:
        answer = self.dlq("list", *words)
        assert 0 == answer.code, answer.err
        head, *rows = answer.out.splitlines()
        assert ["OFFSET", "TIME", "CAMERA", "CHUNK", "AT", "BYTES", "ERROR", "REASON"] == (
            head.split()
        )
        return [row.split() for row in rows]

    def offset(self, key: str) -> str:
        (row,) = self.rows("--camera", key)
        return row[0]


@pytest.fixture
def served(cli: Cli, tmp_path: Path, kafka_bootstrap: str, clip: Path) -> Served:
    stage = Stage(kafka_bootstrap, n_partitions=1, max_chunk_bytes=100_000)
    chunks = chunks_of(clip, "good")
    cut = chunk_record(chunks_of(clip, "cut")[0], ChunkFacts(), site="s")
    bad = [
        Record(cut.key, cut.headers, cut.value[:-40]),  # its CRC says so
        foreign(b"junk", b"no video", ("mine", b"\x00\xff"), ("mine", b"again")),
        foreign(b"large", bytes(LARGE)),
        foreign(None, b"nobody's"),
    ]

    async def run() -> None:
        await stage.open()
        await stage.put(*chunks[:3])
        await stage.put_records(bad)
        await stage.put(*chunks[3:])
        async with stage.daemon() as daemon:
            await daemon.app.finished(len(chunks) + len(bad))

    asyncio.run(run())
    return Served(cli, stage, stage.config(tmp_path), bad)


@pytest.mark.kafka
def test_each_bad_record_is_listed_with_what_is_wrong_with_it(served: Served) -> None:
    rows = served.rows()

    chunks = served.stage.journal.chunks_topic
    assert ["cut", "junk", "large", f"{chunks}/0"] == [row[2] for row in rows]
    assert [f"{chunks}/0@{offset}" for offset in (3, 4, 5, 6)] == [row[3] for row in rows]
    assert str(LARGE) == rows[2][4]
    assert "(truncated)" == rows[2][5]
    assert "RefusedChunkError" == rows[2][6]
    assert "CorruptChunkError" == rows[0][5]
    assert "CRC-32" in " ".join(rows[0])

    assert rows[1:2] == served.rows("--camera", "junk")
    assert rows[-2:] == served.rows("--limit", 2)
    assert rows == served.rows("--since", "1h")
    none = served.dlq("list", "--since", "2099-01-01T00:00:00Z")
    assert (0, "no dead letters\n") == (none.code, none.out)


@pytest.mark.kafka
def test_one_is_shown_with_its_headers_and_its_bytes_are_written(
    served: Served, tmp_path: Path
) -> None:
    out = tmp_path / "junk.bin"

    answer = served.dlq("show", served.offset("junk"), "--out", out)

    assert 0 == answer.code, answer.err
    assert "camera: junk" in answer.out
    assert "error: RefusedChunkError" in answer.out
    assert f"sha256: {hashlib.sha256(b'no video').hexdigest()}" in answer.out
    assert "  mine: ?\\xff\n  mine: again\n" in answer.out
    assert b"no video" == out.read_bytes()
    cut = served.dlq("show", served.offset("large"))
    assert f"bytes: {LARGE}" in cut.out
    assert "truncated: 65536 bytes were kept" in cut.out


@pytest.mark.kafka
def test_what_is_sent_again_is_what_came(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, bad = served.stage.journal.chunks_topic, served.bad
    n_before = len(asyncio.run(served.stage.records(chunks)))
    offsets = [served.offset(key) for key in ("junk", "cut")]

    monkeypatch.setattr("typer.confirm", lambda _question: False)
    refused = served.dlq("replay", *offsets)
    sent = served.dlq("replay", *offsets, "--yes")
    everything = served.dlq("replay", "--all", "--yes")

    records = asyncio.run(served.stage.records(chunks))[n_before:]
    assert (1, "nothing was sent\n") == (refused.code, refused.out)
    assert 0 == sent.code, sent.err
    by_camera = [bad[1], bad[0]]
    assert [(r.key, r.headers, r.value) for r in by_camera] == [
        (r.key, list(r.headers), r.value) for r in records[:2]
    ]
    assert (1, 3) == (everything.code, everything.out.count("sent to topic"))
    assert "is truncated, and stays where it is" in everything.out
    of_nobody = records[-1]
    assert (f"{chunks}/0".encode(), b"nobody's") == (of_nobody.key, of_nobody.value)


@pytest.mark.kafka
def test_a_camera_that_was_one_too_many_is_served_once_there_is_room(
    cli: Cli, tmp_path: Path, kafka_bootstrap: str, clip: Path
) -> None:
    stage = Stage(kafka_bootstrap, n_partitions=1)
    first, late = chunks_of(clip, "first"), chunks_of(clip, "late")

    async def serve(most: int, n_deliveries: int) -> None:
        async with stage.daemon(cameras=CameraLimits(most=most)) as daemon:
            await daemon.app.finished(n_deliveries)

    async def begin() -> None:
        await stage.open()
        await stage.put(*first, *late)
        await serve(1, len(first) + len(late))

    asyncio.run(begin())
    answer = cli("dlq", "replay", "--all", "--yes", "--config", stage.config(tmp_path))
    asyncio.run(serve(2, len(late)))

    assert (0, len(late)) == (answer.code, answer.out.count("sent to topic"))
    values = [r.value for r in asyncio.run(stage.records(stage.journal.events_topic))]
    said = [event for event in map(parse_event, values) if event.camera == "late"]
    wanted = straight_line(clip, "late")
    assert [(e.event_id, e.revision, e.span) for e in wanted] == [
        (e.event_id, e.revision, e.span) for e in said
    ]


@pytest.mark.kafka
def test_it_asks_and_says_what_becomes_of_old_chunks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", asked.append)

    served.dlq("replay", "--all", "--camera", "junk")

    (question,) = asked
    assert question.startswith("1 record(s) go back to topic ")
    assert "duplicate" in question


@pytest.mark.kafka
def test_an_offset_without_a_letter_is_one_line(served: Served) -> None:
    answer = served.dlq("show", 4711)

    assert 1 == answer.code
    assert (
        f"topic {served.stage.journal.dead_topic}: no dead letter at offset 4711; it holds "
        in (answer.complaint)
    )


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_one_line(
    cli: Cli, tmp_path: Path, kafka_bootstrap: str
) -> None:
    stage = Stage(kafka_bootstrap)

    answer = cli("dlq", "list", "--config", stage.config(tmp_path))

    assert 78 == answer.code
    assert f"topic {stage.journal.dead_topic} is not there" in answer.complaint


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("list",), "the journal is not in Kafka, so it keeps no dead letters"),
        (("show", 1), "the journal is not in Kafka, so it keeps no dead letters"),
        (("replay", 1, "--yes"), "the journal is not in Kafka, so it keeps no dead letters"),
        (("replay",), "give either offsets or --all"),
        (("replay", 1, "--all"), "give either offsets or --all"),
        (("replay", 1, "--camera", "x"), "--camera and --since go with --all"),
    ],
)
def test_what_cannot_be_is_one_line(
    cli: Cli, tmp_path: Path, words: tuple[object, ...], told: str
) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "source": {"kind": "directory", "path": "chunks"},
                "sink": {"kind": "jsonl", "path": "events.jsonl"},
            }
        )
    )

    answer = cli("dlq", *words, "--config", path)

    assert 78 == answer.code
    assert told in answer.complaint
