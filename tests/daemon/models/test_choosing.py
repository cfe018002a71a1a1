"""`precision: auto`: measured once by a clock that the test sets, verified, and kept."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from daemon.models.choosing import N_TURNS, Telling, least_ms, open_model, settled
from daemon.models.reading import ReadModel, check_model, read_model
from engine.backends.openvino import backend as openvino_backend
from engine.backends.openvino.backend import Cpu
from engine.bundle.model_bundle import ModelBundle, write_bundle
from engine.bundle.networks import Original
from engine.errors import BundleError, DeviceError
from engine.files.cache import cache_dir
from engine.spec import Tolerance
from engine.verification.footage import procedural
from tests.support.model_rig import a_config, a_rig
from tests.support.tiny_convolutions import write_convolutional_bundle
from training.precision.convert import convert
from training.precision.int8 import to_int8

pytestmark = pytest.mark.openvino

SLOW_S, FAST_S = 0.1, 0.05


class SetClock:
    """Each call of a turn takes as long as it is told to, in the order of the candidates."""

    def __init__(self, *costs_s: float) -> None:
        self._costs_s = costs_s
        self._now_s = 0.0
        self.n_read = 0

    def __call__(self) -> float:
        self.n_read += 1
        if self.n_read % 2 == 0:
            self._now_s += self._costs_s[(self.n_read // 2 - 1) % len(self._costs_s)]
        return self._now_s


def never() -> float:
    raise AssertionError("measured again")


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """The f32 bundle ``plain`` on a CPU without bf16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda: False)
    exact = ModelBundle.load(write_convolutional_bundle(tmp_path / "plain"))
    return ModelBundle.load(
        write_bundle(
            exact.path,
            exact.card,
            backbone=exact.backbone_path.read_bytes(),
            localizer=exact.localizer_path.read_bytes(),
            tolerance=Tolerance(feature_cosine_min=0.97),  # of three numbers in int8
        )
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, bytes]:
    """The backbone in int8, and one that sees other things, in int8 too."""
    plain = ModelBundle.load(write_convolutional_bundle(tmp_path_factory.mktemp("b") / "plain"))
    (clip,) = procedural(plain.spec).clips
    seen = [snippet.rgb for snippet in clip.snippets()]
    network = onnx.load(plain.backbone_path)
    right = to_int8(network.SerializeToString(), seen).network
    for weight in network.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim == 5:
            weight.CopyFrom(numpy_helper.from_array(np.flip(values, 0).copy(), weight.name))
    return {"right": right, "stranger": to_int8(network.SerializeToString(), seen).network}


def written(plain: ModelBundle, network: bytes, original: str | None = None) -> Path:
    """A bundle beside ``plain`` that says it is its int8 form."""
    return write_bundle(
        plain.path.with_name("plain-int8"),
        replace(plain.card, name="plain-int8", precision="int8"),
        backbone=network,
        localizer=plain.localizer_path.read_bytes(),
        original=Original(original or plain.backbone_sha256, "plain"),
    )


@pytest.fixture
def int8(plain, networks):
    """Its int8 form."""
    return written(plain, networks["right"])


@pytest.fixture
def stranger(plain, networks):
    """What says that it is the int8 form, and sees other things."""
    return written(plain, networks["stranger"])


def read_auto(bundle: Path, **changes: object) -> ReadModel:
    return read_model(a_config(bundle, precision="auto", **changes))


def kept_files() -> list[Path]:
    return sorted((cache_dir() / "precisions").iterdir())


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def telling(notes) -> Telling:
    return Telling(note=notes.append)


@pytest.mark.usefixtures("int8")
def test_the_fastest_is_taken_and_that_is_kept_for_the_next_start(plain, telling, notes):
    clock = SetClock(SLOW_S, FAST_S)
    first = settled(read_auto(plain.path), telling, clock)
    second = settled(read_auto(plain.path), telling, never)

    assert 2 * 2 * N_TURNS == clock.n_read
    assert "int8" == first.config.precision == second.config.precision
    assert "int8, the fastest: f32 100.0, int8 50.0 ms a snippet, measured now" == first.choice
    assert first.choice.replace("now", "before") == second.choice
    assert [] == notes


@pytest.mark.usefixtures("int8")
def test_the_more_exact_one_is_taken_where_the_other_gains_little(plain):
    read = settled(read_auto(plain.path), clock_s=SetClock(SLOW_S, 0.95 * SLOW_S))

    assert "f32" == read.config.precision
    assert read.runs == plain


def test_other_work_on_the_machine_is_not_held_against_a_precision():
    disturbed = iter([0.9, 0.2, 0.1, 0.8, 0.1, 0.2, 0.7, 0.2] + [0.5, 0.5] * N_TURNS)
    now_s, n_read = 0.0, 0

    def clock_s() -> float:
        nonlocal now_s, n_read
        n_read += 1
        now_s += next(disturbed) if n_read % 2 == 0 else 0
        return now_s

    calls: dict[str, Callable[[], object]] = {"f32": lambda: None, "int8": lambda: None}
    assert {"f32": pytest.approx(100), "int8": pytest.approx(200)} == least_ms(
        calls, Telling(), clock_s
    )


