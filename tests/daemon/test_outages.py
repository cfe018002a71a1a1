"""What is waited for is a state: told when it begins, once a minute, and when it is over."""

import asyncio

import pytest

from daemon.errors import ConfigError, TransportError
from daemon.kafka.connection import KafkaConnection, RefusedError, describe_topic, endure, persist
from daemon.kafka.membership import NameTakenError
from daemon.outages import AGAIN_S, SETTLE_S, Kind, Outages
from tests.support.daemons import LogCapture
from tests.support.waiting import SetClock, until

CONNECTION = KafkaConnection("127.0.0.1:1", connect_timeout_s=60)


class Told:
    """Outages, and what was told of them, second by second."""

    def __init__(self) -> None:
        self.logs, self.clock = LogCapture(), SetClock()
        self.outages = Outages(self.logs.logger(), self.clock)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.now_s += 1
            self.outages.tick()

    @property
    def lines(self) -> list[str]:
        return [name for name, _fields in self.logs.entries]


def test_an_outage_is_said_once_a_minute_however_many_parts_wait_and_try() -> None:
    told = Told()
    parts = [told.outages.watch(Kind.BROKER, what) for what in ("journal", "topic chunks")]
    for _ in range(600):
        for part in parts:
            part.failed("Kafka at b:9092: no answer")
        told.pass_time(1)
    for part in parts:
        part.worked()
    told.pass_time(1)

    assert ["outage.began", *["outage.lasts"] * 9, "outage.over"] == told.lines
    began = told.logs.named("outage.began")[0]
    assert ("broker", ["journal", "topic chunks"]) == (began["waiting_for"], began["what"])
    assert "no answer" in str(began["reason"])
    assert 600 == pytest.approx(told.logs.named("outage.over")[0]["after_s"], abs=5)  # type: ignore[call-overload]


def test_a_try_that_works_when_it_is_repeated_is_nobody_s_business() -> None:
    told = Told()
    part = told.outages.watch(Kind.BROKER, "journal")
    for _ in range(100):
        part.failed("once")
        told.pass_time(SETTLE_S - 1)
        assert not told.outages.stop_all
        part.worked()
        told.pass_time(5)

    assert [] == told.lines


def test_what_comes_and_goes_floods_no_log_and_is_not_hidden() -> None:
    told = Told()
    part = told.outages.watch(Kind.DISK, "/var")
    for _ in range(100):  # ten minutes
        part.failed("full")
        told.pass_time(3)
        assert told.outages.stop_all
        part.worked()
        told.pass_time(3)

    assert 4 < len(told.lines) <= 60
    assert len(told.logs.named("outage.began")) == len(told.logs.named("outage.over"))


def test_kinds_are_told_apart() -> None:
    told = Told()
    told.outages.watch(Kind.BROKER, "journal").failed("away")
    told.outages.watch(Kind.DISK, "/var").failed("full")
    told.pass_time(AGAIN_S + SETTLE_S)

    assert 2 == told.lines.count("outage.began")
    assert ["broker", "disk"] == [each["for"] for each in told.outages.report()]
    assert "waiting for broker: journal: away; waiting for disk: /var: full" == told.outages.status


def test_one_camera_s_folder_does_not_make_the_daemon_unready() -> None:
    told = Told()
    folder = told.outages.watch(Kind.FOLDER, "/chunks/door", costs_all=False)
    folder.failed("hangs")
    told.pass_time(5)

    assert (["outage.began"], False) == (told.lines, told.outages.stop_all)
    told.outages.forget(folder)
    told.pass_time(1)
    assert ["outage.began", "outage.over"] == told.lines


async def test_a_broker_that_is_away_is_waited_for_without_end() -> None:
    outage = Outages().watch(Kind.BROKER, "journal")
    connection = KafkaConnection("127.0.0.1:1", connect_timeout_s=0.2)
    looking = asyncio.create_task(describe_topic(connection, "chunks", outage=outage))
    await until(lambda: outage.age_s > 5 * connection.connect_timeout_s)

    assert not looking.done()
    assert "Kafka at 127.0.0.1:1: topic chunks" in outage.reason
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


@pytest.mark.parametrize("error", [RefusedError, ConfigError, TransportError])
async def test_whatever_a_broker_says_in_mid_work_is_waited_out(error: type[Exception]) -> None:
    outage = Outages().watch(Kind.BROKER, "journal")
    errors = [error("no right"), error("still none")]

    async def attempt() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert "done" == await endure(CONNECTION, "a step", attempt, outage)
    assert "no right" in outage.reason
    assert 0 == outage.age_s


async def test_a_broker_that_turns_us_away_at_the_start_is_not_waited_for() -> None:
    outage = Outages().watch(Kind.BROKER, "journal")

    async def attempt() -> None:
        raise RefusedError("wrong password")

    with pytest.raises(ConfigError, match="wrong password"):
        await persist(CONNECTION, "group", attempt, outage=outage)


async def test_a_name_that_another_member_has_is_not_waited_for() -> None:
    outage = Outages().watch(Kind.BROKER, "journal")

    async def attempt() -> None:
        raise NameTakenError("two daemons")

    with pytest.raises(NameTakenError):
        await endure(CONNECTION, "a step", attempt, outage)
