"""An RTSP camera in plain Python, whose logins, losses and silences a test chooses.

Picture ``k`` exists at ``k / fps`` after the camera's start, whoever looks; who connects joins in
the middle, and the footage begins anew for ever, with times that go on.
"""

import asyncio
import base64
import io
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import av

from engine.video.units import units_of
from tests.support.videos import make_video

CLOCK_HZ = 90_000
_MTU = 1400
_OPTIONS = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
_SESSION = "Session: 12345;timeout=60\r\n"

Picture = Sequence[bytes]


def pictures_of(video: bytes) -> list[Picture]:
    """The units of each picture of an H.264 stream (Annex B); no picture is cut into slices."""
    with av.open(io.BytesIO(video), format="h264") as container:
        stream = container.streams.video[0]
        return [
            [unit.content for unit in units_of(bytes(packet), "h264", b"")]
            for packet in container.demux(stream)
            if packet.size
        ]


def small_footage(*, gop: int = 25, n_frames: int = 50, **how: object) -> list[Picture]:
    """Two seconds of a moving picture."""
    return pictures_of(make_video(container="h264", gop=gop, n_frames=n_frames, **how))


@dataclass(slots=True)
class ScriptedCamera:
    """What the camera does.

    Attributes:
        pictures: Its footage.
        fps: Pictures a second.
        login: ``user:password`` that it wants, by the scheme Basic.
        tells_sets: Its description holds the parameter sets of its first picture.
        refuses_tcp: It sends by UDP only.
        is_deaf: It takes connections, and answers nothing.
        hangs: It sends no more, and keeps connections.
        n_connected: How many connections there were.
        methods: What it was asked.
        port: Where it listens.
    """

    pictures: Sequence[Picture]
    fps: float = 25
    login: str | None = None
    tells_sets: bool = True
    refuses_tcp: bool = False
    is_deaf: bool = False
    hangs: bool = False
    n_connected: int = 0
    methods: list[str] = field(default_factory=list)
    port: int = 0
    _started_s: float = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, tls: ssl.SSLContext | None, port: int = 0) -> asyncio.Server:
        self._started_s = asyncio.get_running_loop().time()
        server = await asyncio.start_server(self._answer, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connected += 1
        self._writers.append(writer)
        client = _Client(self, reader, writer)
        try:
            # Of a task that was cancelled the server would only complain.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await client.serve()
        finally:
            writer.close()

    def hang_up(self) -> None:
        """Whatever is still to be sent to whoever does not read."""
        for writer in self._writers:
            writer.transport.abort()

    def description(self) -> str:
        sets = [
            unit for picture in self.pictures[:1] for unit in picture if unit[0] & 31 in (7, 8)
        ]
        sprop = ",".join(base64.b64encode(unit).decode() for unit in sets)
        told = f";sprop-parameter-sets={sprop}" if self.tells_sets else ""
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            "a=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
            f"a=fmtp:96 packetization-mode=1{told}\r\n"
            "a=control:trackID=0\r\n"
        )

    def sent_s(self, number: int) -> float:
        return self._started_s + number / self.fps

    def newest(self) -> int:
        passed_s = asyncio.get_running_loop().time() - self._started_s
        return int(passed_s * self.fps) + 1

    def packets(self, number: int) -> Iterator[tuple[int, bool, bytes]]:
        """RTP time, whether it is the picture's last, and payload, of picture ``number``."""
        units = self.pictures[number % len(self.pictures)]
        parts = [part for unit in units for part in fragments(unit)]
        time = int(number * CLOCK_HZ / self.fps) & 0xFFFFFFFF
        for index, part in enumerate(parts):
            yield time, index == len(parts) - 1, part


