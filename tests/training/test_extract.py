"""Feature files: made as the daemon makes features, never half made, never mixed."""

import json
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.errors import BundleError, UnreadableVideoError
from engine.features import BackendFeatureExtractor
from engine.session import StreamSession
from engine.types import Snippet, SnippetFeature
from engine.video.frames import PyAvDecoder
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.scripted import MeanColourExtractor
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.videos import make_video, with_changed_packets
from training.cli import main
from training.extract import extract_video, extract_videos
from training.feature_files import MANIFEST

STRIDE_US = 160_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return ModelBundle.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture(scope="module")
def extractor(bundle: ModelBundle) -> Iterator[BackendFeatureExtractor]:
    pytest.importorskip("openvino")
    backend = open_backend("openvino", bundle.backbone_path, precision="f32", threads=1)
    yield BackendFeatureExtractor(backend, bundle.spec.feature_dim)
    backend.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


class DyingExtractor(MeanColourExtractor):
    """Works for a while, then the power goes."""

    def __init__(self, n_calls: int) -> None:
        self._n_calls = n_calls

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        self._n_calls -= 1
        if self._n_calls < 0:
            raise KeyboardInterrupt
        return super().extract(snippets)


# To the bit: both give the same rows to the same network, one by one.
@pytest.mark.numeric
@pytest.mark.openvino
def test_features_are_bit_for_bit_those_of_the_daemon(bundle, extractor, clip):
    spec = bundle.spec
    session = StreamSession("cam", "e", spec)
    decoder = PyAvDecoder(spec.geometry, spec.grid)
    live = [
        feature
        for chunk in chunks_of(clip, "cam", chunk_s=0.5)
        if not chunk.is_end
        for feature in extractor.extract(session.sample(decoder.decode(chunk)))
    ]
    seen = extract_video(clip, spec, extractor)

    assert [feature.index for feature in live] == seen.indices.tolist()
    assert np.array_equal(np.stack([feature.vector for feature in live]), seen.features)
    assert ((75, 3), np.float32, np.int64) == (
        seen.features.shape,
        seen.features.dtype,
        seen.indices.dtype,
    )


@pytest.mark.openvino
def test_a_row_says_what_its_moment_shows(bundle, extractor, clip):
    seen = extract_video(clip, bundle.spec, extractor)
    centres_s = (seen.indices * STRIDE_US + STRIDE_US / 2) / 1e6
    at_s, start_s = {}, 0.0
    for seconds, red, green in BUSY:
        at_s[start_s, start_s + seconds] = red, green
        start_s += seconds

    for (from_s, until_s), colour in at_s.items():
        inside = (centres_s > from_s + 0.2) & (centres_s < until_s - 0.2)
        assert inside.any()
        assert np.abs(seen.features[inside, :2] - np.array(colour) / 255).max() < 0.03


def test_rows_are_missing_where_footage_is(tmp_path, bundle):
    video = tmp_path / "gap.mp4"
    ticks = [i * 512 for i in [*range(50), *range(150, 200)]]  # 2 s, 4 s of nothing, 2 s
    video.write_bytes(make_video(pts=ticks))
    seen = extract_video(video, bundle.spec, MeanColourExtractor())

    assert [*range(12), *range(38, 50)] == seen.indices.tolist()


def test_a_video_shorter_than_a_snippet_has_no_rows(tmp_path, bundle):
    video = colour_clip(tmp_path / "short.mp4", [(0.08, 9, 9)])
    seen = extract_video(video, bundle.spec, MeanColourExtractor())

    assert ((0, 3), (0,)) == (seen.features.shape, seen.indices.shape)


def test_progress_tells_the_stream_time_and_only_rises(bundle, clip):
    times_us: list[int] = []
    extract_video(clip, bundle.spec, MeanColourExtractor(), times_us.append)

    assert times_us == sorted(set(times_us))
    assert 11_960_000 == times_us[-1]


def test_a_feature_file_holds_what_was_extracted(tmp_path, bundle, clip):
    (path,) = extract_videos([clip], bundle, MeanColourExtractor(), tmp_path / "f")
    wanted = extract_video(clip, bundle.spec, MeanColourExtractor())

    assert tmp_path / "f" / "busy.npz" == path
    with np.load(path, allow_pickle=False) as arrays:
        assert {"features", "indices"} == set(arrays)
        assert np.array_equal(wanted.features, arrays["features"])
        assert np.array_equal(wanted.indices, arrays["indices"])


def test_an_interrupted_extraction_leaves_no_half_file_and_goes_on_where_it_was(tmp_path, bundle):
    videos = [
        colour_clip(tmp_path / f"{name}.mp4", [(4, red, 0)])
        for name, red in (("a", 60), ("b", 120), ("c", 180))
    ]
    out = tmp_path / "f"
    n_batches_a_video = 2  # of 64 frames
    with pytest.raises(KeyboardInterrupt):
        extract_videos(videos, bundle, DyingExtractor(n_batches_a_video + 1), out)
    first = (out / "a.npz").stat()
    assert {"a.npz", MANIFEST} == {path.name for path in out.iterdir()}

    written = extract_videos(videos, bundle, MeanColourExtractor(), out)

    assert ["a.npz", "b.npz", "c.npz"] == [path.name for path in written]
    assert (first.st_mtime_ns, first.st_ino) == (
        (out / "a.npz").stat().st_mtime_ns,
        (out / "a.npz").stat().st_ino,
    )
    reds = [_mean_red(path) for path in written]
    assert np.abs(np.array(reds) - [60, 120, 180]).max() < 8


