"""Opening what an address names: a camera, or a video behind a URL.

Addresses are the operator's own; what lies behind them may not lead FFmpeg anywhere else. They may
hold a password, so none is shown but through
``passwords.without_password``.
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

import av
import av.error
from av.container import InputContainer

from engine.video.opening import open_file
from engine.video.times import ARRIVAL_FORMATS

RtspTransport = Literal["auto", "tcp", "udp"]

_PROTOCOLS = {
    "rtsp": "rtp,rtsp,tcp,udp",
    "rtsps": "rtp,rtsp,rtsps,tcp,tls",
    "http": "http,tcp",
    "https": "http,https,tcp,tls",
}
SCHEMES = tuple(_PROTOCOLS)
_TLS_SCHEMES = ("rtsps", "https")
_TRANSPORTS: dict[RtspTransport, dict[str, str]] = {
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
    # Over TCP no packet is lost. FFmpeg takes UDP only if the camera refuses TCP.
    "auto": {"rtsp_transport": "udp+tcp", "rtsp_flags": "prefer_tcp"},
}
_LIVE_ANALYSIS = {"analyzeduration": "1000000"}  # microseconds
_NO_ANALYSIS = {"analyzeduration": "1", "fpsprobesize": "0"}
# No playlist is among these: only what the operator named is read.
_URL_FORMATS = "rtsp,mov,mp4,m4a,3gp,3g2,mj2,mpegts,matroska,webm,avi,flv,mjpeg,mpjpeg,h264,hevc"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
# Of a login, what a URL may hold as it is. FFmpeg ends it at the last "@" before a "/".
_AS_IT_IS = "!$&'()*+,;=:"
_MOST_LOGIN_BYTES = 127  # FFmpeg's RTSP would cut the rest off


@dataclass(frozen=True, slots=True)
class Access:
    """How a camera is reached.

    Attributes:
        rtsp_transport: How RTSP brings its packets: over TCP, over UDP, or over UDP only if the
            camera refuses TCP (``auto``).
        ca_file: Of rtsps and https: whose certificates are trusted, PEM; a camera's own will do.
            None: those that the system trusts.
        checks_certificate: Of rtsps and https: turn a camera away whose certificate is not
            trusted, or is for another host.
    """

    rtsp_transport: RtspTransport = "auto"
    ca_file: Path | None = None
    checks_certificate: bool = True


def scheme_of(source: str) -> str | None:
    """The scheme of an address, in small letters; None if it is a path."""
    match = _SCHEME.fullmatch(source)
    return None if match is None else match[1].lower()


def open_source(
    source: str | Path, *, live: bool, timeout_s: float, access: Access | None = None
) -> InputContainer:
    """Open a local file, or what an address names.

    Call this inside ``unreadable_if_libav_fails``.

    Args:
        source: A local file, or an address with one of ``SCHEMES``.
        live: Start after a second of analysis; FFmpeg would take up to five to be sure.
        timeout_s: A URL that gives nothing for so long has failed, now or later.
        access: How an address is reached.

    Raises:
        OSError, RefusedChunkError, FFmpegError: It cannot be opened.
    """
    scheme = scheme_of(source) if isinstance(source, str) else None
    if scheme not in _PROTOCOLS:
        return open_file(source, decode_probe=True)
    url, options = usable(str(source)), _options_for(scheme, access or Access())
    if not live:
        return _open_url(url, options, timeout_s)
    container = _open_url(url, options | _LIVE_ANALYSIS, timeout_s)
    if container.format.name not in ARRIVAL_FORMATS:
        return container
    # Its pictures are dated when they arrive: none may be read ahead, to guess a rate that is not
    # said.
    container.close()
    return _open_url(url, options | _NO_ANALYSIS, timeout_s)


def usable(url: str) -> str:
    """An address as FFmpeg takes it: what must be is percent-encoded in its user and password.

    What is encoded already stays so, and a ``%`` that encodes nothing stands for itself.

    Raises:
        ValueError: User and password are longer than FFmpeg takes.
    """
    scheme, login, rest = _parts(url)
    if login is None:
        return f"{scheme}://{rest}"
    encoded = quote(unquote_to_bytes(login), safe=_AS_IT_IS)
    if len(encoded) > _MOST_LOGIN_BYTES and scheme.startswith("rtsp"):
        raise ValueError(
            f"user and password take {len(encoded)} bytes, percent-encoded; FFmpeg takes "
            f"{_MOST_LOGIN_BYTES}: give the camera a shorter password"
        )
    return f"{scheme}://{encoded}@{rest}"


def _parts(url: str) -> tuple[str, str | None, str]:
    """Scheme, user and password if there are any, and the rest of an address."""
    match = _SCHEME.fullmatch(url)
    if match is None:
        raise ValueError("it is no address")
    scheme, rest = match[1].lower(), match[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login, at, _host = authority.rpartition("@")
    if at:
        return scheme, login, rest[len(login) + 1 :]
    # A password may hold what ends a host's name. No port is one that is no number.
    login, at, behind = rest.rpartition("@")
    if at and _HOST_AND_PORT.fullmatch(authority) is None:
        return scheme, login, behind
    return scheme, None, rest


def _options_for(scheme: str, access: Access) -> dict[str, str]:
    options = {"protocol_whitelist": _PROTOCOLS[scheme], "format_whitelist": _URL_FORMATS}
    if scheme == "rtsp":
        options |= _TRANSPORTS[access.rtsp_transport]
    if scheme in _TLS_SCHEMES:
        # What is trusted is named, for a library that was built elsewhere looks elsewhere.
        trusted = access.ca_file or ssl.get_default_verify_paths().cafile
        options |= {"ca_file": str(trusted)} if trusted else {}
        options["tls_verify"] = str(int(access.checks_certificate))
    return options


def _open_url(url: str, options: dict[str, str], timeout_s: float) -> InputContainer:
    try:
        return av.open(
            url, "r", container_options=options, timeout=timeout_s, metadata_errors="replace"
        )
    except av.error.FFmpegError as error:
        # Without the address, which a traceback would show, and with it the password.
        raise type(error)(error.errno or 0, error.strerror or "") from None
