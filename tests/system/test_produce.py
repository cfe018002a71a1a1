"""`s2netd produce` as a process: it ends when told to, and keeps secrets."""

import asyncio
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import NewTopic

from daemon.wire.records import parse_chunk
from tests.support.kafka import OwnBroker, administering, create_topics
from tests.support.processes import PATIENCE_S, s2netd, start_s2netd, wait_until
from tests.support.scripted_camera import Picture, ScriptedCamera, serving, small_footage
from tests.support.small_disk import fill, small_disk

__all__ = ["small_disk"]

pytestmark = pytest.mark.slow

END_WITHIN_S = 2.0
# It is measured from outside, on a machine that may be busy: until Python has left.
MARGIN_S = 8.0
SPOOLED_NONE, SPOOLED_SOME = '"spooled_chunks": 0', '"spooled_chunks": [1-9]'
HIDDEN = "s3cr3t/@?#%41"


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return small_footage(gop=5)


@pytest.fixture
def camera(pictures: list[Picture]) -> Iterator[tuple[ScriptedCamera, str]]:
    scripted = ScriptedCamera(pictures)
    with serving([scripted]) as (url,):
        yield scripted, url


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while Produce.started:
        Produce.started.pop().kill()


class Produce:
    """The command, running.

    Args:
        folder: Where its log lies.
        arguments: Its arguments.
    """

    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.log = folder / "log"
        self.process = start_s2netd("produce", *arguments, log=self.log)
        self.started.append(self.process)

    def until(self, holds: Callable[[], bool]) -> None:
        def does_hold() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return holds()

        wait_until(does_hold, self.log.read_text)

    def until_said(self, words: str) -> None:
        self.until(lambda: words in self.log.read_text())

    def until_next(self, pattern: str) -> None:
        """Wait until it is said once more than now."""
        n_now = len(re.findall(pattern, self.log.read_text()))
        self.until(lambda: len(re.findall(pattern, self.log.read_text())) > n_now)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Tell it to end; what it said, if it did so in time and in order."""
        began_s = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        assert time.monotonic() - began_s < END_WITHIN_S + MARGIN_S, self.log.read_text()
        assert 0 == code, self.log.read_text()
        return self.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_while_a_camera_does_not_answer(
    camera: tuple[ScriptedCamera, str], tmp_path: Path, number: signal.Signals
) -> None:
    scripted, url = camera
    scripted.is_deaf = True
    produce = Produce(tmp_path, url, "--camera", "gate", "--to", f"dir:{tmp_path / 'chunks'}")
    wait_until(lambda: scripted.n_connected > 0, produce.log.read_text)

    assert "gate: 0 chunks" in produce.end(number)


def test_it_ends_while_a_camera_is_silent(
    camera: tuple[ScriptedCamera, str], tmp_path: Path
) -> None:
    scripted, url = camera
    produce = Produce(tmp_path, url, "--camera", "gate", "--to", f"dir:{tmp_path / 'chunks'}")
    chunks = tmp_path / "chunks" / "gate"
    wait_until(lambda: len(list(chunks.glob("*.mp4"))) > 0, produce.log.read_text)
    scripted.hangs = True

    produce.end()
    assert 1 == len(list(chunks.glob("*.end*")))


def test_it_ends_while_a_camera_is_away(tmp_path: Path) -> None:
    to = f"dir:{tmp_path / 'chunks'}"
    produce = Produce(tmp_path, "rtsp://127.0.0.1:9/cam", "--camera", "gate", "--to", to)
    produce.until_said("connecting again in 2 s")

    produce.end()


@pytest.mark.parametrize(
    ("source", "kind"), [("camera", "away"), ("camera", "silent"), ("file", "away")]
)
def test_it_ends_while_a_broker_is_away_and_says_what_it_could_not_send(
    camera: tuple[ScriptedCamera, str], tmp_path: Path, silent_port: int, source: str, kind: str
) -> None:
    _scripted, url = camera
    port = 1 if kind == "away" else silent_port
    if source == "file":
        clip = tmp_path / "clip.h264"
        clip.write_bytes(b"".join(b"\0\0\0\1" + u for p in small_footage(gop=5) for u in p))
        url = str(clip)
    to = ("--to", "kafka:chunks", "--bootstrap", f"127.0.0.1:{port}")
    produce = Produce(tmp_path, url, "--camera", "gate", *to)
    produce.until_said("waiting for the broker")

    said = produce.end()
    assert "were not sent: produce was stopped" in said
    assert "gate: 0 chunks" in said


@pytest.mark.kafka
async def test_a_broker_that_comes_goes_and_comes_back_costs_nothing(
    camera: tuple[ScriptedCamera, str], tmp_path: Path, own_broker: OwnBroker
) -> None:
    _scripted, url = camera
    bootstrap = own_broker.start()
    async with administering(bootstrap) as admin:
        await create_topics(admin, NewTopic("chunks", 1, 1))
    own_broker.run("stop")
    to: dict[str, object] = {"kind": "kafka", "bootstrap_servers": bootstrap, "topic": "chunks"}
    cameras: dict[str, object] = {"gate": {"url": url, "chunk_s": 0.2}}
    config = write_cameras(tmp_path / "cameras.yaml", cameras, to)
    produce = await asyncio.to_thread(Produce, tmp_path, "--config", config)
    await asyncio.to_thread(produce.until_said, '"event": "outage.began"')
    own_broker.start()
    await asyncio.to_thread(produce.until_next, SPOOLED_NONE)
    own_broker.run("stop")
    await asyncio.to_thread(produce.until_next, SPOOLED_SOME)
    own_broker.start()
    await asyncio.to_thread(produce.until_next, SPOOLED_NONE)

    assert "produce.not_sent" not in await asyncio.to_thread(produce.end)
    chunks = [
        parse_chunk(each.key, each.headers, each.value, timestamp_us=0, offset=each.offset)
        for each in await records_of(bootstrap, "chunks")
    ]
    assert chunks[-1].is_end
    assert set(range(chunks[-1].sequence)) == {chunk.sequence for chunk in chunks[:-1]}
    assert {chunks[0].run} == {chunk.run for chunk in chunks}


async def records_of(bootstrap: str, topic: str) -> list[ConsumerRecord]:
    """All records of a topic of one partition."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([partition])
        end, found = (await consumer.end_offsets([partition]))[partition], []
        while len(found) < end:
            found.append(await consumer.getone())
        return found
    finally:
        await consumer.stop()


