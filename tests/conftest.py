"""Fixtures and the hypothesis profile every test shares."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """Folder of real clips, kept beside the checkout; not part of the project."""
    data = Path(os.environ.get("S2NETD_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    clips = data / "clips"
    if not clips.is_dir():
        pytest.skip("no real clips: set S2NETD_TEST_DATA to a folder that holds clips/")
    return clips
