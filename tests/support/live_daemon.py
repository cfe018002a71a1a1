"""A `s2netd run` that is watched from outside, and cameras that keep sending."""

import asyncio
import json
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk
from tests.support.footage import chunks_of
from tests.support.processes import PATIENCE_S, log_entries, start_s2netd, write_config

CAMERAS = ("a", "b", "c")


class Cameras:
    """Three cameras that put the clip into a folder again and again, a run each time.

    Args:
        folder: Made here.
        clip: What they see.
        pace_s: From one chunk of about a second to the next.
    """

    def __init__(self, folder: Path, clip: Path, *, pace_s: float = 0.05) -> None:
        self.n_chunks = 0
        self._run = 0
        self._chunks = chunks_of(clip, "any", chunk_s=0.5)
        self._pace_s = pace_s
        self._writer = DirectoryChunkWriter(folder)
        self._is_over = threading.Event()
        folder.mkdir()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """One chunk of each after the other, until the end."""
        self._is_over.clear()
        thread = threading.Thread(target=self._send)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _send(self) -> None:
        while not self._is_over.is_set():
            for chunk in self._chunks:  # a run that was begun is ended
                for camera in CAMERAS:
                    self._write(replace(chunk, camera=camera, run=f"round-{self._run}"))
                time.sleep(self._pace_s)
            self._run += 1

    def _write(self, chunk: VideoChunk) -> None:
        asyncio.run(self._writer.write(chunk, ChunkFacts()))
        self.n_chunks += 1


class LiveDaemon:
    """`s2netd run` on a configuration that can be written anew."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.events = folder / "events.jsonl"
        self.config = folder / "config.yaml"
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, model: dict[str, Any], **sections: Any) -> None:
        unfinished = self._folder / "unfinished.yaml"
        write_config(
            unfinished,
            **{
                "model": {"precision": "f32", "threads": 1, **model},
                "source": {
                    "kind": "directory",
                    "path": str(self._folder / "chunks"),
                    "poll_interval_s": 0.05,
                },
                "sink": {"kind": "jsonl", "path": str(self.events), "fsync": "never"},
                "journal": {"path": str(self._folder / "journal.sqlite")},
                "http": {"port": self._port},
                **sections,
            },
        )
        unfinished.rename(self.config)

    def start(self) -> None:
        self.process = start_s2netd("run", "--config", self.config, log=self.log)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        self.process.send_signal(number)

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        assert self.process is not None
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        text = self.log.read_text() if self.log.exists() else ""
        return [entry for entry in log_entries(text) if entry["event"] == event]

    def ready(self) -> tuple[int, dict[str, Any]]:
        status, text = self._get("/readyz")
        return status, json.loads(text) if text else {}

    def count(self, name: str, **labels: str) -> float:
        _status, text = self._get("/metrics")
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        full = f"s2netd_{name}{{{wanted}}} " if labels else f"s2netd_{name} "
        return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith(full))

    def _get(self, path: str) -> tuple[int, str]:
        try:
            address = f"http://127.0.0.1:{self._port}{path}"
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_for(self, holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)
