"""Decoding in processes of their own: what a chunk does to its decoder costs no other camera.

A chunk comes from strangers and is fed to C libraries. A process that crashes, hangs, or takes
more computing or memory than a chunk may costs that chunk, and is started anew. What may not be
the chunk's fault (somebody killed the process) is tried again.
"""

import asyncio
from dataclasses import asdict, dataclass
from itertools import count

import structlog

from daemon.decoding.base import Decoded
from daemon.decoding.messages import Task, request
from daemon.decoding.process import DecoderDiedError, DecoderProcess
from daemon.decoding.turns import Turns
from daemon.metrics import Metrics
from engine.errors import DecoderLostError
from engine.types import VideoChunk
from engine.video.headers import KeptHeaders

# How long to wait before a process that could not be started is tried again.
RETRY_S = 1.0

# A chunk is refused if its decoder has ended, or hung, so much more often than the decoders of
# other chunks meanwhile: somebody who ends processes ends those of all. Beyond so many tries it is
# refused in any case.
N_TRIES = 5
MOST_TRIES = 40


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What a chunk may cost its decoder.

    Attributes:
        n_processes: How many decoders there are.
        most_s: Seconds of computing.
        most_memory_bytes: Memory.
    """

    n_processes: int = 2
    most_s: float = 10.0
    most_memory_bytes: int = 2**30


class DecoderPool:
    """Processes that decode for all cameras.

    Args:
        limits: How many, and what a chunk may cost.
        metrics: Ended processes are counted here.
        log: They are named here.
    """

    def __init__(
        self, limits: PoolLimits, metrics: Metrics, log: structlog.stdlib.BoundLogger
    ) -> None:
        self.limits = limits
        self.headers = KeptHeaders()
        self._metrics = metrics
        self._log = log
        self._turns = Turns(limits.n_processes)
        self._asked: dict[int, _Ask] = {}
        self._numbers = count()
        self._n_died = 0  # decoders that ended for no reason that is known
        self._free = [DecoderProcess(limits.most_memory_bytes) for _ in range(limits.n_processes)]
        self._all = tuple(self._free)
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [process.pid for process in self._all if process.pid is not None]

    async def start(self) -> None:
        """Start the processes.

        Raises:
            OSError: The machine gives no further process.
        """
        await asyncio.gather(*(process.start() for process in self._all))

    async def close(self) -> None:
        """End the processes; nobody waits for an answer any more."""
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        for process in self._all:
            await process.end()
            process.close()

    def decoder(self, task: Task) -> "ProcessDecoder":
        """A decoder for the chunks of one camera."""
        return ProcessDecoder(self, task, next(self._numbers))

    async def decode(self, number: int, camera: str, message: bytes) -> Decoded:
        """Have a chunk decoded when it is its decoder's turn.

        Args:
            number: The decoder's.
            camera: The camera, to be named in the log.
            message: The request.

        Raises:
            StreamError: As of ``ChunkDecoder``.
        """
        answer: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._asked[number] = _Ask(camera, message, answer)
        self._turns.ask(number)
        self._give_out()
        try:
            return await answer
        finally:
            self._turns.withdraw(number)
            self._asked.pop(number, None)

    def forget(self, number: int) -> None:
        """A decoder is wanted no more."""
        self._turns.forget(number)

    def _give_out(self) -> None:
        while self._free and (number := self._turns.next()) is not None:
            process = self._free.pop()
            serving = asyncio.create_task(self._serve(process, number, self._asked.pop(number)))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)

    async def _serve(self, process: DecoderProcess, number: int, ask: "_Ask") -> None:
        spent_s = 0.0
        try:
            decoded = await self._decoded(process, ask)
            spent_s = decoded.spent_s
            ask.answer_with(decoded)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, whatever it is
            spent_s = self.limits.most_s if isinstance(error, DecoderLostError) else 0.0
            ask.answer_with(error)
        finally:
            self._turns.done(number, spent_s)
            self._free.append(process)
        self._give_out()

    async def _decoded(self, process: DecoderProcess, ask: "_Ask") -> Decoded:
        """The answer to a request; what may not be the chunk's fault is tried again."""
        n_died, n_against = self._n_died, 0
        for tried in count(1):
            try:
                return await process.decode(ask.message)
            except DecoderLostError as error:
                await self._start_anew(process, ask.camera, str(error))
                raise
            except DecoderDiedError as error:
                self._n_died += 1
                await self._start_anew(process, ask.camera, str(error))
                n_against += error.may_be_the_chunk
                n_others = self._n_died - n_died - tried
                if n_against - n_others >= N_TRIES or tried == MOST_TRIES:
                    why = f"its decoder ended {tried} times: {error}"
                    raise DecoderLostError(why) from error
        raise AssertionError("the last try returns or raises")

    async def _start_anew(self, process: DecoderProcess, camera: str, why: str) -> None:
        self._metrics.lost_decoders.inc()
        self._log.warning("decoder.lost", camera=camera, reason=why)
        while True:
            try:
                return await process.start()
            except OSError as error:
                self._log.error("decoder.not_started", reason=str(error))
                await asyncio.sleep(RETRY_S)


@dataclass(frozen=True, slots=True)
class _Ask:
    camera: str
    message: bytes
    answer: "asyncio.Future[Decoded]"

    def answer_with(self, what: Decoded | Exception) -> None:
        if self.answer.done():  # whoever asked has been cancelled
            return
        if isinstance(what, Decoded):
            self.answer.set_result(what)
        else:
            self.answer.set_exception(what)


class ProcessDecoder:
    """One camera's ``ChunkDecoder`` in a pool of processes.

    Args:
        pool: The processes.
        task: What frames are for.
        number: Tells it from other decoders of the pool.
    """

    def __init__(self, pool: DecoderPool, task: Task, number: int) -> None:
        self._pool = pool
        self._task = asdict(task)
        self._number = number

    async def decode(self, chunk: VideoChunk) -> Decoded:
        """See ``ChunkDecoder``."""
        headers = self._pool.headers  # any process may decode the next chunk
        most_s = self._pool.limits.most_s
        message = request(self._task, chunk, most_s, headers.get(chunk.camera))
        decoded = await self._pool.decode(self._number, chunk.camera, message)
        headers.keep(chunk.camera, decoded.header)
        return decoded

    def close(self) -> None:
        """See ``ChunkDecoder``."""
        self._pool.forget(self._number)
