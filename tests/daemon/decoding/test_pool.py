"""Decoding in processes: the same frames, and what a chunk does to its decoder costs no other."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from daemon.config import DecodeConfig
from daemon.decoding import process
from daemon.decoding.base import Decoded
from daemon.decoding.messages import Task, packed, read_answer
from daemon.decoding.opening import plain_decoders
from daemon.decoding.pool import DecoderPool, PoolLimits, ProcessDecoder
from daemon.decoding.process import HANG_S, Progress
from daemon.metrics import Metrics
from engine.errors import CorruptChunkError, DecoderLostError, RefusedChunkError, StreamError
from engine.spec import FrameGeometry
from engine.types import VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.frames import PyAvDecoder
from tests.support.daemons import LogCapture
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.mutations import crowded_chunks, mutated_chunks
from tests.support.processes import PATIENCE_S, wait_until
from tests.support.scripted import a_spec
from tests.support.videos import a_chunk, make_video

N_KILLS = 5

TASK = Task(a_spec().geometry, a_spec().grid, DecodeLimits())


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[VideoChunk]:
    clip = colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)
    return [chunk for chunk in chunks_of(clip, "cam", chunk_s=0.4) if not chunk.is_end]


@dataclass
class Rig:
    pool: DecoderPool
    metrics: Metrics
    logs: LogCapture

    @property
    def n_lost(self) -> float:
        return self.metrics.registry.get_sample_value("s2netd_lost_decoders_total") or 0


@asynccontextmanager
async def a_pool(limits: PoolLimits | None = None) -> AsyncIterator[Rig]:
    metrics, logs = Metrics(), LogCapture()
    pool = DecoderPool(limits or PoolLimits(), metrics, logs.logger())
    await pool.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield Rig(pool, metrics, logs)
    finally:
        await pool.close()


def plain(chunk: VideoChunk) -> np.ndarray | str:
    """A chunk's frames (N, H, W, 3), or what is wrong with it."""
    try:
        return PyAvDecoder(TASK.geometry, TASK.grid).decode(chunk).rgb
    except StreamError as error:
        return f"{type(error).__name__}: {error}"


async def apart(decoder: ProcessDecoder, chunk: VideoChunk) -> np.ndarray | str:
    try:
        return (await decoder.decode(chunk)).frames.rgb
    except StreamError as error:
        return f"{type(error).__name__}: {error}"


async def test_frames_and_errors_are_those_of_a_decoder_in_this_process(
    chunks: list[VideoChunk],
) -> None:
    bad = [payload for _, payload in mutated_chunks(3, 30)]
    mixed = [*chunks, *(_with(chunks[0], payload) for payload in bad)]
    async with a_pool() as rig:
        decoder = rig.pool.decoder(TASK)
        for chunk in mixed:
            assert np.array_equal(plain(chunk), await apart(decoder, chunk))

        decoded = await decoder.decode(chunks[1])
        frames = PyAvDecoder(TASK.geometry, TASK.grid).decode(chunks[1])
        assert frames.pts_us.tolist() == decoded.frames.pts_us.tolist()
        assert frames.n_decoded == decoded.frames.n_decoded
        assert decoded.spent_s >= 0
        assert 0 == rig.n_lost


def _with(chunk: VideoChunk, payload: bytes) -> VideoChunk:
    return replace(chunk, payload=payload)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_processes_that_somebody_kills_cost_no_chunk(
    chunks: list[VideoChunk], number: signal.Signals
) -> None:
    wanted = [plain(chunk) for chunk in chunks]
    async with a_pool() as rig:
        decoders = [rig.pool.decoder(TASK) for _ in range(3)]
        n_done = [0] * len(decoders)

        async def play(player: int) -> None:
            while rig.n_lost < N_KILLS:
                for chunk, frames in zip(chunks, wanted, strict=True):
                    assert np.array_equal(frames, await apart(decoders[player], chunk))
                    n_done[player] += 1

        playing = asyncio.gather(*map(play, range(len(decoders))))
        rng = random.Random(int(number))  # noqa: S311
        for n_killed in range(N_KILLS):
            n_before = list(n_done)
            while rig.n_lost < n_killed or any(map(int.__le__, n_done, n_before)):
                assert not playing.done()
                await asyncio.sleep(0.001)
            await asyncio.sleep(rng.uniform(0, 0.01))
            os.kill(rng.choice(rig.pool.pids), number)
        await playing

        assert N_KILLS == rig.n_lost
        assert "ended by signal" in str(rig.logs.named("decoder.lost")[0]["reason"])


