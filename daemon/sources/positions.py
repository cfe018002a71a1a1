"""The last number that is done of each camera, in a file each, for whoever writes more chunks.

    root/.positions/door         its chunks up to this number are done

The journal says where a daemon goes on, and these files only where there is none. So nothing waits
for them, and what cannot be written now is written later.
"""

import asyncio
import logging
from pathlib import Path

from daemon.errors import PASSING_ERRNOS, ConfigError, DiskError
from daemon.outages import Outage
from daemon.sources.chunk_files import MAX_NUMBER
from daemon.sources.patient import SOON_S, read_regular
from daemon.threads import in_thread
from engine.errors import StreamError
from engine.files.whole import write_whole

POSITIONS = ".positions"

# One name for all cameras, so that a long camera name makes no name that is too long for the disk;
# it begins with a dot, as no camera's folder does.
_UNFINISHED = ".unfinished.tmp"
_MOST_BYTES = 64

_log = logging.getLogger("s2netd.directory")


class Positions:
    """Keeps how far each camera is, beside all else.

    Args:
        folder: Holds the files.
        disk: Told whether they can be written.
    """

    def __init__(self, folder: Path, disk: Outage) -> None:
        self._folder = folder
        self._disk = disk
        self._unwritten: dict[str, int] = {}
        self._keeping: asyncio.Future[None] | None = None  # numbers on their way to the disk

    def make_folder(self) -> None:
        """Make the folder, if it is missing.

        Raises:
            ConfigError: It cannot be made, and no time will mend that.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in PASSING_ERRNOS:
                return  # it is made with the first position
            raise ConfigError(
                f"{self._folder}: cannot keep positions there: {error.strerror}"
            ) from error

    def of(self, camera: str) -> int | None:
        """The last number that is done, as the file says; None if it is not known."""
        return read_position(self._folder / camera)

    def reached(self, camera: str, number: int) -> None:
        """A camera's chunks up to a number are done (-1: none is); ``keep`` writes it down."""
        if number >= 0:
            self._unwritten[camera] = number

    async def keep(self) -> None:
        """Write down what has changed; return before that is done if it takes long."""
        if self._keeping is None and self._unwritten:
            self._keeping = in_thread(self._write)
        if self._keeping is None:
            return
        await asyncio.wait([self._keeping], timeout=SOON_S)
        if not self._keeping.done():
            self._disk.failed("writing a position hangs")
            return
        kept, self._keeping = self._keeping, None
        try:
            kept.result()
        except DiskError as error:
            self._disk.failed(error)
        else:
            self._disk.worked()

    def _write(self) -> None:
        for camera in list(self._unwritten):
            number = self._unwritten.pop(camera)
            try:
                _write_position(self._folder / camera, number)
            except DiskError:
                self._unwritten.setdefault(camera, number)  # unless it is further by now
                raise


def read_position(path: Path) -> int | None:
    """The last number that is done; None if it is not known."""
    try:
        number = int(read_regular(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, StreamError):  # a power cut, or somebody's editor
        number = -1
    if 0 <= number <= MAX_NUMBER:
        return number
    _log.warning("%s: holds no number; the camera is read as if nothing was done", path)
    return None


def _write_position(path: Path, number: int) -> None:
    """Keep a position.

    Raises:
        DiskError: It could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{number}\n".encode(), unfinished=_UNFINISHED)
    except OSError as error:
        raise DiskError(f"{path}: cannot keep the position: {error.strerror}") from error
