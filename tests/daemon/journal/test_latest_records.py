"""The newest revision of each event, as the journal writes it."""

from daemon.journal.kafka.records import latest_records
from daemon.wire.records import event_record
from engine.types import Phase
from tests.support.records import an_event


def test_of_several_revisions_the_newest_is_written_as_readers_of_events_see_it() -> None:
    revisions = [an_event("a", 0), an_event("b", 0), an_event("a", 1)]

    records = latest_records(revisions, site="s")

    assert [b"a", b"b"] == [record.key for record in records]
    for record, event in zip(records, (an_event("a", 1), an_event("b", 0)), strict=True):
        wanted = event_record(event, site="s")
        assert (wanted.headers, wanted.value) == (record.headers, record.value)


def test_a_retracted_event_is_told_and_then_taken_out() -> None:
    retracted = an_event("a", 1, phase=Phase.RETRACTED)

    told, gone = latest_records([an_event("a", 0), retracted, an_event("b", 2)], site="s")[:2]

    assert event_record(retracted, site="s").value == told.value
    assert (b"a", b"") == (gone.key, gone.value)
