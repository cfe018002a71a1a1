"""The files in a camera's folder of chunks: their names, their numbers, and what is in them.

    root/door/0000000007.json    the chunk's headers, written first
    root/door/0000000007.mp4     the chunk, put in place once whole
    root/door/0000000008.end     nothing follows in this run
    root/door/.identity          tells this folder from one made anew under its name

A file's number is all digits of its stem. A file without a sidecar (the .json file with the
headers) is foreign: its camera is the folder, and its time the file's.
"""

import contextlib
import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import MalformedRecordError
from daemon.sources.patient import read_regular
from daemon.wire.headers import Headers
from daemon.wire.records import parse_chunk
from engine.errors import RefusedChunkError, StreamError
from engine.files.whole import write_whole
from engine.types import FOREIGN_RUN, VideoChunk

END_SUFFIX = ".end"
SIDECAR_SUFFIX = ".json"
OTHER_SUFFIX = ".bin"
SUFFIXES = {
    "video/mp4": ".mp4",
    "video/mp2t": ".ts",
    "video/h264": ".h264",
    "video/h265": ".h265",
    "video/x-matroska": ".mkv",
    "image/jpeg": ".mjpeg",
}
MAX_NUMBER = 2**63 - 1  # a journal keeps it in 64 bits

_IDENTITY = ".identity"
_NO_CHUNKS = frozenset({SIDECAR_SUFFIX.removeprefix("."), "tmp", "part"})
_NO_DIGITS = re.compile(r"[^0-9]+")
_ONE_NUMBER = re.compile(r"([^0-9]*)([0-9]+)([^0-9]*)")
_MOST_SIDECAR_BYTES = 65_536
_MOST_IDENTITY_BYTES = 64


@dataclass(frozen=True, slots=True)
class NamePattern:
    """How a camera's files are named, as far as one name tells: what stands around its number.

    Attributes:
        before: Stands before the number.
        n_digits: Least digits of the number, filled up by zeros.
        after: Stands after it, with the suffix.
    """

    before: str
    n_digits: int
    after: str

    @classmethod
    def of(cls, name: str) -> "NamePattern | None":
        """The pattern of a file's name; None: several groups of digits make its number."""
        stem, dot, suffix = name.rpartition(".")
        found = _ONE_NUMBER.fullmatch(stem or name)
        if found is None:
            return None
        return cls(found[1], len(found[2]), found[3] + (dot + suffix if stem else ""))

    def name(self, number: int) -> str:
        """What the file with a number is called."""
        return f"{self.before}{number:0{self.n_digits}d}{self.after}"


def own_stem(number: int) -> str:
    """What our writers call the chunk with a number, without its suffix."""
    return f"{number:010d}"


def number_of(name: str) -> int | None:
    """A chunk file's number; None for a name that is no chunk file's."""
    stem, _, suffix = name.rpartition(".")  # a Path for each file would cost too much
    if suffix in _NO_CHUNKS or name[0] == ".":
        return None
    digits = _NO_DIGITS.sub("", stem or name)
    return int(digits) if digits else None


@dataclass(frozen=True, slots=True)
class Names:
    """A listing of a camera's folder.

    Attributes:
        by_number: The names of chunk files, from some number on; of two files with the same
            number, the first by name. Numbers may exceed ``MAX_NUMBER``.
        n_others: How many chunk files it leaves out: of lower numbers, or second ones.
        n_entries: How many entries the folder has.
    """

    by_number: dict[int, str]
    n_others: int
    n_entries: int


def numbered(folder: Path, least: int) -> Names:
    """List the chunk files from number ``least`` on.

    Raises:
        OSError: As of the file system.
    """
    names: dict[int, str] = {}
    n_others = n_entries = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            n_entries += 1
            number = number_of(entry.name)
            if number is None:
                continue
            if number < least:
                n_others += 1
                continue
            known = names.setdefault(number, entry.name)
            if known is not entry.name:
                n_others += 1
                names[number] = min(known, entry.name)
    return Names(names, n_others, n_entries)


def last_number(folder: Path) -> int:
    """The highest number of a camera's chunk files; -1 if there is none."""
    return max((n for n in numbered(folder, 0).by_number if n <= MAX_NUMBER), default=-1)


def read_numbered(folder: Path, first: int, last: int, most_bytes: int) -> list[VideoChunk]:
    """The chunks of a camera's folder with these numbers, as far as they can be read."""
    chunks: list[VideoChunk] = []
    try:
        files = sorted(numbered(folder, first).by_number.items())
    except OSError:
        return []
    for number, name in files:
        if number <= last:
            with contextlib.suppress(OSError, StreamError):
                chunks.append(ChunkFile(folder / name, number).load(most_bytes).parse())
    return chunks


class ChunkFile:
    """One chunk's file and its sidecar.

    Args:
        path: The chunk; its folder is named for the camera.
        number: Its number.

    Attributes:
        payload: Its bytes, as far as it was loaded.
        headers: Those of its sidecar, as far as it was loaded.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.payload = b""
        self.headers: Headers = []
        self._path = path
        self._number = number
        self._mtime_us = 0

    def load(self, most_bytes: int) -> "ChunkFile":
        """Read both files.

        Raises:
            RefusedChunkError: It has more than ``most_bytes``.
            MalformedRecordError: It is no regular file, or its sidecar cannot be understood.
            OSError: As of the file system.
        """
        self.payload = read_regular(self._path, most_bytes)
        self._mtime_us = os.stat(self._path).st_mtime_ns // 1000  # noqa: PTH116 - as elsewhere here
        sidecar = self._path.with_suffix(SIDECAR_SUFFIX)
        if sidecar.exists():
            self.headers = _sidecar_headers(sidecar)
        return self

    def parse(self) -> VideoChunk:
        """The chunk.

        Raises:
            StreamError: As of ``parse_chunk``.
        """
        camera, number, mtime_us = self._path.parent.name, self._number, self._mtime_us
        if self._path.suffix == END_SUFFIX and not self.headers:
            return VideoChunk(camera, FOREIGN_RUN, number, mtime_us, b"", anchor_us=0, is_end=True)
        return parse_chunk(
            camera.encode(), self.headers, self.payload, timestamp_us=mtime_us, offset=number
        )


def _sidecar_headers(sidecar: Path) -> Headers:
    try:
        plain = json.loads(read_regular(sidecar, _MOST_SIDECAR_BYTES))
    except RefusedChunkError as error:
        raise MalformedRecordError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise MalformedRecordError(f"{sidecar}: is not JSON: {error}") from error
    if not isinstance(plain, dict) or not all(isinstance(v, str) for v in plain.values()):
        raise MalformedRecordError(f"{sidecar}: wanted one object of header names and texts")
    try:
        return [(name, value.encode()) for name, value in plain.items()]
    except UnicodeEncodeError as error:
        raise MalformedRecordError(f"{sidecar}: holds no Unicode text: {error}") from error


def identity_in(folder: Path) -> str:
    """What tells a camera's folder from one made anew; empty: nothing does yet.

    Raises:
        OSError: It cannot be read now, which does not mean that it is another one.
    """
    try:
        with (folder / _IDENTITY).open("rb") as file:
            return file.read(_MOST_IDENTITY_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def identified(folder: Path) -> str:
    """The same; where nothing does, it is written.

    Raises:
        OSError: It cannot be read, or nothing can be written there.
    """
    known = identity_in(folder)
    if known:
        return known
    fresh = uuid.uuid4().hex
    write_whole(folder / _IDENTITY, f"{fresh}\n".encode(), unfinished=f".{fresh}.tmp")
    return fresh
