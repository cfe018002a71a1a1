"""A GPU made of Python, whose streams are as unruly as the rules allow.

What a stream is given is only noted. It is done when somebody waits for it, or earlier, in any
order that streams and events permit: ``whim`` chooses. Copies and a plan's work are done in two
halves, so that they overlap with those of other streams. Memory is arbitrary when it comes and
when it goes. So a wait that is missing, a buffer used too early or after it was freed, shows up as
a wrong answer, or as ``MisuseError``, which is no ``DeviceError`` and fails the test.
"""

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.backends.tensorrt.cuda import Bytes, CudaError, CudaFault, GpuMemory
from engine.backends.tensorrt.gpu_identity import GpuIdentity

Whim = Callable[[int], int]  # n → one of 0 … n - 1

FRESH, GONE = 0xCD, 0xDD
MIB = 1 << 20
MOST_STEPS = 3


class MisuseError(AssertionError):
    """Something that is undefined, forbidden or dangerous on a real GPU."""


def lazily(_n: int) -> int:
    """Nothing is done before it must, and of several things the first."""
    return 0


def mixed_up(seed: int, *, lazy: bool = False) -> Whim:
    """Things are done in some order, the same for a seed; lazy: and not before they must."""
    pick = random.Random(seed).randrange  # noqa: S311 - no secret
    return lambda n: 0 if lazy and n == MOST_STEPS else pick(n)


@dataclass
class Fault:
    """What goes wrong.

    Attributes:
        at_call: At which call of the device, counted from 0; None: never.
        fault: As of ``CudaError``; a lost device fails all that is asked of it from then on.
    """

    at_call: int | None = None
    fault: CudaFault = "other"


@dataclass(eq=False)
class Op:
    """Something a stream is to do: a step after another; each may be put off."""

    steps: list[Callable[[], None]]
    is_ready: Callable[[], bool] = lambda: True


