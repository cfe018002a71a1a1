"""Names of group members: each daemon its own, given up at once, and never shared unnoticed."""

import asyncio
import logging
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.protocol.group import HeartbeatRequest, LeaveGroupRequest

from daemon.cancellation import own_cancellation
from daemon.errors import ConfigError, ForeignCancellationError
from daemon.kafka.clients import start, stop
from daemon.kafka.membership import (
    MemberName,
    NameTakenError,
    NameWatch,
    claim_member_name,
    leave_group,
)
from tests.support.kafka import MakeTopic, OwnBroker, create_topics

needs_broker = pytest.mark.kafka

CLAIM = """
import sys, time
from daemon.kafka.membership import claim_member_name
held = claim_member_name(*sys.argv[1:])
print(held.name, flush=True)
time.sleep(600)
"""


@pytest.fixture
def place() -> str:
    """One that no other run of these tests on this machine has."""
    return uuid.uuid4().hex


class TestNames:
    def test_two_daemons_with_one_configuration_have_two_names(self, place: str) -> None:
        with closing(claim(place)) as first, closing(claim(place)) as second:
            assert first.name != second.name
            assert [first.name[:-2], "-0"] == [second.name[:-2], first.name[-2:]]
            assert re.fullmatch(r"s2netd-[0-9a-f]{32}-0", first.name)  # a name Kafka takes

    @pytest.mark.parametrize(("group_id", "beside"), [("other", ""), ("group", "2")])
    def test_a_name_is_of_its_group_and_place(
        self, place: str, group_id: str, beside: str
    ) -> None:
        there = claim_member_name(group_id, place + beside)
        with closing(claim(place)) as one, closing(there) as other:
            assert one.name[:-2] != other.name[:-2]
            assert "-0" == other.name[-2:]

    def test_a_name_that_was_given_up_is_the_next_one_s(self, place: str) -> None:
        with closing(claim(place)) as first, closing(claim(place)):
            first.close()
            first.close()
            with closing(claim(place)) as third:
                assert first.name == third.name

    def test_a_daemon_that_was_killed_has_its_name_again_after_a_restart(self, place: str) -> None:
        daemon = subprocess.Popen(
            [sys.executable, "-c", CLAIM, "group", place], stdout=subprocess.PIPE, text=True
        )
        assert daemon.stdout is not None
        name = daemon.stdout.readline().strip()
        with closing(claim(place)) as beside:
            assert name != beside.name
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()

        with closing(claim(place)) as restarted:
            assert name == restarted.name

    def test_odd_places_have_names_too(self) -> None:
        with closing(claim("Kamera 7/é\udcff")) as held:
            assert held.name.isascii()

    def test_without_abstract_sockets_the_process_is_named(
        self, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        with closing(claim(place)) as held:
            assert re.fullmatch(r"s2netd-[0-9a-f]{32}-p\d+", held.name)


def claim(place: str) -> MemberName:
    return claim_member_name("group", place)


class Group:
    """A topic and consumers of a group of the same name."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self._members: list[AIOKafkaConsumer] = []

    async def join(self, name: str | None, *, heartbeat_ms: int = 200) -> AIOKafkaConsumer:
        """A member that has joined; its session ends long after any test."""
        member = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=self.topic,
            group_instance_id=name,
            enable_auto_commit=False,
            session_timeout_ms=45_000,
            heartbeat_interval_ms=heartbeat_ms,
        )
        member.subscribe([self.topic])
        await start(member)
        self._members.append(member)
        return member

    async def commit(self, member: AIOKafkaConsumer) -> None:
        await member.commit({TopicPartition(self.topic, 0): 0})

    async def names(self) -> set[str]:
        """The names of the members that the broker has, each by its first letter."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            (answer,) = await admin.describe_consumer_groups([self.topic])
        finally:
            await admin.close()
        ((_code, _group, _state, _kind, _protocol, members, *_rest),) = answer.groups
        return {member_id[0] for member_id, *_others in members}  # which begin with the names

    async def close(self) -> None:
        for member in self._members:
            # aiokafka may cancel what it waits for itself; it must end all the same.
            with suppress(ForeignCancellationError), own_cancellation("the end of a member"):
                await stop(member)


@pytest.fixture
async def group(kafka_bootstrap: str, make_topic: MakeTopic) -> AsyncIterator[Group]:
    group = Group(kafka_bootstrap, await make_topic(2))
    yield group
    await group.close()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what must happen long before a session of 45 s ends."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


def partitions(member: AIOKafkaConsumer) -> set[int]:
    return {partition.partition for partition in member.assignment()}


async def has_both(member: AIOKafkaConsumer) -> None:
    await eventually(lambda: {0, 1} == partitions(member))


async def has_a_heartbeat(member: AIOKafkaConsumer) -> None:
    """Wait until the client has done with joining."""
    await eventually(lambda: member._coordinator._heartbeat_task is not None)


async def both_have_one(first: AIOKafkaConsumer, second: AIOKafkaConsumer) -> None:
    await eventually(lambda: (1, 1) == (len(partitions(first)), len(partitions(second))))


@needs_broker
class TestLeaving:
    async def test_partitions_of_a_member_that_left_move_on_before_its_session_ends(
        self, group: Group, caplog: pytest.LogCaptureFixture
    ) -> None:
        leaving, staying = await group.join("a"), await group.join("b")
        await both_have_one(leaving, staying)

        await leave_group(leaving)
        await leaving.stop()

        await has_both(staying)
        assert [] == told(caplog)

    async def test_aiokafka_alone_leaves_a_named_member_in_its_group(self, group: Group) -> None:
        stopping, leaving = await group.join("a"), await group.join("b")
        await both_have_one(stopping, leaving)

        await stopping.stop()
        assert {"a", "b"} == await group.names()
        await leave_group(leaving)
        assert {"a"} == await group.names()

    async def test_a_member_leaves_while_it_waits_for_others_to_join(self, group: Group) -> None:
        leaving, slow = await group.join("a"), await group.join("b", heartbeat_ms=20_000)
        await both_have_one(leaving, slow)
        await has_a_heartbeat(leaving)
        # The third makes the group rebalance, and for 20 s the slow one does not hear of it.
        third = asyncio.create_task(group.join("c"))

        await eventually(lambda: leaving._coordinator._heartbeat_task is None)
        await leave_group(leaving)
        async with asyncio.timeout(10):
            await leaving.stop()

        assert "a" not in await group.names()
        await leave_group(slow)
        await third
        assert {"c"} == await group.names()

    async def test_a_member_that_left_does_not_join_again(
        self, group: Group, caplog: pytest.LogCaptureFixture
    ) -> None:
        leaving, staying = await group.join("a"), await group.join("b")
        await both_have_one(leaving, staying)
        await has_a_heartbeat(leaving)
        await leave_group(leaving)

        await group.join("c")
        leaving._coordinator.request_rejoin()
        await leave_group(leaving)  # safe to repeat

        assert {"b", "c"} == await group.names()
        assert not [each for each in caplog.messages if "Heartbeat send request failed" in each]

    async def test_a_member_without_a_name_leaves_when_it_stops(self, group: Group) -> None:
        nameless = await group.join(None)
        await group.join("b")

        await leave_group(nameless)
        assert 2 == len(await group.names())
        await nameless.stop()
        assert {"b"} == await group.names()

    async def test_a_consumer_without_a_group_has_none_to_leave(self, group: Group) -> None:
        consumer = AIOKafkaConsumer(group.topic, bootstrap_servers=group.bootstrap)
        await leave_group(consumer)
        await consumer.start()
        await leave_group(consumer)
        await consumer.stop()

    async def test_a_broker_that_is_away_is_one_line(
        self, own_broker: OwnBroker, caplog: pytest.LogCaptureFixture
    ) -> None:
        group = Group(own_broker.start(), "chunks")
        admin = AIOKafkaAdminClient(bootstrap_servers=group.bootstrap)
        await admin.start()
        await create_topics(admin, NewTopic("chunks", 2, 1))
        await admin.close()
        first, second = await group.join("a"), await group.join("b")

        own_broker.signal(signal.SIGSTOP)
        await leave_group(first, timeout_s=0.2)
        own_broker.signal(signal.SIGKILL)
        await leave_group(second, timeout_s=20)

        hung, killed = told(caplog)
        assert re.search(r"group chunks: member a could not leave \(TimeoutError\(\)\)", hung)
        assert re.search(r"group chunks: member b could not leave \(.*Error.*\)", killed)
        await asyncio.wait_for(group.close(), 60)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own lines."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "s2netd.kafka" and record.levelno >= logging.WARNING
    ]


