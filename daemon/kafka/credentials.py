"""Secrets and certificates for a broker, read from files.

A relative name that is not in the current folder is looked up among systemd's credentials
(``$CREDENTIALS_DIRECTORY``; see systemd.exec(5), LoadCredential=).
"""

import asyncio
import functools
import logging
import os
import ssl
import stat
from pathlib import Path

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from daemon.errors import ConfigError

_log = logging.getLogger("s2netd.kafka")


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
        raise ConfigError(
            f"{key}: cannot read {path}: {_why(error)}; name a file that holds it, and that the "
            "daemon's user may read"
        ) from error
    if not secret:
        raise ConfigError(f"{key}: {path} is empty; write it there")
    if is_open_to_all:
        _warn_of(key, file)
    return secret


@functools.cache  # files are read anew for every client, but once is enough to say it
def _warn_of(key: str, file: Path) -> None:
    _log.warning("%s: everybody on this machine can read %s; run: chmod o= %s", key, file, file)


class TokenFile(AbstractTokenProvider):  # type: ignore[misc] # aiokafka is untyped
    """Gives the token that a file holds at the time of each login.

    Args:
        path: The file; another program may replace it whenever it likes.

    Raises:
        ConfigError: It cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    async def token(self) -> str:
        """The token, for aiokafka.

        Raises:
            SaslAuthenticationFailed: It cannot be read; the client tries again later.
        """
        try:
            return await asyncio.to_thread(self._read)
        except ConfigError as error:
            raise SaslAuthenticationFailed(str(error)) from error

    def _read(self) -> str:
        return read_secret(self._path, "sasl_token_file").strip()


def tls_context(
    ca_file: Path | None,
    certificate_file: Path | None,
    key_file: Path | None,
    key_password_file: Path | None,
) -> ssl.SSLContext:
    """How to check a broker's certificate and host name, and which certificate to show.

    Raises:
        ConfigError: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=_name(ca_file))
    except OSError as error:  # ssl.SSLError too
        raise ConfigError(
            f"ca_file: cannot use {ca_file}: {_why(error)}; wanted certificates, PEM"
        ) from error
    if certificate_file is not None:
        password = read_secret(key_password_file, "key_password_file") if key_password_file else ""
        named = f"certificate_file {certificate_file} with key_file {key_file}"
        try:
            # Without a password to give, OpenSSL would ask for it at the terminal.
            context.load_cert_chain(located(certificate_file), _name(key_file), lambda: password)
        except OSError as error:
            raise ConfigError(f"cannot use {named}: {_why(error)}{_hint(error)}") from error
    return context


def _name(path: Path | None) -> str | None:
    return None if path is None else str(located(path))


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "unreadable").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def _hint(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return ""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "; the key is of another certificate"
    # OpenSSL gives no reason of its own for a wrong password.
    return "; wanted PEM, and the key's password, if it has one, in key_password_file"
