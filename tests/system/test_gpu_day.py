"""The day on a GPU, as far as it goes without one: its pieces, its steps, its report."""

import argparse
import importlib.machinery
import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.checkout import CHECKOUT

SCRIPT = CHECKOUT / "scripts" / "gpu-day"


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, whose checkout is an empty folder and whose pieces are small."""
    loader = importlib.machinery.SourceFileLoader("gpu_day", str(SCRIPT))
    spec = importlib.util.spec_from_loader("gpu_day", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_day", module)
    loader.exec_module(module)
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    return module


@pytest.fixture
def pieces(day: ModuleType, tmp_path: Path) -> list[Path]:
    tree = tmp_path / "packed" / "tree"
    (tree / "wheels").mkdir(parents=True)
    (tree / "wheels" / "some.whl").write_bytes(bytes(range(256)) * 8 + SCRIPT.read_bytes())
    packed: list[Path] = day._packed(tree, tree.parent)
    assert len(packed) >= 3
    return packed


def options(tmp_path: Path, **changes: object) -> argparse.Namespace:
    values = {"dry_run": True, "only": None, "minutes": 1.0, "report": tmp_path / "gpu.md"}
    return argparse.Namespace(**values | {"store": tmp_path / "store"} | changes)


def a_step(day: ModuleType, name: str, code: str, most_s: int = 60) -> object:
    command = (sys.executable, "-c", code)
    return day.Step(name, f"what {name} does", command, command, most_s)


def test_what_was_packed_is_there_once_all_pieces_are(
    day: ModuleType, pieces: list[Path], tmp_path: Path
) -> None:
    for piece in pieces:
        assert piece.stat().st_size <= day.PIECE_BYTES + 256
        day.receive(piece, tmp_path / "store")
        if piece is pieces[1]:
            day.receive(piece, tmp_path / "store")  # a call that was repeated

    packed = tmp_path / "packed" / "tree" / "wheels" / "some.whl"
    assert packed.read_bytes() == (tmp_path / "store" / "wheels" / "some.whl").read_bytes()


def test_a_piece_that_is_missing_damaged_or_none_is_named(
    day: ModuleType, pieces: list[Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with pytest.raises(day.GpuDayError, match="piece 0 comes next, and not 1"):
        day.receive(pieces[1], store)
    content = pieces[0].read_bytes()
    pieces[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(day.GpuDayError, match="damaged"):
        day.receive(pieces[0], store)
    pieces[0].write_bytes(b"something else")
    with pytest.raises(day.GpuDayError, match="no piece"):
        day.receive(pieces[0], store)
    assert not store.exists() or not list(store.iterdir())


def test_an_archive_cannot_write_elsewhere(day: ModuleType, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    evil.write_text("evil")
    folder = tmp_path / "packed"
    folder.mkdir()
    with tarfile.open(folder / "all.tar.xz", "w:xz") as tar:
        tar.add(evil, arcname="../escaped")
    part = (folder / "all.tar.xz").read_bytes()
    head = {"piece": 0, "of": 1, "sha256": day.hashlib.sha256(part).hexdigest()}
    piece = folder / "piece-00"
    piece.write_bytes(day.json.dumps(head).encode().ljust(256) + part)

    with pytest.raises(day.GpuDayError, match="cannot be unpacked"):
        day.receive(piece, tmp_path / "store")
    assert not (tmp_path / "escaped").exists()


def test_every_step_has_its_say_and_none_holds_the_others_up(
    day: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = [
        a_step(day, "good", "print('all is well')"),
        a_step(day, "bad", "print('alas'); raise SystemExit(3)"),
        a_step(day, "endless", "import time; print('x', flush=True); time.sleep(600)", most_s=1),
        day.Step("absent", "what is not there", ("/nowhere",), ("/nowhere",), 60),
        day.Step("idle", "what needs a GPU", ("/nowhere",), (), 60),
        a_step(day, "last", "print('the end')"),
    ]
    monkeypatch.setattr(day, "steps", lambda _python: steps)

    assert 3 == day.run(options(tmp_path))

    report = (tmp_path / "gpu.md").read_text()
    for outcome in (
        "| good | what good does | passed |",
        "| bad | what bad does | failed (3) |",
        "| endless | what endless does | stopped after 1 s |",
        "| absent | what is not there | not begun: No such file or directory: /nowhere |",
        "| idle | what needs a GPU | nothing to do here |",
        "| last | what last does | passed |",
    ):
        assert outcome in report
    for printed in ("all is well", "alas", "the end"):
        assert printed in report


def test_a_day_that_is_cut_off_leaves_a_report_of_what_was_done(
    day: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = tmp_path / "gpu.md"

    def interrupted(*_: object) -> list[object]:
        return [
            a_step(day, "first", "print('done')"),
            a_step(day, "second", f"print(open({str(report)!r}).read())"),
        ]

    monkeypatch.setattr(day, "steps", interrupted)
    assert 0 == day.run(options(tmp_path))

    seen_by_second = (tmp_path / "out" / "gpu-day" / "second.log").read_text()
    assert "| first | what first does | passed |" in seen_by_second
    assert "| second | what second does | not reached |" in seen_by_second


def test_when_the_time_is_over_nothing_more_begins(
    day: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(day, "steps", lambda _python: [a_step(day, "late", "print('hm')")])

    assert 1 == day.run(options(tmp_path, minutes=0.0))
    assert "not begun: the time was over" in (tmp_path / "gpu.md").read_text()


def test_it_brings_what_gpu_parts_tries_and_what_the_project_names(
    day: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = (CHECKOUT / "scripts" / "gpu-parts").read_text()
    monkeypatch.setattr(day, "CHECKOUT", CHECKOUT)

    wanted = day._requirements()

    for version in (day._BINDINGS, f"org.bytedeco:tensorrt:{day._TENSORRT}", day._PYCUDA[0]):
        assert version in parts
    for name in (*day._TESTS, "numpy", "av", "openvino", "opencv-python-headless"):
        assert 1 == sum(one.partition(">")[0] == name for one in wanted), name


def test_the_real_steps_are_commands_that_exist(day: ModuleType) -> None:
    """Each is asked for its help, so that no option is one that was renamed."""
    for step in day.steps(sys.executable):
        for command in (step.command, step.dry):
            if command[:3] != (sys.executable, "-m", "daemon"):
                continue
            words = [word for word in command[3:] if not word.startswith("-")]
            n_verbs = 2 if words[0] == "engine" else 1
            told = subprocess.run(
                [*command[: 3 + n_verbs], "--help"],
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
                check=True,
            )
            options_named = {word for word in command if word.startswith("--")}
            assert not {word for word in options_named if word not in told.stdout}, command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["run", "--dry-run", "--only", "nonsense"],
            "--only is 'nonsense', wanted one of machine",
        ),
        (["run", "--store", "/nowhere"], "/nowhere holds no wheels"),
        (["receive", "/nowhere"], "No such file"),
    ],
)
def test_mistakes_are_named_without_a_traceback(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
