"""Cameras behind addresses: every login reaches them, and no message shows one."""

import ssl
import traceback
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UnreadableVideoError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.video.addresses import Access, RtspTransport, usable
from engine.video.cutting import CutChunk, cut_video
from engine.video.frames import read_video
from engine.video.passwords import without_password
from tests.support.certificates import Authority
from tests.support.scripted_camera import ScriptedCamera, serving, small_footage

HIDDEN = "s3cr3t"
# What a password may hold, and what an address gives a meaning of its own.
NASTY = [
    *("p@ss", "a/b", "a?b", "a#b", "a:b", "100%", "%41", "[x", "ü ö", "a&b=c", "'\"`$", "a+b"),
    *("@@", "/@", "x/y:z?w#v", "12/3x"),
]


@pytest.fixture(scope="module")
def footage() -> list[list[bytes]]:
    return [list(picture) for picture in small_footage(gop=5)]


def first_chunk(url: str, access: Access | None = None) -> CutChunk:
    notes: list[str] = []
    pieces = cut_video(url, chunk_s=0.2, on_note=notes.append, live=True, access=access)
    (chunk,) = islice(pieces, 1)
    pieces.close()  # type: ignore[attr-defined]
    return chunk


def with_login(url: str, login: str) -> str:
    return url.replace("://", f"://{login}@")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("photos@home.mp4", "photos@home.mp4"),
        ("rtsp://10.0.0.7/cam", "rtsp://10.0.0.7/cam"),
        ("rtsp://10.0.0.7/cam@1", "rtsp://10.0.0.7/cam@1"),
        (f"rtsp://u:{HIDDEN}@10.0.0.7:554/cam", "rtsp://***@10.0.0.7:554/cam"),
        (f"RTSP://{HIDDEN}@10.0.0.7", "RTSP://***@10.0.0.7"),
        (f"rtsp://u:{HIDDEN}/1@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        (f"rtsp://u:1/{HIDDEN}@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        (f"rtsp://u:a@{HIDDEN}@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        (f"rtsp://u:a@b/{HIDDEN}@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        (f"rtsp://u:?{HIDDEN}@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        (f"rtsp://u:#{HIDDEN}@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        (f"rtsp:/u:{HIDDEN}@10.0.0.7/cam", "rtsp:/***@10.0.0.7/cam"),
        (f"u:{HIDDEN}@10.0.0.7/cam", "***@10.0.0.7/cam"),
        (f"rtsp:u:{HIDDEN}@10.0.0.7/cam", "***@10.0.0.7/cam"),
        ("a=b?c#d.mp4", "a=b?c#d.mp4"),
        (f"ftp://u:{HIDDEN}@10.0.0.7/cam", "ftp://***@10.0.0.7/cam"),
        (f"http://10.0.0.7/cgi?user=u&pwd={HIDDEN}", "http://10.0.0.7/cgi?***"),
        (f"rtsp://10.0.0.7/user=u&password={HIDDEN}&ch=1", "rtsp://10.0.0.7/***"),
        (f"rtsp://u:x@10.0.0.7/user=u_password={HIDDEN}/1", "rtsp://***@10.0.0.7/***/1"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_password(source: str, shown: str) -> None:
    assert shown == without_password(source)


@pytest.mark.parametrize("address", [f"rtsp://u:{HIDDEN}@h/1", Path(f"rtsp://u:{HIDDEN}@h/1")])
def test_an_address_that_is_taken_for_a_file_is_refused_without_its_password(
    address: str | Path,
) -> None:
    with pytest.raises(UnreadableVideoError, match=r"\*\*\*@h/1: No such file") as refusal:
        next(read_video(address, FrameGeometry(48, 48), Grid(25, 4, 4)))
    assert HIDDEN not in str(refusal.value)


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_no_password_is_shown_whatever_it_holds(password: str) -> None:
    marked = f"{password}{HIDDEN}{password}"

    shown = without_password(f"rtsp://user:{marked}@10.0.0.7:554/cam")

    assert HIDDEN not in shown
    assert shown.endswith("@10.0.0.7:554/cam")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("rtsp://10.0.0.7:554/cam@1", "rtsp://10.0.0.7:554/cam@1"),
        ("RTSP://u:p@10.0.0.7/cam", "rtsp://u:p@10.0.0.7/cam"),
        ("rtsp://u:p@10.0.0.7/cam@1?x=%41", "rtsp://u:p@10.0.0.7/cam@1?x=%41"),
        ("rtsp://u:a/b@10.0.0.7/cam", "rtsp://u:a%2Fb@10.0.0.7/cam"),
        ("rtsp://u:a%2Fb%41@10.0.0.7/cam", "rtsp://u:a%2FbA@10.0.0.7/cam"),
        ("rtsp://u:50%@10.0.0.7/cam", "rtsp://u:50%25@10.0.0.7/cam"),
        ("rtsp://u:p@[fe80::1]:554/cam", "rtsp://u:p@[fe80::1]:554/cam"),
    ],
)
def test_what_ffmpeg_would_misread_is_encoded(given: str, wanted: str) -> None:
    assert wanted == usable(given)


