"""One decoder's process, as the daemon sees it: started, asked, looked at, ended."""

import asyncio
import json
import mmap
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon import heap
from daemon.decoding.base import Decoded
from daemon.decoding.messages import LENGTH_BYTES, MOST_HEAD_BYTES, Answer, read_answer
from engine.errors import DecoderLostError
from engine.types import FrameBatch

LOOK_S = 1.0
# A process that computes nothing for so long, and does not wait for a core either, hangs.
HANG_S = 10.0


class DecoderDiedError(Exception):
    """The process ended, or was ended, before it answered.

    Args:
        why: What is known of it.
        may_be_the_chunk: The chunk may have done it.
    """

    def __init__(self, why: str, *, may_be_the_chunk: bool = True) -> None:
        super().__init__(why)
        self.may_be_the_chunk = may_be_the_chunk


@dataclass(slots=True)
class Progress:
    """Tells a process that hangs from one that works, or that waits for a core. Pure."""

    _ticks: int = -1
    _still_s: float = 0.0

    def looks_hung(self, state: str, ticks: int, passed_s: float) -> bool:
        """Take note of how a process is.

        Args:
            state: Its state, as in ``/proc/PID/stat``.
            ticks: What it has computed since its start.
            passed_s: Seconds since the last look.
        """
        is_still = ticks == self._ticks and state != "R"
        self._ticks = ticks
        self._still_s = self._still_s + passed_s if is_still else 0.0
        return self._still_s >= HANG_S


class DecoderProcess:
    """A process of its own for decoding.

    Args:
        most_memory_bytes: What it may take beyond what it needs to be there.
    """

    def __init__(self, most_memory_bytes: int) -> None:
        self._most_memory_bytes = most_memory_bytes
        self._frames_fd = os.memfd_create("s2netd-frames")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None: it does not run."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it, or start it anew.

        Raises:
            OSError: The machine gives no further process.
        """
        await self.end()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "daemon.decoding.child"),
            *(str(self._frames_fd), str(self._most_memory_bytes)),
            env=_environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._frames_fd,),
        )

    async def decode(self, request: bytes) -> Decoded:
        """Ask for a chunk's frames.

        Raises:
            StreamError: As of ``ChunkDecoder``.
            DecoderDiedError: It ended without an answer; start it anew.
        """
        asking = asyncio.create_task(self._ask(request))
        try:
            await self._until_done_or_hung(asking)
            return await self._taken(read_answer(await asking))
        finally:
            asking.cancel()

    async def end(self) -> None:
        """End it at once, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def close(self) -> None:
        """Let the shared memory go; it has been ended."""
        os.close(self._frames_fd)

    async def _ask(self, request: bytes) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise DecoderDiedError("it does not run", may_be_the_chunk=False)
        if process.returncode is not None:  # while it waited for a chunk
            raise DecoderDiedError(_how_it_ended(process.returncode), may_be_the_chunk=False)
        try:
            process.stdin.write(request)
            await process.stdin.drain()
            length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
            if length > MOST_HEAD_BYTES:
                raise DecoderLostError("the decoder answers nonsense")
            head = json.loads(await process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, OSError) as error:
            status = await process.wait()
            if status == -signal.SIGPROF:
                raise DecoderLostError("it takes more computing than a chunk may") from error
            raise DecoderDiedError(_how_it_ended(status)) from error
        except ValueError as error:
            raise DecoderLostError("the decoder answers nonsense") from error
        return dict(head)

    async def _until_done_or_hung(self, asking: "asyncio.Task[Any]") -> None:
        progress = Progress()
        while True:
            done, _ = await asyncio.wait({asking}, timeout=LOOK_S)
            if done:
                return
            seen = _seen(self.pid)
            if seen is not None and progress.looks_hung(*seen, LOOK_S):
                is_stopped = seen[0] == "T"  # by a signal, which no chunk sends
                why = f"it did nothing for {HANG_S:g} s"
                raise DecoderDiedError(why, may_be_the_chunk=not is_stopped)

    async def _taken(self, answer: Answer) -> Decoded:
        """The answer, with frames of our own."""
        n_bytes = int(np.prod(answer.shape))
        if min(answer.shape) <= 0 or n_bytes != os.fstat(self._frames_fd).st_size:
            raise DecoderLostError(f"the decoder answers frames of shape {answer.shape}")
        with mmap.mmap(self._frames_fd, n_bytes, prot=mmap.PROT_READ) as shared:
            rgb = np.array(np.frombuffer(shared, np.uint8).reshape(answer.shape))
        pts_us = np.array(answer.pts_us, np.int64)
        frames = FrameBatch(pts_us, rgb, answer.n_decoded, answer.n_late)
        return Decoded(frames, answer.spent_s, answer.header)


def _environment() -> dict[str, str]:
    """Ours; what we import from, the process imports from, and never from where it is started."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # each takes memory
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**heap.ENVIRONMENT, **os.environ, **threads, "PYTHONPATH": path}


def _seen(pid: int | None) -> tuple[str, int] | None:
    """A process's state, and the ticks that it has computed; None: it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def _how_it_ended(status: int) -> str:
    return f"it was ended by signal {-status}" if status < 0 else f"it exited with {status}"
