"""Whether folders, files and addresses of this machine can be used as a daemon will use them.

Each is tried, and not only asked for its permissions: root may do everything, but not on a file
system that is read-only. What is tried leaves nothing behind.
"""

import errno
import http.client as http_client
import json
import os
import stat
import tempfile
from contextlib import closing
from pathlib import Path

from daemon.config import HttpConfig
from daemon.errors import ConfigError
from daemon.health import listen
from daemon.journal.local import check_version
from daemon.sources.positions import POSITIONS

_ANSWER_S = 2.0
_MOST_BYTES = 65_536
_SQLITE = b"SQLite format 3\0"
_HEADER_BYTES, _VERSION_AT = 100, slice(60, 64)  # https://sqlite.org/fileformat.html


def check_chunk_folder(folder: Path) -> None:
    """Can chunks be read there, and positions be kept?

    Raises:
        ConfigError: No; says why.
    """
    try:
        with os.scandir(folder):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder}: no such folder; make it, or let `s2netd produce --to dir:{folder}` make it"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be read: {error.strerror}; let the daemon's user read it"
        ) from error
    _check_takes_files(folder / POSITIONS, folder / POSITIONS)


def check_appendable(path: Path) -> None:
    """Can lines be added to a file, or can it be made?

    Raises:
        ConfigError: No; says why.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        _check_takes_files(path.parent, path)
        return
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be written") from error
    if stat.S_ISDIR(kind):
        raise ConfigError(f"{path}: is a folder; name a file in it")
    if not stat.S_ISREG(kind):
        raise ConfigError(f"{path}: is no regular file; name one")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; let the daemon's user write it"
        ) from error


def check_journal(path: Path) -> None:
    """Can a local journal be kept in a file?

    Raises:
        ConfigError: No; says why.
    """
    check_appendable(path)
    _check_takes_files(path.parent, path)  # SQLite keeps further files beside it
    if not path.exists():
        return
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if header and not header.startswith(_SQLITE):
        raise ConfigError(f"{path}: is no SQLite file; name another one, or move it away")
    check_version(path, int.from_bytes(header[_VERSION_AT], "big"))


def check_two_files(events: Path, journal: Path) -> None:
    """Are the events' file and the journal's two?

    Raises:
        ConfigError: They are one.
    """
    # Not Path.resolve, which raises an error of its own for links that go round.
    if os.path.realpath(events) == os.path.realpath(journal):
        raise ConfigError(f"{journal}: is sink.path too; give each a file of its own")


def check_listening(http: HttpConfig) -> None:
    """Can the daemon listen there? A port that a daemon has now may be its own.

    Raises:
        ConfigError: No; says why.
    """
    where = f"{http.host}:{http.port}"
    try:
        listen(http.host, http.port).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(
                f"cannot listen on {where}: {error.strerror}; set http.host to an address of this "
                "machine, and http.port to one that the daemon's user may take"
            ) from error
        if _is_of_another_program(http):
            raise ConfigError(
                f"cannot listen on {where}: another program does; choose another http.port"
            ) from error


def _is_of_another_program(http: HttpConfig) -> bool:
    """Does somebody answer there who is no daemon? Who does not answer may be one that hangs."""
    asked = http_client.HTTPConnection(http.host or "localhost", http.port, timeout=_ANSWER_S)
    with closing(asked):
        try:
            asked.request("GET", "/livez")
            plain = json.loads(asked.getresponse().read(_MOST_BYTES))
        except TimeoutError:
            return False
        except (OSError, http_client.HTTPException, ValueError):
            return True
    return not isinstance(plain, dict) or "live" not in plain


def _check_takes_files(folder: Path, what: Path) -> None:
    """Can files be made there? A folder that is missing must be one that could be made."""
    there = folder
    try:
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there, prefix=".s2netd-check-"):
            pass
    except OSError as error:
        raise ConfigError(
            f"{what}: cannot be written in {there}: {error.strerror or error}; let the daemon's "
            "user write there, or name another place"
        ) from error