@needs_broker
class TestOneNameTwice:
    async def test_aiokafka_alone_has_two_members_rob_each_other_in_turn(
        self, group: Group
    ) -> None:
        """What ``NameWatch`` is for; if this fails, aiokafka may have learnt of names."""
        first = await group.join("a", heartbeat_ms=20_000)
        second = await group.join("a", heartbeat_ms=20_000)

        for robbed, other in [(first, second), (second, first)] * 2:
            before = robbed._coordinator.member_id
            with pytest.raises(CommitFailedError):
                await group.commit(robbed)
            await has_another_id(robbed, before)
            await has_both(robbed)
            assert {0, 1} == partitions(other)  # and does not know better

    async def test_a_commit_finds_out(self, group: Group) -> None:
        old = await group.join("a", heartbeat_ms=20_000)
        watch = NameWatch(old)
        await group.commit(old)
        new = await group.join("a", heartbeat_ms=20_000)

        with pytest.raises(ConfigError, match=TAKEN.format(group.topic)):
            await group.commit(old)
        with pytest.raises(NameTakenError):
            watch.check()
        with pytest.raises(NameTakenError):
            await group.commit(old)
        await leave_group(old)  # what it has left is not the new one's place
        await old.stop()
        await group.commit(new)

    async def test_a_heartbeat_finds_out(self, group: Group) -> None:
        old = await group.join("a")
        watch = NameWatch(old)
        new = await group.join("a")
        newest = NameWatch(new)

        with pytest.raises(ConfigError, match=TAKEN.format(group.topic)):
            await poll(old)
        with pytest.raises(NameTakenError):
            watch.check()
        await old.stop()
        await group.commit(new)
        newest.check()

    async def test_a_rebalance_finds_out(self, group: Group) -> None:
        old = await group.join("a", heartbeat_ms=20_000)
        watch = NameWatch(old)
        new = await group.join("a")
        old._coordinator.request_rejoin()  # as when the topic gets more partitions

        with pytest.raises(KafkaError, match="UnknownError"):
            await poll(old)
        with pytest.raises(ConfigError, match=TAKEN.format(group.topic)):
            watch.check()
        await old.stop()
        await group.commit(new)

    async def test_a_member_whose_session_ended_joins_again(self, group: Group) -> None:
        member = await group.join("a")
        watch, own = NameWatch(member), member._coordinator
        before = own.member_id
        await own._client.send(own.coordinator_id, LeaveGroupRequest(group.topic, before))

        await has_another_id(member, before)
        await has_both(member)
        watch.check()
        await group.commit(member)

    async def test_a_late_answer_about_the_member_before_is_no_robbery(self) -> None:
        """The name is this member's by now, under the id that it got when it joined again."""

        class Coordinator:
            group_id, generation, member_id, _group_instance_id = "group", 1, "a-1", "a"

            async def _send_req(self, request: object) -> Any:
                assert isinstance(request, HeartbeatRequest), "asked about a member that is over"
                self.member_id = "a-2"
                return SimpleNamespace(error_code=25)

        coordinator = Coordinator()
        watch = NameWatch(SimpleNamespace(_coordinator=coordinator))

        answer = await coordinator._send_req(HeartbeatRequest("group", 1, "a-1"))
        assert 25 == answer.error_code
        watch.check()

    async def test_a_member_without_a_name_is_not_watched(self, group: Group) -> None:
        nameless = await group.join(None)
        watch = NameWatch(nameless)

        await group.commit(nameless)
        watch.check()


TAKEN = (
    "group {}: another member uses group_instance_id 'a'; give each daemon its own, or leave the "
    "key out"
)


async def has_another_id(member: AIOKafkaConsumer, before: str) -> None:
    """Wait until the member has joined again."""
    await eventually(lambda: member._coordinator.member_id not in ("", before))


async def poll(member: AIOKafkaConsumer) -> None:
    """Ask for records until the consumer raises."""
    async with asyncio.timeout(30):
        while True:
            await member.getmany(timeout_ms=20)
