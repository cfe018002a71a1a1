"""A process that wants a plan; its build leaves a line in a log and can be held up."""

import os
import signal
import sys
import time
from pathlib import Path

from engine.backends.profiles import InputShapes, ShapeProfile
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.plan_cache import PlanCache, PlanKey

PLAN = bytes(range(256)) * 64


def a_plan_key(
    onnx_sha256: str = "ab" * 32,
    tensorrt: str = "tensorrt 10.15.1.29",
    gpu: GpuIdentity = GpuIdentity("NVIDIA L4", "8.9", "13.0"),  # noqa: B008 - frozen
    precision: str = "f32",
    batch_sizes: tuple[int, ...] = (1, 2),
) -> PlanKey:
    profiles = tuple(
        ShapeProfile((InputShapes("features", (n, 5, 3), (n, 5, 3), (n, 5, 3)),))
        for n in batch_sizes
    )
    return PlanKey(onnx_sha256, tensorrt, gpu, precision, profiles)


def main(folder: str, log: str, gate: str, end: str) -> None:
    """Ask for the plan.

    Args:
        folder: The cache.
        log: Where building is written down.
        gate: Building goes on while this file is there.
        end: ``whole``, ``killed`` while building, or ``torn``: killed while the plan is written.
    """

    def build() -> bytes:
        with Path(log).open("a", encoding="ascii") as file:
            file.write("building\n")
        while Path(gate).exists():
            time.sleep(0.005)
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return PLAN

    if end == "torn":
        os.fsync = lambda _handle: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    cache = PlanCache(Path(folder), on_note=lambda note: os.write(1, f"{note}\n".encode()))
    assert PLAN == cache.obtain(a_plan_key(), build).plan


if __name__ == "__main__":
    main(*sys.argv[1:])