async def test_a_process_that_hangs_is_ended_and_costs_no_chunk(
    chunks: list[VideoChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "HANG_S", 1.0)
    monkeypatch.setattr(process, "LOOK_S", 0.1)
    async with a_pool(PoolLimits(1)) as rig:
        decoder = rig.pool.decoder(TASK)
        os.kill(rig.pool.pids[0], signal.SIGSTOP)

        assert np.array_equal(plain(chunks[0]), await apart(decoder, chunks[0]))
        assert "did nothing" in str(rig.logs.named("decoder.lost")[0]["reason"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
async def test_somebody_who_ends_all_processes_again_and_again_costs_no_chunk(
    chunks: list[VideoChunk], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "HANG_S", 0.3)
    monkeypatch.setattr(process, "LOOK_S", 0.1)
    wanted = plain(chunks[0])
    async with a_pool(PoolLimits(2)) as rig:
        is_over = False

        async def play(decoder: ProcessDecoder) -> None:
            while not is_over:
                assert np.array_equal(wanted, await apart(decoder, chunks[0]))

        playing = asyncio.gather(*(play(rig.pool.decoder(TASK)) for _ in range(4)))
        for _ in range(10):
            before = rig.pool.pids
            for pid in before:
                os.kill(pid, number)
            while len(set(rig.pool.pids) - set(before)) < len(before):
                assert not playing.done()
                await asyncio.sleep(0.001)
        is_over = True
        await playing


async def test_a_chunk_that_ends_its_decoder_is_refused_though_others_are_served(
    chunks: list[VideoChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pool(PoolLimits(2)) as rig:
        served, asked = 0, process.DecoderProcess.decode

        async def decode(self: process.DecoderProcess, request: bytes) -> Decoded:
            if b"a poison" in request:
                assert self.pid is not None
                os.kill(self.pid, signal.SIGSEGV)
            return await asked(self, request)

        async def play() -> None:
            nonlocal served
            decoder = rig.pool.decoder(TASK)
            while True:
                await apart(decoder, chunks[0])
                served += 1

        monkeypatch.setattr(process.DecoderProcess, "decode", decode)
        playing = asyncio.create_task(play())
        while not served:
            await asyncio.sleep(0.001)
        n_before = served
        poison = _with(chunks[0], chunks[0].payload + b"a poison")
        answer = await apart(rig.pool.decoder(TASK), poison)
        n_served = served - n_before
        playing.cancel()
        await asyncio.wait({playing})

    assert "DecoderLostError: its decoder ended 5 times: it was ended by signal 11" == answer
    assert 5 == rig.n_lost
    assert n_served > 0


async def test_a_chunk_that_takes_too_much_computing_ends_its_decoder_and_is_not_tried_again() -> (
    None
):
    slow = a_chunk(make_video(n_frames=60, size=(1280, 720)))
    async with a_pool(PoolLimits(1, most_s=0.02)) as rig:
        answer = await apart(rig.pool.decoder(TASK), slow)
        assert isinstance(answer, str)
        assert answer.startswith("DecoderLostError: it takes more computing")
        assert 1 == rig.n_lost


async def test_a_chunk_that_takes_too_much_memory_is_refused(chunks: list[VideoChunk]) -> None:
    async with a_pool(PoolLimits(1, most_memory_bytes=2**16)) as rig:
        decoder = rig.pool.decoder(TASK)
        answers = [await apart(decoder, chunk) for chunk in chunks]
        assert any(isinstance(answer, str) for answer in answers)


async def test_a_chunk_of_very_many_units_is_refused_in_a_process_too() -> None:
    async with a_pool() as rig:
        decoder = rig.pool.decoder(TASK)
        for _, payload in crowded_chunks(n_units=150_000):
            with pytest.raises(RefusedChunkError, match="units"):
                await decoder.decode(a_chunk(payload))

        assert 0 == rig.n_lost


async def test_who_is_cancelled_holds_nobody_up(chunks: list[VideoChunk]) -> None:
    async with a_pool(PoolLimits(1)) as rig:
        first, second = rig.pool.decoder(TASK), rig.pool.decoder(TASK)
        asking = [asyncio.create_task(first.decode(chunks[0])) for _ in range(1)]
        waiting = asyncio.create_task(second.decode(chunks[1]))
        await asyncio.sleep(0)
        waiting.cancel()
        asking[0].cancel()
        first.close()

        third = rig.pool.decoder(TASK)
        assert np.array_equal(plain(chunks[2]), await apart(third, chunks[2]))


async def test_processes_end_with_the_pool() -> None:
    async with a_pool() as rig:
        pids = rig.pool.pids
        assert 2 == len(pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_a_process_ends_when_the_daemon_is_gone() -> None:
    one = process.DecoderProcess(2**30)
    await one.start()
    pid = one.pid
    assert one._process is not None
    assert one._process.stdin is not None
    one._process.stdin.close()
    await one._process.wait()

    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    await one.end()
    one.close()


async def test_signals_to_the_whole_group_do_not_end_a_process(chunks: list[VideoChunk]) -> None:
    async with a_pool(PoolLimits(1)) as rig:
        decoder = rig.pool.decoder(TASK)
        await decoder.decode(chunks[0])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(rig.pool.pids[0], number)
        await decoder.decode(chunks[1])

        assert 0 == rig.n_lost


def test_only_a_process_that_computes_nothing_and_waits_for_no_core_hangs() -> None:
    working, starved, hung = Progress(), Progress(), Progress()
    n_looks = int(3 * HANG_S)

    assert not any(working.looks_hung("S", ticks, 1.0) for ticks in range(n_looks))
    assert not any(starved.looks_hung("R", 7, 1.0) for _ in range(n_looks))
    looks = [hung.looks_hung("T", 7, 1.0) for _ in range(n_looks)]
    assert looks.index(True) == int(HANG_S)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"shape": [2, 4, 4, 3], "pts_us": [0], "n_decoded": 2, "n_late": 0, "spent_s": 0.1},
        {"shape": [1, 4, 4], "pts_us": [0], "n_decoded": 1, "n_late": 0, "spent_s": 0.1},
        {"shape": "many", "pts_us": [0], "n_decoded": 1, "n_late": 0, "spent_s": 0.1},
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(head: dict[str, object]) -> None:
    with pytest.raises(DecoderLostError):
        read_answer(head)


def test_an_unknown_error_is_the_chunks_fault() -> None:
    with pytest.raises(CorruptChunkError, match="of all things"):
        read_answer({"error": "SystemExit", "reason": "of all things"})


def test_a_message_tells_its_length() -> None:
    message = packed({"a": 1}, b"xyz")
    length = int.from_bytes(message[:4], "big")
    assert b"xyz" == message[4 + length :]


async def test_what_a_camera_said_once_holds_in_every_process_and_for_no_other_camera() -> None:
    payload = make_video(container="h264", gop=10, n_frames=10)
    lacking = payload[payload.index(b"\0\0\1\x65") :]
    async with a_pool(PoolLimits(n_processes=1)) as rig:
        ours, theirs = rig.pool.decoder(TASK), rig.pool.decoder(TASK)
        first = await ours.decode(VideoChunk("ours", "r", 0, 0, payload))
        with pytest.raises(CorruptChunkError, match="no chunk of its camera did since"):
            await theirs.decode(VideoChunk("theirs", "r", 0, 0, lacking))
        (pid,) = rig.pool.pids
        os.kill(pid, signal.SIGKILL)

        second = await ours.decode(VideoChunk("ours", "r", 1, 400_000, lacking))
        with_another_model = rig.pool.decoder(replace(TASK, geometry=FrameGeometry(24, 24)))
        third = await with_another_model.decode(VideoChunk("ours", "r", 2, 800_000, lacking))

    assert np.array_equal(first.frames.rgb, second.frames.rgb)
    assert 10 == third.frames.n_decoded
    assert 1 == rig.n_lost


def test_in_threads_it_holds_for_another_model_too() -> None:
    payload = make_video(container="h264", gop=10, n_frames=10)
    lacking = payload[payload.index(b"\0\0\1\x65") :]
    new_decoder = plain_decoders(DecodeConfig(isolation="thread"), LogCapture().logger())
    new_decoder(a_spec()).decode(VideoChunk("ours", "r", 0, 0, payload))

    frames = new_decoder(a_spec()).decode(VideoChunk("ours", "r", 1, 400_000, lacking))

    assert 10 == frames.n_decoded
    with pytest.raises(CorruptChunkError, match="no chunk of its camera did since"):
        new_decoder(a_spec()).decode(VideoChunk("theirs", "r", 0, 0, lacking))
