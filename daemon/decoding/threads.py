"""Decoding in threads of the daemon's own process."""

import asyncio
import time
from concurrent.futures import Executor

from daemon.calls import RunningCalls
from daemon.decoding.base import Decoded
from engine.types import FrameBatch, VideoChunk
from engine.video.frames import Decoder


class ThreadDecoder:
    """One camera's ``ChunkDecoder`` in a pool of threads.

    Args:
        decoder: Does the work, in one thread at a time.
        pool: The threads.
        calls: Told of each call, so that one that hangs is noticed.
    """

    def __init__(self, decoder: Decoder, pool: Executor, calls: RunningCalls) -> None:
        self._decoder = decoder
        self._pool = pool
        self._calls = calls

    async def decode(self, chunk: VideoChunk) -> Decoded:
        """See ``ChunkDecoder``; but a thread cannot be given up, whatever the chunk."""
        work = self._calls.watched("decode", self._timed)
        loop = asyncio.get_running_loop()
        frames, spent_s = await loop.run_in_executor(self._pool, work, chunk)
        return Decoded(frames, spent_s)

    def close(self) -> None:
        """See ``ChunkDecoder``."""
        self._decoder.close()

    def _timed(self, chunk: VideoChunk) -> tuple[FrameBatch, float]:
        began_s = time.thread_time()
        return self._decoder.decode(chunk), time.thread_time() - began_s
