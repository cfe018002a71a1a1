"""The machine: a real systemd manager with two instances of the shipped unit, seen from outside.

``topic`` reads a topic and ``folder`` a folder of chunks. Their cgroups, metrics and logs tell how
they are.
"""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.daemons import PATIENCE_S, Place, RowError, config_of
from tests.faults.proxy import free_port
from tests.misery.judge import Series, Usage
from tests.support.snapshots import changed
from tests.support.systemd import SystemManager

MOST_CAMERAS = 64
QUEUE_BYTES = 64 * 2**20
SMALL_BYTES = 128 * 2**20  # more than what half an hour of events takes
_CHILD = b"daemon.decoding.child"
_HANG = Path("/run/misery")  # where files make calls hang


class Instance:
    """One instance of the unit.

    Attributes:
        name: ``topic`` or ``folder``.
        unit: Its unit.
        port: Where its metrics are.
        home: Its working folder, as reached from outside.
    """

    def __init__(self, manager: SystemManager, name: str) -> None:
        self.name = name
        self.unit = f"s2netd@{name}.service"
        self.port = free_port()
        self.home = manager.path(f"/var/lib/s2netd/{name}")
        self._manager = manager
        self._log = manager.path(f"/run/{name}.log")

    def configure(self, config: dict[str, Any]) -> None:
        """Write its configuration."""
        path = self._manager.path(f"/etc/s2netd/{self.name}.yaml")
        path.write_text(yaml.safe_dump(config))

    async def start(self) -> None:
        """Start it; it is ready then."""
        await asyncio.to_thread(self._manager.systemctl, "start", self.unit)

    async def stop(self) -> None:
        """Stop it in order."""
        await asyncio.to_thread(self._manager.systemctl, "stop", self.unit)

    def asked(self, path: str) -> dict[str, Any]:
        """What /readyz or /livez says; empty while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as page:
                return json.load(page)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            return json.load(error)  # type: ignore[no-any-return]
        except OSError:
            return {}

    def shown(self, prop: str) -> str:
        """A property of its unit, as systemd says it."""
        return self._manager.show(self.unit, prop)

    async def n_restarts(self) -> int:
        """How often systemd has started it anew."""
        return int(await asyncio.to_thread(self._manager.show, self.unit, "NRestarts"))

    def n_logged(self) -> int:
        """Bytes of its log so far."""
        return self._log.stat().st_size if self._log.exists() else 0

    def logged(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Its log lines after so many bytes."""
        with self._log.open("rb") as log:
            log.seek(since)
            for line in log.read().splitlines():
                if line.startswith(b"{") and line.endswith(b"}"):
                    yield json.loads(line)

    def longest_line(self) -> int:
        """Characters of the longest line that it has logged."""
        return max(map(len, self._log.read_text(errors="replace").splitlines()), default=0)

    def metrics(self) -> Series:
        """Everything that its metrics say now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as page:
            text = page.read().decode()
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def pids(self) -> list[int]:
        """Its processes, by the numbers that they have outside."""
        group = f"/sys/fs/cgroup/system.slice/system-s2netd.slice/{self.unit}/cgroup.procs"
        try:
            return [int(line) for line in self._manager.path(group).read_text().split()]
        except OSError:
            return []

    def decoders(self) -> list[int]:
        """Those of its processes that decode."""
        return [pid for pid in self.pids() if _CHILD in _read(f"/proc/{pid}/cmdline")]

    def usage(self) -> Usage:
        """What its processes take together."""
        rss_kib = files = threads = 0
        for pid in self.pids():
            rows = _read(f"/proc/{pid}/status").decode().splitlines()
            of = dict(row.split(":", 1) for row in rows)
            rss_kib += int(of.get("VmRSS", "0 kB").split()[0])
            threads += int(of.get("Threads", "0"))
            files += _n_files(pid)
        return Usage(rss_kib / 1024, files, threads)


class Machine:
    """The two instances, and what can be done to their machine.

    Attributes:
        topic: Reads a topic.
        folder: Reads a folder.
        chunks: That folder, as reached from outside.
        can_hang: Calls of the instance ``folder`` can be made to hang.
    """

    def __init__(self, manager: SystemManager) -> None:
        self.topic = Instance(manager, "topic")
        self.folder = Instance(manager, "folder")
        self.chunks = self.folder.home / "chunks"
        self.can_hang = False
        self._manager = manager
        self._owner = (int(manager.inside("id", "-u", "s2netd")),) * 2

    def set_up(self, place: Place, compiler: str | None, *, is_small: bool = False) -> None:
        """Configure both.

        Args:
            place: What they share with other daemons.
            compiler: Of C; with one, calls can hang.
            is_small: ``folder`` has a disk of its own, which is soon full; its chunks lie on
                another one.
        """
        shutil.copytree(place.bundle, self._manager.path("/etc/s2netd/tiny"))
        owner = ["-o", "s2netd", "-g", "s2netd"]
        home, chunks = "/var/lib/s2netd/folder", "/var/lib/s2netd/folder/chunks"
        self._manager.inside("install", "-d", *owner, home)
        if is_small:
            self._mount(home, f"size={SMALL_BYTES}")
        self._manager.inside("install", "-d", *owner, chunks)
        if is_small:
            self._mount(chunks, "size=512m")
        here = self._manager.path(str(_HANG))
        here.mkdir(mode=0o755)
        if compiler is not None:
            source = Path(__file__).with_name("preload.c")
            command = [
                compiler,
                "-x",
                "c",
                "-shared",
                "-fPIC",
                "-O1",
                "-o",
                here / "misery.so",
                source,
            ]
            subprocess.run([*command, "-ldl"], check=True, capture_output=True)
            own = f"Environment=MISERY={_HANG} LD_PRELOAD={_HANG}/misery.so\n"
            self._manager.drop_in(self.folder.unit, f"[Service]\n{own}")
            self.can_hang = True
        self.topic.configure(self._config(place, self.topic))
        local = {
            "source": {"kind": "directory", "path": "chunks"},
            "sink": {"kind": "jsonl", "path": "events.jsonl"},
            "journal": {"kind": "local", "path": "journal.sqlite"},
        }
        self.folder.configure({**self._config(place, self.folder), **local})

    def _mount(self, folder: str, size: str) -> None:
        uid, gid = self._owner
        options = f"{size},uid={uid},gid={gid},mode=750"
        self._manager.inside("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)

    def _config(self, place: Place, instance: Instance) -> dict[str, Any]:
        config = config_of(place, Path(), http_port=instance.port)
        config["model"]["bundle"] = "/etc/s2netd/tiny"
        config["decode"]["threads"] = 2
        limits = {"max_cameras": MOST_CAMERAS, "queue_bytes": QUEUE_BYTES, "late_after_s": 5}
        return {**config, **limits}

    def make_folder(self, camera: str) -> Path:
        """A camera's folder, in which the daemon may write too."""
        folder = self.chunks / camera
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, *self._owner)
        return folder

    @asynccontextmanager
    async def hanging(self, call: str) -> AsyncIterator[None]:
        """Calls of a kind (``fsync``, ``open``) hang in the instance ``folder`` meanwhile."""
        mark = self._manager.path(str(_HANG / call))
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()

    def damage(self, camera: str) -> None:
        """Change one value in what the journal of ``folder`` keeps of a camera; it is stopped."""
        path = self.folder.home / "journal.sqlite"
        # SQLite reads links itself, and cannot follow the one that leads into the machine.
        with tempfile.NamedTemporaryFile(suffix=".sqlite") as copy:
            shutil.copyfile(path, copy.name)
            with closing(sqlite3.connect(copy.name)) as journal, journal:
                question = "SELECT blob FROM cameras WHERE camera = ?"
                (blob,) = journal.execute(question, (camera,)).fetchone()
                damaged = changed(blob, buffer=["nonsense"])
                change = "UPDATE cameras SET blob = ? WHERE camera = ?"
                journal.execute(change, (damaged, camera))
            shutil.copyfile(copy.name, path)


async def until(
    holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S, look_s: float = 0.25
) -> None:
    """Wait for what must happen; whether it has is looked at in a thread.

    Raises:
        RowError: It does not.
    """
    end_s = time.monotonic() + patience_s
    while not await asyncio.to_thread(holds):
        if time.monotonic() > end_s:
            raise RowError(f"waited in vain for {what}")
        await asyncio.sleep(look_s)


async def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes of the machine, as far as they are there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _n_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