def test_a_login_that_ffmpeg_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"take 128 bytes.*takes 127") as refusal:
        usable(f"rtsp://u:{HIDDEN}{'x' * 120}@10.0.0.7/cam")
    assert HIDDEN not in str(refusal.value)
    assert usable(f"rtsp://u:{'x' * 125}@10.0.0.7/cam")


@pytest.mark.slow
@pytest.mark.parametrize("password", NASTY)
def test_every_password_reaches_the_camera(password: str, footage: list[list[bytes]]) -> None:
    camera = ScriptedCamera(footage, login=f"admin:{password}")
    with serving([camera]) as (url,):
        chunk = first_chunk(with_login(url, f"admin:{quote(password, safe='')}"))

    assert chunk.n_frames == 5


@pytest.mark.slow
@pytest.mark.parametrize("password", ["p@ss", "a/b", "a?b", "a#b", "a:b", "100%", "[x", "ü ö"])
def test_a_password_need_not_be_encoded(password: str, footage: list[list[bytes]]) -> None:
    camera = ScriptedCamera(footage, login=f"admin:{password}")
    with serving([camera]) as (url,):
        assert first_chunk(with_login(url, f"admin:{password}")).n_frames == 5


@pytest.mark.slow
def test_no_traceback_shows_a_password(footage: list[list[bytes]]) -> None:
    camera = ScriptedCamera(footage, login="admin:another")
    with (
        serving([camera]) as (url,),
        pytest.raises(UnreadableVideoError, match=r"rtsp://\*\*\*@127\.0\.0\.1") as refusal,
    ):
        first_chunk(with_login(url, f"admin:{HIDDEN}"))

    assert HIDDEN not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "refuses_tcp", "works"),
    [
        ("auto", False, True),
        ("auto", True, True),
        ("tcp", False, True),
        ("tcp", True, False),
        ("udp", True, True),
        ("udp", False, True),
    ],
)
def test_rtsp_comes_over_tcp_unless_that_is_refused_or_not_wanted(
    transport: RtspTransport, *, refuses_tcp: bool, works: bool, footage: list[list[bytes]]
) -> None:
    camera = ScriptedCamera(footage, refuses_tcp=refuses_tcp)
    with serving([camera]) as (url,):
        if not works:
            with pytest.raises(UnreadableVideoError):
                first_chunk(url, Access(transport))
            return
        assert first_chunk(url, Access(transport)).n_frames == 5
    n_tries = 2 if transport == "auto" and refuses_tcp else 1
    assert n_tries == camera.methods.count("SETUP")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["description", "pictures"])
def test_how_pictures_are_decoded_may_be_said_in_either_place(
    where: str, footage: list[list[bytes]]
) -> None:
    told = where == "description"
    camera = ScriptedCamera(footage if not told else only_at_first(footage), tells_sets=told)
    with serving([camera]) as (url,):
        assert first_chunk(url).n_frames == 5


@pytest.mark.slow
def test_a_camera_that_says_nowhere_how_pictures_are_decoded_is_named_with_the_fix(
    footage: list[list[bytes]],
) -> None:
    camera = ScriptedCamera(only_at_first(footage), tells_sets=False)
    with (
        serving([camera]) as (url,),
        pytest.raises(UnreadableVideoError, match=r"SPS, PPS.*with every key frame"),
    ):
        first_chunk(url)


def only_at_first(footage: list[list[bytes]]) -> list[list[bytes]]:
    """The footage, whose parameter sets only the first picture of a minute has."""
    bare = [[unit for unit in picture if unit[0] & 31 not in (7, 8)] for picture in footage]
    return [footage[0], *bare[1:], *(bare * 30)]


@pytest.fixture(scope="module")
def tls_camera(
    tmp_path_factory: pytest.TempPathFactory, footage: list[list[bytes]]
) -> Iterator[tuple[str, Path]]:
    """A camera's rtsps address, and the certificate of who signed its own."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    pair = authority.sign("camera", hosts="IP:127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    with serving([ScriptedCamera(footage, login="admin:a/b")], tls) as (url,):
        yield with_login(url, "admin:a%2Fb"), authority.ca


@pytest.mark.slow
def test_rtsps_is_taken_from_a_camera_that_is_trusted(tls_camera: tuple[str, Path]) -> None:
    url, ca = tls_camera

    assert first_chunk(url, Access(ca_file=ca)).n_frames == 5


@pytest.mark.slow
def test_rtsps_is_taken_from_nobody_else_unless_that_is_asked_for(
    tls_camera: tuple[str, Path],
) -> None:
    url, _ca = tls_camera
    with pytest.raises(UnreadableVideoError, match=r"rtsps://\*\*\*@127\.0\.0\.1"):
        first_chunk(url)

    assert first_chunk(url, Access(checks_certificate=False)).n_frames == 5
