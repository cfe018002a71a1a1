"""`s2netd` with a fault at one named point: ``python -m tests.faults.faulty_daemon run ...``.

The Kafka client is patched from outside, so the daemon itself knows nothing of faults.

S2NETD_FAULT       POINT:before|after:N:kill|stop, at the N-th time that the process gets there
S2NETD_FAULT_MARK  file that is written just before the fault
S2NETD_FETCHED     file that lists the first offset that the process reads of each partition, and
                   when, by the monotonic clock
S2NETD_UNFENCED    if set, transactional ids get a part that is the process's own, so that no
                   producer is fenced by another: what must *not* work
"""

import functools
import os
import signal
import time
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

PRODUCER, CONSUMER = "aiokafka:AIOKafkaProducer", "aiokafka:AIOKafkaConsumer"
POINTS = {
    "producer_start": f"{PRODUCER}.start",
    "fetch": f"{CONSUMER}.getmany",
    "produce": f"{PRODUCER}.send",
    "ack": f"{PRODUCER}.send",  # when the record is acknowledged, not when it is handed over
    "begin": f"{PRODUCER}.begin_transaction",
    "offsets": f"{PRODUCER}.send_offsets_to_transaction",
    "commit_transaction": f"{PRODUCER}.commit_transaction",
}
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Fault:
    """Strikes once, at the N-th time.

    Args:
        text: See ``S2NETD_FAULT``.
        mark: See ``S2NETD_FAULT_MARK``.
    """

    def __init__(self, text: str, mark: Path) -> None:
        self.point, self.when, number, how = text.split(":")
        self._left = int(number)
        self._signal = SIGNALS[how]
        self._mark = mark

    def pass_by(self, when: str) -> None:
        if when != self.when:
            return
        self._left -= 1
        if self._left == 0:
            self._mark.write_text(f"{self.point}:{self.when}")
            os.kill(os.getpid(), self._signal)


def patch(fault: Fault) -> None:
    """Put the fault where its point is."""
    module, _, path = POINTS[fault.point].partition(":")
    name, _, method = path.partition(".")
    owner = getattr(import_module(module), name)
    setattr(owner, method, _wrapped(getattr(owner, method), fault))


def _wrapped(original: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if fault.point == "ack":
            written = await original(*args, **kwargs)
            # "before" is when the record is on its way, and "after" when its answer has come.
            fault.pass_by("before")
            written.add_done_callback(lambda _written: fault.pass_by("after"))
            return written
        fault.pass_by("before")
        answer = await original(*args, **kwargs)
        if fault.point != "fetch" or answer:
            fault.pass_by("after")
        return answer

    return call


def unfence() -> None:
    """Give each process transactional ids of its own."""
    import aiokafka  # noqa: PLC0415 - a process without a fault imports it when the daemon does

    made = aiokafka.AIOKafkaProducer.__init__
    own = uuid.uuid4().hex

    @functools.wraps(made)
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("transactional_id"):
            kwargs["transactional_id"] += f"-{own}"
        made(self, *args, **kwargs)

    aiokafka.AIOKafkaProducer.__init__ = make


def tell_fetched(path: Path) -> None:
    """Write down where the process begins to read: lines of topic, partition, offset, time."""
    import aiokafka  # noqa: PLC0415 - as above

    getmany = aiokafka.AIOKafkaConsumer.getmany
    seen = set()

    @functools.wraps(getmany)
    async def get(*args: Any, **kwargs: Any) -> Any:
        batches = await getmany(*args, **kwargs)
        for partition, records in batches.items():
            if records and partition not in seen:
                seen.add(partition)
                with path.open("a", encoding="utf-8") as out:
                    where = f"{partition.topic} {partition.partition} {records[0].offset}"
                    out.write(f"{where} {time.monotonic()}\n")
        return batches

    aiokafka.AIOKafkaConsumer.getmany = get


def main() -> None:
    """Patch, and run the daemon's ordinary command."""
    wanted = os.environ.get("S2NETD_FAULT")
    if wanted:
        patch(Fault(wanted, Path(os.environ["S2NETD_FAULT_MARK"])))
    if os.environ.get("S2NETD_FETCHED"):
        tell_fetched(Path(os.environ["S2NETD_FETCHED"]))
    if os.environ.get("S2NETD_UNFENCED"):
        unfence()
    from daemon.cli import main as s2netd  # noqa: PLC0415 - imports the client, patched by now

    s2netd()


if __name__ == "__main__":
    main()
