"""Daemons as processes. This is the one file that knows how a daemon is configured."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.faults.checker import Mark, Verdict
from tests.support.checkout import CHECKOUT
from tests.support.processes import log_entries

PATIENCE_S = 240.0  # for what must happen; no rule depends on it
RESTART_S = 2.0  # RestartSec= of the systemd unit
LIMIT_S, LIMIT_STARTS = 600.0, 10  # its StartLimitIntervalSec= and StartLimitBurst=
EXIT_CONFIG = 78  # the unit does not restart after it
SESSION_S = 10.0  # after which the group takes a silent member's partitions away
SILENT_AFTER_S = 10.0  # without chunks, until a camera's open events get their final record

_FAULTY = "tests.faults.faulty_daemon"


@dataclass(frozen=True, slots=True)
class Place:
    """What the daemons of one group share: nothing but Kafka and the bundle.

    Attributes:
        bootstrap: Address of the broker, or of a proxy before it.
        chunks: Topic.
        events: Topic.
        group: Consumer group.
        bundle: Folder of the model.
    """

    bootstrap: str
    chunks: str
    events: str
    group: str
    bundle: Path


def config_of(
    place: Place,
    folder: Path,
    journal: dict[str, Any] | None = None,
    http_port: int = 0,
    **source: Any,
) -> dict[str, Any]:
    """A daemon's configuration.

    Args:
        place: What it shares with the others.
        folder: What it has of its own.
        journal: Keys of ``journal``.
        http_port: Where its metrics are; 0: at a port that nobody is told.
        source: More keys of ``source``.
    """
    kafka = {"kind": "kafka", "bootstrap_servers": place.bootstrap}
    return {
        "http": {"port": http_port},
        "model": {"bundle": str(place.bundle), "precision": "f32", "threads": 1},
        "decode": {"threads": 1},
        "source": {
            **kafka,
            "topic": place.chunks,
            "group_id": place.group,
            "start": "earliest",
            "session_timeout_s": SESSION_S,
            **source,
        },
        "sink": {**kafka, "topic": place.events},
        "journal": {"path": str(folder / "journal.sqlite"), **(journal or {})},
        "silent_after_s": SILENT_AFTER_S,
    }


def make_other_topics(place: Place, folder: Path) -> None:
    """The journal's topics, made beforehand, so that they can be widened and looked at."""
    path = _write(config_of(place, folder), folder / f"topics-{place.group}.yaml")
    command = [sys.executable, "-m", "daemon", "topics", "create", "--config", str(path)]
    subprocess.run(command, check=True, capture_output=True)


class Daemon:
    """`s2netd run`, started again when it fails, as the systemd unit does it.

    Attributes:
        name: For notes.
        log: What it and those before it printed.
        starts: How often it was started.
        exits: Exit statuses of those that ended unasked.
    """

    def __init__(
        self,
        place: Place,
        folder: Path,
        journal: dict[str, Any] | None = None,
        http_port: int = 0,
        **source: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = folder.name
        self.log = folder / "log"
        self.starts = 0
        self.exits: list[int] = []
        self._mark = folder / "fault"
        self._fetched = folder / "fetched"
        config = config_of(place, folder, journal, http_port, **source)
        self._config = _write(config, folder / "config.yaml")
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._is_asked_to_end = False
        self._n_ready = 0
        self._started_s: list[float] = []
        self.log.touch()

    def start(
        self, fault: str | None = None, *, unfenced: bool = False, tells_fetched: bool = False
    ) -> None:
        """Start it, with at most one fault of ``faulty_daemon`` before it.

        Args:
            fault: As in ``$S2NETD_FAULT``.
            unfenced: Its transactional producers are fenced by nobody.
            tells_fetched: ``fetched`` tells where it began to read.
        """
        self._mark.unlink(missing_ok=True)
        self._fetched.unlink(missing_ok=True)
        self._is_asked_to_end = False
        self._n_ready = len(self.logged("daemon.ready"))
        env = {**os.environ, "S2NETD_FAULT_MARK": str(self._mark)}
        if fault is not None:
            env["S2NETD_FAULT"] = fault
        if unfenced:
            env["S2NETD_UNFENCED"] = "1"
        if tells_fetched:
            env["S2NETD_FETCHED"] = str(self._fetched)
        is_plain = fault is None and not unfenced and not tells_fetched
        module = "daemon" if is_plain else _FAULTY
        command = [sys.executable, "-m", module, "run", "--config", str(self._config)]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env=env, cwd=CHECKOUT, start_new_session=True
            )
        self.starts += 1
        self._started_s.append(time.monotonic())

    def supervise(self) -> None:
        """From now on start it again when it ends, unless it says that this cannot help."""
        self._supervisor = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            status = self.status()
            if status is None:
                continue
            self.exits.append(status)
            recent = [at_s for at_s in self._started_s if at_s > time.monotonic() - LIMIT_S]
            if status in (0, EXIT_CONFIG) or len(recent) >= LIMIT_STARTS:
                return  # neither does the unit
            await asyncio.sleep(RESTART_S)
            self.start()

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def fetched(self, topic: str) -> dict[int, Mark]:
        """Partition → the first offset that this start of it read, and when."""
        text = self._fetched.read_text() if self._fetched.exists() else ""
        rows = [line.split() for line in text.splitlines()]
        return {int(row[1]): Mark(float(row[3]), int(row[2])) for row in rows if row[0] == topic}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one name."""
        entries = log_entries(self.log.read_text(errors="replace"))
        return [entry for entry in entries if entry.get("event") == event]

    def is_ready(self) -> bool:
        """True once this start of it consumes."""
        return len(self.logged("daemon.ready")) > self._n_ready

    async def ready(self) -> None:
        await self.until(self.is_ready, "ready")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for something that it must do."""
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            if self._supervisor is None and self.status() is not None:
                raise RowError(f"{self.name} ended ({self.status()}) before: {what}; {self.log}")
            if time.monotonic() > end_s:
                raise RowError(f"{self.name} waited for in vain: {what}; {self.log}")
            await asyncio.sleep(0.05)

    async def struck(self, patience_s: float) -> bool:
        """True once the fault it was started with has struck; False: it never got there."""
        end_s = time.monotonic() + patience_s
        while not self._mark.exists():
            if time.monotonic() > end_s:
                return False
            await asyncio.sleep(0.02)
        return True

    def has_ended_unasked(self) -> bool:
        """True if this start of it has ended, by no row and no fault."""
        return self.status() is not None and not self._is_asked_to_end and not self._mark.exists()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._is_asked_to_end |= number in (signal.SIGTERM, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, unless a fault was faster."""
        self._unsupervise()
        self.signal(signal.SIGKILL)
        await self.gone()

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self._unsupervise()
        self.signal(signal.SIGTERM)
        return await self.gone()

    async def gone(self) -> int:
        """Wait for its end; gives the exit status."""
        end_s = time.monotonic() + PATIENCE_S
        while (status := self.status()) is None:
            if time.monotonic() > end_s:
                raise RowError(f"{self.name} does not end; {self.log}")
            await asyncio.sleep(0.05)
        return status

    def destroy(self) -> None:
        """Leave nothing of it behind, whatever state it is in."""
        self._unsupervise()
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _unsupervise(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            self._supervisor = None


class RowError(Exception):
    """Something that must happen did not, so a row could not be brought to its end.

    Attributes:
        verdict: What was counted until then.
        injected: How many faults there were until then.
        notes: What else was seen until then.
    """

    verdict = Verdict()
    injected = 0
    notes: tuple[str, ...] = ()


def _write(config: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path
