"""The configuration's ``decode`` section → decoders for cameras."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog

from daemon.calls import RunningCalls
from daemon.config import DecodeConfig
from daemon.decoding.base import ChunkDecoder
from daemon.decoding.messages import Task
from daemon.decoding.pool import DecoderPool, PoolLimits
from daemon.decoding.threads import ThreadDecoder
from daemon.errors import TransportError
from daemon.metrics import Metrics
from engine.spec import ModelSpec
from engine.video.containers import DecodeLimits
from engine.video.fallback import FallbackDecoder
from engine.video.frames import Decoder, PyAvDecoder
from engine.video.headers import KeptHeaders

NewDecoder = Callable[[ModelSpec], ChunkDecoder]


@asynccontextmanager
async def decoding(
    config: DecodeConfig,
    metrics: Metrics,
    calls: RunningCalls,
    log: structlog.stdlib.BoundLogger,
) -> AsyncIterator[NewDecoder]:
    """Give a function that makes one camera's decoder for a model; decoding ends with the block.

    A GPU's video decoder runs in threads, for each process would need a context on the GPU.

    Raises:
        TransportError: The machine gives no processes.
    """
    if config.isolation == "thread" or config.hardware != "none":
        with ThreadPoolExecutor(config.threads, thread_name_prefix="decode") as threads:
            new_plain = plain_decoders(config, log)
            yield lambda spec: ThreadDecoder(new_plain(spec), threads, calls)
        return
    limits = PoolLimits(config.threads, config.max_seconds, config.max_memory_bytes)
    pool = DecoderPool(limits, metrics, log)
    try:
        try:
            await pool.start()
        except OSError as error:
            raise TransportError(f"no process for decoding could be started: {error}") from error
        yield lambda spec: pool.decoder(Task(spec.geometry, spec.grid, limits_of(config)))
    finally:
        await pool.close()


def limits_of(config: DecodeConfig) -> DecodeLimits:
    """What one chunk may be."""
    return DecodeLimits(
        max_pixels=config.max_pixels,
        max_frames=config.max_frames,
        max_payload_bytes=config.max_chunk_bytes,
    )


def plain_decoders(
    config: DecodeConfig, log: structlog.stdlib.BoundLogger
) -> Callable[[ModelSpec], Decoder]:
    """A function that makes one camera's decoder for a model, to be run where one likes."""
    limits, headers = limits_of(config), KeptHeaders()

    def fell_back(reason: str) -> None:
        log.warning("decoder.fell_back", reason=reason)

    def new_decoder(spec: ModelSpec) -> Decoder:
        software = PyAvDecoder(spec.geometry, spec.grid, limits, headers=headers)
        if config.hardware == "none":
            return software
        hardware = PyAvDecoder(spec.geometry, spec.grid, limits, gpu=config.gpu, headers=headers)
        return FallbackDecoder(hardware, software, fell_back)

    return new_decoder
