"""The end of a run names each missing part once, with how many tests want it."""

import pytest

from tests.support.skipped import part_of, told

TORCH = "Skipped: no torch (No module named 'torch'): pip install 's2netd[training]'"


def test_a_missing_part_is_one_line_however_many_places_want_it() -> None:
    clips = "Skipped: no real clips: set S2NETD_TEST_DATA to a folder that holds clips/"
    other = "Skipped: no torch: pip install 's2netd[training]'"

    assert [
        "skipped 4, for want of",
        "     3  PyTorch (make setup-training)",
        "     1  real clips beside the checkout (S2NETD_TEST_DATA)",
    ] == told([TORCH, clips, other, TORCH])


def test_nothing_skipped_is_nothing_said() -> None:
    assert [] == told([])


@pytest.mark.parametrize(
    ("reason", "start"),
    [
        ("takes minutes: run with S2NETD_TEST_SOAK=1", "time"),
        ("TensorRT cannot be imported (...): pip ...: scripts/gpu-parts test", "the software of"),
        ("TensorRT for RTX cannot be imported (...); or make setup-training", "TensorRT for RTX"),
        ("no GPU to test on: TensorRT cannot be imported", "an NVIDIA GPU"),
        ("no weights: s2netd models pull scenes", "the published weights"),
        ("no broker: set S2NETD_TEST_KAFKA, or install java and mvn", "a Kafka broker"),
        ("could not import 'openvino': No module named 'openvino'", "OpenVINO"),
        ("no promtool: apt install prometheus", "promtool (apt"),
        ("this CPU has bf16", "this CPU has bf16"),
    ],
)
def test_a_reason_leads_to_the_part_or_is_told_as_it_is(reason: str, start: str) -> None:
    assert part_of(f"Skipped: {reason}").startswith(start)
