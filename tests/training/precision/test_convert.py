"""A bundle or a run becomes a bundle in lower precision, calibrated on footage."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.bundle.networks import Original
from engine.errors import BundleError, DataError
from engine.spec import Tolerance
from tests.support.footage import colour_clip
from tests.support.real_parts import missing
from tests.support.scripted import a_spec
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_convolutions import (
    some_snippets,
    write_convolutional_bundle,
)
from tests.support.tiny_training import planted, small_config
from training.cli import main
from training.evaluation.recalibrate import Fit, with_opening_scores
from training.feature_files import manifest_of
from training.precision.calibration_clips import Clips, read_clips
from training.precision.convert import convert, likeness, precision_of
from training.precision.int8 import to_int8

pytestmark = pytest.mark.openvino


# Clips


def clips_in(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        colour_clip(folder / f"clip{number}.mp4", [(0.5, 20 * number, 200), (0.5, 200, 0)])
    return folder


def test_snippets_are_spread_over_all_videos_and_some_are_kept_back(tmp_path):
    clips = read_clips([clips_in(tmp_path / "clips", 9)], a_spec(), 27)

    assert 9 == clips.n_videos
    assert (24, 3) == (len(clips.calibration), len(clips.check))  # the fifth video's are apart
    assert {(4, 2, 2, 3)} == {snippet.shape for snippet in clips.calibration}


def test_of_many_videos_some_are_taken(tmp_path):
    clips = read_clips([clips_in(tmp_path / "clips", 6)], a_spec(), 3)

    assert (3, 3) == (clips.n_videos, len(clips.calibration) + len(clips.check))


def test_what_cannot_be_read_is_left_out_and_told(tmp_path):
    folder = clips_in(tmp_path / "clips", 2)
    (folder / "broken.mp4").write_bytes(b"\0" * 100)
    clips = read_clips([folder], a_spec(), 8)

    assert 2 == clips.n_videos
    assert 1 == len(clips.failed)
    assert "broken.mp4" in clips.failed[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing", "there is no such file or folder"),
        (lambda folder: folder, "holds no video; wanted files ending in"),
        (lambda folder: broken(folder / "bad.mp4"), r"bad\.mp4"),
        (lambda folder: short(folder / "short.mp4"), "no video is as long as a snippet, 0.16 s"),
    ],
)
def test_clips_that_are_none_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
):
    with pytest.raises(DataError, match=message):
        read_clips([make(tmp_path)], a_spec(), 8)


def broken(path: Path) -> Path:
    path.write_bytes(os.urandom(1000))
    return path


def short(path: Path) -> Path:
    colour_clip(path, [(0.08, 100, 100)])
    return path


# Bundles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> ModelBundle:
    return ModelBundle.load(write_convolutional_bundle(tmp_path_factory.mktemp("b") / "small"))


def small_clips(count: int = 9) -> Clips:
    snippets = tuple(some_snippets(count, side_px=2))
    return Clips(snippets[1:], snippets[:1], count, ())


@pytest.mark.parametrize("precision", ["f16", "bf16", "int8"])
def test_a_converted_bundle_loads_and_says_what_it_is(tmp_path, bundle, precision):
    path = convert(bundle, precision, tmp_path / "x", name="small-x", clips=small_clips())
    seen = ModelBundle.load(path)

    assert ("small-x", precision) == (seen.name, seen.card.precision)
    assert f"backbone of tiny in {precision}" in seen.card.source
    assert bundle.backbone_sha256 != seen.backbone_sha256
    assert bundle.localizer_path.read_bytes() == seen.localizer_path.read_bytes()
    assert bundle.card.window == seen.card.window
    assert Original(bundle.backbone_sha256, bundle.path.name) == seen.original


def test_a_bundle_with_other_opening_scores_says_where_it_comes_from_too(tmp_path, bundle):
    strict = Tolerance(event_f1_min=1.0)
    path = convert(replace(bundle, tolerance=strict), "bf16", tmp_path / "x", name="x")
    half = ModelBundle.load(path)
    n_classes = len(half.spec.class_names)
    fit = Fit((0.5,) * n_classes, (0.0,) * n_classes, 1.0)
    seen = ModelBundle.load(with_opening_scores(half, fit, tmp_path / "y"))

    assert (strict, half.original) == (seen.tolerance, seen.original)


@pytest.mark.parametrize("command", ["convert", pytest.param("export", marks=pytest.mark.torch)])
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("clips", "clips holds clip0.mp4, which is no part of a bundle and would be lost"),
        ("clips/tags.csv", "tags.csv cannot hold a bundle: Not a directory"),
        ("clips/tags.csv/x/y", "cannot hold a bundle: Not a directory"),
        ("/proc/x/y", "y cannot be written: No such file or directory"),
    ],
)
def test_what_is_not_a_bundle_s_is_never_replaced(
    run, tmp_path, bundle, request, command, out, message
):
    clips = clips_in(tmp_path / "clips", 2)
    (clips / "tags.csv").write_text("mine")
    what = [bundle.path]
    if command == "export":
        what = [request.getfixturevalue("trained"), "--base", bundle.path]
    code, _printed, errors = run(
        command, *what, "--precision", "bf16", "--out", tmp_path / out, "--calibrate", clips
    )

    assert 1 == code
    assert message in errors
    assert 1 == errors.count("\n")
    assert "mine" == (clips / "tags.csv").read_text()


def test_converting_twice_gives_equal_bundles(tmp_path, bundle):
    one, two = (
        ModelBundle.load(convert(bundle, "int8", tmp_path / n, name="x", clips=small_clips()))
        for n in ("one", "two")
    )

    assert one.digest == two.digest


def test_what_is_converted_already_is_not_converted_again(tmp_path, bundle):
    half = ModelBundle.load(convert(bundle, "f16", tmp_path / "half", name="half"))
    with pytest.raises(BundleError, match="half is f16 already: start from the f32 one"):
        convert(half, "int8", tmp_path / "x", name="x", clips=small_clips())


@pytest.mark.parametrize(
    ("precision", "name", "message"),
    [
        ("f32", "x", "wanted another"),
        ("int8", "x", "name some with --calibrate CLIPS"),
        ("f16", "a/b", "bundle a/b: name is 'a/b'"),
    ],
)
def test_what_makes_no_bundle_is_refused(tmp_path, bundle, precision, name, message):
    with pytest.raises(DataError, match=message):
        convert(bundle, precision, tmp_path / "x", name=name)

    assert not (tmp_path / "x").exists()


def test_an_unknown_precision_is_named():
    with pytest.raises(DataError, match="--precision is 'int4', wanted one of 'f32', 'f16'"):
        precision_of("int4")


def test_likeness_is_one_to_oneself_and_none_without_snippets(bundle):
    path = bundle.backbone_path
    seen = likeness(path, path, small_clips().calibration)

    assert 1 == pytest.approx(seen.mean) == pytest.approx(seen.lowest)  # cosines in float64
    assert likeness(path, path, ()) is None


# A run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bundle):
    try:
        from training.learning.train import train  # noqa: PLC0415 - needs torch
    except ImportError as error:
        missing(f"no torch ({error}): pip install 's2netd[training]'")
    out = tmp_path_factory.mktemp("run")
    config = small_config(schedule__length=1)
    train(config, planted(), out, manifest=manifest_of(bundle), device="cpu", threads=1)
    return out


@pytest.mark.torch
@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_a_run_is_exported_in_any_precision(run, tmp_path, bundle, trained, precision):
    clips, out = clips_in(tmp_path / "clips", 2), tmp_path / "mine"
    calibrate = ["--calibrate", clips] if precision == "int8" else []
    code, printed, errors = run(
        *("export", trained, "--base", bundle.path, "--out", out),
        *("--precision", precision, *calibrate, "--snippets", 8),
    )
    written = ModelBundle.load(out)

    assert 0 == code
    assert (precision == "int8") == errors.startswith("so few say little")
    assert precision == written.card.precision
    assert (precision == "f32") == (bundle.backbone_sha256 == written.backbone_sha256)
    assert (precision == "f32") == ("backbone" not in printed)


@pytest.mark.torch
def test_a_converted_backbone_cannot_be_a_name(run, tmp_path, bundle, trained):
    code, _printed, errors = run(
        *("export", trained, "--base", bundle.path, "--out", tmp_path / "x"),
        *("--precision", "bf16", "--without-backbone"),
    )

    assert 1 == code
    assert "a backbone in bf16 is in no published model: export it whole" in errors


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s2net", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


def test_a_user_converts_a_bundle_with_footage_of_his(run, tmp_path, bundle):
    clips, out = clips_in(tmp_path / "clips", 3), tmp_path / "deep" / "small-int8"
    code, printed, errors = run(
        "convert", bundle.path, "--calibrate", clips, "--snippets", 16, "--out", out
    )

    assert (0, "so few say little") == (code, errors.split(":")[0])
    assert "int8" == ModelBundle.load(out).card.precision
    assert f"s2netd engine verify --bundle {out}" in printed
    assert "small-int8@" in printed
    assert "backbone int8" in printed
    assert "features against the original's: cosine" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--precision", "int4"],
            "--precision is 'int4', wanted one of 'f32', 'f16', 'bf16', 'int8'",
        ),
        (["--precision", "int8"], "name some with --calibrate CLIPS"),
        (["--calibrate", "nowhere"], "--calibrate nowhere: there is no such file or folder"),
        (["--precision", "f32", "--calibrate", "."], "--calibrate is for --precision int8"),
        (["--precision", "f32"], "which every bundle starts from"),
    ],
)
def test_a_wrong_command_is_told_in_a_line(run, tmp_path, bundle, arguments, message):
    code, _printed, errors = run("convert", bundle.path, "--out", tmp_path / "x", *arguments)

    assert 1 == code
    assert message in errors
    assert 1 == errors.count("\n")
    assert not (tmp_path / "x").exists()


def test_a_bundle_is_not_converted_onto_itself(run, bundle):
    code, _printed, errors = run(
        "convert", bundle.path, "--precision", "f16", "--out", bundle.path
    )

    assert 1 == code
    assert "is the bundle itself" in errors


def test_a_backbone_without_convolutions_is_refused(run, tmp_path):
    tiny = write_tiny_bundle(tmp_path / "tiny")
    clips = clips_in(tmp_path / "clips", 1)
    code, _printed, errors = run("convert", tiny, "--calibrate", clips, "--out", tmp_path / "x")

    assert 1 == code
    assert "has no convolution" in errors


@pytest.mark.weights
@pytest.mark.shared_data
@pytest.mark.slow
def test_the_real_backbone_reaches_its_goal_on_real_clips(tmp_path, shared_clips):
    """Few snippets, to be quick: with the usual 64 it is closer."""
    try:
        base = ModelBundle.load(resolve_bundle("kinetics400-160"))
    except BundleError as error:
        missing(f"no real weights: {error}")
    clips = read_clips([shared_clips], base.spec, 8)
    quantized = to_int8(base.backbone_path.read_bytes(), clips.calibration[:4])
    path = tmp_path / "int8.onnx"
    path.write_bytes(quantized.network)
    seen = likeness(base.backbone_path, path, clips.check)

    assert 1 == quantized.int8_share
    assert 0.99 < seen.lowest
    assert 0.26 > len(quantized.network) / base.backbone_path.stat().st_size


def test_a_user_makes_a_backbone_separable(run, tmp_path, bundle):
    clips, out = clips_in(tmp_path / "clips", 12), tmp_path / "deep" / "light"
    code, printed, errors = run(
        *("separate", bundle.path, "--calibrate", clips, "--snippets", 120),
        *("--work", 0.95, "--out", out),
    )

    assert (0, "") == (code, errors)
    written = ModelBundle.load(out)
    assert ("f32", "light", None) == (written.card.precision, written.name, written.original)
    assert bundle.feature_id != written.feature_id
    assert "made separable, 0.95 of the work, fitted to" in written.card.source
    assert "convolutions in two" in printed
    assert "features against the original's: cosine" in printed
    assert f"s2net extract VIDEOS --bundle {out}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--work", "1.2"], "--work is 1.2, wanted a share between 0 and 1"),
        (["--work", "nan"], "--work is nan, wanted a share between 0 and 1"),
        (
            ["--work", "0.01"],
            "the work wanted is 0.01 of the original's, but what cannot be split",
        ),
        (["--snippets", "8"], "tell too little of any layer: take more with --snippets"),
    ],
)
def test_what_is_wrong_with_separating_is_told_in_a_line(
    run, tmp_path, bundle, arguments, message
):
    clips = clips_in(tmp_path / "clips", 12)
    code, _printed, errors = run(
        *("separate", bundle.path, "--out", tmp_path / "x", "--calibrate", clips),
        *("--snippets", 120, *arguments),
    )

    assert 1 == code
    assert message in errors
    assert 1 == errors.count("\n")
    assert not (tmp_path / "x").exists()


def test_a_bundle_is_not_separated_onto_itself_nor_from_int8(run, tmp_path, bundle):
    clips = clips_in(tmp_path / "clips", 3)
    code, _printed, errors = run(
        *("separate", bundle.path, "--calibrate", clips, "--out", bundle.path)
    )
    assert 1 == code
    assert "is the bundle itself: choose another folder" in errors

    lower = convert(bundle, "bf16", tmp_path / "lower", name="lower")
    code, _printed, errors = run(
        *("separate", lower, "--calibrate", clips, "--out", tmp_path / "x")
    )
    assert 1 == code
    assert "bundle lower is bf16 already: start from the f32 one" in errors
