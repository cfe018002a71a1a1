"""The comparison sees every chunk that is missing, and whether it was said."""

from dataclasses import dataclass

from daemon.wire.facts import ChunkFacts
from daemon.wire.records import Record, chunk_record
from engine.types import VideoChunk
from tests.faults.produce import Round, compare, page


@dataclass(frozen=True)
class Kept:
    """A record as a consumer gives it."""

    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes
    offset: int = 0


def kept(camera: str, sequence: int, *, run: str = "r", is_end: bool = False) -> Kept:
    payload = b"" if is_end else b"video"
    chunk = VideoChunk(camera, run, sequence, sequence * 1000, payload, is_end=is_end)
    record: Record = chunk_record(chunk, ChunkFacts(), site="here")
    return Kept(record.key, record.headers, record.value)


def test_what_is_missing_must_have_been_said() -> None:
    one = Round("a spool", 1)
    records = [
        *(kept("gate", n) for n in (0, 1, 1, 4)),
        kept("gate", 6, is_end=True),
        *(kept("yard", n, run="second") for n in (0, 1)),
        kept("yard", 2, run="second", is_end=True),
    ]
    compare(one, records)  # type: ignore[arg-type]

    assert {"gate": 3, "yard": 0} == dict(one.missing)
    assert (5, 1) == (one.chunks.total(), one.repeated)
    assert not one.is_told
    one.said["gate"] = 3
    assert one.is_told
    one.said["yard"] = 1
    assert not one.is_told


def test_the_page_names_what_is_missing_unsaid() -> None:
    one = Round("a spool", 2**20)
    compare(one, [kept("gate", 1), kept("gate", 2, is_end=True)])  # type: ignore[arg-type]
    options = type(
        "Options", (), {"cameras": 1, "kbits": 5, "minutes": 1.0, "outage_minutes": 0.5}
    )

    text = "\n".join(page(options, [one]))  # type: ignore[arg-type]

    assert "CHUNKS ARE MISSING UNSAID; by camera, missing 1 to 1" in text
