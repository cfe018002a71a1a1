"""The parts of the harness that need no machine, and one fault on a real one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import RefusedChunkError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.frames import PyAvDecoder
from tests.faults.checker import Verdict
from tests.misery import __main__ as misery
from tests.misery.faults import FAULTS
from tests.misery.judge import Line, Metric, Usage, growth, level, run_without_offset
from tests.misery.payloads import claiming_mp4, progressive_jpeg
from tests.misery.report import Misery, Sample, Told, write_report
from tests.misery.senders import copy_without_strangers
from tests.support.kafka import need_java
from tests.support.real_parts import missing
from tests.support.systemd import why_no_manager

SERIES = {
    ("lost_total",): 2.0,
    ("dropped_total", ("camera", "bomb-0"), ("error", "Refused")): 3.0,
    ("dropped_total", ("camera", "bomb-1"), ("error", "Refused")): 4.0,
    ("dropped_total", ("camera", "door"), ("error", "Refused")): 8.0,
}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("lost_total", {}, 2.0),
        ("dropped_total", {"camera": "bomb-"}, 7.0),
        ("dropped_total", {"camera": "bomb-1", "error": "Ref"}, 4.0),
        ("dropped_total", {"why": "slow"}, 0.0),
        ("gone_total", {}, 0.0),
    ],
)
def test_a_metric_is_the_sum_of_what_fits(name: str, labels: dict[str, str], value: float) -> None:
    assert Metric(name, labels).of(SERIES) == value


def test_a_line_is_told_by_its_event_and_by_what_its_fields_begin_with_or_hold() -> None:
    lines = [{"event": "outage.began", "what": ["/var/lib/dead-nfs-0"], "for_s": 2}]

    assert Line("outage.began", {"for_s": "2"}).is_in(lines)
    assert Line("outage.began", {"what": "*dead-nfs-0"}).is_in(lines)
    assert not Line("outage.began", {"what": "dead-nfs-0"}).is_in(lines)
    assert not Line("outage.over", {}).is_in(lines)


def test_only_growth_beyond_a_share_is_growth() -> None:
    flat = [Usage(400, 40, 30), Usage(800, 90, 90), Usage(430, 44, 33)]
    grown = [Usage(400, 40, 30), Usage(500, 60, 40)]

    assert [] == growth(flat)
    assert ["resident memory", "open files", "threads"] == [
        what.partition(" grew")[0] for what in growth(grown)
    ]


def test_a_level_is_no_peak() -> None:
    assert Usage(2, 20, 5) == level([Usage(1, 10, 5), Usage(2, 20, 5), Usage(900, 900, 900)])


def test_a_run_that_won_back_its_camera_has_its_producers_name() -> None:
    assert ["run-3", "run-3"] == [run_without_offset(run) for run in ("run-3@812", "run-3")]


def a_decoder() -> PyAvDecoder:
    return PyAvDecoder(FrameGeometry(64, 64), Grid(25, 16, 16), DecodeLimits())


def test_a_picture_of_many_scans_is_a_picture() -> None:
    few, many = progressive_jpeg(2), progressive_jpeg(50, n_bytes=2**20)
    frames = [a_decoder().decode(VideoChunk("c", "r", 0, 0, jpeg)) for jpeg in (few, many)]

    assert [(1, 64, 64, 3)] * 2 == [batch.rgb.shape for batch in frames]
    assert len(many) > 2**20 > len(few)


def test_a_table_of_too_many_samples_is_refused() -> None:
    with pytest.raises(RefusedChunkError, match="claim 2147483647 samples"):
        a_decoder().decode(VideoChunk("c", "r", 0, 0, claiming_mp4()))


def test_strangers_files_are_not_shown_to_the_undisturbed_daemon(tmp_path: Path) -> None:
    folder = tmp_path / "chunks" / "door"
    folder.mkdir(parents=True)
    for number, run in enumerate(("run-0", "stray-0", "run-1")):
        (folder / f"{number:010d}.json").write_text(f'{{\n "vc_epoch": "{run}"\n}}')
        (folder / f"{number:010d}.mp4").write_text(run)
    (folder / "0000000003.mp4").write_text("without headers")

    copy_without_strangers(tmp_path / "chunks", ["door"], tmp_path / "copy")

    copied = sorted((tmp_path / "copy" / "door").glob("*.mp4"))
    assert ["run-0", "run-1"] == [file.read_text() for file in copied]


def a_misery(*, is_logged: bool = True, lost: int = 0, restarts: int = 0) -> Misery:
    usage = Usage(250.0, 30, 16)
    seen = Misery(["--short"], 6)
    seen.told.append(Told("a bomb", "topic", 0, "lost_total", "decoder.lost", 1.0, is_logged))
    seen.samples = [Sample(float(at_s), usage, usage) for at_s in range(3)]
    seen.levels = [{"topic": usage, "folder": usage}]
    seen.verdicts = {name: Verdict(events=4, lost=lost) for name in ("topic", "folder")}
    seen.longest_line = {"topic": 300, "folder": 300}
    seen.restarts = {"topic": restarts, "folder": 0}
    seen.judge()
    return seen


def test_what_does_not_hold_is_a_complaint() -> None:
    assert [] == a_misery().complaints
    assert ["round 0: a bomb: lost_total +1; NOT LOGGED (decoder.lost)"] == (
        a_misery(is_logged=False).complaints
    )
    assert 2 == len(a_misery(lost=1).complaints)
    assert ["topic: started anew 3 times"] == a_misery(restarts=3).complaints


def test_the_page_tells_each_fault_and_what_holds(tmp_path: Path) -> None:
    write_report(a_misery(restarts=1), tmp_path / "misery.md")

    page = (tmp_path / "misery.md").read_text()
    assert "Not all rules hold:\n\n- topic: started anew 1 times\n" in page
    assert "- command: `make misery ARGS='--short'`\n" in page
    assert "| a bomb | topic | `lost_total` | 1 | `decoder.lost` | yes |\n" in page


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len(FAULTS) == len({fault.name for fault in FAULTS})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "call"),
    [("fsync", "os.fsync(file.fileno())"), ("open", "open('{folder}/dead-nfs', 'rb').read()")],
)
def test_a_call_hangs_as_long_as_a_file_says_so(tmp_path: Path, mark: str, call: str) -> None:
    compiler = shutil.which("cc") or shutil.which("c++")
    if compiler is None:
        missing("no C compiler (Debian: apt install g++)")
    library, source = tmp_path / "misery.so", Path(misery.__file__).with_name("preload.c")
    build = [compiler, "-x", "c", "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(build, check=True)
    (tmp_path / "dead-nfs").touch()
    (tmp_path / mark).touch()
    called = call.format(folder=tmp_path)
    program = f"import os\nfile = open('{tmp_path}/x', 'wb')\nprint('calls', flush=True)\n{called}"
    env = {**os.environ, "LD_PRELOAD": str(library), "MISERY": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE)
    with caller:
        assert caller.stdout is not None
        assert b"calls\n" == caller.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            caller.wait(0.5)
        (tmp_path / mark).unlink()
        assert 0 == caller.wait(60)


@pytest.mark.kafka
@pytest.mark.systemd
@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.openvino
def test_a_stray_record_costs_a_real_daemon_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_java("a broker of our own needs")
    if (reason := why_no_manager()) is not None:
        missing(reason)
    options = ["--short", "--only", "without headers", "--rest", "1"]
    report = tmp_path / "misery.md"
    monkeypatch.setattr(sys, "argv", ["misery", *options, "--report", str(report)])

    assert 0 == misery.main(), report.read_text()
