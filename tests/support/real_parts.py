"""What becomes of a test whose real part (broker, browser, service manager...) is not here."""

import os
from typing import NoReturn

import pytest


def missing(part: str) -> NoReturn:
    """Skip the test, or fail it where ``$S2NETD_REQUIRE_REAL_PARTS`` asks for every real part.

    Args:
        part: What is missing and how to get it.
    """
    if os.environ.get("S2NETD_REQUIRE_REAL_PARTS") == "1":
        pytest.fail(f"{part} (S2NETD_REQUIRE_REAL_PARTS=1)", pytrace=False)
    pytest.skip(part)


def missing_gpu_part(part: str) -> NoReturn:
    """Skip the test, or fail it under ``scripts/gpu-parts test``.

    What that fetches is not put where all tests would see it: they would take one TensorRT for
    the other.

    Args:
        part: What is missing.
    """
    if os.environ.get("S2NETD_TEST_GPU_PARTS") == "1":
        pytest.fail(f"{part} (S2NETD_TEST_GPU_PARTS=1)", pytrace=False)
    pytest.skip(f"{part}: scripts/gpu-parts test")