@pytest.mark.usefixtures("stranger")
def test_one_that_strays_is_named_and_left_out_now_and_later(plain, telling, notes):
    for clock in (SetClock(SLOW_S, FAST_S), never):
        notes.clear()
        read = settled(read_auto(plain.path), telling, clock)

        assert "f32" == read.config.precision
        assert "int8 is left out: features: a snippet's cosine is" in read.choice
        (note,) = notes
        assert f"{plain.model_id}: int8 is left out: features:" in note


@pytest.mark.usefixtures("stranger")
def test_without_verification_whatever_is_fastest_is_taken(plain):
    clock = SetClock(SLOW_S, FAST_S)

    assert "int8" == settled(read_auto(plain.path, verify=False), clock_s=clock).config.precision
    # and that is no verdict for those who ask for one
    assert "f32" == settled(read_auto(plain.path), clock_s=clock).config.precision


def test_one_that_cannot_be_opened_is_named_and_left_out(plain, monkeypatch, telling, notes):
    def refuse(precision: str, _capabilities: object) -> None:
        if precision == "bf16":
            raise DeviceError("this CPU only says so")

    monkeypatch.setattr(openvino_backend, "has_bf16", lambda: True)
    monkeypatch.setattr(openvino_backend, "check_arithmetic", refuse)
    read = settled(read_auto(plain.path), telling, SetClock(SLOW_S))

    assert "f32" == read.config.precision
    assert [f"{plain.model_id}: bf16 is left out: this CPU only says so"] == notes


def test_where_there_is_nothing_to_choose_from_nothing_is_measured(plain):
    read = settled(read_auto(plain.path), clock_s=never)

    assert ("f32", "f32, the only one here") == (read.config.precision, read.choice)
    assert not (cache_dir() / "precisions").exists()


def test_a_converted_bundle_runs_in_what_it_holds(int8):
    read = settled(read_auto(int8), clock_s=never)

    assert ("int8", "int8, the only one here") == (read.config.precision, read.choice)


@pytest.mark.usefixtures("int8")
@pytest.mark.parametrize("backend", ["scripted", "tensorrt"])
def test_other_backends_run_a_bundle_as_it_is(plain, backend):
    read = read_auto(plain.path, backend=backend)

    assert read is settled(read, clock_s=never)


def changed(**values: object) -> Callable[[bytes], bytes]:
    return lambda blob: json.dumps({**json.loads(blob), **values}).encode()


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _blob: b"", "is damaged"),
    "cut short": (lambda blob: blob[:-9], "is damaged"),
    "no text": (lambda _blob: b"\xff\x00{", "is damaged"),
    "deep and long": (lambda _blob: b"[" * (1 << 20), "is damaged"),
    "below zero": (changed(milliseconds={"f32": 100, "int8": -1}), "is damaged"),
    "no number": (changed(milliseconds={"f32": 100, "int8": float("nan")}), "is damaged"),
    "a text": (changed(milliseconds={"f32": "100", "int8": 1}), "is damaged"),
    "another key": (changed(more=1), "is damaged"),
    "one too few": (changed(milliseconds={"f32": 100.0}), "is of other precisions"),
    "one too many": (
        changed(milliseconds={"f32": 1.0, "int8": 1.0, "bf16": 1.0}),
        "is of other precisions",
    ),
    "all refused": (changed(refused={"f32": "so", "int8": "so"}), "is of other precisions"),
    "of another CPU": (changed(key={"cpu": "another"}), "was measured of something else"),
}


@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=SPOILT)
@pytest.mark.usefixtures("int8")
def test_what_was_kept_and_cannot_be_used_is_said_and_measured_anew(
    plain, telling, notes, spoil, says
):
    settled(read_auto(plain.path), clock_s=SetClock(FAST_S, SLOW_S))
    (path,) = kept_files()
    path.write_bytes(spoil(path.read_bytes()))
    read = settled(read_auto(plain.path), telling, SetClock(SLOW_S, SLOW_S))

    assert "f32, the fastest: f32 100.0, int8 100.0 ms a snippet, measured now" == read.choice
    (note,) = notes
    assert str(path) in note
    assert says in note
    assert "anew" in note
    assert "measured before" in settled(read_auto(plain.path), clock_s=never).choice


def test_what_a_cpu_does_at_the_moment_is_no_part_of_it(tmp_path, monkeypatch):
    """Linux tells the clock of each core, which is another one each time."""
    said = tmp_path / "cpuinfo"
    monkeypatch.setattr(openvino_backend, "_CPU_FLAGS", said)
    core = "processor : {0}\nmodel name : A CPU\ncpu MHz : {1}\nflags : fpu avx2\n\n"
    seen = []
    for clock_mhz in (1400, 3800.5):
        said.write_text(core.format(0, clock_mhz) + core.format(1, 2000))
        seen.append(openvino_backend.this_cpu())

    assert [Cpu("A CPU", frozenset({"fpu", "avx2"}))] * 2 == seen


