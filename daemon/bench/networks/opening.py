"""How the networks that ``bench --device`` measures are opened, and what they are computed in."""

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
        bundles: Name or folder of each; those of one model in several precisions, say.
        device: ``cpu``: OpenVINO; ``cuda``: TensorRT.
        precision: As of ``open_backend``.
        max_batch: Largest batch.
        seconds: For each size of each network.
        leak_batches: Calls of each network, before and after which memory is compared.
        threads: Of the CPU.
        gpu: Index of the GPU.
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
    """What everything that is measured on one device has in common.

    Attributes:
        options: As asked for.
        device: Where.
        opening: Opens a network there.
        clock_s: A clock that never goes back.
    """

    options: DeviceBenchOptions
    device: DeviceKind
    opening: Open
    clock_s: Callable[[], float] = time.perf_counter

    def computed_in(self, held: str, description: str) -> str:
        """What a network is computed in: a CPU widens half precision to what it has.

        Args:
            held: The precision that its file holds.
            description: Of the backend that runs it.
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
        precision: What it is computed in.
        open_s: Seconds that opening it took.
        origin: Where its plan came from; empty: it has none.
    """

    backend: EngineBackend
    path: Path
    precision: str
    open_s: float
    origin: str


@contextmanager
def opened(bench: DeviceBench, path: Path, sizes: BackendOptions) -> Iterator[OpenNetwork]:
    """Open a network, and note how long that took; closed afterwards.

    Raises:
        BundleError: It is no network for this device.
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
    # One that another process builds meanwhile is waited for, and is then in the cache.
    return "built" if phases - {"waiting"} else "from the cache"
