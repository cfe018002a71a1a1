"""What becomes of a test whose real part (broker, browser, service manager...) is not here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
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


def has_torch() -> bool:
    """Without it, tests marked ``torch`` are skipped (see ``conftest``)."""
    return find_spec("torch") is not None


@contextmanager
def torch_imports() -> Iterator[None]:
    """What needs torch is imported in here, and left out where torch is not installed.

    Any other import that fails is an error: as a skip, it would hide what moved or broke.
    """
    try:
        yield
    except ImportError:
        if has_torch():
            raise


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
