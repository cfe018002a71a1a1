"""Own clips: tags, feature files and annotations; every mistake is one line that says the fix."""

import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.judging.truth import TruthSpan
from engine.types import FloatArray, Span
from training.loaders.annotations import read_annotations
from training.loaders.clips import load_annotated, load_clips, load_quiet
from training.loaders.features import check_manifest, load_features, read_manifest
from training.loaders.tags import Tagged, read_tags
from training.records import Point

DIM = 3
MANIFEST = {
    "extractor_sha256": "ab" * 32,
    "fps": 25,
    "snippet_frames": 16,
    "stride_frames": 8,
    "feature_dim": DIM,
}


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(n_rows: int) -> FloatArray:
    return np.arange(n_rows * DIM, dtype=np.float32).reshape(n_rows, DIM)


def write_features(folder: Path, **n_rows: int) -> Path:
    folder.mkdir(exist_ok=True)
    write_text(folder / "manifest.json", json.dumps(MANIFEST))
    for stem, count in n_rows.items():
        np.savez(folder / f"{stem}.npz", features=rows_of(count), indices=np.arange(count))
    return folder


def write_annotations(path: Path, **changes: object) -> Path:
    """Two videos; ``changes`` replace keys of the first one's entry."""
    first = {
        "subset": "validation",
        "duration": 10.0,
        "camera": "yard",
        "annotations": [
            {"segment": [4.0, 6.0], "label": "wave"},
            {"segment": [1.0, 2.5], "label": "jump"},
        ],
        **changes,
    }
    second = {"subset": "quiet", "duration": 8.0, "annotations": []}
    content = {"classes": ["wave", "jump"], "database": {"one": first, "two": second}}
    return write_text(path, json.dumps(content))


def the_line(act: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        act()
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_tags_of_a_table(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "tags.csv",
        "\ufeffvideo, tags ,camera,subset\n"
        "clips/one.mp4,wave; jump;wave,yard,training\n"
        "C:\\clips\\two.MOV,,,\n"
        "\n"
        "door.2,jump\n",
    )

    expected = {
        "one": Tagged(("wave", "jump"), "yard", "training"),
        "two": Tagged((), "", ""),
        "door.2": Tagged(("jump",), "", ""),
    }
    assert expected == read_tags(path)


@pytest.mark.parametrize(
    "text",
    [
        "videos: {a/one.mp4: {tags: [wave, jump], camera: yard}, two: {tags: []}}",
        "videos: [{video: one.mp4, tags: wave;jump, camera: yard}, {video: two, tags: }]",
        "videos:\n  one: {tags: [wave, jump], camera: yard}\n  two: []\n",
    ],
)
def test_tags_of_a_manifest(tmp_path: Path, text: str) -> None:
    path = write_text(tmp_path / "tags.yaml", text)

    expected = {"one": Tagged(("wave", "jump"), "yard", ""), "two": Tagged((), "", "")}
    assert expected == read_tags(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tags.csv", "video,tags\none.mp4,fall@3.2; run ;fall @ 1:00:01.5;fall@0;fall@3.2\n"),
        ("tags.yaml", "videos: {one.mp4: {tags: [fall@3.2, run, fall@0, 'fall@60:01.5']}}"),
    ],
)
def test_clicks_stand_behind_their_tags(tmp_path: Path, name: str, text: str) -> None:
    hour_s = 3601.5
    tagged = read_tags(write_text(tmp_path / name, text))["one"]

    assert ("fall", "run") == tagged.tags
    assert (("fall", 0.0), ("fall", 3.2), ("fall", hour_s)) == tagged.clicks


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters=';@",', categories=["L"]), min_size=1
)


@given(
    st.lists(_NAMES, unique=True, max_size=4),
    st.dictionaries(_NAMES, st.sets(st.integers(0, 10**13 - 1), min_size=1, max_size=3)),
)
def test_what_is_written_of_clicks_is_what_was_read(tags: list[str], clicked) -> None:
    names = tuple(dict.fromkeys([*(tag for tag in tags if tag not in clicked), *clicked]))
    clicks = [(at / 1e6, name) for name, ats in clicked.items() for at in ats]
    tagged = Tagged(names, "yard", "", tuple((name, at) for at, name in sorted(clicks)))
    with tempfile.TemporaryDirectory() as folder:
        path = write_text(
            Path(folder) / "tags.csv", f"video,tags,camera\none,{tagged.cell},yard\n"
        )
        again = read_tags(path)["one"]

    assert set(tagged.tags) == set(again.tags)
    assert tagged.clicks == again.clicks