class _Client:
    def __init__(
        self, camera: ScriptedCamera, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._camera = camera
        self._reader = reader
        self._writer = writer
        self._udp: tuple[str, int] | None = None
        self._playing: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        try:
            while True:
                if self._camera.is_deaf:
                    await asyncio.Event().wait()
                first = await self._reader.readexactly(1)
                if first == b"$":
                    await self._reader.readexactly(1)
                    length = int.from_bytes(await self._reader.readexactly(2), "big")
                    await self._reader.readexactly(length)
                    continue
                head = first + await self._reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                pairs = (line.partition(":") for line in lines[1:])
                self._reply(lines[0].split(" ")[0], {k.lower(): v.strip() for k, _, v in pairs})
        finally:
            if self._playing is not None:
                self._playing.cancel()

    def _reply(self, method: str, headers: dict[str, str]) -> None:
        self._camera.methods.append(method)
        status, extra, body = self._answer_to(method, headers)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        cseq = f"CSeq: {headers.get('cseq')}\r\n"
        self._writer.write(f"RTSP/1.0 {status}\r\n{cseq}{extra}{length}\r\n{body}".encode())
        if method == "PLAY" and status.startswith("200"):
            self._playing = asyncio.get_running_loop().create_task(self._play())

    def _answer_to(self, method: str, headers: dict[str, str]) -> tuple[str, str, str]:
        camera = self._camera
        if method == "OPTIONS":
            return "200 OK", _OPTIONS, ""
        if camera.login is not None:
            given = headers.get("authorization", "").removeprefix("Basic ")
            if base64.b64decode(given).decode() != camera.login:
                return "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n', ""
        if method == "DESCRIBE":
            return "200 OK", "Content-Type: application/sdp\r\n", camera.description()
        if method == "SETUP":
            return self._set_up(headers["transport"])
        return "200 OK", _SESSION, ""

    def _set_up(self, transport: str) -> tuple[str, str, str]:
        if "interleaved" in transport:
            if self._camera.refuses_tcp:
                return "461 Unsupported transport", "", ""
            return "200 OK", f"Transport: {transport}\r\n{_SESSION}", ""
        port = int(transport.partition("client_port=")[2].split("-")[0])
        self._udp = (self._writer.get_extra_info("peername")[0], port)
        return "200 OK", f"Transport: {transport};server_port=9-10\r\n{_SESSION}", ""

    async def _play(self) -> None:
        loop, camera, sequence = asyncio.get_running_loop(), self._camera, 0
        number = camera.newest()
        with suppress(ConnectionError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            while not self._writer.is_closing():
                await asyncio.sleep(max(camera.sent_s(number) - loop.time(), 0))
                while camera.hangs:
                    await asyncio.sleep(0.01)
                for time, is_last, payload in camera.packets(number):
                    kind = 96 | (0x80 if is_last else 0)
                    rtp = struct.pack(">BBHII", 0x80, kind, sequence & 0xFFFF, time, 1) + payload
                    sequence += 1
                    if self._udp is not None:
                        udp.sendto(rtp, self._udp)
                    else:
                        self._writer.write(b"$\x00" + len(rtp).to_bytes(2, "big") + rtp)
                await self._writer.drain()
                number += 1


def fragments(unit: bytes) -> Iterator[bytes]:
    """RTP payloads of a unit (RFC 6184: single, or FU-A)."""
    if len(unit) <= _MTU:
        yield unit
        return
    indicator, kind, body = unit[0] & 0xE0 | 28, unit[0] & 31, unit[1:]
    size = _MTU - 2
    for at in range(0, len(body), size):
        is_first, is_last = at == 0, at + size >= len(body)
        flags = (0x80 if is_first else 0) | (0x40 if is_last else 0)
        yield bytes([indicator, kind | flags]) + body[at : at + size]


@contextmanager
def serving(
    cameras: Sequence[ScriptedCamera], tls: ssl.SSLContext | None = None
) -> Iterator[list[str]]:
    """Addresses of cameras that are served in a thread of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cameras")
    thread.start()

    def call(work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, loop).result()  # type: ignore[arg-type]

    async def end() -> None:
        for server in servers:
            server.close()  # type: ignore[attr-defined]
        # Who was just let in has a task, too, which must begin before it knows what to close, and
        # what is hung up is closed a turn later.
        await asyncio.sleep(0)
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for camera in cameras:
            camera.hang_up()
        await asyncio.sleep(0)

    servers = [call(camera.serve(tls)) for camera in cameras]
    scheme = "rtsps" if tls else "rtsp"
    try:
        yield [f"{scheme}://127.0.0.1:{camera.port}/live" for camera in cameras]
    finally:
        call(end())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
