"""Files for people are whole or not there, and a full disk is one line that says what to do."""

import errno
import os
from pathlib import Path

import pytest

from daemon.errors import ConfigError, TransportError
from daemon.outputs import write_whole, writing_to


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for content in (b"first", b"second"):
        write_whole(path, content)
        assert content == path.read_bytes()

    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_was_there_stays_if_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"of before")

    def fail(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((ConfigError, TransportError)):
        write_whole(path, b"new")

    assert b"of before" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_a_full_disk_is_named_with_the_path_and_what_to_free(tmp_path: Path) -> None:
    """The kernel's own full disk."""
    with (
        pytest.raises(TransportError) as caught,
        writing_to(tmp_path / "page.html", 2_500_000),
        Path("/dev/full").open("wb") as file,
    ):
        file.write(b"x" * 100_000)

    said = str(caught.value)
    assert f"{tmp_path / 'page.html'}: No space left on device" in said
    assert f"free 2.5 MB on the disk of {tmp_path}" in said
    assert "--out" in said
    assert "\n" not in said


def test_a_place_that_cannot_be_written_is_the_operators_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/page\.html: cannot be written: Not a directory"):
        write_whole(tmp_path / "file" / "page.html", b"")


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "page.html", b"new")

    assert [] == list(tmp_path.iterdir())
