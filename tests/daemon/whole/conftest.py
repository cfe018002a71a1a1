"""What tests of the whole daemon share: footage in chunks that end within a snippet."""

from pathlib import Path

import pytest

from tests.support.footage import BUSY, colour_clip


@pytest.fixture(scope="session")
def odd_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of 13 frames end within a snippet of 4, so a camera always needs frames again."""
    return colour_clip(tmp_path_factory.mktemp("clips") / "odd.mp4", BUSY, gop=13)