def test_a_disk_that_is_full_leaves_no_half_file_under_the_final_name(tmp_path, bundle, clip):
    extract_videos([], bundle, MeanColourExtractor(), tmp_path)  # the manifest is there already
    with files_of_at_most(500), pytest.raises(OSError, match="File too large"):
        extract_videos([clip], bundle, MeanColourExtractor(), tmp_path)
    assert not (tmp_path / "busy.npz").exists()

    extract_videos([clip], bundle, MeanColourExtractor(), tmp_path)
    assert {"busy.npz", MANIFEST} == {path.name for path in tmp_path.iterdir()}


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """What is written beyond that fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _mean_red(path: Path) -> float:
    with np.load(path) as arrays:
        return float(arrays["features"][:, 0].mean() * 255)


def test_what_came_before_an_unreadable_video_is_kept(tmp_path, bundle, clip):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    with pytest.raises(UnreadableVideoError, match=r"broken\.mp4"):
        extract_videos([clip, broken], bundle, MeanColourExtractor(), tmp_path / "f")

    assert {"busy.npz", MANIFEST} == {path.name for path in (tmp_path / "f").iterdir()}


def test_the_manifest_names_the_extractor(tmp_path, bundle, clip):
    extract_videos([clip], bundle, MeanColourExtractor(), tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())

    assert manifest == {
        "extractor_sha256": bundle.backbone_sha256,
        "fps": 25,
        "snippet_frames": 4,
        "stride_frames": 4,
        "resize_px": 2,
        "crop_px": 2,
        "fit": "crop",
        "modalities": ["rgb"],
        "feature_dim": 3,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bundle: replace(bundle, backbone_sha256="0" * 64), "extractor_sha256 is"),
        (
            lambda bundle: replace(
                bundle,
                spec=replace(bundle.spec, grid=replace(bundle.spec.grid, stride_frames=2)),
            ),
            "stride_frames is 4, this bundle has 2",
        ),
    ],
)
def test_features_of_two_extractors_are_not_mixed(
    tmp_path, bundle, clip, change: Callable[[ModelBundle], ModelBundle], message
):
    extract_videos([clip], bundle, MeanColourExtractor(), tmp_path)
    before = (tmp_path / MANIFEST).read_bytes()

    with pytest.raises(BundleError, match=message) as caught:
        extract_videos([clip], change(bundle), MeanColourExtractor(), tmp_path)

    assert "choose another --out" in str(caught.value)
    assert before == (tmp_path / MANIFEST).read_bytes()


@pytest.mark.openvino
def test_the_command_writes_a_file_a_video(tmp_path, bundle, clip, monkeypatch, capsys):
    other = colour_clip(tmp_path / "other.mp4", [(1, 9, 9)])
    command = ["s2net", "extract", clip, other, "--bundle", bundle.path, "--out", tmp_path / "f"]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code in (0, None)
    assert f"2 feature file(s) in {tmp_path / 'f'}" in capsys.readouterr().out
    assert {"busy.npz", "other.npz", MANIFEST} == {p.name for p in (tmp_path / "f").iterdir()}


@pytest.mark.openvino
@pytest.mark.parametrize(("most", "code"), [("5", 3), ("50", None)])
def test_too_much_left_out_of_a_video_is_told_with_exit_code_3(
    tmp_path, bundle, monkeypatch, capsys, most, code
):
    ts = make_video(container="mpegts", n_frames=100, gop=50, time_base=Fraction(1, 90_000))
    lossy = tmp_path / "lossy.ts"
    lossy.write_bytes(with_changed_packets(ts, lambda n, payload: payload if n != 60 else None))
    command = ["s2net", "extract", lossy, "--bundle", bundle.path, "--out", tmp_path / "f"]
    command += ["--processes", 1, "--max-lost-percent", most]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    with pytest.raises(SystemExit) as stopped:
        main()

    told = capsys.readouterr()
    assert code == (stopped.value.code or None)
    assert "lossy.ts: 1.6 s (40.0%) in 1 parts were left out: pictures are missing" in told.err
    assert f"1 feature file(s) in {tmp_path / 'f'}" in told.out


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4: No such file"),
        (["missing.mp4", "--bundle", "nope"], "no bundle nope"),
        (["missing.mp4", "--precision", "f64"], "precision is 'f64'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, bundle, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    which = [] if "--bundle" in arguments else ["--bundle", str(bundle.path)]
    monkeypatch.setattr("sys.argv", ["s2net", "extract", *arguments, *which])
    with pytest.raises(SystemExit) as stopped:
        main()

    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert 1 == stopped.value.code
    assert 1 == len(lines)
    assert lines[0].startswith("s2net: ")
    assert message in lines[0]
