"""Which GPU a plan was built for; only the very same one, under the same driver, may run it."""

import re
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

# Where the driver's kernel module says which release it is; not there under WSL, nor in every
# container.
DRIVER_FILE = Path("/proc/driver/nvidia/version")
_RELEASE = re.compile(r"^NVRM version:.*Kernel Module\b.*?\s(\d+(?:\.\d+)+)(?!\S)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """A GPU as TensorRT tells GPUs apart.

    Attributes:
        name: As its driver calls it, e.g. ``NVIDIA L4``.
        compute_capability: E.g. ``8.9``.
        driver: Version of its driver, see ``driver_version``.
    """

    name: str
    compute_capability: str
    driver: str

    @override
    def __str__(self) -> str:
        """For people."""
        if self == NO_GPU:
            return "none"
        return f"{self.name} (compute {self.compute_capability}, driver {self.driver})"


# Where TensorRT for RTX builds without one. Such a plan never passes for one built on a GPU.
NO_GPU = GpuIdentity("none", "none", "none")


def driver_version(cuda: int, path: Path = DRIVER_FILE) -> str:
    """The installed driver, e.g. ``13.0, release 580.65.06``.

    Many releases have one CUDA version. Where the release is not told, that version stands alone.

    Args:
        cuda: The latest CUDA that the driver knows, as it counts: 13000 is 13.0.
        path: What the kernel module says of itself.
    """
    version = f"{cuda // 1000}.{cuda % 1000 // 10}"
    try:
        told = _RELEASE.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        told = None
    return version if told is None else f"{version}, release {told[1]}"