def test_clicks_become_points_of_their_class(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4)  # its last snippet ends at 1.6 s
    path = write_text(tmp_path / "tags.csv", "video,tags\none,wave;jump@1.5;jump@0.25\n")

    (record,) = load_clips(folder, path).records

    assert (0, 1) == record.tags
    assert (Point(0, 250_000), Point(0, 1_500_000)) == record.points


def test_a_click_beyond_the_video_is_refused_with_its_length(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4)
    path = write_text(tmp_path / "tags.csv", "video,tags\none,jump@2.25\n")
    with pytest.raises(
        DataError, match=r"one: jump was clicked at 2\.25 s, but .* ends at 1\.6 s"
    ):
        load_clips(folder, path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tags.csv", "video,tags\none,fall@\n", "line 2: tag 'fall@' is no class and moment"),
        ("tags.csv", "video,tags\none,@3.2\n", "write fall@3.2 or fall@1:03.2"),
        ("tags.csv", "video,tags\none,fall@3.2s\n", "tag 'fall@3.2s' is no"),
        ("tags.csv", "video,tags\none,fall@-1\n", "tag 'fall@-1' is no"),
        ("tags.csv", "video,tags\none,fall@nan\n", "tag 'fall@nan' is no"),
        ("tags.csv", "video,tags\none,fall@1e5\n", "tag 'fall@1e5' is no"),
        ("tags.csv", "video,tags\none,fall@99999999\n", "tag 'fall@99999999' is no"),
        ("tags.csv", "", "column 'video' is missing"),
        ("tags.csv", "video,tags\n", "lists no video"),
        ("tags.csv", "video,tag\none,wave\n", "column 'tag' is unknown: did you mean 'tags'?"),
        ("tags.csv", "video\none\n", "column 'tags' is missing"),
        ("tags.csv", "video,tags,tags\none,a,b\n", "is there twice"),
        ("tags.csv", "video,tags\none.mp4,a\none,b\n", "line 3: 'one' was listed before"),
        ("tags.csv", "video,tags\none,wave,jump\n", "line 2: has 3 columns, wanted 2"),
        ("tags.csv", "video,tags\n,wave\n", "line 2: names no video"),
        ("tags.csv", 'video,tags\none,"wave\n', "is not CSV"),
        ("tags.yaml", "clips: {}", "has no mapping or list 'videos'"),
        ("tags.yaml", "videos: {}", "lists no video"),
        (
            "tags.yaml",
            "videos: {a: {tags: [x]}, a: {tags: [y]}}",
            "key 'a' stands in line 1 already",
        ),
        ("tags.yaml", "videos: {a: {tags: [on]}}", "tag True is no text"),
        ("tags.yaml", "videos: {a: {tag: [x]}}", "key 'tag' is unknown: did you mean 'tags'?"),
        ("tags.yaml", "videos: {a: {camera: x}}", "has no tags"),
        ("tags.yaml", "videos: [a]", "videos[0]: is 'a'"),
        ("tags.yaml", "videos: {7: {tags: [x]}}", "video is 7, wanted text"),
        ("tags.yaml", "videos: [", "is not YAML: line 1"),
    ],
)
def test_tags_that_cannot_be_used(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = write_text(tmp_path / name, text)

    line = the_line(lambda: read_tags(path))

    assert said in line
    assert str(path) in line


def test_a_missing_or_foreign_table(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("video,tags\none,Tür\n".encode("latin-1"))

    assert "cannot be read" in the_line(lambda: read_tags(tmp_path / "none.csv"))
    assert "save it as UTF-8" in the_line(lambda: read_tags(tmp_path / "latin.csv"))


def test_clips_are_tagged_untagged_and_tagged_as_quiet(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4, two=2, three=1)
    tags = write_text(tmp_path / "tags.csv", "video,tags,camera\none,wave;jump,yard\ntwo,,\n")

    found = load_clips(folder, tags)

    records = {record.name: record for record in found.records}
    assert ("jump", "wave") == found.class_names
    assert DIM == found.feature_dim
    assert 320_000 == found.grid.stride_us
    assert {"one": (0, 1), "two": (), "three": None} == {
        name: record.tags for name, record in records.items()
    }
    assert "yard" == records["one"].camera
    assert 3 * 320_000 + 640_000 == records["one"].duration_us
    assert records["one"].truth is None
    np.testing.assert_array_equal(rows_of(4), records["one"].features)


def test_a_given_class_list_is_kept_and_checked(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=1)
    tags = write_text(tmp_path / "tags.csv", "video,tags\none,Wawe\n")

    line = the_line(lambda: load_clips(folder, tags, ["wave", "jump"]))

    assert "tag 'Wawe' is no class of the list: did you mean 'wave'?" in line
    assert "twice" in the_line(lambda: load_clips(folder, tags, ["a", "a"]))
    write_text(tags, "video,tags\none,jump\n")
    found = load_clips(folder, tags, ["wave", "jump"])
    assert (("wave", "jump"), (1,)) == (found.class_names, found.records[0].tags)


def test_only_quiet_videos_are_nothing_to_learn_from(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=1)
    tags = write_text(tmp_path / "tags.csv", "video,tags\none,\n")

    assert "nothing to learn" in the_line(lambda: load_clips(folder, tags))


def test_subsets_of_a_table(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=1, two=1, three=1)
    tags = write_text(
        tmp_path / "tags.csv", "video,tags,subset\none,wave,training\ntwo,jump,validation\n"
    )

    found = load_clips(folder, tags, subset="validation")

    assert ["two"] == [record.name for record in found.records]
    assert ("jump", "wave") == found.class_names
    line = the_line(lambda: load_clips(folder, tags, subset="trainig"))
    assert "no subset 'trainig': did you mean 'training'?" in line


def test_a_tag_for_a_video_without_features(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=1)
    tags = write_text(tmp_path / "tags.csv", "video,tags\none,wave\nother,wave\n")

    line = the_line(lambda: load_clips(folder, tags))

    assert f"{tags} lists other, but {folder} has no such .npz: run s2net extract" in line


def save(path: Path, **arrays: object) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "indices", "said"),
    [
        (np.full((2, DIM), np.nan, np.float32), [0, 1], "row 0 of 2 holds NaN or infinity"),
        (np.full((2, DIM), np.inf, np.float32), [0, 1], "NaN or infinity"),
        (np.zeros((2, 4), np.float32), [0, 1], "shape (2, 4), wanted (T, 3)"),
        (np.zeros(2, np.float32), [0, 1], "shape (2,), wanted (T, 3)"),
        (np.zeros((2, DIM)), [0, 1], "features are float64, wanted float32"),
        (np.zeros((0, DIM), np.float32), [], "has no snippets"),
        (np.zeros((2, DIM), np.float32), [0], "indices are int64 (1,)"),
        (np.zeros((2, DIM), np.float32), [1, 1], "index 1 in row 1 does not rise"),
        (np.zeros((2, DIM), np.float32), [-1, 1], "index -1 in row 0"),
        (np.array([[{}, 1, 2]], object), [0], "pickled objects, which could run code: refused"),
    ],
)
def test_feature_files_that_cannot_be_used(
    tmp_path: Path, features: object, indices: list[int], said: str
) -> None:
    folder = write_features(tmp_path / "features", good=1)
    save(folder / "bad.npz", features=features, indices=np.array(indices, np.int64))

    found = load_features(folder)  # lazy: the bad one is not opened

    assert 1 == len(found["good"].features)
    line = the_line(lambda: found["bad"])
    assert said in line
    assert "bad.npz" in line