class FakeGpu:
    """One GPU and its driver. ``open`` makes all that ``engine.backends.tensorrt.cuda`` has.

    Args:
        whim: Chooses what is done next.
        fault: What goes wrong, and when.
        total_bytes: Memory it has.
    """

    def __init__(
        self, whim: Whim = lazily, fault: Fault | None = None, total_bytes: int = 1 << 30
    ) -> None:
        self.whim = whim
        self.fault = fault or Fault()
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.live: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.calls: list[str] = []
        self.streams: list[FakeStream] = []
        self.memory_at: dict[int, FakeMemory] = {}
        self.stack: list[FakeCuda] = []
        self.capturing: FakeStream | None = None
        self.can_capture = True
        self.is_lost = False
        self._next_address = 1 << 40

    def open(self, index: int = 0) -> "FakeCuda":
        """What ``open_pycuda`` is to the real one."""
        assert 0 == index
        self.call("open")
        self.came("cuda")
        return FakeCuda(self)

    def identity(self) -> GpuIdentity:
        return GpuIdentity("Fake 1", "9.9", "13.0")

    def call(self, name: str, *, unsafe: bool = False) -> None:
        """Every call passes here: it may fail, and the device may do some work meanwhile."""
        number = len(self.calls)
        self.calls.append(name)
        if self.capturing is not None and unsafe:
            self.capturing.is_spoiled = True
            raise CudaError(f"{name}: not permitted when stream is capturing")
        if self.is_lost:
            raise CudaError(f"{name}: an illegal memory access was encountered", "lost")
        if number == self.fault.at_call:
            self.is_lost = self.fault.fault == "lost"
            if self.is_lost or name.startswith("synchronize"):
                for stream in self.streams:  # it is the work that failed
                    stream.queue.clear()
            raise CudaError(f"{name}: injected", self.fault.fault)
        for _ in range(self.whim(MOST_STEPS)):
            self.step()

    def freed(self, name: str, kind: str) -> None:
        """A thing is gone, even if the call says no: a lost context takes all with it."""
        if self.live[kind] < 1:
            raise MisuseError(f"a {kind} was freed twice")
        self.live[kind] -= 1
        self.call(name, unsafe=True)

    def came(self, kind: str) -> None:
        self.live[kind] += 1
        self.made[kind] += 1

    def step(self) -> bool:
        """Do one thing that may be done now; False: there is none."""
        ready = [s for s in self.streams if s.queue and s.queue[0].is_ready()]
        if not ready:
            return False
        stream = ready[self.whim(len(ready))]
        op = stream.queue[0]
        if op.steps:
            op.steps.pop(0)()
        if not op.steps:
            stream.queue.popleft()
        return True

    def run_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            if not self.step():
                raise MisuseError("waits for what will never happen")

    def address(self, n_bytes: int) -> int:
        address = self._next_address
        self._next_address += -(-n_bytes // 256) * 256 + 256
        return address


class FakeMemory:
    """Of the GPU, or page-locked: ``kind`` tells."""

    def __init__(self, gpu: FakeGpu, n_bytes: int, kind: str) -> None:
        if n_bytes < 1:
            raise MisuseError(f"{n_bytes} bytes")
        if kind == "device" and gpu.used_bytes + n_bytes > gpu.total_bytes:
            raise CudaError(f"{n_bytes >> 20} MiB of GPU memory: out of memory", "memory")
        gpu.came(kind)
        gpu.used_bytes += n_bytes if kind == "device" else 0
        self._gpu = gpu
        self._kind = kind
        self.n_bytes = n_bytes
        self.bytes: Bytes = np.full(n_bytes, FRESH, np.uint8)
        self.is_freed = False
        self._address = gpu.address(n_bytes)
        if kind == "device":
            gpu.memory_at[self._address] = self

    @property
    def address(self) -> int:
        return self._address

    @property
    def array(self) -> Bytes:
        if self.is_freed:
            raise MisuseError("page-locked memory was used after it was freed")
        return self.bytes

    def alive(self) -> "FakeMemory":
        if self.is_freed:
            raise MisuseError(f"{self._kind} memory was used after it was freed")
        return self

    def free(self) -> None:
        self.is_freed = True
        self.bytes[:] = GONE
        if self._kind == "device":
            self._gpu.used_bytes -= self.n_bytes
            self._gpu.memory_at.pop(self._address, None)
        self._gpu.freed("free memory", self._kind)


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        gpu.came("event")
        self._gpu = gpu
        self.n_recorded = 0
        self.n_reached = 0

    def record(self, stream: "FakeStream") -> None:
        self._gpu.call("record event")
        self.n_recorded += 1
        mark = self.n_recorded

        def reach() -> None:
            self.n_reached = max(self.n_reached, mark)

        stream.give(Op([reach]))

    def synchronize(self) -> None:
        self._gpu.call("synchronize event", unsafe=True)
        mark = self.n_recorded
        self._gpu.run_until(lambda: self.n_reached >= mark)

    def free(self) -> None:
        self._gpu.freed("free event", "event")


class FakeStream:
    def __init__(self, gpu: FakeGpu) -> None:
        gpu.came("stream")
        gpu.streams.append(self)
        self._gpu = gpu
        self.queue: deque[Op] = deque()
        self.recorded: list[Recorded] | None = None
        self.is_spoiled = False
        self.handle = gpu.address(1)

    def give(self, op: Op) -> None:
        if self.recorded is not None:
            raise MisuseError("only a plan's work is recorded here")
        self.queue.append(op)

    def wait_for(self, event: FakeEvent) -> None:
        self._gpu.call("wait for event")
        mark = event.n_recorded
        self.give(Op([], lambda: event.n_reached >= mark))

    def synchronize(self) -> None:
        self._gpu.call("synchronize stream", unsafe=True)
        self._gpu.run_until(lambda: not self.queue)

    def free(self) -> None:
        if self.queue:
            raise MisuseError("a stream was freed that has something to do")
        self._gpu.streams.remove(self)
        self._gpu.freed("free stream", "stream")


class Counted(Protocol):
    """What counts the graphs that were recorded of it."""

    n_graphs: int


@dataclass(eq=False)
class Recorded:
    """A plan's work in a graph; ``again`` is called at every launch."""

    counted: "Counted"
    again: Callable[[], Op]


class FakeGraph:
    def __init__(self, gpu: FakeGpu, ops: "list[Recorded]") -> None:
        gpu.came("graph")
        for op in ops:
            op.counted.n_graphs += 1
        self._gpu = gpu
        self._ops = ops
        self._is_freed = False

    def launch(self, stream: FakeStream) -> None:
        self._gpu.call("launch graph")
        if self._is_freed:
            raise MisuseError("a graph was launched after it was freed")
        for op in self._ops:
            stream.give(op.again())

    def free(self) -> None:
        self._is_freed = True
        for op in self._ops:
            op.counted.n_graphs -= 1
        self._gpu.freed("free graph", "graph")


class FakeCuda:
    """See ``engine.backends.tensorrt.cuda.Cuda``."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._thread = threading.get_ident()

    @property
    def identity(self) -> GpuIdentity:
        return self._gpu.identity()

    @contextmanager
    def current(self) -> Iterator[None]:
        if threading.get_ident() != self._thread:
            raise MisuseError("the GPU was used from a thread that does not own it")
        self._gpu.call("push")
        self._gpu.stack.append(self)
        try:
            yield
        finally:
            self._gpu.stack.remove(self)
            self._gpu.call("pop")

    def memory(self) -> GpuMemory:
        self._call("memory")
        return GpuMemory(self._gpu.total_bytes - self._gpu.used_bytes, self._gpu.total_bytes)

    def allocate(self, n_bytes: int) -> FakeMemory:
        self._call("allocate", unsafe=True)
        return FakeMemory(self._gpu, n_bytes, "device")

    def pin(self, n_bytes: int) -> FakeMemory:
        self._call("pin", unsafe=True)
        return FakeMemory(self._gpu, n_bytes, "pinned")

    def stream(self) -> FakeStream:
        self._call("stream")
        return FakeStream(self._gpu)

    def event(self) -> FakeEvent:
        self._call("event")
        return FakeEvent(self._gpu)

    def upload(self, target: FakeMemory, source: Bytes, stream: FakeStream) -> None:
        self._call("upload")
        into = target.alive().bytes[: len(source)]
        assert len(source) == len(into), "more is copied than there is room for"
        stream.give(_halves(into, source, target))

    def download(self, target: Bytes, source: FakeMemory, stream: FakeStream) -> None:
        self._call("download")
        out = source.alive().bytes[: len(target)]
        assert len(target) == len(out), "more is copied than there is"
        stream.give(_halves(target, out, source))

    def record(self, stream: FakeStream, enqueue: Callable[[], None]) -> FakeGraph:
        self._call("begin recording")
        stream.recorded, stream.is_spoiled, self._gpu.capturing = [], False, stream
        try:
            enqueue()
        finally:
            ops, stream.recorded, self._gpu.capturing = stream.recorded, None, None
        self._call("end recording")
        if stream.is_spoiled or not self._gpu.can_capture:
            raise CudaError("operation failed due to a previous error during capture")
        return FakeGraph(self._gpu, ops)

    def close(self) -> None:
        if self in self._gpu.stack:
            raise MisuseError("closed while current")
        self._gpu.freed("close", "cuda")

    def _call(self, name: str, *, unsafe: bool = False) -> None:
        if self not in self._gpu.stack:
            raise MisuseError(f"{name}: the GPU is not current")
        self._gpu.call(name, unsafe=unsafe)


def _halves(into: Bytes, source: Bytes, device: FakeMemory) -> Op:
    middle = len(source) // 2

    def copy(part: slice) -> Callable[[], None]:
        def step() -> None:
            device.alive()
            into[part] = source[part]

        return step

    return Op([copy(slice(0, middle)), copy(slice(middle, None))])
