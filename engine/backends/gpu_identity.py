"""Which GPU a plan was built for; only the very same one, under the same driver, may run it."""

from dataclasses import dataclass

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """A GPU as TensorRT tells GPUs apart.

    Attributes:
        name: As its driver calls it, e.g. ``NVIDIA L4``.
        compute_capability: E.g. ``8.9``.
        driver: Version of its driver, e.g. ``13.0``.
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
