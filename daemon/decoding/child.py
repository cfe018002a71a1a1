"""A decoder's process: requests come in by standard input, answers go out by standard output.

It opens nothing, keeps nothing and ends when its input does. A chunk that takes more computing
than allowed ends it (SIGPROF), and memory beyond the limit is refused by the kernel.

    python -m daemon.decoding.child FRAMES_FD MOST_MEMORY_BYTES
"""

import json
import math
import mmap
import os
import resource
import signal
import sys
import time
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from daemon.decoding.messages import (
    LENGTH_BYTES,
    Task,
    packed,
    plain_header,
    read_chunk,
    read_header,
    read_task,
)
from engine.errors import StreamError
from engine.types import UInt8Array
from engine.video.frames import PyAvDecoder
from engine.video.headers import KeptHeaders


def main() -> None:
    """Answer requests until there are no more."""
    frames_fd, most_bytes = (int(argument) for argument in sys.argv[1:])
    # A signal to the whole group is the daemon's business; without it, the input ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory(most_bytes)
    asking, answering = sys.stdin.buffer, sys.stdout.buffer
    shared = _SharedFrames(frames_fd)
    while (message := _read(asking)) is not None:
        head, body = message
        answering.write(packed(_answer(head, body, shared)))
        answering.flush()


def _answer(head: dict[str, Any], body: bytes, shared: "_SharedFrames") -> dict[str, Any]:
    decoder, began_s = _decoder_for(read_task(head)), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, head["most_s"])
    try:
        chunk = read_chunk(head, body)
        decoder.headers = KeptHeaders()  # nothing is kept here
        decoder.headers.keep(chunk.camera, read_header(head))
        frames = decoder.decode(chunk, shared.room)
    except StreamError as error:
        return {"error": type(error).__name__, "reason": str(error)}
    except MemoryError:
        return {"error": "RefusedChunkError", "reason": "it takes more memory than a chunk may"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {
        "shape": frames.rgb.shape,
        "pts_us": frames.pts_us.tolist(),
        "n_decoded": frames.n_decoded,
        "n_late": frames.n_late,
        "spent_s": time.process_time() - began_s,
        "header": plain_header(decoder.headers.get(chunk.camera)),
    }


@lru_cache(maxsize=2)  # of two models, while one takes over from the other
def _decoder_for(task: Task) -> PyAvDecoder:
    return PyAvDecoder(task.geometry, task.grid, task.limits)


class _SharedFrames:
    """Memory that the daemon reads frames from; it is as large as they are.

    It stays mapped from chunk to chunk while these have as many frames, for new pages cost as much
    as what is written to them.

    Args:
        frames_fd: Names it.
    """

    def __init__(self, frames_fd: int) -> None:
        self._fd = frames_fd
        self._map: mmap.mmap | None = None

    def room(self, shape: tuple[int, ...]) -> UInt8Array:
        """Where frames (N, H, W, 3) shall lie, until the next ones are."""
        n_bytes = math.prod(shape)
        if self._map is None or len(self._map) != n_bytes:
            self._map = None  # before there is another one
            os.ftruncate(self._fd, n_bytes)
            self._map = mmap.mmap(self._fd, n_bytes)
        return np.frombuffer(self._map, np.uint8).reshape(shape)


def _limit_memory(most_bytes: int) -> None:
    """Let the process take so much more memory than it has now."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - once, at the start
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + most_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(asking: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    length = asking.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    head = json.loads(asking.read(int.from_bytes(length, "big")))
    return head, asking.read(head["body"])


if __name__ == "__main__":
    main()
