"""A real RTSP server (GStreamer's) on a loopback port: a camera that plays a file once."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.real_parts import missing

# Debian's bindings belong to Debian's Python, not to the one of the virtual environment.
_PYTHON = "/usr/bin/python3"
_HOW_TO_GET = (
    "no GStreamer RTSP server (Debian: apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
    "gstreamer1.0-rtsp gstreamer1.0-plugins-{base,good,bad})"
)

_PROBE = r"""
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer

Gst.init(None)
sys.exit(not all(map(Gst.ElementFactory.find, ("qtdemux", "h264parse", "rtph264pay"))))
"""

_SERVER = r"""
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
camera = GstRtspServer.RTSPMediaFactory()
camera.set_launch(
    f'( filesrc location="{sys.argv[1]}" ! qtdemux ! h264parse config-interval=-1'
    " ! rtph264pay name=pay0 pt=96 )"
)
server.get_mount_points().add_factory("/cam", camera)
if server.attach(None) == 0:
    sys.exit("cannot listen on 127.0.0.1")
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@contextmanager
def rtsp_camera(video: Path) -> Iterator[str]:
    """Address of a camera that plays ``video`` from its start, in real time, to whoever connects.

    The test is skipped (or fails) where there is no server to start.

    Args:
        video: H.264 in MP4; without B-frames, whose order RTP does not tell.
    """
    with TemporaryDirectory(prefix="s2netd-rtsp-") as home:
        environ = {"HOME": home, "PATH": "/usr/bin:/bin"}  # GStreamer keeps a registry in HOME
        _require_server(environ)
        with _served(video, environ) as url:
            yield url


@contextmanager
def _served(video: Path, environ: dict[str, str]) -> Iterator[str]:
    server = subprocess.Popen(
        [_PYTHON, "-c", _SERVER, str(video)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the RTSP server did not start: status {server.wait()}")
        yield f"rtsp://127.0.0.1:{port}/cam"
    finally:
        server.kill()
        server.communicate()


def _require_server(environ: dict[str, str]) -> None:
    if not Path(_PYTHON).exists():
        missing(_HOW_TO_GET)
    probe = subprocess.run([_PYTHON, "-c", _PROBE], env=environ, capture_output=True, check=False)
    if probe.returncode:
        missing(_HOW_TO_GET)
