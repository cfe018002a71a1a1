"""A partition is given back while a step of it is on its way to a broker that has gone.

Both end the same producer, so one of them cancels what the other waits for.
"""

import asyncio
import signal

import pytest

from daemon.journal.base import Step
from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.connection import KafkaConnection
from tests.support.kafka import Member, OwnBroker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TURNS = (0, 1, 10, 1000)  # of the event loop, that the step is on its way


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "hangs"])
async def test_a_step_on_its_way_keeps_no_partition_from_being_given_back(
    own_broker: OwnBroker, sig: signal.Signals
) -> None:
    connection = KafkaConnection(own_broker.start())
    for topic in ("chunks", "events"):
        own_broker.run("topic", topic, str(len(TURNS)))
    settings = KafkaJournalSettings(
        connection, group_id="group", chunks_topic="chunks", events_topic="events", prefix="own"
    )
    journal = KafkaJournal(settings, Member())
    await journal.start()
    partitions = [f"chunks/{number}" for number in range(len(TURNS))]
    for partition in partitions:
        await journal.take(partition)
        await journal.commit(partition, Step(number=1, next_offset=0))
    own_broker.signal(sig)

    for partition, n_turns in zip(partitions, TURNS, strict=True):
        keeping = asyncio.ensure_future(journal.commit(partition, Step(number=2, next_offset=1)))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        keeping.cancel()
        await journal.give_back(partition)
        await asyncio.wait([keeping])
        assert keeping.cancelled()

    await journal.close()
    if sig == signal.SIGSTOP:
        own_broker.signal(signal.SIGCONT)  # or it could not be stopped
