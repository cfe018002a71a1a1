"""What a backend may be asked besides which network to run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.backends.profiles import LengthRange, batch_sizes_up_to

OnLog = Callable[[str, str], None]  # severity (error, warning, info...), message
OnProgress = Callable[[str, int, int], None]  # phase, steps done, steps there are


def _silent_log(_severity: str, _message: str) -> None:
    pass


def _silent_progress(_phase: str, _done: int, _total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """Sizes and places; a backend that has no use for one ignores it.

    Attributes:
        max_batch: Most rows of one call on the device, at least 1; more are split.
        one_batch_size: Pad every call to ``max_batch``. Slower at little load, but then an answer
            does not even depend on *how many* rows shared a call: kernels chosen for another
            batch size round differently.
        length: (min, opt, max) of a network's free window length, in snippets; None: it has none.
        gpu: Index of the GPU, as CUDA counts.
        cache_dir: Where plans are kept; None: ``plans_dir()``.
        cuda_graphs: Record each shape's work once and replay it.
        overlap: Copy the next batch's rows while the GPU computes.
        on_log: Told what the runtime says, and why something is slower than it could be.
        on_progress: Told how far building a plan is.
    """

    max_batch: int = 8
    one_batch_size: bool = False
    length: LengthRange | None = None
    gpu: int = 0
    cache_dir: Path | None = None
    cuda_graphs: bool = True
    overlap: bool = True
    on_log: OnLog = _silent_log
    on_progress: OnProgress = _silent_progress

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise ValueError(f"max_batch is {self.max_batch}, wanted at least 1")
        if self.gpu < 0:
            raise ValueError(f"gpu is {self.gpu}, wanted 0 or more")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Rows of a padded call, rising; a plan has a profile for each."""
        return (self.max_batch,) if self.one_batch_size else batch_sizes_up_to(self.max_batch)
