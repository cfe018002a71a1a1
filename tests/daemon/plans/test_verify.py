"""`s2netd engine verify`, as a person runs it: a table, an exit code, one clear line."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.plans.verify import NotAlikeError, VerifyOptions, run_verify
from engine.backends import open_backend
from engine.backends.base import EngineBackend, Tensor
from engine.backends.openvino.backend import OpenVinoBackend
from engine.bundle.model_bundle import ModelBundle, write_bundle
from engine.errors import BundleError, DeviceError, UnreadableVideoError
from engine.spec import Tolerance
from tests.support.footage import BUSY, colour_clip
from tests.support.real_parts import missing
from tests.support.tiny_bundle import backbone, localizer, tiny_card, write_tiny_bundle
from tests.support.tiny_convolutions import write_convolutional_bundle
from training.precision.convert import convert

pytestmark = pytest.mark.openvino

Verify = Callable[..., Result]


@pytest.fixture(autouse=True)
def _needs_openvino() -> None:
    if find_spec("openvino") is None:
        missing("no OpenVINO: pip install 's2netd[cpu]'")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return colour_clip(tmp_path / "gate.mp4", BUSY)


@pytest.fixture
def verify() -> Verify:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["engine", "verify", *map(str, arguments)])

    return run


def brighter(folder: Path, white: float, tolerance: Tolerance | None = None) -> Path:
    """The tiny bundle, whose features are larger by 255 / ``white``."""
    network = backbone()
    for node in network.graph.node:
        if list(node.output) == ["white"]:
            value = onnx.numpy_helper.from_array(onnx.numpy_helper.np.float32(white))
            node.attribute[0].t.CopyFrom(value)
    return write_bundle(
        folder,
        tiny_card(),
        backbone=network.SerializeToString(),
        localizer=localizer().SerializeToString(),
        tolerance=tolerance,
    )


def test_the_same_twice_holds_without_any_error(verify: Verify, tiny: Path, video: Path) -> None:
    answer = verify("--bundle", tiny, "--video", video, "--precision", "f32")
    model_id = ModelBundle.load(tiny).model_id
    lines = answer.stdout.splitlines()

    assert 0 == answer.exit_code
    assert f"{model_id} on openvino f32 CPU against {model_id} on openvino f32 CPU" == lines[0]
    assert lines[2].startswith("on gate.mp4: 75 snippets, sha256 ")
    assert "| features | 75 | 0.00e+00 | 0.00e+00 | 1.000000 | 1.000000 |" in lines
    assert lines[-1].startswith("holds, but both sides are the same")


def test_a_bundle_that_sees_otherwise_is_refused(
    verify: Verify, tiny: Path, video: Path, tmp_path: Path
) -> None:
    other = brighter(tmp_path / "other", 200)
    answer = verify("--bundle", tiny, "--candidate-bundle", other, "--video", video)

    assert isinstance(answer.exception, NotAlikeError)
    assert "scores: one is off by" in str(answer.exception)
    assert "\n" not in str(answer.exception)
    assert "does not hold: scores: one is off by" in answer.stdout


def test_a_bundle_s_own_tolerance_decides(tiny: Path, video: Path, tmp_path: Path) -> None:
    def holds(candidate: Path) -> bool:
        options = VerifyOptions(str(tiny), str(candidate), videos=(video,))
        return run_verify(options, Console(stderr=True)).holds

    loose = Tolerance(feature_cosine_min=0.9, score_max_error=0.9, event_f1_min=0.5)
    tight = Tolerance(score_max_error=0)

    assert [False, True] == [
        holds(brighter(tmp_path / "a", 200)),
        holds(brighter(tmp_path / "b", 200, loose)),
    ]
    assert [True, False] == [
        holds(brighter(tmp_path / "c", 253)),
        holds(brighter(tmp_path / "d", 253, tight)),
    ]
    reference = brighter(tmp_path / "tight", 255, tight)
    options = VerifyOptions(str(reference), str(tmp_path / "b"), videos=(video,))
    assert run_verify(options, Console(stderr=True)).holds  # the candidate's, not the reference's


def test_the_candidate_is_tried_in_batches_of_every_size(
    tiny: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: set[int] = set()
    run = OpenVinoBackend.run

    def noted(backend: OpenVinoBackend, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "snippets" in tensors:
            batches.add(len(tensors["snippets"]))
        return run(backend, tensors)

    monkeypatch.setattr(OpenVinoBackend, "run", noted)
    most: set[int] = set()

    def opened(*arguments: Any, **named: Any) -> EngineBackend:
        most.add(named["options"].max_batch)
        return open_backend(*arguments, **named)

    monkeypatch.setattr("daemon.plans.verify.open_backend", opened)
    options = VerifyOptions(str(tiny), videos=(video,), max_batch=6)
    run_verify(options, Console(stderr=True))

    assert ({1, 2, 4, 6}, {6}) == (batches, most)


def test_a_converted_bundle_alone_is_held_to_what_it_was_made_from(
    verify: Verify, video: Path, tmp_path: Path
) -> None:
    plain = ModelBundle.load(write_convolutional_bundle(tmp_path / "plain"))
    half = convert(plain, "bf16", tmp_path / "half", name="half")
    answer = verify("--bundle", half, "--video", video)
    first, last = answer.stdout.splitlines()[0], answer.stdout.splitlines()[-1]

    assert (0, "holds") == (answer.exit_code, last)
    assert "on openvino bf16 as f32 CPU against half@" in first
    assert first.endswith("on openvino f32 CPU")
    shutil.rmtree(plain.path)
    answer = verify("--bundle", half, "--video", video)
    assert "which is not here to compare it with" in str(answer.exception)


def test_a_bundle_of_other_classes_is_not_compared(
    tiny: Path, video: Path, tmp_path: Path
) -> None:
    other = write_bundle(
        tmp_path / "other",
        replace(tiny_card(), class_names=("red", "blue")),
        backbone=backbone().SerializeToString(),
        localizer=localizer().SerializeToString(),
    )
    options = VerifyOptions(str(tiny), str(other), videos=(video,))

    with pytest.raises(BundleError, match=r"its class_names is .'red', 'blue'., wanted"):
        run_verify(options, Console(stderr=True))


def test_machines_can_read_it(verify: Verify, tiny: Path, video: Path) -> None:
    answer = verify("--bundle", tiny, "--video", video, "--json")
    told = json.loads(answer.stdout)

    assert 0 == answer.exit_code
    assert (True, [], 75) == (told["holds"], told["reasons"], told["n_snippets"])
    assert ["features", "cas", "attention", "scores", "video_scores"] == [
        row["output"] for row in told["outputs"]
    ]
    assert 1.0 == told["events"]["f1"]
    assert 0 < told["events"]["n_matched"]


def test_a_part_of_each_video_can_be_asked_for(tiny: Path, video: Path) -> None:
    options = VerifyOptions(str(tiny), videos=(video, video), seconds=5)

    assert 2 * 31 == run_verify(options, Console(stderr=True)).n_snippets


def test_without_footage_a_scene_is_drawn_and_named(tiny: Path) -> None:
    if find_spec("cv2") is None:
        missing("no OpenCV: pip install 's2netd[scenes]'")
    options = VerifyOptions(str(tiny), seconds=5, seed=3)
    first, second = (run_verify(options, Console(stderr=True)) for _ in range(2))

    assert first.golden.startswith("scene 3 on cam4, 5 s, and procedural footage")
    assert 31 + 36 == first.n_snippets
    assert first.golden_sha256 == second.golden_sha256


def test_without_opencv_the_golden_set_is_procedural(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.plans.verify.find_spec", lambda _name: None)
    seen = run_verify(VerifyOptions(str(tiny)), Console(stderr=True))

    assert seen.golden.startswith("procedural footage")
    assert 36 == seen.n_snippets


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"candidate_bundle": "nowhere"}, BundleError, "no bundle nowhere in"),
        ({"videos": (Path("none.mp4"),)}, UnreadableVideoError, r"none\.mp4"),
    ],
)
def test_a_mistake_is_one_clear_line(
    tiny: Path, video: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    asked = {"bundle": str(tiny), "videos": (video,), **changes}
    options = VerifyOptions(**asked)  # type: ignore[arg-type]
    with pytest.raises(error, match=message) as caught:
        run_verify(options, Console(stderr=True))

    assert "\n" not in str(caught.value)


def test_a_precision_that_the_machine_has_not_is_told_in_one_line(
    tiny: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    property_of = openvino.Core.get_property

    def without_bf16(core: Any, device: str, name: str) -> Any:
        seen = property_of(core, device, name)
        return [one for one in seen if one != "BF16"] if "CAPABILITIES" in name else seen

    monkeypatch.setattr(openvino.Core, "get_property", without_bf16)
    options = VerifyOptions(str(tiny), precision="bf16", videos=(video,))
    with pytest.raises(DeviceError, match="precision is bf16, but this CPU has none") as caught:
        run_verify(options, Console(stderr=True))

    assert "\n" not in str(caught.value)


def test_help_tells_what_to_type(verify: Verify) -> None:
    text = " ".join(verify("--help").stdout.split())

    assert "s2netd engine verify --bundle scenes --backend tensorrt" in text
    assert "Exits 1 beyond the bundle's tolerance" in text
