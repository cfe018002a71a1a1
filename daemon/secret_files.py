"""Secrets, read from files.

A relative name that is not in the current folder is looked up among systemd's credentials
(``$CREDENTIALS_DIRECTORY``; see systemd.exec(5), LoadCredential=).
"""

import functools
import logging
import os
import stat
from pathlib import Path

from daemon.errors import ConfigError

_log = logging.getLogger("s2netd.secrets")


def located(path: Path) -> Path:
    """The file itself, or the systemd credential of that name if only that exists."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    # Not Path.exists, which raises an error where a folder may not be looked into.
    if folder and not path.is_absolute() and not os.path.exists(path):  # noqa: PTH110
        credential = Path(folder) / path
        if os.path.exists(credential):  # noqa: PTH110
            return credential
    return path


def is_out_of_reach(path: Path) -> bool:
    """May it be a credential of systemd that this process, unlike the daemon, may not see?

    So it is for an ExecReload= command in a sandbox, until systemd 253 at least.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or path.is_absolute() or os.path.exists(path):  # noqa: PTH110
        return False
    return not os.access(folder, os.R_OK | os.X_OK)


def read_secret(path: Path, key: str) -> str:
    """What a file holds, without the end of its line.

    Args:
        path: The file; see ``located``.
        key: The operator's key that names it, for errors.

    Raises:
        ConfigError: It cannot be read, or is empty.
    """
    file = located(path)
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
        is_open_to_all = bool(file.stat().st_mode & stat.S_IROTH)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{key}: cannot read {path}: {why}; name a file that holds it, and that the daemon's "
            "user may read"
        ) from error
    if not secret:
        raise ConfigError(f"{key}: {path} is empty; write it there")
    if is_open_to_all:
        _warn_of(key, file)
    return secret


@functools.cache  # files are read anew for every client, but once is enough to say it
def _warn_of(key: str, file: Path) -> None:
    _log.warning("%s: everybody on this machine can read %s; run: chmod o= %s", key, file, file)
