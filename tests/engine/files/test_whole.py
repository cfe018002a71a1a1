"""A file is whole or not there."""

import os
from pathlib import Path

import pytest

from engine.files.whole import write_whole


def test_a_file_takes_its_place_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_bytes(b"of before")
    write_whole(path, b"head", b"body", unfinished=".unfinished", mode=0o600)

    assert (b"headbody", 0o600) == (path.read_bytes(), path.stat().st_mode & 0o777)
    assert [path] == list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_neither_kept_nor_followed(tmp_path: Path) -> None:
    others, path = tmp_path / "others", tmp_path / "plan"
    others.write_bytes(b"theirs")
    (tmp_path / ".unfinished").symlink_to(others)
    write_whole(path, b"ours", unfinished=".unfinished")

    assert (b"ours", b"theirs") == (path.read_bytes(), others.read_bytes())
    assert not path.is_symlink()


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan"
    path.write_bytes(b"of before")

    def fail(_fd: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no room"):
        write_whole(path, b"new", unfinished=".unfinished")

    assert b"of before" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())
