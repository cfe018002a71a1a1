"""A plan that is run on an NVIDIA GPU; ``opening`` tells where the plan comes from.

Everything on the GPU and the page-locked memory is taken once, when the backend is opened. A call
is cut into batches of the plan's sizes, padded, and sent through the GPU two at a time
(``pipeline``); the work of each is one recorded CUDA graph (``batch_runner``).

One thread opens, uses and closes a backend: its GPU belongs to that thread. After a failed call
the state of what was under way is unknown, so every later call fails at once with the first
reason; the process is to be restarted.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from engine.backends.base import Signature, Tensor, check_tensors
from engine.backends.options import BackendOptions
from engine.backends.profiles import Profiles, Shape, smallest_profile
from engine.backends.tensorrt.batch_runner import ProfileRunner
from engine.backends.tensorrt.cuda import Cuda, CudaError, GpuMemory, Plan, kept, suppressed
from engine.backends.tensorrt.pipeline import Part, Pipeline
from engine.errors import BundleError, DeviceError

# Twice through both slots: once as it is, once recorded.
_WARM_UP_PARTS = 4


class TensorRtBackend:
    """A network on a GPU.

    Args:
        cuda: The GPU, not current; closed with the backend, or if this fails.
        plan: The network on that GPU; freed with the backend, or if this fails.
        signature: The network's own signature.
        profiles: What the plan was built for, by rising batch size.
        options: Sizes, and whom to tell.
        description: For logs.

    Raises:
        DeviceError: The plan or its memory does not fit on the GPU; what was taken is given back.
    """

    def __init__(
        self,
        cuda: Cuda,
        plan: Plan,
        signature: Signature,
        profiles: Profiles,
        options: BackendOptions,
        description: str,
    ) -> None:
        self._cuda = cuda
        self._signature = signature
        self._profiles = profiles
        self._options = options
        self._description = description
        self._owner = threading.get_ident()
        self._broken: BaseException | None = None
        self._is_closed = False
        self._held = ExitStack()
        # Contexts and graphs are freed first, then the plan, then buffers, streams last.
        self._memory = self._held.enter_context(ExitStack())
        self._plans = self._held.enter_context(ExitStack())
        kept(self._plans, plan)
        try:
            with self._using():
                self._take(plan)
        except BaseException:
            self.close()
            raise

    @property
    def signature(self) -> Signature:
        """What ``run`` takes and gives."""
        return self._signature

    @property
    def description(self) -> str:
        """TensorRT, precision and GPU."""
        return self._description

    def memory(self) -> GpuMemory:
        """Memory of the GPU, in bytes."""
        with self._using():
            return self._cuda.memory()

    def warm_up(self) -> None:
        """Run every batch size on zeros until its graphs are recorded."""
        with self._using():
            for index, profile in enumerate(self._profiles):
                shapes = {given.name: given.opt for given in profile.inputs}
                zeros: dict[str, Tensor] = {
                    spec.name: np.zeros(shapes[spec.name], spec.dtype)
                    for spec in self._signature.inputs
                }
                part = self._part(index, shapes, 0, profile.batch_size)
                self._pipeline.run(zeros, [part] * _WARM_UP_PARTS)

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Infer: tensors by name, with the shapes and dtypes that ``signature`` says."""
        check_tensors(self._signature.inputs, tensors, self._description)
        n_rows = {spec.name: len(tensors[spec.name]) for spec in self._signature.inputs}
        if len(set(n_rows.values())) != 1:
            raise BundleError(f"{self._description}: inputs differ in their rows: {n_rows}")
        with self._using():
            parts = self._parts(tensors, next(iter(n_rows.values())))
            return self._pipeline.run(tensors, parts)

    def close(self) -> None:
        """Give everything back, after whatever is under way; may be called twice."""
        if self._is_closed:
            return
        self._check_thread()
        self._is_closed = True
        try:
            with self._cuda.current():
                self._held.close()
        except CudaError:  # not even current any more: let go of what CUDA frees by itself
            self._held.close()
        finally:
            suppressed(self._cuda.close)

    def _take(self, plan: Plan) -> None:
        """Take streams, buffers and contexts."""
        cuda, options, memory = self._cuda, self._options, self._memory
        copies, work = kept(memory, cuda.stream()), kept(memory, cuda.stream())
        scratch = kept(memory, cuda.allocate(max(plan.scratch_bytes, 1)))
        self._runners: list[ProfileRunner] = []
        for index, profile in enumerate(self._profiles):
            context = kept(self._plans, plan.context(index, scratch, work))
            runner = ProfileRunner(
                cuda,
                context,
                profile,
                plan.tensors,
                graphs=options.cuda_graphs,
                on_log=options.on_log,
            )
            self._runners.append(runner)
        self._plans.callback(self._drop_graphs)
        self._pipeline = Pipeline(
            cuda, copies, work, self._largest(), memory, overlap=options.overlap
        )
        # Called first of all, so that nothing is freed that work under way still uses.
        self._held.callback(self._pipeline.synchronize)

    def _drop_graphs(self) -> None:
        for runner in self._runners:
            runner.drop_graphs()

    def _largest(self) -> dict[str, int]:
        """Bytes of each tensor at the largest shapes there are."""
        n_bytes: dict[str, int] = {}
        for runner in self._runners:
            layout = runner.layout({given.name: given.max for given in runner.profile.inputs})
            for placed in (*layout.inputs, *layout.outputs):
                n_bytes[placed.name] = max(n_bytes.get(placed.name, 0), placed.n_bytes)
        return n_bytes

    def _parts(self, tensors: Mapping[str, Tensor], n_rows: int) -> list[Part]:
        """Batches of the plan's sizes for inputs (n_rows, ...)."""
        largest = self._profiles[-1].batch_size
        parts = []
        for first in range(0, n_rows, largest):
            n = min(n_rows - first, largest)
            index = smallest_profile(self._profiles, n)
            batch_size = self._profiles[index].batch_size
            shapes = {
                given.name: (batch_size, *tensors[given.name].shape[1:])
                for given in self._profiles[index].inputs
            }
            parts.append(self._part(index, shapes, first, n))
        return parts

    def _part(self, index: int, shapes: Mapping[str, Shape], first: int, n_rows: int) -> Part:
        profile, runner = self._profiles[index], self._runners[index]
        if not profile.admits(shapes):
            raise BundleError(
                f"{self._description}: inputs are {dict(shapes)}, wanted within {profile.inputs}: "
                "the plan was built for other lengths"
            )
        return Part(first, n_rows, runner, runner.layout(shapes))

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Make the GPU current; after a failure in here the backend is never used again.

        ``BundleError`` is no such failure: it is raised before anything is under way.
        """
        self._check_thread()
        if self._is_closed:
            raise DeviceError(f"{self._description} is closed")
        if self._broken is not None:
            raise DeviceError(f"{self._description} was broken off before: {self._broken!r}")
        try:
            with using(self._cuda, self._description, self._options):
                yield
        except BundleError:
            raise
        except BaseException as error:
            self._broken = error
            raise

    def _check_thread(self) -> None:
        if threading.get_ident() != self._owner:
            raise DeviceError(
                f"{self._description} is used by another thread than the one that opened it; "
                "please report this"
            )


@contextmanager
def using(cuda: Cuda, description: str, options: BackendOptions) -> Iterator[None]:
    """With the GPU current; what fails on it is told with what can be done about it.

    Args:
        cuda: The GPU.
        description: Who uses it.
        options: What it was asked for.

    Raises:
        DeviceError: In place of every ``CudaError``.
    """
    try:
        with cuda.current():
            try:
                yield
            except CudaError as error:
                raise _explained(error, description, options, _free_memory(cuda)) from error
    except CudaError as error:  # it could not even be made current
        raise _explained(error, description, options, "") from error


def _free_memory(cuda: Cuda) -> str:
    """How much is free, in words; empty if the GPU no longer tells."""
    with suppress(CudaError):
        return f"; {cuda.memory()}"
    return ""


def _explained(
    error: CudaError, description: str, options: BackendOptions, free_memory: str
) -> DeviceError:
    """What failed, and what can be done about it."""
    text = f"{description}: {error}"
    if error.fault == "memory":
        text += (
            f"{free_memory}: lower max_batch (now {options.max_batch}), or end other "
            "programs that use this GPU (nvidia-smi lists them)"
        )
    elif error.fault == "lost":
        text += (
            "; this process cannot use the GPU any more and must be restarted. If it happens "
            "again, look for Xid in the kernel's log (dmesg) and report both"
        )
    return DeviceError(text)
