"""What the process tests share: a tiny real bundle, a clip, and what is found in it."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.footage import BUSY, colour_clip
from tests.support.processes import read_events, s2netd, without_ids
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


@pytest.fixture(scope="session")
def localized(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, clip: Path
) -> list[tuple[Any, ...]]:
    """What `localize` finds in the clip: all else must find the same."""
    out = tmp_path_factory.mktemp("localized")
    done = s2netd("localize", clip, "--bundle", bundle, "--out", out, "--precision", "f32")
    assert done.returncode == 0, done.stderr
    events = without_ids(read_events(out / "events.jsonl"))
    assert len(events) >= 4
    return events
