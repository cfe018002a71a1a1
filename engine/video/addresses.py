"""Opening what an address names: a camera, or a video behind a URL.

Addresses are the operator's own; what lies behind them may not lead FFmpeg anywhere else.
"""

from pathlib import Path
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from engine.video.opening import open_file
from engine.video.times import ARRIVAL_FORMATS

_URL_OPTIONS = {
    "rtsp": {"rtsp_transport": "tcp", "protocol_whitelist": "rtp,rtsp,tcp,udp"},
    "http": {"protocol_whitelist": "http,tcp"},
    "https": {"protocol_whitelist": "http,https,tcp,tls"},
}
_LIVE_ANALYSIS = {"analyzeduration": "1000000"}  # microseconds
_NO_ANALYSIS = {"analyzeduration": "1", "fpsprobesize": "0"}
# No playlist is among these: only what the operator named is read.
_URL_FORMATS = "rtsp,mov,mp4,m4a,3gp,3g2,mj2,mpegts,matroska,webm,avi,flv,mjpeg,mpjpeg,h264,hevc"


def open_source(source: str | Path, *, live: bool, timeout_s: float) -> InputContainer:
    """Open a local file, or what an address names.

    Call this inside ``unreadable_if_libav_fails``.

    Args:
        source: A local file, or an rtsp://, http:// or https:// URL.
        live: Start after a second of analysis; FFmpeg would take up to five to be sure.
        timeout_s: A URL that gives nothing for so long has failed, now or later.

    Raises:
        OSError, RefusedChunkError, FFmpegError: It cannot be opened.
    """
    scheme = urlsplit(str(source)).scheme if isinstance(source, str) else ""
    if scheme not in _URL_OPTIONS:
        return open_file(source, decode_probe=True)
    options = {**_URL_OPTIONS[scheme], "format_whitelist": _URL_FORMATS}
    if not live:
        return _open_url(str(source), options, timeout_s)
    container = _open_url(str(source), options | _LIVE_ANALYSIS, timeout_s)
    if container.format.name not in ARRIVAL_FORMATS:
        return container
    # Its pictures are dated when they arrive: none may be read ahead, to guess a rate that is not
    # said.
    container.close()
    return _open_url(str(source), options | _NO_ANALYSIS, timeout_s)


def _open_url(url: str, options: dict[str, str], timeout_s: float) -> InputContainer:
    return av.open(
        url, "r", container_options=options, timeout=timeout_s, metadata_errors="replace"
    )


def without_password(source: str) -> str:
    """A source as it may be shown in a message or log."""
    parts = urlsplit(source)
    if "@" not in parts.netloc:
        return source
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()
