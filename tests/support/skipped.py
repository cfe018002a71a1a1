"""What was skipped and why, in one line a missing part instead of one a place in the tests."""

import re
from collections import Counter
from collections.abc import Iterable

# What a reason says → the part that it wants, and how to get it. The first that fits counts; a
# reason that none fits is a part of its own.
PARTS = (
    (r"S2NETD_TEST_SOAK", "time: these take minutes (S2NETD_TEST_SOAK=1)"),
    (r"scripts/gpu-parts", "the software of the GPU path (scripts/gpu-parts test)"),
    (r"TensorRT for RTX|tensorrt_rtx", "TensorRT for RTX (make setup-training)"),
    (r"\btorch\b", "PyTorch (make setup-training)"),
    (r"\bno (NVIDIA )?GPU|\bCUDA\b", "an NVIDIA GPU, its driver, TensorRT and pycuda"),
    (r"S2NETD_TEST_DATA", "real clips beside the checkout (S2NETD_TEST_DATA)"),
    (r"s2netd models pull|no (real )?weights", "the published weights (s2netd models pull)"),
    (r"Java and Maven|no broker", "a Kafka broker (apt install default-jre-headless maven)"),
    (r"promtool", "promtool (apt install prometheus)"),
    (r"openvino|OpenVINO", "OpenVINO (make setup)"),
)


def part_of(reason: str) -> str:
    """The part whose want a reason tells of."""
    text = reason.removeprefix("Skipped: ")
    return next((part for pattern, part in PARTS if re.search(pattern, text)), text)


def told(reasons: Iterable[str]) -> list[str]:
    """Lines for the end of a run; none where nothing was skipped."""
    counts = Counter(map(part_of, reasons))
    if not counts:
        return []
    total = f"skipped {counts.total()}, for want of"
    return [total, *(f"{n:>6}  {part}" for part, n in counts.most_common())]