def test_features_whose_indices_have_another_type(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features")
    save(folder / "bad.npz", features=rows_of(2), indices=np.array([0.0, 1.0]))

    assert "indices are float64" in the_line(lambda: load_features(folder)["bad"])


def test_damaged_feature_files(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", good=50)
    whole = (folder / "good.npz").read_bytes()
    bare = io.BytesIO()
    np.save(bare, rows_of(2))
    lone = io.BytesIO()
    np.savez(lone, features=rows_of(2))
    flipped = bytearray(whole)
    flipped[len(flipped) // 4] ^= 0xFF
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"hello",
        "bare_array": bare.getvalue(),
        "no_indices": lone.getvalue(),
        "flipped": bytes(flipped),
    }
    for stem, blob in damaged.items():
        (folder / f"{stem}.npz").write_bytes(blob)
    found = load_features(folder)

    for stem in damaged:
        assert f"{stem}.npz" in the_line(lambda stem=stem: found[stem])


def test_no_pickle_is_ever_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "boom"),)

    folder = write_features(tmp_path / "features")
    save(folder / "bad.npz", features=np.array([Bomb()], object), indices=np.arange(1))

    the_line(lambda: load_features(folder)["bad"])

    assert not (tmp_path / "boom").exists()


def test_a_folder_without_features_or_manifest(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features")

    assert "holds no feature file" in the_line(lambda: load_features(folder))
    assert "has no manifest.json" in the_line(lambda: load_features(tmp_path))
    with pytest.raises(KeyError):
        load_features(write_features(folder, one=1))["other"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": 30}, "fps is 30, wanted a rate whose period"),
        ({"fps": float("nan")}, "fps is nan, wanted a number above 0"),
        ({"fps": "12.5"}, "fps is '12.5'"),
        ({"stride_frames": 17}, "stride_frames is 17"),
        ({"feature_dim": "3"}, "feature_dim is '3'"),
    ],
)
def test_a_manifest_without_a_grid(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = write_features(tmp_path / "features", one=1)
    write_text(folder / "manifest.json", json.dumps({**MANIFEST, **change}))

    assert said in the_line(lambda: load_features(folder))


def test_a_manifest_of_half_the_frames_a_second(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=1)
    write_text(folder / "manifest.json", json.dumps({**MANIFEST, "fps": 12.5}))

    assert 80_000 == load_features(folder).grid.frame_us


def test_features_of_two_extractors_do_not_mix(tmp_path: Path) -> None:
    first = write_features(tmp_path / "first", one=1)
    second = write_features(tmp_path / "second", one=1)
    check_manifest(second, read_manifest(first))
    write_text(second / "manifest.json", json.dumps({**MANIFEST, "stride_frames": 16}))

    line = the_line(lambda: check_manifest(second, read_manifest(first)))

    assert "second/manifest.json: stride_frames is 16, wanted 8: " in line
    assert "run s2net extract again into a new folder" in line


def test_annotated_videos_have_truth_and_tags(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4, two=2)
    path = write_annotations(tmp_path / "annotations.json")

    found = load_annotated(folder, path, ("validation", "quiet"))

    one, two = found.records
    assert ("wave", "jump") == found.class_names
    assert ("one", "yard", 10_000_000, (0, 1)) == (
        one.name,
        one.camera,
        one.duration_us,
        one.tags,
    )
    assert (
        TruthSpan(1, Span(1_000_000, 2_500_000)),
        TruthSpan(0, Span(4_000_000, 6_000_000)),
    ) == one.truth
    assert ((), ()) == (two.tags, two.truth)


def test_a_video_nobody_annotated_has_neither_tags_nor_truth(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4, two=2)
    path = write_annotations(tmp_path / "annotations.json", annotations=None, duration=None)

    (one,) = load_annotated(folder, path, "validation").records

    assert (None, None) == (one.tags, one.truth)
    assert 3 * 320_000 + 640_000 == one.duration_us


def test_annotated_videos_need_features_and_a_known_subset(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4)
    path = write_annotations(tmp_path / "annotations.json")

    assert "lists two, but" in the_line(lambda: load_annotated(folder, path))
    assert "no subset 'quite': did you mean 'quiet'?" in the_line(
        lambda: load_annotated(folder, path, "quite")
    )


LATE = (
    {"segment": [1, 2], "label": "wave"},
    {"segment": [9, 12], "label": "jump"},
    {"segment": [11, 12], "label": "jump"},
)


@pytest.mark.parametrize(
    ("past_end", "ends_s", "said"),
    [
        ("clip", [2, 10], "2 intervals of 1 videos reach past their video and were cut"),
        ("drop", [2], "were left out: one"),
        ("keep", [2, 12, 12], "were kept: one"),
    ],
)
def test_annotations_past_the_end(
    tmp_path: Path, past_end: str, ends_s: list[int], said: str
) -> None:
    folder = write_features(tmp_path / "features", one=4)
    path = write_annotations(tmp_path / "annotations.json", annotations=LATE)
    notes: list[str] = []

    (one,) = load_annotated(
        folder,
        path,
        "validation",
        past_end=past_end,  # type: ignore[arg-type]
        on_note=notes.append,
    ).records

    assert ends_s == [truth.span.end_us // 1_000_000 for truth in one.truth or ()]
    assert (0, 1) == one.tags
    (note,) = notes
    assert said in note


def test_annotations_past_the_end_can_be_refused(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4)
    path = write_annotations(tmp_path / "annotations.json", annotations=LATE)

    line = the_line(lambda: load_annotated(folder, path, "validation", past_end="refuse"))

    assert "one: segment [9.0, 12.0] lies outside the video of 10.0 s" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": [{"segment": [2, 1], "label": "wave"}]}, "does not end after it starts"),
        ({"annotations": [{"segment": [1, 2], "label": "wawe"}]}, "did you mean 'wave'?"),
        ({"annotations": [{"segment": [1], "label": "wave"}]}, "is not"),
        ({"annotations": [{"segment": ["x", 2], "label": "wave"}]}, "segment is 'x'"),
        ({"annotations": [{"segment": [1, 1e99], "label": "wave"}]}, "wanted seconds"),
        ({"annotations": [3]}, "annotation 3 is not"),
        ({"annotations": {}}, "wanted a list"),
        ({"duration": -1}, "duration is -1"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"camera": 1}, "camera is 1, wanted text"),
    ],
)
def test_annotations_that_cannot_be_used(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = write_annotations(tmp_path / "annotations.json", **change)

    line = the_line(lambda: read_annotations(path))

    assert said in line
    assert f"{path}, one" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video,tags", "is not JSON"),
        ("[1]", "holds a list, wanted a JSON object"),
        ("{}", "has no videos under 'database'"),
        ('{"database": {"a": 1}}', "a: is 1"),
        ('{"database": {"a": {}}, "classes": 5}', "classes is 5"),
        ('{"database": {"a": {}}, "classes": ["x", "x"]}', "names 'x' twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: str, said: str) -> None:
    path = write_text(tmp_path / "annotations.json", text)

    assert said in the_line(lambda: read_annotations(path))


def test_of_quiet_footage_only_the_cameras_are_read(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", one=4, two=5)

    assert ["", ""] == [record.camera for record in load_quiet(folder).records]

    write_text(folder / "tags.csv", "video,tags,camera\none,,gate\nelsewhere,wave,gate\n")
    assert ["gate", ""] == [record.camera for record in load_quiet(folder).records]

    write_annotations(folder / "annotations.json", annotations=[])
    records = load_quiet(folder).records
    assert ["yard", ""] == [record.camera for record in records]
    assert [(), ()] == [record.tags for record in records]
    assert [None, None] == [record.truth for record in records]


@pytest.mark.parametrize("name", ["tags.csv", "annotations.json"])
def test_footage_in_which_something_happens_is_no_quiet_footage(tmp_path: Path, name: str) -> None:
    """Such as the clips that are to be learned from, given by mistake."""
    folder = write_features(tmp_path / "features", one=4, two=5)
    if name == "tags.csv":
        write_text(folder / name, "video,tags,camera\none,wave,gate\ntwo,,gate\n")
    else:
        write_annotations(folder / name)

    line = the_line(lambda: load_quiet(folder))

    assert line.startswith(f"{folder / name} says that something happens in one: ")
