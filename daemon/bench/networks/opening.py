"""Opens the networks that ``bench --device`` measures, and tells their precision."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from daemon.errors import ConfigError
from engine.backends.base import EngineBackend
from engine.backends.names import BackendKind, check_backend, check_name
from engine.backends.onnx_precision import precision_of
from engine.backends.options import BackendOptions

DeviceKind = Literal["cpu", "cuda"]
Open = Callable[[Path, BackendOptions], EngineBackend]


@dataclass(frozen=True, slots=True)
class DeviceBenchOptions:
    """See `s2netd bench --help`.

    Attributes:
        bundles: Name or folder of each bundle, e.g. of one model in several precisions.
        device: ``cpu``, which OpenVINO runs, or ``cuda``, which TensorRT runs.
        precision: The precision, as for ``open_backend``.
        max_batch: The largest batch.
        seconds: Seconds for each batch size of each network.
        leak_batches: How many calls of each network lie between two readings of the memory.
        threads: CPU threads; None: all cores.
        gpu: Number of the GPU; 0 is the first.
    """

    bundles: tuple[str, ...]
    device: str = "cpu"
    precision: str = "auto"
    max_batch: int = 8
    seconds: float = 3.0
    leak_batches: int = 1000
    threads: int | None = None
    gpu: int = 0

    def __post_init__(self) -> None:
        check_name("--device", self.device, get_args(DeviceKind), ConfigError)
        check_backend(self.backend, self.precision, options=("--device", "--precision"))

    @property
    def backend(self) -> BackendKind:
        """What runs networks on the device."""
        return "tensorrt" if self.device == "cuda" else "openvino"


@dataclass(frozen=True, slots=True)
class DeviceBench:
    """What all measurements on one device share.

    Attributes:
        options: What to measure.
        device: Where to measure.
        opening: Opens a network there.
        clock_s: Gives the time in seconds, and never goes back.
    """

    options: DeviceBenchOptions
    device: DeviceKind
    opening: Open
    clock_s: Callable[[], float] = time.perf_counter

    def computed_in(self, held: str, description: str) -> str:
        """The precision that a network is computed in; a CPU may widen a half-precision file.

        Args:
            held: The precision that the network's file holds.
            description: The description of the backend that runs it.
        """
        if self.device == "cuda" or held == "int8":
            return held
        return "bf16" if "bf16" in description.split() else "f32"


@dataclass(frozen=True, slots=True)
class OpenNetwork:
    """A network that is open.

    Attributes:
        backend: Runs it.
        path: Its file.
        precision: The precision that it is computed in.
        open_s: Seconds that opening it took.
        origin: Where its plan came from; empty if it has none.
    """

    backend: EngineBackend
    path: Path
    precision: str
    open_s: float
    origin: str


@contextmanager
def opened(bench: DeviceBench, path: Path, sizes: BackendOptions) -> Iterator[OpenNetwork]:
    """Open a network, and measure how long that takes; close it afterwards.

    Raises:
        BundleError: The device cannot run the network.
        DeviceError: The device or its runtime is missing or failed.
    """
    phases: set[str] = set()
    told = replace(sizes, on_progress=lambda phase, _n_done, _n_steps: phases.add(phase))
    started_s = bench.clock_s()
    with closing(bench.opening(path, told)) as backend:
        open_s = bench.clock_s() - started_s
        precision = bench.computed_in(precision_of(path.read_bytes()), backend.description)
        origin = _origin(phases) if bench.device == "cuda" else ""
        yield OpenNetwork(backend, path, precision, open_s, origin)


def _origin(phases: set[str]) -> str:
    # If another process is building the plan, it is waited for, and is then in the cache.
    return "built" if phases - {"waiting"} else "from the cache"
