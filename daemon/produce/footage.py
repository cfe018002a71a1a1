"""What a camera's footage is, and and which files and folders names stand for."""

from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import ConfigError
from engine.errors import UnreadableVideoError
from engine.video.addresses import Access, scheme_of
from engine.video.cutting import Transcode
from engine.video.folders import VIDEO_SUFFIXES, is_video_name
from engine.video.passwords import without_password


@dataclass(frozen=True, slots=True)
class Footage:
    """One camera's footage.

    Attributes:
        camera: The camera's name.
        source: A file, a folder of them, or an address; it may hold a password.
        chunk_s: Wanted length of a chunk, in seconds.
        transcode: As of ``cut_video``.
        access: How an address is reached.
        realtime: Send a file at its own pace.
        loop: Send files again and again.
    """

    camera: str
    source: str = field(repr=False)
    chunk_s: float = 1.0
    transcode: Transcode = "auto"
    access: Access = field(default_factory=Access)
    realtime: bool = False
    loop: bool = False

    @property
    def is_live(self) -> bool:
        """True for a network address: a camera there sets the pace and is not expected to end."""
        return scheme_of(self.source) is not None

    @property
    def shown(self) -> str:
        """The source as it may be shown."""
        return without_password(self.source)


def folder_name(camera: str) -> str:
    """The camera's name, if it can name a folder.

    Raises:
        ConfigError: It cannot.
    """
    if "/" in camera or "\0" in camera or camera.startswith("."):
        raise ConfigError(
            f"camera {camera!r} cannot name a folder: leave out '/' and a leading '.'"
        )
    return camera


def source_files(source: str) -> list[Path]:
    """The file, or the video files of a folder, sorted by name.

    Raises:
        ConfigError: There is none in the folder.
        UnreadableVideoError: There is no such file.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if is_video_name(p) and p.is_file())
        if not files:
            raise ConfigError(
                f"{path}: holds no video file; looked for {' '.join(sorted(VIDEO_SUFFIXES))}"
            )
        return files
    if not path.is_file():
        raise UnreadableVideoError(
            f"{without_password(source)}: no such file or folder, and no rtsp:// or http:// "
            "address"
        )
    return [path]


def not_produced(failed: list[UnreadableVideoError], n_files: int) -> UnreadableVideoError:
    """One error for all files that could not be read, each with its reason."""
    reasons = [str(error) for error in failed]
    if n_files == 1:
        return UnreadableVideoError(reasons[0])
    head = f"{len(reasons)} of {n_files} files could not be read whole:"
    return UnreadableVideoError("\n  ".join((head, *reasons)))
