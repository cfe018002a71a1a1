"""A compiled network on the fake GPU: a Python function, under the rules of a real plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from engine.backends.base import Tensor
from engine.backends.tensorrt.cuda import CudaError, PlanTensor, Shape
from tests.support.fake_cuda import (
    FRESH,
    FakeGpu,
    FakeMemory,
    FakeStream,
    MisuseError,
    Op,
    Recorded,
)

Network = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]  # whole batch → whole batch


@dataclass(frozen=True)
class Program:
    """What a fake plan computes.

    Attributes:
        run: A whole batch → a whole batch, row by row.
        tensors: Of the plan.
        output_shape: Output's name, shapes of the inputs → its shape.
        n_profiles: How many optimization profiles.
        scratch_bytes: Memory it needs meanwhile.
    """

    run: Network
    tensors: tuple[PlanTensor, ...]
    output_shape: Callable[[str, Mapping[str, Shape]], Shape]
    n_profiles: int
    scratch_bytes: int = 4096


class FakePlan:
    """See ``engine.backends.tensorrt.cuda.Plan``."""

    def __init__(self, gpu: FakeGpu, program: Program) -> None:
        gpu.call("load plan", unsafe=True)
        gpu.came("plan")
        self.gpu = gpu
        self.program = program
        self.n_contexts = 0

    @property
    def tensors(self) -> tuple[PlanTensor, ...]:
        return self.program.tensors

    @property
    def n_profiles(self) -> int:
        return self.program.n_profiles

    @property
    def scratch_bytes(self) -> int:
        return self.program.scratch_bytes

    def context(self, profile: int, scratch: FakeMemory, stream: FakeStream) -> "FakeContext":
        assert 0 <= profile < self.n_profiles
        assert scratch.n_bytes >= self.scratch_bytes
        return FakeContext(self, scratch, stream)

    def free(self) -> None:
        if self.n_contexts:
            raise MisuseError("a plan was freed before its contexts")
        self.gpu.freed("free plan", "plan")


@dataclass
class FakeContext:
    """See ``engine.backends.tensorrt.cuda.PlanContext``."""

    plan: FakePlan
    scratch: FakeMemory
    stream: FakeStream
    shapes: dict[str, Shape] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    is_settled: bool = False
    version: int = 0
    n_graphs: int = 0

    def __post_init__(self) -> None:
        self.plan.gpu.call("make context", unsafe=True)
        self.plan.n_contexts += 1
        self.plan.gpu.came("context")

    def set_shape(self, name: str, shape: Shape) -> None:
        self.plan.gpu.call("set shape")
        self.shapes[name] = shape
        self.is_settled = False
        self.version += 1

    def shape(self, name: str) -> Shape:
        return self.plan.program.output_shape(name, self.shapes)

    def set_address(self, name: str, address: int) -> None:
        self.plan.gpu.call("set address")
        self.addresses[name] = address

    def enqueue(self, stream: FakeStream) -> None:
        gpu = self.plan.gpu
        gpu.call("enqueue")
        if stream is not self.stream:
            raise MisuseError("work that shares scratch memory was given to two streams")
        if stream.recorded is None:
            self.is_settled = True
            stream.give(self._maker()())
            return
        if not self.is_settled:
            stream.is_spoiled = True
            raise CudaError("the plan settles into its shapes: cannot be recorded")
        version = self.version
        make = self._maker()

        def again() -> Op:
            if version != self.version:
                raise MisuseError("a graph was launched after the shapes changed")
            return make()

        stream.recorded.append(Recorded(self, again))

    def free(self) -> None:
        if self.n_graphs:
            raise MisuseError("a context was freed before its graphs")
        self.plan.n_contexts -= 1
        self.plan.gpu.freed("free context", "context")

    def _maker(self) -> Callable[[], Op]:
        """The work with the shapes and addresses of now, however often it is done."""
        placed = [
            _Placed(
                tensor,
                self.shapes[tensor.name]
                if tensor.is_input
                else self.plan.program.output_shape(tensor.name, self.shapes),
                self.addresses[tensor.name],
                self.plan.gpu,
            )
            for tensor in self.plan.program.tensors
        ]

        def make() -> Op:
            read: dict[str, Tensor] = {}

            def inputs() -> None:
                self.scratch.alive().bytes[:] = 0
                read.update({p.tensor.name: p.view().copy() for p in placed if p.tensor.is_input})

            def outputs() -> None:
                if self.scratch.alive().bytes.any():
                    raise MisuseError("two plans used the same scratch memory at once")
                answers = self.plan.program.run(read)
                for place in placed:
                    if not place.tensor.is_input:
                        place.view()[...] = answers[place.tensor.name]
                self.scratch.bytes[:] = FRESH

            return Op([inputs, outputs])

        return make


@dataclass(frozen=True)
class _Placed:
    tensor: PlanTensor
    shape: Shape
    address: int
    gpu: FakeGpu

    def view(self) -> Tensor:
        memory = self.gpu.memory_at.get(self.address)
        if memory is None:
            raise MisuseError(f"{self.tensor.name} lies in memory that was freed")
        n_bytes = prod(self.shape) * np.dtype(self.tensor.dtype).itemsize
        if n_bytes > memory.n_bytes:
            raise MisuseError(f"{self.tensor.name} is larger than its memory")
        return memory.bytes[:n_bytes].view(self.tensor.dtype).reshape(self.shape)