@pytest.mark.parametrize(
    "change",
    ["cpu", "cpu flags", "openvino", "threads", "opening score", "int8 form", "bundle"],
)
@pytest.mark.usefixtures("int8")
def test_a_choice_is_of_what_it_depends_on_alone(plain, networks, monkeypatch, change):
    settled(read_auto(plain.path), clock_s=SetClock(FAST_S, SLOW_S))
    keys: dict[str, object] = {}
    flags = openvino_backend.this_cpu().flags
    match change:
        case "cpu":
            monkeypatch.setattr(openvino_backend, "this_cpu", lambda: Cpu("another", flags))
        case "cpu flags":
            own = openvino_backend.this_cpu().name
            monkeypatch.setattr(openvino_backend, "this_cpu", lambda: Cpu(own, flags | {"new"}))
        case "openvino":
            monkeypatch.setattr(openvino_backend, "openvino_version", lambda: "1.0")
        case "threads":
            keys = {"threads": 2}
        case "opening score":
            keys = {"open_score": 0.9}
        case "int8 form":
            written(plain, networks["stranger"])
        case "bundle":
            write_bundle(
                plain.path,
                replace(plain.card, version=9),
                backbone=plain.backbone_path.read_bytes(),
                localizer=plain.localizer_path.read_bytes(),
            )
    clock = SetClock(FAST_S, SLOW_S)
    settled(read_auto(plain.path, **keys), clock_s=clock)

    assert 0 < clock.n_read
    assert 2 == len(kept_files())


@pytest.mark.usefixtures("int8")
def test_where_nothing_can_be_kept_that_is_said_and_the_model_serves(plain, telling, notes):
    cache_dir().mkdir(parents=True)
    (cache_dir() / "precisions").write_text("no folder")
    for _start in range(2):
        notes.clear()
        read = settled(read_auto(plain.path), telling, SetClock(SLOW_S, FAST_S))

        assert "int8" == read.config.precision
        assert "cannot be written" in notes[-1]


@pytest.mark.parametrize("state", ["damaged", "of another model", "not int8"])
def test_a_form_that_cannot_be_used_is_named(plain, int8, telling, notes, state):
    match state:
        case "damaged":
            (int8 / "backbone.onnx").write_bytes(b"damaged")
        case "of another model":
            written(plain, (int8 / "backbone.onnx").read_bytes(), original="0" * 64)
        case "not int8":
            shutil.rmtree(int8)
            convert(plain, "f16", int8, name="plain-int8")
    read = settled(read_auto(plain.path), telling, never)

    assert "f32" == read.config.precision
    (note,) = notes
    assert "int8 is left out: " in note
    assert str(int8) in note
    with pytest.raises(BundleError, match="plain-int8"):
        read_model(a_config(plain.path, precision="int8"))


def test_int8_may_be_asked_for_by_name(plain, int8):
    model = open_model(a_config(plain.path, precision="int8"))
    model.close()

    assert "openvino int8 CPU" == model.backends[0].description
    assert "" == model.choice
    assert check_model(a_config(plain.path, precision="int8")).startswith("tiny@")
    shutil.rmtree(int8)
    with pytest.raises(BundleError, match="has no int8 form plain-int8 here"):
        check_model(a_config(plain.path, precision="int8"))


@pytest.mark.usefixtures("int8")
def test_a_form_is_the_same_model_whose_events_and_features_go_on(plain):
    exact, form = (read_model(a_config(plain.path, precision=p)) for p in ("f32", "int8"))

    assert exact.spec == form.spec
    assert exact.feature_id == form.feature_id
    assert exact.runs.backbone_path != form.runs.backbone_path


@pytest.mark.usefixtures("int8")
async def test_a_daemon_serves_what_was_chosen_and_says_why(plain):
    settled(read_auto(plain.path), clock_s=SetClock(SLOW_S, FAST_S))
    async with a_rig(a_config(plain.path)) as rig:
        rig.swap.want(a_config(plain.path, precision="auto"))
        await rig.until(lambda: rig.count("done") == 1)

        assert "on openvino int8 CPU" in rig.slot.current.description
        assert "int8, the fastest: f32 100.0, int8 50.0" in rig.slot.current.choice
        (swapped,) = rig.logs.named("model.swapped")
        assert rig.slot.current.choice == swapped["precision"]


async def test_a_daemon_logs_what_is_left_out(plain, int8):
    (int8 / "backbone.onnx").write_bytes(b"damaged")
    async with a_rig(a_config(plain.path, precision="auto")) as rig:
        (note,) = rig.logs.named("model.precision_note")

        assert "int8 is left out" in note["reason"]
        assert " f32 " in rig.slot.current.description


@pytest.mark.usefixtures("int8")
def test_a_choice_that_nobody_waits_for_any_more_ends(plain):
    class EnoughError(Exception):
        pass

    def step(words: str) -> None:
        if "turn 3" in words:
            raise EnoughError

    clock = SetClock(SLOW_S, FAST_S)
    with pytest.raises(EnoughError):
        settled(read_auto(plain.path), Telling(step=step), clock)

    assert 2 * 2 * 2 == clock.n_read
    assert not (cache_dir() / "precisions").exists()
