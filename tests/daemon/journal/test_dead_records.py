"""Dead letters come back from their records as they were, or say that they were cut."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import MalformedRecordError
from daemon.journal.base import DeadLetter
from daemon.journal.kafka.dead_records import dead_record, parse_dead
from daemon.kafka.topics import RECORD_MARGIN_BYTES
from daemon.wire.facts import ChunkFacts
from daemon.wire.headers import MAX_NAME_CHARS
from daemon.wire.records import chunk_record
from tests.support.records import a_chunk, names

MOST = 100_000


def a_letter(**other: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "camera": "door",
        "partition": "chunks/3",
        "offset": 812,
        "error": "CorruptChunkError",
        "reason": "no frame in it",
        "payload": b"\x00bytes",
        "key": b"door",
        "headers": (("vc_epoch", b"run-1"),),
    }
    return DeadLetter(**(fields | other))


def headers() -> st.SearchStrategy[tuple[tuple[str, bytes | None], ...]]:
    name = st.sampled_from(["vc_epoch", "vd_version", "vd_headers", "vd_key"]) | names()
    return st.lists(st.tuples(name, st.none() | st.binary(max_size=20)), max_size=6).map(tuple)


@given(
    st.builds(
        DeadLetter,
        camera=names(),
        partition=names(),
        offset=st.integers(0, 2**63 - 1),
        error=names(),
        reason=st.text(max_size=200),
        payload=st.binary(max_size=200),
        key=st.none() | st.binary(max_size=50),
        headers=headers(),
    )
)
def test_a_letter_comes_back_as_it_was_whatever_its_headers_are_called(
    letter: DeadLetter,
) -> None:
    record = dead_record(letter, most_bytes=MOST)

    stored = parse_dead(record.key, record.headers, record.value)

    assert letter == stored.letter
    assert not stored.truncated
    assert (len(letter.payload), hashlib.sha256(letter.payload).hexdigest()) == (
        stored.size,
        stored.sha256,
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"payload": b"abc" * MOST},
        {"headers": tuple((f"h{number}", bytes(1000)) for number in range(100))},
        {"headers": (("huge", bytes(10**6)),)},
        {"key": bytes(10**6)},
        {"reason": "ä" * 10**6},
    ],
    ids=["payload", "headers", "header", "key", "reason"],
)
def test_what_is_too_large_is_cut_and_says_so(changed: dict[str, Any]) -> None:
    letter = a_letter(**changed)

    record = dead_record(letter, most_bytes=MOST)

    n_headers = sum(len(name) + len(value or b"") + 10 for name, value in record.headers)
    assert len(record.value) <= MOST
    assert len(record.key) + n_headers <= 2 * RECORD_MARGIN_BYTES
    stored = parse_dead(record.key, record.headers, record.value)
    assert stored.truncated == ("reason" not in changed)
    assert len(letter.payload) == stored.size
    assert hashlib.sha256(letter.payload).hexdigest() == stored.sha256
    assert letter.payload.startswith(stored.letter.payload)
    assert stored.letter.payload
    assert stored.letter.headers == letter.headers[: len(stored.letter.headers)]


def test_headers_of_the_longest_names_are_not_cut() -> None:
    longest = "\U0001f3a5" * MAX_NAME_CHARS
    chunk = a_chunk(longest, run=longest)
    record = chunk_record(chunk, ChunkFacts(content_type="video/mp4"), site=longest)
    letter = a_letter(camera=longest, key=record.key, headers=tuple(record.headers))

    dead = dead_record(letter, most_bytes=MOST)

    assert not parse_dead(dead.key, dead.headers, dead.value).truncated


def test_a_letter_is_plain_to_read() -> None:
    record = dead_record(a_letter(), most_bytes=MOST)

    headers = dict(record.headers)
    assert (b"door", b"\x00bytes") == (record.key, record.value)
    assert (b"chunks/3", b"812", b"CorruptChunkError", b"no frame in it", b"6") == tuple(
        headers[f"vd_{name}"] for name in ("partition", "offset", "error", "reason", "size")
    )


@pytest.mark.parametrize("others", [[], [("vd_version", b"2")], [("vd_version", b"1")]])
def test_what_is_no_letter_is_refused(others: list[tuple[str, bytes | None]]) -> None:
    with pytest.raises(MalformedRecordError):
        parse_dead(b"k", others, b"")
