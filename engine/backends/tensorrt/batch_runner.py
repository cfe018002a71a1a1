"""One batch size of a plan: which shapes it takes, and how its work is given to the GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from engine.backends.base import Tensor
from engine.backends.options import OnLog
from engine.backends.profiles import ShapeProfile
from engine.backends.tensorrt.cuda import (
    Bytes,
    Cuda,
    CudaError,
    Graph,
    PlanContext,
    PlanTensor,
    Shape,
    Stream,
    suppressed,
)
from engine.errors import BundleError


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of a whole batch, as it lies in memory.

    Attributes:
        name: Of the input or output.
        shape: With the batch as first dimension.
        dtype: NumPy's name.
    """

    name: str
    shape: Shape
    dtype: str

    @property
    def n_bytes(self) -> int:
        """Its bytes in memory, without gaps."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def view(self, memory: Bytes) -> Tensor:
        """The start of ``memory``, uint8 (N,), as this tensor, of ``shape`` and ``dtype``."""
        return memory[: self.n_bytes].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """All tensors of a batch."""

    inputs: tuple[Placed, ...]
    outputs: tuple[Placed, ...]


class ProfileRunner:
    """A plan's context for one profile, with the graphs recorded of it, one for each slot.

    Args:
        cuda: The GPU.
        context: Of the plan, set up for the profile; freed by its maker, after ``drop_graphs``.
        profile: Its shapes.
        tensors: The plan's.
        graphs: Record them.
        on_log: Told when that does not work.
    """

    def __init__(
        self,
        cuda: Cuda,
        context: PlanContext,
        profile: ShapeProfile,
        tensors: tuple[PlanTensor, ...],
        *,
        graphs: bool,
        on_log: OnLog,
    ) -> None:
        self._cuda = cuda
        self._context = context
        self._profile = profile
        self._tensors = tensors
        self._records = graphs
        self._on_log = on_log
        self._layout: Layout | None = None
        self._graphs: dict[int, Graph] = {}
        self._seen_slots: set[int] = set()

    @property
    def profile(self) -> ShapeProfile:
        """Its shapes."""
        return self._profile

    def layout(self, shapes: Mapping[str, Shape]) -> Layout:
        """Take these shapes of the inputs from now on; nothing may be under way.

        Raises:
            BundleError: They do not go together, or the network does not keep rows apart.
        """
        inputs = tuple(
            Placed(tensor.name, shapes[tensor.name], tensor.dtype)
            for tensor in self._tensors
            if tensor.is_input
        )
        if self._layout is not None and self._layout.inputs == inputs:
            return self._layout
        self.drop_graphs()
        self._layout = None
        for placed in inputs:
            self._context.set_shape(placed.name, placed.shape)
        self._layout = Layout(
            inputs, tuple(self._output(t, inputs) for t in self._tensors if not t.is_input)
        )
        return self._layout

    def enqueue(self, slot: int, addresses: Mapping[str, int], work: Stream) -> None:
        """Give a batch's work to a stream.

        The first batch of a shape is given as it is: TensorRT settles into new shapes in ways
        that cannot be recorded. The second one in the slot is recorded, and replayed from then on.

        Args:
            slot: Number of the slot; its addresses are always the same.
            addresses: Address of every input and output, by name.
            work: The stream.
        """
        if slot not in self._graphs:
            for name, address in addresses.items():
                self._context.set_address(name, address)
            if not self._is_recorded(slot, work):
                self._context.enqueue(work)
                self._seen_slots.add(slot)
                return
        self._graphs[slot].launch(work)

    def drop_graphs(self) -> None:
        """Forget what was recorded; nothing may be under way."""
        while self._graphs:
            suppressed(self._graphs.popitem()[1].free)
        self._seen_slots.clear()

    def _is_recorded(self, slot: int, work: Stream) -> bool:
        if not self._records or slot not in self._seen_slots:
            return False
        try:
            self._graphs[slot] = self._cuda.record(work, lambda: self._context.enqueue(work))
        except CudaError as error:
            self._records = False
            self._on_log(
                "warning",
                f"batches of {self._profile.batch_size} run without a CUDA graph: {error}",
            )
            return False
        return True

    def _output(self, tensor: PlanTensor, inputs: tuple[Placed, ...]) -> Placed:
        shape = self._context.shape(tensor.name)
        if not shape or shape[0] != self._profile.batch_size or min(shape) < 1:
            given = {placed.name: placed.shape for placed in inputs}
            raise BundleError(
                f'for {given} the network gives "{tensor.name}" {shape}, wanted '
                f"{self._profile.batch_size} rows of a known shape"
            )
        return Placed(tensor.name, shape, tensor.dtype)
