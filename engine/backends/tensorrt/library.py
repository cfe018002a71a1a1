"""TensorRT, whichever is installed, and the few ways in which its kinds differ.

``tensorrt`` (or its bindings alone) versions 10 and 11, or TensorRT for RTX: one API but for what
``TensorRt`` tells. Precision always lives in the ONNX file: 11 and RTX know nothing else, and 10
is asked for the same (a strongly typed network).
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, get_args

from typing_extensions import override

from engine.errors import DeviceError

TensorRtKind = Literal["tensorrt", "tensorrt_rtx"]
TensorRtChoice = Literal["auto", "tensorrt", "tensorrt_rtx"]

OLDEST_TENSORRT = 10

# The full package, its bindings with libraries found by the loader, the one for RTX.
_MODULES: tuple[tuple[str, TensorRtKind], ...] = (
    ("tensorrt", "tensorrt"),
    ("tensorrt_bindings", "tensorrt"),
    ("tensorrt_rtx", "tensorrt_rtx"),
)
_EXTRA = {"tensorrt": "gpu", "tensorrt_rtx": "rtx"}


@dataclass(frozen=True, slots=True)
class TensorRt:
    """An imported TensorRT.

    Attributes:
        module: With ``Builder``, ``Runtime`` and the rest.
        kind: Which; a plan of one is nothing to the other.
        version: E.g. ``10.15.1.29``; a plan belongs to exactly one.
    """

    module: Any
    kind: TensorRtKind
    version: str

    @override
    def __str__(self) -> str:
        """Kind and version: names the TensorRT that a plan belongs to."""
        return f"{self.kind} {self.version}"

    @property
    def network_flags(self) -> int:
        """For ``Builder.create_network``: a strongly typed network.

        Where nothing else is possible the flag may go (11.4 has it still), as did
        ``EXPLICIT_BATCH`` before.
        """
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    @property
    def has_timing_cache(self) -> bool:
        """Do timings of one build speed up the next?

        RTX has the calls, but times nothing when it builds, and asks for a GPU if they are used.
        """
        return self.kind == "tensorrt"

    @property
    def user_allocation_flag(self) -> Any:
        """RTX allocates while it runs unless it is built not to, and a CUDA graph forbids that.

        None where there is no such flag, nor need of one.
        """
        return getattr(self.module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)

    @property
    def builds_without_gpu(self) -> bool:
        """RTX compiles for the GPU when a plan is loaded; the others when it is built."""
        return self.kind == "tensorrt_rtx"


def find_tensorrt(prefer: TensorRtChoice = "auto") -> TensorRt:
    """Import TensorRT.

    Args:
        prefer: ``auto``: ``tensorrt`` if it is installed, else ``tensorrt_rtx``.

    Raises:
        DeviceError: It is not installed, cannot be imported, or is too old; says what to install.
    """
    if prefer not in get_args(TensorRtChoice):
        raise DeviceError(f"TensorRT is {prefer!r}, wanted one of {get_args(TensorRtChoice)}")
    failures: list[str] = []
    for name, kind in _MODULES:
        if prefer in ("auto", kind):
            found = _imported(name, kind, failures)
            if found is not None:
                return found
    extra = _EXTRA.get(prefer, "gpu")
    what = "TensorRT for RTX" if prefer == "tensorrt_rtx" else "TensorRT"
    reason = "; ".join(failures) or "not installed"
    raise DeviceError(f"{what} cannot be imported ({reason}): pip install 's2netd[{extra}]'")


def check_pycuda() -> None:
    """Is pycuda installed? It cannot be imported without a GPU's driver.

    Raises:
        DeviceError: No; says what to install.
    """
    if importlib.util.find_spec("pycuda") is None:
        raise DeviceError(
            "pycuda is not installed: pip install 's2netd[gpu]'; pip builds it and needs nvcc of "
            "the CUDA toolkit on the PATH"
        )


def _imported(name: str, kind: TensorRtKind, failures: list[str]) -> TensorRt | None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            failures.append(f"{name}: {error}")
        return None
    except (ImportError, OSError, RuntimeError) as error:  # its libraries are missing or foreign
        failures.append(f"{name}: {error}")
        return None
    version = str(getattr(module, "__version__", ""))
    if not hasattr(module, "Builder") or not version:
        failures.append(f"{name}: holds no builder")
        return None
    major = version.partition(".")[0]
    if kind == "tensorrt" and not (major.isdecimal() and int(major) >= OLDEST_TENSORRT):
        failures.append(f"{name} is {version}, wanted {OLDEST_TENSORRT} or newer")
        return None
    return TensorRt(module, kind, version)
