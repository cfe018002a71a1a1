"""Why a broker turns us away: what aiokafka only logs, in one line with the fix.

aiokafka tells a failed login or certificate and a broker that is away by the same error, so after
such an error the addresses are asked once more, one connection each, and what happens is told.
A broker that is merely away gives no reason here, and is waited for.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

# A reason is wanted within 5 s, of which an attempt may take 2 before anybody asks here.
_ANSWER_S = 2.5  # for one address, all questions together
_LET_IN_S = 1.5  # for the first of them

# verify_code of ssl.SSLCertVerificationError (X509_V_ERR_... of OpenSSL)
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME, _OTHER_IP = 62, 64

_Address = tuple[str, int]


class Access(Protocol):
    """How a broker is reached; see ``KafkaConnection``, whose keys these are."""

    @property
    def bootstrap_servers(self) -> str: ...  # noqa: D102
    @property
    def protocol(self) -> str: ...  # noqa: D102
    @property
    def sasl_mechanism(self) -> str: ...  # noqa: D102
    @property
    def sasl_username(self) -> str | None: ...  # noqa: D102
    @property
    def sasl_password_file(self) -> Path | None: ...  # noqa: D102
    @property
    def sasl_token_file(self) -> Path | None: ...  # noqa: D102
    @property
    def ca_file(self) -> Path | None: ...  # noqa: D102
    @property
    def certificate_file(self) -> Path | None: ...  # noqa: D102
    def options(self) -> dict[str, Any]: ...  # noqa: D102


async def refusal(access: Access) -> str | None:
    """Why the brokers turn us away: address, what is wrong, and the fix, in one line.

    Each address of ``bootstrap_servers`` is asked and, if one lets us in, the address of each
    broker that it names.

    Returns:
        None if they do not: they let us in, or are away.

    Raises:
        ConfigError: A file cannot be used any more.
    """
    first = [(host, port) for host, port, _family in collect_hosts(access.bootstrap_servers)]
    asked = [_Door(access, address) for address in first]
    await asyncio.gather(*(door.ask() for door in asked))
    if any(door.brokers for door in asked):
        named = {broker for door in asked for broker in door.brokers}
        asked = [_Door(access, address, is_named=True) for address in sorted(named - set(first))]
        await asyncio.gather(*(door.ask() for door in asked))
    return next((door.reason for door in asked if door.reason), None)


class _Door:
    """One address, and what it answered.

    Attributes:
        brokers: The addresses of all brokers, if it let us in.
        reason: Why it did not, if it said so.
    """

    def __init__(self, access: Access, address: _Address, *, is_named: bool = False) -> None:
        self._access = access
        self._address = address
        self._is_named = is_named
        self.brokers: list[_Address] = []
        self.reason: str | None = None

    async def ask(self) -> None:
        """Fill the attributes; silence fills none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                try:
                    async with asyncio.timeout(_LET_IN_S):
                        self.brokers = await _brokers(self._address, self._access.options())
                except (OSError, KafkaError) as error:
                    reason = await self._reason(error)
                    self.reason = reason and f"Kafka at {self._name}: {reason}"

    @property
    def _name(self) -> str:
        host, port = self._address
        host = f"[{host}]" if ":" in host else host
        named = " (the address that the brokers name)" if self._is_named else ""
        return f"{host}:{port}{named}"

    async def _reason(self, error: Exception) -> str | None:
        if isinstance(error, socket.gaierror | ConnectionRefusedError):
            return None
        for each in _causes(error):
            if isinstance(each, ssl.SSLCertVerificationError):
                return self._of_certificate(each)
            if isinstance(each, ssl.SSLError) and "ALERT" in (each.reason or ""):
                return self._of_alert(each)
            if isinstance(each, KafkaError) and (reason := await self._of_login(each)):
                return reason
        return await self._of_hanging_up()

    def _of_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        if error.verify_code == _EXPIRED:
            return "its certificate has expired; renew it there (or is the clock here wrong?)"
        if error.verify_code == _NOT_YET_VALID:
            return (
                "its certificate is not valid yet; is the clock here, or was the one there, wrong?"
            )
        if error.verify_code in (_OTHER_NAME, _OTHER_IP):
            where = "advertised.listeners" if self._is_named else "bootstrap_servers"
            return (
                f"its certificate is not for {self._address[0]}; write in {where} the name that "
                "the certificate is for, or give the broker one for this name"
            )
        ca = self._access.ca_file
        trusted = f"ca_file {ca}" if ca else "the system's CA certificates, and ca_file is not set"
        return (
            f"its certificate is not signed by {trusted} ({error.verify_message}); set ca_file to "
            "the certificate of the CA that signed it"
        )

    def _of_alert(self, error: ssl.SSLError) -> str:
        said = (error.reason or "").rpartition("ALERT_")[2].lower().replace("_", " ")
        mine = self._access.certificate_file
        if mine is None:
            return (
                f"it refuses TLS without a certificate of ours ({said}); set certificate_file and "
                "key_file"
            )
        return (
            f"it refuses certificate_file {mine} ({said}); is it signed by a CA that the broker "
            "trusts, and not expired?"
        )

    async def _of_login(self, error: KafkaError) -> str | None:
        access = self._access
        if isinstance(error, SaslAuthenticationFailed):
            return f"{self._who} ({_said(error)}); {self._login_fix}"
        if isinstance(error, UnsupportedSaslMechanismError):
            offered = await self._mechanisms() or []
            return (
                f"it does not offer sasl_mechanism {access.sasl_mechanism}; set one of "
                f"{', '.join(offered) or 'its own'}"
            )
        if isinstance(error, IllegalSaslStateError):
            without = access.protocol.removeprefix("SASL_")
            return (
                f"this port takes no login, and protocol is {access.protocol}; set protocol "
                f"{without}, or name the port for logins in bootstrap_servers"
            )
        return None

    @property
    def _who(self) -> str:
        access = self._access
        if access.sasl_mechanism == "OAUTHBEARER":
            return "it refuses the token"
        return f"it refuses the login of sasl_username {access.sasl_username}"

    @property
    def _login_fix(self) -> str:
        access = self._access
        if access.sasl_mechanism == "OAUTHBEARER":
            file = access.sasl_token_file
            return f"is the token in sasl_token_file {file} for it, and not expired?"
        return (
            f"check the user, sasl_mechanism {access.sasl_mechanism}, and the password in "
            f"sasl_password_file {access.sasl_password_file}"
        )

    async def _of_hanging_up(self) -> str | None:
        """The broker closed the connection without a word, as it does to what it cannot read.

        Or it keeps silent, as some proxies do.
        """
        protocol = self._access.protocol
        is_tls, is_login = protocol.endswith("SSL"), protocol.startswith("SASL_")
        if is_tls and await self._speaks_plainly():
            return (
                f"this port speaks without TLS, and protocol is {protocol}; set protocol "
                f"{protocol.replace('SSL', 'PLAINTEXT')}, or name the port with TLS in "
                "bootstrap_servers"
            )
        if not is_tls and await self._speaks_tls():
            return (
                f"this port speaks TLS, and protocol is {protocol}; set protocol "
                f"{protocol.replace('PLAINTEXT', 'SSL')}, or name the port without TLS in "
                "bootstrap_servers"
            )
        offered = await self._mechanisms()
        if offered and not is_login:
            return (
                f"this port wants a login, and protocol is {protocol}; set protocol "
                f"SASL_{protocol} with sasl_mechanism {', '.join(offered)}"
            )
        return None

    async def _speaks_plainly(self) -> bool:
        try:
            await (await create_conn(*self._address)).close()
        except (OSError, KafkaError):
            return False
        return True

    async def _speaks_tls(self) -> bool:
        context = ssl.create_default_context()
        # Nothing is sent over it: the only question is whether it is TLS.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            _reader, writer = await asyncio.open_connection(*self._address, ssl=context)
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False
        writer.transport.abort()  # a polite end of TLS would wait for the other side's
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    async def _mechanisms(self) -> list[str] | None:
        """The mechanisms of login that it offers; None if it takes no login, or does not tell."""
        options = self._access.options()
        protocol = self._access.protocol.removeprefix("SASL_")
        context = options.get("ssl_context")
        try:
            connection = await create_conn(
                *self._address, security_protocol=protocol, ssl_context=context
            )
        except (OSError, KafkaError):
            return None
        try:
            answer = await connection.send(SaslHandShakeRequest(self._access.sasl_mechanism))
        except (OSError, KafkaError):
            return None
        finally:
            await connection.close()
        return list(answer.enabled_mechanisms)


async def _brokers(address: _Address, options: Mapping[str, Any]) -> list[_Address]:
    """Connect, log in, and ask for the brokers' addresses, in one connection."""
    security = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    connection = await create_conn(*address, **security)
    try:
        metadata = await connection.send(MetadataRequest([]))
    finally:
        await connection.close()
    if not metadata.brokers and options.get("sasl_mechanism") == "OAUTHBEARER":
        # aiokafka takes the broker's "invalid token" for a yes; it is answered with nothing then.
        raise SaslAuthenticationFailed("invalid token")
    return [(host, port) for _node, host, port, *_rack in metadata.brokers]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _said(error: KafkaError) -> str:
    """The broker's own words, which aiokafka keeps as the error's argument."""
    return str(error.args[0]) if error.args else type(error).__name__
