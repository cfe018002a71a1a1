"""An RTSP camera whose stamps, sender reports and connections a test writes (RTP over TCP).

It sends its pictures as fast as they are read, so that no test waits for a clock; when each of
them "arrives" is what the test's clocks say.
"""

import base64
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.scripted_camera import fragments

_SECONDS_1900_TO_1970 = 2_208_988_800
_US_PER_S = 1_000_000
_SSRC = 0x1234
_SPS, _PPS = 7, 8


@dataclass(frozen=True, slots=True)
class Script:
    """What a camera sends.

    Attributes:
        pictures: The NAL units of each picture, without start codes.
        stamp: By number: the picture's RTP stamp, in ticks of 90 kHz; modulo 2^32.
        says_us: By number: the Unix time in microseconds that a sender report before the picture
            gives to it; None: no report.
        connections: How many pictures each connection brings, one after the other.
    """

    pictures: Sequence[Sequence[bytes]]
    stamp: Callable[[int], int]
    says_us: Callable[[int], int | None]
    connections: Sequence[int]


@contextmanager
def stamping_camera(script: Script) -> Iterator[str]:
    """The address of a camera, which goes on with each connection where the last one ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, script), daemon=True)
        thread.start()
        try:
            yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        finally:
            server.shutdown(socket.SHUT_RDWR)  # which ends `accept`
            thread.join()


def _serve(server: socket.socket, script: Script) -> None:
    first = 0
    for n_pictures in script.connections:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            try:
                _Connection(client, script).serve(range(first, first + n_pictures))
            except OSError:  # the reader has gone
                continue
        first += n_pictures


class _Connection:
    def __init__(self, client: socket.socket, script: Script) -> None:
        self._client = client
        self._script = script
        self._read = client.makefile("rb")
        self._n_packets = 0

    def serve(self, numbers: range) -> None:
        """Answer until pictures are asked for, send them, and hang up."""
        while True:
            method, headers = self._request()
            answer, body = "", ""
            if method == "DESCRIBE":
                answer, body = "Content-Type: application/sdp\r\n", self._description()
            elif method == "SETUP":
                answer = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif method == "PLAY":
                answer = "Session: 1\r\n"
            self._answer(headers["cseq"], answer, body)
            if method == "PLAY":
                break
        for number in numbers:
            self._send(number)

    def _request(self) -> tuple[str, dict[str, str]]:
        lines = []
        while (line := self._read.readline().strip()) or not lines:
            if not line:
                raise OSError("the reader has hung up")
            lines.append(line.decode())
        headers = dict(text.split(": ", 1) for text in lines[1:])
        return lines[0].split()[0], {name.lower(): value for name, value in headers.items()}

    def _answer(self, number: str, headers: str, body: str) -> None:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self._client.sendall(
            f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{headers}{length}\r\n{body}".encode()
        )

    def _description(self) -> str:
        units = [unit for picture in self._script.pictures for unit in picture]
        sets = [next(unit for unit in units if unit[0] & 31 == kind) for kind in (_SPS, _PPS)]
        texts = ",".join(base64.b64encode(unit).decode() for unit in sets)
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=cam\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={texts}\r\na=control:video\r\n"
        )

    def _send(self, number: int) -> None:
        stamp = self._script.stamp(number) % 2**32
        unix_us = self._script.says_us(number)
        if unix_us is not None:
            seconds, us = divmod(unix_us, _US_PER_S)
            ntp = seconds + _SECONDS_1900_TO_1970, (us << 32) // _US_PER_S
            report = struct.pack(">BBHIIIIII", 0x80, 200, 6, _SSRC, *ntp, stamp, 0, 0)
            self._interleaved(1, report)
        pictures = self._script.pictures
        payloads = [part for unit in pictures[number % len(pictures)] for part in fragments(unit)]
        for n_left, payload in zip(reversed(range(len(payloads))), payloads, strict=True):
            is_last = 0x80 if n_left == 0 else 0
            number_16 = self._n_packets & 0xFFFF
            header = struct.pack(">BBHII", 0x80, 96 | is_last, number_16, stamp, _SSRC)
            self._n_packets += 1
            self._interleaved(0, header + payload)

    def _interleaved(self, channel: int, packet: bytes) -> None:
        self._client.sendall(b"$" + struct.pack(">BH", channel, len(packet)) + packet)
