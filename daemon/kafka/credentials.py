"""Tokens and certificates for a broker, read from files."""

import asyncio
import ssl
from pathlib import Path

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from daemon.errors import ConfigError
from daemon.secret_files import located, read_secret


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
