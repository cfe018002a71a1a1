"""A file system of a test's own that is soon full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.real_parts import missing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        missing("no right to mount a small file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for n_bytes in (65_536, 512):
            try:
                while True:
                    file.write(bytes(n_bytes))
            except OSError:
                continue
    return filler
