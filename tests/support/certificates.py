"""Certificates for tests, made with the command ``openssl``: an authority, and what it signs."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.real_parts import missing

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM files.

    Attributes:
        certificate: The certificate alone.
        key: The key, without a password.
        both: Key and certificate in one file, as Kafka's key stores want it.
    """

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; a test trusts ``ca``.

    Args:
        folder: Where all its files lie.
        name: Its name, and that of its files.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            missing("no openssl (Debian: openssl)")
        self._folder = folder
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_KEY, "-subj", f"/CN={name}", *_to(self._key, self.ca))

    def sign(self, name: str, *, hosts: str = "", days: int = 1) -> Pair:
        """A certificate of a subject.

        Args:
            name: Its common name, and the name of its files.
            hosts: For whom a server may stand, e.g. ``DNS:localhost,IP:127.0.0.1``.
            days: How long it is good; a negative number: it is expired.
        """
        key, request = self._folder / f"{name}.key", self._folder / f"{name}.csr"
        certificate, both = self._folder / f"{name}.pem", self._folder / f"{name}.both.pem"
        _openssl("req", "-new", *_KEY, "-subj", f"/CN={name}", *_to(key, request))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n" if hosts else "")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-extfile", extensions, "-out", certificate),
        )
        both.write_text(key.read_text() + certificate.read_text())
        return Pair(certificate, key, both)


def with_password(key: Path, password: str) -> Path:
    """The same key once more, under a password."""
    locked = key.with_suffix(".locked")
    _openssl("pkey", "-in", key, "-aes256", "-passout", f"pass:{password}", "-out", locked)
    return locked


def _to(key: Path, out: Path) -> tuple[object, ...]:
    return ("-keyout", key, "-out", out)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
