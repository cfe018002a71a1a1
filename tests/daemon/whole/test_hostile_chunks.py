"""Five hundred bad chunks at one camera: none stops the daemon or touches another camera."""

from dataclasses import replace

import pytest

from daemon.errors import MalformedRecordError
from daemon.journal.memory import MemoryJournal
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.text import MOST_CHARS
from tests.support.daemons import TestDaemon, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.mutations import mutated_chunks

N_BAD = 500


async def test_a_reason_that_quotes_megabytes_is_cut_in_log_and_dead_letter():
    log = MemoryLog()
    log.append_bad("hostile", MalformedRecordError("vc_epoch is " + "\0" * 8 * 2**20))
    log.finish()
    journal = MemoryJournal()
    daemon = TestDaemon(MemoryChunkSource(log), journal)

    await daemon.serve()

    (letter,) = journal.records.dead
    (line,) = daemon.logs.named("chunk.dropped")
    assert letter.reason == line["reason"]
    assert letter.reason.startswith("vc_epoch is ")
    assert letter.reason.endswith("(8388620 characters, cut)")
    assert len(letter.reason) <= MOST_CHARS


@pytest.mark.slow
async def test_500_bad_chunks_are_named_and_harm_nobody_else(tmp_path):
    clip = colour_clip(tmp_path / "busy.mp4", BUSY)
    good, template = chunks_of(clip, "good"), chunks_of(clip, "hostile")[0]
    bad = list(mutated_chunks(1, N_BAD))
    log = MemoryLog()
    for number, (_, payload) in enumerate(bad):
        chunk = replace(template, sequence=number, payload=payload, start_us=number * 10**6)
        log.append("hostile", replace(chunk, start_ticks=number, time_base=1))
        if number % 40 == 0 and number // 40 < len(good):
            log.append("good", good[number // 40])
    for chunk in good[len(bad) // 40 + 1 :]:
        log.append("good", chunk)
    log.finish()
    journal = MemoryJournal()
    daemon = TestDaemon(MemoryChunkSource(log), journal)

    await daemon.serve()

    dropped = daemon.logs.named("chunk.dropped")
    decoded = daemon.count("chunks_total", camera="hostile")
    counted = sum(
        daemon.count("corrupt_chunks_total", camera="hostile", error=error)
        for error in ("CorruptChunkError", "RefusedChunkError")
    )
    assert N_BAD == len(bad)
    assert N_BAD == decoded + counted
    assert counted == len(dropped)
    assert counted > N_BAD / 2
    assert all(entry["camera"] == "hostile" and entry["reason"] for entry in dropped)
    records = journal.records
    assert straight_line(clip, "good") == [r for r in records.events if r.camera == "good"]
    assert counted == len(records.dead)
    assert all(bad[letter.offset][1] == letter.payload for letter in records.dead)
