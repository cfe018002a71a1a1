"""Which files of a folder are videos, by their names."""

from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    [
        *(".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".flv"),
        *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
        *(".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),
    ]
)


def is_video_name(path: Path) -> bool:
    """True if the name is that of a video, and not hidden."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def videos_below(folder: Path) -> list[Path]:
    """The video files of a folder and of all folders in it, by path.

    Links to folders are not followed, and a pipe is no file, for it would be waited for.
    """
    return sorted(path for path in folder.rglob("*") if is_video_name(path) and path.is_file())