def test_a_full_disk_is_waited_for(
    camera: tuple[ScriptedCamera, str],
    tmp_path: Path,
    small_disk: Path,
) -> None:
    _scripted, url = camera
    (small_disk / "chunks" / "gate").mkdir(parents=True)
    filler = fill(small_disk)
    to = f"dir:{small_disk / 'chunks'}"
    produce = Produce(tmp_path, url, "--camera", "gate", "--to", to, "--status")
    produce.until_said("No space left on device; free some")
    filler.unlink()
    produce.until_said("the disk is there again")
    wait_until(lambda: len(list((small_disk / "chunks" / "gate").glob("*.mp4"))) > 2)

    fill(small_disk)
    produce.end()


@pytest.mark.parametrize("kind", ["file", "environment"])
def test_a_password_is_shown_nowhere(
    pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    scripted = ScriptedCamera(pictures, login="admin:right")
    with serving([scripted]) as (url,):
        secret_url = url.replace("://", f"://admin:{HIDDEN}@")
        (tmp_path / "url").write_text(secret_url + "\n")
        monkeypatch.setenv("GATE_URL", secret_url)
        source = f"@{tmp_path / 'url'}" if kind == "file" else "env:GATE_URL"
        to = f"dir:{tmp_path / 'chunks'}"
        produce = Produce(tmp_path, source, "--camera", "gate", "--to", to)
        produce.until_said("connecting again")
        listed = Path(f"/proc/{produce.process.pid}/cmdline").read_bytes()
        said = produce.end()

    assert b"s3cr3t" not in listed
    assert "s3cr3t" not in said
    assert "***@127.0.0.1" in said


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(
    pictures: list[Picture], tmp_path: Path
) -> None:
    scripted = ScriptedCamera(pictures, login="admin:right")
    with serving([scripted]) as (url,):
        secret_url = url.replace("://", "://admin:s3cr3t@")
        to = f"dir:{tmp_path / 'chunks'}"
        produce = Produce(tmp_path, secret_url, "--camera", "gate", "--to", to)
        produce.until_said("connecting again")
        said = produce.end()

    assert "list of processes" in said
    assert "s3cr3t" not in said


@pytest.mark.parametrize(
    "content",
    [
        "ftp://u:s3cr3t@host/x",
        "rtsp:/u:s3cr3t@host/x",
        "rtsp://u:s3cr3t" + "x" * 130 + "@host/x",
        "u:s3cr3t@host",
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_its_password(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "url").write_text(content)
    done = s2netd("produce", f"@{tmp_path / 'url'}", "--camera", "a", "--to", f"dir:{tmp_path}/c")

    assert done.returncode in {1, 78}
    assert "s3cr3t" not in done.stderr + done.stdout


def write_cameras(path: Path, urls: dict[str, object], to: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({"to": to, "cameras": urls, "status_interval_s": 0.5}))
    return path


def test_many_cameras_of_one_file_are_sent_by_one_process(
    pictures: list[Picture], tmp_path: Path
) -> None:
    cameras = [ScriptedCamera(pictures) for _ in range(4)]
    cameras[0].is_deaf = True
    with serving(cameras) as urls:
        (tmp_path / "url").write_text(urls[1])
        named: dict[str, object] = {f"gate-{n}": {"url": url} for n, url in enumerate(urls)}
        named["gate-1"] = {"url_file": str(tmp_path / "url"), "rtsp_transport": "tcp"}
        to: dict[str, object] = {"kind": "directory", "path": str(tmp_path / "chunks")}
        config = write_cameras(tmp_path / "cameras.yaml", named, to)
        produce = Produce(tmp_path, "--config", config)
        for n in (1, 2, 3):
            folder = tmp_path / "chunks" / f"gate-{n}"
            wait_until(lambda at=folder: len(list(at.glob("*.mp4"))) > 1, produce.log.read_text)
        produce.until_said('"event": "produce.status"')
        said = produce.end()

    assert '"event": "produce.stopped"' in said
    for n in (1, 2, 3):
        assert 1 == len(list((tmp_path / "chunks" / f"gate-{n}").glob("*.end*")))


@pytest.mark.parametrize(
    ("cameras", "told"),
    [
        ("{gate: {url: 'rtsp://u:s3cr3t@h/1', ulr: x}}", "cameras.gate.ulr: unknown key"),
        ("{gate: 'rtsp://u:s3cr3t@h/1'}", "cameras.gate: "),
        ("{gate: {rtsp://u:s3cr3t@h/1}}", "cameras.gate.rtsp://***@h/1: unknown key"),
        ("{'rtsp://u:s3cr3t@h/1': {url: 'rtsp://h/1'}}", "cameras.rtsp://***@h/1: "),
        ("{gate: {url: ['rtsp://u:s3cr3t@h/1']}}", "cameras.gate.url: "),
        ("{gate: {url: 'ftp://u:s3cr3t@h/1'}}", "cameras.gate: ftp://***@h/1: ftp:// is not"),
        ("{gate: {url: 'clip-s3cr3t'}}", "cameras.gate: wanted an address with one of rtsp"),
        ("{gate: {}}", "cameras.gate: give either url or url_file"),
        ("{gate: {url_file: none}}", "cameras.gate: the source: cannot read none"),
        ("{a/b: {url: 'rtsp://u:s3cr3t@h/1'}}", "cameras.a/b: camera 'a/b' cannot name a folder"),
        ("{}", "cameras: "),
        ("{a: {url: 'rtsp://h'}, a: {url: 'rtsp://h'}}", "key 'a' stands in line"),
    ],
)
def test_a_file_of_cameras_that_is_wrong_is_refused_by_key_and_without_passwords(
    tmp_path: Path, cameras: str, told: str
) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(f"to: {{kind: directory, path: {tmp_path / 'chunks'}}}\ncameras: {cameras}\n")
    done = s2netd("produce", "--config", path)

    assert 78 == done.returncode
    assert told in done.stderr
    assert "s3cr3t" not in done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_a_folder_that_cannot_be_read_do_not_keep_the_others_back(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    stream = b"".join(b"\0\0\0\1" + unit for p in small_footage(gop=5) for unit in p)
    for name, content in (("a", stream), ("b", b"no video"), ("c", stream), ("d", b"")):
        (folder / f"{name}.h264").write_bytes(content)
    done = s2netd("produce", folder, "--camera", "gate", "--to", f"dir:{tmp_path / 'chunks'}")

    assert 1 == done.returncode
    assert "2 of 4 files could not be read whole:" in done.stderr
    assert "b.h264" in done.stderr
    assert "d.h264" in done.stderr
    assert 2 == len(list((tmp_path / "chunks" / "gate").glob("*.end*")))
