"""/livez and the watchdog see every kind of work, and no end takes longer than it may."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from daemon.calls import RunningCalls
from daemon.errors import EXIT_FAILED
from daemon.last_resort import LEAST_S, LastResort
from daemon.metrics import Metrics
from daemon.outages import Kind, Outages
from daemon.systemd import Notifier
from daemon.watch import Watch
from tests.support.daemons import LogCapture
from tests.support.waiting import SetClock, until


def a_watch(clock: SetClock, calls: RunningCalls, notifier: Notifier | None = None) -> Watch:
    return Watch(notifier or Notifier({}), calls, Outages(clock=clock), Metrics(), clock=clock)


@pytest.mark.parametrize("what", ["decode", "device", "journal", "events", "chunk folder"])
def test_a_call_that_never_comes_back_is_named(what: str) -> None:
    clock = SetClock()
    calls = RunningCalls(clock)
    watch = a_watch(clock, calls)
    with calls.running(what):
        clock.now_s += watch.stall_s - 1
        assert watch.is_live()[0]
        clock.now_s += 1
        is_live, details = watch.is_live()
        assert (False, {"what": what, "seconds": watch.stall_s}) == (
            is_live,
            details["running_calls"][0],
        )
    assert watch.is_live()[0]


async def test_an_event_loop_that_does_not_turn_is_not_live() -> None:
    clock = SetClock()
    watch = a_watch(clock, RunningCalls(clock))
    watching = asyncio.create_task(watch.serve())
    await asyncio.sleep(0)
    clock.now_s += watch.stall_s  # and the loop does not turn meanwhile
    assert not watch.is_live()[0]
    watching.cancel()
    await asyncio.wait([watching])
    assert watch.is_live()[0]


async def test_the_watchdog_is_fed_while_a_broker_is_away_and_not_while_a_call_hangs(
    tmp_path: Path,
) -> None:
    said: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)  # noqa: FBT003
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000"})
        clock = SetClock()
        calls = RunningCalls(clock)
        watch = a_watch(clock, calls, notifier)
        watch.outages.watch(Kind.BROKER, "journal").failed("away")
        clock.now_s += 1000
        watching = asyncio.create_task(watch.serve())

        async def heard() -> None:
            said.append(await asyncio.get_running_loop().sock_recv(manager, 100))

        for _ in range(3):
            await heard()
        with calls.running("journal"):
            clock.now_s += watch.stall_s
            while True:  # what was said before
                try:
                    async with asyncio.timeout(0.3):
                        await heard()
                except TimeoutError:
                    break
        await heard()
        watching.cancel()
        await asyncio.wait([watching])
    assert {b"WATCHDOG=1"} == set(said)


async def test_livez_may_be_asked_in_any_thread_while_calls_come_and_go() -> None:
    clock = SetClock()
    calls = RunningCalls(clock)
    watch, over = a_watch(clock, calls), threading.Event()
    failures: list[Exception] = []

    def ask() -> None:
        while not over.is_set():
            try:
                watch.is_live()
            except Exception as error:  # noqa: BLE001
                failures.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(20_000):
        numbers = [calls.begin() for _ in range(3)]
        for number in numbers:
            calls.end(number)
    over.set()
    asking.join()
    assert [] == failures


async def test_an_end_that_hangs_is_cut_short_and_says_what_hangs() -> None:
    logs, left = LogCapture(), list[int]()
    calls = RunningCalls(SetClock())
    last_resort = LastResort(0, calls, logs.logger(), left.append)
    last_resort._timeout_s = 0.01
    with calls.running("journal"):
        last_resort.begin()
        await until(lambda: bool(left))
    assert [EXIT_FAILED] == left
    assert [["journal"]] == [fields["hanging"] for fields in logs.named("daemon.cut_short")]


async def test_an_end_in_order_is_left_alone() -> None:
    left = list[int]()
    last_resort = LastResort(0, RunningCalls(SetClock()), LogCapture().logger(), left.append)
    assert LEAST_S == last_resort._timeout_s
    last_resort.begin()
    last_resort.ended()
    assert last_resort._thread is not None
    last_resort._thread.join()
    last_resort.leave_if_stuck(0)
    assert [] == left
