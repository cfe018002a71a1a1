"""Reading text files that other people wrote; every failure is one line that says the fix."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path

from engine.errors import DataError

MAX_BYTES = 256 << 20  # ActivityNet's annotations are 4 MB
_N_NAMES_SHOWN = 5


def read_text(path: Path) -> str:
    """Read a UTF-8 file without its byte order mark.

    Raises:
        DataError: The file is missing, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if len(blob) > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES} bytes: it is no list of videos")
    try:
        return blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} has byte {blob[error.start]:#04x} at {error.start}: save it as UTF-8"
        ) from error


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        DataError: The file cannot be read, or holds no JSON object.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {_one_line(error)}; export it again") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}, wanted a JSON object in braces; "
            "check that it is the right file"
        )
    return content


def few(names: Iterable[str]) -> str:
    """List the first names, and say how many more there are."""
    listed = list(names)
    more = len(listed) - _N_NAMES_SHOWN
    return ", ".join(listed[:_N_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say which of the known names was probably meant, or else which there are."""
    names = list(known)
    folded = {other.casefold(): other for other in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else f"known: {few(names)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
